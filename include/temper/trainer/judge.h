#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "temper/nn/models.h"
#include "temper/trainer/judge_prompt.h"

namespace temper {

/// How a judge asks and what becomes of its answers.
struct JudgeConfig {
  std::string model;
  std::string weights = "bfloat16";
  std::string mode = "pointwise";
  std::string rubric = "additive";
  std::string template_file;
  int64_t scale = 5;
  double calibration = 0;
  double min_mass = 0.05;
  double length_penalty = 0;
  std::string truncated = "least";
  int64_t max_length = 2048;
  int64_t batch_tokens = 2048;
  double weight = 1;

  template <class V>
  void visit(V&& v) {
    v(model, "model", "Who judges: policy, with the weights that it has at that moment, or a GGUF file, folder or hub id, frozen. Empty: nobody.");
    v(weights, "weights", "What the products of a frozen judge read; see trainer.weights.", weight_dtype_names());
    v(mode, "mode", "pointwise: a mark for each answer. pairwise: which of two answers is better, asked in both orders.", {"pointwise", "pairwise"});
    v(rubric, "rubric", "additive, helpful, correct (shows the row's answer as the right one), or a text file.");
    v(template_file, "template_file", "Text file of a prompt in place of the shipped one, with the fields {rubric}, {question}, and {answer}, or {first} and {second}; {scale}, {reference} and {reply} too. Empty: the shipped one.");
    v(scale, "scale", "Highest mark, 1 to 9; the lowest is 0.");
    v(calibration, "calibration", "How much of what the judge says of an empty case (N/A) is taken off its log-probs, 0 to 1.");
    v(min_mass, "min_mass", "Least probability of all marks (or of A and B) together: below it the judge has not answered, and there is no mark. In [0, 1].");
    v(length_penalty, "length_penalty", "Taken off for every 100 tokens of an answer: marks, or nats of the odds in a comparison. At least 0.");
    v(truncated, "truncated", "An answer that was cut off is judged, gets the least mark (and loses a comparison), or none.", {"judged", "least", "none"});
    v(max_length, "max_length", "Most tokens of a prompt; a longer case gets no mark.");
    v(batch_tokens, "batch_tokens", "Tokens of one forward, about: memory and speed, no bit.");
    v(weight, "weight", "As a reward: its weight in the sum; its name there is judge.");
  }
};

/// One answer to be marked.
struct JudgeCase {
  JudgeTexts texts;
  bool truncated = false;  ///< It was cut off.
};
/// Two answers to be compared: `texts.answer` and `texts.other`.
struct JudgePair {
  JudgeTexts texts;
  bool first_truncated = false;
  bool second_truncated = false;
};

/// Why there is a mark or none.
enum class JudgeOutcome {
  kJudged,     ///< The model was asked and answered.
  kTruncated,  ///< Decided by `truncated` alone.
  kUnclear,    ///< The marks together had less than `min_mass`.
  kTooLong     ///< The prompt has more than `max_length` tokens.
};

/// What a judge says of one answer.
struct Mark {
  /// sum_i p(i) i over the marks (Liu et al. 2023, G-Eval), less the length penalty; NaN: no mark.
  double value = std::numeric_limits<double>::quiet_NaN();
  double mass = 0;            ///< Probability of all marks together, before calibration.
  std::vector<double> share;  ///< [scale + 1] probability of each mark among them; empty: not asked.
  int64_t length = 0;         ///< Tokens of the answer.
  JudgeOutcome outcome = JudgeOutcome::kJudged;
};

/// What a judge says of two answers.
struct Comparison {
  /// P(the first is better), the mean of both orders, after the length penalty; NaN: no answer.
  double p_first = std::numeric_limits<double>::quiet_NaN();
  double as_shown = 0;  ///< P(A) with the first answer shown first: P(the first is better) there.
  double swapped = 0;   ///< P(A) with the second answer shown first: P(the second is better) there.
  double mass = 0;      ///< Probability of A and B together, in the order where it is less.
  JudgeOutcome outcome = JudgeOutcome::kJudged;

  /// |P(first) in one order - P(first) in the other|.
  [[nodiscard]] double swap_gap() const;
  /// Whether both orders prefer the same answer.
  [[nodiscard]] bool consistent() const;
};

/// What became of a judge's cases so far.
struct JudgeTally {
  int64_t judged = 0, truncated = 0, unclear = 0, too_long = 0;
  int64_t consistent = 0;  ///< Of the comparisons among the judged.
};

/// A language model as a judge. Nothing is sampled: the model reads a prompt once and the mark comes
/// from the probabilities of all possible answers to it, so it has no noise. Surface forms of one
/// mark ("4" and " 4") count together. A judgement depends on its own texts, the model's weights and
/// the config alone, bit for bit: cases whose prompts begin alike share the rows of that beginning
/// in one token tree, and neither that nor `batch_tokens` nor threads change a bit.
class ModelJudge {
 public:
  /// @param lm    the judge; the policy's own model, too: it is read as it is when it is asked.
  /// @param text  its text side; copied from, not kept.
  /// @throws Error naming a key that is out of range, and for a tokenizer that writes two marks
  /// alike.
  ModelJudge(std::shared_ptr<CausalLM> lm, const ModelText& text, JudgeConfig config);

  /// A mark for each case. Mode pointwise. @throws Error in the other mode, and for a case without
  /// a reference where the rubric shows one.
  [[nodiscard]] std::vector<Mark> mark(std::span<const JudgeCase> cases);
  /// A verdict for each pair, each asked in both orders. Mode pairwise.
  [[nodiscard]] std::vector<Comparison> compare(std::span<const JudgePair> pairs);

  [[nodiscard]] const JudgeConfig& config() const { return config_; }
  [[nodiscard]] const JudgeTally& tally() const { return tally_; }

 private:
  using Pieces = std::vector<std::vector<int32_t>>;
  /// One surface form, as places in `asked_`.
  struct Form {
    size_t answer = 0;  ///< Which mark or letter.
    std::vector<size_t> asked;
  };
  /// One token whose probability is asked: behind the prompt, or behind `node`.
  struct Asked {
    int32_t node = -1;
    int32_t target = 0;
  };
  /// A token of a form that others follow.
  struct Node {
    int32_t parent = -1;
    int32_t id = 0;
  };
  /// Log-probs of the answers to one prompt, surface forms summed; empty: too long.
  using Answer = std::vector<double>;

  void add_form(size_t answer, const std::vector<int32_t>& ids);
  int64_t rows_of(const Pieces& pieces, size_t shared) const;
  [[nodiscard]] std::vector<Answer> ask(std::span<const JudgeTexts> texts);
  void ask_batch(std::span<const Pieces> prompts, std::vector<Answer>& out);
  [[nodiscard]] std::vector<double> shares(const Answer& answer, const Answer& empty_case) const;
  [[nodiscard]] std::optional<JudgeOutcome> refused(const Answer& answer, double& mass) const;
  [[nodiscard]] std::vector<Answer> ask_with_empty(std::vector<JudgeTexts> texts);
  [[nodiscard]] int64_t length_of(const std::string& answer) const;
  void finish(Comparison& c, const JudgePair& pair, std::span<const Answer> both, const Answer& empty_case) const;
  void count(JudgeOutcome outcome);

  std::shared_ptr<CausalLM> lm_;
  Tokenizer tokenizer_;
  JudgeConfig config_;
  JudgePrompt prompt_;
  size_t answers_ = 0;
  std::vector<Form> forms_;
  std::vector<Asked> asked_;
  std::vector<Node> nodes_;
  JudgeTally tally_;
};

}  // namespace temper
