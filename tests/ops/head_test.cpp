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
  // Logits are rounded at their own size, and so is everything that is made of them. A chunk of the
  // product is a chain of 256 roundings.
  const double size = c.largest_logit() + 8;
  expect_within(got.logprob, want.logprob, size, 10, what + ", logprob");
  expect_within(got.entropy, want.entropy, size, 10, what + ", entropy");
  expect_within(got.max, want.max, size, 10, what + ", max");
  expect_within(got.log_sum, want.log_sum, size, 10, what + ", log_sum");
  for (const bool entropy : {false, true}) {
    const auto d = c.backward(kernels::linear_logprob_backward, want, entropy);
    const auto gradients = c.backward(reference().linear_logprob_backward, want, entropy);
    // Where the product rounds dz to bf16, the last bit of dz may decide the rounding of one term.
    const double flip = c.head.stored == Stored::kBf16Dot ? 65536 / size : 0;
    const double rows = std::sqrt(static_cast<double>(c.rows));
    expect_within(d.dhidden, gradients.dhidden, size * c.largest_weight(), 16 + flip,
                  what + ", dhidden");
    expect_within(d.dweight, gradients.dweight, size * rows * c.largest_hidden(), 16 + flip / rows,
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

TEST(Head, OptionsAreThoseOfATen) {
  // Softcap, ids without probability, the largest logits, and the KL to a reference with gradients.
  for (const Stored how : kAllStored) {
    for (const float cap : {0.0f, 5.0f}) {
      HeadCase c(31, 131, 33, how);
      c.inverse_temperature = 1.0f / 0.8f;
      c.add_options(99, 7, cap);
      expect_agreement(c, "options");
      const auto got = c.forward(kernels::linear_logprob);
      const auto want = c.forward(reference().linear_logprob);
      const double size = c.largest_logit() + 8;
      expect_within(got.kl, want.kl, 2 * size, 6, "kl");
      expect_within(got.ref_logprob, want.ref_logprob, size, 6, "reference's logprob");
      expect_within(got.ref_max, want.ref_max, size, 6, "reference's max");
      expect_within(got.ref_log_sum, want.ref_log_sum, size, 6, "reference's log_sum");
      expect_within(got.top_logprobs, want.top_logprobs, size, 6, "top logprobs");
      EXPECT_EQ(got.top_ids, want.top_ids);
    }
  }
}

TEST(Head, AnInt8ReferenceIsThatOfATen) {
  HeadCase c(31, 131, 300, Stored::kFloat32);
  c.ref_head = Weight(131, 300, 47, Stored::kInt8);
  c.inverse_temperature = 0.1f;  // KLs near 1: rounding of the reference's p counts times the KL.
  c.add_options(99, 7, 0);
  expect_agreement(c, "int8 reference");
  const double size = c.largest_logit() + 8;
  expect_within(c.forward(kernels::linear_logprob).kl, c.forward(reference().linear_logprob).kl,
                2 * size, 6, "kl");
}

TEST(Head, MoreOfTheLargestThanThereAre) {
  HeadCase c(2, 33, 31, Stored::kFloat32);
  c.add_options(3, 5, 0);
  for (const auto& o :
       {c.forward(kernels::linear_logprob), c.forward(reference().linear_logprob)}) {
    for (size_t r = 0; r < 2; ++r) {
      EXPECT_GE(o.top_ids[r * 5 + 2], 0);
      EXPECT_EQ(o.top_ids[r * 5 + 3], -1);
      EXPECT_EQ(o.top_ids[r * 5 + 4], -1);
      EXPECT_EQ(o.top_logprobs[r * 5 + 3], -INFINITY);
    }
  }
}

TEST(Head, OnePassAsksTheTableForBothParts) {
  const HeadCase c(5, 33, 31, Stored::kFloat32);
  const auto o = c.forward(reference().linear_logprob);
  const auto want = c.backward(reference().linear_logprob_backward, o, true);
  const ops::KernelScope scope("reference");
  int64_t rows = 0;
  const auto train = [&](const kernels::LinearLogprobBackwardArgs& pass) {
    kernels::linear_logprob_train(
        {.pass = pass, .coefficients = [&](int64_t begin, int64_t end) { rows += end - begin; }});
  };
  const auto got = c.backward(train, o, true);
  EXPECT_EQ(rows, 5);
  EXPECT_EQ(got.dhidden, want.dhidden);
  EXPECT_EQ(got.dweight, want.dweight);
}

TEST(Head, LogitsFarFromZero) {
  for (const float offset : {1e4f, -1e4f}) {
    HeadCase c(33, 1025, 33, Stored::kFloat32);
    c.shift_logits(offset);
    expect_agreement(c, "offset");
  }
}

TEST(Head, RowsWithoutAGradientGiveNoneWhateverStandsInThem) {
  HeadCase c(5, 33, 31, Stored::kFloat32);
  std::fill(c.dlogprob.begin(), c.dlogprob.end(), 0.0f);
  c.hidden[2 * 31 + 7] = NAN;
  const auto o = c.forward(reference().linear_logprob);
  for (const auto& d : {c.backward(kernels::linear_logprob_backward, o, false),
                        c.backward(reference().linear_logprob_backward, o, false)}) {
    EXPECT_EQ(d.dhidden, Floats(d.dhidden.size(), 0.0f));
    EXPECT_EQ(d.dweight, Floats(d.dweight.size(), 0.0f));
  }
}

}  // namespace
}  // namespace temper::test_ops
