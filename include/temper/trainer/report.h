#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace temper {

/// Lower and upper bound of a share.
struct Interval {
  double low = 0;
  double high = 1;
};

/// 95 % Wilson score interval of `correct` out of `count` (Wilson 1927): unlike the normal
/// approximation it stays inside [0, 1] and is right for few answers and for shares near 0 and 1.
/// [0, 1] if `count` is 0. @throws Error unless 0 <= correct <= count.
[[nodiscard]] Interval wilson_interval(int64_t correct, int64_t count);

/// The report of a run as one HTML page without scripts or outside files: curves, alarms in words,
/// completions early and late, configuration. Reads config.json, metrics.jsonl, completions.jsonl,
/// eval.jsonl and alarms.jsonl; what is missing or damaged is said on the page and left out, and
/// all text is escaped. Deterministic: the same files give the same page.
/// @throws Error if the folder does not exist or holds none of these files.
[[nodiscard]] std::string report_html(const std::filesystem::path& run_folder);

/// Writes `report_html` to report.html in the run folder, atomically.
void write_report(const std::filesystem::path& run_folder);

}  // namespace temper
