// Exponential, logarithm and logistic function for the exact path: fixed polynomials, the same bits
// on every target with fused multiply-add. Included again by Highway for every target.
#if defined(TEMPER_KERNELS_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TEMPER_KERNELS_MATH_INL_H_
#undef TEMPER_KERNELS_MATH_INL_H_
#else
#define TEMPER_KERNELS_MATH_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// e^x within 2 ulp. Exactly 1 at 0, exactly 0 below -87.33 (the result would leave the normal
/// range), infinity above 88.72; NaN stays NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V vexp(D d, V x) {
  const hn::RebindToSigned<D> di;
  // Adding 1.5 * 2^23 rounds to an integer that then stands in the low bits of the sum.
  const V magic = hn::Set(d, 12582912.0f);
  const V z = hn::MulAdd(x, hn::Set(d, 1.44269504f), magic);
  const V n = hn::Sub(z, magic);
  // ln 2 in two parts; the first has few bits, so that n times it is exact.
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  // (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2, interpolated at Chebyshev nodes: relative error 1e-8.
  V q = hn::Set(d, 0.00139262131f);
  q = hn::MulAdd(q, r, hn::Set(d, 0.00836320315f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.0416665561f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.166665763f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.5f));
  const V p = hn::Add(hn::MulAdd(q, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  // Scaling by 2^n adds n to the exponent field: exact, as the result is a normal number.
  V y = hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, z))));
  y = hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.33f)), y);
  y = hn::IfThenElse(hn::Gt(x, hn::Set(d, 88.72f)), hn::Inf(d), y);
  return hn::IfThenElse(hn::Eq(x, x), y, x);
}

/// ln x within 2 ulp for normal x > 0; 0 and subnormal numbers give -infinity, infinity gives
/// infinity, negative numbers and NaN give NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V vlog(D d, V x) {
  const hn::RebindToSigned<D> di;
  // x = 2^n m with m in [sqrt(1/2), sqrt(2)).
  const auto bits = hn::BitCast(di, x);
  const auto shifted = hn::Sub(bits, hn::Set(di, 0x3f3504f3));
  const auto exponent = hn::ShiftRight<23>(shifted);
  const V m = hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(exponent)));
  const V n = hn::ConvertTo(d, exponent);
  // With f = m - 1 and s = f / (2 + f): ln m = f - f^2/2 + s (f^2/2 + R), R the tail of the atanh
  // series 2 (s^3/3 + s^5/5 + ...) / s.
  const V f = hn::Sub(m, hn::Set(d, 1.0f));
  const V s = hn::Div(f, hn::Add(f, hn::Set(d, 2.0f)));
  const V s2 = hn::Mul(s, s);
  V tail = hn::Set(d, 2.0f / 11);
  tail = hn::MulAdd(tail, s2, hn::Set(d, 2.0f / 9));
  tail = hn::MulAdd(tail, s2, hn::Set(d, 2.0f / 7));
  tail = hn::MulAdd(tail, s2, hn::Set(d, 2.0f / 5));
  tail = hn::MulAdd(tail, s2, hn::Set(d, 2.0f / 3));
  const V half_square = hn::Mul(hn::Mul(f, f), hn::Set(d, 0.5f));
  const V correction = hn::Mul(s, hn::MulAdd(tail, s2, half_square));
  const V low = hn::NegMulAdd(n, hn::Set(d, 2.12194440e-4f), correction);
  V y = hn::MulAdd(n, hn::Set(d, 0.693359375f), hn::Sub(f, hn::Sub(half_square, low)));
  y = hn::IfThenElse(hn::Lt(x, hn::Set(d, 1.17549435e-38f)), hn::Neg(hn::Inf(d)), y);
  y = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::NaN(d), y);
  return hn::IfThenElse(hn::Lt(x, hn::Inf(d)), y, x);
}

/// 1 / (1 + e^-x).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V vsigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, vexp(d, hn::Neg(x))));
}

/// Hyperbolic tangent within 2 ulp, odd to the bit; +-1 at +-infinity, NaN stays NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V vtanh(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V a = hn::Abs(x);
  // Near 0 the difference 1 - 2 / (1 + e^2a) would cancel: x + x^3 q(x^2), q interpolated at
  // Chebyshev nodes on |x| <= 0.625, relative error 5e-9.
  const V t = hn::Mul(a, a);
  V q = hn::Set(d, 0.00229274482f);
  q = hn::MulAdd(q, t, hn::Set(d, -0.00834394526f));
  q = hn::MulAdd(q, t, hn::Set(d, 0.0217689183f));
  q = hn::MulAdd(q, t, hn::Set(d, -0.0539592579f));
  q = hn::MulAdd(q, t, hn::Set(d, 0.133333042f));
  q = hn::MulAdd(q, t, hn::Set(d, -0.333333343f));
  const V near = hn::MulAdd(hn::Mul(q, t), a, a);
  const V far = hn::Sub(one, hn::Div(hn::Set(d, 2.0f), hn::Add(one, vexp(d, hn::Add(a, a)))));
  return hn::CopySign(hn::IfThenElse(hn::Lt(a, hn::Set(d, 0.625f)), near, far), x);
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#endif
