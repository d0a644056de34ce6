#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace temper::style {

/// A file of the checkout. `path` is relative to its root, with forward slashes.
struct SourceFile {
  std::string path;
  std::string text;
};

/// What a checker found, and where.
struct Violation {
  std::string path;
  int line = 0;  ///< From 1; 0 means the whole file.
  std::string what;
};

/// One `#include`: the name between the quotes or angle brackets.
struct Include {
  std::string name;
  int line = 0;
};

/// A function with a body, as the brace counter sees it.
struct Function {
  std::string header;  ///< Text before the opening brace, one line.
  int first_line = 0;  ///< Of the opening brace.
  int last_line = 0;   ///< Of the closing brace.
  int parameters = 0;
};

/// What is found in the code of one file outside comments, strings and preprocessor lines.
struct Outline {
  std::vector<Function> functions;  ///< Outermost functions; lambdas count to their function.
  std::vector<int> using_namespace_lines;  ///< Those outside function bodies.
};

/// Files below `root`/`folders` whose name ends in one of `endings`, sorted by path.
[[nodiscard]] std::vector<SourceFile> read_sources(const std::filesystem::path& root,
                                                   const std::vector<std::string>& folders,
                                                   const std::vector<std::string>& endings);

/// The text with comments, literals and preprocessor lines blanked out; lines keep their numbers.
[[nodiscard]] std::string code_only(std::string_view text);

[[nodiscard]] std::vector<Include> includes(std::string_view text);
[[nodiscard]] Outline outline(std::string_view text);

/// Lines of a text; a last line without a newline counts.
[[nodiscard]] int line_count(std::string_view text);

/// One line a violation, for a test's message.
[[nodiscard]] std::string describe(const std::vector<Violation>& violations);

}  // namespace temper::style
