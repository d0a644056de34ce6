// What a build says of itself: one card for programs, one for people.
#include "build_card.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "temper/core/config.h"
#include "temper/core/error.h"
#include "temper/data/dataset.h"

namespace temper::detail {
namespace {

using Json = nlohmann::ordered_json;

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016" PRIx64, value);
  return text;
}

std::string hash_text(const std::string& content) {
  StableHash hash;
  hash.update(content);
  return hex(hash.value());
}

Json inputs_json(const std::vector<BuildInput>& inputs) {
  Json out = Json::array();
  for (const BuildInput& i : inputs) {
    out.push_back({{"file", i.file},
                   {"rows", i.rows},
                   {"prompts", i.prompts},
                   {"skipped", i.skipped},
                   {"empty_answers", i.empty},
                   {"hash", hex(i.hash)}});
  }
  return out;
}

Json balance_json(const LengthBalance& b) {
  return {{"chosen_longer", b.chosen_longer},
          {"rejected_longer", b.rejected_longer},
          {"chosen_mean", b.chosen_mean},
          {"rejected_mean", b.rejected_mean},
          {"margin_correlation", b.correlation}};
}

Json split_json(const BuildResult& result, const std::string& file,
                const std::vector<BuiltPair>& pairs) {
  std::set<uint64_t> prompts, clusters;
  for (const BuiltPair& p : pairs) {
    prompts.insert(p.pair.id);
    clusters.insert(p.cluster);
  }
  const std::string& content = result.files.at(file);
  return {{"file", file},
          {"pairs", pairs.size()},
          {"prompts", prompts.size()},
          {"clusters", clusters.size()},
          {"bytes", content.size()},
          {"hash", hash_text(content)}};
}

Json bands_json(const BuildRecord& r) {
  Json bands = Json::array();
  for (size_t i = 0; i < r.band_pairs.size(); ++i) {
    bands.push_back({{"from", i == 0 ? Json(nullptr) : Json(r.edges[i - 1])},
                     {"below", i == r.edges.size() ? Json(nullptr) : Json(r.edges[i])},
                     {"pairs", r.band_pairs[i]}});
  }
  return bands;
}

Json card_json(const BuildResult& result, const BuildRecord& r, BuildConfig config) {
  Json splits = {{"train", split_json(result, "train.jsonl", result.train)}};
  if (result.files.contains("held_out.jsonl")) {
    splits["held_out"] = split_json(result, "held_out.jsonl", result.held_out);
  }
  return {{"format", "temper data card 1"},
          {"license", config.license},
          {"inputs", inputs_json(r.inputs)},
          {"against", inputs_json(r.against)},
          {"settings", config_to_json(config_fields(config))},
          {"counts",
           {{"prompts", r.prompts},
            {"contaminated_prompts", r.contaminated},
            {"prompts_without_pair", r.without_pair},
            {"candidate_pairs", r.candidates},
            {"near_duplicate_pairs", r.near_answers},
            {"over_band_pairs", r.over_band},
            {"unbalanced_pairs", r.unbalanced},
            {"pairs", result.train.size() + result.held_out.size()}}},
          {"scrubbed",
           {{"emails", r.scrubbed.emails},
            {"phones", r.scrubbed.phones},
            {"cards", r.scrubbed.cards},
            {"ibans", r.scrubbed.ibans}}},
          {"margin_bands", bands_json(r)},
          {"lengths", {{"before", balance_json(r.before)}, {"after", balance_json(r.after)}}},
          {"splits", splits}};
}

/// A value in a table: text as it is, but for what would end the cell.
std::string cell(const Json& value) {
  if (value.is_null()) return " ";  // A band that is open there.
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  for (char& c : text) {
    if (c == '|' || c == '\n' || c == '\r') c = ' ';
  }
  return text.empty() ? " " : text;
}

/// One row an object, one column a key.
std::string rows_table(const Json& rows) {
  std::string text, rule;
  for (const auto& [key, value] : rows.at(0).items()) {
    text += "| " + key + " ";
    rule += "| --- ";
  }
  text += "|\n" + rule + "|\n";
  for (const Json& row : rows) {
    for (const auto& [key, value] : row.items()) text += "| " + cell(value) + " ";
    text += "|\n";
  }
  return text;
}

std::string pairs_table(const Json& object, const std::string& first, const std::string& second) {
  std::string text = "| " + first + " | " + second + " |\n| --- | --- |\n";
  for (const auto& [key, value] : object.items()) text += "| " + key + " | " + cell(value) + " |\n";
  return text;
}

std::string card_markdown(const Json& card) {
  Json splits = Json::array(), lengths = Json::array();
  for (const auto& [name, split] : card["splits"].items()) splits.push_back(split);
  for (const auto& [when, balance] : card["lengths"].items()) {
    Json row = {{"pairs", when == "before" ? "candidates" : "written"}};
    row.update(balance);
    lengths.push_back(row);
  }
  std::string text =
      "# Preference pairs from scored samples\n\nLicence of the inputs: " + cell(card["license"]) +
      "\n\n## Files\n" + rows_table(splits) + "\n## Inputs\n" + rows_table(card["inputs"]);
  if (!card["against"].empty()) {
    text += "\n## Evaluation files kept out\n" + rows_table(card["against"]);
  }
  return text + "\n## Counts\n" + pairs_table(card["counts"], "what", "count") +
         "\n## Personal data replaced\n" + pairs_table(card["scrubbed"], "kind", "count") +
         "\n## Margins\n" + rows_table(card["margin_bands"]) +
         "\n## Lengths of answers (characters)\n" + rows_table(lengths) + "\n## Settings\n" +
         pairs_table(card["settings"], "key", "value");
}

}  // namespace

std::string words_of(const Passage& passage) {
  std::string text = passage.text;
  for (const ChatMessage& turn : passage.turns) text += (text.empty() ? "" : "\n") + turn.content;
  return text;
}

uint64_t characters(const std::string& text) {
  uint64_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80 ? 1 : 0;
  return n;
}

LengthBalance length_balance(const std::vector<BuiltPair>& pairs) {
  LengthBalance b;
  double sums[5] = {};  // Of x, y, xx, yy, xy; x the difference of lengths, y the margin.
  for (const BuiltPair& p : pairs) {
    const double chosen = static_cast<double>(characters(words_of(p.pair.chosen)));
    const double rejected = static_cast<double>(characters(words_of(p.pair.rejected)));
    b.chosen_longer += chosen > rejected ? 1 : 0;
    b.rejected_longer += chosen < rejected ? 1 : 0;
    b.chosen_mean += chosen;
    b.rejected_mean += rejected;
    const double x = chosen - rejected, y = p.pair.margin;
    const double terms[5] = {x, y, x * x, y * y, x * y};
    for (size_t i = 0; i < 5; ++i) sums[i] += terms[i];
  }
  if (pairs.empty()) return b;
  const double n = static_cast<double>(pairs.size());
  b.chosen_mean /= n;
  b.rejected_mean /= n;
  const double vx = sums[2] - sums[0] * sums[0] / n, vy = sums[3] - sums[1] * sums[1] / n;
  if (vx > 0 && vy > 0) b.correlation = (sums[4] - sums[0] * sums[1] / n) / std::sqrt(vx * vy);
  return b;
}

void add_cards(BuildResult& result, const BuildRecord& record, const BuildConfig& config) {
  const Json card = card_json(result, record, config);
  result.files["card.json"] = card.dump(2) + "\n";
  result.files["card.md"] = card_markdown(card);
}

}  // namespace temper::detail
