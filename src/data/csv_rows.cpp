#include "csv_rows.h"

#include <nlohmann/json.hpp>
#include <set>

#include "temper/core/error.h"

namespace temper::detail {
namespace {

/// Takes one record apart.
class RecordSplitter {
 public:
  RecordSplitter(const Row& row, const std::string& name, char separator)
      : row_(row), name_(name), separator_(separator) {}

  std::vector<std::string> split() {
    std::vector<std::string> cells;
    do {
      cells.push_back(at_ < row_.text.size() && row_.text[at_] == '"' ? quoted() : plain());
    } while (at_ < row_.text.size() && row_.text[at_++] == separator_);
    return cells;
  }

 private:
  std::string quoted() {
    const size_t opened = at_++;
    std::string cell;
    while (true) {
      const size_t quote = row_.text.find('"', at_);
      TEMPER_CHECK(quote != std::string::npos, "[read_csv] ", position_in(name_, row_, opened),
                   ": the quote that opens here is not closed");
      cell.append(row_.text, at_, quote - at_);
      at_ = quote + 1;
      if (at_ >= row_.text.size() || row_.text[at_] != '"') break;
      cell += row_.text[at_++];
    }
    TEMPER_CHECK(at_ >= row_.text.size() || row_.text[at_] == separator_, "[read_csv] ",
                 position_in(name_, row_, at_),
                 ": expected a separator or the line's end behind the closing quote");
    return cell;
  }

  std::string plain() {
    const size_t begin = at_;
    at_ = std::min(row_.text.find(separator_, at_), row_.text.size());
    const size_t quote = row_.text.find('"', begin);
    TEMPER_CHECK(quote >= at_, "[read_csv] ", position_in(name_, row_, quote),
                 ": a quote inside a cell that does not begin with one; quote the cell and double "
                 "the quote");
    return row_.text.substr(begin, at_ - begin);
  }

  const Row& row_;
  const std::string& name_;
  char separator_;
  size_t at_ = 0;
};

}  // namespace

bool is_csv_name(std::string_view name) {
  std::string low(name);
  for (char& c : low) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return low.ends_with(".csv") || low.ends_with(".csv.gz");
}

std::vector<std::string> split_record(const Row& row, const std::string& name, char separator) {
  return RecordSplitter(row, name, separator).split();
}

CsvHeader::CsvHeader(const Row& row, std::string name, char separator)
    : name_(std::move(name)), separator_(separator), columns_(split_record(row, name_, separator)) {
  std::set<std::string> seen;
  for (size_t i = 0; i < columns_.size(); ++i) {
    TEMPER_CHECK(seen.insert(columns_[i]).second, "[read_csv] ", position_in(name_, row, 0),
                 ": two columns are called \"", columns_[i].substr(0, 40), "\" (number ", i + 1,
                 " is the second)");
  }
}

std::vector<std::string> CsvHeader::cells(const Row& row) const {
  std::vector<std::string> cells = split_record(row, name_, separator_);
  TEMPER_CHECK(cells.size() == columns_.size(), "[read_csv] ", position_in(name_, row, 0),
               ": expected ", columns_.size(), " cells, as the header has, got ", cells.size());
  return cells;
}

void CsvHeader::to_json(Row& row) const {
  std::vector<std::string> values = cells(row);
  nlohmann::json object = nlohmann::json::object();
  for (size_t i = 0; i < values.size(); ++i) object[columns_[i]] = std::move(values[i]);
  row.text = object.dump();
  row.cells = true;
}

}  // namespace temper::detail
