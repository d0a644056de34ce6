#pragma once

#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "error_of.h"
#include "temper/core/error.h"
#include "temper/reward/reward.h"

namespace temper {

inline const float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Completions with the rows and tokens that they point to.
class Batch {
 public:
  Batch& add(std::string text, const std::string& answer = "", size_t tokens = 1) {
    examples_.push_back({});
    examples_.back().answer = answer;
    examples_.back().id = 1000 + rows_.size();
    ids_.emplace_back(tokens, 7);
    rows_.push_back({"p", std::move(text), ids_.back(), false, &examples_.back()});
    return *this;
  }
  Batch& add_ids(std::vector<int32_t> ids) {
    ids_.push_back(std::move(ids));
    rows_.push_back({"p", "", ids_.back(), false, nullptr});
    return *this;
  }
  std::vector<Completion>& rows() { return rows_; }
  std::vector<float> scored_by(const RewardFn& fn) const { return fn(rows_); }

 private:
  std::deque<Example> examples_;  // Deques: the rows keep pointers into them.
  std::deque<std::vector<int32_t>> ids_;
  std::vector<Completion> rows_;
};

inline float score_text(const RewardFn& fn, const std::string& text, const std::string& answer = "",
                        size_t tokens = 1) {
  return Batch().add(text, answer, tokens).scored_by(fn).at(0);
}

}  // namespace temper
