// The bill against hand-worked shapes and against what the library really allocates.
#include "temper/trainer/plan.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "temper/nn/kv_store.h"
#include "temper/trainer/run_config.h"
#include "tiny_model.h"
#include "trainer/plan_memory.h"

namespace temper {
namespace {

using namespace testing_trainer;

constexpr WeightDType kDTypes[] = {WeightDType::kFloat32, WeightDType::kBfloat16,
                                   WeightDType::kBfloat16Dot, WeightDType::kFloat16};

/// SmolLM2-135M.
ModelConfig small_config() {
  ModelConfig c;
  c.family = "llama";
  c.hidden_size = 576;
  c.intermediate_size = 1536;
  c.layers = 30;
  c.heads = 9;
  c.kv_heads = 3;
  c.head_dim = 64;
  c.vocab_size = 49152;
  c.max_positions = 8192;
  c.tied = true;
  return c;
}

PlanInput small_input(bool reference = true) {
  PlanInput in;
  in.policy = small_config();
  in.dtype = WeightDType::kBfloat16Dot;
  if (reference) in.reference = ReferencePlacement::kCopy;
  return in;
}

TEST(Plan, WeightsByHand) {
  const Plan p = make_plan(small_input());
  // 49152 x 576, and 30 layers of 960 x 576, 576 x 576, 3072 x 576, 576 x 1536 and two norms of
  // 576, and one norm.
  const int64_t matrices = 49152 * 576 + 30 * (960 * 576 + 576 * 576 + 3072 * 576 + 576 * 1536);
  const int64_t norms = (2 * 30 + 1) * 576;
  EXPECT_EQ(matrices + norms, 134515008);  // The model's published count.
  EXPECT_EQ(p.parameters, matrices + norms);
  EXPECT_EQ(p.bytes("policy", "float32 weights"), 4u * 134515008);
  EXPECT_EQ(p.bytes("policy", "16-bit weights"), 2u * static_cast<uint64_t>(matrices));
  EXPECT_EQ(p.bytes("policy", "gradients"), 4u * 134515008);
  EXPECT_EQ(p.bytes("policy", "optimizer"), 8u * 134515008);
  EXPECT_EQ(p.bytes("reference", "weights"),
            2u * static_cast<uint64_t>(matrices) + 4u * static_cast<uint64_t>(norms));
}

TEST(Plan, FrozenInt8IsThatOfTheModel) {
  const auto lm = std::make_unique<CausalLM>(open_model(tiny_model().string()), WeightDType::kInt8,
                                             Trainable::kNo);
  const auto b = planning::weight_bytes(planning::weights_of(lm->config(), true),
                                        WeightDType::kInt8, Trainable::kNo);
  EXPECT_EQ(b.masters + b.copies, lm->weight_bytes());
  EXPECT_EQ(b.gradients + b.moments, 0u);
}

TEST(Plan, OperationsByHand) {
  PlanInput in = small_input();
  in.batch = {.prompts = 2, .group_size = 3, .prompt_tokens = 10, .mean_prompt_tokens = 10,
              .mean_completion_tokens = 5};
  const Plan p = make_plan(in);
  ASSERT_EQ(p.phases.size(), 3u);
  const double trunk = 30.0 * (960 * 576 + 576 * 576 + 3072 * 576 + 576 * 1536);
  const double head = 49152.0 * 576;
  const double rows = 2 * 10 + 6 * 4, drawn = 6 * 5;  // A last token is never fed.
  EXPECT_DOUBLE_EQ(p.phases[0].trunk, 2 * trunk * rows);
  EXPECT_DOUBLE_EQ(p.phases[0].head, 2 * head * drawn);
  EXPECT_DOUBLE_EQ(p.phases[1].trunk, 2 * trunk * rows);
  EXPECT_DOUBLE_EQ(p.phases[2].trunk, 6 * trunk * rows);
  EXPECT_DOUBLE_EQ(p.phases[2].head, 6 * head * drawn);
  // Pairs of a query and a key: 1 + ... + 10 a prompt; 11 + 12 + 13 + 14 a completion.
  EXPECT_DOUBLE_EQ(p.phases[0].attention, 4.0 * 30 * 576 * (2 * 55 + 6 * 50));
  // A second pass has no recorded scores: 2 + 2 + 4 for the head.
  in.batch.iterations = 2;
  EXPECT_DOUBLE_EQ(make_plan(in).phases[2].head, 14 * head * drawn);
  in.batch.gradient_checkpointing = true;
  EXPECT_DOUBLE_EQ(make_plan(in).phases[2].trunk, 2 * 8 * trunk * rows);
}

TEST(Plan, WeightsAreThoseOfTheModel) {
  for (const WeightDType dtype : kDTypes) {
    const PolicyModel policy = tiny_policy(dtype);
    PlanInput in;
    in.policy = policy.lm().config();
    in.dtype = dtype;
    in.reference = ReferencePlacement::kCopy;
    const Plan p = make_plan(in);
    const Optimizer optimizer(policy.lm().parameter_list(), {});
    EXPECT_EQ(p.bytes("policy", "float32 weights") + p.bytes("policy", "16-bit weights") +
                  p.bytes("policy", "gradients"),
              policy.lm().weight_bytes())
        << weight_dtype_name(dtype);
    EXPECT_EQ(p.bytes("policy", "optimizer"), optimizer.bytes());
    EXPECT_EQ(p.bytes("reference", "weights"), ReferenceModel::copy_of(policy).bytes());
  }
}

/// Bytes of all buffers of a tape; each is rounded up to 64 bytes by the allocator.
uint64_t tape_bytes(const ForwardTape& tape) {
  uint64_t sum = 0;
  const auto add = [&](const FloatBuffer& b) { sum += (b.size() * 4 + 63) / 64 * 64; };
  for (const LayerTape& t : tape.layers) {
    for (const auto* b : {&t.x, &t.rstd_in, &t.q_raw, &t.k_raw, &t.rstd_q, &t.rstd_k, &t.qkv,
                          &t.attention, &t.lse, &t.x_mid, &t.rstd_mid, &t.gate_up}) {
      add(*b);
    }
  }
  for (const auto* b : {&tape.last, &tape.rstd_last, &tape.hidden}) add(*b);
  return sum;
}

TEST(Plan, ActivationsAreThoseOfTheTape) {
  const PolicyModel policy = tiny_policy();
  for (const bool checkpoint : {false, true}) {
    for (const size_t rows : {1u, 7u, 33u}) {
      TokenBatch batch;
      batch.ids.assign(rows, 5);
      batch.positions.resize(rows);
      std::iota(batch.positions.begin(), batch.positions.end(), 0);
      batch.segments = {{-1, 0, static_cast<int32_t>(rows), -1}};
      ForwardTape tape;
      tape.checkpoint = checkpoint;
      (void)policy.lm().forward_train(batch, tape);
      const auto planned = planning::activation_bytes(
          policy.lm().config(), {static_cast<int64_t>(rows), 0, 0}, checkpoint);
      EXPECT_EQ(planned.tape, tape_bytes(tape)) << rows << " rows, checkpoint " << checkpoint;
    }
  }
}

TEST(Plan, TapeWithNormsOfQueriesByHand) {
  ModelConfig c = small_config();
  const uint64_t plain = planning::activation_bytes(c, {16, 0, 0}, false).tape;
  c.qk_norm = true;
  // Raw queries and keys and their norms, 16 rows of 9 and 3 heads of 64.
  EXPECT_EQ(planning::activation_bytes(c, {16, 0, 0}, false).tape - plain,
            30u * 4 * 16 * (576 + 192 + 9 + 3));
}

TEST(Plan, RowsOfTheLargestMicroBatch) {
  PlanInput in = small_input();
  in.rollout.max_new_tokens = 10;
  in.batch = {.prompts = 6, .group_size = 4, .prompt_tokens = 20};
  // A whole group is 20 + 4 * 10 tokens; its last ones have no row. Shorter ones fill the limit.
  const auto rows = [&](int64_t limit) {
    in.batch.micro_batch_tokens = limit;
    return planning::largest_micro_batch(in);
  };
  EXPECT_EQ(rows(1000).train, 6 * 56);
  EXPECT_EQ(rows(1000).scored, 6 * 40);
  EXPECT_EQ(rows(179).train, 179);
  EXPECT_EQ(rows(179).scored, 179);
  EXPECT_EQ(rows(1).train, 20 + 9);  // One completion is always taken.
  in.batch.minibatches = 3;
  EXPECT_EQ(rows(1000).train, 2 * 56);
  in.value = ValuePlacement::kSharedTrunk;  // A value needs the row of the last token too.
  EXPECT_EQ(rows(1000).train, 2 * 60);
}

TEST(Plan, PartsAddUpAndPeakIsTheLargest) {
  PlanInput in = small_input();
  in.value = ValuePlacement::kOwn;
  in.value_model = small_config();
  in.rewards = {{small_config(), WeightDType::kBfloat16Dot, false}};
  const Plan p = make_plan(in);
  uint64_t sum = 0;
  for (const PlanPart& part : p.parts) sum += part.bytes;
  EXPECT_EQ(sum, p.training);
  EXPECT_EQ(p.peak(), std::max({p.training, p.loading, p.saving}));
  double flops = 0;
  for (const PlanPhase& phase : p.phases) flops += phase.trunk + phase.head + phase.attention;
  EXPECT_DOUBLE_EQ(flops, p.operations());
}

TEST(Plan, EachChoiceMovesItsPart) {
  const PlanInput in = small_input();
  const Plan p = make_plan(in);
  PlanInput other = in;
  other.batch.gradient_checkpointing = true;
  EXPECT_LT(make_plan(other).bytes("policy", "activations"), p.bytes("policy", "activations") / 5);
  EXPECT_LT(make_plan(other).peak(), p.peak());
  other = in;
  other.reference = ReferencePlacement::kNone;
  EXPECT_EQ(make_plan(other).bytes("reference"), 0u);
  // A frozen model in 16 bits is half of one in 32, but for its norms.
  other = in;
  other.dtype = WeightDType::kFloat32;
  EXPECT_NEAR(static_cast<double>(make_plan(other).bytes("reference", "weights")) /
                  static_cast<double>(p.bytes("reference", "weights")),
              2.0, 0.001);
  other = in;
  other.value = ValuePlacement::kOwn;
  other.value_model = in.policy;
  const Plan own = make_plan(other);
  other.value = ValuePlacement::kSharedTrunk;
  const Plan shared = make_plan(other);
  EXPECT_EQ(shared.bytes("value", "float32 weights"), 4u * 577);
  EXPECT_EQ(own.bytes("value", "optimizer"), p.bytes("policy", "optimizer") + 8u * 577);
  // A forward before the update; a model of its own is also trained, at three forwards' worth.
  EXPECT_DOUBLE_EQ(own.phases[2].trunk, 4 * shared.phases[2].trunk);
  other = in;
  other.rewards = {{in.policy, WeightDType::kBfloat16Dot, false}};
  const uint64_t apart = make_plan(other).bytes("reward");
  other.rewards[0].shares_backbone = true;
  EXPECT_LT(make_plan(other).bytes("reward"), apart / 1000);
  const size_t phases = make_plan(other).phases.size();
  other.rewards.push_back(other.rewards[0]);
  EXPECT_EQ(make_plan(other).phases.size(), phases) << "heads share a forward";
  other = in;
  other.reference_dtype = WeightDType::kInt8;
  EXPECT_LT(make_plan(other).bytes("reference", "weights"), p.bytes("reference", "weights") * 6 / 10);
}

TEST(Plan, AValueModelsGradientsLieInThePolicys) {
  PlanInput in = small_input();
  in.value = ValuePlacement::kOwn;
  in.value_model = in.policy;
  EXPECT_EQ(make_plan(in).bytes("value", "gradients"), 4u * 577) << "its head's alone";
  in.value_model.layers = 12;
  EXPECT_EQ(make_plan(in).bytes("value", "gradients"), 4u * 577);
  in.value_model.layers = 31;  // What has no match: the layer that the policy lacks.
  uint64_t layer = 0;
  for (const auto& w : planning::weights_of(in.policy, false)) {
    if (w.copies >= 30) layer += static_cast<uint64_t>(w.elements()) * (w.copies >= 60 ? 2 : 1) * 4;
  }
  EXPECT_EQ(make_plan(in).bytes("value", "gradients"), 4u * 577 + layer);
}

TEST(Plan, Bfloat16MomentsAreHalf) {
  PlanInput in = small_input();
  in.value = ValuePlacement::kOwn;
  in.value_model = in.policy;
  const Plan full = make_plan(in);
  in.moment_bytes = 2;
  const Plan half = make_plan(in);
  for (const char* owner : {"policy", "value"}) {
    EXPECT_EQ(2 * half.bytes(owner, "optimizer"), full.bytes(owner, "optimizer"));
  }
  EXPECT_LT(half.phases.back().read_bytes, full.phases.back().read_bytes);
}

TEST(Plan, KeysAndValuesAreThoseOfTheEngine) {
  PlanInput in = small_input();
  in.rollout.max_new_tokens = 33;  // Two pages.
  in.rollout.max_sequences = 16;
  in.batch = {.prompts = 4, .group_size = 8, .prompt_tokens = 65};
  const auto page = static_cast<uint64_t>(KvStore::page_bytes(30, 192));
  EXPECT_EQ(make_plan(in).bytes("rollout"), (16 * 2 + 4 * 3) * page);
  in.batch.held_out_prompts = 100;  // One completion each, 16 at a time.
  EXPECT_EQ(make_plan(in).bytes("rollout"), (16 * 2 + 16 * 3) * page);
  in.rollout.kv_memory_mb = 20;
  EXPECT_LE(make_plan(in).bytes("rollout"), 20u << 20);
  in.rollout.kv_memory_mb = 1;
  EXPECT_NE(error_of([&] { (void)make_plan(in); }).find("rollout.kv_memory_mb=1 is too small"),
            std::string::npos);
}

TEST(Plan, RowsOfTheEmbeddingAreBoundedByTokensAndIds) {
  PlanInput in = small_input();
  in.rollout.max_new_tokens = 10;
  in.batch = {.prompts = 6, .group_size = 4, .mean_prompt_tokens = 20, .minibatches = 3};
  EXPECT_EQ(make_plan(in).bytes("policy", "embedding rows"), 2u * (20 + 4 * 10) * 576 * 4);
  in.batch.prompts = 100000;
  EXPECT_EQ(make_plan(in).bytes("policy", "embedding rows"), 49152u * 576 * 4);
}

TEST(Plan, ChangesAreReplannedAndSorted) {
  const PlanInput in = small_input();
  const uint64_t peak = make_plan(in).peak();
  const auto changes = plan_changes(in);
  ASSERT_GE(changes.size(), 4u);
  std::vector<std::string> settings;
  for (size_t i = 0; i < changes.size(); ++i) {
    EXPECT_EQ(peak - make_plan(changes[i].input).peak(), changes[i].saved) << changes[i].setting;
    EXPECT_GT(changes[i].saved, 0u);
    if (i > 0) {
      EXPECT_LE(changes[i].saved, changes[i - 1].saved);
    }
    settings.push_back(changes[i].setting);
  }
  for (const char* wanted : {"grpo.gradient_checkpointing=true", "grpo.loss.kl_coef=0"}) {
    EXPECT_NE(std::find(settings.begin(), settings.end(), wanted), settings.end()) << wanted;
  }
  // With both of these the run fits that lacks a little more than either saves.
  const auto fit = changes_that_fit(in, peak - changes[0].saved - 1);
  ASSERT_TRUE(fit);
  EXPECT_GE(fit->size(), 2u);
  EXPECT_TRUE(changes_that_fit(in, peak)->empty());
  EXPECT_FALSE(changes_that_fit(in, uint64_t{1} << 30));
}

TEST(Plan, ReadsARunConfig) {
  const auto input = [](const std::vector<std::string>& assignments) {
    return plan_input(read_grpo_config("", "", assignments),
                      {.policy = small_config(), .prompt_tokens = {10, 30, 20}, .held_out = 500});
  };
  const PlanInput in = input({"trainer.weights=bfloat16", "grpo.micro_batch_tokens=77"});
  EXPECT_EQ(in.dtype, WeightDType::kBfloat16);
  EXPECT_EQ(in.batch.micro_batch_tokens, 77);
  EXPECT_EQ(in.batch.prompt_tokens, 30);
  EXPECT_EQ(in.batch.mean_prompt_tokens, 20);
  EXPECT_EQ(in.batch.held_out_prompts, 200);
  EXPECT_EQ(in.reference, ReferencePlacement::kNone);
  EXPECT_EQ(input({"grpo.loss.kl_coef=0.05"}).reference, ReferencePlacement::kCopy);
  EXPECT_EQ(in.reference_dtype, std::nullopt);
  EXPECT_EQ(input({"trainer.reference_weights=int8"}).reference_dtype, WeightDType::kInt8);
  EXPECT_EQ(input({"grpo.loss.kl_coef=0.05", "trainer.reference_file=/some/file"}).reference,
            ReferencePlacement::kMapped);
  EXPECT_EQ(in.moment_bytes, 4);
  EXPECT_EQ(input({"optimizer.moments=bfloat16"}).moment_bytes, 2);
  EXPECT_EQ(input({"eval.every=-1"}).batch.held_out_prompts, 0);
  EXPECT_EQ(input({"eval.prompts=0"}).batch.held_out_prompts, 500);
}

TEST(Plan, ReadsAConfigOfPpo) {
  PlanSources sources{.policy = small_config(), .prompt_tokens = {10}};
  const auto input = [&](const std::vector<std::string>& assignments) {
    return plan_input(read_ppo_config("", "", assignments), sources);
  };
  const PlanInput in = input({});
  EXPECT_EQ(in.value, ValuePlacement::kOwn);
  EXPECT_EQ(in.value_model.layers, 30);
  EXPECT_EQ(in.reference, ReferencePlacement::kCopy);
  EXPECT_EQ(in.batch.iterations, 4);
  EXPECT_EQ(input({"ppo.kl.reward_coef=0"}).reference, ReferencePlacement::kNone);
  EXPECT_EQ(input({"ppo.value.model=trunk"}).value, ValuePlacement::kSharedTrunk);
  std::vector<std::string> settings;
  for (const PlanChange& c : plan_changes(in)) settings.push_back(c.setting);
  EXPECT_EQ(settings.front(), "ppo.value.model=trunk");  // A whole model with its moments.
  EXPECT_NE(std::find(settings.begin(), settings.end(), "ppo.kl.reward_coef=0"), settings.end());
  sources.rewards.push_back(small_config());
  sources.rewards[0].layers = 12;
  EXPECT_EQ(input({}).value_model.layers, 12);  // A value model begins as the reward model.
  ASSERT_EQ(input({}).rewards.size(), 1u);
  EXPECT_EQ(input({}).rewards[0].dtype, WeightDType::kBfloat16);
  EXPECT_EQ(input({}).rewards[0].batch_tokens, RewardModel::kScoreTokens);
  EXPECT_FALSE(input({}).rewards[0].shares_backbone);
  EXPECT_TRUE(input({"reward_model.share_reference=true"}).rewards[0].shares_backbone);
  sources.value = small_config();
  EXPECT_EQ(input({}).value_model.layers, 30);
}

TEST(Plan, ScalesToPublishedSizes) {
  const PlanInput in = small_input();
  std::vector<int64_t> parameters;
  for (const ScaleShape& s : scale_shapes()) {
    parameters.push_back(make_plan(scaled(in, s.config)).parameters);
  }
  // As published: 1,235,814,400; 6,738,415,616; 70,553,706,496.
  EXPECT_EQ(parameters, (std::vector<int64_t>{1235814400, 6738415616, 70553706496}));
}

TEST(Plan, SizesOfMemory) {
  EXPECT_EQ(parse_bytes("8GiB"), uint64_t{8} << 30);
  EXPECT_EQ(parse_bytes("1.5MiB"), 3u << 19);
  EXPECT_EQ(parse_bytes("8GB"), 8000000000u);
  EXPECT_EQ(parse_bytes("512"), 512u);
  for (const char* wrong : {"", "GiB", "-1GiB", "8 GiB x", "eight", "0", "1e30GiB", "nan"}) {
    EXPECT_NE(error_of([&] { (void)parse_bytes(wrong); }).find("such as 8GiB"), std::string::npos)
        << wrong;
  }
  EXPECT_EQ(bytes_text(uint64_t{3} << 30), "3.00 GiB");
  EXPECT_EQ(bytes_text(1 << 19), "0.5 MiB");
  EXPECT_GT(available_memory(), uint64_t{1} << 20);
}

TEST(Plan, SecondsAreTheSlowerOfOperationsAndReads) {
  const MachineRates rates{100, 10};
  EXPECT_DOUBLE_EQ(phase_seconds({"rollout", 300, 100, 100, 20}, rates), 5);
  EXPECT_DOUBLE_EQ(phase_seconds({"rollout", 300, 100, 100, 80}, rates), 8);
  EXPECT_DOUBLE_EQ(phase_seconds({"update", 300, 100, 100, 20}, rates), 7);
}

}  // namespace
}  // namespace temper
