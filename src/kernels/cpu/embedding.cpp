#include "temper/kernels/embedding.h"

#include "temper/core/dtype.h"
#include "temper/core/threads.h"
#include "temper/kernels/backend.h"
#include "temper/kernels/linear.h"

namespace temper::kernels {

void embedding(const float* panels, int64_t width, std::span<const int32_t> ids, float* out) {
  if (const auto op = replacement(&KernelTable::embedding)) return op(panels, width, ids, out);
  // Every element lies in a cache line of its own, so that a few rows already keep a thread busy.
  parallel_for(std::ssize(ids), 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t id = ids[static_cast<size_t>(row)];
      const float* source = panels + id / kPanel * panel_depth(width) * kPanel + id % kPanel;
      for (int64_t k = 0; k < width; ++k) out[row * width + k] = source[k * kPanel];
    }
  });
}

void embedding(const uint16_t* panels, int64_t width, std::span<const int32_t> ids, float* out) {
  if (const auto op = replacement(&KernelTable::embedding_bf16)) return op(panels, width, ids, out);
  parallel_for(std::ssize(ids), 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t id = ids[static_cast<size_t>(row)];
      const uint16_t* source =
          panels + id / kPanel * panel_depth(width) * kPanel + id % kPanel * 2;
      for (int64_t k = 0; k < width; ++k) {
        out[row * width + k] = bf16_to_float(source[k / 2 * 2 * kPanel + k % 2]);
      }
    }
  });
}

}  // namespace temper::kernels
