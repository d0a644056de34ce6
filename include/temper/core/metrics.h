#pragma once

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
    auto& m = entries_[name];
    m.sum += sum;
    m.weight += weight;
  }
  void add_min(const std::string& name, double value) {
    auto [it, fresh] = entries_.try_emplace(name, Entry{value, 1});
    if (!fresh && value < it->second.sum) it->second.sum = value;
  }
  void add_max(const std::string& name, double value) {
    auto [it, fresh] = entries_.try_emplace(name, Entry{value, 1});
    if (!fresh && value > it->second.sum) it->second.sum = value;
  }
  /// Writes `sum / weight` for every entry with a weight; an entry without one is left out.
  void write_to(Metrics& out) const {
    for (const auto& [name, e] : entries_) {
      if (e.weight > 0) out[name] = e.sum / e.weight;
    }
  }

 private:
  struct Entry {
    double sum = 0;
    double weight = 0;
  };
  std::map<std::string, Entry> entries_;
};

}  // namespace temper
