#include "temper/data/preference.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "json_rows.h"
#include "passages.h"
#include "temper/core/error.h"
#include "temper/core/log.h"

namespace temper {
namespace {

using Json = nlohmann::json;

uint64_t id_of(const PreferencePair& pair) {
  return detail::passage_id(pair.prompt.empty() ? pair.chosen : pair.prompt);
}

/// The pair of a row, by its two sides or by marks; nothing for a draw.
std::optional<PreferencePair> parse_pair(detail::Row& row, const std::string& name,
                                         const PreferenceReadOptions& options) {
  const Json object = detail::parse_object(row, name, options.lossy_utf8);
  const detail::RowContext context{.where = detail::position_in(name, row, 0), .cells = row.cells};
  const bool sides = object.contains(options.chosen_key) || object.contains(options.rejected_key);
  if (!sides && detail::annotations_of(object) != detail::Annotations::kNone) {
    return detail::pair_of_marks(object, context);
  }
  return detail::pair_of_row(object, context, options);
}

PreferenceData read_pairs(detail::ByteSource source, const std::string& name,
                          const PreferenceReadOptions& options) {
  PreferenceData data;
  data.source = name;
  data.license = options.license;
  ReadOptions rows;
  rows.lossy_utf8 = options.lossy_utf8;
  rows.skip_bad = options.skip_bad;
  rows.max_rows = options.max_rows;
  rows.max_line_bytes = options.max_line_bytes;
  std::vector<std::string> left_out;
  const auto leave_out = [&](uint64_t& count, const detail::Row& row, std::string_view why) {
    constexpr size_t kListed = 20;
    const std::string line =
        concat("[read_preferences] ", detail::position_in(name, row, 0), ": ", why);
    // A row without a winner is no mistake of the file's.
    TEMPER_CHECK(options.skip_bad || &count == &data.ties, line,
                 "; skip_bad=true leaves such rows out");
    ++count;
    if (left_out.size() < kListed) left_out.push_back(line);
  };
  detail::RowsRead read =
      detail::read_each_row(std::move(source), name, rows, [&](detail::Row& row) {
        std::optional<PreferencePair> pair = parse_pair(row, name, options);
        if (!pair) {
          leave_out(data.ties, row, "no answer is the better one");
        } else if (detail::same_answers(*pair)) {
          leave_out(data.equal, row, "both answers are the same");
        } else if (detail::says_nothing(pair->chosen, pair->chosen_json) ||
                   detail::says_nothing(pair->rejected, pair->rejected_json)) {
          leave_out(data.empty, row, "an answer has no words");
        } else {
          pair->line = row.line;
          pair->id = id_of(*pair);
          data.pairs.push_back(std::move(*pair));
        }
      });
  data.content_hash = read.content_hash;
  data.skipped = read.skipped;
  data.problems = std::move(read.problems);
  data.problems.insert(data.problems.end(), left_out.begin(), left_out.end());
  TEMPER_CHECK(!data.pairs.empty(), "[read_preferences] ", name, ": no pairs: ", data.empty,
               " rows have an empty answer, ", data.equal, " have the same answer twice",
               data.ties > 0 ? concat(", ", data.ties, " prefer neither answer") : "");
  if (data.empty + data.equal + data.ties > 0) {
    log_warn("[read_preferences] ", name, ": left out ", data.empty,
             " pairs with an empty answer, ", data.equal, " with the same answer twice and ",
             data.ties, " that prefer neither",
             detail::listed(left_out, data.empty + data.equal + data.ties));
  }
  return data;
}

}  // namespace

PreferenceData read_preferences(const std::filesystem::path& path,
                                const PreferenceReadOptions& options) {
  return read_pairs(detail::open_bytes(path), path.string(), options);
}

PreferenceData parse_preferences(std::string_view text, const std::string& name,
                                 const PreferenceReadOptions& options) {
  return read_pairs(detail::text_bytes(text), name, options);
}

std::pair<PreferenceData, PreferenceData> split_by_hash(const PreferenceData& data,
                                                        double held_out_fraction, uint64_t seed) {
  TEMPER_CHECK(held_out_fraction >= 0 && held_out_fraction <= 1,
               "[split_by_hash] held_out_fraction must be in [0, 1], got ", held_out_fraction);
  std::pair<PreferenceData, PreferenceData> parts;
  for (PreferenceData* part : {&parts.first, &parts.second}) {
    part->source = data.source;
    part->license = data.license;
    part->content_hash = data.content_hash;
  }
  parts.first.skipped = data.skipped;
  parts.first.empty = data.empty;
  parts.first.equal = data.equal;
  parts.first.ties = data.ties;
  parts.first.problems = data.problems;
  for (const PreferencePair& pair : data.pairs) {
    const bool held_out = split_position(pair.id, seed) < held_out_fraction;
    (held_out ? parts.second : parts.first).pairs.push_back(pair);
  }
  return parts;
}

}  // namespace temper
