#include "temper/trainer/distill_run.h"

#include <optional>
#include <utility>

#include "config_source.h"
#include "run_parts.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/threads.h"
#include "temper/ops/reference.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

void check_settings(const DistillRunConfig& c) {
  check_length(c.trainer, c.eval, c.data.held_out_fraction);
  c.distill.validate();
  c.rollout.validate();
}

/// What the teacher alone is told; empty: nothing.
std::string system_prompt(const DistillConfig& c) {
  const bool from_file = !c.teacher_system_prompt_file.empty();
  TEMPER_CHECK(!from_file || c.teacher_system_prompt.empty(),
               "distill.teacher_system_prompt and distill.teacher_system_prompt_file are both set: "
               "leave one out");
  std::string text = from_file ? read_text_file(c.teacher_system_prompt_file) : c.teacher_system_prompt;
  if (text.empty() && !from_file) return text;
  const size_t last = text.find_last_not_of(" \t\r\n");
  TEMPER_CHECK(last != std::string::npos, from_file ? "distill.teacher_system_prompt_file: " : "",
               from_file ? c.teacher_system_prompt_file : "distill.teacher_system_prompt",
               " has no words");
  text.resize(last + 1);
  return text;
}

/// Settings of how rows are read that follow from where answers come from.
DistillTokens tokens_of(const DistillRunConfig& c) {
  DistillTokens how;
  how.limit = c.data.limit;
  how.system_prompt = system_prompt(c.distill);
  how.needs_prompt = c.distill.lambda > 0;
  if (c.data.loss_on == "all") how.mask = AnswerMask::kAll;
  if (c.data.loss_on == "assistant") how.mask = AnswerMask::kAssistant;
  TEMPER_CHECK(how.mask == AnswerMask::kCompletion || (how.system_prompt.empty() && !how.needs_prompt),
               "data.loss_on=", c.data.loss_on, " learns from what stands in the prompt: with a "
               "teacher's system prompt, or with distill.lambda above 0, leave it at answer");
  TEMPER_CHECK(!c.distill.teacher.empty() || !how.system_prompt.empty(),
               "teacher and student would be the same model reading the same text: name another "
               "model in distill.teacher, or what it is told in distill.teacher_system_prompt");
  return how;
}

/// Rows to train on and rows never trained on.
struct DistillData {
  DistillRows train;
  DistillRows held_out;  ///< May be empty.
};

DistillData read_data(const DistillRunConfig& c, const DistillTokens& how, const ModelText& text) {
  CompletionReadOptions read = c.data.read;
  if (read.transcripts == "auto" && !text.has_template()) read.transcripts = "text";
  if (read.form == "auto") read.form = "any";  // Prompts alone will do: answers are sampled.
  read.pairs = "chosen";
  auto [train, held_out] = read_parts(c.data, c.trainer.seed, [&](const std::string& path) {
    return read_completions(path, read);
  });
  keep_first(held_out.records, c.eval.pairs);
  DistillData out;
  out.train = tokenize_distill_rows(train, text, how);
  if (!held_out.records.empty()) out.held_out = tokenize_distill_rows(held_out, text, how);
  return out;
}

DistillTrainer::Parts trainer_parts(const DistillRunConfig& c, DistillData data) {
  DistillTrainer::Parts p;
  p.config = c.distill;
  p.rollout = c.rollout;
  p.optimizer = c.optimizer;
  p.schedule = c.schedule;
  p.seed = static_cast<uint64_t>(c.trainer.seed);
  p.total_steps = steps_of(c.trainer, data.train.rows.size(), c.distill.rows_per_step);
  p.data = std::move(data.train);
  p.held_out = std::move(data.held_out.rows);
  return p;
}

WeightDType teacher_dtype(const DistillRunConfig& c) {
  const bool same = c.distill.teacher_weights == "same";
  return parse_weight_dtype(same ? c.trainer.weights : c.distill.teacher_weights);
}

