// Where reward and value models come from, and the scoring of whole texts.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "model_weights.h"
#include "scored_model.h"
#include "temper/core/error.h"
#include "temper/nn/scalar_model.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

/// Labels as config.json states them; nothing where it is silent.
std::optional<int64_t> stated_labels(const std::string& config_json) {
  const Json config = Json::parse(config_json, nullptr, false);
  if (!config.is_object()) return std::nullopt;
  if (const auto it = config.find("num_labels"); it != config.end() && it->is_number_integer()) {
    return it->get<int64_t>();
  }
  const auto it = config.find("id2label");
  if (it == config.end() || !it->is_object()) return std::nullopt;
  return static_cast<int64_t>(it->size());
}

ScalarHead read_head(const ModelSource& source) {
  const WeightSource& w = *source.weights;
  const auto name = [&](const char* kind) {
    for (const std::string head : {"score.", "v_head.summary."}) {
      if (w.has(head + kind)) return head + kind;
    }
    return std::string();
  };
  const std::string weight = name("weight"), bias = name("bias");
  TEMPER_CHECK(!weight.empty(), "[load] ", source.path,
               " has no head: expected score.weight of a sequence-classification model or "
               "v_head.summary.weight of a value model; from_language_model adds one to a language "
               "model");
  const auto labels = stated_labels(source.config_json);
  TEMPER_CHECK(!labels || *labels == 1 || weight != "score.weight", "[load] ", source.path,
               "/config.json: num_labels must be 1, got ", *labels);
  const int64_t width = source.config.hidden_size;
  const auto shape = w.shape(weight);
  TEMPER_CHECK((shape == std::vector<int64_t>{1, width}), "[load] ", source.path, ": ", weight,
               " should be [1, ", width, "], one label, and has another shape");
  std::vector<float> values(static_cast<size_t>(width));
  w.read_float(weight, values);
  float offset = 0;
  if (!bias.empty()) {
    TEMPER_CHECK((w.shape(bias) == std::vector<int64_t>{1}), "[load] ", source.path, ": ", bias,
                 " should be [1] and has another shape");
    w.read_float(bias, {&offset, 1});
  }
  ScalarHead head(width, !bias.empty());
  head.set(values, offset);
  return head;
}

template <class Model>
Model make(ScoredModel opened) {
  return Model(std::move(opened.backbone), std::move(opened.head), std::move(opened.source));
}

/// A forward's worth of texts, and the row of each one's last token.
struct ScoreBatch {
  TokenBatch tokens;
  std::vector<int32_t> last;

  /// Returns the segment's index, or `parent` for an empty piece.
  int32_t append(int32_t parent, std::span<const int32_t> ids, size_t position) {
    if (ids.empty()) return parent;
    tokens.segments.push_back(
        {parent, static_cast<int32_t>(tokens.ids.size()), static_cast<int32_t>(ids.size()), -1});
    for (const int32_t id : ids) {
      tokens.ids.push_back(id);
      tokens.positions.push_back(static_cast<int32_t>(position++));
    }
    return static_cast<int32_t>(tokens.segments.size()) - 1;
  }
};

/// Packs texts from `next` on until the budget is used; at least one.
ScoreBatch pack(std::span<const PromptedText> texts, size_t& next, int64_t max_tokens) {
  ScoreBatch b;
  int32_t prompt = -1;
  for (const size_t first = next; next < texts.size(); ++next) {
    const PromptedText& t = texts[next];
    TEMPER_CHECK(!t.prompt.empty() || !t.completion.empty(), "[score] text ", next, " is empty");
    const bool shared = next > first && std::ranges::equal(t.prompt, texts[next - 1].prompt);
    const int64_t added = std::ssize(t.completion) + (shared ? 0 : std::ssize(t.prompt));
    if (next > first && b.tokens.rows() + added > max_tokens) break;
    if (!shared) prompt = b.append(-1, t.prompt, 0);
    const int32_t end = b.append(prompt, t.completion, t.prompt.size());
    const Segment& segment = b.tokens.segments[static_cast<size_t>(end)];
    b.last.push_back(segment.start + segment.length - 1);
  }
  return b;
}

}  // namespace

