#include "temper/kernels/embedding.h"

#include "temper/core/dtype.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"

namespace temper::kernels {
namespace {

/// @param element  Element (row of a panel, k) from the panel's begin.
template <class Panel, class Element>
void gather(const Panel* panels, const Element& element, int64_t width,
            std::span<const int32_t> ids, float* out) {
  // Every element lies in a cache line of its own, so that a few rows already keep a thread busy.
  parallel_for(std::ssize(ids), 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t id = ids[static_cast<size_t>(row)];
      const Panel* panel = panels + id / kPanel * panel_depth(width) * kPanel;
      for (int64_t k = 0; k < width; ++k) out[row * width + k] = element(panel, id % kPanel, k);
    }
  });
}

/// Rows of int8 panels: each number is scaled, and rounded once.
void gather_int8(const PackedWeight& w, std::span<const int32_t> ids, float* out) {
  const auto element = [](const int8_t* panel, int64_t row, int64_t k) {
    return static_cast<float>(panel[k * kPanel + row]);
  };
  gather(w.i8, element, w.k, ids, out);
  const int64_t padded = panel_count(w.n) * kPanel;
  for (const int32_t id : ids) {
    for (int64_t k = 0; k < w.k; ++k) *out++ *= w.scales[k / kScaleChunk * padded + id];
  }
}

/// Rows of blocks: scale times code is exact, and the sum is rounded once.
template <class Code>
void gather_blocks(const PackedWeight& w, std::span<const int32_t> ids, const Code& code,
                   float* out) {
  const int64_t blocks = (w.k + kBlock - 1) / kBlock;
  const float implied = w.codes4 != nullptr ? -8.0f : 0.0f;
  parallel_for(std::ssize(ids), 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t id = ids[static_cast<size_t>(row)];
      for (int64_t k = 0; k < w.k; ++k) {
        const int64_t at = (id / kPanel * blocks + k / kBlock) * kPanel + id % kPanel;
        const float scale = half_to_float(w.block_scales[at]);
        const float minimum =
            w.block_minimums != nullptr ? half_to_float(w.block_minimums[at]) : implied * scale;
        out[row * w.k + k] = scale * code(id / kPanel, id % kPanel, k) + minimum;
      }
    }
  });
}

void gather_blocks(const PackedWeight& w, std::span<const int32_t> ids, float* out) {
  const int64_t depth = panel_depth(w.k);
  if (w.codes8 != nullptr) {
    return gather_blocks(
        w, ids,
        [&](int64_t panel, int64_t row, int64_t k) {
          return static_cast<float>(w.codes8[(panel * depth + k) * kPanel + row]);
        },
        out);
  }
  gather_blocks(
      w, ids,
      [&](int64_t panel, int64_t row, int64_t k) {
        const int pair = w.codes4[(panel * depth + k) / 2 * kPanel + row];
        return static_cast<float>(k % 2 == 0 ? pair & 15 : pair >> 4);
      },
      out);
}

/// Element (row, k) of a 16-bit panel.
uint16_t half_element(const uint16_t* panel, int64_t row, int64_t k) {
  return panel[k / 2 * 2 * kPanel + row * 2 + k % 2];
}

}  // namespace

void embedding(const PackedWeight& w, std::span<const int32_t> ids, float* out) {
  if (const auto op = replacement(&KernelTable::embedding)) return op(w, ids, out);
  if (w.blocks()) {
    gather_blocks(w, ids, out);
  } else if (w.i8 != nullptr) {
    gather_int8(w, ids, out);
  } else if (w.bf16 != nullptr) {
    const auto element = [](const uint16_t* panel, int64_t row, int64_t k) {
      return bf16_to_float(half_element(panel, row, k));
    };
    gather(w.bf16, element, w.k, ids, out);
  } else if (w.f16 != nullptr) {
    const auto element = [](const uint16_t* panel, int64_t row, int64_t k) {
      return half_to_float(half_element(panel, row, k));
    };
    gather(w.f16, element, w.k, ids, out);
  } else {
    const auto element = [](const float* panel, int64_t row, int64_t k) {
      return panel[k * kPanel + row];
    };
    gather(w.f32, element, w.k, ids, out);
  }
}

}  // namespace temper::kernels
