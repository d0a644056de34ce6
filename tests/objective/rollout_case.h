#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <cstring>
#include <string>
#include <vector>

#include "temper/core/error.h"
#include "temper/core/torch.h"
#include "temper/formats/safetensors.h"
#include "temper/objective/objective.h"

namespace temper {

inline std::vector<double> doubles(const TensorView& view) {
  TEMPER_CHECK(view.dtype == DType::kF64, "expected F64");
  std::vector<double> out(static_cast<size_t>(view.numel()));
  std::memcpy(out.data(), view.data.data(), view.data.size());
  return out;
}

/// Rollouts as rows of a padded rectangle, the way golden files hold them.
struct PaddedRollout {
  int64_t rows = 0;
  int64_t width = 0;
  std::vector<int64_t> length;  ///< [rows] tokens, masked ones included.
  std::vector<double> lp, old, ref, entropy, mask;  ///< [rows * width], or empty: absent.
  std::vector<double> advantages;                   ///< [rows] or [rows * width].

  /// The values of a padded array that are tokens, of rows [first, last).
  [[nodiscard]] std::vector<double> flat(const std::vector<double>& padded, int64_t first,
                                         int64_t last) const {
    std::vector<double> out;
    for (int64_t i = first; i < last; ++i) {
      const auto begin = padded.begin() + i * width;
      out.insert(out.end(), begin, begin + length[static_cast<size_t>(i)]);
    }
    return out;
  }
  [[nodiscard]] std::vector<double> flat(const std::vector<double>& padded) const {
    return flat(padded, 0, rows);
  }
  [[nodiscard]] double active_tokens() const {
    double sum = 0;
    for (const double m : flat(mask)) sum += m;
    return sum;
  }

  /// A micro-batch of rows [first, last), with the totals of all rows.
  [[nodiscard]] RolloutBatch batch(at::ScalarType dtype, int64_t first, int64_t last) const {
    const auto read = [&](const std::vector<double>& x) {
      return x.empty() ? at::Tensor() : at::tensor(flat(x, first, last), at::kDouble).to(dtype);
    };
    RolloutBatch b;
    b.logprobs = read(lp).set_requires_grad(true);
    b.entropy = read(entropy);
    if (b.entropy.defined()) b.entropy.set_requires_grad(true);
    b.old_logprobs = read(old);
    b.ref_logprobs = read(ref);
    b.mask = read(mask);
    if (static_cast<int64_t>(advantages.size()) == rows) {
      b.advantages = at::tensor(std::vector<double>(advantages.begin() + first,
                                                    advantages.begin() + last), at::kDouble)
                         .to(dtype);
    } else {
      b.advantages = read(advantages);
    }
    std::vector<int64_t> sequence;
    for (int64_t i = first; i < last; ++i) {
      sequence.insert(sequence.end(), static_cast<size_t>(length[static_cast<size_t>(i)]),
                      i - first);
    }
    b.sequence = at::tensor(sequence, at::kLong);
    b.sequences = last - first;
    b.totals.tokens = active_tokens();
    b.totals.sequences = static_cast<double>(rows);
    b.totals.max_completion_tokens = 16;
    return b;
  }
  [[nodiscard]] RolloutBatch batch(at::ScalarType dtype = at::kDouble) const {
    return batch(dtype, 0, rows);
  }
};

/// Reads the arrays under `prefix` of a golden data file.
inline PaddedRollout read_rollout(const SafetensorsFile& file, const std::string& prefix) {
  PaddedRollout r;
  const auto read = [&](const char* name) { return doubles(file.at(prefix + "/" + name)); };
  r.rows = file.at(prefix + "/lp").shape.at(0);
  r.width = file.at(prefix + "/lp").shape.at(1);
  r.lp = read("lp");
  r.old = read("old");
  r.ref = read("ref");
  r.entropy = read("entropy");
  r.mask = read("mask");
  r.advantages = read("advantages");
  r.length.resize(static_cast<size_t>(r.rows));
  const TensorView& length = file.at(prefix + "/length");
  std::memcpy(r.length.data(), length.data.data(), length.data.size());
  return r;
}

inline std::string golden_folder() {
  return std::string(TEMPER_SOURCE_DIR) + "/tests/golden/objectives/";
}

inline PaddedRollout golden_rollout(const std::string& prefix) {
  return read_rollout(SafetensorsFile::open(golden_folder() + "data.safetensors"), prefix);
}

struct LossRun {
  double loss = 0;
  std::vector<double> dlp;       ///< [tokens]
  std::vector<double> dentropy;  ///< [tokens], or empty when the loss does not depend on it.
  Metrics metrics;
};

inline std::vector<double> to_vector(const at::Tensor& t) {
  const at::Tensor x = t.to(at::kDouble).contiguous();
  const double* p = x.const_data_ptr<double>();
  return {p, p + x.numel()};
}

/// Loss, gradients and metrics of one micro-batch.
inline LossRun run_loss(const RolloutObjective& objective, const RolloutBatch& b) {
  const LossOutput out = objective(b);
  LossRun run;
  run.loss = out.loss.item<double>();
  out.loss.backward();
  run.dlp = to_vector(b.logprobs.grad());
  if (b.entropy.defined() && b.entropy.grad().defined()) run.dentropy = to_vector(b.entropy.grad());
  out.metrics.write_to(run.metrics);
  return run;
}

}  // namespace temper
