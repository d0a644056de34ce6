#pragma once

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "rollout_case.h"
#include "temper/objective/offline_objectives.h"

namespace temper {

using Numbers = std::vector<double>;

/// One given answer as tests write it. All vectors have an entry a token.
struct AnswerRow {
  Numbers lp, ref, sharp, mask;  ///< `mask` may be empty: every token counts.
  Numbers prompt;                ///< Log-probs of its prompt, read where it is preferred.
  double label = 0;
};

/// Answers of one optimizer step.
struct AnswerStep {
  std::vector<AnswerRow> rows;
  double baseline = 0;
  bool reference = true;

  [[nodiscard]] static double mask(const AnswerRow& r, size_t t) {
    return r.mask.empty() ? 1.0 : r.mask[t];
  }

  /// What a trainer counts before the step's first backward.
  [[nodiscard]] AnswerTotals totals() const {
    AnswerTotals t;
    t.answers = static_cast<double>(rows.size());
    t.pairs = t.answers / 2;
    t.baseline = baseline;
    for (size_t i = 0; i < rows.size(); ++i) {
      double active = 0;
      for (size_t k = 0; k < rows[i].lp.size(); ++k) active += mask(rows[i], k);
      t.tokens += active;
      if (i % 2 != 0) continue;
      t.chosen_tokens += active;
      t.prompt_tokens += static_cast<double>(rows[i].prompt.size());
    }
    return t;
  }

  [[nodiscard]] AnswerSums sums() const {
    AnswerSums s;
    for (const AnswerRow& r : rows) {
      double now = 0, then = 0;
      for (size_t t = 0; t < r.lp.size(); ++t) {
        if (mask(r, t) == 0) continue;
        now += r.lp[t];
        if (!r.ref.empty()) then += r.ref[t];
      }
      s.logprobs.push_back(now);
      s.ref_logprobs.push_back(then);
    }
    return s;
  }

  /// Answers [first, last) as a micro-batch of the step.
  [[nodiscard]] AnswerBatch batch(size_t first, size_t last,
                                  at::ScalarType dtype = at::kDouble) const {
    Numbers lp, ref, sharp, active, labels, prompt;
    std::vector<int64_t> sequence;
    const auto append = [](Numbers& to, const Numbers& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    for (size_t i = first; i < last; ++i) {
      const AnswerRow& r = rows[i];
      append(lp, r.lp);
      append(ref, r.ref);
      append(sharp, r.sharp);
      for (size_t t = 0; t < r.lp.size(); ++t) active.push_back(mask(r, t));
      sequence.insert(sequence.end(), r.lp.size(), static_cast<int64_t>(i - first));
      labels.push_back(r.label);
      if (i % 2 == 0) append(prompt, r.prompt);
    }
    const auto read = [&](const Numbers& x) { return at::tensor(x, at::kDouble).to(dtype); };
    AnswerBatch b;
    b.logprobs = read(lp).set_requires_grad(true);
    if (reference && ref.size() == lp.size()) b.ref_logprobs = read(ref);
    if (sharp.size() == lp.size()) b.sharp_logprobs = read(sharp);
    b.mask = read(active);
    b.sequence = at::tensor(sequence, at::kLong);
    b.labels = read(labels);
    if (totals().prompt_tokens > 0) b.prompt_logprobs = read(prompt).set_requires_grad(true);
    b.answers = static_cast<int64_t>(last - first);
    b.totals = totals();
    b.totals.first_answer = static_cast<int64_t>(first);
    return b;
  }
  [[nodiscard]] AnswerBatch batch(at::ScalarType dtype = at::kDouble) const {
    return batch(0, rows.size(), dtype);
  }
};

struct AnswerRun {
  double loss = 0;
  Numbers dlp, dprompt;
  Metrics metrics;
};

inline AnswerRun run_answers(const OfflineObjective& objective, const AnswerBatch& b) {
  const LossOutput out = objective(b);
  AnswerRun run;
  run.loss = out.loss.item<double>();
  out.loss.backward();
  run.dlp = to_vector(b.logprobs.grad());
  if (b.prompt_logprobs.defined() && b.prompt_logprobs.grad().defined()) {
    run.dprompt = to_vector(b.prompt_logprobs.grad());
  }
  out.metrics.write_to(run.metrics);
  return run;
}

/// A loss of either table with its settings as "key=value".
inline OfflineLoss answer_loss(const std::string& name,
                               const std::vector<std::string>& settings = {}) {
  const bool online = name == "xpo" || name == "nash_md";
  OfflineLoss loss(name, online ? online_preference_objectives() : offline_objectives());
  for (const std::string& s : settings) config_set(config_fields(loss), s);
  return loss;
}

inline void expect_near(double got, double want, double tolerance, const std::string& what) {
  EXPECT_LE(std::abs(got - want), tolerance * std::max(1.0, std::abs(want)))
      << what << ": got " << got << ", want " << want;
}

inline void expect_near(const Numbers& got, const Numbers& want, double tolerance,
                        const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    expect_near(got[i], want[i], tolerance, concat(what, "[", i, "]"));
  }
}

}  // namespace temper
