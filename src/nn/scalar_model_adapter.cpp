// Reward and value models that are an adapter and a head over a frozen model.
#include <filesystem>

#include "scored_model.h"
#include "temper/core/error.h"
#include "temper/nn/adapter.h"
#include "temper/nn/scalar_model.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

/// The head of an adapter's folder.
ScalarHead head_of(const PeftAdapter& adapter, int64_t width) {
  TEMPER_CHECK(adapter.config.scores, "[adapter] ", adapter.source,
               ": task_type is not SEQ_CLS: the ", "adapter has no head");
  TEMPER_CHECK((adapter.score.shape == std::vector<int64_t>{1, width}), "[adapter] ",
               adapter.source, ": ", peft_name_score(), " should be [1, ", width,
               "], one label, and has another shape");
  std::vector<float> weight(static_cast<size_t>(width));
  copy_to_float(adapter.score, weight);
  ScalarHead head(width);
  head.set(weight);
  return head;
}

/// A head of zeros where the model has none.
ScoredModel open_base(std::string_view spec, WeightDType dtype) {
  const auto weights = open_model(spec).weights;
  const bool scored = weights->has("score.weight") || weights->has("v_head.summary.weight");
  return scored ? open_scored(spec, dtype, Trainable::kNo)
                : open_language_model(spec, dtype, Trainable::kNo);
}

}  // namespace

bool is_adapter_folder(std::string_view spec) {
  const fs::path folder(spec);
  return fs::exists(folder / "adapter_config.json") && !fs::exists(folder / "config.json");
}

ScoredModel open_scored_adapter(const fs::path& folder, WeightDType dtype, Trainable trainable) {
  const PeftAdapter adapter = open_peft_adapter(folder);
  TEMPER_CHECK(!adapter.config.base_model.empty(), "[adapter] ", adapter.source,
               " names no base model (base_model_name_or_path)");
  return open_scored_adapter(adapter.config.base_model, dtype, folder, trainable);
}

ScoredModel open_scored_adapter(std::string_view spec, WeightDType dtype, const fs::path& folder,
                                Trainable trainable) {
  ScoredModel base = open_language_model(spec, dtype, Trainable::kNo);
  base.head = head_of(open_peft_adapter(folder), base.head.width());
  base.backbone->load_adapter(folder, trainable);
  return base;
}

RewardModel RewardModel::load_with_adapter(std::string_view spec, WeightDType dtype,
                                           AdapterConfig config, uint64_t seed) {
  ScoredModel base = open_base(spec, dtype);
  if (config.base_model.empty()) config.base_model = spec;
  base.backbone->add_adapter(config, seed);
  return RewardModel(std::move(base.backbone), std::move(base.head), std::move(base.source));
}

RewardModel RewardModel::load_with_adapter(std::string_view spec, WeightDType dtype,
                                           const fs::path& folder, Trainable trainable) {
  ScoredModel m = open_scored_adapter(spec, dtype, folder, trainable);
  return RewardModel(std::move(m.backbone), std::move(m.head), std::move(m.source));
}

ValueModel ValueModel::over(const PolicyModel& policy, const AdapterConfig& config, uint64_t seed) {
  std::shared_ptr<CausalLM> lm = policy.lm().without_adapter();
  lm->add_adapter(config, seed);
  ScalarHead head(lm->config().hidden_size);
  return ValueModel(std::move(lm), std::move(head), std::make_shared<ModelSource>(policy.source()));
}

ValueModel ValueModel::over(const PolicyModel& policy, const fs::path& folder) {
  std::shared_ptr<CausalLM> lm = policy.lm().without_adapter();
  ScalarHead head = head_of(open_peft_adapter(folder), lm->config().hidden_size);
  lm->load_adapter(folder, Trainable::kYes);
  return ValueModel(std::move(lm), std::move(head), std::make_shared<ModelSource>(policy.source()));
}

}  // namespace temper
