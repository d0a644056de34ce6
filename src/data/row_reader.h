#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "temper/data/dataset.h"

namespace temper::detail {

/// Fills a buffer with up to `size` bytes and returns how many; 0 at the end.
using ByteSource = std::function<size_t(char* buffer, size_t size)>;

/// Bytes of a file, unpacked on the way when it is gzip. Errors name the path.
[[nodiscard]] ByteSource open_bytes(const std::filesystem::path& path);

/// One row as text, and where its first byte stands (both from 1; columns are bytes).
struct Row {
  std::string text;
  uint64_t line = 1;
  uint64_t column = 1;
  bool too_long = false;  ///< Its end was passed over: see `pass_over_long_rows`.
  bool cells = false;  ///< The text is the JSON of a table's record: every value is text.
};

/// "file:line:column" of byte `offset` of the row.
[[nodiscard]] std::string position_in(const std::string& name, const Row& row, size_t offset);

/// Cuts a stream into rows: lines, or the elements of one array when the first byte that is no
/// blank is '[', or the records of a table. Holds one row in memory.
class RowReader {
 public:
  /// Records end where a line does outside of quotes; a cell begins behind the separator.
  struct Cut {
    char separator = ',';
  };

  RowReader(ByteSource source, std::string name, size_t max_row_bytes,
            std::optional<Cut> table = {});

  /// The next row that is not blank; false at the end. @throws Error for a row that is too long and
  /// for an array that is cut short or has something wrong between its elements.
  bool next(Row& row);

  /// From now on a row that is too long is marked instead of an error, and holds its beginning.
  void pass_over_long_rows() { pass_over_ = true; }
  /// @throws Error for a row that is marked.
  void refuse_long(const Row& row) const;

  /// Hash of all bytes read so far.
  [[nodiscard]] uint64_t hash() const { return hash_.value(); }

 private:
  int peek();
  void take();
  void skip_blanks();
  void start();
  bool next_line(Row& row);
  bool next_record(Row& row);
  void take_record(Row& row);
  bool next_element(Row& row);
  void take_element(Row& row);
  void append(Row& row, char c) const;
  [[nodiscard]] std::string here() const;

  ByteSource source_;
  std::string name_;
  size_t max_row_bytes_;
  std::optional<Cut> table_;
  StableHash hash_;
  std::string buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  uint64_t line_ = 1;
  uint64_t column_ = 1;
  bool pass_over_ = false;
  bool started_ = false;
  bool array_ = false;
  bool array_done_ = false;
  bool first_element_ = true;
};

}  // namespace temper::detail
