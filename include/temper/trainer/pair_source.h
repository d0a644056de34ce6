#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "temper/core/error.h"
#include "temper/core/metrics.h"
#include "temper/data/answers.h"
#include "temper/data/dataset.h"
#include "temper/trainer/answer_tokens.h"
#include "temper/trainer/observer.h"

namespace temper {

/// Round after round gave no row: the labeler sees no difference between answers any more. What was
/// learned is whole.
class NothingToLearn : public Error {
 public:
  using Error::Error;
};

/// When a round of learning begins.
struct RoundStart {
  int64_t round = 0;  ///< Rounds before it; part of every random key.
  int64_t step = 0;   ///< Optimizer steps before it.
};

/// Rows of a round, and what there is to say of how they came about. A row is a pair, the preferred
/// answer first, or a single answer whose label says how good it is; the source and the loss agree.
struct PairRows {
  std::vector<AnswerGroup> groups;
  Metrics metrics;
  std::vector<SampleCompletion> samples;  ///< Answers of the policy, for people to read.
};

/// Where the rows of each round come from: a file, the policy, both, or earlier rounds besides.
/// Everything random is keyed by (seed, round), so a source restored from its state goes on as one
/// that never stopped.
class PairSource {
 public:
  virtual ~PairSource() = default;
  /// The rows of the next round; none where nothing could be labelled. An exception may leave the
  /// source moved on: the caller takes `state` before and restores it.
  [[nodiscard]] virtual PairRows next(const RoundStart& at) = 0;
  [[nodiscard]] virtual nlohmann::ordered_json state() const = 0;
  /// @throws Error for a state that is malformed or of other data.
  virtual void restore(const nlohmann::ordered_json& state) = 0;
  /// Passes over its prompts or rows so far.
  [[nodiscard]] virtual double epoch() const = 0;
};

/// Given pairs, in an order drawn anew for every pass.
class FilePairs final : public PairSource {
 public:
  /// @throws Error for rows that are no pairs, naming the line, or a count below 1.
  FilePairs(TokenizedAnswers rows, int64_t rows_per_round, uint64_t seed);
  [[nodiscard]] PairRows next(const RoundStart& at) override;
  [[nodiscard]] nlohmann::ordered_json state() const override;
  void restore(const nlohmann::ordered_json& state) override;
  [[nodiscard]] double epoch() const override;

 private:
  TokenizedAnswers rows_;
  int64_t per_round_;
  PromptSampler sampler_;
  int64_t given_ = 0;
};

/// The rows of several sources in one round, in the order of the sources.
class MixedPairs final : public PairSource {
 public:
  explicit MixedPairs(std::vector<std::unique_ptr<PairSource>> sources);
  [[nodiscard]] PairRows next(const RoundStart& at) override;
  [[nodiscard]] nlohmann::ordered_json state() const override;
  void restore(const nlohmann::ordered_json& state) override;
  /// Of the first source.
  [[nodiscard]] double epoch() const override;

 private:
  std::vector<std::unique_ptr<PairSource>> sources_;
};

/// Which earlier rows come back.
struct ReplayConfig {
  int64_t rows = 0;       ///< Most earlier rows of a round, at least 1.
  int64_t max_steps = 0;  ///< A row older than this many optimizer steps is forgotten; at least 1.
};

/// A source's rows, and some of its rows of earlier rounds besides, drawn without replacement from
/// those that are not too old; none in a round that has no fresh ones. Metrics: `replay/rows`, `replay/mean_age` (steps), `replay/kept`.
class ReplayedPairs final : public PairSource {
 public:
  /// @throws Error for a number of the config out of its range.
  ReplayedPairs(std::unique_ptr<PairSource> fresh, ReplayConfig config, uint64_t seed);
  [[nodiscard]] PairRows next(const RoundStart& at) override;
  [[nodiscard]] nlohmann::ordered_json state() const override;
  void restore(const nlohmann::ordered_json& state) override;
  [[nodiscard]] double epoch() const override { return fresh_->epoch(); }

 private:
  struct Kept {
    int64_t step = 0;  ///< When it was made.
    AnswerGroup group;
  };
  std::unique_ptr<PairSource> fresh_;
  ReplayConfig config_;
  uint64_t seed_;
  std::deque<Kept> kept_;  ///< Oldest first.
};

}  // namespace temper
