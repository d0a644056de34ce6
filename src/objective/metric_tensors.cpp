#include "temper/objective/metric_tensors.h"

#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>

namespace temper {

void MetricTensors::add_token_mean(const std::string& name, const PolicyTokens& t,
                                   const at::Tensor& values) {
  entries_.push_back({name, Kind::kMean, t.active, (values.detach() * t.mask).sum()});
}

void MetricTensors::add_row_mean(const std::string& name, const PolicyTokens& t,
                                 const at::Tensor& values) {
  entries_.push_back({name, Kind::kMean, static_cast<double>(t.sequences), values.detach().sum()});
}

void MetricTensors::add_min(const std::string& name, const at::Tensor& values) {
  if (values.numel() > 0) entries_.push_back({name, Kind::kMin, 0, values.detach().min()});
}

void MetricTensors::add_max(const std::string& name, const at::Tensor& values) {
  if (values.numel() > 0) entries_.push_back({name, Kind::kMax, 0, values.detach().max()});
}

void MetricTensors::add_share(const std::string& name, const PolicyTokens& t,
                              const at::Tensor& value) {
  // A mean whose weights add up to 1 over the step is a sum.
  const double weight = static_cast<double>(t.sequences) / std::max(t.totals.sequences, 1.0);
  entries_.push_back({name, Kind::kMean, weight, value.detach()});
}

MetricSums MetricTensors::read() const {
  MetricSums sums;
  if (entries_.empty()) return sums;
  std::vector<at::Tensor> values;
  values.reserve(entries_.size());
  for (const Entry& e : entries_) values.push_back(e.value.to(at::kDouble));
  const at::Tensor host = at::stack(values).cpu();
  const double* value = host.const_data_ptr<double>();
  for (const Entry& e : entries_) {
    const double v = *value++;
    if (e.kind == Kind::kMean) {
      sums.add_mean(e.name, v, e.weight);
    } else if (std::isfinite(v)) {
      e.kind == Kind::kMin ? sums.add_min(e.name, v) : sums.add_max(e.name, v);
    }
  }
  return sums;
}

}  // namespace temper
