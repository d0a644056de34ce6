#include "temper/data/build.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "build_card.h"
#include "passages.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/data/completions.h"
#include "temper/data/near_duplicates.h"
#include "temper/data/scored.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;
using detail::BuildRecord;
using detail::words_of;

void check_config(const BuildConfig& c) {
  TEMPER_CHECK(c.pairs_per_prompt >= 0 && c.pairs_per_band >= 0,
               "[build_pairs] pairs_per_prompt and pairs_per_band must not be negative, got ",
               c.pairs_per_prompt, " and ", c.pairs_per_band);
  TEMPER_CHECK(
      c.min_margin >= 0 && c.max_margin >= 0 && (c.max_margin == 0 || c.max_margin >= c.min_margin),
      "[build_pairs] expected 0 <= min_margin <= max_margin, got ", c.min_margin, " and ",
      c.max_margin);
  TEMPER_CHECK(c.near_similarity >= 0 && c.near_similarity <= 1,
               "[build_pairs] near_similarity must be in [0, 1], got ", c.near_similarity);
  TEMPER_CHECK(c.held_out_fraction >= 0 && c.held_out_fraction < 1,
               "[build_pairs] held_out_fraction must be in [0, 1), got ", c.held_out_fraction);
  TEMPER_CHECK(std::is_sorted(c.bands.begin(), c.bands.end()),
               "[build_pairs] bands must be ascending");
}

uint64_t hash_pair(const PreferencePair& pair) {
  StableHash hash;
  for (const Passage* part : {&pair.prompt, &pair.chosen, &pair.rejected}) {
    hash.update(concat(detail::passage_id(*part), ' '));
  }
  return hash.value();
}

double length_of(const Passage& answer) {
  return static_cast<double>(detail::characters(words_of(answer)));
}

/// One build, step by step.
class Builder {
 public:
  explicit Builder(const BuildConfig& config) : config_(config) {}

  void read(const std::vector<std::filesystem::path>& inputs) {
    PreferenceReadOptions options;
    options.skip_bad = config_.skip_bad;
    options.max_rows = config_.max_rows;
    for (const auto& path : inputs) {
      ScoredData data = read_scored(path, options);
      record_.inputs.push_back({path.filename().string(), data.rows, data.prompts.size(),
                                data.skipped, data.empty, data.content_hash});
      std::move(data.prompts.begin(), data.prompts.end(), std::back_inserter(prompts_));
    }
    record_.prompts = prompts_.size();
  }

  void scrub() {
    if (!config_.scrub) return;
    const auto clean = [&](Passage& passage) {
      passage.text = scrub_personal_data(passage.text, record_.scrubbed);
      for (ChatMessage& turn : passage.turns) {
        turn.content = scrub_personal_data(turn.content, record_.scrubbed);
      }
    };
    for (ScoredPrompt& p : prompts_) {
      clean(p.prompt);
      for (ScoredAnswer& a : p.answers) clean(a.answer);
      p.id = detail::passage_id(p.prompt);
    }
  }

  void leave_out_contaminated(const std::vector<std::filesystem::path>& against) {
    OverlapIndex overlap;
    NearDuplicateIndex near(near_config());
    for (const auto& path : against) {
      CompletionReadOptions options;
      options.form = "any";
      options.pairs = "chosen";
      uint64_t rows = 0;
      const CompletionData rest = stream_completions(path, options, [&](CompletionRecord&& record) {
        const std::string text =
            words_of(record.prompt.empty() ? record.completion : record.prompt);
        overlap.add(text);
        if (config_.near_similarity > 0) near.add(near.signature(text));
        ++rows;
      });
      record_.against.push_back(
          {path.filename().string(), rows, rows, rest.skipped, rest.empty, rest.content_hash});
    }
    if (against.empty()) return;
    record_.contaminated += std::erase_if(prompts_, [&](const ScoredPrompt& p) {
      const std::string text = words_of(p.prompt);
      if (overlap.overlaps(text)) return true;
      for (const ScoredAnswer& a : p.answers) {
        if (overlap.overlaps(words_of(a.answer))) return true;
      }
      return config_.near_similarity > 0 && !near.matches(near.signature(text)).empty();
    });
  }

  void make_pairs() {
    for (const ScoredPrompt& p : prompts_) {
      const size_t before = pairs_.size();
      pair_up(p);
      record_.without_pair += pairs_.size() == before ? 1 : 0;
    }
    record_.candidates = pairs_.size();
    record_.before = detail::length_balance(pairs_);
  }

