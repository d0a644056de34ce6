#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "temper/core/error.h"
#include "temper/reward/reward.h"

/// Rewards made of rewards. Each takes functions and gives a function, so they nest freely:
///
///     named("math", gated(think_format(), weighted({{1.0, numeric_answer()},
///                                                   {0.2, soft_overlong(512, 64)}})))
///
/// NaN (not scored) passes through all of them.
namespace temper {

namespace detail {

/// Calls `fn` and checks the number of scores, so that a combinator's error names the combinator.
inline std::vector<float> call_checked(const RewardFn& fn, std::span<const Completion> completions,
                                       const char* op) {
  std::vector<float> scores = fn(completions);
  TEMPER_CHECK(scores.size() == completions.size(), "[", op, "] the inner reward returned ",
               scores.size(), " scores for ", completions.size(), " completions");
  return scores;
}

/// Applies `f` to every score that is not NaN.
template <class F>
[[nodiscard]] RewardFn map_scores(RewardFn fn, const char* op, F f) {
  TEMPER_CHECK(fn, "[", op, "] the inner reward has no function");
  return [fn = std::move(fn), op, f](std::span<const Completion> completions) {
    std::vector<float> scores = call_checked(fn, completions, op);
    for (float& s : scores) {
      if (!std::isnan(s)) s = f(s);
    }
    return scores;
  };
}

}  // namespace detail

/// A reward with its name and weight.
[[nodiscard]] inline NamedReward named(std::string name, RewardFn fn, double weight = 1.0) {
  return {std::move(name), std::move(fn), weight};
}

/// factor * r + offset.
[[nodiscard]] inline RewardFn scaled(RewardFn fn, double factor, double offset = 0) {
  return detail::map_scores(std::move(fn), "scaled", [factor, offset](float r) {
    return static_cast<float>(factor * r + offset);
  });
}

/// min(max(r, lo), hi), lo <= hi.
[[nodiscard]] inline RewardFn clipped(RewardFn fn, double lo, double hi) {
  TEMPER_CHECK(lo <= hi, "[clipped] lo must not be above hi, got ", lo, " and ", hi);
  return detail::map_scores(std::move(fn), "clipped", [lo, hi](float r) {
    return static_cast<float>(std::clamp(static_cast<double>(r), lo, hi));
  });
}

/// sum of weight * r over the terms that scored the row; NaN where none did.
[[nodiscard]] inline RewardFn weighted(std::vector<std::pair<double, RewardFn>> terms) {
  TEMPER_CHECK(!terms.empty(), "[weighted] at least one term is needed");
  for (const auto& term : terms) TEMPER_CHECK(term.second, "[weighted] a term has no function");
  return [terms = std::move(terms)](std::span<const Completion> completions) {
    std::vector<double> sums(completions.size(), 0.0);
    std::vector<bool> any(completions.size(), false);
    for (const auto& [weight, fn] : terms) {
      const std::vector<float> scores = detail::call_checked(fn, completions, "weighted");
      for (size_t i = 0; i < scores.size(); ++i) {
        if (std::isnan(scores[i])) continue;
        sums[i] += weight * scores[i];
        any[i] = true;
      }
    }
    std::vector<float> out(completions.size(), std::numeric_limits<float>::quiet_NaN());
    for (size_t i = 0; i < out.size(); ++i) {
      if (any[i]) out[i] = static_cast<float>(sums[i]);
    }
    return out;
  };
}

/// `fn` where `gate` is above `threshold`, 0 elsewhere, NaN where the gate is NaN. `fn` is called
/// with the rows that pass only, so an expensive judge behind a cheap gate costs what it must.
[[nodiscard]] inline RewardFn gated(RewardFn gate, RewardFn fn, double threshold = 0.5) {
  TEMPER_CHECK(gate && fn, "[gated] a reward has no function");
  return [gate = std::move(gate), fn = std::move(fn),
          threshold](std::span<const Completion> completions) {
    std::vector<float> out = detail::call_checked(gate, completions, "gated");
    std::vector<Completion> passed;
    std::vector<size_t> rows;
    for (size_t i = 0; i < out.size(); ++i) {
      if (std::isnan(out[i])) continue;
      if (out[i] > threshold) {
        passed.push_back(completions[i]);
        rows.push_back(i);
      }
      out[i] = 0;
    }
    if (rows.empty()) return out;
    const std::vector<float> scores = detail::call_checked(fn, passed, "gated");
    for (size_t n = 0; n < rows.size(); ++n) out[rows[n]] = scores[n];
    return out;
  };
}

/// Shows `fn` only the text after the last `mark` (such as "</think>"); a completion without it has
/// an empty text there. Tokens and truncation stay those of the whole completion.
[[nodiscard]] inline RewardFn after_mark(std::string mark, RewardFn fn) {
  TEMPER_CHECK(!mark.empty() && fn, "[after_mark] a mark and a reward are needed");
  return [mark = std::move(mark), fn = std::move(fn)](std::span<const Completion> completions) {
    std::vector<Completion> cut(completions.begin(), completions.end());
    for (Completion& c : cut) {
      const size_t at = c.text.rfind(mark);
      c.text = at == std::string::npos ? "" : c.text.substr(at + mark.size());
    }
    return detail::call_checked(fn, cut, "after_mark");
  };
}

}  // namespace temper
