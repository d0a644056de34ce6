#include "temper/trainer/judge.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/nn/scoring.h"

namespace temper {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kNever ? a : a + std::log1p(std::exp(b - a));
}

double log_sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), kNever, log_add);
}

bool compares(const JudgeConfig& c) { return c.mode == "pairwise"; }

JudgeConfig checked(JudgeConfig c) {
  TEMPER_CHECK(c.mode == "pointwise" || c.mode == "pairwise", "judge.mode must be pointwise or pairwise, got \"",
               c.mode, "\"");
  TEMPER_CHECK(c.scale >= 1 && c.scale <= 9, "judge.scale must be 1 to 9, got ", c.scale);
  TEMPER_CHECK(c.calibration >= 0 && c.calibration <= 1, "judge.calibration must be 0 to 1, got ", c.calibration);
  TEMPER_CHECK(c.min_mass >= 0 && c.min_mass <= 1, "judge.min_mass must be 0 to 1, got ", c.min_mass);
  TEMPER_CHECK(c.length_penalty >= 0, "judge.length_penalty must be at least 0, got ", c.length_penalty);
  TEMPER_CHECK(c.truncated == "judged" || c.truncated == "least" || c.truncated == "none",
               "judge.truncated must be judged, least or none, got \"", c.truncated, "\"");
  TEMPER_CHECK(c.max_length >= 1 && c.batch_tokens >= 1,
               "judge.max_length and judge.batch_tokens must be at least 1");
  return c;
}

JudgePrompt make_prompt(const JudgeConfig& c, const ModelText& text) {
  const std::string& shipped = compares(c) ? compare_template() : mark_template();
  const std::vector<std::string> required =
      compares(c) ? std::vector<std::string>{"first", "second"} : std::vector<std::string>{"answer"};
  return {c.template_file.empty() ? shipped : read_text_file(c.template_file), judge_rubric_text(c.rubric),
          c.scale, text, required};
}

/// Pieces in front that two prompts have in common.
size_t shared_pieces(const std::vector<std::vector<int32_t>>& a, const std::vector<std::vector<int32_t>>& b) {
  const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(at.first - a.begin());
}

/// A token tree that is being written: the segments on the way to its last prompt's end.
struct Tree {
  TokenBatch batch;
  std::vector<int32_t> path;

  int32_t append(int32_t parent, std::span<const int32_t> ids) {
    const auto start = static_cast<int32_t>(batch.ids.size());
    int32_t position = 0;
    if (parent >= 0) {
      const Segment& p = batch.segments[static_cast<size_t>(parent)];
      position = batch.positions[static_cast<size_t>(p.start + p.length - 1)] + 1;
    }
    batch.segments.push_back({parent, start, static_cast<int32_t>(ids.size()), -1});
    for (const int32_t id : ids) {
      batch.ids.push_back(id);
      batch.positions.push_back(position++);
    }
    return static_cast<int32_t>(batch.segments.size()) - 1;
  }
  [[nodiscard]] int32_t last_row(int32_t segment) const {
    const Segment& s = batch.segments[static_cast<size_t>(segment)];
    return s.start + s.length - 1;
  }
};

}  // namespace

double Comparison::swap_gap() const { return std::abs(as_shown - (1 - swapped)); }
bool Comparison::consistent() const { return (as_shown > 0.5) == (swapped < 0.5) && as_shown != 0.5; }

ModelJudge::ModelJudge(std::shared_ptr<CausalLM> lm, const ModelText& text, JudgeConfig config)
    : lm_(std::move(lm)),
      tokenizer_(text.tokenizer()),
      config_(checked(std::move(config))),
      prompt_(make_prompt(config_, text)) {
  TEMPER_CHECK(lm_ != nullptr, "[judge] needs a model");
  std::vector<std::string> words = {"A", "B"};
  if (!compares(config_)) {
    words.clear();
    for (int64_t i = 0; i <= config_.scale; ++i) words.push_back(std::to_string(i));
  }
  answers_ = words.size();
  std::vector<std::pair<std::vector<int32_t>, size_t>> seen;
  for (size_t i = 0; i < answers_; ++i) {
    for (const char* before : {"", " "}) {
      const auto ids = prompt_.encode_reply(before + words[i]);
      const auto found = std::ranges::find(seen, ids, &std::pair<std::vector<int32_t>, size_t>::first);
      TEMPER_CHECK(!ids.empty() && (found == seen.end() || found->second == i),
                   "[judge] the model's tokenizer cannot tell \"", words[i], "\" from another answer");
      if (found != seen.end()) continue;
      seen.emplace_back(ids, i);
      add_form(i, ids);
    }
  }
}

