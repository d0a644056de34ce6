#include <algorithm>
#include <optional>
#include <utility>

#include "csv_rows.h"
#include "json_rows.h"
#include "row_reader.h"
#include "temper/core/error.h"
#include "temper/core/log.h"
#include "temper/data/dataset.h"

namespace temper {
namespace detail {

constexpr size_t kListedProblems = 20;

std::string listed(const std::vector<std::string>& problems, uint64_t count) {
  std::string out = count > problems.size() ? concat(", the first ", problems.size(), ":") : ":";
  for (const std::string& p : problems) out += "\n  " + p;
  return problems.empty() ? "" : out;
}

RowsRead read_each_row(ByteSource source, const std::string& name, const ReadOptions& options,
                       const std::function<void(Row&)>& take) {
  TEMPER_CHECK(options.max_line_bytes >= 1, "[read_jsonl] max_line_bytes must be at least 1, got ",
               options.max_line_bytes);
  TEMPER_CHECK(options.max_rows >= 0, "[read_jsonl] max_rows must not be negative, got ",
               options.max_rows);
  const uint64_t limit =
      options.max_rows == 0 ? UINT64_MAX : static_cast<uint64_t>(options.max_rows);
  RowsRead read;
  const auto cut = is_csv_name(name) ? std::optional(RowReader::Cut{}) : std::nullopt;
  RowReader reader(std::move(source), name, static_cast<size_t>(options.max_line_bytes), cut);
  if (options.skip_bad) reader.pass_over_long_rows();
  Row row;
  std::optional<CsvHeader> header;
  if (cut && reader.next(row)) {
    reader.refuse_long(row);
    check_utf8(row, name, options.lossy_utf8);
    header.emplace(row, name, cut->separator);
  }
  uint64_t taken = 0;
  while (taken < limit && reader.next(row)) {
    try {
      reader.refuse_long(row);
      if (header) {
        check_utf8(row, name, options.lossy_utf8);
        header->to_json(row);
      }
      take(row);
      ++taken;
    } catch (const Error& e) {
      if (!options.skip_bad) throw;
      ++read.skipped;
      if (read.problems.size() < kListedProblems) read.problems.emplace_back(e.what());
    }
  }
  if (taken == 0) {
    fail("[read_jsonl] ", name, ": no rows",
         read.skipped == 0
             ? std::string(": the file is empty")
             : concat(": all ", read.skipped, " were bad, the first: ", read.problems.front()));
  }
  if (read.skipped > 0) {
    log_warn("[read_jsonl] ", name, ": left out ", read.skipped, " bad rows",
             listed(read.problems, read.skipped));
  }
  read.content_hash = reader.hash();
  return read;
}

ByteSource text_bytes(std::string_view text) {
  size_t at = 0;
  return [text, at](char* buffer, size_t size) mutable {
    const size_t n = std::min(size, text.size() - at);
    std::copy_n(text.data() + at, n, buffer);
    at += n;
    return n;
  };
}

}  // namespace detail

namespace {

Dataset read_rows(detail::ByteSource source, const std::string& name, const ReadOptions& options) {
  Dataset data;
  data.source = name;
  data.license = options.license;
  detail::RowsRead read = detail::read_each_row(
      std::move(source), name, options,
      [&](detail::Row& row) { data.examples.push_back(detail::parse_row(row, name, options)); });
  data.content_hash = read.content_hash;
  data.skipped = read.skipped;
  data.problems = std::move(read.problems);
  return data;
}

}  // namespace

Dataset read_jsonl(const std::filesystem::path& path, const ReadOptions& options) {
  return read_rows(detail::open_bytes(path), path.string(), options);
}

Dataset parse_jsonl(std::string_view text, const std::string& name, const ReadOptions& options) {
  return read_rows(detail::text_bytes(text), name, options);
}

}  // namespace temper
