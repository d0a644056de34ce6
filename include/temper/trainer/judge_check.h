#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "temper/data/completions.h"
#include "temper/trainer/judge.h"
#include "temper/trainer/report.h"

namespace temper {

/// An answer, or two, about which somebody has said something.
struct JudgedRow {
  JudgeTexts texts;   ///< `other` is the answer that was not preferred; empty in a single answer.
  bool pair = false;
  bool good = true;   ///< Of a single answer.
};

/// The rows of a file of pairs or of labelled answers. A conversation's question is its turns by
/// their roles where there is more than one; answers are the text of their turns.
/// @throws Error for a form that is neither.
[[nodiscard]] std::vector<JudgedRow> judged_rows(const CompletionData& data);

/// How often a judge prefers what people preferred, in one mode.
struct AgreementReport {
  int64_t right = 0, wrong = 0;
  int64_t ties = 0;     ///< Both answers equally good to it.
  int64_t without = 0;  ///< No judgement of one side at least.
  int64_t different = 0;        ///< Decided pairs whose answers differ in length (bytes).
  int64_t longer_preferred = 0; ///< Of those, how often the judge prefers the longer answer,
  int64_t longer_labelled = 0;  ///< and how often people did.

  [[nodiscard]] int64_t decided() const { return right + wrong; }
  /// Share of right among the decided, with Wilson's interval of 95 %.
  [[nodiscard]] double accuracy() const;
  [[nodiscard]] Interval interval() const { return wilson_interval(right, decided()); }
};

/// What an appended sentence does to marks.
struct AppendedReport {
  int64_t answers = 0;   ///< Marked both with it and without.
  int64_t raised = 0;    ///< Their mark is higher with it.
  double mean_change = 0;
  double largest_change = 0;
};

/// A judge held against labels. Numbers that nothing was counted for are NaN.
struct JudgeReport {
  int64_t rows = 0;
  bool pairs = false;
  std::optional<AgreementReport> pointwise, pairwise;
  JudgeTally marks, comparisons;
  double mark_good = 0, mark_bad = 0;  ///< Mean marks of preferred (good) answers and of the others.
  double mark_mass = 0;                ///< Mean probability of all marks together.
  double p_shown_first = 0;  ///< Mean P(A) over both orders: 1/2 for a judge blind to positions.
  double swap_gap = 0;       ///< Mean of `Comparison::swap_gap`.
  int64_t both = 0;          ///< Pairs that both modes decide,
  int64_t agree = 0;         ///< and those on which they agree.
  int64_t good = 0, bad = 0;  ///< Single answers with a mark.
  double auc = 0;             ///< P(a good one's mark is above a bad one's), a tie counting half;
  double auc_error = 0;       ///< its standard error (Hanley and McNeil 1982).
  std::optional<AppendedReport> appended;
};

/// Asks the judges about all rows. @param marks  a pointwise judge, or null. @param compares  a
/// pairwise one, or null; for pairs only. @param append  a text that `marks` sees appended to every
/// (worse) answer in a second look; empty: no such look.
[[nodiscard]] JudgeReport check_judge(std::span<const JudgedRow> rows, ModelJudge* marks,
                                      ModelJudge* compares, const std::string& append = "");

[[nodiscard]] nlohmann::ordered_json judge_report_json(const JudgeReport& report);
[[nodiscard]] std::string judge_report_text(const JudgeReport& report);

}  // namespace temper
