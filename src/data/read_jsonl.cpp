#include <algorithm>
#include <utility>

#include "json_rows.h"
#include "row_reader.h"
#include "temper/core/error.h"
#include "temper/core/log.h"
#include "temper/data/dataset.h"

namespace temper {
namespace {

constexpr size_t kListedProblems = 20;

Dataset read_rows(detail::ByteSource source, const std::string& name, const ReadOptions& options) {
  TEMPER_CHECK(options.max_line_bytes >= 1, "[read_jsonl] max_line_bytes must be at least 1, got ",
               options.max_line_bytes);
  TEMPER_CHECK(options.max_rows >= 0, "[read_jsonl] max_rows must not be negative, got ",
               options.max_rows);
  const uint64_t limit =
      options.max_rows == 0 ? UINT64_MAX : static_cast<uint64_t>(options.max_rows);
  Dataset data;
  data.source = name;
  data.license = options.license;
  detail::RowReader reader(std::move(source), name, static_cast<size_t>(options.max_line_bytes));
  detail::Row row;
  while (data.examples.size() < limit && reader.next(row)) {
    try {
      data.examples.push_back(detail::parse_row(row, name, options));
    } catch (const Error& e) {
      if (!options.skip_bad) throw;
      ++data.skipped;
      if (data.problems.size() < kListedProblems) data.problems.emplace_back(e.what());
    }
  }
  if (data.examples.empty()) {
    fail("[read_jsonl] ", name, ": no rows",
         data.skipped == 0
             ? std::string(": the file is empty")
             : concat(": all ", data.skipped, " were bad, the first: ", data.problems.front()));
  }
  if (data.skipped > 0) {
    log_warn("[read_jsonl] ", name, ": left out ", data.skipped,
             " bad rows, the first: ", data.problems.front());
  }
  data.content_hash = reader.hash();
  return data;
}

}  // namespace

Dataset read_jsonl(const std::filesystem::path& path, const ReadOptions& options) {
  return read_rows(detail::open_bytes(path), path.string(), options);
}

Dataset parse_jsonl(std::string_view text, const std::string& name, const ReadOptions& options) {
  size_t at = 0;
  const auto source = [text, at](char* buffer, size_t size) mutable {
    const size_t n = std::min(size, text.size() - at);
    std::copy_n(text.data() + at, n, buffer);
    at += n;
    return n;
  };
  return read_rows(source, name, options);
}

}  // namespace temper
