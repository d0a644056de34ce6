// Losses over given answers against TRL; see tests/golden/make_preference.py.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "answer_case.h"
#include "temper/core/file.h"
#include "temper/objective/answer_sums.h"

namespace temper {
namespace {

using nlohmann::ordered_json;

std::string folder() { return TEMPER_SOURCE_DIR "/tests/golden/preference/"; }

const ordered_json& manifest() {
  static const ordered_json json = ordered_json::parse(read_text_file(folder() + "manifest.json"));
  return json;
}

std::vector<int64_t> integers(const TensorView& view) {
  std::vector<int64_t> out(static_cast<size_t>(view.numel()));
  std::memcpy(out.data(), view.data.data(), view.data.size());
  return out;
}

/// The rows of the padded inputs. `mask` names the mask that the case's peer saw.
std::vector<AnswerRow> golden_rows(const char* mask) {
  const auto file = SafetensorsFile::open(folder() + "data.safetensors");
  const auto read = [&](const char* name) { return doubles(file.at(name)); };
  const Numbers lp = read("lp"), ref = read("ref"), q2 = read("q2"), m = read(mask);
  const Numbers prompt = read("prompt"), label = read("label");
  const auto length = integers(file.at("length"));
  const auto prompt_length = integers(file.at("prompt_length"));
  const int64_t width = file.at("lp").shape.at(1), prompt_width = file.at("prompt").shape.at(1);
  std::vector<AnswerRow> rows(length.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto at = static_cast<size_t>(width) * i;
    for (size_t t = at; t < at + static_cast<size_t>(length[i]); ++t) {
      rows[i].lp.push_back(lp[t]);
      rows[i].ref.push_back(ref[t]);
      rows[i].sharp.push_back(2 * lp[t] - q2[t]);
      rows[i].mask.push_back(m[t]);
    }
    const auto begin = prompt.begin() + static_cast<int64_t>(i) * prompt_width;
    rows[i].prompt.assign(begin, begin + prompt_length[i]);
    rows[i].label = label[i];
  }
  return rows;
}

AnswerStep step_of(const ordered_json& c) {
  const std::string method = c["method"];
  AnswerStep step;
  step.rows = golden_rows(method == "cpo" || method == "orpo" ? "some" : "mask");
  if (c.contains("rows")) {
    std::vector<AnswerRow> kept;
    for (const size_t i : c["rows"].get<std::vector<size_t>>()) kept.push_back(step.rows[i]);
    step.rows = kept;
  }
  if (method != "orpo") {
    for (AnswerRow& r : step.rows) r.prompt.clear();
  }
  if (c.contains("baseline")) step.baseline = c["baseline"];
  if (method == "xpo") {
    for (size_t i = 0; i < step.rows.size(); ++i) {
      step.rows[i].label = c["policy_chosen"][i / 2].get<bool>() == (i % 2 == 0) ? 1 : 0;
    }
  }
  if (method == "nash_md") {
    const auto file = SafetensorsFile::open(folder() + "data.safetensors");
    const Numbers p = doubles(file.at("probability"));
    for (size_t i = 0; i < p.size(); ++i) step.rows[i].label = p[i];
  }
  return step;
}

OfflineLoss loss_of(const ordered_json& c) {
  OfflineLoss loss = answer_loss(c["method"]);
  ordered_json settings;
  for (const ConfigField& field : config_fields(loss)) {
    if (c.contains(field.name) && field.name != "name") settings[field.name] = c[field.name];
  }
  if (!settings.is_null()) config_from_json(config_fields(loss), settings, "golden");
  return loss;
}

/// The gradients of the rows' tokens in a padded rectangle.
Numbers flat(const Numbers& padded, const AnswerStep& step) {
  const size_t width = padded.size() / step.rows.size();
  Numbers out;
  for (size_t i = 0; i < step.rows.size(); ++i) {
    const auto begin = padded.begin() + static_cast<int64_t>(width * i);
    out.insert(out.end(), begin, begin + std::ssize(step.rows[i].lp));
  }
  return out;
}

struct Tolerance {
  double loss, gradient;
};

void run_case(const ordered_json& c, at::ScalarType dtype, Tolerance tolerance) {
  // TRL went through float32 itself: no case can be closer than that.
  if (c.contains("dtype")) tolerance = {2e-6, 1e-5};
  const std::string method = c["method"], name = c["name"];
  SCOPED_TRACE(concat(method, "/", name, " ", c.dump().substr(0, 200)));
  const AnswerStep step = step_of(c);
  AnswerRun run = run_answers(loss_of(c).build(), step.batch(dtype));
  expect_near(run.loss, c["value"], tolerance.loss, "loss");
  const auto file = SafetensorsFile::open(folder() + method + ".safetensors");
  expect_near(run.dlp, flat(doubles(file.at(name)), step), tolerance.gradient, "dlp");
  add_unpaired_margin(run.metrics);
  for (const auto& [metric, value] : c["metrics"].items()) {
    if (metric == "kl" && method != "kto") continue;
    ASSERT_TRUE(run.metrics.contains(metric)) << metric;
    expect_near(run.metrics.at(metric), value, std::max(tolerance.loss, 1e-9), metric);
  }
  if (method != "orpo") return;
  const auto prompts = SafetensorsFile::open(folder() + "orpo_prompt.safetensors");
  const Numbers padded = doubles(prompts.at(name));
  const size_t width = padded.size() / step.rows.size();
  Numbers want;
  for (size_t i = 0; i < step.rows.size(); i += 2) {
    const auto begin = padded.begin() + static_cast<int64_t>(width * i);
    want.insert(want.end(), begin, begin + std::ssize(step.rows[i].prompt));
  }
  expect_near(run.dprompt, want, tolerance.gradient, "dprompt");
}

TEST(GoldenPreference, Float64) {
  for (const ordered_json& c : manifest()["cases"]) run_case(c, at::kDouble, {1e-10, 1e-9});
}

TEST(GoldenPreference, Float32) {
  for (const ordered_json& c : manifest()["cases"]) run_case(c, at::kFloat, {2e-6, 1e-5});
}

TEST(GoldenPreference, CoversEveryMethodAndLoss) {
  std::map<std::string, int> methods, losses;
  for (const ordered_json& c : manifest()["cases"]) {
    ++methods[c["method"]];
    if (c["method"] != "dpo") continue;
    for (const std::string name : c["loss_type"]) ++losses[name];
  }
  for (const OfflineObjectiveEntry& entry : offline_objectives()) {
    if (entry.name == "simpo") continue;  // A value of cpo; see Simpo.IsAValueOfCpo.
    EXPECT_GE(methods[entry.name], 2) << entry.name;
  }
  EXPECT_GE(methods["xpo"], 4);
  EXPECT_GE(methods["nash_md"], 3);
  EXPECT_EQ(losses.size(), 15u) << "every loss of the peer, which has no cdpo";
  for (const auto& [name, count] : losses) EXPECT_GE(count, 3) << name;
}

}  // namespace
}  // namespace temper
