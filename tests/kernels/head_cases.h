#pragma once
// Cases of the LM head and of sampling, for the CPU, the emulator and a GPU (see host_ops.h). Each
// calls `compare(run)` with a template `run.operator()<Device>()` that returns all outputs; the
// devices must agree in every bit.

#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <tuple>

#include "kernels/host_ops.h"
#include "kernels/kernel_test_util.h"
#include "temper/kernels/linear_logprob.h"
#include "temper/kernels/sampling.h"

namespace temper::test {

/// The CPU's side.
struct HostHead {
  template <class T>
  using Buffer = HostBuffer<T>;

  static bool forward(const kernels::LinearLogprobArgs& a) {
    return kernels::linear_logprob(a), true;
  }
  static bool backward(const kernels::LinearLogprobBackwardArgs& a) {
    return kernels::linear_logprob_backward(a), true;
  }
  static bool train(const kernels::LinearLogprobTrainArgs& a) {
    return kernels::linear_logprob_train(a), true;
  }
  static bool sample(const kernels::cuda::LinearSampleArgs& a) {
    std::vector<kernels::SampleRow> rows;
    for (int64_t r = 0; r < a.rows; ++r) {
      const std::span<const int32_t> seen =
          a.seen == nullptr ? std::span<const int32_t>()
                            : std::span(a.seen + a.seen_begin[r], a.seen + a.seen_begin[r + 1]);
      rows.push_back({a.params + r, seen, a.uniforms[r]});
    }
    kernels::linear_sample({.hidden = a.hidden,
                            .hidden_stride = a.hidden_stride,
                            .head = a.head,
                            .allowed = a.allowed,
                            .rows = rows,
                            .out = {a.out, static_cast<size_t>(a.rows)},
                            .softcap = a.softcap,
                            .support = a.support});
    return true;
  }
};

/// An LM head as panels, float32, bf16 or half precision.
class HeadPanels {
 public:
  HeadPanels(const std::vector<float>& rows, int64_t vocabulary, int64_t k, bool bf16,
             bool f16 = false)
      : n_(vocabulary), k_(k), bf16_(bf16), f16_(f16) {
    const auto elements = static_cast<size_t>(kernels::panel_elements(vocabulary, k));
    f32_.assign(elements, 0.0f);
    kernels::pack_rows(rows.data(), vocabulary, k, 0, f32_.data());
    if (!bf16 && !f16) return;
    words_.resize(elements);
    (f16 ? kernels::panels_to_f16 : kernels::panels_to_bf16)(
        f32_.data(), static_cast<int64_t>(elements), words_.data());
  }
  /// The head on a device.
  template <class D>
  struct On {
    typename D::template Buffer<float> f32;
    typename D::template Buffer<uint16_t> words;
    const HeadPanels& head;
    explicit On(const HeadPanels& h) : f32(h.f32_), words(h.words_), head(h) {}
    kernels::PackedWeight weight(kernels::Product product = kernels::Product::kFma) {
      return {.f32 = head.bf16_ || head.f16_ ? nullptr : f32.data(),
              .bf16 = head.bf16_ ? words.data() : nullptr,
              .n = head.n_,
              .k = head.k_,
              .product = product,
              .f16 = head.f16_ ? words.data() : nullptr};
    }
  };

 private:
  int64_t n_, k_;
  bool bf16_, f16_;
  std::vector<float> f32_;
  std::vector<uint16_t> words_;
};

/// One call over a head, its gradients included.
struct HeadCase {
  int64_t rows, vocabulary, k;
  float temperature = 1;
  float softcap = 0;
  int64_t support = 0;
  int64_t top_k = 0;
  int64_t ref_k = 0;  // 0: no reference.
  bool bf16 = false;
  bool f16 = false;
  kernels::Product product = kernels::Product::kFma;
  bool entropy = true;
  bool every_row = true;  // False: some rows have no coefficient, and NaN in their hidden row.
  bool one_pass = false;
};

inline std::vector<float> coefficients(const HeadCase& c, uint32_t seed) {
  std::vector<float> v = random_floats(c.rows, seed);
  for (size_t i = 0; i < v.size() && !c.every_row; ++i) {
    if (i % 3 != 1) v[i] = 0;
  }
  return v;
}

inline std::vector<int32_t> head_targets(const HeadCase& c) {
  const int64_t ids = c.support > 0 ? c.support : c.vocabulary;
  std::vector<int32_t> v;
  for (int64_t r = 0; r < c.rows; ++r) v.push_back(static_cast<int32_t>((r * 577 + 1) % ids));
  return v;
}

/// Arrays for all outputs of a call.
template <class D>
struct HeadOutputs {
  using Floats = typename D::template Buffer<float>;
  Floats logprob, entropy, max, log_sum, kl, ref_logprob, ref_max, ref_log_sum;
  typename D::template Buffer<int32_t> top_ids;
  Floats top_logprobs, dhidden, dweight;

