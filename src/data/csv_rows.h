#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "row_reader.h"

namespace temper::detail {

/// Whether a file is a table by its name: .csv, perhaps with .gz behind it.
[[nodiscard]] bool is_csv_name(std::string_view name);

/// The cells of a record as it was cut from the file. @throws Error with the position.
[[nodiscard]] std::vector<std::string> split_record(const Row& row, const std::string& name,
                                                    char separator);

/// The names of a table's columns, which give its records their keys.
class CsvHeader {
 public:
  /// @throws Error for two columns of one name.
  CsvHeader(const Row& row, std::string name, char separator);

  [[nodiscard]] const std::vector<std::string>& columns() const { return columns_; }

  /// @throws Error unless there is a cell a column.
  [[nodiscard]] std::vector<std::string> cells(const Row& row) const;

  /// Makes the record one JSON object of texts; line and column of the row stay.
  void to_json(Row& row) const;

 private:
  std::string name_;
  char separator_;
  std::vector<std::string> columns_;
};

}  // namespace temper::detail
