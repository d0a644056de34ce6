// What a loss over given answers reads: counts of a step, tensors of a micro-batch, and what has to
// be known of the whole step before its first gradient.
#include <ATen/ops/from_blob.h>

#include <algorithm>

#include "offline_rows.h"
#include "temper/core/error.h"
#include "temper/trainer/offline.h"

namespace temper {
namespace {

/// Log-probs [tokens] of some rows' answers by a model, without gradient.
at::Tensor score_answers(CausalLM& model, const AnswerTokens& packed, double temperature) {
  const auto n = static_cast<std::ptrdiff_t>(packed.sequence.size());
  ScoreRequest request{{packed.rows.begin(), packed.rows.begin() + n},
                       {packed.targets.begin(), packed.targets.begin() + n}};
  return score(model, packed.tokens, request, temperature).logprobs;
}

/// Adds each answer's sum of active log-probs to `sums`.
void add_sums(const AnswerTokens& packed, const float* logprobs, std::vector<double>& sums) {
  const size_t first = sums.size();
  for (size_t t = 0; t < packed.sequence.size(); ++t) {
    const size_t at = first + static_cast<size_t>(packed.sequence[t]);
    if (at >= sums.size()) sums.resize(at + 1);
    sums[at] += static_cast<double>(logprobs[t]) * static_cast<double>(packed.mask[t]);
  }
}

}  // namespace

AnswerTokens pack_rows_of(const std::vector<AnswerGroup>& groups, const std::vector<size_t>& list,
                          bool prompts) {
  std::vector<const AnswerGroup*> chosen;
  for (const size_t i : list) chosen.push_back(&groups[i]);
  return pack_answers(chosen, prompts);
}

std::vector<AnswerGroup> mismatched_rows(const std::vector<AnswerGroup>& groups, int64_t block) {
  std::vector<AnswerGroup> out;
  const size_t count = groups.size(), width = static_cast<size_t>(block);
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = i / width * width;
    const size_t last = std::min(begin + width, count) - 1;
    AnswerGroup group = groups[i];
    group.answers = groups[i == begin ? last : i - 1].answers;
    out.push_back(std::move(group));
  }
  return out;
}

std::vector<std::vector<size_t>> cut_rows(const std::vector<AnswerGroup>& groups,
                                          const std::vector<size_t>& list, int64_t limit) {
  std::vector<std::vector<size_t>> out;
  int64_t rows = 0;
  for (const size_t i : list) {
    const int64_t more = groups[i].rows();
    if (out.empty() || rows + more > limit) {
      out.emplace_back();
      rows = 0;
    }
    out.back().push_back(i);
    rows += more;
  }
  return out;
}

std::vector<OfflineTrainer::RowList> OfflineTrainer::cut(const ReferencedRows& rows,
                                                         const RowList& list) const {
  return cut_rows(rows.groups, list, parts_.config.micro_batch_tokens);
}

AnswerTotals OfflineTrainer::totals(const ReferencedRows& rows, const RowList& list) const {
  AnswerTotals t;
  for (const size_t i : list) {
    const AnswerGroup& group = rows.groups[i];
    for (size_t a = 0; a < group.answers.size(); ++a) {
      t.answers += 1;
      t.tokens += static_cast<double>(group.active(a));
      if (a == 0) t.chosen_tokens += static_cast<double>(group.active(a));
    }
    if (parts_.needs.prompt_logprobs && !group.prompt.empty()) {
      t.prompt_tokens += static_cast<double>(group.prompt.size() - 1);
    }
  }
  t.pairs = parts_.needs.pairs ? t.answers / 2 : 0;
  return t;
}

