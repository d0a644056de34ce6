#pragma once

#include <cstdint>
#include <span>

namespace temper {

/// Running mean and spread of the returns, so that a critic's head predicts numbers near 0 with
/// spread 1 whatever the reward's scale (van Hasselt et al. 2016, "Learning values across many
/// orders of magnitude"): value = mean + std * head output.
///
/// After an update the head would mean something else, so its linear map is rescaled (Pop-Art,
/// their proposition 1): weight *= factor, bias = factor * bias + shift leaves every value as it
/// was.
/// Moments are exponential averages over updates, divided by the weight seen so far: the first
/// update alone decides the first statistics.
class ValueNorm {
 public:
  /// Everything to keep in a checkpoint.
  struct State {
    double mean = 0;         ///< Average of the returns, times `weight`.
    double mean_square = 0;  ///< Average of their squares, times `weight`.
    double weight = 0;       ///< 1 - (1 - rate)^updates; 0: nothing seen, mean 0 and std 1.
  };
  /// What to do to the head after an update.
  struct Rescale {
    double factor = 1;
    double shift = 0;
  };
  static constexpr double kMinStd = 1e-3;

  /// @param rate  weight of an update's returns, in (0, 1].
  explicit ValueNorm(double rate = 0.05);

  /// Takes in the returns of one rollout. Without an active token nothing changes.
  /// @param mask  [tokens] 0: left out; empty: all count.
  /// @throws Error if the lengths disagree or an active return is not finite.
  [[nodiscard]] Rescale update(std::span<const float> returns, std::span<const uint8_t> mask = {});

  [[nodiscard]] double mean() const;
  /// At least `kMinStd`.
  [[nodiscard]] double std() const;
  [[nodiscard]] double normalize(double value) const { return (value - mean()) / std(); }
  [[nodiscard]] double denormalize(double output) const { return mean() + std() * output; }

  [[nodiscard]] const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  double rate_;
  State state_;
};

}  // namespace temper
