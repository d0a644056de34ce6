#pragma once

#include <cstdint>
#include <string_view>

#include "temper/formats/model_config.h"

namespace temper::detail {

// Far above any model, and low enough that products of three of them stay below 2^63.
inline constexpr int64_t kMaxHidden = 1 << 18;
inline constexpr int64_t kMaxIntermediate = 1 << 20;
inline constexpr int64_t kMaxLayers = 4096;
inline constexpr int64_t kMaxHeads = 4096;
inline constexpr int64_t kMaxHeadDim = 4096;
inline constexpr int64_t kMaxVocab = 1 << 24;
inline constexpr int64_t kMaxPositions = INT32_MAX;

/// The ranges that hold for every config, wherever it came from. @throws Error naming `source`.
void check_model_config(const ModelConfig& config, std::string_view source);

}  // namespace temper::detail
