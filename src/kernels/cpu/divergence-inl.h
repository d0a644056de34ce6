// Divergences between two rows of logits and their gradients, in the order of sums of
// logits-inl.h. Included again by Highway for every target.
#if defined(TEMPER_KERNELS_DIVERGENCE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_DIVERGENCE_INL_H_
#undef TEMPER_KERNELS_DIVERGENCE_INL_H_
#else
#define TEMPER_KERNELS_DIVERGENCE_INL_H_
#endif

#include "cpu/logits-inl.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

enum class DivergenceKind { kForward, kReverse, kMixture };

/// One row's numbers.
struct RowDivergence {
  RowStats student, teacher;
  float value;
  float offset;  // What the gradient subtracts: the mean of its log-ratio under the student.
};

/// ln(m / p) and ln(m / q) with d = ln q - ln p and m = beta q + (1 - beta) p. Both are exactly 0 at
/// d = 0, since beta + (1 - beta) rounds to 1, and neither overflows: e^-|d| is at most 1.
HWY_INLINE void mixture_logs(VF d, float beta, VF& of_student, VF& of_teacher) {
  const DF df;
  const auto above = hn::Gt(d, hn::Zero(df));
  const VF b = hn::Set(df, beta), rest = hn::Set(df, 1.0f - beta);
  const VF e = vexp(df, hn::Neg(hn::Abs(d)));
  const VF smaller = hn::IfThenElse(above, rest, b), larger = hn::IfThenElse(above, b, rest);
  const VF log = vlog(df, hn::MulAdd(smaller, e, larger));
  of_student = hn::IfThenElse(above, hn::Add(log, d), log);
  of_teacher = hn::IfThenElse(above, log, hn::Sub(log, d));
}

/// KL(student || m) and KL(teacher || m).
struct MixtureKl {
  double student, teacher;
};

/// A row of logits and its statistics.
struct KnownRow {
  const float* z;
  const RowStats& stats;
};

HWY_INLINE MixtureKl row_mixture(const KnownRow& student, const KnownRow& teacher, int64_t padded,
                                 float inverse_temperature, float beta) {
  const RowStats &p = student.stats, &q = teacher.stats;
  constexpr int kV = 16 / kLanes;
  const DF d;
  const VF scale = hn::Set(d, inverse_temperature), far_below = hn::Set(d, kFarBelow);
  const VF shift = hn::Set(d, static_cast<float>(natural_log(q.sum) - natural_log(p.sum)));
  double total_p = 0, total_q = 0;
  for (int64_t begin = 0; begin < padded; begin += kLogitChunk) {
    const int64_t end = begin + kLogitChunk < padded ? begin + kLogitChunk : padded;
    VF sum_p[kV], sum_q[kV];
    for (int v = 0; v < kV; ++v) sum_p[v] = sum_q[v] = hn::Zero(d);
    for (int64_t i = begin; i < end; i += 16) {
      for (int v = 0; v < kV; ++v) {
        const int64_t at = i + v * kLanes;
        const VF zp = hn::Mul(hn::LoadU(d, student.z + at), scale);
        const VF zq = hn::Mul(hn::LoadU(d, teacher.z + at), scale);
        const VF x = hn::Max(hn::Sub(zp, hn::Set(d, p.max)), far_below);
        const VF y = hn::Max(hn::Sub(zq, hn::Set(d, q.max)), far_below);
        VF of_student, of_teacher;
        mixture_logs(hn::Sub(hn::Sub(y, x), shift), beta, of_student, of_teacher);
        sum_p[v] = hn::MulAdd(vexp(d, x), of_student, sum_p[v]);
        sum_q[v] = hn::MulAdd(vexp(d, y), of_teacher, sum_q[v]);
      }
    }
    float lanes_p[16], lanes_q[16];
    for (int v = 0; v < kV; ++v) {
      hn::StoreU(sum_p[v], d, lanes_p + v * kLanes);
      hn::StoreU(sum_q[v], d, lanes_q + v * kLanes);
    }
    double chunk_p = 0, chunk_q = 0;
    for (int i = 0; i < 16; ++i) {
      chunk_p += double{lanes_p[i]};
      chunk_q += double{lanes_q[i]};
    }
    total_p += chunk_p;
    total_q += chunk_q;
  }
  return {0.0 - total_p / p.sum, 0.0 - total_q / q.sum};
}

