#include "temper/trainer/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"
#include "temper/core/file.h"

namespace temper {
namespace {

ScheduleConfig config(const char* shape, int64_t warmup = 0) {
  ScheduleConfig c;
  c.shape = shape;
  c.learning_rate = 2.0;
  c.warmup_steps = warmup;
  c.min_lr_rate = 0.25;
  return c;
}

// Worked from the formulas, peak 2, 10 steps.
TEST(Schedule, HandValuesWithoutWarmup) {
  EXPECT_DOUBLE_EQ(learning_rate(config("constant"), 9, 10), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(config("linear"), 0, 10), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(config("linear"), 9, 10), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(config("linear"), 10, 10), 0.0);
  EXPECT_DOUBLE_EQ(learning_rate(config("cosine"), 0, 10), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(config("cosine"), 5, 10), 1.0);
  EXPECT_NEAR(learning_rate(config("cosine"), 10, 10), 0.0, 1e-15);
  // A third of the way: cos(pi/3) = 1/2, so 3/4 of the way down to the lowest rate of 1/4.
  EXPECT_NEAR(learning_rate(config("cosine_with_min_lr"), 3, 9), 2.0 * (0.75 * 0.75 + 0.25), 1e-12);
  EXPECT_NEAR(learning_rate(config("cosine_with_min_lr"), 9, 9), 0.5, 1e-12);
}

// Warm-up of 4 of 12: step k of 4 of the peak, then the fall over the 8 that are left.
TEST(Schedule, HandValuesWithWarmup) {
  for (const char* shape : {"constant", "linear", "cosine", "cosine_with_min_lr"}) {
    EXPECT_EQ(learning_rate(config(shape, 4), 0, 12), 0.0) << shape;
    EXPECT_DOUBLE_EQ(learning_rate(config(shape, 4), 3, 12), 1.5) << shape;
    EXPECT_DOUBLE_EQ(learning_rate(config(shape, 4), 4, 12), 2.0) << shape;
  }
  EXPECT_DOUBLE_EQ(learning_rate(config("linear", 4), 6, 12), 1.5);
  EXPECT_DOUBLE_EQ(learning_rate(config("cosine", 4), 8, 12), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(config("cosine_with_min_lr", 4), 8, 12), 2.0 * 0.625);
}

// Golden vectors from transformers (tests/golden/make_optim.py), two steps beyond the end included.
TEST(Schedule, AgreesWithTransformers) {
  const auto manifest = nlohmann::json::parse(read_text_file(
      std::filesystem::path(TEMPER_SOURCE_DIR) / "tests/golden/optim/manifest.json"));
  size_t compared = 0;
  for (const auto& entry : manifest.at("schedules")) {
    ScheduleConfig c;
    c.shape = entry.at("shape").get<std::string>();
    c.learning_rate = entry.at("learning_rate").get<double>();
    c.min_lr_rate = entry.at("min_lr_rate").get<double>();
    c.warmup_steps = entry.at("warmup_steps").get<int64_t>();
    int64_t step = 0;
    for (const auto& value : entry.at("values")) {
      EXPECT_NEAR(learning_rate(c, step, entry.at("total_steps").get<int64_t>()),
                  value.get<double>(), 1e-18)
          << c.shape << " warm-up " << c.warmup_steps << " step " << step;
      ++step;
      ++compared;
    }
  }
  EXPECT_GE(compared, 200u);
}

TEST(Schedule, EdgesDoNotDivideByZeroNorGoBelowZero) {
  EXPECT_EQ(learning_rate(config("linear"), 0, 0), 0.0);
  EXPECT_EQ(learning_rate(config("linear"), 25, 10), 0.0);
  EXPECT_EQ(learning_rate(config("linear", 10), 10, 10), 0.0);
  EXPECT_DOUBLE_EQ(learning_rate(config("linear", 20), 5, 10), 0.5);
}

TEST(Schedule, ErrorsNameWhatIsWrong) {
  const auto message = [](const ScheduleConfig& c, int64_t step) -> std::string {
    try {
      (void)learning_rate(c, step, 10);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message(config("cosin"), 0).find("did you mean \"cosine\""), std::string::npos);
  EXPECT_NE(message(config("linear"), -1).find("step -1"), std::string::npos);
  EXPECT_NE(message(config("linear", -2), 0).find("warmup_steps"), std::string::npos);
  ScheduleConfig nan = config("linear");
  nan.learning_rate = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(message(nan, 0).find("learning_rate"), std::string::npos);
  ScheduleConfig high = config("linear");
  high.min_lr_rate = 1.5;
  EXPECT_NE(message(high, 0).find("min_lr_rate"), std::string::npos);
}

}  // namespace
}  // namespace temper
