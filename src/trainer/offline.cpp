#include "temper/trainer/offline.h"

#include <algorithm>
#include <utility>

#include "offline_rows.h"
#include "stopwatch.h"
#include "temper/core/error.h"

namespace temper {
namespace {

ReferencedRows with_mismatched(std::vector<AnswerGroup> groups, bool wanted, int64_t block) {
  ReferencedRows rows;
  rows.groups = std::move(groups);
  if (wanted) rows.mismatched = mismatched_rows(rows.groups, block);
  return rows;
}

LearnerSettings learner_settings(const OfflineTrainer::Parts& p) {
  return {p.objective,
          p.needs,
          p.optimizer,
          p.config.micro_batch_tokens,
          p.config.gradient_checkpointing,
          p.baseline_scale,
          p.data.source,
          p.seed};
}

void check_rows(const std::vector<AnswerGroup>& groups, const OfflineNeeds& needs,
                const std::string& source) {
  const size_t wanted = needs.pairs ? 2 : 1;
  for (const AnswerGroup& g : groups) {
    TEMPER_CHECK(g.answers.size() == wanted, "[offline] line ", g.line, " of ", source, " has ",
                 g.answers.size(), " answers, and this loss reads ", wanted);
  }
}

}  // namespace

void OfflineConfig::validate() const {
  TEMPER_CHECK(rows_per_step >= 1, "offline.rows_per_step must be at least 1, got ",
               rows_per_step);
  TEMPER_CHECK(micro_batch_tokens >= 1, "offline.micro_batch_tokens must be at least 1, got ",
               micro_batch_tokens);
  TEMPER_CHECK(ref_sync_every >= 0, "offline.ref_sync_every must be at least 0, got ",
               ref_sync_every);
  TEMPER_CHECK(ref_sync_mix > 0 && ref_sync_mix <= 1, "offline.ref_sync_mix must be in (0, 1], got ",
               ref_sync_mix);
  TEMPER_CHECK(ref_sync_every == 0 || reference == "live",
               "offline.ref_sync_every moves the reference, which a cache cannot follow: set "
               "offline.reference=live");
}

OfflineTrainer::OfflineTrainer(PolicyModel& policy, Parts parts)
    : policy_(policy),
      parts_(std::move(parts)),
      learner_(policy, learner_settings(parts_)),
      sampler_(parts_.data.groups.size(), parts_.seed, parts_.config.shuffle) {
  parts_.config.validate();
  check_rows(parts_.data.groups, parts_.needs, parts_.data.source);
  check_rows(parts_.held_out, parts_.needs, parts_.data.source + " (held out)");
  const bool kto = parts_.needs.baseline == OfflineNeeds::Baseline::kKto;
  TEMPER_CHECK(!kto || parts_.config.rows_per_step >= 2,
               "offline.rows_per_step must be at least 2: KTO's baseline is measured on the answers "
               "of other rows");
  rows_ = with_mismatched(std::move(parts_.data.groups), kto, parts_.config.rows_per_step);
  held_out_ = with_mismatched(std::move(parts_.held_out), kto, parts_.config.rows_per_step);
}

double OfflineTrainer::epoch() const {
  return static_cast<double>(state_.step) * static_cast<double>(parts_.config.rows_per_step) /
         static_cast<double>(rows_.groups.size());
}

bool OfflineTrainer::wants_reference() const {
  return parts_.needs.reference && !learner_.reference() && rows_.logprobs.empty();
}

void OfflineTrainer::set_reference(ReferenceModel reference) {
  TEMPER_CHECK(parts_.config.reference == "live",
               "[offline] a live reference was given, but offline.reference is ",
               parts_.config.reference);
  learner_.reference() = std::move(reference);
}

Metrics OfflineTrainer::step() {
  TEMPER_CHECK(!wants_reference(),
               "[offline] this loss compares with a reference: call set_reference or "
               "cache_reference before the first step");
  const Stopwatch watch;
  const PromptSampler::State before = sampler_.state();
  const RowList list = sampler_.next(static_cast<size_t>(parts_.config.rows_per_step));
  const double rate = learning_rate(parts_.schedule, state_.step, parts_.total_steps);
  Metrics m;
  try {
    m = learner_.step(rows_, list, rate);
  } catch (...) {
    sampler_.restore(before);
    throw;
  }
  state_.step++;
  double tokens = 0;
  for (const size_t i : list) tokens += static_cast<double>(rows_.groups[i].tokens());
  state_.num_tokens += tokens;
  const auto every = parts_.config.ref_sync_every;
  if (learner_.reference() && every > 0 && state_.step % every == 0) {
    learner_.reference()->sync(policy_, parts_.config.ref_sync_mix);
  }
  m["learning_rate"] = rate;
  m["num_tokens"] = state_.num_tokens;
  m["epoch"] = epoch();
  m["step_time"] = watch.seconds();
  m["update/tokens_per_second"] = tokens / std::max(1e-9, watch.seconds());
  return m;
}

Metrics OfflineTrainer::evaluate() const {
  Metrics out;
  if (held_out_.groups.empty()) return out;
  RowList all(held_out_.groups.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  for (const auto& [name, value] : learner_.measure(held_out_, all)) {
    out["eval/" + name] = value;
  }
  return out;
}

}  // namespace temper
