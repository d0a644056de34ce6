#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

// Reads what tests/golden/make_tokenizers.py writes.
namespace temper::test {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(TEMPER_SOURCE_DIR) / "tests/golden/tokenizers";
}

inline std::string read_golden(const std::string& name) {
  std::ifstream file(golden_folder() / name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

inline std::vector<std::string> lines_of(const std::string& text, char separator = '\n') {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line, separator);) lines.push_back(line);
  return lines;
}

inline std::string from_hex(std::string_view hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return out;
}

/// The strings of all parity tests, bytes that need not be UTF-8.
inline const std::vector<std::string>& golden_strings() {
  static const std::vector<std::string> strings = [] {
    std::vector<std::string> out;
    for (const std::string& line :
         lines_of(read_golden("strings_0.txt") + read_golden("strings_1.txt"))) {
      const size_t star = line.find('*');
      const std::string once = from_hex(line.substr(0, star));
      const int repeat = star == std::string::npos ? 1 : std::stoi(line.substr(star + 1));
      std::string text;
      for (int i = 0; i < repeat; ++i) text += once;
      out.push_back(std::move(text));
    }
    return out;
  }();
  return strings;
}

/// What the Python package answers for one string.
struct Answer {
  std::vector<int32_t> plain;  ///< Special tokens are text.
  std::vector<int32_t> full;   ///< Special tokens taken from the text and added around it.
  std::string skipped;         ///< Text of `full` without special tokens.
  std::string shown;           ///< With them.
};

inline uint64_t answer_hash(const Answer& answer) {
  uint64_t state = 0xCBF29CE484222325U;
  const auto add = [&](uint32_t byte) { state = (state ^ (byte & 255U)) * 0x100000001B3U; };
  for (const std::vector<int32_t>* ids : {&answer.plain, &answer.full}) {
    for (const int32_t id : *ids) {
      for (int shift = 0; shift < 32; shift += 8) add(static_cast<uint32_t>(id) >> shift);
    }
    for (int i = 0; i < 4; ++i) add(255);
  }
  for (const std::string* text : {&answer.skipped, &answer.shown}) {
    for (const char c : *text) add(static_cast<uint8_t>(c));
    add(255);
  }
  return state;
}

inline std::vector<int32_t> parse_ids(const std::string& text) {
  std::vector<int32_t> ids;
  if (text == "-") return ids;
  for (const std::string& id : lines_of(text, ',')) ids.push_back(std::stoi(id));
  return ids;
}

/// In place of a hash where the package's own versions disagree.
inline constexpr uint64_t kNoAnswer = 0;

struct GoldenAnswers {
  std::vector<uint64_t> hashes;                    // of every string
  std::vector<std::pair<size_t, Answer>> answers;  // of some
};

inline GoldenAnswers golden_answers(const std::string& name) {
  GoldenAnswers golden;
  for (const std::string& line : lines_of(read_golden(name + ".ids.txt"))) {
    const std::vector<std::string> fields = lines_of(line, ' ');
    if (fields.size() == 1) {
      golden.hashes.push_back(line == "-" ? kNoAnswer : std::stoull(line, nullptr, 16));
      continue;
    }
    Answer answer{parse_ids(fields.at(1)), parse_ids(fields.at(2)), "", ""};
    if (fields.at(3) != "-") answer.skipped = from_hex(fields[3]);
    if (fields.at(4) != "-") answer.shown = from_hex(fields[4]);
    golden.answers.emplace_back(std::stoul(fields[0]), std::move(answer));
  }
  return golden;
}

}  // namespace temper::test
