#include "temper/objective/value_loss.h"

#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "temper/core/error.h"
#include "temper/kernels/masked_stats.h"

namespace temper {
namespace {

void check_tokens(const at::Tensor& x, const char* name, int64_t n) {
  TEMPER_CHECK(x.defined() && x.dim() == 1 && x.size(0) == n, "[value_loss] ", name,
               " must have shape [", n, "] (tokens), got ",
               x.defined() ? concat(x.dim(), " dimensions and ", x.numel(), " values") : "nothing");
}

void check(const ValueBatch& b, const ValueLossConfig& config) {
  TEMPER_CHECK(b.values.defined() && b.values.dim() == 1 && b.values.is_floating_point(),
               "[value_loss] values must be a floating tensor of shape [tokens]");
  const int64_t n = b.values.size(0);
  check_tokens(b.returns, "returns", n);
  check_tokens(b.mask, "mask", n);
  if (config.clip >= 0) check_tokens(b.old_values, "old_values", n);
  TEMPER_CHECK(!std::isnan(config.clip), "[value_loss] clip is NaN; a negative value means off");
  TEMPER_CHECK(std::isfinite(config.coef) && config.coef >= 0,
               "[value_loss] coef must be finite and at least 0, got ", config.coef);
}

}  // namespace

LossOutput value_loss(const ValueBatch& b, const ValueLossConfig& config) {
  check(b, config);
  const at::Tensor active = b.mask.ne(0);
  const auto read = [&](const at::Tensor& x) {
    return at::where(active, x.to(at::kDouble), at::zeros({}, x.options().dtype(at::kDouble)));
  };
  const at::Tensor values = read(b.values);
  const at::Tensor returns = read(b.returns.detach());
  at::Tensor error = (values - returns).square();
  at::Tensor clipped = at::zeros_like(error);
  if (config.clip >= 0) {
    const at::Tensor old = read(b.old_values.detach());
    const at::Tensor held = at::minimum(at::maximum(values, old - config.clip), old + config.clip);
    const at::Tensor other = (held - returns).square();
    clipped = (other > error).to(at::kDouble);
    error = at::maximum(error, other);
  }
  const at::Tensor sum = 0.5 * error.sum();

  const at::Tensor host =
      at::stack({sum.detach(), clipped.sum(), active.sum().to(at::kDouble)}).cpu();
  const double* read_out = host.const_data_ptr<double>();
  const double count = read_out[2];
  TEMPER_CHECK(count <= b.totals.tokens + 0.5,
               "[value_loss] totals.tokens must count the whole optimizer step: it is ",
               b.totals.tokens, ", and this micro-batch alone has ", count, " active tokens");
  LossOutput out{sum * (config.coef / std::max(b.totals.tokens, 1.0)), {}};
  for (const char* name : {"loss/value_avg", "critic/vf_loss"}) {
    out.metrics.add_mean(name, read_out[0], count);
  }
  for (const char* name : {"val/clipfrac_avg", "critic/vf_clipfrac"}) {
    out.metrics.add_mean(name, read_out[1], count);
  }
  return out;
}

std::optional<double> explained_variance(std::span<const float> values,
                                         std::span<const float> returns,
                                         std::span<const uint8_t> mask) {
  TEMPER_CHECK(values.size() == returns.size() && (mask.empty() || mask.size() == values.size()),
               "[explained_variance] ", values.size(), " values, ", returns.size(),
               " returns and ", mask.size(), " mask entries");
  const auto count = static_cast<int64_t>(values.size());
  const uint8_t* active = mask.empty() ? nullptr : mask.data();
  const kernels::MaskedStats whole = kernels::masked_stats(returns.data(), active, count);
  if (whole.count < 2 || whole.variance == 0) return std::nullopt;
  std::vector<float> rest(values.size());
  for (size_t i = 0; i < rest.size(); ++i) rest[i] = returns[i] - values[i];
  return 1 - kernels::masked_stats(rest.data(), active, count).variance / whole.variance;
}

}  // namespace temper
