#include "style/checks.h"

#include <array>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace temper::style {
namespace {

constexpr int kMaxFileLines = 400;
constexpr int kMaxFunctionLines = 60;
constexpr int kMaxParameters = 6;
constexpr int kMaxConfigFields = 15;

// An include may point to the same layer or to one with a smaller rank.
const std::map<std::string, int, std::less<>>& layer_ranks() {
  static const std::map<std::string, int, std::less<>> ranks = {
      {"core", 0},      {"kernels", 1},  {"ops", 2},    {"comm", 3},    {"formats", 4},
      {"text", 5},      {"nn", 6},       {"data", 7},   {"rollout", 8}, {"reward", 8},
      {"objective", 9}, {"trainer", 10}, {"trust", 11}, {"cli", 12}};
  return ranks;
}

// "include/temper/nn/x.h", "src/nn/x.cpp" and the include "temper/nn/x.h" are all of layer nn.
std::optional<std::string> layer_of(std::string_view path) {
  for (const std::string_view prefix : {"include/temper/", "src/", "temper/"}) {
    if (!path.starts_with(prefix)) continue;
    const std::string_view rest = path.substr(prefix.size());
    const std::string_view name = rest.substr(0, rest.find('/'));
    if (name.size() < rest.size() && layer_ranks().contains(name)) return std::string(name);
  }
  return std::nullopt;
}

bool is_header(std::string_view path) { return path.ends_with(".h") || path.ends_with(".cuh"); }
bool is_public_header(std::string_view path) {
  return path.starts_with("include/") && is_header(path);
}

bool is_torch(std::string_view include) {
  for (const std::string_view prefix : {"ATen/", "torch/", "c10/", "caffe2/"}) {
    if (include.starts_with(prefix)) return true;
  }
  return include == "temper/core/torch.h";
}

bool must_be_torch_free(std::string_view path) {
  if (path == "include/temper/core/torch.h" || path == "include/temper/data/batch.h") return false;
  const auto layer = layer_of(path);
  static const std::set<std::string> free = {"core", "kernels", "formats",
                                             "text", "data",    "reward"};
  return layer && free.contains(*layer);
}

// Public headers by the name they are included under.
using HeaderMap = std::map<std::string, const SourceFile*>;

HeaderMap public_headers(const std::vector<SourceFile>& files) {
  HeaderMap headers;
  for (const SourceFile& file : files) {
    if (is_public_header(file.path))
      headers[file.path.substr(std::string("include/").size())] = &file;
  }
  return headers;
}

bool reaches_torch(const std::string& include, const HeaderMap& headers,
                   std::set<std::string>& seen) {
  if (is_torch(include)) return true;
  const auto found = headers.find(include);
  if (found == headers.end() || !seen.insert(include).second) return false;
  for (const Include& next : includes(found->second->text)) {
    if (reaches_torch(next.name, headers, seen)) return true;
  }
  return false;
}

// Fields that a config struct's `visit` declares; 0 for other functions.
int config_fields(const Function& f, const std::string& code) {
  if (f.header.find(" visit(V&& v)") == std::string::npos) return 0;
  static const std::regex call(R"(^\s*v\()");
  std::istringstream in(code);
  std::string line;
  int fields = 0;
  for (int number = 1; std::getline(in, line) && number <= f.last_line; ++number) {
    if (number >= f.first_line && std::regex_search(line, call)) ++fields;
  }
  return fields;
}

std::string function_complaint(const Function& f, const std::string& code) {
  const int length = f.last_line - f.first_line + 1;
  const int fields = config_fields(f, code);
  std::ostringstream what;
  if (length > kMaxFunctionLines) {
    what << "a function of " << length << " lines, at most " << kMaxFunctionLines;
  } else if (f.parameters > kMaxParameters) {
    what << "a function with " << f.parameters << " parameters, at most " << kMaxParameters;
  } else if (fields > kMaxConfigFields) {
    what << "a config of " << fields << " fields, at most " << kMaxConfigFields << " (then nest)";
  }
  return what.str();
}

std::string quote(const std::string& name) { return "includes \"" + name + "\""; }

std::string layer_complaint(const std::string& from, const Include& include) {
  const auto to = layer_of(include.name);
  if (!to) return "";
  if (from == "objective") {
    const bool allowed = *to == "core" || *to == "kernels" || *to == "ops" || *to == "objective" ||
                         include.name == "temper/data/batch.h";
    return allowed ? "" : ", but objective may include only core, kernels, ops and data/batch.h";
  }
  const int down = layer_ranks().at(*to) - layer_ranks().at(from);
  if (down > 0) return ", which points down from " + from + " to " + *to;
  if (down == 0 && from != *to) return ", but " + from + " and " + *to + " stand side by side";
  return "";
}

}  // namespace

