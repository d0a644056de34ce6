// Runs one kernel with a planted mistake; the sanitizer that this program was compiled with has to
// report it, though the emulator's threads and shared memory were used by clean kernels before.
// Usage: cuda_sim_planted_<sanitizer> <name>, or `clean` for the kernels without a mistake.
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cuda_sim/planted.cuh"

namespace temper::kernels::cuda {
namespace {

bool run(const std::string& name) {
  std::vector<float> in(128, 1.5f), out(128);
  const dim3 one(1), two(2), warp(32), block(64);
  const size_t shared = shared_bytes<float>(64);
  Status s;
  if (name == "clean") {
    s = launch(rotate_block<true>, two, block, shared, nullptr, in.data(), out.data());
    if (s.ok()) s = launch(swap_in_warp<true>, one, warp, shared, nullptr, in.data(), out.data());
    if (s.ok()) {
      s = launch(swap_in_half_warps<false>, one, warp, shared, nullptr, in.data(), out.data());
    }
  } else if (name == "block_race") {
    s = launch(rotate_block<false>, one, block, shared, nullptr, in.data(), out.data());
  } else if (name == "warp_race") {
    s = launch(swap_in_warp<false>, one, warp, shared, nullptr, in.data(), out.data());
  } else if (name == "half_warp_race") {
    s = launch(swap_in_half_warps<true>, one, warp, shared, nullptr, in.data(), out.data());
  } else if (name == "shared_overrun") {
    s = launch(shared_overrun, one, warp, 2 * shared, nullptr, out.data());
  } else if (name == "global_overrun") {
    in.resize(32);
    in.shrink_to_fit();
    s = launch(global_overrun, one, warp, 0, nullptr, in.data(), out.data());
  } else if (name == "blocks_collide") {
    s = launch(blocks_collide, two, warp, 0, nullptr, out.data());
  } else {
    return false;
  }
  return s.ok();
}

}  // namespace
}  // namespace temper::kernels::cuda

int main(int argc, char** argv) {
  if (argc != 2 || !temper::kernels::cuda::run("clean") || !temper::kernels::cuda::run(argv[1])) {
    std::fprintf(stderr, "unknown name\n");
    return 2;
  }
  std::puts("ran to its end");
  return 0;
}
