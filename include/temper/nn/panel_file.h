#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "temper/nn/causal_lm.h"

namespace temper {

/// What a panel file says of itself.
struct PanelFileInfo {
  WeightDType weights = WeightDType::kFloat32;
  LmParts parts = LmParts::kAll;
  std::string origin;  ///< What the writer noted: see `model_origin`.
};

/// @throws Error naming the file and what is wrong when it is no panel file.
[[nodiscard]] PanelFileInfo read_panel_file_info(const std::filesystem::path& file);

/// A line that changes when the files of `source` do: its path, and the names, sizes and times of
/// its weight files.
[[nodiscard]] std::string model_origin(const ModelSource& source);

/// Maps `file`, after making it where it is not there or is a panel file of another origin or
/// weight type; any other file is left alone. Processes may race: each writes beside the file and
/// renames, and what one has mapped stays whole.
/// @param spec  see `open_model`. @throws Error as `CausalLM::map_panels` does.
[[nodiscard]] std::unique_ptr<CausalLM> map_or_write_panels(std::string_view spec,
                                                            WeightDType weights,
                                                            const std::filesystem::path& file,
                                                            LmParts parts = LmParts::kAll);

}  // namespace temper
