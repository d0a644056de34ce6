#include "temper/kernels/blocks.h"

#include <algorithm>
#include <cmath>

#include "temper/core/dtype.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"

namespace temper::kernels {
namespace {

constexpr int64_t kRowGrain = 32;  // A panel: two threads never write one byte of codes.

int64_t blocks_of(int64_t k) { return (k + kBlock - 1) / kBlock; }

/// The minimum that goes without saying.
uint16_t implied_minimum(int bits, uint16_t scale) {
  if (bits == 8) return 0;
  const float minimum = -8 * half_to_float(scale);
  TEMPER_CHECK(std::abs(minimum) < 65520, "[pack_blocks] a scale of ", half_to_float(scale),
               " is too large for blocks with minimums");
  return float_to_half(minimum);
}

/// Codes of a block's numbers, in [low, high].
struct BlockCodes {
  float scale;
  float minimum;
  float low;
  float high;

  void of(const float* from, int64_t count, uint8_t* to) const {
    for (int64_t i = 0; i < count; ++i) {
      const float code = scale == 0 ? 0 : std::nearbyint((from[i] - minimum) / scale);
      to[i] = static_cast<uint8_t>(static_cast<int>(std::clamp(code, low, high)));
    }
  }
};

/// Calls `take(row, block, numbers, count)` for every block.
template <class Take>
void each_block(const float* rows, int64_t n, int64_t k, const Take& take) {
  parallel_for(n, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t b = 0; b < blocks_of(k); ++b) {
        const int64_t at = row * k + b * kBlock;
        take(at, row * blocks_of(k) + b, rows + at, std::min(kBlock, k - b * kBlock));
      }
    }
  });
}

}  // namespace

void pack_blocks(const BlockRows& g, int64_t row_begin, int64_t total_n, const BlockPanels& out) {
  const int64_t blocks = blocks_of(g.k), depth = panel_depth(g.k);
  TEMPER_CHECK(row_begin >= 0 && row_begin + g.n <= total_n, "[pack_blocks] rows ", row_begin,
               " to ", row_begin + g.n, " do not fit into ", total_n);
  parallel_for(panel_count(total_n), 1, [&](int64_t begin, int64_t end) {
    const int64_t first = std::max(begin * kPanel, row_begin);
    const int64_t last = std::min(end * kPanel, row_begin + g.n);
    for (int64_t row = first; row < last; ++row) {
      const int64_t panel = row / kPanel, lane = row % kPanel, from = row - row_begin;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t to = (panel * blocks + b) * kPanel + lane;
        const uint16_t scale = g.scales[from * blocks + b];
        out.scales[to] = scale;
        if (out.minimums == nullptr) continue;
        out.minimums[to] =
            g.minimums != nullptr ? g.minimums[from * blocks + b] : implied_minimum(g.bits, scale);
      }
      for (int64_t k = 0; k < g.k; ++k) {
        const uint8_t code = g.codes[from * g.k + k];
        if (g.bits == 8) {
          out.codes[(panel * depth + k) * kPanel + lane] = code;
        } else {
          uint8_t& pair = out.codes[(panel * depth / 2 + k / 2) * kPanel + lane];
          pair = static_cast<uint8_t>(k % 2 == 0 ? (pair & 0xf0) | code : (pair & 15) | code << 4);
        }
      }
    }
  });
}

void quantize_blocks4(const float* rows, int64_t n, int64_t k, uint8_t* codes, uint16_t* scales,
                      uint16_t* minimums) {
  each_block(rows, n, k, [&](int64_t at, int64_t block, const float* from, int64_t count) {
    const auto [low, high] = std::minmax_element(from, from + count);
    scales[block] = float_to_half((*high - *low) / 15);
    minimums[block] = float_to_half(*low);
    BlockCodes{half_to_float(scales[block]), half_to_float(minimums[block]), 0, 15}.of(from, count,
                                                                                       codes + at);
  });
}

void quantize_blocks8(const float* rows, int64_t n, int64_t k, uint8_t* codes, uint16_t* scales) {
  each_block(rows, n, k, [&](int64_t at, int64_t block, const float* from, int64_t count) {
    float largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(from[i]));
    scales[block] = float_to_half(largest / 127);
    BlockCodes{half_to_float(scales[block]), 0, -127, 127}.of(from, count, codes + at);
  });
}

}  // namespace temper::kernels