HWY_INLINE RowDivergence row_divergence(DivergenceKind kind, const float* z, const float* teacher,
                                        int64_t padded, float inverse_temperature, float beta) {
  RowDivergence d{row_stats(z, padded, inverse_temperature, nullptr),
                  row_stats(teacher, padded, inverse_temperature, nullptr), 0, 0};
  if (kind == DivergenceKind::kForward) {
    d.value = row_kl(teacher, d.teacher, z, d.student, padded, inverse_temperature);
  } else if (kind == DivergenceKind::kReverse) {
    d.value = row_kl(z, d.student, teacher, d.teacher, padded, inverse_temperature);
    d.offset = d.value;
  } else {
    const MixtureKl kl =
        row_mixture({z, d.student}, {teacher, d.teacher}, padded, inverse_temperature, beta);
    const double b = double{beta};
    d.value = static_cast<float>(b * kl.teacher + (1.0 - b) * kl.student);
    d.offset = static_cast<float>(kl.student);
  }
  return d;
}

/// Whether two rows have their largest logit at the same id, the lower of equals.
HWY_INLINE bool same_largest(const float* a, const float* b, int64_t padded) {
  float value = 0;
  int32_t of_a = -1, of_b = -1;
  row_top_k(a, padded, 1, &value, &of_a);
  row_top_k(b, padded, 1, &value, &of_b);
  return of_a == of_b;
}

/// The numbers of one row that its gradient takes.
struct RowDivergenceGradient {
  float scale;                           // 1 / T
  float student_max, student_log_sum;    // At the temperature.
  float teacher_max, teacher_log_sum;
  float weight;                          // c / T, times 1 - beta of a mixture.
  float offset;                          // RowDivergence::offset
  float beta;
  float logprob;                         // g
  float plain_max, plain_log_sum;        // Of the student at temperature 1.
  float inverse_softcap;                 // 0: none.
};

template <DivergenceKind kKind>
void divergence_gradient_row(const RowDivergenceGradient& g, float* z, const float* teacher,
                             int64_t padded) {
  const DF d;
  const VF scale = hn::Set(d, g.scale), far_below = hn::Set(d, kFarBelow);
  const VF weight = hn::Set(d, g.weight), offset = hn::Set(d, g.offset);
  const auto log_probability = [&](VF scaled, float max, float log_sum) {
    const VF centred = hn::Sub(scaled, hn::Set(d, max));
    return hn::Max(hn::Sub(centred, hn::Set(d, log_sum)), far_below);
  };
  for (int64_t i = 0; i < padded; i += kLanes) {
    const VF raw = hn::LoadU(d, z + i);
    const VF x = log_probability(hn::Mul(raw, scale), g.student_max, g.student_log_sum);
    const VF y = log_probability(hn::Mul(hn::LoadU(d, teacher + i), scale), g.teacher_max,
                                 g.teacher_log_sum);
    const VF p = vexp(d, x);
    VF dz;
    if constexpr (kKind == DivergenceKind::kForward) {
      dz = hn::Mul(weight, hn::Sub(p, vexp(d, y)));
    } else if constexpr (kKind == DivergenceKind::kReverse) {
      dz = hn::Mul(hn::Mul(weight, p), hn::Sub(hn::Sub(x, y), offset));
    } else {
      VF of_student, of_teacher;
      mixture_logs(hn::Sub(y, x), g.beta, of_student, of_teacher);
      dz = hn::Neg(hn::Mul(hn::Mul(weight, p), hn::Add(of_student, offset)));
    }
    if (g.logprob != 0.0f) {
      const VF plain = vexp(d, log_probability(raw, g.plain_max, g.plain_log_sum));
      dz = hn::NegMulAdd(hn::Set(d, g.logprob), plain, dz);
    }
    if (g.inverse_softcap > 0) dz = hn::Mul(dz, cap_slope(raw, g.inverse_softcap));
    hn::StoreU(dz, d, z + i);
  }
}

/// Logits become dz. @param target  the id whose log-prob has a gradient; -1: none has.
HWY_INLINE void divergence_gradient(DivergenceKind kind, const RowDivergenceGradient& g, float* z,
                                    const float* teacher, int64_t padded, int64_t target) {
  const float capped = target < 0 ? 0.0f : z[target] * g.inverse_softcap;
  if (kind == DivergenceKind::kForward) {
    divergence_gradient_row<DivergenceKind::kForward>(g, z, teacher, padded);
  } else if (kind == DivergenceKind::kReverse) {
    divergence_gradient_row<DivergenceKind::kReverse>(g, z, teacher, padded);
  } else {
    divergence_gradient_row<DivergenceKind::kMixture>(g, z, teacher, padded);
  }
  const float slope = g.inverse_softcap > 0 ? 1.0f - std::min(capped * capped, 1.0f) : 1.0f;
  if (target >= 0) z[target] += g.logprob * slope;
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
