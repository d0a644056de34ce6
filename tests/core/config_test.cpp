#include "temper/core/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "error_of.h"
#include "temper/core/error.h"

namespace temper {
namespace {

struct Inner {
  double clip_range = 0.2;
  std::string loss = "dapo";
  template <class V>
  void visit(V&& v) {
    v(clip_range, "clip_range", "Clip range.");
    v(loss, "loss", "Loss.", {"dapo", "grpo"});
  }
};

struct Outer {
  int64_t steps = 10;
  bool resume = false;
  std::vector<double> weights;
  Inner grpo;
  template <class V>
  void visit(V&& v) {
    v(steps, "steps", "Steps.");
    v(resume, "resume", "Resume.");
    v(weights, "weights", "Weights.");
    v(grpo, "grpo");
  }
};

TEST(Config, RoundTripsThroughJson) {
  Outer a;
  a.steps = 7;
  a.weights = {0.5, 2};
  a.grpo.loss = "grpo";
  const auto json = config_to_json(config_fields(a));
  EXPECT_EQ(
      json.dump(),
      R"({"steps":7,"resume":false,"weights":[0.5,2.0],"grpo":{"clip_range":0.2,"loss":"grpo"}})");
  Outer b;
  config_from_json(config_fields(b), json, "test");
  EXPECT_EQ(config_to_json(config_fields(b)), json);
}

TEST(Config, UnknownKeysNameTheNearest) {
  Outer a;
  const auto json = nlohmann::ordered_json::parse(R"({"grpo":{"clip_rang":0.1}})");
  EXPECT_EQ(error_of([&] { config_from_json(config_fields(a), json, "f.json"); }),
            "f.json: unknown key \"grpo.clip_rang\"; did you mean \"grpo.clip_range\"?");
  EXPECT_EQ(error_of([&] { config_set(config_fields(a), "clip_range=1"); }),
            "--set: unknown key \"clip_range\"; did you mean \"grpo.clip_range\"?");
}

TEST(Config, WrongTypesAndChoicesAreNamed) {
  Outer a;
  EXPECT_EQ(error_of([&] { config_set(config_fields(a), "steps=1.5"); }),
            "--set: steps expects a whole number, got 1.5");
  EXPECT_EQ(error_of([&] { config_set(config_fields(a), "grpo.loss=ppo"); }),
            "--set: grpo.loss must be one of {dapo, grpo}, got \"ppo\"");
  EXPECT_EQ(error_of([&] { config_set(config_fields(a), "steps"); }),
            "--set expects key=value, got \"steps\"");
}

TEST(Config, SetParsesEachType) {
  Outer a;
  config_set(config_fields(a), "steps=12");
  config_set(config_fields(a), "resume=true");
  config_set(config_fields(a), "weights=1,0.5");
  config_set(config_fields(a), "grpo.clip_range=1e-3");
  EXPECT_EQ(a.steps, 12);
  EXPECT_TRUE(a.resume);
  EXPECT_EQ(a.weights, (std::vector<double>{1, 0.5}));
  EXPECT_EQ(a.grpo.clip_range, 1e-3);
}

}  // namespace
}  // namespace temper
