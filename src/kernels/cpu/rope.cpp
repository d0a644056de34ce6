#include "temper/kernels/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rope.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "cpu/lanes16-inl.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

HWY_BEFORE_NAMESPACE();
namespace temper::kernels {
namespace HWY_NAMESPACE {

/// Rotates the heads of one row by the angles of one position; `sign` is 1, or -1 to rotate back.
void RotateRow(float* row, int64_t heads, const RopeTable& table, int32_t position, float sign) {
  const int64_t half = table.half;
  const float* cosines = table.cos.data() + position * half;
  const float* sines = table.sin.data() + position * half;
  for (int64_t i = 0; i < half; i += 16) {
    const int64_t count = std::min<int64_t>(16, half - i);
    const F16 c = load_some(cosines + i, count);
    const F16 s = mul16(load_some(sines + i, count), set16(sign));
    for (int64_t head = 0; head < heads; ++head) {
      float* first = row + head * 2 * half + i;
      float* second = first + half;
      const F16 x1 = load_some(first, count);
      const F16 x2 = load_some(second, count);
      store_some(sub16(mul16(x1, c), mul16(x2, s)), first, count);
      store_some(add16(mul16(x2, c), mul16(x1, s)), second, count);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace temper::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace temper::kernels {

HWY_EXPORT(RotateRow);

namespace {

/// theta^(-2 i / head_dim) as fp32 arithmetic gives it, with each power correctly rounded.
std::vector<float> inverse_frequencies(int64_t head_dim, double theta) {
  std::vector<float> result;
  for (int64_t i = 0; i < head_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(head_dim);
    result.push_back(1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent))));
  }
  return result;
}

float scaled_frequency(float frequency, const Llama3Scaling& s) {
  const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
  const double longest = s.original_positions / s.low_freq_factor;
  const double shortest = s.original_positions / s.high_freq_factor;
  if (wavelength < static_cast<float>(shortest)) return frequency;
  const float divided = frequency / static_cast<float>(s.factor);
  if (wavelength > static_cast<float>(longest)) return divided;
  const float turns = static_cast<float>(s.original_positions) / wavelength;
  const float smooth = (turns - static_cast<float>(s.low_freq_factor)) /
                       static_cast<float>(s.high_freq_factor - s.low_freq_factor);
  return (1.0f - smooth) * divided + smooth * frequency;
}

}  // namespace

RopeTable make_rope_table(int64_t head_dim, int64_t positions, double theta,
                          const Llama3Scaling* scaling) {
  TEMPER_CHECK(head_dim >= 2 && head_dim % 2 == 0 && head_dim <= 65536,
               "[make_rope_table] head_dim must be even and in [2, 65536], got ", head_dim);
  TEMPER_CHECK(positions >= 0 && positions <= std::numeric_limits<int32_t>::max(),
               "[make_rope_table] positions must be in [0, 2^31), got ", positions);
  TEMPER_CHECK(theta > 0, "[make_rope_table] theta must be above 0, got ", theta);
  std::vector<float> frequencies = inverse_frequencies(head_dim, theta);
  if (scaling != nullptr) {
    TEMPER_CHECK(scaling->factor > 0 && scaling->low_freq_factor > 0 &&
                     scaling->high_freq_factor > scaling->low_freq_factor &&
                     scaling->original_positions > 0,
                 "[make_rope_table] llama3 scaling needs factor > 0, 0 < low_freq_factor < "
                 "high_freq_factor and original_positions > 0");
    for (float& f : frequencies) f = scaled_frequency(f, *scaling);
  }
  RopeTable table;
  table.positions = positions;
  table.half = head_dim / 2;
  table.cos.resize(static_cast<size_t>(positions * table.half));
  table.sin.resize(table.cos.size());
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < table.half; ++i) {
      const float angle = static_cast<float>(p) * frequencies[static_cast<size_t>(i)];
      const auto at = static_cast<size_t>(p * table.half + i);
      table.cos[at] = static_cast<float>(std::cos(static_cast<double>(angle)));
      table.sin[at] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
  return table;
}

void rope(float* x, int64_t row_stride, std::span<const int32_t> positions, int64_t heads,
          const RopeTable& table, bool inverse) {
  for (size_t row = 0; row < positions.size(); ++row) {
    TEMPER_CHECK(positions[row] >= 0 && positions[row] < table.positions, "[rope] position ",
                 positions[row], " of row ", row, " is outside the table of ", table.positions,
                 " positions: the text is longer than the model's context");
  }
  if (const auto op = replacement(&KernelTable::rope)) {
    return op(x, row_stride, positions, heads, table, inverse);
  }
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, heads * 2 * table.half));
  parallel_for(std::ssize(positions), grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      HWY_DYNAMIC_DISPATCH(RotateRow)
      (x + row * row_stride, heads, table, positions[static_cast<size_t>(row)],
       inverse ? -1.0f : 1.0f);
    }
  });
}

}  // namespace temper::kernels
#endif  // HWY_ONCE