void ModelJudge::add_form(size_t answer, const std::vector<int32_t>& ids) {
  Form form{answer, {}};
  int32_t node = -1;
  for (size_t t = 0; t < ids.size(); ++t) {
    const auto same = [&](const Asked& a) { return a.node == node && a.target == ids[t]; };
    auto asked = std::find_if(asked_.begin(), asked_.end(), same);
    if (asked == asked_.end()) asked = asked_.insert(asked_.end(), {node, ids[t]});
    form.asked.push_back(static_cast<size_t>(asked - asked_.begin()));
    if (t + 1 == ids.size()) break;
    const auto next = [&](const Node& n) { return n.parent == node && n.id == ids[t]; };
    auto found = std::find_if(nodes_.begin(), nodes_.end(), next);
    if (found == nodes_.end()) found = nodes_.insert(nodes_.end(), {node, ids[t]});
    node = static_cast<int32_t>(found - nodes_.begin());
  }
  forms_.push_back(std::move(form));
}

int64_t ModelJudge::rows_of(const Pieces& pieces, size_t shared) const {
  int64_t rows = std::ssize(nodes_);
  for (size_t i = shared; i < pieces.size(); ++i) rows += std::ssize(pieces[i]);
  return rows;
}

std::vector<ModelJudge::Answer> ModelJudge::ask(std::span<const JudgeTexts> texts) {
  const int64_t longest = std::min(config_.max_length, lm_->config().max_positions - std::ssize(nodes_));
  std::vector<Answer> out(texts.size());
  std::vector<Pieces> prompts;
  std::vector<size_t> of;
  int64_t rows = 0;
  const auto flush = [&] {
    std::vector<Answer> got;
    ask_batch(prompts, got);
    for (size_t i = 0; i < of.size(); ++i) out[of[i]] = std::move(got[i]);
    prompts.clear();
    of.clear();
    rows = 0;
  };
  for (size_t i = 0; i < texts.size(); ++i) {
    TEMPER_CHECK(!prompt_.shows_reference() || !texts[i].reference.empty(),
                 "[judge] the rubric shows a right answer, and case ", i, " has none");
    Pieces pieces = prompt_.encode(texts[i]);
    if (rows_of(pieces, 0) - std::ssize(nodes_) > longest) continue;
    const auto added = [&] { return rows_of(pieces, prompts.empty() ? 0 : shared_pieces(prompts.back(), pieces)); };
    if (!prompts.empty() && rows + added() > config_.batch_tokens) flush();
    rows += added();
    prompts.push_back(std::move(pieces));
    of.push_back(i);
  }
  if (!prompts.empty()) flush();
  return out;
}

void ModelJudge::ask_batch(std::span<const Pieces> prompts, std::vector<Answer>& out) {
  Tree tree;
  ScoreRequest request;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const Pieces& pieces = prompts[i];
    size_t shared = i == 0 ? 0 : shared_pieces(prompts[i - 1], pieces);
    tree.path.resize(shared);
    for (; shared < pieces.size(); ++shared) {
      tree.path.push_back(tree.append(tree.path.empty() ? -1 : tree.path.back(), pieces[shared]));
    }
    std::vector<int32_t> segments;
    for (const Node& n : nodes_) {
      const int32_t parent = n.parent < 0 ? tree.path.back() : segments[static_cast<size_t>(n.parent)];
      segments.push_back(tree.append(parent, {&n.id, 1}));
    }
    for (const Asked& a : asked_) {
      request.rows.push_back(tree.last_row(a.node < 0 ? tree.path.back() : segments[static_cast<size_t>(a.node)]));
      request.targets.push_back(a.target);
    }
  }
  const at::Tensor logprobs = score(*lm_, tree.batch, request, 1.0).logprobs;
  const float* at = logprobs.data_ptr<float>();
  for (size_t i = 0; i < prompts.size(); ++i, at += asked_.size()) {
    Answer answer(answers_, kNever);
    for (const Form& form : forms_) {
      double sum = 0;
      for (const size_t a : form.asked) sum += double{at[a]};
      answer[form.answer] = log_add(answer[form.answer], sum);
    }
    out.push_back(std::move(answer));
  }
}

/// The empty case last, where calibration wants one.
std::vector<ModelJudge::Answer> ModelJudge::ask_with_empty(std::vector<JudgeTexts> texts) {
  if (config_.calibration > 0 && !texts.empty()) texts.push_back({"N/A", "N/A", "N/A", "N/A"});
  auto out = ask(texts);
  if (config_.calibration == 0) out.emplace_back(answers_, 0.0);
  TEMPER_CHECK(texts.empty() || !out.back().empty(),
               "[judge] the template alone has more than judge.max_length tokens");
  return out;
}

