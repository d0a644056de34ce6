#include "temper/data/check.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "build_card.h"
#include "passages.h"
#include "temper/core/error.h"

namespace temper {
namespace {

using detail::characters;
using detail::words_of;

constexpr size_t kListed = 20;

/// What stands for a record's prompt where it has none: a conversation's turns before the first
/// answer, or the text.
std::string prompt_words(const CompletionRecord& r) {
  if (!r.prompt.empty()) return words_of(r.prompt);
  Passage head;
  for (const ChatMessage& turn : r.completion.turns) {
    if (turn.role == "assistant") break;
    head.turns.push_back(turn);
  }
  return words_of(head.empty() ? r.completion : head);
}

RecordLength count_characters(const CompletionRecord& r) {
  const auto prompt = static_cast<int64_t>(characters(words_of(r.prompt)));
  return {prompt, prompt + static_cast<int64_t>(characters(words_of(r.completion)))};
}

std::optional<NearDuplicateIndex> near_index(const DataCheckOptions& options) {
  if (options.near.similarity == 0) return std::nullopt;
  return NearDuplicateIndex(options.near);
}

/// Prompts of another file.
class OtherFile {
 public:
  OtherFile(const std::filesystem::path& path, const DataCheckOptions& options)
      : near_(near_index(options)) {
    leak_.file = path.string();
    CompletionReadOptions read;
    read.form = "any";
    read.pairs = "chosen";
    read.skip_bad = true;
    (void)stream_completions(path, read, [&](CompletionRecord&& r) {
      ++leak_.rows;
      if (!ids_.insert(r.id).second) return;
      const std::string prompt = prompt_words(r);
      if (near_) near_->add(near_->signature(prompt));
      overlap_.add(prompt);
    });
  }

  void look_at(uint64_t id, uint64_t line, const std::string& prompt, const std::string& row) {
    const bool same = ids_.contains(id);
    const bool near = !same && near_ && !near_->matches(near_->signature(prompt)).empty();
    const bool overlap = overlap_.overlaps(prompt) || overlap_.overlaps(row);
    leak_.same_prompts += same ? 1 : 0;
    leak_.near_prompts += near ? 1 : 0;
    leak_.overlaps += overlap ? 1 : 0;
    if ((same || near || overlap) && leak_.lines.size() < kListed) leak_.lines.push_back(line);
  }

  [[nodiscard]] const DataLeak& leak() const { return leak_; }

 private:
  DataLeak leak_;
  std::unordered_set<uint64_t> ids_;
  std::optional<NearDuplicateIndex> near_;
  OverlapIndex overlap_;
};

class Checker {
 public:
  Checker(const DataCheckOptions& options, const std::vector<std::filesystem::path>& against)
      : options_(options), near_(near_index(options)) {
    for (const auto& path : against) {
      others_.push_back(std::make_unique<OtherFile>(path, options));
    }
  }

  DataCheckReport check(const std::filesystem::path& path) {
    CompletionReadOptions read = options_.read;
    read.skip_bad = true;
    if (read.form == "auto") read.form = "any";
    const CompletionData rest =
        stream_completions(path, read, [&](CompletionRecord&& r) { take(std::move(r)); });
    if (waiting_) finish_row(*waiting_, nullptr);
    report_.file = path.string();
    report_.form = form_name(rest.form);
    char hash[17];
    std::snprintf(hash, sizeof(hash), "%016" PRIx64, rest.content_hash);
    report_.hash = hash;
    report_.skipped = rest.skipped;
    report_.empty = rest.empty;
    report_.equal = rest.equal;
    report_.ties = rest.ties;
    report_.problems = rest.problems;
    report_.unit = options_.unit;
    report_.max_length = options_.max_length;
    for (auto& [part, lengths] : lengths_) {
      report_.lengths.emplace_back(part.substr(2), length_stats(std::move(lengths)));
    }
    for (const auto& [answer, labels] : labels_) report_.contradictions += labels == 3 ? 1 : 0;
    for (const auto& other : others_) report_.leaks.push_back(other->leak());
    return std::move(report_);
  }

 private:
  /// The two sides of a pair come one behind the other, from one line.
  void take(CompletionRecord&& r) {
    measure(r);
    if (waiting_ && waiting_->line == r.line && waiting_->label == true && r.label == false &&
        waiting_->prompt == r.prompt) {  // Else they are steps.
      finish_row(*waiting_, &r);
      waiting_.reset();
      return;
    }
    if (waiting_) finish_row(*waiting_, nullptr);
    waiting_ = std::move(r);
  }

