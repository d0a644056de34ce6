// Which setting to change where memory is short, and the bill of other sizes.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "plan_bill.h"
#include "plan_memory.h"
#include "temper/core/error.h"

namespace temper {
namespace {

/// Collects inputs with one setting changed.
class Changes {
 public:
  explicit Changes(const PlanInput& in) : in_(in) {}
  PlanInput& operator()(std::string setting, std::string effect) {
    out_.push_back({std::move(setting), std::move(effect), in_, 0});
    return out_.back().input;
  }
  std::vector<PlanChange> take() { return std::move(out_); }

 private:
  const PlanInput& in_;
  std::vector<PlanChange> out_;
};

/// Of the model that is trained, whatever it learns from.
void change_weights(const PlanInput& in, Changes& change) {
  if (in.moment_bytes == 4) {
    change("optimizer.moments=bfloat16", "moments at half the bytes, rounded at random")
        .moment_bytes = 2;
  }
  if (in.dtype != WeightDType::kBfloat16Dot) {
    change("trainer.weights=bfloat16_dot", "frozen models at half the bytes, other rounding")
        .dtype = WeightDType::kBfloat16Dot;
  }
  if (in.dtype != WeightDType::kFloat32 && !in.adapter) {
    change("trainer.weights=float32", "no 16-bit copies, slower products").dtype =
        WeightDType::kFloat32;
  }
}

/// @param longest  what one forward takes at the least; @param all  what a step has.
void change_micro_batches(const PlanInput& in, int64_t longest, int64_t all, Changes& change) {
  const std::string own = in.algorithm + ".";
  if (!in.batch.gradient_checkpointing) {
    change(own + "gradient_checkpointing=true", "a third more work in the update, the same bits")
        .batch.gradient_checkpointing = true;
  }
  int64_t tokens = std::min(in.batch.micro_batch_tokens, all) / 2;
  tokens = std::max(tokens / 64 * 64, longest);
  if (tokens < in.batch.micro_batch_tokens) {
    change(concat(own, "micro_batch_tokens=", tokens), "more and smaller forwards")
        .batch.micro_batch_tokens = tokens;
  }
}

std::vector<PlanChange> changes_of_pairs(const PlanInput& in) {
  Changes change(in);
  change_micro_batches(in, in.pairs->longest, planning::pair_rows(in), change);
  // A backbone that is frozen must keep the float32 weights that will be saved.
  if (!in.pairs->freeze_backbone) change_weights(in, change);
  return change.take();
}

std::vector<PlanChange> changes_of_answers(const PlanInput& in) {
  Changes change(in);
  change_micro_batches(in, in.answers->longest, planning::answer_rows(in), change);
  if (in.reference != ReferencePlacement::kNone && !in.answers->moves_reference) {
    change("offline.reference=cached", "the reference's log-probs are computed before training")
        .reference = ReferencePlacement::kNone;
  }
  change_weights(in, change);
  return change.take();
}

/// Every change that may help; which do is left to planning each.
std::vector<PlanChange> candidates(const PlanInput& in) {
  if (in.pairs) return changes_of_pairs(in);
  if (in.answers) return changes_of_answers(in);
  Changes change(in);
  const auto halved = [&](const char* key, int64_t value, int64_t least, std::string effect,
                          const auto& set) {
    if (value / 2 < least) return;
    set(change(concat(key, "=", value / 2), std::move(effect)), value / 2);
  };
  const std::string own = in.algorithm + ".";
  const PlanBatch& b = in.batch;
  // Below one prompt with one completion a smaller limit changes nothing.
  change_micro_batches(in, b.prompt_tokens + in.rollout.max_new_tokens,
                       planning::largest_micro_batch(in).train, change);
  if (in.reference != ReferencePlacement::kNone) {
    change(own + in.no_reference, "no reference model, and nothing that holds the policy to it")
        .reference = ReferencePlacement::kNone;
  }
  if (in.reference != ReferencePlacement::kNone && in.reference_dtype != WeightDType::kInt8 &&
      !in.adapter) {
    change("trainer.reference_weights=int8", "a KL that begins at the reference's rounding")
        .reference_dtype = WeightDType::kInt8;
  }
  if (in.value == ValuePlacement::kOwn) {
    change(own + "value.model=trunk", "a head on the policy's trunk instead of a model")
        .value = ValuePlacement::kSharedTrunk;
  }
  change_weights(in, change);
  halved("rollout.max_sequences", std::min(in.rollout.max_sequences,
         std::max(b.prompts * b.group_size, b.held_out_prompts)), 1,
         "fewer completions at a time, a slower rollout",
         [](PlanInput& i, int64_t v) { i.rollout.max_sequences = v; });
  halved("rollout.max_new_tokens", in.rollout.max_new_tokens, 1, "shorter completions",
         [](PlanInput& i, int64_t v) { i.rollout.max_new_tokens = v; });
  halved((own + "prompts_per_step").c_str(), b.prompts, 1, "a smaller batch, a noisier gradient",
         [](PlanInput& i, int64_t v) {
           i.batch.prompts = v;
           i.batch.minibatches = std::min(i.batch.minibatches, v);
         });
  return change.take();
}

/// The change that does to `in` what `change` does to another input.
std::optional<PlanChange> alike(const PlanInput& in, const PlanChange& change) {
  const auto key = [](const PlanChange& c) { return c.setting.substr(0, c.setting.find('=')); };
  for (PlanChange& c : candidates(in)) {
    // Weights have two changes; only one of them is meant.
    const bool same = key(c) == "trainer.weights" ? c.setting == change.setting
                                                   : key(c) == key(change);
    if (same) return std::move(c);
  }
  return std::nullopt;
}

}  // namespace

std::vector<PlanChange> plan_changes(const PlanInput& input) {
  const uint64_t now = make_plan(input).peak();
  std::vector<PlanChange> out;
  for (PlanChange& c : candidates(input)) {
    const uint64_t then = make_plan(c.input).peak();
    if (then >= now) continue;
    c.saved = now - then;
    out.push_back(std::move(c));
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const auto& a, const auto& b) { return a.saved > b.saved; });
  return out;
}