/// The frozen teacher: the weights under an adapter where those are meant, else read from its file,
/// for a resumed run too.
ReferenceModel make_teacher(const DistillRunConfig& c, const PolicyModel& student) {
  const std::string& spec = c.distill.teacher.empty() ? c.model : c.distill.teacher;
  if (!c.distill.teacher.empty()) {
    check_same_vocabulary(student.text().tokenizer(), ModelText(open_model(spec)).tokenizer());
  }
  const WeightDType dtype = teacher_dtype(c);
  if (!c.distill.teacher_file.empty()) {
    return ReferenceModel::map_or_write(spec, dtype, c.distill.teacher_file);
  }
  const bool below = c.distill.teacher.empty() && student.lm().adapter() != nullptr;
  if (below && dtype == student.lm().dtype()) return ReferenceModel::adapter_off(student);
  return ReferenceModel::load(spec, dtype);
}

/// A distillation as a loop sees it.
class DistillLoop final : public TrainerLoop<DistillTrainer> {
 public:
  DistillLoop(DistillTrainer& trainer, const PolicyModel& student, const AdapterRunConfig& adapter)
      : TrainerLoop(trainer), student_(student), adapter_(adapter) {}
  Metrics step() override { return trainer_.step(); }
  std::optional<HeldOutScore> evaluate() override {
    if (trainer_.parts().held_out.empty()) return std::nullopt;
    const DistillTrainer::HeldOut h = trainer_.evaluate();
    return HeldOutScore{h.agree, h.tokens, h.metrics};
  }
  double goodness(const HeldOutScore& score) const override {
    return -score.metrics.at("eval/loss");
  }
  fs::path save_model(const fs::path& run) const override {
    return save_trained_policy(student_, adapter_, run);
  }

 private:
  const PolicyModel& student_;
  const AdapterRunConfig& adapter_;
};

/// Both models in a line.
std::string models_line(const DistillRunConfig& c, const PolicyModel& student) {
  return concat(model_line(c.model, student, c.trainer.weights, c.trainer.kernels), "; teacher: ",
                c.distill.teacher.empty() ? "the model itself" : c.distill.teacher);
}

RunResult run(const DistillRunConfig& c, const RunOptions& options) {
  const DistillTokens how = tokens_of(c);
  const auto checkpoint = find_checkpoint(options);
  const auto from = checkpoint ? std::optional(checkpoint->folder) : std::nullopt;
  PolicyModel student = load_run_policy(c.model, parse_weight_dtype(c.trainer.weights), c.adapter,
                                        static_cast<uint64_t>(c.trainer.seed), from);
  DistillData data = read_data(c, how, student.text());
  const std::string eval_data = data.held_out.source;
  DistillTrainer trainer(student, make_teacher(c, student), trainer_parts(c, std::move(data)));
  if (checkpoint) trainer.load(checkpoint->folder);
  DistillLoop loop(trainer, student, c.adapter);
  return TrainingLoop(loop, loop_settings(c, config_text(c), models_line(c, student), eval_data),
                      options, checkpoint)
      .run();
}

}  // namespace

DistillRunConfig read_distill_config(const std::string& json_text, const std::string& source,
                                     const std::vector<std::string>& assignments) {
  DistillRunConfig config;
  apply_settings(config, parse_config(json_text, source), source, assignments);
  return config;
}

std::string config_text(DistillRunConfig config) { return text_of(config); }

std::string describe_batch(const DistillRunConfig& c) {
  return concat("Distils for ", length_in_words(c.trainer, "rows"), ", ", c.distill.rows_per_step, " rows a step, ",
                100 * c.distill.lambda, " % of the steps on the student's own answers of at most ",
                c.rollout.max_new_tokens, " tokens, in micro-batches of at most ",
                c.distill.micro_batch_tokens, " tokens.");
}

RunResult train_distill(const DistillRunConfig& config, const RunOptions& options) {
  check_named(config.model, options.output);
  TEMPER_CHECK(!config.data.path.empty(), "no rows were named: give the config key \"data.path\"");
  check_settings(config);
  if (config.trainer.threads > 0) set_num_threads(static_cast<int>(config.trainer.threads));
  const ops::KernelScope kernels(config.trainer.kernels);
  return run(config, options);
}

}  // namespace temper
