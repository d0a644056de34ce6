#include "temper/data/csv.h"

#include "csv_rows.h"
#include "json_rows.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using detail::Row;
using detail::RowReader;

char separator_of(const CsvOptions& options) {
  const std::string& s = options.separator;
  TEMPER_CHECK(s.size() == 1 && static_cast<unsigned char>(s[0]) < 0x80 && s != "\"" && s != "\n" &&
                   s != "\r",
               "[read_csv] separator must be one character of ASCII, no quote and no line end");
  TEMPER_CHECK(options.max_record_bytes >= 1,
               "[read_csv] max_record_bytes must be at least 1, got ", options.max_record_bytes);
  TEMPER_CHECK(options.encoding == "utf-8" || options.encoding == "latin-1",
               "[read_csv] encoding must be utf-8 or latin-1, got \"", options.encoding, "\"");
  return s[0];
}

/// Latin-1's bytes are the first 256 code points.
std::string from_latin1(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      out += c;
    } else {
      out += static_cast<char>(0xc0 | (byte >> 6));
      out += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return out;
}

}  // namespace

class CsvReader::Impl {
 public:
  Impl(detail::ByteSource source, std::string name, const CsvOptions& options)
      : options_(options),
        name_(std::move(name)),
        separator_(separator_of(options)),
        reader_(std::move(source), name_, static_cast<size_t>(options.max_record_bytes),
                RowReader::Cut{separator_}),
        header_(first_row(), name_, separator_) {}

  const detail::CsvHeader& header() const { return header_; }
  uint64_t hash() const { return reader_.hash(); }
  const std::string& name() const { return name_; }

  bool next(CsvRecord& record) {
    if (!next_row()) return false;
    record.cells = header_.cells(row_);
    record.line = row_.line;
    return true;
  }

 private:
  bool next_row() {
    if (!reader_.next(row_)) return false;
    if (options_.encoding == "latin-1") {
      row_.text = from_latin1(row_.text);
    } else {
      detail::check_utf8(row_, name_, options_.lossy_utf8);
    }
    return true;
  }

  const Row& first_row() {
    TEMPER_CHECK(next_row(), "[read_csv] ", name_, ": no header: the file is empty");
    return row_;
  }

  CsvOptions options_;
  std::string name_;
  char separator_;
  RowReader reader_;
  Row row_;
  detail::CsvHeader header_;
};

CsvReader::CsvReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

CsvReader::CsvReader(const std::filesystem::path& path, const CsvOptions& options)
    : impl_(std::make_unique<Impl>(detail::open_bytes(path), path.string(), options)) {}

CsvReader::~CsvReader() = default;
CsvReader::CsvReader(CsvReader&&) noexcept = default;
CsvReader& CsvReader::operator=(CsvReader&&) noexcept = default;

CsvReader CsvReader::from_text(std::string_view text, const std::string& name,
                               const CsvOptions& options) {
  return CsvReader(std::make_unique<Impl>(detail::text_bytes(text), name, options));
}

const std::vector<std::string>& CsvReader::columns() const { return impl_->header().columns(); }

size_t CsvReader::column(std::string_view name) const {
  std::string known;
  for (size_t i = 0; i < columns().size(); ++i) {
    if (columns()[i] == name) return i;
    known += (i == 0 ? "\"" : ", \"") + columns()[i].substr(0, 40) + "\"";
  }
  fail("[read_csv] ", impl_->name(), ": no column is called \"", name, "\"; there are ", known);
}

bool CsvReader::next(CsvRecord& record) { return impl_->next(record); }

uint64_t CsvReader::content_hash() const { return impl_->hash(); }

CsvTable read_csv(const std::filesystem::path& path, const CsvOptions& options) {
  CsvReader reader(path, options);
  CsvTable table;
  table.columns = reader.columns();
  for (CsvRecord record; reader.next(record);) table.records.push_back(std::move(record));
  table.content_hash = reader.content_hash();
  return table;
}

}  // namespace temper
