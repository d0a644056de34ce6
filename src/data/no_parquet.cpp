#include "parquet.h"
#include "temper/core/error.h"

namespace temper::detail {

bool reads_parquet() { return false; }

ByteSource parquet_bytes(const std::filesystem::path& path) {
  fail("[read_jsonl] ", path.string(), ": this build does not read Parquet");
}

}  // namespace temper::detail
