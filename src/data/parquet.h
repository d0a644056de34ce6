#pragma once

#include <filesystem>

#include "row_reader.h"

namespace temper::detail {

/// Whether this build reads Parquet (CMake option TEMPER_PARQUET).
[[nodiscard]] bool reads_parquet();

/// A Parquet file as JSON Lines, an object a row: lines in errors are rows. Lists and structs become
/// arrays and objects, dates and other types without a counterpart their text. Memory holds one
/// batch of rows and what Arrow reads of a row group.
/// @throws Error naming the file for one that Arrow cannot read, and in builds without it.
[[nodiscard]] ByteSource parquet_bytes(const std::filesystem::path& path);

}  // namespace temper::detail
