// Any bytes must give records with a cell a column, or an Error; what is written back in quotes
// must be read as it was.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "temper/core/error.h"
#include "temper/data/csv.h"

namespace {

std::string quoted(const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) {
    line += i == 0 ? "\"" : ",\"";
    for (const char c : cells[i]) line += c == '"' ? std::string("\"\"") : std::string(1, c);
    line += '"';
  }
  return line + "\n";
}

std::string table(std::string_view text, const temper::CsvOptions& options) {
  temper::CsvReader reader = temper::CsvReader::from_text(text, "fuzz.csv", options);
  std::string out = quoted(reader.columns());
  for (temper::CsvRecord record; reader.next(record);) {
    if (record.cells.size() != reader.columns().size() || record.line == 0) std::abort();
    out += quoted(record.cells);
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const char* encoding : {"utf-8", "latin-1"}) {
    temper::CsvOptions options;
    options.encoding = encoding;
    options.max_record_bytes = 4096;
    std::string once;
    try {
      once = table(text, options);
    } catch (const temper::Error&) {
      continue;
    }
    if (table(once, {}) != once) std::abort();
  }
  return 0;
}
