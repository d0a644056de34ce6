#pragma once

namespace temper {

/// What a loss over given answers reads beside their log-probs: whoever builds an `AnswerBatch`
/// looks here. It depends on the settings, not only on the loss's name.
struct OfflineNeeds {
  /// A number that the loss compares log-ratios with, the same for the whole step.
  enum class Baseline {
    kNone,
    kKto,  ///< max(0, mean log-ratio of answers behind prompts that they do not belong to).
    kBco,  ///< Running mean of beta times the log-ratios of all answers so far, this step's too.
  };

  bool pairs = false;            ///< Answers 2 j and 2 j + 1 belong together.
  bool labels = false;           ///< `AnswerBatch::labels`.
  bool reference = false;        ///< `AnswerBatch::ref_logprobs`.
  bool sharp_logprobs = false;   ///< `AnswerBatch::sharp_logprobs`.
  bool sums = false;             ///< `AnswerTotals::sums`, unless one micro-batch is the step.
  bool prompt_logprobs = false;  ///< `AnswerBatch::prompt_logprobs`.
  Baseline baseline = Baseline::kNone;
};

}  // namespace temper
