// Hidden rows, an LM head, a reference and every option of `linear_logprob`, with the formulas in
// double over the same numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "kernel_test_util.h"
#include "temper/kernels/linear_logprob.h"

namespace temper::test {

using kernels::PackedWeight;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

enum class Stored { kFloat, kBf16, kDot };

/// A weight [n, k] in panels.
struct TestHead {
  int64_t n, k;
  Stored stored;
  Floats rows, panels;
  std::vector<uint16_t> half;

  TestHead(int64_t n_, int64_t k_, const Floats& values, Stored how = Stored::kFloat)
      : n(n_), k(k_), stored(how), rows(values) {
    panels.assign(static_cast<size_t>(kernels::panel_elements(n, k)), 0.0f);
    kernels::pack_rows(rows.data(), n, k, 0, panels.data());
    half.resize(panels.size());
    kernels::panels_to_bf16(panels.data(), std::ssize(panels), half.data());
  }
  TestHead(int64_t n_, int64_t k_, uint32_t seed, float scale, Stored how = Stored::kFloat)
      : TestHead(n_, k_, random_floats(n_ * k_, seed, scale), how) {}

  [[nodiscard]] PackedWeight packed() const {
    return {panels.data(), stored == Stored::kFloat ? nullptr : half.data(), n, k,
            stored == Stored::kDot ? kernels::Product::kDot : kernels::Product::kFma};
  }
};

struct HeadOutputs {
  Floats logprob, entropy, max, log_sum, kl, ref_logprob, ref_max, ref_log_sum, top_logprobs;
  std::vector<int32_t> top_ids;
  bool operator==(const HeadOutputs&) const = default;
};

struct HeadGradients {
  Floats dhidden, dweight;
  bool operator==(const HeadGradients&) const = default;
};

struct HeadOptions {
  float temperature = 1, softcap = 0, ref_softcap = 0;
  int64_t support = 0, top_k = 0;
  bool reference = false;
};

struct HeadCase {
  TestHead head, ref_head;
  int64_t rows;
  HeadOptions options;
  Floats hidden, ref_hidden, dlogprob, dentropy, dkl;
  std::vector<int32_t> targets;

  HeadCase(int64_t rows_, int64_t vocabulary, int64_t k, const HeadOptions& o,
           Stored stored = Stored::kFloat)
      : head(vocabulary, k, 2, 0.8f, stored),
        ref_head(vocabulary, k + 3, 3, 0.8f, stored),
        rows(rows_),
        options(o),
        hidden(random_floats(rows_ * k, 4, 1.5f)),
        ref_hidden(random_floats(rows_ * (k + 3), 5, 1.5f)),
        dlogprob(random_floats(rows_, 6)),
        dentropy(random_floats(rows_, 7)),
        dkl(random_floats(rows_, 8)) {
    for (int64_t r = 0; r < rows; ++r) {
      targets.push_back(static_cast<int32_t>(r * 577 % support()));
    }
  }

  [[nodiscard]] int64_t support() const { return options.support > 0 ? options.support : head.n; }

  [[nodiscard]] HeadOutputs outputs() const {
    const auto n = static_cast<size_t>(rows);
    HeadOutputs o;
    for (Floats* f : {&o.logprob, &o.entropy, &o.max, &o.log_sum, &o.kl, &o.ref_logprob, &o.ref_max,
                      &o.ref_log_sum}) {
      f->assign(n, NAN);
    }
    if (!options.reference) o.kl = o.ref_logprob = o.ref_max = o.ref_log_sum = {};
    o.top_logprobs.assign(static_cast<size_t>(rows * options.top_k), NAN);
    o.top_ids.assign(static_cast<size_t>(rows * options.top_k), -7);
    return o;
  }

  [[nodiscard]] kernels::LinearLogprobArgs args(HeadOutputs& o) const {
    kernels::LinearLogprobArgs a{.hidden = hidden.data(),
                                 .hidden_stride = head.k,
                                 .head = head.packed(),
                                 .targets = targets.data(),
                                 .rows = rows,
                                 .inverse_temperature = 1 / options.temperature,
                                 .logprob = o.logprob.data(),
                                 .entropy = o.entropy.data(),
                                 .max = o.max.data(),
                                 .log_sum = o.log_sum.data(),
                                 .softcap = options.softcap,
                                 .support = options.support,
                                 .top_k = options.top_k,
                                 .top_ids = o.top_ids.data(),
                                 .top_logprobs = o.top_logprobs.data()};
    if (options.reference) {
      a.reference = {ref_hidden.data(),   ref_head.k,          ref_head.packed(),
                     options.ref_softcap, o.kl.data(),         o.ref_logprob.data(),
                     o.ref_max.data(),    o.ref_log_sum.data()};
    }
    return a;
  }

