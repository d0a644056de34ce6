#include "style/source_scan.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <regex>
#include <sstream>

namespace temper::style {
namespace {

bool ends_with_any(std::string_view name, const std::vector<std::string>& endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [&](const std::string& e) { return name.ends_with(e); });
}

// Where the construct that starts at `i` ends: a comment, a literal, or a preprocessor line.
// Returns `i` when none starts there.
size_t skip_non_code(std::string_view text, size_t i, bool at_line_start) {
  const std::string_view rest = text.substr(i);
  const auto to = [&](size_t found, size_t length) {
    return found == std::string_view::npos ? text.size() : found + length;
  };
  if (rest.starts_with("//")) return to(text.find('\n', i), 0);
  if (rest.starts_with("/*")) return to(text.find("*/", i + 2), 2);
  if (rest.starts_with("R\"")) {
    const size_t open = text.find('(', i);
    if (open == std::string_view::npos) return text.size();
    const std::string close = ")" + std::string(text.substr(i + 2, open - i - 2)) + "\"";
    return to(text.find(close, open), close.size());
  }
  const bool digit_separator = text[i] == '\'' && i > 0 && std::isxdigit(text[i - 1]) != 0;
  if (text[i] == '"' || (text[i] == '\'' && !digit_separator)) {
    size_t j = i + 1;
    while (j < text.size() && text[j] != text[i]) j += text[j] == '\\' ? 2 : 1;
    return std::min(text.size(), j + 1);
  }
  if (text[i] == '#' && at_line_start) {
    size_t end = text.find('\n', i);
    while (end != std::string_view::npos && end > 0 && text[end - 1] == '\\') {
      end = text.find('\n', end + 1);
    }
    return to(end, 0);
  }
  return i;
}

// Top-level commas + 1 of the parameter list that opens at `open`; 0 for an empty list or `(void)`.
int count_parameters(std::string_view header, size_t open) {
  int depth = 0;
  int commas = 0;
  bool empty = true;
  for (size_t i = open; i < header.size(); ++i) {
    const char c = header[i];
    if (c == '(' || c == '<' || c == '{' || c == '[') ++depth;
    if (c == ')' || c == '>' || c == '}' || c == ']') --depth;
    if (depth == 0) break;
    if (c == ',' && depth == 1) ++commas;
    if (i > open && std::isspace(static_cast<unsigned char>(c)) == 0) empty = false;
  }
  return empty ? 0 : commas + 1;
}

// Removes `template <...>` prefixes and attributes, which hide the first word of a declaration.
std::string_view skip_prefixes(std::string_view header) {
  for (;;) {
    while (!header.empty() && std::isspace(static_cast<unsigned char>(header.front())) != 0) {
      header.remove_prefix(1);
    }
    if (header.starts_with("template")) {
      size_t i = header.find('<');
      if (i == std::string_view::npos) return header;
      int depth = 0;
      do {
        if (header[i] == '<') ++depth;
        if (header[i] == '>') --depth;
        ++i;
      } while (depth > 0 && i < header.size());
      header.remove_prefix(i);
    } else if (header.starts_with("[[")) {
      const size_t end = header.find("]]");
      if (end == std::string_view::npos) return header;
      header.remove_prefix(end + 2);
    } else {
      return header;
    }
  }
}

// The opening parenthesis of the parameter list when `header`, the text before a brace, is that of
// a function; npos for types, namespaces and initialisers.
size_t parameter_list(std::string_view header) {
  while (!header.empty() && std::isspace(static_cast<unsigned char>(header.back())) != 0) {
    header.remove_suffix(1);
  }
  if (header.empty() || std::string_view("=(,:").find(header.back()) != std::string_view::npos) {
    return std::string_view::npos;
  }
  const std::string_view body = skip_prefixes(header);
  const size_t offset = header.size() - body.size();
  for (const char* word : {"namespace", "class", "struct", "union", "enum", "extern", "return"}) {
    const size_t n = std::string_view(word).size();
    if (body.starts_with(word) && (body.size() == n || std::isalnum(body[n]) == 0)) {
      return std::string_view::npos;
    }
  }
  const size_t open = body.find('(');
  return open == std::string_view::npos ? open : offset + open;
}

std::string one_line(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool space = std::isspace(static_cast<unsigned char>(c)) != 0;
    if (!space) out += c;
    if (space && !out.empty() && out.back() != ' ') out += ' ';
  }
  return out;
}

