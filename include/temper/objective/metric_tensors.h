#pragma once

#include <string>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/objective/policy_tokens.h"

namespace temper {

/// Collects a loss's metrics as tensors and reads them all at once: a device is waited for once a
/// micro-batch, not once a number. Values carry no gradient here, whatever they came with.
class MetricTensors {
 public:
  /// Mean over active tokens; `values` is [N].
  void add_token_mean(const std::string& name, const PolicyTokens& t, const at::Tensor& values);
  /// Mean over completions, fully masked ones included; `values` is [B].
  void add_row_mean(const std::string& name, const PolicyTokens& t, const at::Tensor& values);
  /// Smallest and largest value of `values`; an infinite one (no value) is left out.
  void add_min(const std::string& name, const at::Tensor& values);
  void add_max(const std::string& name, const at::Tensor& values);
  /// A part of the step's total: parts of all micro-batches are summed.
  void add_share(const std::string& name, const PolicyTokens& t, const at::Tensor& value);

  /// The numbers. Waits for the device.
  [[nodiscard]] MetricSums read() const;

 private:
  enum class Kind { kMean, kMin, kMax };
  struct Entry {
    std::string name;
    Kind kind;
    double weight;
    at::Tensor value;
  };
  std::vector<Entry> entries_;
};

}  // namespace temper
