#pragma once

#include <vector>

#include "style/source_scan.h"

namespace temper::style {

/// Kernels' files (src/kernels/cuda/*.cuh and *.cu, but device.cuh, which defines the vocabulary):
/// words outside the vocabulary of docs/gpu.md, and kernels without __launch_bounds__.
[[nodiscard]] std::vector<Violation> check_cuda_vocabulary(const std::vector<SourceFile>& files);

/// .cu files that `list`, the text of src/kernels/cuda/CMakeLists.txt, does not name: they would be
/// compiled by nobody.
[[nodiscard]] std::vector<Violation> check_cuda_sources_listed(const std::vector<SourceFile>& files,
                                                               const std::string& list);

}  // namespace temper::style
