// Matrices in blocks of 4 and 8 bits: those of the file, or rounded from its numbers.
#include "load_blocks.h"

#include <algorithm>
#include <cmath>

#include "temper/core/error.h"
#include "temper/kernels/blocks.h"

namespace temper {
namespace {

/// What a file has in its own blocks of more than 4 bits shall not lose them.
int bits_for(const Parameter& p, const WeightSource& weights) {
  const bool layer = p.name.starts_with("model.layers.");
  const bool quantized = std::any_of(p.parts.begin(), p.parts.end(), [&](const auto& part) {
    return weights.quantized(part.name);
  });
  return layer && !quantized ? 4 : 8;
}

WeightBlocks round_part(const ParameterPart& part, int64_t k, int bits,
                        const WeightSource& weights) {
  std::vector<float> rows(static_cast<size_t>(part.rows * k));
  weights.read_float(part.name, rows);
  for (const float v : rows) {
    TEMPER_CHECK(std::abs(v) < 65520, "[load] ", part.name, " holds ", v,
                 ", which q4 cannot; use another weight type");
  }
  WeightBlocks out;
  out.bits = bits;
  out.codes.resize(rows.size());
  out.scales.resize(static_cast<size_t>(part.rows * ((k + kernels::kBlock - 1) / kernels::kBlock)));
  if (bits == 4) {
    out.minimums.resize(out.scales.size());
    kernels::quantize_blocks4(rows.data(), part.rows, k, out.codes.data(), out.scales.data(),
                              out.minimums.data());
  } else {
    kernels::quantize_blocks8(rows.data(), part.rows, k, out.codes.data(), out.scales.data());
  }
  return out;
}

}  // namespace

std::vector<WeightBlocks> blocks_of(const Parameter& p, const WeightSource& weights) {
  std::vector<WeightBlocks> blocks;
  for (const ParameterPart& part : p.parts) {
    auto one = weights.read_blocks(part.name);
    if (!one || (!blocks.empty() && one->bits != blocks.front().bits)) {
      blocks.clear();
      break;
    }
    blocks.push_back(std::move(*one));
  }
  if (!blocks.empty()) return blocks;
  const int bits = bits_for(p, weights);
  for (const ParameterPart& part : p.parts) blocks.push_back(round_part(part, p.k, bits, weights));
  return blocks;
}

}  // namespace temper
