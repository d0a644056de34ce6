#include "temper/trainer/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "temper/core/error.h"

namespace temper {
namespace {

constexpr std::array<std::pair<std::string_view, ScheduleShape>, 4> kShapes{{
    {"constant", ScheduleShape::kConstant},
    {"linear", ScheduleShape::kLinear},
    {"cosine", ScheduleShape::kCosine},
    {"cosine_with_min_lr", ScheduleShape::kCosineMinLr},
}};

}  // namespace

ScheduleShape schedule_shape(std::string_view name) {
  std::array<std::string, kShapes.size()> names;
  for (size_t i = 0; i < kShapes.size(); ++i) {
    if (kShapes[i].first == name) return kShapes[i].second;
    names[i] = kShapes[i].first;
  }
  const std::string near = nearest_name(name, names);
  fail("[schedule] expected constant, linear, cosine or cosine_with_min_lr, got \"", name, "\"",
       near.empty() ? "" : "; did you mean \"" + near + "\"?");
}

double learning_rate(const ScheduleConfig& config, int64_t step, int64_t total_steps) {
  TEMPER_CHECK(step >= 0 && total_steps >= 0, "[schedule] steps must not be negative, got step ",
               step, " of ", total_steps);
  TEMPER_CHECK(config.warmup_steps >= 0, "[schedule] warmup_steps must be at least 0, got ",
               config.warmup_steps);
  TEMPER_CHECK(std::isfinite(config.learning_rate) && config.learning_rate >= 0,
               "[schedule] learning_rate must be a number of at least 0, got ",
               config.learning_rate);
  TEMPER_CHECK(config.min_lr_rate >= 0 && config.min_lr_rate <= 1,
               "[schedule] min_lr_rate must be in [0, 1], got ", config.min_lr_rate);
  const ScheduleShape shape = schedule_shape(config.shape);
  const auto as_double = [](int64_t n) { return static_cast<double>(std::max<int64_t>(1, n)); };
  if (step < config.warmup_steps) {
    return config.learning_rate * (static_cast<double>(step) / as_double(config.warmup_steps));
  }
  const double length = as_double(total_steps - config.warmup_steps);
  const double t = static_cast<double>(step - config.warmup_steps) / length;
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * t));
  double factor = 1.0;
  switch (shape) {
    case ScheduleShape::kConstant: break;
    case ScheduleShape::kLinear:
      // Not 1 - t: that differs where warm-up takes the whole run.
      factor = static_cast<double>(total_steps - step) / length;
      break;
    case ScheduleShape::kCosine: factor = cosine; break;
    case ScheduleShape::kCosineMinLr:
      factor = cosine * (1.0 - config.min_lr_rate) + config.min_lr_rate;
      break;
  }
  return config.learning_rate * std::max(0.0, factor);
}

}  // namespace temper