AnswerBatch OfflineTrainer::make_batch(const ReferencedRows& rows, const RowList& list,
                                       const AnswerTokens& packed,
                                       const AnswerTotals& totals) const {
  const int64_t n = std::ssize(packed.sequence);
  AnswerBatch b;
  b.mask = at::empty({n}, at::kFloat);
  std::copy(packed.mask.begin(), packed.mask.end(), b.mask.data_ptr<float>());
  b.sequence = at::empty({n}, at::kLong);
  std::copy(packed.sequence.begin(), packed.sequence.end(), b.sequence.data_ptr<int64_t>());
  std::vector<float> labels;
  for (const size_t i : list) {
    labels.push_back(static_cast<float>(rows.groups[i].label));
    b.answers += std::ssize(rows.groups[i].answers);
  }
  if (parts_.needs.labels) {
    b.labels = at::from_blob(labels.data(), {std::ssize(labels)}, at::kFloat).clone();
  }
  if (parts_.needs.reference && reference_) {
    b.ref_logprobs = score_answers(reference_->lm(), packed, 1.0);
  } else if (parts_.needs.reference) {
    b.ref_logprobs = at::empty({n}, at::kFloat);
    float* to = b.ref_logprobs.data_ptr<float>();
    for (const size_t i : list) to = std::copy(rows.logprobs[i].begin(), rows.logprobs[i].end(), to);
  }
  if (parts_.needs.sharp_logprobs) b.sharp_logprobs = score_answers(policy_.lm(), packed, 0.5);
  b.totals = totals;
  return b;
}

AnswerSums OfflineTrainer::answer_sums(const ReferencedRows& rows, const RowList& list) const {
  AnswerSums out;
  for (const RowList& part : cut(rows, list)) {
    const AnswerTokens packed = pack_rows_of(rows.groups, part);
    const at::Tensor now = score_answers(policy_.lm(), packed, 1.0);
    add_sums(packed, now.const_data_ptr<float>(), out.logprobs);
    if (!parts_.needs.reference) continue;
    const AnswerBatch batch = make_batch(rows, part, packed, {});
    add_sums(packed, batch.ref_logprobs.const_data_ptr<float>(), out.ref_logprobs);
  }
  return out;
}

/// z0 of KTO (Ethayarajh et al. 2024, eq. 7): the mean log-ratio of texts nobody wrote together, an
/// estimate of the divergence from the reference, not below 0.
double OfflineTrainer::kto_baseline(const ReferencedRows& rows, const RowList& list) const {
  double sum = 0;
  for (const RowList& part : cut_rows(rows.mismatched, list, parts_.config.micro_batch_tokens)) {
    const AnswerTokens packed = pack_rows_of(rows.mismatched, part);
    std::vector<double> now, then;
    add_sums(packed, score_answers(policy_.lm(), packed, 1.0).const_data_ptr<float>(), now);
    if (reference_) {
      add_sums(packed, score_answers(reference_->lm(), packed, 1.0).const_data_ptr<float>(), then);
    } else {
      for (const size_t i : part) then.push_back(rows.mismatched_logprobs[i]);
    }
    for (size_t i = 0; i < part.size(); ++i) sum += now[i] - then[i];
  }
  return std::max(0.0, sum / static_cast<double>(list.size()));
}

void OfflineTrainer::prepare(const ReferencedRows& rows, const RowList& list, AnswerTotals& totals,
                             AnswerSums& sums, State& state) const {
  using Baseline = OfflineNeeds::Baseline;
  const Baseline baseline = parts_.needs.baseline;
  if (baseline == Baseline::kKto) totals.baseline = kto_baseline(rows, list);
  if (!parts_.needs.sums && baseline != Baseline::kBco) return;
  sums = answer_sums(rows, list);
  totals.sums = &sums;
  if (baseline != Baseline::kBco) return;
  for (size_t i = 0; i < sums.logprobs.size(); ++i) {
    state.ratio_sum += parts_.baseline_scale * (sums.logprobs[i] - sums.ref_logprobs[i]);
    state.ratio_count += 1;
  }
  totals.baseline = state.ratio_sum / state.ratio_count;
}

}  // namespace temper
