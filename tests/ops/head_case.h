#pragma once

#include "ops_test_util.h"
#include "temper/kernels/linear_logprob.h"

namespace temper::test_ops {

/// Hidden rows, an LM head and targets.
struct HeadCase {
  struct Out {
    Floats logprob, entropy, max, log_sum;
  };
  struct Gradients {
    Floats dhidden, dweight;
  };

  HeadCase(int64_t rows_, int64_t vocabulary, int64_t k, Stored how)
      : rows(rows_),
        hidden(random_floats(rows_ * k, 41, 2.0f)),
        head(vocabulary, k, 42, how),
        dlogprob(random_floats(rows_, 43)),
        dentropy(random_floats(rows_, 44)) {
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

  [[nodiscard]] kernels::LinearLogprobArgs args(Out& o) const {
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
    Out o{Floats(n), Floats(n), Floats(n), Floats(n)};
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
                                          .dweight = g.dweight.data()});
    return g;
  }

  int64_t rows;
  Floats hidden;
  Weight head;
  Floats dlogprob, dentropy;
  std::vector<int32_t> targets;
  float inverse_temperature = 1.0f;
};

}  // namespace temper::test_ops
