// What a loss over given answers reads: counts of a step, tensors of a micro-batch, and what has to
// be known of the whole step before its first gradient.
#include <ATen/ops/from_blob.h>

#include <algorithm>

#include "offline_rows.h"
#include "temper/core/error.h"
#include "temper/trainer/answer_learner.h"

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

/// Log-probs of every predicted token of some rows, row by row.
std::vector<std::vector<float>> score_rows(CausalLM& model, const std::vector<AnswerGroup>& groups,
                                           const std::vector<size_t>& part) {
  const AnswerTokens packed = pack_rows_of(groups, part);
  const at::Tensor scores =
      score(model, packed.tokens, {packed.rows, packed.targets}, 1.0).logprobs;
  const float* p = scores.const_data_ptr<float>();
  std::vector<std::vector<float>> out;
  for (const size_t i : part) {
    const int64_t n = predicted_tokens(groups[i]);
    out.emplace_back(p, p + n);
    p += n;
  }
  return out;
}

}  // namespace

int64_t predicted_tokens(const AnswerGroup& group) {
  int64_t n = 0;
  for (size_t a = 0; a < group.answers.size(); ++a) n += group.predicted(a);
  return n;
}

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

std::vector<AnswerLearner::RowList> AnswerLearner::cut(const ReferencedRows& rows,
                                                         const RowList& list) const {
  return cut_rows(rows.groups, list, settings_.micro_batch_tokens);
}

AnswerTotals AnswerLearner::totals(const ReferencedRows& rows, const RowList& list) const {
  AnswerTotals t;
  for (const size_t i : list) {
    const AnswerGroup& group = rows.groups[i];
    for (size_t a = 0; a < group.answers.size(); ++a) {
      t.answers += 1;
      t.tokens += static_cast<double>(group.active(a));
      if (a == 0) t.chosen_tokens += static_cast<double>(group.active(a));
    }
    if (settings_.needs.prompt_logprobs && !group.prompt.empty()) {
      t.prompt_tokens += static_cast<double>(group.prompt.size() - 1);
    }
  }
  t.pairs = settings_.needs.pairs ? t.answers / 2 : 0;
  return t;
}

AnswerBatch AnswerLearner::make_batch(const ReferencedRows& rows, const RowList& list,
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
    const AnswerGroup& group = rows.groups[i];
    labels.push_back(static_cast<float>(group.label));
    if (settings_.needs.pairs) labels.push_back(1 - labels.back());
    b.answers += std::ssize(group.answers);
  }
  if (settings_.needs.labels) {
    b.labels = at::from_blob(labels.data(), {std::ssize(labels)}, at::kFloat).clone();
  }
  if (settings_.needs.reference && rows.logprobs.empty()) {
    TEMPER_CHECK(reference_.has_value(), "[learner] this loss compares with a reference, and ",
                 settings_.source, " came with none");
    b.ref_logprobs = score_answers(reference_->lm(), packed, 1.0);
  } else if (settings_.needs.reference) {
    b.ref_logprobs = at::empty({n}, at::kFloat);
    float* to = b.ref_logprobs.data_ptr<float>();
    for (const size_t i : list) to = std::copy(rows.logprobs[i].begin(), rows.logprobs[i].end(), to);
  }
  if (settings_.needs.sharp_logprobs) b.sharp_logprobs = score_answers(policy_.lm(), packed, 0.5);
  b.totals = totals;
  return b;
}

AnswerSums AnswerLearner::answer_sums(const ReferencedRows& rows, const RowList& list) const {
  AnswerSums out;
  for (const RowList& part : cut(rows, list)) {
    const AnswerTokens packed = pack_rows_of(rows.groups, part);
    const at::Tensor now = score_answers(policy_.lm(), packed, 1.0);
    add_sums(packed, now.const_data_ptr<float>(), out.logprobs);
    if (!settings_.needs.reference) continue;
    const AnswerBatch batch = make_batch(rows, part, packed, {});
    add_sums(packed, batch.ref_logprobs.const_data_ptr<float>(), out.ref_logprobs);
  }
  return out;
}

/// z0 of KTO (Ethayarajh et al. 2024, eq. 7): the mean log-ratio of texts nobody wrote together, an
/// estimate of the divergence from the reference, not below 0.
double AnswerLearner::kto_baseline(const ReferencedRows& rows, const RowList& list) const {
  double sum = 0;
  for (const RowList& part : cut_rows(rows.mismatched, list, settings_.micro_batch_tokens)) {
    const AnswerTokens packed = pack_rows_of(rows.mismatched, part);
    std::vector<double> now, then;
    add_sums(packed, score_answers(policy_.lm(), packed, 1.0).const_data_ptr<float>(), now);
    if (rows.mismatched_logprobs.empty()) {
      add_sums(packed, score_answers(reference_->lm(), packed, 1.0).const_data_ptr<float>(), then);
    } else {
      for (const size_t i : part) then.push_back(rows.mismatched_logprobs[i]);
    }
    for (size_t i = 0; i < part.size(); ++i) sum += now[i] - then[i];
  }
  return std::max(0.0, sum / static_cast<double>(list.size()));
}

void AnswerLearner::prepare(const ReferencedRows& rows, const RowList& list, AnswerTotals& totals,
                             AnswerSums& sums, RunningRatio& ratio) const {
  using Baseline = OfflineNeeds::Baseline;
  const Baseline baseline = settings_.needs.baseline;
  if (baseline == Baseline::kKto) totals.baseline = kto_baseline(rows, list);
  if (!settings_.needs.sums && baseline != Baseline::kBco) return;
  sums = answer_sums(rows, list);
  totals.sums = &sums;
  if (baseline != Baseline::kBco) return;
  for (size_t i = 0; i < sums.logprobs.size(); ++i) {
    ratio.sum += settings_.baseline_scale * (sums.logprobs[i] - sums.ref_logprobs[i]);
    ratio.count += 1;
  }
  totals.baseline = ratio.sum / ratio.count;
}

void AnswerLearner::fill_reference(ReferencedRows& rows, const RowList& list, CausalLM& model,
                                   const std::function<void(int64_t)>& done) const {
  rows.logprobs.assign(rows.groups.size(), {});
  for (const RowList& part : cut(rows, list)) {
    auto scores = score_rows(model, rows.groups, part);
    for (size_t i = 0; i < part.size(); ++i) rows.logprobs[part[i]] = std::move(scores[i]);
    if (done) done(std::ssize(part));
  }
  if (rows.mismatched.empty()) return;
  rows.mismatched_logprobs.assign(rows.groups.size(), 0);
  for (const RowList& part : cut_rows(rows.mismatched, list, settings_.micro_batch_tokens)) {
    const auto scores = score_rows(model, rows.mismatched, part);
    for (size_t i = 0; i < part.size(); ++i) {
      double sum = 0;
      for (const float v : scores[i]) sum += static_cast<double>(v);
      rows.mismatched_logprobs[part[i]] = sum;
    }
  }
}

}  // namespace temper
