#include "temper/core/metrics.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

Metrics written(const MetricSums& sums) {
  Metrics out;
  sums.write_to(out);
  return out;
}

TEST(MetricSums, MeansAreWeightedAndExtremesKept) {
  MetricSums a;
  a.add_mean("loss", 6, 3);
  a.add_mean("loss", 10, 1);
  a.add_min("low", 2);
  a.add_min("low", -1);
  a.add_max("high", 2);
  a.add_max("high", -1);
  EXPECT_EQ(written(a), (Metrics{{"loss", 4}, {"low", -1}, {"high", 2}}));
}

TEST(MetricSums, MergingEqualsAddingToOne) {
  MetricSums a, b;
  a.add_mean("loss", 6, 3);
  a.add_min("low", 2);
  a.add_max("high", 2);
  b.add_mean("loss", 10, 1);
  b.add_min("low", 3);
  b.add_max("high", 3);
  b.add_mean("other", 1, 4);
  a.merge(b);
  EXPECT_EQ(written(a), (Metrics{{"loss", 4}, {"low", 2}, {"high", 3}, {"other", 0.25}}));
}

TEST(MetricSums, AnEntryWithoutWeightIsLeftOut) {
  MetricSums a;
  a.add_mean("empty", 0, 0);
  EXPECT_EQ(written(a), Metrics{});
}

}  // namespace
}  // namespace temper
