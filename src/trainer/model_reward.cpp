#include "temper/trainer/model_reward.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "temper/core/error.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

/// Nothing for an id without a token.
std::optional<std::string> token_of(const Tokenizer& t, int32_t id) {
  try {
    return t.id_to_token(id);
  } catch (const Error&) {
    return std::nullopt;
  }
}

using Ids = std::vector<int32_t>;

constexpr EncodeOptions kPlain{.add_special_tokens = true, .allow_special = false};

/// What the model reads for a completion, cut where its prompt ends.
struct ReadText {
  Ids prompt, rest;
};

/// What stands around the completions of one prompt.
struct Frame {
  Ids prompt;
  Ids tail;  ///< What the chat template writes behind an assistant's turn, the end token first.
};

Json messages_of(const Completion& c) {
  Json messages = Json::array();
  for (const ChatMessage& m : as_messages(*c.example)) {
    messages.push_back({{"role", m.role}, {"content", m.content}});
  }
  return messages;
}

/// Nothing where the template does not write an answer as it stands behind the prompt.
Ids tail_of(const ModelText& text, Json messages) {
  const std::string content = "x";
  const std::string begin = text.render(messages) + content;
  messages.push_back({{"role", "assistant"}, {"content", content}});
  const std::string whole = text.render_finished(messages);
  return whole.starts_with(begin) ? text.encode_rendered(whole.substr(begin.size())) : Ids();
}

/// Reads completions for one model, and remembers the frame of the last prompt.
class Reader {
 public:
  Reader(const ModelText& text, bool same_tokens) : text_(text), same_(same_tokens) {}

  ReadText read(const Completion& c) {
    const bool converses = text_.has_template() && c.example != nullptr;
    if (!same_ && !converses) return read_plain(c);
    if (!frame_ || c.prompt != last_.prompt || c.example != last_.example) {
      frame_ = same_ ? sampled_frame(c) : conversation_frame(c);
      last_ = {.prompt = c.prompt, .text = "", .ids = {}, .truncated = false, .example = c.example};
    }
    Ids rest = same_ ? Ids(c.ids.begin(), c.ids.end()) : text_.tokenizer().encode(c.text);
    size_t from = 0;
    if (same_) from = sampled_of_tail(rest);
    if (!c.truncated) {
      rest.insert(rest.end(), frame_->tail.begin() + static_cast<std::ptrdiff_t>(from),
                  frame_->tail.end());
    }
    return {frame_->prompt, std::move(rest)};
  }

 private:
  /// Ids of the tail that are in the sampled ids already: the end token, or all of it where another
  /// end token was sampled. None where a stop text ended the completion.
  size_t sampled_of_tail(const Ids& sampled) const {
    const Ids& tail = frame_->tail;
    if (sampled.empty() || tail.empty()) return 0;
    if (sampled.back() == tail.front()) return 1;
    return std::ranges::binary_search(text_.eos_ids(), sampled.back()) ? tail.size() : 0;
  }

  /// The prompt's ids as the trainer made them for the policy.
  Frame sampled_frame(const Completion& c) const {
    if (c.example != nullptr && c.example->messages.empty()) {
      const auto end = text_.eos_id();
      return {text_.tokenizer().encode(c.prompt, kPlain), end ? Ids{*end} : Ids()};
    }
    const bool converses = text_.has_template() && c.example != nullptr;
    return {text_.encode_rendered(c.prompt), converses ? tail_of(text_, messages_of(c)) : Ids()};
  }

  Frame conversation_frame(const Completion& c) const {
    const Json messages = messages_of(c);
    Frame frame{text_.encode_rendered(text_.render(messages)), tail_of(text_, messages)};
    const auto end = text_.eos_id();
    if (frame.tail.empty() && end) frame.tail.push_back(*end);
    return frame;
  }

  /// Prompt and completion as one text; the prompt is shared where its ids begin the whole's.
  ReadText read_plain(const Completion& c) const {
    Ids whole = text_.tokenizer().encode(c.prompt + c.text, kPlain);
    const auto end = text_.eos_id();
    if (end && !c.truncated && (whole.empty() || whole.back() != *end)) whole.push_back(*end);
    Ids prompt = text_.tokenizer().encode(c.prompt, kPlain);
    if (prompt.size() > whole.size() || !std::equal(prompt.begin(), prompt.end(), whole.begin())) {
      prompt.clear();
    }
    Ids rest(whole.begin() + std::ssize(prompt), whole.end());
    return {std::move(prompt), std::move(rest)};
  }

  const ModelText& text_;
  bool same_;
  std::optional<Frame> frame_;
  Completion last_;
};

/// Scores [models][completions].
using ScoresFn = std::function<std::vector<std::vector<float>>(std::span<const Completion>)>;