std::vector<double> ModelJudge::shares(const Answer& answer, const Answer& empty_case) const {
  std::vector<double> s = answer;
  for (size_t i = 0; i < s.size(); ++i) s[i] -= config_.calibration * empty_case[i];
  const double total = log_sum(s);
  for (double& v : s) v = std::exp(v - total);
  return s;
}

std::optional<JudgeOutcome> ModelJudge::refused(const Answer& answer, double& mass) const {
  if (answer.empty()) return JudgeOutcome::kTooLong;
  mass = std::exp(log_sum(answer));
  if (!(mass >= config_.min_mass)) return JudgeOutcome::kUnclear;
  return std::nullopt;
}

void ModelJudge::count(JudgeOutcome outcome) {
  switch (outcome) {
    case JudgeOutcome::kJudged: ++tally_.judged; break;
    case JudgeOutcome::kTruncated: ++tally_.truncated; break;
    case JudgeOutcome::kUnclear: ++tally_.unclear; break;
    case JudgeOutcome::kTooLong: ++tally_.too_long; break;
  }
}

int64_t ModelJudge::length_of(const std::string& answer) const {
  return std::ssize(tokenizer_.encode(answer));
}

std::vector<Mark> ModelJudge::mark(std::span<const JudgeCase> cases) {
  TEMPER_CHECK(!compares(config_), "[judge] judge.mode is pairwise: compare answers, or set pointwise");
  std::vector<Mark> marks(cases.size());
  std::vector<JudgeTexts> texts;
  std::vector<size_t> of;
  for (size_t i = 0; i < cases.size(); ++i) {
    marks[i].length = length_of(cases[i].texts.answer);
    if (cases[i].truncated && config_.truncated != "judged") {
      marks[i].outcome = JudgeOutcome::kTruncated;
      if (config_.truncated == "least") {
        marks[i].value = -config_.length_penalty * static_cast<double>(marks[i].length) / 100;
      }
      continue;
    }
    texts.push_back(cases[i].texts);
    of.push_back(i);
  }
  const auto answers = ask_with_empty(std::move(texts));
  for (size_t i = 0; i < of.size(); ++i) {
    Mark& m = marks[of[i]];
    if (const auto why = refused(answers[i], m.mass)) {
      m.outcome = *why;
      continue;
    }
    m.share = shares(answers[i], answers.back());
    m.value = -config_.length_penalty * static_cast<double>(m.length) / 100;
    for (size_t k = 0; k < m.share.size(); ++k) m.value += m.share[k] * static_cast<double>(k);
  }
  for (const Mark& m : marks) count(m.outcome);
  return marks;
}

void ModelJudge::finish(Comparison& c, const JudgePair& pair, std::span<const Answer> both,
                        const Answer& empty_case) const {
  double masses[2] = {0, 0};
  for (const int order : {0, 1}) {
    if (const auto why = refused(both[static_cast<size_t>(order)], masses[order])) c.outcome = *why;
  }
  c.mass = std::min(masses[0], masses[1]);
  if (c.outcome != JudgeOutcome::kJudged) return;
  c.as_shown = shares(both[0], empty_case)[0];
  c.swapped = shares(both[1], empty_case)[0];
  c.p_first = (c.as_shown + 1 - c.swapped) / 2;
  if (config_.length_penalty == 0) return;
  const auto longer = static_cast<double>(length_of(pair.texts.answer) - length_of(pair.texts.other));
  const double odds = std::log(c.p_first / (1 - c.p_first)) - config_.length_penalty * longer / 100;
  c.p_first = 1 / (1 + std::exp(-odds));
}

std::vector<Comparison> ModelJudge::compare(std::span<const JudgePair> pairs) {
  TEMPER_CHECK(compares(config_), "[judge] judge.mode is pointwise: ask for marks, or set pairwise");
  std::vector<Comparison> out(pairs.size());
  std::vector<JudgeTexts> texts;
  std::vector<size_t> of;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const JudgePair& p = pairs[i];
    if ((p.first_truncated || p.second_truncated) && config_.truncated != "judged") {
      out[i].outcome = JudgeOutcome::kTruncated;
      if (config_.truncated == "least") {
        out[i].p_first = p.first_truncated == p.second_truncated ? 0.5 : p.second_truncated ? 1 : 0;
      }
      continue;
    }
    texts.push_back(p.texts);
    texts.push_back(p.texts);
    std::swap(texts.back().answer, texts.back().other);
    of.push_back(i);
  }
  const auto answers = ask_with_empty(std::move(texts));
  for (size_t i = 0; i < of.size(); ++i) {
    finish(out[of[i]], pairs[of[i]], std::span(answers).subspan(2 * i, 2), answers.back());
  }
  for (const Comparison& c : out) {
    count(c.outcome);
    if (c.outcome == JudgeOutcome::kJudged && c.consistent()) ++tally_.consistent;
  }
  return out;
}

}  // namespace temper
