#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace temper {

/// How a table is read.
struct CsvOptions {
  std::string separator = ",";
  std::string encoding = "utf-8";
  bool lossy_utf8 = false;
  int64_t max_record_bytes = int64_t{64} << 20;

  template <class V>
  void visit(V&& v) {
    v(separator, "separator", "One character of ASCII between cells, such as , ; or a tab.");
    v(encoding, "encoding", "Of the file.", {"utf-8", "latin-1"});
    v(lossy_utf8, "lossy_utf8", "Replace invalid UTF-8 by U+FFFD instead of refusing it.");
    v(max_record_bytes, "max_record_bytes", "Longest record in bytes, at least 1.");
  }
};

/// One record of a table.
struct CsvRecord {
  std::vector<std::string> cells;  ///< UTF-8; as many as there are columns.
  uint64_t line = 0;               ///< Where the record begins, from 1.
};

/// Reads a CSV file (RFC 4180) record by record: a header first, cells in double quotes where they
/// hold separators, quotes (doubled) or line ends, lines that end in LF or CRLF. Blank lines are
/// passed over. The file may be gzip. Memory holds one record.
class CsvReader {
 public:
  /// Opens the file and reads the header. @throws Error for a file that cannot be read or is of
  /// another format, an empty file, and two columns of one name.
  explicit CsvReader(const std::filesystem::path& path, const CsvOptions& options = {});
  ~CsvReader();
  CsvReader(CsvReader&&) noexcept;
  CsvReader& operator=(CsvReader&&) noexcept;

  /// The same from memory, which must outlive the reader; `name` stands for the file in messages.
  [[nodiscard]] static CsvReader from_text(std::string_view text, const std::string& name,
                                           const CsvOptions& options = {});

  [[nodiscard]] const std::vector<std::string>& columns() const;

  /// The place of a column. @throws Error naming the columns when there is none of that name.
  [[nodiscard]] size_t column(std::string_view name) const;

  /// The next record; false at the end. @throws Error naming file, line and column: a quote that is
  /// not closed, or stands inside a cell without quotes, text behind a closing quote, more or fewer
  /// cells than columns, invalid UTF-8, a record over `max_record_bytes`. Cells are never quoted.
  bool next(CsvRecord& record);

  /// StableHash of the (uncompressed) bytes read so far.
  [[nodiscard]] uint64_t content_hash() const;

 private:
  class Impl;
  explicit CsvReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// A whole table.
struct CsvTable {
  std::vector<std::string> columns;
  std::vector<CsvRecord> records;
  uint64_t content_hash = 0;
};

/// All of a file. @throws Error as `CsvReader` does.
[[nodiscard]] CsvTable read_csv(const std::filesystem::path& path, const CsvOptions& options = {});

}  // namespace temper