std::vector<Violation> check_layers(const std::vector<SourceFile>& files) {
  std::vector<Violation> found;
  for (const SourceFile& file : files) {
    const auto from = layer_of(file.path);
    if (!from) continue;
    for (const Include& include : includes(file.text)) {
      const std::string complaint = layer_complaint(*from, include);
      if (!complaint.empty())
        found.push_back({file.path, include.line, quote(include.name) + complaint});
    }
  }
  return found;
}

std::vector<Violation> check_torch_gate(const std::vector<SourceFile>& files) {
  const HeaderMap headers = public_headers(files);
  static const std::set<std::string> too_much = {
      "torch/torch.h",    "torch/all.h", "torch/extension.h", "ATen/ATen.h",
      "ATen/Functions.h", "torch/nn.h",  "torch/optim.h"};
  std::vector<Violation> found;
  for (const SourceFile& file : files) {
    for (const Include& include : includes(file.text)) {
      std::set<std::string> seen;
      std::string complaint;
      if (too_much.contains(include.name)) {
        complaint = ", which includes everything: include single ATen/ops headers";
      } else if (must_be_torch_free(file.path) && reaches_torch(include.name, headers, seen)) {
        complaint = ", which brings Torch into a layer that does without it";
      } else if (is_public_header(file.path) && file.path != "include/temper/core/torch.h" &&
                 include.name != "temper/core/torch.h" && is_torch(include.name)) {
        complaint = ": public headers reach Torch only through temper/core/torch.h";
      }
      if (!complaint.empty())
        found.push_back({file.path, include.line, quote(include.name) + complaint});
    }
  }
  return found;
}

std::vector<Violation> check_heavy_headers(const std::vector<SourceFile>& files) {
  static const std::array<std::string_view, 9> heavy = {
      "nlohmann/json.hpp", "spdlog/", "fmt/", "sentencepiece", "pcre2",
      "utf8proc",          "CLI/",    "hwy/", "cuda"};
  std::vector<Violation> found;
  for (const SourceFile& file : files) {
    if (!is_public_header(file.path)) continue;
    for (const Include& include : includes(file.text)) {
      for (const std::string_view prefix : heavy) {
        if (!include.name.starts_with(prefix)) continue;
        found.push_back(
            {file.path, include.line, quote(include.name) + ": hide it in a .cpp file"});
      }
    }
  }
  return found;
}

std::vector<Violation> check_limits(const std::vector<SourceFile>& files) {
  std::vector<Violation> found;
  for (const SourceFile& file : files) {
    const int lines = line_count(file.text);
    if (lines > kMaxFileLines && !file.path.starts_with("tests/")) {
      found.push_back({file.path, 0,
                       std::to_string(lines) + " lines, at most " + std::to_string(kMaxFileLines) +
                           " are allowed"});
    }
    const std::string code = code_only(file.text);
    for (const Function& f : outline(file.text).functions) {
      const std::string complaint = function_complaint(f, code);
      if (complaint.empty()) continue;
      found.push_back({file.path, f.first_line, complaint + ": " + f.header.substr(0, 80)});
    }
  }
  return found;
}

std::vector<Violation> check_headers(const std::vector<SourceFile>& files) {
  std::vector<Violation> found;
  for (const SourceFile& file : files) {
    // Highway's per-target files are included once a target on purpose.
    if (!is_header(file.path) || file.path.ends_with("-inl.h")) continue;
    if (file.text.find("#pragma once") == std::string::npos) {
      found.push_back({file.path, 0, "no #pragma once"});
    }
    for (const int line : outline(file.text).using_namespace_lines) {
      found.push_back({file.path, line, "using namespace at namespace scope of a header"});
    }
  }
  return found;
}

std::vector<Violation> check_unfinished(const std::vector<SourceFile>& files) {
  // Put together, so that this file does not hold the words.
  static const std::regex words(std::string("\\b(TO") + "DO|FIX" + "ME|XX" + "X|HA" + "CK)\\b");
  std::vector<Violation> found;
  for (const SourceFile& file : files) {
    std::istringstream in(file.text);
    std::string line;
    for (int number = 1; std::getline(in, line); ++number) {
      std::smatch match;
      if (std::regex_search(line, match, words)) {
        found.push_back({file.path, number, "unfinished work is marked: " + match[1].str()});
      }
    }
  }
  return found;
}

}  // namespace temper::style