  void measure(const CompletionRecord& r) {
    const RecordLength length = options_.length ? options_.length(r) : count_characters(r);
    const int64_t answer = length.whole - length.prompt;
    if (!r.prompt.empty()) lengths_["1 prompt"].push_back(length.prompt);
    if (!r.completion.empty()) {
      lengths_[!r.label   ? "2 answer"
               : *r.label ? "3 desirable"
                          : "4 undesirable"]
          .push_back(answer);
    }
    lengths_["5 whole"].push_back(length.whole);
    if (options_.max_length > 0 && length.whole > options_.max_length) {
      ++report_.cut;
      report_.cut_whole += !r.completion.empty() && length.prompt >= options_.max_length ? 1 : 0;
    }
    if (!r.label) return;
    ++(*r.label ? report_.desirable : report_.undesirable);
    StableHash hash;
    hash.update(concat(r.id, ' ', detail::passage_id(r.completion)));
    labels_[hash.value()] |= *r.label ? 1 : 2;
  }

  void finish_row(const CompletionRecord& r, const CompletionRecord* other) {
    ++report_.rows;
    const std::string prompt = prompt_words(r);
    std::string row = words_of(r.prompt) + "\n" + words_of(r.completion);
    if (other != nullptr) {
      const std::string rejected = words_of(other->completion);
      const uint64_t a = characters(words_of(r.completion)), b = characters(rejected);
      report_.chosen_longer += a > b ? 1 : 0;
      report_.rejected_longer += a < b ? 1 : 0;
      row += "\n" + rejected;
    }
    report_.same_prompts += prompts_.insert(r.id).second ? 0 : 1;
    find_duplicates(r, other, row);
    for (const auto& file : others_) file->look_at(r.id, r.line, prompt, row);
  }

  void find_duplicates(const CompletionRecord& r, const CompletionRecord* other,
                       const std::string& row) {
    StableHash hash;
    hash.update(concat(detail::passage_id(r.prompt), ' ', detail::passage_id(r.completion), ' ',
                       other == nullptr ? 0 : detail::passage_id(other->completion), ' ',
                       r.label ? (*r.label ? 1 : 2) : 0));
    const auto [it, fresh] = rows_.emplace(hash.value(), r.line);
    uint64_t earlier = it->second;
    if (!fresh) {
      ++report_.same_rows;
    } else {
      if (!near_) return;
      Signature signature = near_->signature(row);
      const std::vector<size_t> matches = near_->matches(signature);
      near_->add(std::move(signature));
      near_lines_.push_back(r.line);
      if (matches.empty()) return;
      ++report_.near_rows;
      earlier = near_lines_[matches.front()];
    }
    if (report_.duplicates.size() < kListed) report_.duplicates.emplace_back(r.line, earlier);
  }

  const DataCheckOptions& options_;
  DataCheckReport report_;
  std::vector<std::unique_ptr<OtherFile>> others_;
  std::map<std::string, std::vector<int64_t>> lengths_;  ///< Keys begin with their place.
  std::unordered_map<uint64_t, int> labels_;             ///< 1: seen as desirable, 2: as not.
  std::unordered_set<uint64_t> prompts_;
  std::unordered_map<uint64_t, uint64_t> rows_;  ///< Line of the first of equal rows.
  std::optional<NearDuplicateIndex> near_;
  std::vector<uint64_t> near_lines_;
  std::optional<CompletionRecord> waiting_;
};

}  // namespace

LengthStats length_stats(std::vector<int64_t> lengths) {
  LengthStats s;
  if (lengths.empty()) return s;
  std::sort(lengths.begin(), lengths.end());
  const size_t n = lengths.size();
  const auto quantile = [&](size_t percent) { return lengths[(n * percent + 99) / 100 - 1]; };
  s.count = n;
  s.least = lengths.front();
  s.median = quantile(50);
  s.p95 = quantile(95);
  s.most = lengths.back();
  for (const int64_t length : lengths) s.mean += static_cast<double>(length);
  s.mean /= static_cast<double>(n);
  return s;
}

DataCheckReport check_data(const std::filesystem::path& path,
                           const std::vector<std::filesystem::path>& against,
                           const DataCheckOptions& options) {
  return Checker(options, against).check(path);
}

}  // namespace temper
