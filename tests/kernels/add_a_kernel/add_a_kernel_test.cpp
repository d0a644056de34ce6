// The op that docs/add_a_kernel.md walks through, held as every op is: a reference in plain ATen, a
// finite difference, the same bits for every cut and instruction set, and the CUDA source on the
// emulator.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/sigmoid.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/add_a_kernel/sigmoid_gate.cuh"
#include "kernels/cuda_sim/sim_test_util.h"
#include "kernels/kernel_test_util.h"
#include "temper/core/file.h"

namespace temper::kernels {
namespace {

using test::DeviceBuffer;
using test::random_floats;
using Floats = std::vector<float>;

// [shown: the reference]
void reference_sigmoid_gate(const float* gate, const float* x, float* y, int64_t n) {
  const auto vector = [n](const float* p) {
    return at::from_blob(const_cast<float*>(p), {n}, at::kFloat);
  };
  vector(y).copy_(at::sigmoid(vector(gate)) * vector(x));
}
// [end]

// [shown: the tests]
class SigmoidGate : public testing::TestWithParam<int64_t> {
 protected:
  int64_t n = GetParam();
  Floats gate = random_floats(n, 1, 8), x = random_floats(n, 2), y = x;
};

TEST_P(SigmoidGate, IsTheReferences) {
  Floats expected(y.size());
  reference_sigmoid_gate(gate.data(), x.data(), expected.data(), n);
  sigmoid_gate(gate.data(), x.data(), y.data(), n);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], expected[i], 3e-7f);
}

TEST_P(SigmoidGate, GradientsAreTheFiniteDifference) {
  Floats dy = random_floats(n, 3), dgate(y.size()), dx(y.size());
  sigmoid_gate_backward({.dy = dy.data(), .gate = gate.data(), .x = x.data(),
                         .dgate = dgate.data(), .dx = dx.data(), .n = n});
  const auto f = [](double g, double v) { return v / (1 + std::exp(-g)); };
  constexpr double h = 1e-5;
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_NEAR(dgate[i], dy[i] * (f(gate[i] + h, x[i]) - f(gate[i] - h, x[i])) / (2 * h), 1e-6);
    EXPECT_NEAR(dx[i], dy[i] * (f(gate[i], x[i] + h) - f(gate[i], x[i] - h)) / (2 * h), 1e-6);
  }
}

TEST_P(SigmoidGate, BitsDoNotDependOnTheInstructionSet) {
  test::expect_same_bits_on_targets([&] {
    sigmoid_gate(gate.data(), x.data(), y.data(), n);
    return y;
  });
}

TEST_P(SigmoidGate, CudaSourceHasTheBitsOfTheCpu) {
  sigmoid_gate(gate.data(), x.data(), y.data(), n);
  const Floats emulated = test::in_all_orders([&] {
    DeviceBuffer<float> g(gate), v(x), out(y.size());
    EXPECT_TRUE(cuda::launch_sigmoid_gate(g.data(), v.data(), out.data(), n, nullptr).ok());
    return out.values();
  });
  EXPECT_TRUE(test::identical(emulated, y));
}

INSTANTIATE_TEST_SUITE_P(Sizes, SigmoidGate, testing::Values(1, 15, 16, 17, 255, 1025, 70001));
// [end]

TEST_P(SigmoidGate, CudaGradientsHaveTheBitsOfTheCpu) {
  const Floats dy = random_floats(n, 3);
  Floats dgate(y.size()), dx(y.size());
  sigmoid_gate_backward({.dy = dy.data(), .gate = gate.data(), .x = x.data(),
                         .dgate = dgate.data(), .dx = dx.data(), .n = n});
  const auto emulated = test::in_all_orders([&] {
    DeviceBuffer<float> d(dy), g(gate), v(x), to_gate(y.size()), to_x(y.size());
    EXPECT_TRUE(cuda::launch_sigmoid_gate_backward({.dy = d.data(), .gate = g.data(),
                                                    .x = v.data(), .dgate = to_gate.data(),
                                                    .dx = to_x.data(), .n = n}, nullptr).ok());
    return std::tuple(to_gate.values(), to_x.values());
  });
  EXPECT_TRUE(test::identical(emulated, std::tuple(dgate, dx)));
}

TEST(AddAKernelPage, ShowsTheseFiles) {
  const std::string root = std::string(TEMPER_SOURCE_DIR) + "/";
  const std::string page = read_text_file(root + "docs/add_a_kernel.md");
  int shown = 0;
  for (const std::string name : {"sigmoid_gate.h", "sigmoid_gate.cpp", "sigmoid_gate.cuh",
                                 "sigmoid_gate.cu", "add_a_kernel_test.cpp"}) {
    const std::string source = read_text_file(root + "tests/kernels/add_a_kernel/" + name);
    for (size_t at = source.find("// [shown: "); at != std::string::npos;
         at = source.find("// [shown: ", at + 1)) {
      if (at != 0 && source[at - 1] != '\n') continue;
      const size_t begin = source.find('\n', at) + 1;
      const size_t end = source.find("// [end]\n", begin);
      ASSERT_NE(end, std::string::npos) << name;
      const std::string part = source.substr(begin, end - begin);
      EXPECT_NE(page.find("```cpp\n" + part + "```"), std::string::npos)
          << "docs/add_a_kernel.md does not hold this part of " << name << " as it stands:\n"
          << part;
      ++shown;
    }
  }
  EXPECT_EQ(shown, 6);
}

}  // namespace
}  // namespace temper::kernels
