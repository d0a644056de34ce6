#include "temper/objective/value_norm.h"

#include <algorithm>
#include <cmath>

#include "temper/core/error.h"

namespace temper {

ValueNorm::ValueNorm(double rate) : rate_(rate) {
  TEMPER_CHECK(rate > 0 && rate <= 1, "[value_norm] rate must be in (0, 1], got ", rate);
}

ValueNorm::Rescale ValueNorm::update(std::span<const float> returns,
                                     std::span<const uint8_t> mask) {
  TEMPER_CHECK(mask.empty() || mask.size() == returns.size(), "[value_norm] ", returns.size(),
               " returns and ", mask.size(), " mask entries");
  double sum = 0;
  double squares = 0;
  double count = 0;
  for (size_t i = 0; i < returns.size(); ++i) {
    if (!mask.empty() && mask[i] == 0) continue;
    const double x = double{returns[i]};
    TEMPER_CHECK(std::isfinite(x), "[value_norm] the return at token ", i, " is ", x);
    sum += x;
    squares += x * x;
    ++count;
  }
  if (count == 0) return {};
  const double old_mean = mean();
  const double old_std = std();
  state_.mean += rate_ * (sum / count - state_.mean);
  state_.mean_square += rate_ * (squares / count - state_.mean_square);
  state_.weight += rate_ * (1 - state_.weight);
  return {.factor = old_std / std(), .shift = (old_mean - mean()) / std()};
}

double ValueNorm::mean() const { return state_.weight == 0 ? 0 : state_.mean / state_.weight; }

double ValueNorm::std() const {
  if (state_.weight == 0) return 1;
  const double m = mean();
  return std::max(kMinStd, std::sqrt(std::max(0.0, state_.mean_square / state_.weight - m * m)));
}

}  // namespace temper
