#include "temper/kernels/embedding.h"

#include "temper/core/dtype.h"
#include "temper/core/threads.h"

namespace temper::kernels {

void embedding(const float* panels, int64_t width, std::span<const int32_t> ids, float* out) {
  constexpr int64_t kPanelRows = 32;
  // Every element lies in a cache line of its own, so that a few rows already keep a thread busy.
  parallel_for(std::ssize(ids), 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t id = ids[static_cast<size_t>(row)];
      const float* source = panels + id / kPanelRows * width * kPanelRows + id % kPanelRows;
      for (int64_t k = 0; k < width; ++k) out[row * width + k] = source[k * kPanelRows];
    }
  });
}

void embedding(const uint16_t* panels, int64_t width, std::span<const int32_t> ids, float* out) {
  constexpr int64_t kPanelRows = 32;
  parallel_for(std::ssize(ids), 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t id = ids[static_cast<size_t>(row)];
      const int64_t lane = id % kPanelRows;
      const int64_t at = lane < 16 ? 2 * lane : 2 * (lane - 16) + 1;
      const uint16_t* source = panels + id / kPanelRows * width * kPanelRows + at;
      for (int64_t k = 0; k < width; ++k)
        out[row * width + k] = bf16_to_float(source[k * kPanelRows]);
    }
  });
}

}  // namespace temper::kernels
