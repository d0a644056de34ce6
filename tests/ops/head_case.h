#pragma once

#include "ops_test_util.h"
#include "temper/kernels/linear_logprob.h"

namespace temper::test_ops {

/// Hidden rows, an LM head and targets.
struct HeadCase {
  struct Out {
    Floats logprob, entropy, max, log_sum;
    Floats kl, ref_logprob, ref_max, ref_log_sum;
    std::vector<int32_t> top_ids;
    Floats top_logprobs;
  };
  struct Gradients {
    Floats dhidden, dweight;
  };

  HeadCase(int64_t rows_, int64_t vocabulary, int64_t k, Stored how)
      : rows(rows_),
        hidden(random_floats(rows_ * k, 41, 2.0f)),
        head(vocabulary, k, 42, how),
        dlogprob(random_floats(rows_, 43)),
        dentropy(random_floats(rows_, 44)),
        dkl(random_floats(rows_, 45)),
        ref_hidden(random_floats(rows_ * k, 46, 2.0f)),
        ref_head(vocabulary, k, 47, how) {
    for (int64_t r = 0; r < rows; ++r) {
      targets.push_back(static_cast<int32_t>((7 * r + 3) % vocabulary));
    }
  }

  /// Adds `offset` to every logit: one component becomes a constant on both sides.
  void shift_logits(float offset) {
    const auto k = static_cast<size_t>(head.k);
    for (size_t i = 0; i < hidden.size(); i += k) hidden[i] = offset / 100;
    Floats values = head.rows;
    for (size_t i = 0; i < values.size(); i += k) values[i] = 100;
    head = Weight(values, head.n, head.k, head.stored);
  }

  [[nodiscard]] double largest_hidden() const {
    const Floats a = absolute(hidden);
    return double{*std::max_element(a.begin(), a.end())};
  }
  [[nodiscard]] double largest_weight() const {
    const Floats a = absolute(head.rows);
    return double{*std::max_element(a.begin(), a.end())};
  }
  /// Bound of the terms that a scaled logit adds up to.
  [[nodiscard]] double largest_logit() const {
    const double spread = 2 * std::sqrt(static_cast<double>(head.k));
    return double{inverse_temperature} * std::max(largest_hidden() * largest_weight(), spread);
  }

  /// Turns every option on, with probability for the first `ids` only.
  void add_options(int64_t ids, int64_t k_largest, float cap) {
    support = ids;
    top_k = k_largest;
    softcap = cap;
    with_reference = true;
    for (auto& t : targets) t %= static_cast<int32_t>(ids);
  }

  [[nodiscard]] kernels::LinearLogprobArgs args(Out& o) const {
    kernels::LinearLogprobArgs a = plain_args(o);
    a.softcap = softcap;
    a.support = support;
    a.top_k = top_k;
    a.top_ids = o.top_ids.data();
    a.top_logprobs = o.top_logprobs.data();
    if (with_reference) {
      a.reference = {.hidden = ref_hidden.data(),
                     .hidden_stride = ref_head.k,
                     .head = ref_head.packed(),
                     .softcap = softcap,
                     .kl = o.kl.data(),
                     .logprob = o.ref_logprob.data(),
                     .max = o.ref_max.data(),
                     .log_sum = o.ref_log_sum.data()};
    }
    return a;
  }

  [[nodiscard]] kernels::LinearLogprobArgs plain_args(Out& o) const {
    return {.hidden = hidden.data(),
            .hidden_stride = head.k,
            .head = head.packed(),
            .targets = targets.data(),
            .rows = rows,
            .inverse_temperature = inverse_temperature,
            .logprob = o.logprob.data(),
            .entropy = o.entropy.data(),
            .max = o.max.data(),
            .log_sum = o.log_sum.data()};
  }

  template <class Op>
  [[nodiscard]] Out forward(Op op) const {
    const auto n = static_cast<size_t>(rows);
    const auto top = static_cast<size_t>(rows * top_k);
    Out o{.logprob = Floats(n),
          .entropy = Floats(n),
          .max = Floats(n),
          .log_sum = Floats(n),
          .kl = Floats(n),
          .ref_logprob = Floats(n),
          .ref_max = Floats(n),
          .ref_log_sum = Floats(n),
          .top_ids = std::vector<int32_t>(top),
          .top_logprobs = Floats(top)};
    op(args(o));
    return o;
  }

  template <class Op>
  [[nodiscard]] Gradients backward(Op op, Out o, bool entropy) const {
    Gradients g{Floats(hidden.size()), Floats(head.f32.size())};
    op(kernels::LinearLogprobBackwardArgs{.forward = args(o),
                                          .dlogprob = dlogprob.data(),
                                          .dentropy = entropy ? dentropy.data() : nullptr,
                                          .dhidden = g.dhidden.data(),
                                          .dhidden_stride = head.k,
                                          .dweight = g.dweight.data(),
                                          .dkl = with_reference ? dkl.data() : nullptr});
    return g;
  }

  int64_t rows;
  Floats hidden;
  Weight head;
  Floats dlogprob, dentropy, dkl, ref_hidden;
  Weight ref_head;
  std::vector<int32_t> targets;
  float inverse_temperature = 1.0f, softcap = 0;
  int64_t support = 0, top_k = 0;
  bool with_reference = false;
};

}  // namespace temper::test_ops
