// One GRPO step of the demo against the floating-point operations it needs: matrix products at the
// rate that LibTorch's own fp32 and bf16 products reach in this process, at the model's shapes.
// Prints JSON. Usage: step_bench MODEL [steps] [weights]
#include <ATen/Parallel.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "forced_work.h"
#include "rounds.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/core/torch.h"
#include "temper/data/tasks.h"
#include "temper/reward/builtin.h"
#include "temper/trainer/grpo.h"

namespace {

using temper::benchmarks::count_weights;
using temper::benchmarks::MatrixWeights;
using temper::benchmarks::median;
using temper::benchmarks::seconds_of;

/// LibTorch's rate over the layer's products with `rows` rows, operations a second.
double libtorch_rate(const temper::CausalLM& lm, int64_t rows, at::ScalarType type) {
  std::vector<std::pair<at::Tensor, at::Tensor>> products;
  double flops = 0;
  for (const auto& p : lm.parameters()) {
    if (!p->matrix || !p->name.starts_with("model.layers.0.")) continue;
    products.emplace_back(at::randn({rows, p->k}).to(type), at::randn({p->n, p->k}).to(type));
    flops += 2.0 * static_cast<double>(rows * p->n * p->k);
  }
  std::vector<double> times;
  for (int round = 0; round < 9; ++round) {
    times.push_back(seconds_of([&] {
      for (const auto& [x, w] : products) (void)at::matmul(x, w.t());
    }));
  }
  return flops / median(times);
}

/// Operations of one step's matrix products. Trunk: 2 a weight and row forward, 4 backward. Head: 2
/// to sample, 2 to score, 4 backward (in one pass on the first update, which is all there is here).
double step_flops(const temper::Rollout& r, const MatrixWeights& w) {
  double rollout_rows = static_cast<double>(r.stats.prompt_tokens + r.stats.completion_tokens);
  double train_rows = static_cast<double>(r.stats.prompt_tokens);
  const double scored = r.metrics.at("sampling/compared_tokens");
  train_rows += scored;
  return 2 * w.trunk * rollout_rows + 2 * w.head * static_cast<double>(r.stats.completion_tokens) +
         6 * w.trunk * train_rows + 6 * w.head * scored;
}

void run(const std::string& model, int steps, temper::WeightDType weight_dtype) {
  temper::PolicyModel policy = temper::PolicyModel::load(model, weight_dtype);
  at::set_num_threads(temper::num_threads());
  temper::OnlineTrainer::Parts parts;
  parts.rollout.max_new_tokens = 24;
  parts.rollout.max_sequences = 128;
  parts.schedule = {.shape = "constant", .learning_rate = 1e-5};
  parts.rewards = {{"numeric_answer", temper::numeric_answer()}};
  parts.prompts = temper::make_task({.name = "arithmetic", .level = 2}).train;
  parts.total_steps = steps;
  temper::GrpoConfig grpo;
  grpo.online.prompts_per_step = 16;
  grpo.online.skip_dead_groups = false;
  temper::GrpoTrainer trainer(policy, grpo, parts);
  const MatrixWeights weights = count_weights(policy.lm());
  for (int i = 0; i < steps; ++i) {
    // The rates are taken in the same round as the step: hosts drift.
    const double fp32 = libtorch_rate(policy.lm(), 512, at::kFloat);
    const double bf16 = libtorch_rate(policy.lm(), 512, at::kBFloat16);
    const temper::Rollout r = trainer.step();
    const double flops = step_flops(r, weights);
    const double seconds = r.metrics.at("step_time");
    const nlohmann::ordered_json line{{"step", i + 1},
                                      {"seconds", seconds},
                                      {"rollout_s", r.metrics.at("time/rollout")},
                                      {"update_s", r.metrics.at("time/update")},
                                      {"gflop", flops / 1e9},
                                      {"gflop_per_s", flops / seconds / 1e9},
                                      {"libtorch_fp32_gflop_per_s", fp32 / 1e9},
                                      {"libtorch_bf16_gflop_per_s", bf16 / 1e9},
                                      {"times_fp32_bound", seconds / (flops / fp32)},
                                      {"times_bf16_bound", seconds / (flops / bf16)}};
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: step_bench MODEL [steps] [bfloat16|bfloat16_dot|float32]\n");
    return 2;
  }
  try {
    run(argv[1], argc > 2 ? std::stoi(argv[2]) : 3,
        temper::parse_weight_dtype(argc > 3 ? argv[3] : "bfloat16"));
  } catch (const temper::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
