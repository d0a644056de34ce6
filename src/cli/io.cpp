#include <CLI/App.hpp>
#include <charconv>
#include <cstdio>
#include <fstream>

#include "commands.h"
#include "temper/core/error.h"
#include "temper/ops/reference.h"

namespace temper::cli {

void add_kernels_option(CLI::App* cmd, std::string& kernels) {
  cmd->add_option("--kernels", kernels,
                  "cpu, or reference: every op in plain ATen, slow, to compare with")
      ->check(CLI::IsMember(ops::kernel_names()));
}

std::vector<int32_t> parse_ids(const std::string& text) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at < end) {
    int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    TEMPER_CHECK(error == std::errc() && (next == end || *next == ','),
                 "--ids expects numbers with commas between them, such as 1,2,3; got \"", text,
                 "\"");
    ids.push_back(id);
    at = next == end ? end : next + 1;
  }
  TEMPER_CHECK(!ids.empty(), "--ids is empty: name at least one token id");
  return ids;
}

std::vector<std::string> read_lines(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  TEMPER_CHECK(file.good(), "cannot open ", path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(std::move(line));
  }
  TEMPER_CHECK(file.eof(), "cannot read ", path);
  return lines;
}

void print_line(const std::string& line) {
  const bool ok = std::fwrite(line.data(), 1, line.size(), stdout) == line.size() &&
                  std::fputc('\n', stdout) != EOF && std::fflush(stdout) == 0;
  TEMPER_CHECK(ok, "cannot write to stdout");
}

void finish_output() {
  TEMPER_CHECK(std::fflush(stdout) == 0 && std::ferror(stdout) == 0, "cannot write to stdout");
}

}  // namespace temper::cli
