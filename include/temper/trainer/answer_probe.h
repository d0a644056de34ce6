#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "temper/core/metrics.h"
#include "temper/data/answers.h"
#include "temper/nn/models.h"

namespace temper {

/// Given answers whose probability is watched while a run trains.
struct ProbeConfig {
  std::string path;
  int64_t every = 1;
  bool ended = true;

  template <class V>
  void visit(V&& v) {
    v(path, "path",
      "File of prompts and completions whose probability under the policy is measured in steps, "
      "probe/probability in metrics and report; nothing is learned from them. Empty: none.");
    v(every, "every", "Steps between two measurements, at least 1.");
    v(ended, "ended",
      "Count the end token behind an answer: the probability of just this text; else of all texts "
      "that begin with it.");
  }
};

/// What a policy thinks of given answers, such as one that no data has: a curve of its own in a
/// run's report. Costs a forward over them each time, and changes nothing.
class AnswerProbe {
 public:
  /// Nothing where the config names no file. @throws Error for a file that cannot be read, rows
  /// without prompt or answer, or `every` below 1.
  [[nodiscard]] static std::optional<AnswerProbe> make(const ProbeConfig& config,
                                                       const ModelText& text);
  /// Rows of one answer each.
  AnswerProbe(std::vector<AnswerGroup> rows, int64_t every);

  /// Adds `probe/probability`, the mean over the answers of exp(sum log pi), and `probe/logps`, the
  /// mean of the sums (nats, temperature 1), where the step is one of those that measure.
  void add_to(Metrics& metrics, int64_t step, CausalLM& lm) const;
  /// The probability of each answer.
  [[nodiscard]] std::vector<double> probabilities(CausalLM& lm) const;

 private:
  [[nodiscard]] std::vector<double> logprobs(CausalLM& lm) const;

  std::vector<AnswerGroup> rows_;
  int64_t every_;
};

}  // namespace temper
