#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "temper/nn/parameter.h"

namespace temper {

/// AdamW and gradient clipping. Defaults are those of TRL.
struct OptimizerConfig {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  double max_grad_norm = 1.0;
  std::string moments = "float32";

  template <class V>
  void visit(V&& v) {
    v(beta1, "beta1", "Decay of the mean of gradients, in [0, 1).");
    v(beta2, "beta2", "Decay of the mean of squared gradients, in [0, 1).");
    v(eps, "eps", "Added to the root of the mean square, above 0.");
    v(weight_decay, "weight_decay", "Decoupled weight decay of matrices (not of norms and biases).");
    v(max_grad_norm, "max_grad_norm", "Gradients are scaled down to this global norm; 0: never.");
    v(moments, "moments",
      "What the two moments of each weight are kept in; bfloat16 halves their memory and is rounded "
      "at random, so that small changes are not lost.",
      {"float32", "bfloat16"});
  }
  void validate() const;
};

/// AdamW over parameters: float32 masters, the 16-bit copy written back in the same pass. Bits do
/// not depend on threads. Moments in bfloat16 are rounded by draws keyed by (seed, step, index of the
/// parameter, element), see kernels/adamw.h.
class Optimizer {
 public:
  /// @param parameters  trainable; they must outlive the optimizer, and keep their order.
  /// @param seed  of the draws that round bfloat16 moments.
  Optimizer(std::vector<Parameter*> parameters, OptimizerConfig config, uint64_t seed = 0);

  struct Result {
    double grad_norm = 0;  ///< Global norm before clipping.
    bool applied = false;
  };
  /// Clips and applies the gradients, then zeroes them.
  /// @throws Error naming the first weight whose gradient is not finite; weights are untouched then.
  Result step(double learning_rate);

  /// Global norm of the gradients. @throws Error as `step` does.
  [[nodiscard]] double gradient_norm() const;

  [[nodiscard]] int64_t steps() const { return steps_; }
  [[nodiscard]] size_t bytes() const;

  /// Moments as safetensors in the parameters' own layout and in their own type, keyed by parameter
  /// name.
  void save(const std::filesystem::path& file) const;
  /// @throws Error when the file is for another model or has moments of another type.
  void load(const std::filesystem::path& file, int64_t steps);

 private:
  [[nodiscard]] bool rounded() const { return config_.moments == "bfloat16"; }
  void update(size_t index, double learning_rate, float scale);

  std::vector<Parameter*> parameters_;
  OptimizerConfig config_;
  uint64_t seed_;
  std::vector<at::Tensor> exp_avg_;
  std::vector<at::Tensor> exp_avg_sq_;
  int64_t steps_ = 0;
};

}  // namespace temper
