#include "temper/trainer/distill.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "distill_batches.h"
#include "stopwatch.h"
#include "temper/core/error.h"
#include "temper/core/log.h"
#include "temper/core/rng.h"
#include "temper/trainer/offline.h"

namespace temper {
namespace {

// Steps that no run reaches: answers drawn before the first one.
constexpr uint32_t kHeldOutDraw = std::numeric_limits<uint32_t>::max();
constexpr uint32_t kTrainingDraw = kHeldOutDraw - 1;

/// Rows that somebody will answer need a prompt to be answered to.
void check_prompts(const std::vector<DistillRow>& rows, bool on_policy, const std::string& source) {
  for (const DistillRow& row : rows) {
    const bool sampled = on_policy || !row.has_answer();
    TEMPER_CHECK(!sampled || (!row.student.prompt.empty() && !row.teacher_prompt.empty()),
                 "[distill] line ", row.student.line, " of ", source,
                 " has no prompt, and an answer to it is to be sampled");
  }
}

/// Metrics of sampled answers, by TRL's names.
void add_lengths(const std::vector<Sample>& samples, Metrics& m) {
  double tokens = 0, shortest = std::numeric_limits<double>::max(), longest = 0, cut = 0;
  for (const Sample& s : samples) {
    const auto length = static_cast<double>(s.ids.size());
    tokens += length;
    shortest = std::min(shortest, length);
    longest = std::max(longest, length);
    cut += s.finish == Finish::kLength ? 1 : 0;
  }
  const auto count = static_cast<double>(samples.size());
  m["completions/mean_length"] = tokens / count;
  m["completions/min_length"] = shortest;
  m["completions/max_length"] = longest;
  m["completions/clipped_ratio"] = cut / count;
}

}  // namespace

const std::vector<std::string>& teacher_weight_names() {
  static const auto kNames = [] {
    std::vector<std::string> names = weight_dtype_names();
    names.insert(names.begin(), "same");
    return names;
  }();
  return kNames;
}

void DistillConfig::validate() const {
  const auto in_unit = [](const char* key, double value) {
    TEMPER_CHECK(value >= 0 && value <= 1, key, " must be in [0, 1], got ", value);
  };
  in_unit("distill.beta", beta);
  in_unit("distill.lambda", lambda);
  TEMPER_CHECK(beta == 0 || beta == 1 || (beta >= 1e-3 && beta <= 0.999),
               "distill.beta must be 0, 1 or in [0.001, 0.999], got ", beta);
  TEMPER_CHECK(std::isfinite(temperature) && temperature > 0,
               "distill.temperature must be above 0, got ", temperature);
  TEMPER_CHECK(std::isfinite(nll_weight) && nll_weight >= 0,
               "distill.nll_weight must be at least 0, got ", nll_weight);
  TEMPER_CHECK(rows_per_step >= 1, "distill.rows_per_step must be at least 1, got ", rows_per_step);
  TEMPER_CHECK(micro_batch_tokens >= 1, "distill.micro_batch_tokens must be at least 1, got ",
               micro_batch_tokens);
}

DistillTrainer::DistillTrainer(PolicyModel& student, ReferenceModel teacher, Parts parts)
    : student_(student),
      teacher_(std::move(teacher)),
      parts_(std::move(parts)),
      optimizer_(student.lm().parameter_list(), parts_.optimizer, parts_.seed),
      sampler_(parts_.data.rows.size(), parts_.seed, parts_.config.shuffle) {
  parts_.config.validate();
  parts_.rollout.validate();
  const int64_t own = student.lm().config().vocab_size, other = teacher_.lm().config().vocab_size;
  TEMPER_CHECK(own == other, "[distill] the teacher's vocabulary has ", other,
               " ids and the student's ", own,
               ": distributions over different tokens cannot be compared");
  check_prompts(parts_.data.rows, parts_.config.lambda > 0, parts_.data.source);
  check_prompts(parts_.held_out, false, parts_.data.source + " (held out)");
  prefix_ = common_beginning(parts_.data.rows, parts_.held_out);
  teacher_hash_ = weights_hash(teacher_.lm());
  tape_.forward.checkpoint = parts_.config.gradient_checkpointing;
  Metrics unused;
  write_answers(parts_.held_out, false, kHeldOutDraw, unused);
  if (parts_.config.teacher_answers == "once") write_teachers_answers();
}

/// Answers of the teacher to the rows that the run's steps will want them for.
void DistillTrainer::write_teachers_answers() {
  const size_t count = parts_.data.rows.size();
  std::set<size_t> wanted;
  PromptSampler order(count, parts_.seed, parts_.config.shuffle);
  for (int64_t s = 0; s < parts_.total_steps && wanted.size() < count; ++s) {
    for (const size_t i : order.next(static_cast<size_t>(parts_.config.rows_per_step))) {
      if (!samples_itself(s) && !parts_.data.rows[i].has_answer()) wanted.insert(i);
    }
  }
  Rows rows;
  for (const size_t i : wanted) rows.push_back(std::move(parts_.data.rows[i]));
  if (!rows.empty()) log_info("the teacher answers ", rows.size(), " prompts");
  Metrics unused;
  write_answers(rows, false, kTrainingDraw, unused);
  size_t at = 0;
  for (const size_t i : wanted) parts_.data.rows[i] = std::move(rows[at++]);
}

double DistillTrainer::epoch() const {
  return static_cast<double>(step_) * static_cast<double>(parts_.config.rows_per_step) /
         static_cast<double>(parts_.data.rows.size());
}

bool DistillTrainer::samples_itself(int64_t step) const {
  const auto r =
      keyed_random(parts_.seed, RngPurpose::kMinibatch, static_cast<uint32_t>(step), 0, 0);
  return uniform_from_bits(r[0], r[1]) < parts_.config.lambda;
}

/// Samples an answer for each row that has none.
void DistillTrainer::write_answers(Rows& rows, bool student, uint32_t step, Metrics& m) const {
  std::vector<DistillRow*> asked;
  RolloutRequest request{.seed = parts_.seed, .step = step};
  for (DistillRow& row : rows) {
    if (row.has_answer()) continue;
    asked.push_back(&row);
    request.prompts.push_back(student ? row.student.prompt : row.teacher_prompt);
  }
  if (asked.empty()) return;
  RolloutEngine engine(student ? student_.lm() : teacher_.lm(), student_.text(), parts_.rollout);
  const std::vector<Sample> samples = engine.generate(request);
  for (size_t i = 0; i < asked.size(); ++i) asked[i]->student.answers = {{samples[i].ids, {}}};
  add_lengths(samples, m);
}

DistillTrainer::Rows DistillTrainer::rows_of_step(const std::vector<size_t>& list, bool on_policy,
                                                  Metrics& m) const {
  Rows rows;
  for (const size_t i : list) {
    rows.push_back(parts_.data.rows[i]);
    if (on_policy) rows.back().student.answers.clear();
  }
  const Stopwatch watch;
  write_answers(rows, on_policy, static_cast<uint32_t>(step_), m);
  m["on_policy"] = on_policy ? 1 : 0;
  m["time/rollout"] = watch.seconds();
  return rows;
}

DivergenceRequest DistillTrainer::request(const MicroBatch& batch) const {
  return {.tokens = batch.tokens,
          .teacher = teacher_rows(teacher_.lm(), batch.teacher, batch.teacher_rows),
          .beta = parts_.config.beta,
          .temperature = parts_.config.temperature};
}

void DistillTrainer::run_micro_batch(const Rows& rows, double tokens, double nll_weight,
                                     Sums& sums) {
  MicroBatch batch = pack(rows);
  if (batch.row.empty()) return;
  // A token's share does not depend on what else is in its micro-batch.
  const at::Tensor share =
      at::from_blob(batch.weights.data(), {std::ssize(batch.weights)}, at::kFloat) / tokens;
  DivergenceGradients gradients{share, {}};
  if (nll_weight > 0) gradients.logprobs = share * -nll_weight;
  const DivergenceScores scores =
      divergence_train(student_.lm(), batch.student, request(batch), gradients, tape_);
  sums.add(scores, batch, rows, parts_.data.source);
}

Metrics DistillTrainer::step() {
  const Stopwatch watch;
  const PromptSampler::State before = sampler_.state();
  const double rate = learning_rate(parts_.schedule, step_, parts_.total_steps);
  const bool on_policy = samples_itself(step_);
  const double nll_weight = on_policy ? 0 : parts_.config.nll_weight;
  Metrics m;
  Sums sums;
  double tokens = 0;
  try {
    const auto list = sampler_.next(static_cast<size_t>(parts_.config.rows_per_step));
    const Rows rows = rows_of_step(list, on_policy, m);
    const double active = active_tokens(rows);
    student_.lm().set_dropout_step(parts_.seed, optimizer_.steps());
    for (const Rows& part : cut(rows)) run_micro_batch(part, active, nll_weight, sums);
    student_.lm().finish_gradients();
    m["grad_norm"] = optimizer_.step(rate).grad_norm;
    for (const DistillRow& row : rows) tokens += static_cast<double>(row.student.tokens());
  } catch (...) {
    student_.lm().zero_gradients();  // Half a gradient must not end up in the caller's next step.
    sampler_.restore(before);
    throw;
  }
  ++step_;
  num_tokens_ += tokens;
  sums.write_to(m, nll_weight, "");
  m["learning_rate"] = rate;
  m["num_tokens"] = num_tokens_;
  m["epoch"] = epoch();
  m["step_time"] = watch.seconds();
  m["update/tokens_per_second"] = tokens / std::max(1e-9, watch.seconds());
  return m;
}

DistillTrainer::HeldOut DistillTrainer::evaluate() const {
  Sums sums;
  for (const Rows& part : cut(parts_.held_out)) {
    const MicroBatch batch = pack(part);
    if (batch.row.empty()) continue;
    sums.add(divergence(student_.lm(), batch.student, request(batch)), batch, part,
             parts_.data.source + " (held out)");
  }
  HeldOut out{static_cast<int64_t>(sums.tokens), static_cast<int64_t>(sums.agree), {}};
  sums.write_to(out.metrics, parts_.config.nll_weight, "eval/");
  return out;
}

}  // namespace temper
