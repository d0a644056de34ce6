#include "recommender.h"

#include <cstdio>
#include <utility>

#include "temper/core/error.h"
#include "temper/kernels/linear.h"
#include "temper/trainer/offline.h"

namespace restaurant {
namespace {

temper::TokenizedAnswers answers_of(const SurveyTokens& tokens,
                                    const std::vector<Preference>& preferences) {
  temper::TokenizedAnswers out;
  out.source = "the survey";
  for (const Preference& p : preferences) {
    if (tokens.cards[p.better] == tokens.cards[p.worse]) continue;  // Namesakes alike in all else.
    out.groups.push_back({.prompt = tokens.prompts[p.guest],
                          .answers = {{tokens.cards[p.better], {}}, {tokens.cards[p.worse], {}}},
                          .line = out.groups.size() + 1});
  }
  return out;
}

/// All are exact; which bits they give differs.
temper::WeightDType fastest_weights() {
  return temper::kernels::has_dot_instruction() ? temper::WeightDType::kBfloat16Dot
                                                : temper::WeightDType::kBfloat16;
}

}  // namespace

SurveyTokens tokenize(const Survey& survey, const temper::ModelText& text) {
  const auto end = text.eos_id();
  TEMPER_CHECK(end.has_value(), "the model has no token that ends a text");
  SurveyTokens out;
  for (const Guest& g : survey.guests) {
    out.prompts.push_back(text.tokenizer().encode(prompt_of(g), {.add_special_tokens = true}));
  }
  for (const Place& p : survey.places) {
    out.cards.push_back(text.tokenizer().encode(card_of(p)));
    out.cards.back().push_back(*end);
  }
  return out;
}

temper::PolicyModel train_adapter(const std::string& model, const SurveyTokens& tokens,
                                  const std::vector<Preference>& preferences,
                                  const TrainConfig& config) {
  temper::AdapterConfig adapter;
  adapter.r = config.rank;
  adapter.alpha = 2 * static_cast<double>(config.rank);
  auto policy = temper::PolicyModel::load_with_adapter(model, fastest_weights(), adapter, config.seed);
  const temper::OfflineLoss loss(config.method);
  temper::OfflineTrainer::Parts parts;
  parts.config.rows_per_step = config.pairs_per_step;
  parts.config.reference = "live";  // The model below the adapter: it costs no memory.
  parts.objective = loss.build();
  parts.needs = loss.needs();
  parts.schedule = {.learning_rate = config.learning_rate, .warmup_steps = config.steps / 10};
  parts.data = answers_of(tokens, preferences);
  parts.total_steps = config.steps;
  parts.seed = config.seed;
  temper::OfflineTrainer trainer(policy, std::move(parts));
  if (trainer.wants_reference()) {
    trainer.set_reference(temper::ReferenceModel::adapter_off(policy));
  }
  double loss_sum = 0, right = 0;
  const int64_t every = std::max<int64_t>(1, config.steps / 5);
  for (int64_t step = 1; step <= config.steps; ++step) {
    const temper::Metrics m = trainer.step();
    loss_sum += m.at("loss") / static_cast<double>(every);
    right += m.at("rewards/accuracies") / static_cast<double>(every);
    if (step % every != 0) continue;
    std::printf("%s, step %lld of %lld: loss %.3f, %.0f %% of pairs right\n", config.method.c_str(),
                static_cast<long long>(step), static_cast<long long>(config.steps), loss_sum,
                100 * right);
    std::fflush(stdout);
    loss_sum = right = 0;
  }
  return policy;
}

temper::PolicyModel load_adapter(const std::string& model, const std::string& folder) {
  return temper::PolicyModel::load_with_adapter(model, fastest_weights(),
                                                std::filesystem::path(folder),
                                                temper::Trainable::kNo);
}

const char* rule_name(Rule rule) {
  switch (rule) {
    case Rule::kSum: return "log-prob";
    case Rule::kMean: return "log-prob a token";
    case Rule::kLift: return "lift";
    case Rule::kMeanLift: return "lift a token";
  }
  return "";
}

TrialScores score_trials(temper::CausalLM& model, const SurveyTokens& tokens,
                         const std::vector<Trial>& trials) {
  TrialScores out;
  for (const Trial& t : trials) {
    std::vector<const std::vector<int32_t>*> cards;
    for (const size_t p : t.places) cards.push_back(&tokens.cards[p]);
    out.push_back(score_cards(model, card_tree(tokens.prompts[t.guest], cards)));
  }
  return out;
}

std::vector<double> ranked_by(Rule rule, const std::vector<CardScore>& policy,
                              const std::vector<CardScore>& base) {
  std::vector<double> out;
  for (size_t i = 0; i < policy.size(); ++i) {
    switch (rule) {
      case Rule::kSum: out.push_back(policy[i].sum); break;
      case Rule::kMean: out.push_back(policy[i].mean()); break;
      case Rule::kLift: out.push_back(policy[i].sum - base[i].sum); break;
      case Rule::kMeanLift: out.push_back(policy[i].mean() - base[i].mean()); break;
    }
  }
  return out;
}

}  // namespace restaurant
