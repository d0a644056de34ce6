#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace temper {

/// How the learning rate falls after warm-up.
enum class ScheduleShape {
  kConstant,     ///< Stays at the peak.
  kLinear,       ///< Straight line to 0 at the last step.
  kCosine,       ///< Half a cosine to 0.
  kCosineMinLr,  ///< Half a cosine to `min_lr_rate` of the peak.
};

/// The shape of a name: "constant", "linear", "cosine" or "cosine_with_min_lr".
/// @throws Error for any other name, naming the nearest.
[[nodiscard]] ScheduleShape schedule_shape(std::string_view name);

/// A learning-rate schedule. Names and formulas are those of Hugging Face transformers.
struct ScheduleConfig {
  std::string shape = "linear";
  double learning_rate = 1e-6;  ///< Peak.
  int64_t warmup_steps = 0;
  double min_lr_rate = 0.1;  ///< Only for cosine_with_min_lr.

  template <class V>
  void visit(V&& v) {
    v(shape, "shape", "How the learning rate falls after warm-up.",
      {"constant", "linear", "cosine", "cosine_with_min_lr"});
    v(learning_rate, "learning_rate", "Peak learning rate, at least 0.");
    v(warmup_steps, "warmup_steps", "Steps over which the rate rises from 0, at least 0.");
    v(min_lr_rate, "min_lr_rate",
      "Lowest rate of cosine_with_min_lr as a share of the peak, in [0, 1].");
  }
};

/// Learning rate of the optimizer step with index `step`, counted from 0: the first update of a run
/// uses `step` 0, which is 0 under warm-up, and the last uses `total_steps` - 1.
/// With t = (step - warmup) / max(1, total - warmup) after warm-up, and step / max(1, warmup) of
/// the peak before it: linear max(0, (total - step) / max(1, total - warmup)); cosine max(0, (1 +
/// cos(pi t)) / 2), scaled onto [min_lr_rate, 1] for cosine_with_min_lr. A pure function: nothing
/// to save in a checkpoint.
/// @throws Error if a value is out of its range.
[[nodiscard]] double learning_rate(const ScheduleConfig& config, int64_t step, int64_t total_steps);

}  // namespace temper
