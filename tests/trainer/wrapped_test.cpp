// Rows packed side by side, and rows wrapped into texts of one length: what may change and what not.
#include <gtest/gtest.h>

#include "temper/nn/scoring.h"
#include "temper/trainer/offline.h"
#include "tiny_model.h"

namespace temper::testing_trainer {
namespace {

using Ids = std::vector<int32_t>;

/// Conversations' worth of tokens: prompts and answers of several lengths, some of it masked.
std::vector<AnswerGroup> some_rows() {
  std::vector<AnswerGroup> out;
  RngStream rng(8, RngPurpose::kTest, 0);
  const auto draw = [&](uint64_t n) {
    Ids ids(n);
    for (int32_t& id : ids) id = 3 + static_cast<int32_t>(rng.next_below(90));
    return ids;
  };
  for (uint64_t i = 0; i < 9; ++i) {
    AnswerGroup g{.prompt = draw(i % 4), .answers = {{draw(2 + i % 5), {}}}, .line = i + 1};
    if (i % 3 == 1) g.answers[0].mask.assign(g.answers[0].ids.size(), 1), g.answers[0].mask[1] = 0;
    out.push_back(g);
  }
  return out;
}

std::vector<float> logprobs(CausalLM& lm, const std::vector<const AnswerGroup*>& rows) {
  const AnswerTokens t = pack_answers(rows);
  const at::Tensor scores = score(lm, t.tokens, {t.rows, t.targets}, 1.0).logprobs;
  return {scores.const_data_ptr<float>(), scores.const_data_ptr<float>() + scores.numel()};
}

OfflineTrainer::Parts sft_parts(std::vector<AnswerGroup> groups) {
  const OfflineLoss loss("sft");
  OfflineTrainer::Parts p;
  p.config.rows_per_step = std::ssize(groups);
  p.config.shuffle = false;
  p.objective = loss.build();
  p.needs = loss.needs();
  p.schedule = {.shape = "constant", .learning_rate = 1e-2};
  p.data.groups = std::move(groups);
  return p;
}

struct Step {
  double loss = 0;
  std::vector<std::vector<float>> weights;
};
Step one_step(std::vector<AnswerGroup> groups, int64_t micro_batch_tokens = 2048) {
  PolicyModel policy = tiny_policy();
  OfflineTrainer::Parts parts = sft_parts(std::move(groups));
  parts.config.micro_batch_tokens = micro_batch_tokens;
  OfflineTrainer trainer(policy, std::move(parts));
  const double loss = trainer.step().at("loss");
  return {loss, weights_of(policy)};
}

TEST(Packing, RowsSideBySideHaveTheBitsOfEachAlone) {
  const PolicyModel policy = tiny_policy();
  const std::vector<AnswerGroup> rows = some_rows();
  std::vector<const AnswerGroup*> all;
  std::vector<float> alone;
  double nll = 0, tokens = 0;
  for (const AnswerGroup& g : rows) {
    all.push_back(&g);
    const auto own = logprobs(policy.lm(), {&g});
    alone.insert(alone.end(), own.begin(), own.end());
    const size_t first = g.prompt.empty() ? 1 : 0;
    for (size_t t = 0; t < own.size(); ++t) {
      if (!g.answers[0].mask.empty() && g.answers[0].mask[first + t] == 0) continue;
      nll -= double{own[t]};
      tokens += 1;
    }
  }
  EXPECT_EQ(logprobs(policy.lm(), all), alone);
  // The loss of a step over the pack is the mean over the counted tokens of all rows.
  const Step packed = one_step(rows), single = one_step(rows, 1);
  EXPECT_NEAR(packed.loss, nll / tokens, 1e-6);
  EXPECT_NEAR(single.loss, packed.loss, 1e-7);
  EXPECT_LT(largest_difference(packed.weights, single.weights), 1e-6);
}

TEST(Packing, AWrappedTextIsOneText) {
  const PolicyModel policy = tiny_policy();
  const std::vector<AnswerGroup> texts = wrap_answers(some_rows(), 11);
  ASSERT_GE(texts.size(), 3u);
  double nll = 0, tokens = 0;
  for (const AnswerGroup& text : texts) {
    const Ids& ids = text.answers[0].ids;
    for (size_t t = 1; t < ids.size(); ++t) {
      if (text.answers[0].mask[t] == 0) continue;
      // By a forward of its own over all that stands before the token, boundaries or not.
      const AnswerGroup before{.prompt = {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(t)},
                               .answers = {{{ids[t]}, {}}}};
      nll -= double{logprobs(policy.lm(), {&before})[0]};
      tokens += 1;
    }
  }
  EXPECT_NEAR(one_step(texts).loss, nll / tokens, 1e-6);
}

TEST(Packing, RowsThatFillTheirTextsAreTrainedOnAsBefore) {
  std::vector<AnswerGroup> rows = some_rows();
  for (AnswerGroup& g : rows) {
    g.prompt.clear();
    g.answers[0].mask.clear();
    g.answers[0].ids.resize(6, 5);
  }
  const Step apart = one_step(rows), wrapped = one_step(wrap_answers(rows, 6));
  EXPECT_EQ(apart.loss, wrapped.loss);
  EXPECT_EQ(apart.weights, wrapped.weights);
  // Two to a text: the second's first token is predicted now, by the first one's last.
  EXPECT_NE(one_step(wrap_answers(rows, 12)).loss, apart.loss);
}

}  // namespace
}  // namespace temper::testing_trainer