// Walks over braces; a statement is the text since the last `;` or brace outside parentheses.
class BraceCounter {
 public:
  explicit BraceCounter(std::string_view code) : code_(code) {}

  Outline walk() {
    for (size_t i = 0; i < code_.size(); ++i) {
      const char c = code_[i];
      if (c == '\n') ++line_;
      if (c == '{') open(i);
      if (c == '}') close(i);
      if (c == ';') end_statement(i);
    }
    return std::move(result_);
  }

 private:
  void open(size_t i) {
    ++depth_;
    if (function_depth_ == 0) {
      const std::string_view header = code_.substr(statement_, i - statement_);
      const size_t list = parameter_list(header);
      if (list != std::string_view::npos) {
        function_depth_ = depth_;
        result_.functions.push_back({one_line(header), line_, 0, count_parameters(header, list)});
      }
      statement_ = i + 1;
    }
  }
  void close(size_t i) {
    if (function_depth_ != 0 && function_depth_ == depth_) {
      result_.functions.back().last_line = line_;
      function_depth_ = 0;
    }
    --depth_;
    if (function_depth_ == 0) statement_ = i + 1;
  }
  void end_statement(size_t i) {
    if (function_depth_ != 0) return;
    if (one_line(code_.substr(statement_, i - statement_)).starts_with("using namespace ")) {
      result_.using_namespace_lines.push_back(line_);
    }
    statement_ = i + 1;
  }

  std::string_view code_;
  Outline result_;
  size_t statement_ = 0;
  int line_ = 1;
  int depth_ = 0;
  int function_depth_ = 0;  // depth of the outermost function's braces; 0 outside functions
};

}  // namespace

std::vector<SourceFile> read_sources(const std::filesystem::path& root,
                                     const std::vector<std::string>& folders,
                                     const std::vector<std::string>& endings) {
  namespace fs = std::filesystem;
  std::vector<SourceFile> files;
  for (const std::string& folder : folders) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string path = fs::relative(entry.path(), root).generic_string();
      if (!entry.is_regular_file() || !ends_with_any(path, endings)) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      std::ostringstream text;
      text << in.rdbuf();
      files.push_back({path, text.str()});
    }
  }
  std::sort(files.begin(), files.end(),
            [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return files;
}

std::string code_only(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool at_line_start = true;
  for (size_t i = 0; i < text.size();) {
    const size_t end = skip_non_code(text, i, at_line_start);
    if (end == i) {
      if (text[i] == '\n')
        at_line_start = true;
      else if (std::isspace(static_cast<unsigned char>(text[i])) == 0)
        at_line_start = false;
      out += text[i++];
    } else {
      for (; i < end; ++i) out += text[i] == '\n' ? '\n' : ' ';
    }
  }
  return out;
}

std::vector<Include> includes(std::string_view text) {
  static const std::regex pattern(R"re(^\s*#\s*include\s*[<"]([^>"]+)[>"])re");
  std::vector<Include> found;
  std::istringstream in{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    std::smatch match;
    if (std::regex_search(line, match, pattern)) found.push_back({match[1], number});
  }
  return found;
}

Outline outline(std::string_view text) {
  const std::string code = code_only(text);
  return BraceCounter(code).walk();
}

int line_count(std::string_view text) {
  const auto newlines = std::count(text.begin(), text.end(), '\n');
  return static_cast<int>(newlines) + (!text.empty() && text.back() != '\n' ? 1 : 0);
}

std::string describe(const std::vector<Violation>& violations) {
  std::ostringstream out;
  for (const Violation& v : violations) {
    out << v.path;
    if (v.line > 0) out << ':' << v.line;
    out << ": " << v.what << '\n';
  }
  return out.str();
}

}  // namespace temper::style
