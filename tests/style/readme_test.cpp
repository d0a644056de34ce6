// The program of the README is the marked part of an example that is compiled.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace {

std::string read(const std::string& name) {
  std::ifstream file(std::filesystem::path(TEMPER_SOURCE_DIR) / name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// What stands between two markers, exclusive.
std::string between(const std::string& text, const std::string& begin, const std::string& end) {
  const size_t from = text.find(begin);
  if (from == std::string::npos) return "";
  const size_t start = from + begin.size();
  return text.substr(start, text.find(end, start) - start);
}

std::string without_indent(const std::string& text) {
  std::istringstream in(text);
  std::string out;
  for (std::string line; std::getline(in, line);) {
    out += (line.starts_with("  ") ? line.substr(2) : line) + "\n";
  }
  return out;
}

TEST(Readme, ShowsTheCompiledProgram) {
  const std::string shown = between(read("README.md"), "```cpp\n", "```");
  const std::string compiled = without_indent(
      between(read("examples/readme_program.cpp"), "// README begin\n", "  // README end"));
  ASSERT_FALSE(compiled.empty());
  EXPECT_EQ(shown, compiled);
}

TEST(Readme, NamesTheTwoCommandsAndOnlyPagesThatExist) {
  const std::string text = read("README.md");
  EXPECT_NE(text.find("scripts/demo"), std::string::npos);
  EXPECT_NE(text.find("scripts/test"), std::string::npos);
  size_t pages = 0;
  for (size_t at = text.find("](docs/"); at != std::string::npos; at = text.find("](docs/", at + 1)) {
    const std::string page = text.substr(at + 2, text.find(')', at) - at - 2);
    EXPECT_FALSE(read(page).empty()) << page;
    ++pages;
  }
  EXPECT_GE(pages, 5u);
}

}  // namespace
