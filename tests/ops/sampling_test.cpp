// Drawn tokens, their numbers and the distribution that they are drawn from against plain ATen.
#include "temper/kernels/sampling.h"

#include "ops_test_util.h"
#include "temper/core/rng.h"

namespace temper::test_ops {
namespace {

const kernels::SamplingParams kRules[] = {
    {},
    {.temperature = 0.0f},
    {.temperature = 0.7f},
    {.top_k = 5},
    {.top_p = 0.8f},
    {.min_p = 0.1f},
    {.repetition_penalty = 1.3f},
    {.temperature = 0.0f, .repetition_penalty = 1.3f},
    {.temperature = 1.4f, .top_k = 20, .top_p = 0.9f, .min_p = 0.02f, .repetition_penalty = 0.8f},
};

TEST(Sampling, DistributionIsThatOfATen) {
  for (const int64_t n : {1, 31, 33, 1025}) {
    for (const auto& rule : kRules) {
      for (const float offset : {0.0f, 1e4f}) {
        Floats z = random_floats(n, 51, 5.0f);
        for (float& v : z) v += offset;
        if (n > 3) z[2] = z[1];  // A tie.
        const std::vector<int32_t> seen = {0, static_cast<int32_t>(n - 1), 0};
        const auto run = [&](auto op) {
          Floats p(z.size());
          op(z, rule, seen, p);
          return p;
        };
        const Floats want = run(reference().sampling_distribution);
        expect_within(run(kernels::sampling_distribution), want, want, 16 + 2 * double{offset},
                      std::to_string(n));
      }
    }
  }
}

TEST(Sampling, DrawsAreThoseOfATen) {
  const int64_t k = 33, vocabulary = 1025, rows = 40;
  const Floats hidden = random_floats(rows * k, 52, 2.0f);
  const std::vector<int32_t> seen = {3, 5, 900};
  for (const Stored how : kAllRead) {
    const Weight head(vocabulary, k, 53, how);
    for (const auto& rule : kRules) {
      std::vector<kernels::SampleRow> draws;
      for (uint32_t r = 0; r < rows; ++r) {
        const auto bits = keyed_random(9, RngPurpose::kTest, 0, r, 0);
        draws.push_back({&rule, seen, uniform_from_bits(bits[0], bits[1])});
      }
      const auto run = [&](auto op) {
        std::vector<kernels::SampledToken> out(static_cast<size_t>(rows));
        op(kernels::LinearSampleArgs{.hidden = hidden.data(),
                                     .hidden_stride = k,
                                     .head = head.packed(),
                                     .allowed = vocabulary - 40,
                                     .rows = draws,
                                     .out = out,
                                     .softcap = 6.0f,
                                     .support = vocabulary - 20});
        return out;
      };
      const auto got = run(kernels::linear_sample), want = run(reference().linear_sample);
      for (size_t r = 0; r < got.size(); ++r) {
        ASSERT_EQ(got[r].id, want[r].id) << r;
        ASSERT_LT(got[r].id, vocabulary - 40);
        EXPECT_NEAR(got[r].logprob, want[r].logprob, 4e-6) << r;
        EXPECT_NEAR(got[r].policy_logprob, want[r].policy_logprob, 4e-6) << r;
        EXPECT_NEAR(got[r].log_kept_mass, want[r].log_kept_mass, 4e-6) << r;
        EXPECT_NEAR(got[r].entropy, want[r].entropy, 4e-6) << r;
      }
    }
  }
}

}  // namespace
}  // namespace temper::test_ops
