// Log-probs over the LM head against LibTorch's log_softmax.
#include "head_case.h"

namespace temper::test_ops {
namespace {

constexpr int64_t kSizes[][3] = {  // rows, vocabulary, k
    {1, 1, 1},
    {31, 33, 31},
    {33, 31, 1025},
    {131, 1025, 33},
    {1, 1025, 64}};

void expect_agreement(const HeadCase& c, const std::string& what) {
  const auto got = c.forward(kernels::linear_logprob);
  const auto want = c.forward(reference().linear_logprob);
  // Logits are rounded at their own size, and so is everything that is made of them.
  const double size = c.largest_logit() + 8;
  expect_within(got.logprob, want.logprob, size, 6, what + ", logprob");
  expect_within(got.entropy, want.entropy, size, 6, what + ", entropy");
  expect_within(got.max, want.max, size, 6, what + ", max");
  expect_within(got.log_sum, want.log_sum, size, 6, what + ", log_sum");
  for (const bool entropy : {false, true}) {
    const auto d = c.backward(kernels::linear_logprob_backward, want, entropy);
    const auto gradients = c.backward(reference().linear_logprob_backward, want, entropy);
    // Where the product rounds dz to bf16, the last bit of dz may decide the rounding of one term.
    const double flip = c.head.stored == Stored::kBf16Dot ? 65536 / size : 0;
    const double rows = std::sqrt(static_cast<double>(c.rows));
    expect_within(d.dhidden, gradients.dhidden, size * c.largest_weight(), 16 + flip,
                  what + ", dhidden");
    expect_within(d.dweight, gradients.dweight, size * rows * c.largest_hidden(), 12,
                  what + ", dweight");
  }
}

TEST(Head, LogprobsAndGradientsAreThoseOfATen) {
  for (const auto& [rows, vocabulary, k] : kSizes) {
    for (const Stored how : kAllStored) {
      for (const float temperature : {0.5f, 1.0f, 1.7f}) {
        HeadCase c(rows, vocabulary, k, how);
        c.inverse_temperature = 1.0f / temperature;
        expect_agreement(c, std::to_string(vocabulary) + " ids");
      }
    }
  }
}

TEST(Head, LogitsFarFromZero) {
  for (const float offset : {1e4f, -1e4f}) {
    HeadCase c(33, 1025, 33, Stored::kFloat32);
    c.shift_logits(offset);
    expect_agreement(c, "offset");
  }
}

TEST(Head, RowsWithoutAGradientGiveNone) {
  HeadCase c(5, 33, 31, Stored::kFloat32);
  std::fill(c.dlogprob.begin(), c.dlogprob.end(), 0.0f);
  const auto o = c.forward(reference().linear_logprob);
  for (const auto& d : {c.backward(kernels::linear_logprob_backward, o, false),
                        c.backward(reference().linear_logprob_backward, o, false)}) {
    EXPECT_EQ(d.dhidden, Floats(d.dhidden.size(), 0.0f));
  }
}

}  // namespace
}  // namespace temper::test_ops
