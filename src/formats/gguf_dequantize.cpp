#include <array>
#include <cstring>

#include "temper/core/dtype.h"
#include "temper/core/error.h"
#include "temper/formats/gguf.h"
#include "temper/formats/tensor_view.h"

namespace temper {
namespace {

constexpr size_t kHalfBlock = 16;  // packed bytes of a block of 32 nibbles
constexpr size_t kSubBlocks = 8;   // of 32 weights, in the K types' blocks of 256

uint32_t byte_at(const std::byte* p, size_t i) { return std::to_integer<uint32_t>(p[i]); }

int signed_byte(const std::byte* p, size_t i) { return static_cast<int8_t>(byte_at(p, i)); }

float half_at(const std::byte* p, size_t offset) {
  return half_to_float(static_cast<uint16_t>(byte_at(p, offset) | byte_at(p, offset + 1) << 8));
}

/// The number stored for weight j of a block of 32: low nibbles first, then high ones.
uint32_t nibble(const std::byte* qs, size_t j) {
  return j < kHalfBlock ? byte_at(qs, j) & 15u : byte_at(qs, j - kHalfBlock) >> 4;
}

/// The same with a fifth bit from the little-endian word `qh`.
uint32_t five_bits(const std::byte* qh, const std::byte* qs, size_t j) {
  return nibble(qs, j) | ((byte_at(qh, j / 8) >> (j % 8)) & 1u) << 4;
}

void q4_0(const std::byte* p, float* out) {
  const float d = half_at(p, 0);
  for (size_t j = 0; j < 32; ++j) {
    out[j] = d * static_cast<float>(static_cast<int>(nibble(p + 2, j)) - 8);
  }
}

void q4_1(const std::byte* p, float* out) {
  const float d = half_at(p, 0), m = half_at(p, 2);
  for (size_t j = 0; j < 32; ++j) out[j] = d * static_cast<float>(nibble(p + 4, j)) + m;
}

void q5_0(const std::byte* p, float* out) {
  const float d = half_at(p, 0);
  for (size_t j = 0; j < 32; ++j) {
    out[j] = d * static_cast<float>(static_cast<int>(five_bits(p + 2, p + 6, j)) - 16);
  }
}

void q5_1(const std::byte* p, float* out) {
  const float d = half_at(p, 0), m = half_at(p, 2);
  for (size_t j = 0; j < 32; ++j) out[j] = d * static_cast<float>(five_bits(p + 4, p + 8, j)) + m;
}

void q8_0(const std::byte* p, float* out) {
  const float d = half_at(p, 0);
  for (size_t j = 0; j < 32; ++j) out[j] = static_cast<float>(signed_byte(p + 2, j)) * d;
}

/// Scale and minimum of a sub-block: eight pairs of 6 bits in twelve bytes. The first four pairs
/// lie in the low bits of bytes 0-7; the others take their low bits from bytes 8-11 and their high
/// bits from the top of bytes 0-7.
struct ScaleMin {
  float scale;
  float minimum;
};
ScaleMin scale_min(const std::byte* s, size_t j) {
  if (j < 4) {
    return {static_cast<float>(byte_at(s, j) & 63u), static_cast<float>(byte_at(s, j + 4) & 63u)};
  }
  const uint32_t scale = (byte_at(s, j + 4) & 15u) | (byte_at(s, j - 4) >> 6) << 4;
  const uint32_t minimum = (byte_at(s, j + 4) >> 4) | (byte_at(s, j) >> 6) << 4;
  return {static_cast<float>(scale), static_cast<float>(minimum)};
}

/// Q4_K, and Q5_K where `qh` holds the fifth bits.
void q45_k(const std::byte* p, const std::byte* qh, const std::byte* qs, float* out) {
  const float d = half_at(p, 0), dmin = half_at(p, 2);
  for (size_t j = 0; j < kSubBlocks; ++j) {
    const ScaleMin s = scale_min(p + 4, j);
    const float scale = d * s.scale, minimum = dmin * s.minimum;
    const std::byte* run = qs + 32 * (j / 2);
    for (size_t i = 0; i < 32; ++i) {
      uint32_t q = j % 2 == 0 ? byte_at(run, i) & 15u : byte_at(run, i) >> 4;
      if (qh != nullptr) q |= ((byte_at(qh, i) >> j) & 1u) << 4;
      out[32 * j + i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void q4_k(const std::byte* p, float* out) { q45_k(p, nullptr, p + 16, out); }
void q5_k(const std::byte* p, float* out) { q45_k(p, p + 16, p + 48, out); }

void q6_k(const std::byte* p, float* out) {
  const std::byte *ql = p, *qh = p + 128, *scales = p + 192;
  const float d = half_at(p, 208);
  for (size_t index = 0; index < 256; ++index) {
    const size_t half = index / 128, row = index / 32 % 4, i = index % 32;
    const uint32_t packed = byte_at(ql, 64 * half + 32 * (row & 1) + i);
    const uint32_t low = row < 2 ? packed & 15u : packed >> 4;
    const uint32_t high = (byte_at(qh, 32 * half + i) >> (2 * row)) & 3u;
    const int q = static_cast<int>(low | high << 4) - 32;
    const float scale = d * static_cast<float>(signed_byte(scales, index / 16));
    out[index] = scale * static_cast<float>(q);
  }
}

struct Format {
  GgmlType type;
  std::string_view name;
  GgmlBlock block;
  void (*decode)(const std::byte*, float*);  ///< nullptr: plain floats.
};
constexpr std::array<Format, 11> kFormats{{
    {GgmlType::kF32, "F32", {1, 4}, nullptr},
    {GgmlType::kF16, "F16", {1, 2}, nullptr},
    {GgmlType::kBF16, "BF16", {1, 2}, nullptr},
    {GgmlType::kQ4_0, "Q4_0", {32, 18}, q4_0},
    {GgmlType::kQ4_1, "Q4_1", {32, 20}, q4_1},
    {GgmlType::kQ5_0, "Q5_0", {32, 22}, q5_0},
    {GgmlType::kQ5_1, "Q5_1", {32, 24}, q5_1},
    {GgmlType::kQ8_0, "Q8_0", {32, 34}, q8_0},
    {GgmlType::kQ4_K, "Q4_K", {256, 144}, q4_k},
    {GgmlType::kQ5_K, "Q5_K", {256, 176}, q5_k},
    {GgmlType::kQ6_K, "Q6_K", {256, 210}, q6_k},
}};

struct OtherType {
  uint32_t type;
  std::string_view name;
};
constexpr std::array<OtherType, 22> kOthers{{
    {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
    {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
    {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"},
}};

const Format* find_format(GgmlType type) {
  for (const Format& f : kFormats) {
    if (f.type == type) return &f;
  }
  return nullptr;
}

DType plain_dtype(GgmlType type) {
  if (type == GgmlType::kF16) return DType::kF16;
  return type == GgmlType::kBF16 ? DType::kBF16 : DType::kF32;
}

}  // namespace

std::string ggml_type_name(uint32_t type) {
  if (const Format* f = find_format(static_cast<GgmlType>(type))) return std::string(f->name);
  for (const OtherType& other : kOthers) {
    if (other.type == type) return std::string(other.name);
  }
  return concat("the unknown type ", type);
}

GgmlBlock ggml_block(GgmlType type) {
  const Format* f = find_format(type);
  return f != nullptr ? f->block : GgmlBlock{};
}

std::optional<WeightBlocks> ggml_unpack(GgmlType type, std::span<const std::byte> blocks) {
  const bool q8 = type == GgmlType::kQ8_0, q4_1 = type == GgmlType::kQ4_1;
  if (!q8 && !q4_1 && type != GgmlType::kQ4_0) return std::nullopt;
  const auto bytes = static_cast<size_t>(ggml_block(type).bytes);
  const size_t count = blocks.size() / bytes;
  WeightBlocks out;
  out.bits = q8 ? 8 : 4;
  out.codes.resize(count * 32);
  out.scales.resize(count);
  if (q4_1) out.minimums.resize(count);
  const auto half = [](const std::byte* p) {
    return static_cast<uint16_t>(byte_at(p, 0) | byte_at(p, 1) << 8);
  };
  for (size_t b = 0; b < count; ++b) {
    const std::byte* p = blocks.data() + b * bytes;
    out.scales[b] = half(p);
    if (q4_1) out.minimums[b] = half(p + 2);
    const std::byte* codes = p + (q4_1 ? 4 : 2);
    for (size_t j = 0; j < 32; ++j) {
      out.codes[b * 32 + j] = static_cast<uint8_t>(q8 ? byte_at(codes, j) : nibble(codes, j));
    }
  }
  return out;
}

void ggml_dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> out) {
  const Format* f = find_format(type);
  TEMPER_CHECK(f != nullptr, "[ggml_dequantize] ", ggml_type_name(static_cast<uint32_t>(type)),
               " is not supported");
  const auto weights = static_cast<size_t>(f->block.weights);
  const auto bytes = static_cast<size_t>(f->block.bytes);
  TEMPER_CHECK(blocks.size() % bytes == 0 && out.size() / weights == blocks.size() / bytes &&
                   out.size() % weights == 0,
               "[ggml_dequantize] ", blocks.size(), " bytes of ", f->name, " do not hold ",
               out.size(), " weights");
  if (f->decode == nullptr) {
    const DType dtype = plain_dtype(type);
    return copy_to_float({dtype, {static_cast<int64_t>(out.size())}, blocks, nullptr}, out);
  }
  for (size_t b = 0; b < blocks.size() / bytes; ++b) {
    f->decode(blocks.data() + b * bytes, out.data() + b * weights);
  }
}

}  // namespace temper
