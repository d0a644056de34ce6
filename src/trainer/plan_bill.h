// The lines of a bill, and what every kind of training has in its own.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "plan_memory.h"

namespace temper::planning {

/// Collects lines of the bill; empty ones are left out.
class Bill {
 public:
  explicit Bill(Plan& plan) : plan_(plan) {}
  void add(std::string owner, std::string name, uint64_t bytes) {
    if (bytes == 0) return;
    plan_.parts.push_back({std::move(owner), std::move(name), bytes});
    plan_.training += bytes;
  }
  void add_weights(const std::string& owner, const WeightBytes& b) {
    add(owner, "float32 weights", b.masters);
    add(owner, "16-bit weights", b.copies);
    add(owner, "gradients", b.gradients);
    add(owner, "optimizer", b.moments);
  }
  void add_activations(const std::string& owner, const ModelConfig& config, const Rows& rows,
                       bool checkpoint) {
    const auto b = activation_bytes(config, rows, checkpoint);
    add(owner, "activations", b.tape);
    add(owner, "working memory", b.working);
  }

  /// What is there before a model is opened, and the tokenizer.
  void add_program(const ModelConfig& config);

 private:
  Plan& plan_;
};

/// A scalar head [H] with a bias; trained, it has gradients and moments.
[[nodiscard]] std::vector<Weight> scalar_head(const ModelConfig& config);

/// While weights are read: masters, copies and gradients are there, one tensor of a file besides
/// (and the float32 values of a matrix that will be kept in 16 bits alone), the file is mapped.
/// @param plan  with the program's lines. @param b  of the model that is trained.
[[nodiscard]] uint64_t loading_bytes(const Plan& plan, const WeightBytes& b,
                                     const std::vector<Weight>& weights);

/// While a model is written: all that is kept from step to step, and one tensor.
[[nodiscard]] uint64_t saving_bytes(const Plan& plan, const std::vector<Weight>& weights);

/// The bill of training a reward model on pairs. @param in  with `pairs`.
[[nodiscard]] Plan plan_of_pairs(const PlanInput& in);
/// Rows of its largest micro-batch.
[[nodiscard]] int64_t pair_rows(const PlanInput& in);

/// The bill of training on given answers. @param in  with `answers`.
[[nodiscard]] Plan plan_of_answers(const PlanInput& in);
/// Rows of its largest micro-batch.
[[nodiscard]] int64_t answer_rows(const PlanInput& in);

}  // namespace temper::planning
