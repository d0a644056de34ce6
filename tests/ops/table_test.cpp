// Every public op asks the table, and comes back to the CPU kernel when the table is gone.
#include <functional>

#include "attention_case.h"
#include "head_case.h"
#include "temper/core/error.h"
#include "temper/kernels/adamw.h"
#include "temper/kernels/embedding.h"
#include "temper/kernels/gae.h"
#include "temper/kernels/group_advantages.h"
#include "temper/kernels/kl_penalty.h"
#include "temper/kernels/linear_divergence.h"
#include "temper/kernels/masked_stats.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/rope.h"
#include "temper/kernels/sampling.h"
#include "temper/kernels/swiglu.h"

namespace temper::test_ops {
namespace {

using kernels::KernelTable;

int calls = 0;

/// A stand-in that counts, for an op of any signature.
template <class R, class... Args>
void count(R (*&op)(Args...)) {
  op = [](Args...) -> R {
    ++calls;
    return R();
  };
}

KernelTable counting_table() {
  KernelTable t;
  count(t.embedding);
  count(t.linear);
  count(t.linear_backward_input);
  count(t.linear_backward_weight);
  count(t.rms_norm);
  count(t.rms_norm_backward);
  count(t.rope);
  count(t.swiglu);
  count(t.swiglu_backward);
  count(t.add_inplace);
  count(t.tree_attention);
  count(t.tree_attention_backward);
  count(t.linear_logprob);
  count(t.linear_logprob_backward);
  count(t.linear_divergence);
  count(t.linear_divergence_train);
  count(t.linear_sample);
  count(t.sampling_distribution);
  count(t.kl_penalty);
  count(t.shape_rewards);
  count(t.gae);
  count(t.group_advantages);
  count(t.masked_stats);
  count(t.whiten);
  count(t.adamw);
  count(t.sum_of_squares);
  return t;
}

using Calls = std::vector<std::function<void()>>;

Floats a(64, 1.0f), b(64, 1.0f), c(64, 1.0f), d(64, 1.0f);
const std::vector<int32_t> kZero = {0};

/// Each calls its ops once, on one row of one element where that will do.
Calls products_and_norms() {
  static const Weight one(1, 1, 81, Stored::kFloat32);
  return {
      [] { kernels::embedding(one.packed(), kZero, a.data()); },
      [] {
        kernels::linear({.x = a.data(),
                         .x_stride = 1,
                         .weight = one.packed(),
                         .y = b.data(),
                         .y_stride = 1,
                         .rows = 1});
      },
      [] {
        kernels::linear_backward_input({.dy = a.data(),
                                        .dy_stride = 1,
                                        .weight = one.packed(),
                                        .dx = b.data(),
                                        .dx_stride = 1,
                                        .rows = 1});
      },
      [] {
        kernels::linear_backward_weight({.dy = a.data(),
                                         .dy_stride = 1,
                                         .x = b.data(),
                                         .x_stride = 1,
                                         .dweight = c.data(),
                                         .rows = 1,
                                         .n = 1,
                                         .k = 1});
      },
      [] {
        kernels::rms_norm({a.data(), b.data(), c.data(), nullptr, 1, 1, 0.0f});
      },
      [] {
        kernels::rms_norm_backward(
            {a.data(), b.data(), c.data(), d.data(), d.data(), false, nullptr, 1, 1});
      },
  };
}

Calls layers() {
  static const kernels::RopeTable rope = kernels::make_rope_table(2, 1, 10000.0);
  return {
      [] { kernels::rope(a.data(), 2, kZero, 1, rope, false); },
      [] { kernels::swiglu(a.data(), b.data(), 1, 1); },
      [] { kernels::swiglu_backward(a.data(), b.data(), c.data(), 1, 1); },
      [] { kernels::add_inplace(a.data(), b.data(), 1); },
  };
}

/// The case's head on both sides.
kernels::LinearDivergenceArgs both(const HeadCase& head) {
  const kernels::DivergenceSide side{head.hidden.data(), 2, head.head.packed()};
  return {.student = side, .teacher = side, .rows = 1, .divergence = d.data()};
}

Calls attention_and_head() {
  static const AttentionCase attention = AttentionCase::causal(1, 1, 1, 8);
  static const HeadCase head(1, 3, 2, Stored::kFloat32);
  static const kernels::SamplingParams rule;
  return {
      [] { (void)attention.forward(kernels::tree_attention); },
      [] {
        (void)attention.backward(kernels::tree_attention_backward, {Floats(8), Floats(1)});
      },
      [] { (void)head.forward(kernels::linear_logprob); },
      [] {
        (void)head.backward(
            kernels::linear_logprob_backward,
            {.logprob = Floats(1), .entropy = Floats(1), .max = Floats(1), .log_sum = Floats(1)},
            false);
      },
      [] { kernels::linear_divergence(both(head)); },
      [] {
        kernels::linear_divergence_train({.forward = both(head),
                                          .ddivergence = a.data(),
                                          .dhidden = c.data(),
                                          .dhidden_stride = 2});
      },
      [] {
        const kernels::SampleRow row{&rule, {}, 0.5};
        kernels::SampledToken out;
        kernels::linear_sample({.hidden = head.hidden.data(),
                                .hidden_stride = 2,
                                .head = head.head.packed(),
                                .allowed = 3,
                                .rows = {&row, 1},
                                .out = {&out, 1}});
      },
      [] {
        kernels::sampling_distribution(std::span(a).first(1), rule, {}, std::span(b).first(1));
      },
  };
}

Calls updates() {
  static constexpr int64_t ends[] = {0, 1};
  static constexpr double number = 1;
  static const kernels::MaskedStats stats;
  return {
      [] {
        kernels::kl_penalty(
            {.logprobs = a.data(), .ref_logprobs = b.data(), .tokens = 1, .kl = c.data()});
      },
      [] {
        kernels::shape_rewards(
            {.scores = a.data(), .offsets = ends, .sequences = 1, .rewards = b.data()});
      },
      [] {
        kernels::gae({.rewards = a.data(),
                      .values = b.data(),
                      .offsets = ends,
                      .sequences = 1,
                      .advantages = c.data()});
      },
      [] { kernels::group_advantages({.rewards = &number, .offsets = ends, .groups = 1}); },
      [] { (void)kernels::masked_stats(a.data(), nullptr, 1); },
      [] { kernels::whiten({.x = a.data(), .count = 1, .stats = &stats, .y = b.data()}); },
      [] {
        kernels::adamw({.param = a.data(),
                        .grad = b.data(),
                        .exp_avg = c.data(),
                        .exp_avg_sq = d.data(),
                        .count = 1});
      },
      [] { (void)kernels::sum_of_squares(a.data(), 1); },
  };
}

Calls all_ops() {
  Calls all;
  for (const auto& part : {products_and_norms(), layers(), attention_and_head(), updates()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

TEST(KernelTable, EveryOpAsksIt) {
  const KernelTable table = counting_table();
  const auto ops = all_ops();
  ASSERT_EQ(ops.size() * sizeof(void (*)()), sizeof(KernelTable)) << "an op is not called here";
  for (size_t i = 0; i < ops.size(); ++i) {
    calls = 0;
    kernels::replace_kernels(&table);
    ops[i]();
    kernels::replace_kernels(nullptr);
    EXPECT_EQ(calls, 1) << "op " << i << " of the table";
    ops[i]();
    EXPECT_EQ(calls, 1) << "op " << i << " without the table";
  }
}

TEST(KernelTable, EmptyEntriesKeepTheCpuKernel) {
  const HeadCase small(5, 33, 31, Stored::kFloat32);
  const Floats cpu = small.forward(kernels::linear_logprob).logprob;
  const KernelTable empty;
  kernels::replace_kernels(&empty);
  EXPECT_EQ(small.forward(kernels::linear_logprob).logprob, cpu);
  kernels::replace_kernels(nullptr);
}

TEST(KernelTable, ReferenceFillsEveryEntry) {
  // Read as pointers, so that an op that is added later is seen here.
  const auto* entries = reinterpret_cast<void (*const*)()>(&reference());
  for (size_t i = 0; i < sizeof(KernelTable) / sizeof(void (*)()); ++i) {
    EXPECT_NE(entries[i], nullptr) << i;
  }
}

TEST(KernelTable, ScopesNestAndNamesAreChecked) {
  EXPECT_EQ(kernels::kernel_table(), nullptr);
  {
    const ops::KernelScope outer("reference");
    EXPECT_EQ(kernels::kernel_table(), &reference());
    {
      const ops::KernelScope inner("cpu");
      EXPECT_EQ(kernels::kernel_table(), nullptr);
    }
    EXPECT_EQ(kernels::kernel_table(), &reference());
    try {
      const ops::KernelScope unknown("gpu");
      FAIL();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("expected \"cpu\" or \"reference\", got \"gpu\""),
                std::string::npos)
          << e.what();
    }
    EXPECT_EQ(kernels::kernel_table(), &reference());
  }
  EXPECT_EQ(kernels::kernel_table(), nullptr);
  for (const auto& name : ops::kernel_names()) const ops::KernelScope known(name);
}

}  // namespace
}  // namespace temper::test_ops
