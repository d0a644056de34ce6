// Distillation: losses against the formula over both models' logits, gradients against differences,
// bits of split steps, where answers come from, and what is refused.
#include "temper/trainer/distill.h"

#include <algorithm>
#include <cmath>

#include "distill_case.h"
#include "temper/core/threads.h"
#include "temper/ops/divergence.h"
#include "temporary_folder.h"

namespace temper::testing_trainer {
namespace {

/// Log-probs' logits [T, V] of a text in float64, by the model's forward and its unpacked head.
at::Tensor logits_of(CausalLM& lm, const std::vector<int32_t>& ids) {
  TokenBatch batch;
  batch.ids = ids;
  batch.segments = {{-1, 0, static_cast<int32_t>(ids.size()), -1}};
  for (size_t i = 0; i < ids.size(); ++i) batch.positions.push_back(static_cast<int32_t>(i));
  const at::Tensor hidden = lm.forward(batch).to(at::kDouble);
  const Parameter& head = lm.head();
  at::Tensor rows = at::empty({head.n, head.k}, at::kFloat);
  kernels::unpack_rows(head.data(), 0, head.n, head.k, rows.data_ptr<float>());
  return hidden.matmul(rows.to(at::kDouble).t());
}

/// Mean divergence of rows, each text by itself.
double divergence_of(CausalLM& student, CausalLM& teacher, const std::vector<DistillRow>& rows,
                     double beta, double temperature) {
  double sum = 0;
  int64_t tokens = 0;
  for (const DistillRow& row : rows) {
    const auto logits = [&](CausalLM& lm, std::vector<int32_t> text) {
      const auto& answer = row.student.answers[0].ids;
      const auto first = std::ssize(text) - 1;
      text.insert(text.end(), answer.begin(), answer.end());
      return logits_of(lm, text).slice(0, first, first + std::ssize(answer));
    };
    const at::Tensor d = ops::generalized_jsd(logits(student, row.student.prompt),
                                              logits(teacher, row.teacher_prompt), beta, temperature)
                             .value;
    sum += d.sum().item<double>();
    tokens += d.numel();
  }
  return sum / static_cast<double>(tokens);
}

TEST(Distill, LossIsTheFormulaOverBothModelsLogits) {
  for (const double beta : {0.0, 0.3, 1.0}) {
    PolicyModel policy = tiny_policy();
    const ReferenceModel reader = ReferenceModel::copy_of(policy);
    DistillTrainer::Parts parts = distill_parts(policy);
    parts.config.beta = beta;
    parts.config.temperature = 0.8;
    parts.config.shuffle = false;
    const std::vector<DistillRow> first(parts.data.rows.begin(), parts.data.rows.begin() + 8);
    const std::vector<DistillRow> held_out = parts.held_out;
    DistillTrainer trainer(policy, ReferenceModel::copy_of(policy), std::move(parts));
    const double before = divergence_of(policy.lm(), reader.lm(), first, beta, 0.8);
    EXPECT_GT(before, 1e-3);
    const Metrics m = trainer.step();
    EXPECT_NEAR(m.at("divergence"), before, 1e-5);
    EXPECT_EQ(m.at("loss"), m.at("divergence"));
    const auto h = trainer.evaluate();
    EXPECT_NEAR(h.metrics.at("eval/divergence"),
                divergence_of(policy.lm(), reader.lm(), held_out, beta, 0.8), 1e-5);
    EXPECT_EQ(static_cast<double>(h.agree) / static_cast<double>(h.tokens),
              h.metrics.at("eval/top1_agreement"));
  }
}

TEST(Distill, NllTermAndRowWeightsCount) {
  PolicyModel policy = tiny_policy();
  DistillTrainer::Parts parts = distill_parts(policy);
  parts.config.nll_weight = 0.25;
  parts.config.rows_per_step = 2;
  parts.config.shuffle = false;
  const auto nll = [&](const DistillRow& row) {
    std::vector<int32_t> text = row.student.prompt;
    const auto first = std::ssize(text) - 1;
    const auto& answer = row.student.answers[0].ids;
    text.insert(text.end(), answer.begin(), answer.end());
    const at::Tensor p = logits_of(policy.lm(), text).log_softmax(-1);
    double sum = 0;
    for (size_t t = 0; t < answer.size(); ++t) {
      sum -= p[first + static_cast<int64_t>(t)][answer[t]].item<double>();
    }
    return sum;
  };
  parts.data.rows[1].student.weight = 0.5;
  const DistillRow &a = parts.data.rows[0], &b = parts.data.rows[1];
  const double tokens = static_cast<double>(a.student.active(0) + b.student.active(0));
  const double want = (nll(a) + 0.5 * nll(b)) / tokens;
  DistillTrainer trainer(policy, ReferenceModel::copy_of(policy), std::move(parts));
  const Metrics m = trainer.step();
  EXPECT_NEAR(m.at("nll_loss"), want, 1e-5);
  EXPECT_NEAR(m.at("loss"), m.at("divergence") + 0.25 * want, 1e-5);
}

TEST(Distill, GradientIsTheSlopeOfTheLoss) {
  for (const double beta : {0.0, 0.5, 1.0}) {
    PolicyModel policy = tiny_policy();
    const ReferenceModel teacher = ReferenceModel::copy_of(policy);
    const std::vector<DistillRow> rows = distill_parts(policy).held_out;
    const DistillRow& row = rows[4];
    const auto batch = [&](const std::vector<int32_t>& prompt) {
      AnswerGroup group = row.student;
      group.prompt = prompt;
      const AnswerGroup* one[] = {&group};
      return pack_answers(one);
    };
    const AnswerTokens own = batch(row.student.prompt), told = batch(row.teacher_prompt);
    const DivergenceRequest request{{own.rows, own.targets},
                                    teacher_rows(teacher.lm(), told.tokens, told.rows), beta, 0.7};
    const auto m = std::ssize(own.rows);
    DivergenceTape tape;
    (void)divergence_train(policy.lm(), own.tokens, request,
                           {at::ones({m}, at::kFloat), at::full({m}, -0.2, at::kFloat)}, tape);
    policy.lm().finish_gradients();
    double square = 0;
    for (const auto& p : policy.lm().parameters()) square += p->grad.square().sum(at::kDouble).item<double>();
    const auto loss = [&](double shift) {
      for (const auto& p : policy.lm().parameters()) p->value.add_(p->grad, shift);
      const DivergenceScores s = divergence(policy.lm(), own.tokens, request);
      for (const auto& p : policy.lm().parameters()) p->value.sub_(p->grad, shift);
      return (s.divergence.sum(at::kDouble) - 0.2 * s.logprobs.sum(at::kDouble)).item<double>();
    };
    const double step = 1e-3 / std::sqrt(square);
    EXPECT_NEAR((loss(step) - loss(-step)) / (2 * step) / square, 1.0, 5e-3) << beta;
  }
}

TEST(Distill, AModelHasNothingToLearnFromItself) {
  for (const double beta : {0.0, 0.5, 1.0}) {
    PolicyModel policy = tiny_policy();
    DistillTrainer::Parts parts = distill_parts(policy, "");
    parts.config.beta = beta;
    const auto before = weights_of(policy);
    DistillTrainer trainer(policy, ReferenceModel::copy_of(policy), std::move(parts));
    const Metrics m = trainer.step();
    EXPECT_EQ(m.at("loss"), 0.0);
    EXPECT_EQ(m.at("grad_norm"), 0.0);
    EXPECT_EQ(m.at("top1_agreement"), 1.0);
    EXPECT_EQ(weights_of(policy), before);
  }
}

/// What three steps leave.
struct Left {
  std::vector<std::vector<float>> weights;
  std::vector<std::map<std::string, uint64_t>> metrics;
  bool operator==(const Left&) const = default;
};

Left three_steps(const DistillConfig& config, int threads, bool adapter) {
  PolicyModel policy = adapter ? PolicyModel::load_with_adapter(tiny_model().string(),
                                                                WeightDType::kFloat32,
                                                                AdapterRunConfig{.r = 4}.settings(), 3)
                               : tiny_policy();
  DistillTrainer::Parts parts = distill_parts(policy);
  parts.config = config;
  set_num_threads(threads);
  DistillTrainer trainer(policy,
                         adapter ? ReferenceModel::adapter_off(policy) : ReferenceModel::copy_of(policy),
                         std::move(parts));
  Left out;
  for (int i = 0; i < 3; ++i) out.metrics.push_back(lasting(trainer.step()));
  out.metrics.push_back(lasting(trainer.evaluate().metrics));
  set_num_threads(1);
  for (const Parameter* p : policy.lm().parameter_list()) {
    out.weights.emplace_back(p->data(), p->data() + p->elements());
  }
  return out;
}

TEST(Distill, StepsHaveTheSameBitsHoweverTheyAreCut) {
  for (const double lambda : {0.0, 1.0}) {
    for (const bool adapter : {false, true}) {
      DistillConfig config{.beta = 0.5, .lambda = lambda, .nll_weight = 0.1};
      const Left whole = three_steps(config, 1, adapter);
      config.micro_batch_tokens = 1;  // Each row by itself.
      EXPECT_EQ(three_steps(config, 1, adapter), whole) << lambda << adapter;
      config.micro_batch_tokens = 60;
      config.gradient_checkpointing = true;
      EXPECT_EQ(three_steps(config, 2, adapter), whole) << lambda << adapter;
    }
  }
}

TEST(Distill, AnswersComeFromTheStudentTheFileOrTheTeacher) {
  PolicyModel policy = tiny_policy();
  DistillTrainer::Parts parts = distill_parts(policy);
  parts.config.lambda = 0.5;
  DistillTrainer mixed(policy, ReferenceModel::copy_of(policy), std::move(parts));
  int own = 0;
  for (int i = 0; i < 20; ++i) {
    const Metrics m = mixed.step();
    const bool on_policy = m.at("on_policy") == 1;
    own += on_policy ? 1 : 0;
    EXPECT_EQ(m.contains("completions/mean_length"), on_policy);
    if (on_policy) {
      EXPECT_LE(m.at("completions/max_length"), 6);
    }
  }
  EXPECT_GT(own, 3);
  EXPECT_LT(own, 17);

}

TEST(Distill, TheTeacherAnswersPromptsAlone) {
  PolicyModel other = tiny_policy();
  DistillTrainer::Parts prompts = distill_parts(other);
  prompts.data = distill_rows(other, question_lines(24, false), "Be kind.");
  prompts.held_out = distill_rows(other, question_lines(5, false), "Be kind.").rows;
  prompts.total_steps = 2;  // 16 of the 24 rows.
  prompts.config.teacher_answers = "fresh";
  PolicyModel same = tiny_policy();
  DistillTrainer fresh(same, ReferenceModel::copy_of(same), prompts);
  const Metrics m = fresh.step();
  EXPECT_EQ(m.at("on_policy"), 0);
  EXPECT_GT(m.at("completions/mean_length"), 0);
  prompts.config.teacher_answers = "once";
  DistillTrainer taught(other, ReferenceModel::copy_of(other), std::move(prompts));
  EXPECT_EQ(std::ranges::count_if(taught.parts().data.rows, &DistillRow::has_answer), 16);
  for (const DistillRow& row : taught.parts().held_out) EXPECT_TRUE(row.has_answer());
  EXPECT_EQ(lasting(taught.evaluate().metrics), lasting(taught.evaluate().metrics));
  EXPECT_EQ(lasting(fresh.evaluate().metrics).size(), 5u);
  EXPECT_FALSE(taught.step().contains("completions/mean_length"));
}

TEST(Distill, WhatTheTeacherWasToldGoesIntoTheWeights) {
  for (const bool adapter : {false, true}) {
    PolicyModel policy = adapter ? PolicyModel::load_with_adapter(
                                       tiny_model().string(), WeightDType::kFloat32,
                                       AdapterRunConfig{.r = 8}.settings(), 3)
                                 : tiny_policy();
    DistillTrainer trainer(
        policy, adapter ? ReferenceModel::adapter_off(policy) : ReferenceModel::copy_of(policy),
        distill_parts(policy, "Answer in capital letters, always."));
    const double before = trainer.evaluate().metrics.at("eval/divergence");
    for (int i = 0; i < 20; ++i) (void)trainer.step();
    EXPECT_LT(trainer.evaluate().metrics.at("eval/divergence"), 0.3 * before) << adapter;
  }
}

/// The tiny model with other hidden rows, made once.
ReferenceModel wide_teacher(const TemporaryFolder& folder, int64_t vocabulary) {
  ModelSource source = tiny_source();
  source.config.hidden_size = 48;
  source.config.vocab_size = vocabulary;
  std::vector<WriteTensor> tensors = tiny_tensors();
  for (WriteTensor& t : tensors) {
    for (int64_t& n : t.shape) {
      const bool width = n == 32 && t.name.find("q_proj") == std::string::npos &&
                         t.name.find("o_proj") == std::string::npos;
      if (width) n = 48;
      if (n == kVocabulary) n = vocabulary;
    }
    if (t.name.find("q_proj") != std::string::npos) t.shape = {32, 48};
    if (t.name.find("o_proj") != std::string::npos) t.shape = {48, 32};
  }
  write_hf_folder(folder.path() / "wide", source, tensors, {});
  return ReferenceModel::load((folder.path() / "wide").string(), WeightDType::kFloat32);
}

TEST(Distill, TheTeacherMayBeOfAnotherSize) {
  const TemporaryFolder folder;
  PolicyModel policy = tiny_policy();
  DistillTrainer::Parts parts = distill_parts(policy, "");
  parts.config.beta = 0;
  DistillTrainer trainer(policy, wide_teacher(folder, kVocabulary), std::move(parts));
  EXPECT_EQ(trainer.teacher().lm().config().hidden_size, 48);
  const double before = trainer.evaluate().metrics.at("eval/divergence");
  for (int i = 0; i < 20; ++i) (void)trainer.step();
  EXPECT_LT(trainer.evaluate().metrics.at("eval/divergence"), 0.5 * before);
}

TEST(Distill, VocabulariesMustBeTheSame) {
  const TemporaryFolder folder;
  PolicyModel policy = tiny_policy();
  const std::string error = error_of([&] {
    DistillTrainer trainer(policy, wide_teacher(folder, kVocabulary + 2), distill_parts(policy, ""));
  });
  EXPECT_NE(error.find("teacher's vocabulary has 100 ids and the student's 98"), std::string::npos)
      << error;
  std::string json = tiny_tokenizer_json();
  json.replace(json.find("\"A\":"), 4, "\"\xc3\x84\":");
  const Tokenizer other = Tokenizer::from_json(json, "other");
  check_same_vocabulary(policy.text().tokenizer(), Tokenizer::from_json(tiny_tokenizer_json(), "same"));
  const std::string words = error_of([&] { check_same_vocabulary(policy.text().tokenizer(), other); });
  EXPECT_NE(words.find("\"A\" to the student"), std::string::npos) << words;
}

TEST(Distill, NotANumberNamesItsRowAndChangesNothing) {
  PolicyModel policy = tiny_policy();
  DistillTrainer::Parts parts = distill_parts(policy);
  parts.config.shuffle = false;
  DistillTrainer trainer(policy, ReferenceModel::copy_of(policy), std::move(parts));
  policy.lm().parameters().back()->data()[3] = NAN;  // The final norm's.
  const auto before = trainer.epoch();
  const std::string error = error_of([&] { (void)trainer.step(); });
  EXPECT_NE(error.find("line 1 of rows.jsonl"), std::string::npos) << error;
  EXPECT_EQ(trainer.steps_done(), 0);
  EXPECT_EQ(trainer.epoch(), before);
  for (const auto& p : policy.lm().parameters()) EXPECT_EQ(p->grad.count_nonzero().item<int64_t>(), 0);
}

TEST(Distill, SettingsAndRowsThatCannotBeUsedAreRefused) {
  PolicyModel policy = tiny_policy();
  const auto message = [&](const auto& change) {
    DistillTrainer::Parts parts = distill_parts(policy);
    change(parts);
    return error_of([&] {
      DistillTrainer trainer(policy, ReferenceModel::copy_of(policy), std::move(parts));
    });
  };
  const auto expect = [&](const char* word, const auto& change) {
    const std::string error = message(change);
    EXPECT_NE(error.find(word), std::string::npos) << word << ": " << error;
  };
  using Parts = DistillTrainer::Parts;
  expect("distill.beta", [](Parts& p) { p.config.beta = 1.1; });
  expect("distill.beta", [](Parts& p) { p.config.beta = 1e-5; });
  expect("distill.lambda", [](Parts& p) { p.config.lambda = -1; });
  expect("distill.temperature", [](Parts& p) { p.config.temperature = 0; });
  expect("distill.nll_weight", [](Parts& p) { p.config.nll_weight = NAN; });
  expect("distill.rows_per_step", [](Parts& p) { p.config.rows_per_step = 0; });
  expect("line 3 of rows.jsonl has no prompt", [](Parts& p) {
    p.config.lambda = 0.5;
    p.data.rows[2].student.prompt.clear();
  });
}

}  // namespace
}  // namespace temper::testing_trainer
