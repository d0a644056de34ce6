// What fixed bits cost: each kernel as the library has it against the same sources compiled to go
// as fast as they may (-ffast-math, fused products, one chain over the whole depth). Negative
// control: the exact kernels against themselves, which must give 1.00.
#include <cstdio>
#include <cstdlib>

#include "price/ops.h"
#include "rounds.h"

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 31;
  if (rounds < 3) {
    std::fprintf(stderr, "usage: exactness_price [rounds, at least 3]\n");
    return 2;
  }
  const auto exact = exact_ops();
  const auto free = free_ops();
  std::printf("%-36s %10s %10s %8s %18s %8s\n", "kernel", "exact ms", "free ms", "price",
              "95 % interval", "control");
  for (size_t i = 0; i < exact.size(); ++i) {
    // Enough calls that a round is milliseconds long.
    const double once = temper::benchmarks::seconds_of(exact[i].run);
    const int calls = std::max(1, static_cast<int>(0.01 / std::max(once, 1e-7)));
    const auto times = [calls](const PriceOp& op) {
      return [&op, calls] {
        for (int c = 0; c < calls; ++c) op.run();
      };
    };
    const auto price = temper::benchmarks::paired(rounds, times(free[i]), times(exact[i]));
    const auto control = temper::benchmarks::paired(rounds, times(exact[i]), times(exact[i]));
    std::printf("%-36s %10.3f %10.3f %8.3f    [%.3f, %.3f] %8.3f\n", exact[i].name.c_str(),
                1e3 * price.other / calls, 1e3 * price.ours / calls, price.ratio, price.low,
                price.high, control.ratio);
    std::fflush(stdout);
  }
  return 0;
}
