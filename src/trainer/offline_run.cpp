#include "temper/trainer/offline_run.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "config_source.h"
#include "run_parts.h"
#include "temper/core/error.h"
#include "temper/core/log.h"
#include "temper/core/threads.h"
#include "temper/ops/reference.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
constexpr const char* kCacheFile = "reference.safetensors";

void check_settings(const OfflineRunConfig& c) {
  check_length(c.trainer, c.eval, c.data.held_out_fraction);
  c.offline.validate();
}

AnswerMask mask_of(const std::string& word) {
  if (word == "all") return AnswerMask::kAll;
  return word == "assistant" ? AnswerMask::kAssistant : AnswerMask::kCompletion;
}

/// What the loss cannot read of single answers.
void check_records(const CompletionData& data, const OfflineNeeds& needs) {
  for (const CompletionRecord& r : data.records) {
    TEMPER_CHECK(!needs.labels || r.label.has_value(), data.source, ":", r.line,
                 ": this loss needs to know whether an answer is desirable: a key \"label\" "
                 "(data.read.label_key) of true or false, or rows of pairs");
    TEMPER_CHECK(!needs.labels || r.weight == 1, data.source, ":", r.line,
                 ": rows of this loss have no weight of their own: it counts by loss.desirable_weight "
                 "and loss.undesirable_weight");
  }
}

TokenizedAnswers tokenize(const OfflineRunConfig& c, const OfflineNeeds& needs,
                          const CompletionData& data, const ModelText& text) {
  if (needs.pairs) return tokenize_answer_pairs(data, text, c.data.limit);
  check_records(data, needs);
  return tokenize_answers(data, text, c.data.limit, mask_of(c.data.loss_on));
}

/// Rows to train on and rows never trained on.
struct OfflineData {
  TokenizedAnswers train;
  TokenizedAnswers held_out;  ///< May be empty.
};

OfflineData read_data(const OfflineRunConfig& c, const OfflineNeeds& needs, const ModelText& text) {
  CompletionReadOptions read = c.data.read;
  if (read.transcripts == "auto" && !text.has_template()) read.transcripts = "text";
  if (!needs.pairs && !needs.labels) read.pairs = "chosen";  // Nobody learns the rejected answer.
  const auto [train, held_out] = read_parts(c.data, c.trainer.seed, [&](const std::string& path) {
    return read_completions(path, read);
  });
  OfflineData out;
  out.train = tokenize(c, needs, train, text);
  if (held_out.records.empty()) return out;
  out.held_out = tokenize(c, needs, held_out, text);
  keep_first(out.held_out.groups, c.eval.pairs);
  return out;
}

OfflineTrainer::Parts trainer_parts(const OfflineRunConfig& c, OfflineData data) {
  OfflineTrainer::Parts p;
  p.config = c.offline;
  p.objective = c.loss.build();
  p.needs = c.loss.needs();
  p.optimizer = c.optimizer;
  p.schedule = c.schedule;
  p.data = std::move(data.train);
  p.held_out = std::move(data.held_out.groups);
  p.seed = static_cast<uint64_t>(c.trainer.seed);
  p.baseline_scale = c.loss.setting("beta");
  p.total_steps = steps_of(c.trainer, p.data.groups.size(), c.offline.rows_per_step);
  return p;
}

/// An offline trainer as a loop sees it.
class OfflineLoop final : public TrainerLoop<OfflineTrainer> {
 public:
  OfflineLoop(OfflineTrainer& trainer, const PolicyModel& policy, const OfflineRunConfig& config,
              int64_t held_out)
      : TrainerLoop(trainer),
        policy_(policy),
        adapter_(config.adapter),
        probe_(AnswerProbe::make(config.probe, policy.text())),
        held_out_(held_out) {}
  Metrics step() override {
    Metrics m = trainer_.step();
    if (probe_) probe_->add_to(m, trainer_.steps_done(), policy_.lm());
    return m;
  }
  std::optional<HeldOutScore> evaluate() override {
    if (held_out_ == 0) return std::nullopt;
    const Metrics m = trainer_.evaluate();
    const auto accuracy = m.find("eval/rewards/accuracies");
    if (accuracy == m.end()) return HeldOutScore{0, 0, m};
    const double right = std::round(accuracy->second * static_cast<double>(held_out_));
    return HeldOutScore{static_cast<int64_t>(right), held_out_, m};
  }
  double goodness(const HeldOutScore& score) const override {
    return -score.metrics.at("eval/loss");
  }
  fs::path save_model(const fs::path& run) const override {
    return save_trained_policy(policy_, adapter_, run);
  }

 private:
  const PolicyModel& policy_;
  const AdapterRunConfig& adapter_;
  std::optional<AnswerProbe> probe_;
  int64_t held_out_;
};

/// The model that the run measures against, before its first step.
ReferenceModel load_reference(const OfflineRunConfig& c) {
  const std::string& spec =
      c.offline.reference_model.empty() ? c.model : c.offline.reference_model;
  return ReferenceModel::load(spec, parse_weight_dtype(c.trainer.weights));
}

