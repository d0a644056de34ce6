#include "temper/trainer/judge_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "temper/core/error.h"

namespace temper {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

std::string question_text(const Passage& p) {
  if (p.turns.empty()) return p.text;
  if (p.turns.size() == 1) return p.turns.front().content;
  std::string out;
  for (const ChatMessage& m : p.turns) out += (out.empty() ? "" : "\n") + m.role + ": " + m.content;
  return out;
}

std::string answer_text(const Passage& p) {
  std::string out = p.text;
  for (const ChatMessage& m : p.turns) out += (out.empty() ? "" : "\n") + m.content;
  return out;
}

class Mean {
 public:
  void add(double x) {
    sum_ += x;
    ++n_;
  }
  [[nodiscard]] double value() const { return n_ == 0 ? kNone : sum_ / static_cast<double>(n_); }

 private:
  double sum_ = 0;
  int64_t n_ = 0;
};

/// 1: the judge prefers the preferred answer; -1: the other; 0: neither; nothing: no judgement.
using Choice = std::optional<int>;

void count(const JudgeTexts& texts, Choice choice, AgreementReport& r) {
  if (!choice) {
    ++r.without;
    return;
  }
  if (*choice == 0) {
    ++r.ties;
    return;
  }
  ++(*choice > 0 ? r.right : r.wrong);
  if (texts.answer.size() == texts.other.size()) return;
  const bool longer_labelled = texts.answer.size() > texts.other.size();
  ++r.different;
  r.longer_labelled += longer_labelled;
  r.longer_preferred += longer_labelled == (*choice > 0);
}

int sign(double x) { return (x > 0) - (x < 0); }

std::vector<Mark> mark_answers(ModelJudge& judge, std::span<const JudgedRow> rows, const std::string& append) {
  std::vector<JudgeCase> cases;
  for (const JudgedRow& row : rows) {
    JudgeCase c{row.texts, false};
    if (!append.empty()) {
      if (row.pair) c.texts.answer = c.texts.other;
      c.texts.answer += append;
      cases.push_back(std::move(c));
      continue;
    }
    cases.push_back(c);
    if (!row.pair) continue;
    c.texts.answer = row.texts.other;
    cases.push_back(std::move(c));
  }
  return judge.mark(cases);
}

/// P(good above bad) by counting all couples, and its standard error.
void set_auc(const std::vector<double>& good, const std::vector<double>& bad, JudgeReport& r) {
  r.good = std::ssize(good);
  r.bad = std::ssize(bad);
  r.auc = r.auc_error = kNone;
  if (good.empty() || bad.empty()) return;
  double wins = 0;
  for (const double g : good) {
    for (const double b : bad) wins += g > b ? 1.0 : g == b ? 0.5 : 0.0;
  }
  const double n = static_cast<double>(r.good), m = static_cast<double>(r.bad), a = wins / (n * m);
  const double q1 = a / (2 - a), q2 = 2 * a * a / (1 + a);
  r.auc = a;
  r.auc_error = std::sqrt((a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m));
}

std::vector<Choice> check_marks(std::span<const JudgedRow> rows, ModelJudge& judge, JudgeReport& r,
                                std::vector<Mark>& worse) {
  const auto marks = mark_answers(judge, rows, "");
  Mean good, bad, mass;
  std::vector<double> good_marks, bad_marks;
  std::vector<Choice> choices;
  AgreementReport agreement;
  size_t at = 0;
  const auto take = [&](bool is_good) {
    const Mark& m = marks[at++];
    if (m.outcome == JudgeOutcome::kJudged || m.outcome == JudgeOutcome::kUnclear) mass.add(m.mass);
    if (!std::isnan(m.value)) {
      (is_good ? good : bad).add(m.value);
      (is_good ? good_marks : bad_marks).push_back(m.value);
    }
    return m.value;
  };
  for (const JudgedRow& row : rows) {
    const double first = take(row.pair || row.good);
    if (row.pair) {
      const double second = take(false);
      Choice choice;
      if (!std::isnan(first) && !std::isnan(second)) choice = sign(first - second);
      count(row.texts, choice, agreement);
      choices.push_back(choice);
    }
    worse.push_back(marks[at - 1]);
  }
  if (r.pairs) r.pointwise = agreement;
  if (!r.pairs) set_auc(good_marks, bad_marks, r);
  r.mark_good = good.value();
  r.mark_bad = bad.value();
  r.mark_mass = mass.value();
  r.marks = judge.tally();
  return choices;
}

std::vector<Choice> check_comparisons(std::span<const JudgedRow> rows, ModelJudge& judge, JudgeReport& r) {
  std::vector<JudgePair> pairs;
  for (const JudgedRow& row : rows) pairs.push_back({row.texts, false, false});
  const auto verdicts = judge.compare(pairs);
  Mean shown_first, gap;
  std::vector<Choice> choices;
  AgreementReport agreement;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Comparison& c = verdicts[i];
    Choice choice;
    if (!std::isnan(c.p_first)) {
      choice = sign(c.p_first - 0.5);
      shown_first.add((c.as_shown + c.swapped) / 2);
      gap.add(c.swap_gap());
    }
    count(rows[i].texts, choice, agreement);
    choices.push_back(choice);
  }
  r.pairwise = agreement;
  r.p_shown_first = shown_first.value();
  r.swap_gap = gap.value();
  r.comparisons = judge.tally();
  return choices;
}

