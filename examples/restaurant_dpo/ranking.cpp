#include "ranking.h"

#include <algorithm>
#include <cmath>

#include "temper/core/error.h"
#include "temper/core/rng.h"

namespace restaurant {

double Standing::hit_rate(int64_t k) const {
  const int64_t places = std::clamp<int64_t>(k - above, 0, equal + 1);
  return static_cast<double>(places) / static_cast<double>(equal + 1);
}

double Standing::ndcg(int64_t k) const {
  double sum = 0;
  for (int64_t rank = above + 1; rank <= std::min(k, above + equal + 1); ++rank) {
    sum += 1 / std::log2(static_cast<double>(rank + 1));
  }
  return sum / static_cast<double>(equal + 1);
}

double Standing::auc() const {
  return (static_cast<double>(below) + 0.5 * static_cast<double>(equal)) /
         static_cast<double>(above + equal + below);
}

Standing standing_of(std::span<const double> scores) {
  TEMPER_CHECK(scores.size() >= 2, "[standing_of] there is nothing to compare with");
  Standing s;
  for (size_t i = 0; i < scores.size(); ++i) {
    TEMPER_CHECK(!std::isnan(scores[i]), "[standing_of] score ", i, " is not a number");
    if (i == 0) continue;
    ++(scores[i] > scores[0] ? s.above : scores[i] < scores[0] ? s.below : s.equal);
  }
  return s;
}

std::vector<Standing> standings(size_t trials, const Scorer& scorer) {
  std::vector<Standing> out;
  for (size_t i = 0; i < trials; ++i) out.push_back(standing_of(scorer(i)));
  return out;
}

double mean_ndcg(std::span<const Standing> all) {
  double sum = 0;
  for (const Standing& s : all) sum += s.ndcg(10);
  return all.empty() ? 0 : sum / static_cast<double>(all.size());
}

Estimate bootstrap(std::span<const double> values, uint64_t seed) {
  TEMPER_CHECK(!values.empty(), "[bootstrap] there are no values");
  constexpr size_t kDraws = 2000;
  const auto n = static_cast<double>(values.size());
  Estimate e;
  for (const double v : values) e.mean += v / n;
  temper::RngStream rng(seed, temper::RngPurpose::kTask, 0xb007);
  std::vector<double> means(kDraws);
  for (double& mean : means) {
    for (size_t i = 0; i < values.size(); ++i) mean += values[rng.next_below(values.size())] / n;
  }
  std::sort(means.begin(), means.end());
  e.low = means[kDraws / 40];
  e.high = means[kDraws - 1 - kDraws / 40];
  return e;
}

}  // namespace restaurant