std::optional<std::vector<PlanChange>> changes_that_fit(const PlanInput& input, uint64_t memory) {
  std::vector<PlanChange> taken;
  PlanInput now = input;
  uint64_t peak = make_plan(now).peak();
  for (const PlanChange& wanted : plan_changes(input)) {
    if (peak <= memory) break;
    std::optional<PlanChange> c = alike(now, wanted);
    const uint64_t then = c ? make_plan(c->input).peak() : peak;
    if (then >= peak) continue;
    c->saved = peak - then;
    now = c->input;
    peak = then;
    taken.push_back(*std::move(c));
  }
  if (peak > memory) return std::nullopt;
  return taken;
}

const std::vector<ScaleShape>& scale_shapes() {
  const auto llama = [](int64_t hidden, int64_t inner, int64_t layers, int64_t heads,
                        int64_t kv_heads, int64_t vocabulary) {
    ModelConfig c;
    c.family = "llama";
    c.hidden_size = hidden;
    c.intermediate_size = inner;
    c.layers = layers;
    c.heads = heads;
    c.kv_heads = kv_heads;
    c.head_dim = hidden / heads;
    c.vocab_size = vocabulary;
    c.max_positions = 131072;
    return c;
  };
  static const std::vector<ScaleShape> shapes = [&] {
    std::vector<ScaleShape> s{{"1B", "Llama 3.2 1B", llama(2048, 8192, 16, 32, 8, 128256)},
                              {"7B", "Llama 2 7B", llama(4096, 11008, 32, 32, 32, 32000)},
                              {"70B", "Llama 3 70B", llama(8192, 28672, 80, 64, 8, 128256)}};
    s[0].config.tied = true;
    return s;
  }();
  return shapes;
}

PlanInput scaled(const PlanInput& input, const ModelConfig& to) {
  const auto same = [&](const ModelConfig& c) {
    return c.hidden_size == input.policy.hidden_size && c.layers == input.policy.layers;
  };
  PlanInput out = input;
  for (PlannedReward& r : out.rewards) {
    if (same(r.model)) r.model = to;
  }
  if (same(out.value_model)) out.value_model = to;
  out.policy = to;
  // The bound of the rollout is a machine's; a larger model's keys and values get what they need.
  out.rollout.kv_memory_mb = int64_t{1} << 30;
  return out;
}

uint64_t parse_bytes(std::string_view text) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
      {"kB", 1e3},     {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},
      {"B", 1},        {"", 1}};
  for (const auto& [unit, factor] : kUnits) {
    if (!text.ends_with(unit)) continue;
    const std::string number(text.substr(0, text.size() - unit.size()));
    char* end = nullptr;
    const double value = std::strtod(number.c_str(), &end);
    const bool whole = !number.empty() && *end == '\0';
    const double bytes = value * factor;
    if (whole && std::isfinite(bytes) && bytes >= 1 && bytes < 0x1p62) {
      return static_cast<uint64_t>(bytes);
    }
    break;
  }
  fail("a size is a number with a unit, such as 8GiB, 8GB or 512MiB; got \"", text, "\"");
}

uint64_t available_memory() {
  uint64_t bytes = std::numeric_limits<uint64_t>::max();
  std::ifstream system("/proc/meminfo");
  for (std::string key, line; system >> key && std::getline(system, line);) {
    if (key == "MemAvailable:") bytes = std::strtoull(line.c_str(), nullptr, 10) << 10;
  }
  std::ifstream limit("/sys/fs/cgroup/memory.max"), used("/sys/fs/cgroup/memory.current");
  uint64_t most = 0, taken = 0;
  if (limit >> most && used >> taken) bytes = std::min(bytes, most > taken ? most - taken : 0);
  return bytes;
}

}  // namespace temper
