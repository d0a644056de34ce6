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

}  // namespace temper::kernels