  [[nodiscard]] kernels::LinearLogprobBackwardArgs backward_args(HeadOutputs& o,
                                                                 HeadGradients& g) const {
    g = {Floats(hidden.size(), NAN), Floats(head.panels.size(), 0.0f)};
    return {.forward = args(o),
            .dlogprob = dlogprob.data(),
            .dentropy = dentropy.empty() ? nullptr : dentropy.data(),
            .dhidden = g.dhidden.data(),
            .dhidden_stride = head.k,
            .dweight = g.dweight.data(),
            .dkl = options.reference && !dkl.empty() ? dkl.data() : nullptr};
  }

  [[nodiscard]] HeadOutputs forward() const {
    HeadOutputs o = outputs();
    kernels::linear_logprob(args(o));
    return o;
  }

  [[nodiscard]] HeadGradients backward(HeadOutputs o) const {
    HeadGradients g;
    kernels::linear_logprob_backward(backward_args(o, g));
    return g;
  }
};

/// ln softmax in double of one row, over the support.
inline Doubles log_softmax(const Doubles& weight, const double* x, int64_t k, int64_t support,
                           double softcap, double temperature) {
  Doubles z(static_cast<size_t>(support));
  for (int64_t v = 0; v < support; ++v) {
    double dot = 0;
    for (int64_t i = 0; i < k; ++i) dot += x[i] * weight[static_cast<size_t>(v * k + i)];
    z[static_cast<size_t>(v)] =
        (softcap > 0 ? softcap * std::tanh(dot / softcap) : dot) / temperature;
  }
  const double max = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (const double v : z) sum += std::exp(v - max);
  for (double& v : z) v -= max + std::log(sum);
  return z;
}

struct RowNumbers {
  double logprob = 0, entropy = 0, kl = 0, ref_logprob = 0;
  Doubles policy;  // ln p
};

/// The formulas, with hidden rows and weights that a finite difference may move.
struct DoubleHead {
  const HeadCase& c;
  Doubles hidden, weight, ref_hidden, ref_weight;
  explicit DoubleHead(const HeadCase& c_)
      : c(c_),
        hidden(c_.hidden.begin(), c_.hidden.end()),
        weight(c_.head.rows.begin(), c_.head.rows.end()),
        ref_hidden(c_.ref_hidden.begin(), c_.ref_hidden.end()),
        ref_weight(c_.ref_head.rows.begin(), c_.ref_head.rows.end()) {}

  [[nodiscard]] RowNumbers row(int64_t r) const {
    const HeadOptions& o = c.options;
    RowNumbers n;
    const size_t target = static_cast<size_t>(c.targets[static_cast<size_t>(r)]);
    n.policy = log_softmax(weight, hidden.data() + r * c.head.k, c.head.k, c.support(),
                           double{o.softcap}, double{o.temperature});
    n.logprob = n.policy[target];
    for (const double lp : n.policy) n.entropy -= std::exp(lp) * lp;
    if (!o.reference) return n;
    const Doubles q = log_softmax(ref_weight, ref_hidden.data() + r * c.ref_head.k, c.ref_head.k,
                                  c.support(), double{o.ref_softcap}, double{o.temperature});
    n.ref_logprob = q[target];
    for (size_t v = 0; v < q.size(); ++v) {
      n.kl += std::exp(n.policy[v]) * (n.policy[v] - q[v]);
    }
    return n;
  }

  /// sum g logprob + e H + c KL.
  [[nodiscard]] double loss() const {
    double sum = 0;
    for (int64_t r = 0; r < c.rows; ++r) {
      const RowNumbers n = row(r);
      const size_t at = static_cast<size_t>(r);
      sum += double{c.dlogprob[at]} * n.logprob;
      if (!c.dentropy.empty()) sum += double{c.dentropy[at]} * n.entropy;
      if (c.options.reference && !c.dkl.empty()) sum += double{c.dkl[at]} * n.kl;
    }
    return sum;
  }

  /// d loss / d x by a central difference.
  [[nodiscard]] double slope(double& x) const {
    const double h = 1e-5, before = x;
    x = before + h;
    const double up = loss();
    x = before - h;
    const double down = loss();
    x = before;
    return (up - down) / (2 * h);
  }
};

}  // namespace temper::test