  void cluster() {
    if (config_.near_similarity == 0) {
      for (BuiltPair& p : pairs_) p.cluster = p.pair.id;
      return;
    }
    std::vector<std::string> texts;
    for (const BuiltPair& p : pairs_) texts.push_back(words_of(p.pair.prompt));
    const std::vector<size_t> roots = near_clusters(texts, near_config());
    for (size_t i = 0; i < pairs_.size(); ++i) pairs_[i].cluster = roots[i];
    NearDuplicateIndex kept(near_config());
    std::vector<uint64_t> clusters;
    record_.near_answers += std::erase_if(pairs_, [&](const BuiltPair& p) {
      Signature s = kept.signature(words_of(p.pair.chosen) + "\n" + words_of(p.pair.rejected));
      for (const size_t match : kept.matches(s)) {
        if (clusters[match] == p.cluster) return true;
      }
      kept.add(std::move(s));
      clusters.push_back(p.cluster);
      return false;
    });
  }

  void cap_bands() {
    record_.edges = config_.bands;
    double widest = 0;
    for (const BuiltPair& p : pairs_) widest = std::max(widest, p.pair.margin);
    if (record_.edges.empty()) record_.edges = {widest / 4, widest / 2, 3 * widest / 4};
    std::map<size_t, std::vector<size_t>> bands;
    for (size_t i = 0; i < pairs_.size(); ++i) bands[band_of(pairs_[i])].push_back(i);
    std::set<size_t> drop;
    for (auto& [band, members] : bands) {
      if (config_.pairs_per_band > 0)
        keep_by_lot(members, static_cast<size_t>(config_.pairs_per_band), drop);
    }
    record_.over_band = drop.size();
    leave_out(drop);
  }

  /// Bins of half a power of two in the ratio of lengths; the two sides of a bin are made equal.
  void balance_lengths() {
    if (!config_.balance_lengths) return;
    std::map<int64_t, std::array<std::vector<size_t>, 2>> bins;
    for (size_t i = 0; i < pairs_.size(); ++i) {
      const double chosen = length_of(pairs_[i].pair.chosen);
      const double rejected = length_of(pairs_[i].pair.rejected);
      if (chosen == rejected) continue;
      const double ratio = std::abs(std::log2(chosen / rejected));
      bins[static_cast<int64_t>(ratio * 2)][chosen > rejected ? 1 : 0].push_back(i);
    }
    std::set<size_t> drop;
    for (auto& [bin, sides] : bins) {
      const size_t least = std::min(sides[0].size(), sides[1].size());
      for (auto& side : sides) keep_by_lot(side, least, drop);
    }
    record_.unbalanced = drop.size();
    leave_out(drop);
  }

  BuildResult finish() {
    record_.after = detail::length_balance(pairs_);
    record_.band_pairs.assign(record_.edges.size() + 1, 0);
    for (const BuiltPair& p : pairs_) ++record_.band_pairs[band_of(p)];
    BuildResult result;
    split(result);
    TEMPER_CHECK(!result.train.empty(), "[build_pairs] no pair is left to train on: of ",
                 record_.prompts, " prompts ", record_.contaminated, " are contaminated and ",
                 record_.without_pair, " have no two answers with a margin within the bounds; of ",
                 record_.candidates, " pairs ",
                 record_.near_answers + record_.over_band + record_.unbalanced,
                 " were left out and ", result.held_out.size(), " held out");
    result.files["train.jsonl"] = rows_of(result.train);
    if (config_.held_out_fraction > 0) result.files["held_out.jsonl"] = rows_of(result.held_out);
    detail::add_cards(result, record_, config_);
    return result;
  }

 private:
  SimilarityConfig near_config() const {
    SimilarityConfig s;
    if (config_.near_similarity > 0) s.similarity = config_.near_similarity;
    return s;
  }

  size_t band_of(const BuiltPair& p) const {
    const auto& e = record_.edges;
    return static_cast<size_t>(std::upper_bound(e.begin(), e.end(), p.pair.margin) - e.begin());
  }

  /// Pairs of ranks (better, worse), the most wanted first.
  std::vector<std::pair<size_t, size_t>> candidates(const std::vector<ScoredAnswer>& ranked,
                                                    uint64_t id) const {
    std::vector<std::pair<size_t, size_t>> out;
    const size_t n = ranked.size();
    if (config_.pick == "best_random") {
      size_t worse = 0;  // Answers below the best.
      while (worse < n && ranked[n - 1 - worse].score < ranked[0].score) ++worse;
      if (worse == 0) return out;
      const double lot = split_position(id, static_cast<uint64_t>(config_.seed) + 1);
      out.emplace_back(0, n - 1 - static_cast<size_t>(lot * static_cast<double>(worse)));
      return out;
    }
    for (size_t i = 0; i + 1 < n; ++i) {
      if (config_.pick == "best_worst" && i < n - 1 - i) out.emplace_back(i, n - 1 - i);
      if (config_.pick == "adjacent") out.emplace_back(i, i + 1);
      for (size_t j = i + 1; config_.pick == "all" && j < n; ++j) out.emplace_back(i, j);
    }
    if (config_.pick == "all") {
      std::stable_sort(out.begin(), out.end(), [&](const auto& a, const auto& b) {
        return ranked[a.first].score - ranked[a.second].score >
               ranked[b.first].score - ranked[b.second].score;
      });
    }
    return out;
  }

