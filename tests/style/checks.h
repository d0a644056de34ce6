#pragma once

#include <vector>

#include "style/source_scan.h"

namespace temper::style {

/// Includes that point down the layer list, or, from `objective`, outside core, ops and
/// data/batch.h.
[[nodiscard]] std::vector<Violation> check_layers(const std::vector<SourceFile>& files);

/// Torch outside its gate: in public headers other than core/torch.h, in layers that do without
/// Torch (also through other headers of ours), and the headers that include everything.
[[nodiscard]] std::vector<Violation> check_torch_gate(const std::vector<SourceFile>& files);

/// Headers of JSON, logging, regex and tokenizer libraries in public headers.
[[nodiscard]] std::vector<Violation> check_heavy_headers(const std::vector<SourceFile>& files);

/// Lengths of files (tests are exempt) and functions, numbers of parameters and of
/// config fields.
[[nodiscard]] std::vector<Violation> check_limits(const std::vector<SourceFile>& files);

/// Missing `#pragma once` and `using namespace` at namespace scope.
[[nodiscard]] std::vector<Violation> check_headers(const std::vector<SourceFile>& files);

/// Words that mark unfinished work, in code or comments.
[[nodiscard]] std::vector<Violation> check_unfinished(const std::vector<SourceFile>& files);

}  // namespace temper::style
