#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "temper/core/dtype.h"
#include "temper/formats/model_source.h"

namespace temper {

/// Opens a Hugging Face folder: config.json, model.safetensors or its shards, tokenizer files.
/// Files may be links only within the folder, or within the tree of the hub cache that it lies in.
/// @throws Error naming the file and the rule that it breaks.
[[nodiscard]] ModelSource open_hf_folder(const std::filesystem::path& folder);

/// A tensor that is made when its turn comes: `fill` gets exactly its number of elements.
struct WriteTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::function<void(std::span<float>)> fill;
};

struct HfFolderOptions {
  DType dtype = DType::kF32;                 ///< kF32, kBF16 or kF16.
  int64_t max_shard_bytes = 50'000'000'000;  ///< A file closes before it grows past this.
};

/// Writes a folder that transformers loads: weights (in shards with an index when they are over the
/// limit), generation_config.json, tokenizer files, chat template, and config.json as the last, so
/// that an interrupted write leaves no folder that looks complete. Each file appears whole or not
/// at all; weight files of an earlier save that are not part of this one are removed. Holds one
/// tensor in memory at a time.
/// @param meta  where config and tokenizer come from; its weights are not read.
/// @throws Error for duplicate names, a second copy of tied weights, or an I/O failure.
void write_hf_folder(const std::filesystem::path& folder, const ModelSource& meta,
                     std::span<const WriteTensor> tensors, const HfFolderOptions& options);

}  // namespace temper