  explicit HeadOutputs(const HeadCase& c) : HeadOutputs(c, static_cast<size_t>(c.rows)) {}
  HeadOutputs(const HeadCase& c, size_t n)
      : logprob(n),
        entropy(n),
        max(n),
        log_sum(n),
        kl(n),
        ref_logprob(n),
        ref_max(n),
        ref_log_sum(n),
        top_ids(n * static_cast<size_t>(c.top_k)),
        top_logprobs(n * static_cast<size_t>(c.top_k)),
        dhidden(n * static_cast<size_t>(c.k)),
        dweight(random_floats(kernels::panel_elements(c.vocabulary, c.k), 8)) {}

  auto values() {
    return std::tuple(logprob.values(), entropy.values(), max.values(), log_sum.values(),
                      kl.values(), ref_logprob.values(), ref_max.values(), ref_log_sum.values(),
                      top_ids.values(), top_logprobs.values(), dhidden.values(), dweight.values());
  }
};

/// Forward, then backward (or both at once): all outputs. Hidden rows lie k + 3 apart.
template <class D>
auto run_head_case(const HeadCase& c) {
  using Floats = typename D::template Buffer<float>;
  const int64_t stride = c.k + 3;
  const std::vector<float> x = random_floats(c.rows * stride, 3, 2);
  std::vector<float> later = x;  // What the backward finds.
  for (size_t i = 0; i < x.size() && !c.every_row && !c.one_pass; ++i) {
    if (i / static_cast<size_t>(stride) % 3 != 1) later[i] = NAN;
  }
  const HeadPanels panels(random_floats(c.vocabulary * c.k, 1, 2), c.vocabulary, c.k, c.bf16,
                          c.f16);
  const int64_t ref_k = c.ref_k > 0 ? c.ref_k : 1;
  const HeadPanels ref_panels(random_floats(c.vocabulary * ref_k, 2, 3), c.vocabulary, ref_k,
                              false);
  typename HeadPanels::On<D> head(panels), ref_head(ref_panels);
  Floats hidden(x), later_hidden(later), ref_hidden(random_floats(c.rows * ref_k, 4, 2));
  typename D::template Buffer<int32_t> targets(head_targets(c));
  Floats dlogprob(coefficients(c, 5)), dentropy(coefficients(c, 6)), dkl(coefficients(c, 7));
  HeadOutputs<D> out(c);
  kernels::LinearLogprobArgs a{.hidden = hidden.data(),
                               .hidden_stride = stride,
                               .head = head.weight(c.product),
                               .targets = targets.data(),
                               .rows = c.rows,
                               .inverse_temperature = 1 / c.temperature,
                               .logprob = out.logprob.data(),
                               .entropy = c.entropy ? out.entropy.data() : nullptr,
                               .max = out.max.data(),
                               .log_sum = out.log_sum.data(),
                               .softcap = c.softcap,
                               .support = c.support,
                               .top_k = c.top_k,
                               .top_ids = out.top_ids.data(),
                               .top_logprobs = out.top_logprobs.data()};
  if (c.ref_k > 0) {
    a.reference = {.hidden = ref_hidden.data(),
                   .hidden_stride = ref_k,
                   .head = ref_head.weight(),
                   .softcap = c.softcap / 2,
                   .kl = out.kl.data(),
                   .logprob = out.ref_logprob.data(),
                   .max = out.ref_max.data(),
                   .log_sum = out.ref_log_sum.data()};
  }
  kernels::LinearLogprobBackwardArgs b{.forward = a,
                                       .dlogprob = dlogprob.data(),
                                       .dentropy = c.entropy ? dentropy.data() : nullptr,
                                       .dhidden = out.dhidden.data(),
                                       .dhidden_stride = c.k,
                                       .dweight = out.dweight.data(),
                                       .dkl = c.ref_k > 0 ? dkl.data() : nullptr};
  if (c.one_pass) {
    EXPECT_TRUE(D::train({.pass = b, .coefficients = {}}));
  } else {
    EXPECT_TRUE(D::forward(a));
    b.forward.hidden = later_hidden.data();
    EXPECT_TRUE(D::backward(b));
  }
  return out.values();
}

template <class Compare>
void head_cases(const Compare& compare) {
  for (const HeadCase& c : {
           HeadCase{.rows = 1, .vocabulary = 1, .k = 1, .top_k = 3},
           HeadCase{.rows = 2, .vocabulary = 33, .k = 8, .temperature = 0.6f, .top_k = 5},
           HeadCase{.rows = 5, .vocabulary = 70, .k = 7, .entropy = false, .one_pass = true},
           HeadCase{.rows = 3, .vocabulary = 1100, .k = 6, .support = 1025, .top_k = 64},
           HeadCase{.rows = 4, .vocabulary = 96, .k = 5, .softcap = 3, .top_k = 1, .ref_k = 4},
           HeadCase{.rows = 18,
           .vocabulary = 65,
           .k = 4,
           .temperature = 1.7f,
           .support = 61,
           .ref_k = 9,
           .every_row = false,
           .one_pass = true},
           HeadCase{.rows = 7, .vocabulary = 64, .k = 6, .bf16 = true, .every_row = false},
           HeadCase{.rows = 7, .vocabulary = 70, .k = 9, .f16 = true},
       }) {
    compare([&]<class D>() { return run_head_case<D>(c); });
  }
}

/// Several tiles of rows, and a vocabulary of several chunks.
template <class Compare>
void large_head_cases(const Compare& compare, int64_t vocabulary) {
  for (const HeadCase& c : {
           HeadCase{.rows = 300, .vocabulary = 40, .k = 4, .top_k = 2, .every_row = false},
           HeadCase{.rows = 1, .vocabulary = vocabulary, .k = 2, .top_k = 20, .one_pass = true},
       }) {
    compare([&]<class D>() { return run_head_case<D>(c); });
  }
}

/// Bits of what was drawn.
inline std::vector<float> flat(const std::vector<kernels::SampledToken>& tokens) {
  std::vector<float> out;
  for (const auto& t : tokens) {
    out.insert(out.end(),
               {static_cast<float>(t.id), t.logprob, t.policy_logprob, t.log_kept_mass, t.entropy});
  }
  return out;
}

/// Rules of all kinds, at both ends of their ranges.
inline std::vector<kernels::SamplingParams> sampling_rules() {
  return {{},
          {.temperature = 0},
          {.temperature = 0, .repetition_penalty = 1.4f},
          {.temperature = 0.6f},
          {.temperature = 1.3f, .top_k = 5},
          {.top_k = 1},
          {.top_p = 0.8f},
          {.top_p = 1e-7f},
          {.top_p = 0.9999999f},
          {.temperature = 2, .min_p = 0.1f},
          {.min_p = 1},
          {.repetition_penalty = 0.7f},
          {0.9f, 30, 0.95f, 0.02f, 1.1f},
          {1e-3f, 30, 0.95f, 0.02f, 1.1f},
          {50, 1 << 30, 0.5f, 1e-20f, 2}};
}

/// Every rule for some rows, each with its own uniform, over products of the head.
template <class Compare>
void sampling_cases(const Compare& compare) {
  const std::vector<kernels::SamplingParams> rules = sampling_rules();
  struct Shape {
    int64_t vocabulary, allowed, support;
    float softcap;
  };
  for (const Shape& shape : {Shape{1, 1, 0, 0}, Shape{45, 45, 0, 0}, Shape{200, 150, 0, 4},
                             Shape{1100, 1090, 1050, 0}}) {
    const int64_t k = 6, rows = std::ssize(rules) + 5;
    const HeadPanels panels(random_floats(shape.vocabulary * k, 11, 2), shape.vocabulary, k, false);
    std::vector<kernels::SamplingParams> params;
    std::vector<double> uniforms;
    std::vector<int32_t> seen;
    std::vector<int64_t> seen_begin = {0};
    for (int64_t r = 0; r < rows; ++r) {
      params.push_back(rules[static_cast<size_t>(r) % rules.size()]);
      uniforms.push_back(static_cast<double>(r * 37 % rows) / static_cast<double>(rows));
      for (int64_t i = 0; i < r % 4; ++i) {
        seen.push_back(static_cast<int32_t>((r * 31 + i / 2) % shape.allowed));
      }
      seen_begin.push_back(std::ssize(seen));
    }
    compare([&]<class D>() {
      typename HeadPanels::On<D> head(panels);
      typename D::template Buffer<float> hidden(random_floats(rows * k, 12, 2));
      typename D::template Buffer<kernels::SamplingParams> p(params);
      typename D::template Buffer<double> u(uniforms);
      typename D::template Buffer<int32_t> ids(seen);
      typename D::template Buffer<int64_t> begin(seen_begin);
      typename D::template Buffer<kernels::SampledToken> out(static_cast<size_t>(rows));
      EXPECT_TRUE(D::sample({.hidden = hidden.data(),
                             .hidden_stride = k,
                             .head = head.weight(),
                             .allowed = shape.allowed,
                             .rows = rows,
                             .params = p.data(),
                             .uniforms = u.data(),
                             .seen = ids.data(),
                             .seen_begin = begin.data(),
                             .out = out.data(),
                             .softcap = shape.softcap,
                             .support = shape.support}));
      return flat(out.values());
    });
  }
}

}  // namespace temper::test
