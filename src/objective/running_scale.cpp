#include "temper/objective/running_scale.h"

#include <cmath>

namespace temper {

void RunningScale::update(std::span<const double> values) {
  for (const double v : values) {
    if (std::isnan(v)) continue;
    ++count;
    const double before = v - mean;
    mean += before / static_cast<double>(count);
    m2 += before * (v - mean);
  }
}

double RunningScale::std() const {
  return count < 2 ? 0 : std::sqrt(m2 / static_cast<double>(count - 1));
}

double RunningScale::factor() const {
  const double spread = std();
  return spread > 0 ? 1 / spread : 1;
}

}  // namespace temper
