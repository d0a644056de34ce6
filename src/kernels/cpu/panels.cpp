#include <algorithm>
#include <cmath>
#include <limits>

#include "temper/core/dtype.h"
#include "temper/core/threads.h"
#include "temper/kernels/linear.h"

namespace temper::kernels {

void pack_rows(const float* rows, int64_t n, int64_t k, int64_t row_begin, float* panels) {
  parallel_for(n, kPanel, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = row_begin + r;
      float* to = panels + row / kPanel * panel_depth(k) * kPanel + row % kPanel;
      for (int64_t i = 0; i < k; ++i) to[i * kPanel] = rows[r * k + i];
    }
  });
}

void unpack_rows(const float* panels, int64_t row_begin, int64_t n, int64_t k, float* rows) {
  parallel_for(n, kPanel, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = row_begin + r;
      const float* from = panels + row / kPanel * panel_depth(k) * kPanel + row % kPanel;
      for (int64_t i = 0; i < k; ++i) rows[r * k + i] = from[i * kPanel];
    }
  });
}

namespace {

template <class Round>
void round_panels(const float* panels, int64_t elements, const Round& round, uint16_t* out) {
  constexpr int64_t kPair = 2 * kPanel;
  parallel_for(elements / kPair, 512, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const float* from = panels + g * kPair;
      uint16_t* to = out + g * kPair;
      for (int64_t i = 0; i < kPanel; ++i) {
        to[2 * i] = round(from[i]);
        to[2 * i + 1] = round(from[kPanel + i]);
      }
    }
  });
}

}  // namespace

void panels_to_bf16(const float* panels, int64_t elements, uint16_t* out) {
  round_panels(
      panels, elements, [](float v) { return float_to_bf16(v); }, out);
}

void panels_to_f16(const float* panels, int64_t elements, uint16_t* out) {
  round_panels(
      panels, elements, [](float v) { return float_to_half(v); }, out);
}

namespace {

/// To the nearest whole number, even of two, for magnitudes below 2^22: the sum keeps no fraction.
int8_t nearest(float v) { return static_cast<int8_t>(v + 0x1.8p23f - 0x1.8p23f); }

/// One chunk of a panel, `depth` steps of 32 rows.
void quantize_chunk(const float* from, int64_t depth, int8_t* to, float* scales) {
  float largest[kPanel] = {}, divisor[kPanel];
  for (int64_t i = 0; i < depth; ++i) {
    for (int64_t c = 0; c < kPanel; ++c) {
      largest[c] = std::max(largest[c], std::abs(from[i * kPanel + c]));
    }
  }
  for (int64_t c = 0; c < kPanel; ++c) {
    // A scale below the normal numbers would itself be rounded too far.
    const float scale = std::max(largest[c] / 127.0f, std::numeric_limits<float>::min());
    scales[c] = largest[c] == 0 ? 0.0f : scale;
    divisor[c] = scale;
  }
  for (int64_t i = 0; i < depth; ++i) {
    for (int64_t c = 0; c < kPanel; ++c) {
      to[i * kPanel + c] = nearest(from[i * kPanel + c] / divisor[c]);
    }
  }
}

}  // namespace

void panels_to_int8(const float* panels, int64_t n, int64_t k, int8_t* out, float* scales) {
  const int64_t depth = panel_depth(k), count = panel_count(n);
  parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t step = 0; step < depth; step += kScaleChunk) {
        const int64_t at = (p * depth + step) * kPanel;
        quantize_chunk(panels + at, std::min(kScaleChunk, depth - step), out + at,
                       scales + (step / kScaleChunk * count + p) * kPanel);
      }
    }
  });
}

}  // namespace temper::kernels
