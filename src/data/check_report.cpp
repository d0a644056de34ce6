// A check's report, for programs and for people.
#include <cstdarg>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "temper/data/check.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

Json leak_json(const DataLeak& leak) {
  return {{"file", leak.file},
          {"rows", leak.rows},
          {"same_prompts", leak.same_prompts},
          {"near_prompts", leak.near_prompts},
          {"overlaps", leak.overlaps},
          {"lines", leak.lines}};
}

[[gnu::format(printf, 2, 3)]] void add(std::string& text, const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof(line), format, arguments);
  va_end(arguments);
  text += line;
}

using Wide = unsigned long long;

/// "name    count  share", nothing where the count is zero and need not be said.
void add_count(std::string& text, const char* name, uint64_t count, uint64_t of) {
  const double share = of == 0 ? 0 : 100 * static_cast<double>(count) / static_cast<double>(of);
  add(text, "%-34s %9llu  %5.1f %%\n", name, static_cast<Wide>(count), share);
}

std::string line_list(const std::vector<uint64_t>& lines) {
  std::string text;
  for (const uint64_t line : lines) text += (text.empty() ? "" : ", ") + std::to_string(line);
  return text;
}

void add_lengths(std::string& text, const DataCheckReport& r) {
  const std::string title = "length (" + r.unit + ")";
  add(text, "\n%-24s %9s %7s %7s %7s %7s %9s\n", title.c_str(), "count", "least", "median", "p95",
      "most", "mean");
  for (const auto& [part, s] : r.lengths) {
    add(text, "%-24s %9llu %7lld %7lld %7lld %7lld %9.1f\n", part.c_str(),
        static_cast<Wide>(s.count), static_cast<long long>(s.least),
        static_cast<long long>(s.median), static_cast<long long>(s.p95),
        static_cast<long long>(s.most), s.mean);
  }
}

void add_leak(std::string& text, const DataLeak& leak, uint64_t rows) {
  text += "\nagainst " + leak.file + " (" + std::to_string(leak.rows) + " rows)\n";
  add_count(text, "same prompt", leak.same_prompts, rows);
  add_count(text, "near-duplicate prompt", leak.near_prompts, rows);
  add_count(text, "words in common", leak.overlaps, rows);
  if (!leak.lines.empty()) text += "  lines " + line_list(leak.lines) + "\n";
}

uint64_t records_of(const DataCheckReport& r) {
  for (const auto& [part, stats] : r.lengths) {
    if (part == "whole") return stats.count;
  }
  return 0;
}

}  // namespace

Json check_json(const DataCheckReport& r) {
  Json lengths = Json::object();
  for (const auto& [part, s] : r.lengths) {
    lengths[part] = {{"count", s.count}, {"least", s.least}, {"median", s.median},
                     {"p95", s.p95},     {"most", s.most},   {"mean", s.mean}};
  }
  Json duplicates = Json::array(), leaks = Json::array();
  for (const auto& [line, earlier] : r.duplicates) duplicates.push_back({line, earlier});
  for (const DataLeak& leak : r.leaks) leaks.push_back(leak_json(leak));
  return {{"file", r.file},
          {"form", r.form},
          {"hash", r.hash},
          {"rows", r.rows},
          {"bad_rows", r.skipped},
          {"empty_answers", r.empty},
          {"equal_answers", r.equal},
          {"ties", r.ties},
          {"problems", r.problems},
          {"unit", r.unit},
          {"lengths", lengths},
          {"max_length", r.max_length},
          {"cut", r.cut},
          {"cut_whole_answer", r.cut_whole},
          {"same_rows", r.same_rows},
          {"near_rows", r.near_rows},
          {"same_prompts", r.same_prompts},
          {"duplicate_lines", duplicates},
          {"desirable", r.desirable},
          {"undesirable", r.undesirable},
          {"contradictions", r.contradictions},
          {"chosen_longer", r.chosen_longer},
          {"rejected_longer", r.rejected_longer},
          {"leaks", leaks}};
}

std::string check_table(const DataCheckReport& r) {
  std::string text = r.file + "\nform " + r.form + ", hash " + r.hash + "\n\n";
  const uint64_t all = r.rows + r.skipped + r.empty + r.equal + r.ties;
  add_count(text, "rows that can be used", r.rows, all);
  add_count(text, "bad rows", r.skipped, all);
  add_count(text, "rows with an empty answer", r.empty, all);
  add_count(text, "pairs with the same answer twice", r.equal, all);
  add_count(text, "rows that prefer neither answer", r.ties, all);
  for (const std::string& problem : r.problems) text += "  " + problem + "\n";
  add_lengths(text, r);
  text += "\n";
  if (r.max_length > 0) {
    const std::string limit = "longer than " + std::to_string(r.max_length);
    add_count(text, limit.c_str(), r.cut, records_of(r));
    add_count(text, "no answer left within it", r.cut_whole, records_of(r));
  }
  add_count(text, "equal to an earlier row", r.same_rows, r.rows);
  add_count(text, "near-duplicate of an earlier row", r.near_rows, r.rows);
  add_count(text, "prompt of an earlier row", r.same_prompts, r.rows);
  if (!r.duplicates.empty()) {
    text += "  lines";
    for (const auto& [line, earlier] : r.duplicates) {
      text += " " + std::to_string(line) + "=" + std::to_string(earlier);
    }
    text += "\n";
  }
  if (r.desirable + r.undesirable > 0) {
    add_count(text, "desirable answers", r.desirable, r.desirable + r.undesirable);
    add_count(text, "undesirable answers", r.undesirable, r.desirable + r.undesirable);
    add(text, "%-34s %9llu\n", "answers labelled both ways", static_cast<Wide>(r.contradictions));
  }
  if (r.chosen_longer + r.rejected_longer > 0) {
    add_count(text, "pairs with the longer answer chosen", r.chosen_longer, r.rows);
    add_count(text, "pairs with the shorter one chosen", r.rejected_longer, r.rows);
  }
  for (const DataLeak& leak : r.leaks) add_leak(text, leak, r.rows);
  return text;
}

}  // namespace temper
