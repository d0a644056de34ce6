#include "temper/nn/finite.h"

#include <cmath>

namespace temper {

std::optional<NonFinite> find_non_finite(const ForwardTape& tape, int64_t hidden_size) {
  const int64_t layers = static_cast<int64_t>(tape.layers.size());
  const int64_t elements = tape.batch.rows() * hidden_size;
  for (int64_t layer = -1; layer < layers; ++layer) {
    // A layer's output is the next one's input; the last layer's stands by itself.
    const FloatBuffer& output =
        layer + 1 < layers ? tape.layers[static_cast<size_t>(layer + 1)].x : tape.last;
    for (int64_t i = 0; i < elements; ++i) {
      if (!std::isfinite(output.data()[i])) return NonFinite{layer, i / hidden_size};
    }
  }
  return std::nullopt;
}

}  // namespace temper