ScoredModel open_scored(std::string_view spec, WeightDType dtype, Trainable trainable) {
  if (is_adapter_folder(spec))
    return open_scored_adapter(std::filesystem::path(spec), dtype, trainable);
  auto source = std::make_shared<ModelSource>(open_model(spec));
  ScalarHead head = read_head(*source);
  const std::string prefix = "pretrained_model.";
  if (source->weights->has(prefix + "model.embed_tokens.weight")) {
    source->weights = without_prefix(source->weights, prefix);
  }
  auto lm = std::make_shared<CausalLM>(*source, dtype, trainable, LmParts::kBackbone);
  source->weights.reset();  // Unmaps the file: all of it would count as this process's memory.
  return {std::move(lm), std::move(head), std::move(source)};
}

ScoredModel open_language_model(std::string_view spec, WeightDType dtype, Trainable trainable) {
  auto source = std::make_shared<ModelSource>(open_model(spec));
  auto lm = std::make_shared<CausalLM>(*source, dtype, trainable, LmParts::kBackbone);
  source->weights.reset();
  ScalarHead head(source->config.hidden_size);
  return {std::move(lm), std::move(head), std::move(source)};
}

RewardModel RewardModel::load(std::string_view spec, WeightDType dtype, Trainable trainable) {
  return make<RewardModel>(open_scored(spec, dtype, trainable));
}

RewardModel RewardModel::from_language_model(std::string_view spec, WeightDType dtype,
                                             Trainable trainable) {
  return make<RewardModel>(open_language_model(spec, dtype, trainable));
}

RewardModel RewardModel::with_new_head() const {
  return RewardModel(backbone_, ScalarHead(head_.width(), head_.has_bias()), source_);
}

std::vector<float> RewardModel::score(std::span<const std::vector<int32_t>> texts) {
  std::vector<PromptedText> all;
  for (const auto& text : texts) all.push_back({{}, text});
  return score(all);
}

std::vector<float> RewardModel::score(std::span<const PromptedText> texts, int64_t max_tokens) {
  RewardModel* const self = this;
  return score_together({&self, 1}, texts, max_tokens).front();
}

std::vector<std::vector<float>> RewardModel::score_together(std::span<RewardModel* const> models,
                                                            std::span<const PromptedText> texts,
                                                            int64_t max_tokens) {
  TEMPER_CHECK(max_tokens > 0, "[score] max_tokens must be positive, got ", max_tokens);
  TEMPER_CHECK(!models.empty(), "[score] there are no models");
  CausalLM& backbone = models.front()->backbone();
  for (const RewardModel* model : models) {
    TEMPER_CHECK(&model->backbone() == &backbone, "[score] the models have different backbones");
  }
  std::vector<std::vector<float>> out(models.size());
  for (size_t next = 0; next < texts.size();) {
    const ScoreBatch b = pack(texts, next, max_tokens);
    const at::Tensor hidden = backbone.forward(b.tokens);
    for (size_t m = 0; m < models.size(); ++m) {
      const at::Tensor v = models[m]->head().values(hidden, b.last);
      const float* from = v.const_data_ptr<float>();
      out[m].insert(out[m].end(), from, from + v.numel());
    }
  }
  return out;
}

ValueModel ValueModel::copy_of(const RewardModel& reward, Trainable trainable,
                               std::optional<WeightDType> dtype) {
  const CausalLM& from = reward.backbone();
  ModelSource current = reward.source();
  current.weights = weights_of(from);
  auto lm = std::make_shared<CausalLM>(current, dtype.value_or(from.dtype()), trainable,
                                       LmParts::kBackbone);
  ScalarHead head(from.config().hidden_size, reward.head().has_bias());
  head.set(reward.head().weight(), reward.head().bias());
  return ValueModel(std::move(lm), std::move(head), reward.shared_source());
}

ValueModel ValueModel::load(std::string_view spec, WeightDType dtype, Trainable trainable) {
  return make<ValueModel>(open_scored(spec, dtype, trainable));
}

ValueModel ValueModel::from_language_model(std::string_view spec, WeightDType dtype,
                                           Trainable trainable) {
  return make<ValueModel>(open_language_model(spec, dtype, trainable));
}

}  // namespace temper
