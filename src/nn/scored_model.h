#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

#include "temper/nn/scalar_model.h"

namespace temper {

/// What a reward or value model is made of.
struct ScoredModel {
  std::shared_ptr<CausalLM> backbone;
  ScalarHead head;
  std::shared_ptr<const ModelSource> source;
};

/// A file with a head. @throws Error naming the file and the key when it has none.
[[nodiscard]] ScoredModel open_scored(std::string_view spec, WeightDType dtype, Trainable trainable);
/// A language model under a head of zeros.
[[nodiscard]] ScoredModel open_language_model(std::string_view spec, WeightDType dtype,
                                              Trainable trainable);
/// Whether it is an adapter's folder, and no model's.
[[nodiscard]] bool is_adapter_folder(std::string_view spec);
/// An adapter and its head over a frozen model: `spec`, or the one that the folder names.
[[nodiscard]] ScoredModel open_scored_adapter(std::string_view spec, WeightDType dtype,
                                              const std::filesystem::path& folder,
                                              Trainable trainable);
[[nodiscard]] ScoredModel open_scored_adapter(const std::filesystem::path& folder,
                                              WeightDType dtype, Trainable trainable);

}  // namespace temper