  void pair_up(const ScoredPrompt& p) {
    std::vector<ScoredAnswer> ranked = p.answers;
    std::stable_sort(
        ranked.begin(), ranked.end(),
        [](const ScoredAnswer& a, const ScoredAnswer& b) { return a.score > b.score; });
    int64_t made = 0;
    for (const auto& [better, worse] : candidates(ranked, p.id)) {
      const ScoredAnswer& a = ranked[better];
      const ScoredAnswer& b = ranked[worse];
      const double margin = a.score - b.score;
      const bool within = margin > 0 && margin >= config_.min_margin &&
                          (config_.max_margin == 0 || margin <= config_.max_margin);
      if (!within || a.answer == b.answer) continue;
      pairs_.push_back({{.conversation = p.conversation,
                         .prompt = p.prompt,
                         .chosen = a.answer,
                         .rejected = b.answer,
                         .margin = margin,
                         .line = p.line,
                         .id = p.id},
                        a.score,
                        b.score,
                        0});
      if (++made == config_.pairs_per_prompt) return;
    }
  }

  void keep_by_lot(std::vector<size_t>& members, size_t count, std::set<size_t>& drop) const {
    if (members.size() <= count) return;
    const auto lot = [&](size_t i) {
      return std::pair(
          split_position(hash_pair(pairs_[i].pair), static_cast<uint64_t>(config_.seed) + 2), i);
    };
    std::sort(members.begin(), members.end(), [&](size_t a, size_t b) { return lot(a) < lot(b); });
    drop.insert(members.begin() + static_cast<std::ptrdiff_t>(count), members.end());
  }

  void leave_out(const std::set<size_t>& drop) {
    size_t number = 0;
    std::erase_if(pairs_, [&](const BuiltPair&) { return drop.contains(number++); });
  }

  /// A cluster's lot is that of its least prompt hash, whatever the order of rows.
  void split(BuildResult& result) const {
    std::unordered_map<uint64_t, uint64_t> least;
    for (const BuiltPair& p : pairs_) {
      const auto [it, fresh] = least.emplace(p.cluster, p.pair.id);
      if (!fresh) it->second = std::min(it->second, p.pair.id);
    }
    for (const BuiltPair& p : pairs_) {
      const double lot = split_position(least.at(p.cluster), static_cast<uint64_t>(config_.seed));
      (lot < config_.held_out_fraction ? result.held_out : result.train).push_back(p);
    }
  }

  static Json words_json(const Passage& passage) {
    if (passage.turns.empty()) return passage.text;
    Json turns = Json::array();
    for (const ChatMessage& t : passage.turns) {
      turns.push_back({{"role", t.role}, {"content", t.content}});
    }
    return turns;
  }

  std::string rows_of(const std::vector<BuiltPair>& pairs) const {
    std::string text;
    for (const BuiltPair& p : pairs) {
      Json row = {{"prompt", words_json(p.pair.prompt)},
                  {"chosen", words_json(p.pair.chosen)},
                  {"rejected", words_json(p.pair.rejected)},
                  {"score_chosen", p.chosen_score},
                  {"score_rejected", p.rejected_score}};
      if (config_.margin_column) row["margin"] = p.pair.margin;
      text += row.dump() + "\n";
    }
    return text;
  }

  const BuildConfig& config_;
  BuildRecord record_;
  std::vector<ScoredPrompt> prompts_;
  std::vector<BuiltPair> pairs_;
};

}  // namespace

BuildResult build_pairs(const std::vector<std::filesystem::path>& inputs,
                        const std::vector<std::filesystem::path>& against,
                        const BuildConfig& config) {
  check_config(config);
  TEMPER_CHECK(!inputs.empty(), "[build_pairs] name at least one file of scored samples");
  Builder builder(config);
  builder.read(inputs);
  builder.scrub();
  builder.leave_out_contaminated(against);
  builder.make_pairs();
  builder.cluster();
  builder.cap_bands();
  builder.balance_lengths();
  return builder.finish();
}

void write_build(const BuildResult& result, const std::filesystem::path& folder) {
  for (const auto& [name, content] : result.files) {
    TEMPER_CHECK(!std::filesystem::exists(folder / name), "[build_pairs] ",
                 (folder / name).string(), " exists already; name another folder");
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  TEMPER_CHECK(!error, "[build_pairs] cannot make the folder ", folder.string(), ": ",
               error.message());
  for (const auto& [name, content] : result.files) write_file_atomically(folder / name, content);
}

}  // namespace temper
