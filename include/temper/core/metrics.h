#pragma once

#include <algorithm>
#include <map>
#include <string>

namespace temper {

/// Named numbers of one step. Names are TRL's where TRL has one.
using Metrics = std::map<std::string, double>;

/// Sums metrics over micro-batches so that the result does not depend on how rows were split:
/// means are (sum of values) / (sum of weights), never means of means.
class MetricSums {
 public:
  /// Adds `sum` with `weight` (say, the sum over active tokens and their number).
  void add_mean(const std::string& name, double sum, double weight) {
    merge_entry(name, {Kind::kMean, sum, weight});
  }
  void add_min(const std::string& name, double value) { merge_entry(name, {Kind::kMin, value, 1}); }
  void add_max(const std::string& name, double value) { merge_entry(name, {Kind::kMax, value, 1}); }
  /// Takes in what another micro-batch or rank added.
  void merge(const MetricSums& other) {
    for (const auto& [name, entry] : other.entries_) merge_entry(name, entry);
  }
  /// Writes `sum / weight` for every entry with a weight; an entry without one is left out.
  void write_to(Metrics& out) const {
    for (const auto& [name, e] : entries_) {
      if (e.weight > 0) out[name] = e.kind == Kind::kMean ? e.value / e.weight : e.value;
    }
  }

 private:
  enum class Kind { kMean, kMin, kMax };
  struct Entry {
    Kind kind = Kind::kMean;
    double value = 0;  ///< Sum, smallest or largest.
    double weight = 0;
  };

  void merge_entry(const std::string& name, const Entry& entry) {
    auto [it, fresh] = entries_.try_emplace(name, entry);
    if (fresh) return;
    Entry& mine = it->second;
    switch (mine.kind) {
      case Kind::kMean:
        mine.value += entry.value;
        mine.weight += entry.weight;
        break;
      case Kind::kMin: mine.value = std::min(mine.value, entry.value); break;
      case Kind::kMax: mine.value = std::max(mine.value, entry.value); break;
    }
  }

  std::map<std::string, Entry> entries_;
};

}  // namespace temper
