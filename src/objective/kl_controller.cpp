#include "temper/objective/kl_controller.h"

#include <algorithm>
#include <cmath>

#include "temper/core/error.h"

namespace temper {

KlController::KlController(const KlControllerConfig& c, double initial)
    : config_(c), state_{.coef = initial, .updates = 0} {
  TEMPER_CHECK(std::isfinite(initial) && initial >= 0,
               "[kl_controller] the coefficient must be finite and at least 0, got ", initial);
  if (c.kind == "fixed") return;
  TEMPER_CHECK(c.kind == "adaptive" || c.kind == "dual",
               "[kl_controller] kind must be \"fixed\", \"adaptive\" or \"dual\", got \"", c.kind,
               "\"");
  TEMPER_CHECK(std::isfinite(c.target) && c.target > 0,
               "[kl_controller] target must be finite and positive, got ", c.target);
  TEMPER_CHECK(c.kind == "dual" || (std::isfinite(c.horizon) && c.horizon > 0),
               "[kl_controller] horizon must be finite and positive, got ", c.horizon);
  TEMPER_CHECK(c.kind == "adaptive" || (std::isfinite(c.step) && c.step > 0),
               "[kl_controller] step must be finite and positive, got ", c.step);
  TEMPER_CHECK(c.min > 0 && c.min <= initial && initial <= c.max && std::isfinite(c.max),
               "[kl_controller] there must be 0 < min <= coefficient <= max, got ", c.min, ", ",
               initial, " and ", c.max);
}

void KlController::update(double kl, int64_t sequences) {
  TEMPER_CHECK(std::isfinite(kl), "[kl_controller] the measured KL is ", kl);
  TEMPER_CHECK(sequences >= 0, "[kl_controller] sequences must be at least 0, got ", sequences);
  ++state_.updates;
  if (config_.kind == "fixed") return;
  double factor = 1;
  if (config_.kind == "adaptive") {
    const double error = std::clamp(kl / config_.target - 1, -0.2, 0.2);
    factor += error * static_cast<double>(sequences) / config_.horizon;
  } else {
    factor = std::exp(config_.step * (kl - config_.target));
  }
  state_.coef = std::clamp(state_.coef * factor, config_.min, config_.max);
}

}  // namespace temper
