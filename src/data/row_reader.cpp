#include "row_reader.h"

#include <zlib.h>

#include <array>
#include <fstream>
#include <memory>
#include <utility>

#include "parquet.h"
#include "temper/core/error.h"

namespace temper::detail {
namespace {

constexpr size_t kChunkBytes = size_t{64} << 10;

/// Names a format that is not read and says what to do, from a file's first bytes; empty: none.
std::string foreign_format(std::string_view head) {
  if (head.starts_with("PAR1")) {
    return "is Parquet, which this build does not read (CMake option TEMPER_PARQUET); convert it to "
           "JSON Lines first (in Python: "
           "pandas.read_parquet(f).to_json(g, orient=\"records\", lines=True))";
  }
  if (head.starts_with("PK\x03\x04")) return "is a zip archive; unpack it first";
  if (head.starts_with("\x28\xb5\x2f\xfd")) return "is zstd; unpack it first (zstd -d)";
  if (head.starts_with("BZh")) return "is bzip2; unpack it first (bunzip2)";
  if (head.starts_with(std::string_view("\xfd"
                                        "7zXZ\0",
                                        6))) {
    return "is xz; unpack it first (unxz)";
  }
  if (head.starts_with("\xff\xfe") || head.starts_with("\xfe\xff")) {
    return "is UTF-16; convert it to UTF-8 first";
  }
  return "";
}

struct GzipCloser {
  void operator()(gzFile_s* file) const { gzclose_r(file); }
};

}  // namespace

ByteSource open_bytes(const std::filesystem::path& path) {
  std::error_code error;
  TEMPER_CHECK(std::filesystem::exists(path, error), "[read_jsonl] ", path.string(),
               ": no such file");
  TEMPER_CHECK(std::filesystem::is_regular_file(path, error), "[read_jsonl] ", path.string(),
               ": expected a file, found a folder or a device");
  std::array<char, 8> head{};
  std::ifstream probe(path, std::ios::binary);
  probe.read(head.data(), head.size());
  const std::string_view begin(head.data(), static_cast<size_t>(probe.gcount()));
  if (begin.starts_with("PAR1") && reads_parquet()) return parquet_bytes(path);
  const std::string foreign = foreign_format(begin);
  TEMPER_CHECK(foreign.empty(), "[read_jsonl] ", path.string(), ": the file ", foreign);
  // zlib hands the bytes of a file without gzip's magic number through as they are.
  std::shared_ptr<gzFile_s> file(gzopen(path.c_str(), "rb"), GzipCloser{});
  TEMPER_CHECK(file != nullptr, "[read_jsonl] ", path.string(), ": the file cannot be opened");
  gzbuffer(file.get(), kChunkBytes);
  return [file, name = path.string()](char* buffer, size_t size) -> size_t {
    const int got = gzread(file.get(), buffer, static_cast<unsigned>(size));
    if (got > 0) return static_cast<size_t>(got);
    int code = Z_OK;
    const char* reason = gzerror(file.get(), &code);
    TEMPER_CHECK(got == 0 && (code == Z_OK || code == Z_STREAM_END), "[read_jsonl] ", name,
                 code == Z_BUF_ERROR ? ": the gzip data ends too early (a broken download?)"
                                     : ": the file cannot be read or unpacked: ",
                 code == Z_BUF_ERROR ? "" : reason);
    return 0;
  };
}

std::string position_in(const std::string& name, const Row& row, size_t offset) {
  uint64_t line = row.line;
  uint64_t column = row.column;
  for (size_t i = 0; i < offset && i < row.text.size(); ++i) {
    ++column;
    if (row.text[i] == '\n') {
      ++line;
      column = 1;
    }
  }
  return concat(name, ":", line, ":", column);
}

RowReader::RowReader(ByteSource source, std::string name, size_t max_row_bytes,
                     std::optional<Cut> table)
    : source_(std::move(source)),
      name_(std::move(name)),
      max_row_bytes_(max_row_bytes),
      table_(table),
      buffer_(kChunkBytes, '\0') {}

std::string RowReader::here() const { return concat(name_, ":", line_, ":", column_); }

int RowReader::peek() {
  if (begin_ == end_) {
    try {
      end_ = source_(buffer_.data(), buffer_.size());
    } catch (const Error& e) {  // It cannot know where in the rows it is.
      fail(e.what(), "; it is whole up to line ", line_, " at most");
    }
    begin_ = 0;
    if (end_ == 0) return -1;
    hash_.update({buffer_.data(), end_});
  }
  return static_cast<unsigned char>(buffer_[begin_]);
}

void RowReader::take() {
  ++column_;
  if (buffer_[begin_++] == '\n') {
    ++line_;
    column_ = 1;
  }
}

void RowReader::skip_blanks() {
  for (int c = peek(); c == ' ' || c == '\t' || c == '\r' || c == '\n'; c = peek()) take();
}

void RowReader::start() {
  started_ = true;
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (peek() == 0xef && std::string_view(buffer_.data(), end_).starts_with(kByteOrderMark)) {
    begin_ += kByteOrderMark.size();
  }
  if (table_) return;
  skip_blanks();
  array_ = peek() == '[';
  if (array_) take();
}

void RowReader::append(Row& row, char c) const {
  if (row.text.size() < max_row_bytes_) {
    row.text.push_back(c);
    return;
  }
  row.too_long = true;
  if (!pass_over_) refuse_long(row);
}

void RowReader::refuse_long(const Row& row) const {
  TEMPER_CHECK(!row.too_long, "[read_jsonl] ", name_, ":", row.line, ":", row.column,
               ": the row is longer than ", max_row_bytes_,
               " bytes (the limit is max_line_bytes)");
}

bool RowReader::next(Row& row) {
  if (!started_) start();
  row.text.clear();
  row.cells = false;
  row.too_long = false;
  if (table_) return next_record(row);
  return array_ ? next_element(row) : next_line(row);
}

bool RowReader::next_line(Row& row) {
  skip_blanks();
  row.line = line_;
  row.column = column_;
  int c = peek();
  for (; c != -1 && c != '\n'; c = peek()) {
    append(row, static_cast<char>(c));
    take();
  }
  if (c == '\n') take();
  return !row.text.empty();
}

bool RowReader::next_record(Row& row) {
  while (row.text.empty() && peek() != -1) {
    row.line = line_;
    row.column = column_;
    take_record(row);
    if (row.text.ends_with('\r')) row.text.pop_back();
  }
  return !row.text.empty();
}

/// Up to a line's end outside of quotes. Quotes count only where a cell begins: one that is
/// misplaced spoils its own record, not those behind it.
void RowReader::take_record(Row& row) {
  enum class At { kStart, kPlain, kQuoted, kBehind } at = At::kStart;
  for (int c = peek(); c != -1; c = peek()) {
    take();
    if (c == '\n' && at != At::kQuoted) return;
    append(row, static_cast<char>(c));
    if (at == At::kQuoted) {
      if (c == '"') at = At::kBehind;
    } else if (c == '"' && at != At::kPlain) {
      at = At::kQuoted;  // The first of a cell, or the second of a doubled one.
    } else {
      at = c == table_->separator ? At::kStart : At::kPlain;
    }
  }
}

bool RowReader::next_element(Row& row) {
  skip_blanks();
  if (!array_done_ && first_element_ && peek() == ']') {
    take();
    array_done_ = true;
    skip_blanks();
  }
  if (array_done_) {
    TEMPER_CHECK(peek() == -1, "[read_jsonl] ", here(),
                 ": expected the end of the file after the array's ']'");
    return false;
  }
  first_element_ = false;
  row.line = line_;
  row.column = column_;
  take_element(row);
  TEMPER_CHECK(!row.text.empty(), "[read_jsonl] ", position_in(name_, row, 0),
               ": expected an object in the array, found a comma or the array's end");
  const int c = peek();
  TEMPER_CHECK(c == ',' || c == ']', "[read_jsonl] ", here(),
               ": the array that starts the file is not closed: expected ',' or ']'");
  array_done_ = c == ']';
  take();
  return true;
}

/// Everything up to the ',' or ']' that follows the element; brackets and quotes are respected, the
/// grammar inside is the parser's business.
void RowReader::take_element(Row& row) {
  size_t depth = 0;
  bool quoted = false;
  bool escaped = false;
  for (int c = peek(); c != -1; c = peek()) {
    if (quoted) {
      quoted = escaped || c != '"';
      escaped = !escaped && c == '\\';
    } else if (depth == 0 && (c == ',' || c == ']' || c == '}')) {
      break;
    } else {
      quoted = c == '"';
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
    }
    append(row, static_cast<char>(c));
    take();
  }
  while (!row.text.empty() &&
         std::string_view(" \t\r\n").find(row.text.back()) != std::string_view::npos) {
    row.text.pop_back();
  }
}

}  // namespace temper::detail
