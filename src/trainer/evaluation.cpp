#include "temper/trainer/evaluation.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"

namespace temper {

EncodedPrompt encode_prompt(const Example& example, const ModelText& text) {
  EncodedPrompt out;
  if (example.messages.empty()) {
    out.text = example.prompt;
    out.ids = text.tokenizer().encode(out.text, {.add_special_tokens = true, .allow_special = false});
  } else {
    auto messages = nlohmann::ordered_json::array();
    for (const auto& m : example.messages) {
      messages.push_back({{"role", m.role}, {"content", m.content}});
    }
    out.text = text.render(messages);
    out.ids = text.encode_rendered(out.text);
  }
  TEMPER_CHECK(!out.ids.empty(), "[encode_prompt] the prompt with id ", example.id,
               " has no tokens: it is empty; take its row out of the data");
  return out;
}

EvalResult evaluate(PolicyModel& policy, std::span<const Example> examples,
                    std::span<const NamedReward> rewards, const RolloutConfig& rollout, uint64_t seed,
                    uint32_t step) {
  EvalResult result;
  if (examples.empty()) return result;
  RolloutRequest request;
  request.seed = seed ^ 0x6576616cull;  // Draws of their own, apart from training's.
  request.step = step;
  for (const Example& e : examples) {
    EncodedPrompt p = encode_prompt(e, policy.text());
    result.prompt_texts.push_back(std::move(p.text));
    request.prompts.push_back(std::move(p.ids));
  }
  result.samples = RolloutEngine(policy.lm(), policy.text(), rollout).generate(request);
  std::vector<Completion> completions;
  double tokens = 0, truncated = 0;
  for (size_t i = 0; i < result.samples.size(); ++i) {
    const Sample& s = result.samples[i];
    tokens += static_cast<double>(s.ids.size());
    truncated += s.finish == Finish::kLength ? 1 : 0;
    completions.push_back({result.prompt_texts[i], s.text, s.ids, s.finish == Finish::kLength, &examples[i]});
  }
  const RewardScores scores = score(rewards, completions);
  const double n = static_cast<double>(completions.size());
  for (size_t k = 0; k < rewards.size(); ++k) {
    double sum = 0;
    int64_t count = 0;
    for (size_t i = 0; i < completions.size(); ++i) {
      const float v = scores.at(i, k);
      if (std::isnan(v)) continue;
      sum += double{v};
      ++count;
      if (k == 0) result.correct += v > 0.5f ? 1 : 0;
    }
    if (k == 0) result.count = count;
    if (count > 0) result.metrics["eval/" + rewards[k].name] = sum / static_cast<double>(count);
  }
  result.metrics["eval/completions/mean_length"] = tokens / n;
  result.metrics["eval/completions/clipped_ratio"] = truncated / n;
  return result;
}

}  // namespace temper