/// Sees to it that the trainer can ask a reference: live, or by log-probs kept in a file of the run
/// folder. A resumed run knows by its checkpoint which model that file is of.
void give_reference(const OfflineRunConfig& c, OfflineTrainer& trainer, PolicyModel& policy,
                    const fs::path& folder, const std::optional<Checkpoint>& checkpoint) {
  if (!trainer.wants_reference()) return;
  const bool base = policy.lm().adapter() != nullptr && c.adapter.path.empty();
  // The policy as it stands, or what stays as it is below an adapter that begins at nothing.
  const bool own = c.offline.reference_model.empty() && (base || !checkpoint);
  if (c.offline.reference == "live") {
    trainer.set_reference(!own ? load_reference(c)
                          : base ? ReferenceModel::adapter_off(policy)
                                 : ReferenceModel::copy_of(policy));
    return;
  }
  const fs::path file = folder / kCacheFile;
  const uint64_t known = checkpoint ? OfflineTrainer::cached_model(checkpoint->folder) : 0;
  if (known != 0 && trainer.load_cache(file, known)) return;
  std::optional<ReferenceModel> loaded;
  if (!own) loaded = load_reference(c);
  if (own && base) loaded = ReferenceModel::adapter_off(policy);
  CausalLM& model = loaded ? loaded->lm() : policy.lm();
  const uint64_t hash = weights_hash(model);
  TEMPER_CHECK(known == 0 || hash == known,
               "[resume] the reference is not the model that the run began with");
  if (trainer.load_cache(file, hash)) return;
  log_info("computing the reference's log-probs once for all rows");
  trainer.cache_reference(model, [last = -1](int64_t done, int64_t all) mutable {
    const auto tenth = static_cast<int>(10 * done / std::max<int64_t>(1, all));
    if (tenth > last) log_info("reference: ", done, " of ", all, " rows");
    last = std::max(last, tenth);
  });
  fs::create_directories(folder);
  trainer.save_cache(file, hash);
}

RunResult run(const OfflineRunConfig& c, const RunOptions& options) {
  const auto checkpoint = find_checkpoint(options);
  const auto from = checkpoint ? std::optional(checkpoint->folder) : std::nullopt;
  PolicyModel policy = load_run_policy(c.model, parse_weight_dtype(c.trainer.weights), c.adapter,
                                       static_cast<uint64_t>(c.trainer.seed), from);
  OfflineData data = read_data(c, c.loss.needs(), policy.text());
  const std::string eval_data = data.held_out.source;
  const int64_t held_out = std::ssize(data.held_out.groups);
  OfflineTrainer trainer(policy, trainer_parts(c, std::move(data)));
  OfflineLoop loop(trainer, policy, c, held_out);
  give_reference(c, trainer, policy, options.output, checkpoint);
  if (checkpoint) trainer.load(checkpoint->folder);
  LoopSettings settings =
      loop_settings(c, config_text(c),
                    model_line(c.model, policy, c.trainer.weights, c.trainer.kernels), eval_data);
  return TrainingLoop(loop, std::move(settings), options, checkpoint).run();
}

}  // namespace

const std::vector<OfflineMethod>& offline_methods() {
  static const std::vector<OfflineMethod> kMethods{
      {"sft",
       "Supervised fine-tuning: the model learns to write given answers. A file has one row a line:\n"
       "  {\"prompt\": \"2 + 2 =\", \"completion\": \" 4\"}\n"
       "or {\"messages\": [...]} or {\"text\": \"...\"}.",
       2e-5},
      {"dpo",
       "Direct Preference Optimization: pairs of answers of which one is preferred, measured against\n"
       "the model as it was. A file has one pair a line:\n"
       "  {\"prompt\": \"2 + 2 =\", \"chosen\": \" 4\", \"rejected\": \" 5\"}\n"
       "loss.loss_type picks one of the family's losses, or several with loss.loss_weights.",
       1e-6},
      {"kto",
       "Kahneman-Tversky Optimization: single answers, each said to be desirable or not:\n"
       "  {\"prompt\": \"2 + 2 =\", \"completion\": \" 4\", \"label\": true}\n"
       "A file of pairs is read as two such rows each.",
       1e-6},
      {"orpo",
       "Odds Ratio Preference Optimization: pairs, without a reference model; supervised training on\n"
       "the preferred answers and a term that sets the odds of both apart.",
       1e-6},
      {"simpo",
       "Simple Preference Optimization: pairs, without a reference model; log-probs a token and a\n"
       "margin.",
       1e-6},
      {"cpo",
       "Contrastive Preference Optimization: pairs, without a reference model, and supervised\n"
       "training on the preferred answers.",
       1e-6},
      {"bco",
       "Binary Classifier Optimization: single answers, each said to be desirable or not, against a\n"
       "running mean of the log-ratios.",
       5e-7}};
  return kMethods;
}

OfflineRunConfig read_offline_config(std::string_view method, const std::string& json_text,
                                     const std::string& source,
                                     const std::vector<std::string>& assignments) {
  OfflineRunConfig config;
  config.loss.select(method);
  for (const OfflineMethod& m : offline_methods()) {
    if (m.name == method) config.schedule.learning_rate = m.learning_rate;
  }
  apply_settings(config, parse_config(json_text, source), source, assignments);
  return config;
}

TokenizedAnswers training_rows(const OfflineRunConfig& config, const ModelText& text) {
  return read_data(config, config.loss.needs(), text).train;
}

std::string config_text(OfflineRunConfig config) { return text_of(config); }

std::string describe_batch(const OfflineRunConfig& c) {
  return concat("Trains by ", c.loss.name(), " for ", length_in_words(c.trainer, "rows"), ", ", c.offline.rows_per_step,
                " rows a step, each text at most ", c.data.limit.max_length,
                " tokens, in micro-batches of at most ", c.offline.micro_batch_tokens, " tokens.");
}

RunResult train_offline(const OfflineRunConfig& config, const RunOptions& options) {
  check_named(config.model, options.output);
  TEMPER_CHECK(!config.data.path.empty(), "no rows were named: give the config key \"data.path\"");
  check_settings(config);
  if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
  const ops::KernelScope kernels(config.trainer.kernels);
  return run(config, options);
}

}  // namespace temper