/// For models over one backbone, which runs once for all of them.
ScoresFn scores_by_models(std::vector<std::shared_ptr<RewardModel>> models, const ModelText& policy,
                          int64_t max_tokens) {
  const bool same = same_tokens(models.front()->text().tokenizer(), policy.tokenizer());
  return [models = std::move(models), same, max_tokens](std::span<const Completion> completions) {
    Reader reader(models.front()->text(), same);
    std::vector<ReadText> texts;
    for (const Completion& c : completions) texts.push_back(reader.read(c));
    std::vector<PromptedText> spans;
    for (const ReadText& t : texts) spans.push_back({t.prompt, t.rest});
    std::vector<RewardModel*> all;
    for (const auto& model : models) all.push_back(model.get());
    return RewardModel::score_together(all, spans, max_tokens);
  };
}

/// The rule over each column of scores [members][completions].
std::vector<float> combine_all(const std::vector<std::vector<float>>& scores, size_t completions,
                               const EnsembleOptions& options) {
  std::vector<float> out, row(scores.size());
  for (size_t i = 0; i < completions; ++i) {
    for (size_t m = 0; m < row.size(); ++m) row[m] = scores[m][i];
    out.push_back(combine_scores(row, options));
  }
  return out;
}

void check_ensemble(size_t members, const EnsembleOptions& options) {
  TEMPER_CHECK(members > 0, "[ensemble_reward] needs at least one reward");
  TEMPER_CHECK(options.weight >= 0, "[ensemble_reward] weight must be at least 0, got ",
               options.weight);
}

}  // namespace

bool same_tokens(const Tokenizer& a, const Tokenizer& b) {
  if (a.vocab_size() != b.vocab_size()) return false;
  for (int32_t id = 0; id < a.vocab_size(); ++id) {
    if (token_of(a, id) != token_of(b, id)) return false;
  }
  return true;
}

RewardFn reward_model_fn(std::shared_ptr<RewardModel> model, const ModelText& policy,
                         int64_t max_tokens) {
  TEMPER_CHECK(model != nullptr, "[reward_model_fn] needs a model");
  TEMPER_CHECK(max_tokens > 0, "[reward_model_fn] max_tokens must be positive, got ", max_tokens);
  return [by_models = scores_by_models({std::move(model)}, policy, max_tokens)](
             std::span<const Completion> completions) { return by_models(completions).front(); };
}

float combine_scores(std::span<const float> scores, const EnsembleOptions& options) {
  TEMPER_CHECK(!scores.empty(), "[combine_scores] there are no scores");
  double sum = 0, least = std::numeric_limits<double>::infinity();
  for (const float s : scores) {
    if (std::isnan(s)) return std::numeric_limits<float>::quiet_NaN();
    sum += double{s};
    least = std::min(least, double{s});
  }
  const double n = static_cast<double>(scores.size());
  const double mean = sum / n;
  double squares = 0;
  for (const float s : scores) squares += (double{s} - mean) * (double{s} - mean);
  const double variance = squares / n;
  switch (options.rule) {
    case EnsembleRule::kMean: return static_cast<float>(mean);
    case EnsembleRule::kMin: return static_cast<float>(least);
    case EnsembleRule::kMeanMinusStd:
      return static_cast<float>(mean - options.weight * std::sqrt(variance));
    case EnsembleRule::kMeanMinusVariance:
      return static_cast<float>(mean - options.weight * variance);
  }
  fail("[combine_scores] no such rule");
}

RewardFn ensemble_reward(std::vector<RewardFn> members, EnsembleOptions options) {
  check_ensemble(members.size(), options);
  return [members = std::move(members), options](std::span<const Completion> completions) {
    std::vector<std::vector<float>> scores;
    for (const RewardFn& member : members) {
      scores.push_back(member(completions));
      TEMPER_CHECK(scores.back().size() == completions.size(), "[ensemble_reward] a member gave ",
                   scores.back().size(), " scores for ", completions.size(), " completions");
    }
    return combine_all(scores, completions.size(), options);
  };
}

RewardFn ensemble_reward(const std::vector<std::shared_ptr<RewardModel>>& models,
                         const ModelText& policy, EnsembleOptions options) {
  check_ensemble(models.size(), options);
  const auto shares = [&](const auto& m) {
    return m != nullptr && models.front() != nullptr &&
           m->shared_backbone() == models.front()->shared_backbone();
  };
  if (std::all_of(models.begin(), models.end(), shares)) {
    return [by_models = scores_by_models(models, policy, RewardModel::kScoreTokens),
            options](std::span<const Completion> completions) {
      return combine_all(by_models(completions), completions.size(), options);
    };
  }
  std::vector<RewardFn> members;
  for (const auto& model : models) members.push_back(reward_model_fn(model, policy));
  return ensemble_reward(std::move(members), options);
}

}  // namespace temper