AppendedReport check_append(std::span<const JudgedRow> rows, ModelJudge& judge, const std::string& append,
                            const std::vector<Mark>& before) {
  AppendedReport r;
  Mean change;
  r.largest_change = -std::numeric_limits<double>::infinity();
  const auto after = mark_answers(judge, rows, append);
  for (size_t i = 0; i < rows.size(); ++i) {
    const double d = after[i].value - before[i].value;
    if (std::isnan(d)) continue;
    ++r.answers;
    r.raised += d > 0;
    change.add(d);
    r.largest_change = std::max(r.largest_change, d);
  }
  r.mean_change = change.value();
  return r;
}

}  // namespace

double AgreementReport::accuracy() const {
  return decided() == 0 ? kNone : static_cast<double>(right) / static_cast<double>(decided());
}

std::vector<JudgedRow> judged_rows(const CompletionData& data) {
  std::vector<JudgedRow> rows;
  const bool pairs = data.form == DataForm::kPreference || data.form == DataForm::kUltraFeedback ||
                     data.form == DataForm::kAlpacaEval;
  TEMPER_CHECK(pairs || data.form == DataForm::kUnpaired, "[judge] ", data.source, " is of the form ",
               form_name(data.form), "; a judge is held against pairs or labelled answers");
  for (size_t i = 0; i < data.records.size(); ++i) {
    const CompletionRecord& r = data.records[i];
    JudgedRow row{{question_text(r.prompt), answer_text(r.completion), "", ""}, pairs, r.label.value_or(true)};
    if (pairs) row.texts.other = answer_text(data.records[++i].completion);
    rows.push_back(std::move(row));
  }
  return rows;
}

JudgeReport check_judge(std::span<const JudgedRow> rows, ModelJudge* marks, ModelJudge* compares,
                        const std::string& append) {
  JudgeReport r;
  r.rows = std::ssize(rows);
  r.pairs = !rows.empty() && rows.front().pair;
  TEMPER_CHECK(compares == nullptr || r.pairs, "[judge] single answers cannot be compared: use pointwise");
  TEMPER_CHECK(append.empty() || marks != nullptr, "[judge] a text is appended to marked answers: use pointwise");
  std::vector<Choice> by_marks, by_comparison;
  std::vector<Mark> worse;
  if (marks != nullptr) by_marks = check_marks(rows, *marks, r, worse);
  if (compares != nullptr) by_comparison = check_comparisons(rows, *compares, r);
  for (size_t i = 0; i < std::min(by_marks.size(), by_comparison.size()); ++i) {
    if (by_marks[i].value_or(0) == 0 || by_comparison[i].value_or(0) == 0) continue;
    ++r.both;
    r.agree += *by_marks[i] == *by_comparison[i];
  }
  if (!append.empty()) r.appended = check_append(rows, *marks, append, worse);
  return r;
}

}  // namespace temper
