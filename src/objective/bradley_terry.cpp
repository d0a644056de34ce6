#include "temper/objective/bradley_terry.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "temper/core/error.h"

namespace temper {
namespace {

void check(const ScoredPairs& b, const BradleyTerry::Config& config) {
  TEMPER_CHECK(b.chosen.defined() && b.chosen.dim() == 1 && b.chosen.is_floating_point() &&
                   b.chosen.size(0) >= 1,
               "[bradley_terry] chosen must be a floating tensor [pairs] with at least one pair");
  const int64_t n = b.chosen.size(0);
  TEMPER_CHECK(b.rejected.defined() && b.rejected.dim() == 1 && b.rejected.size(0) == n,
               "[bradley_terry] rejected must have shape [", n, "], as chosen has");
  TEMPER_CHECK(!b.margin.defined() || (b.margin.dim() == 1 && b.margin.size(0) == n),
               "[bradley_terry] margin must have shape [", n, "], as chosen has");
  TEMPER_CHECK(b.total >= static_cast<double>(n), "[bradley_terry] the step has ", b.total,
               " pairs, fewer than the ", n, " of this micro-batch");
  TEMPER_CHECK(std::isfinite(config.center_coef) && config.center_coef >= 0,
               "[bradley_terry] center_coef must be finite and at least 0, got ",
               config.center_coef);
  TEMPER_CHECK(config.label_smoothing >= 0 && config.label_smoothing < 0.5,
               "[bradley_terry] label_smoothing must be in [0, 0.5), got ", config.label_smoothing);
}

}  // namespace

LossOutput BradleyTerry::operator()(const ScoredPairs& b) const {
  check(b, config);
  const at::Tensor chosen = b.chosen.to(at::kDouble);
  const at::Tensor rejected = b.rejected.to(at::kDouble);
  const at::Tensor difference = chosen - rejected;
  const at::Tensor z = b.margin.defined() ? difference - b.margin.to(at::kDouble) : difference;
  const double e = config.label_smoothing;
  at::Tensor loss = -(1.0 - e) * at::log_sigmoid(z);
  if (e > 0) loss = loss - e * at::log_sigmoid(-z);
  if (config.center_coef > 0) loss = loss + config.center_coef * (chosen + rejected).square();

  const at::Tensor both = at::cat({chosen.detach(), rejected.detach()});
  const at::Tensor host = at::stack({difference.detach().gt(0).to(at::kDouble).sum(),
                                     difference.detach().sum(), both.sum(), both.min(), both.max()})
                              .cpu();
  const double* sums = host.const_data_ptr<double>();
  const double pairs = static_cast<double>(b.chosen.size(0));
  LossOutput out;
  out.loss = loss.sum() / b.total;
  out.metrics.add_mean("accuracy", sums[0], pairs);
  out.metrics.add_mean("margin", sums[1], pairs);
  out.metrics.add_mean("mean_reward", sums[2], 2 * pairs);
  out.metrics.add_min("min_reward", sums[3]);
  out.metrics.add_max("max_reward", sums[4]);
  return out;
}

double calibration_error(std::span<const double> differences, int64_t bins) {
  TEMPER_CHECK(!differences.empty() && bins >= 1,
               "[calibration_error] expected at least one pair and one bin");
  struct Bin {
    double probability = 0;
    double right = 0;
  };
  std::vector<Bin> sums(static_cast<size_t>(bins));
  for (const double d : differences) {
    TEMPER_CHECK(!std::isnan(d), "[calibration_error] a difference is NaN");
    const double p = 1.0 / (1.0 + std::exp(-std::abs(d)));
    const auto at = static_cast<int64_t>((p - 0.5) * 2.0 * static_cast<double>(bins));
    Bin& bin = sums[static_cast<size_t>(std::min(at, bins - 1))];
    bin.probability += p;
    bin.right += d > 0 ? 1.0 : d < 0 ? 0.0 : 0.5;
  }
  double error = 0;
  for (const Bin& bin : sums) error += std::abs(bin.probability - bin.right);
  return error / static_cast<double>(differences.size());
}

}  // namespace temper
