// A judge's report as JSON and as lines for people.
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "temper/trainer/judge_check.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

/// JSON has no NaN.
Json number(double x) { return std::isfinite(x) ? Json(x) : Json(); }

double share(int64_t part, int64_t whole) {
  return whole == 0 ? std::nan("") : static_cast<double>(part) / static_cast<double>(whole);
}

Json agreement_json(const AgreementReport& r) {
  const Interval i = r.interval();
  return {{"right", r.right},
          {"wrong", r.wrong},
          {"ties", r.ties},
          {"without", r.without},
          {"accuracy", number(r.accuracy())},
          {"low", i.low},
          {"high", i.high},
          {"longer_preferred", number(share(r.longer_preferred, r.different))},
          {"longer_labelled", number(share(r.longer_labelled, r.different))}};
}

Json tally_json(const JudgeTally& t) {
  return {{"judged", t.judged}, {"unclear", t.unclear}, {"too_long", t.too_long}};
}

std::string line(const char* format, auto... values) {
  char buffer[240];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return std::string(buffer) + "\n";
}

long long ll(int64_t n) { return static_cast<long long>(n); }

std::string agreement_lines(const char* name, const AgreementReport& r) {
  if (r.decided() == 0) return line("%s: no pair was decided; ties %lld, without a judgement %lld", name, ll(r.ties), ll(r.without));
  const Interval i = r.interval();
  return line("%s: agrees with the labels on %.1f %% (%lld of %lld, 95 %% interval %.1f to %.1f)", name,
              100 * r.accuracy(), ll(r.right), ll(r.decided()), 100 * i.low, 100 * i.high) +
         line("  ties %lld, without a judgement %lld", ll(r.ties), ll(r.without)) +
         line("  prefers the longer answer on %.1f %%; the labels do on %.1f %%",
              100 * share(r.longer_preferred, r.different), 100 * share(r.longer_labelled, r.different));
}

std::string tally_line(const char* name, const JudgeTally& t) {
  return line("  %s: %lld judged, %lld unclear, %lld too long", name, ll(t.judged), ll(t.unclear), ll(t.too_long));
}

}  // namespace

Json judge_report_json(const JudgeReport& r) {
  Json out{{"rows", r.rows}, {"form", r.pairs ? "pairs" : "single"}};
  if (r.marks.judged + r.marks.unclear + r.marks.too_long > 0) {
    out["marks"] = tally_json(r.marks);
    out["marks"]["mean_good"] = number(r.mark_good);
    out["marks"]["mean_bad"] = number(r.mark_bad);
    out["marks"]["mass"] = number(r.mark_mass);
  }
  if (r.pointwise) out["pointwise"] = agreement_json(*r.pointwise);
  if (r.pairwise) {
    out["comparisons"] = tally_json(r.comparisons);
    out["comparisons"]["consistent"] = number(share(r.comparisons.consistent, r.comparisons.judged));
    out["comparisons"]["p_shown_first"] = number(r.p_shown_first);
    out["comparisons"]["swap_gap"] = number(r.swap_gap);
    out["pairwise"] = agreement_json(*r.pairwise);
  }
  if (r.pointwise && r.pairwise) out["modes_agree"] = number(share(r.agree, r.both));
  if (!r.pairs) {
    out["good"] = r.good;
    out["bad"] = r.bad;
    out["auc"] = number(r.auc);
    out["auc_error"] = number(r.auc_error);
  }
  if (r.appended) {
    out["appended"] = {{"answers", r.appended->answers},
                       {"raised", number(share(r.appended->raised, r.appended->answers))},
                       {"mean_change", number(r.appended->mean_change)},
                       {"largest_change", number(r.appended->largest_change)}};
  }
  return out;
}

std::string judge_report_text(const JudgeReport& r) {
  std::string out = line("%lld %s", ll(r.rows), r.pairs ? "pairs" : "answers");
  if (r.pointwise) out += agreement_lines("pointwise", *r.pointwise);
  if (!r.pairs) {
    out += line("pointwise: a good answer's mark is above a bad one's with probability %.3f "
                "(standard error %.3f; %lld good, %lld bad)",
                r.auc, r.auc_error, ll(r.good), ll(r.bad));
  }
  if (r.marks.judged + r.marks.unclear + r.marks.too_long > 0) {
    out += tally_line("answers", r.marks);
    out += line("  mean mark %.3f of %s answers, %.3f of the others; the marks hold %.1f %% of the probability",
                r.mark_good, r.pairs ? "preferred" : "good", r.mark_bad, 100 * r.mark_mass);
  }
  if (r.pairwise) {
    out += agreement_lines("pairwise", *r.pairwise);
    out += tally_line("pairs", r.comparisons);
    out += line("  same preference in both orders: %.1f %%; P(the answer shown first) %.3f; mean gap %.3f",
                100 * share(r.comparisons.consistent, r.comparisons.judged), r.p_shown_first, r.swap_gap);
  }
  if (r.pointwise && r.pairwise) {
    out += line("the modes agree on %.1f %% of %lld pairs", 100 * share(r.agree, r.both), ll(r.both));
  }
  if (r.appended) {
    out += line("the appended text changes a mark by %+.3f on average, %+.3f at most; it raises %.1f %% of %lld",
                r.appended->mean_change, r.appended->largest_change,
                100 * share(r.appended->raised, r.appended->answers), ll(r.appended->answers));
  }
  return out;
}

}  // namespace temper
