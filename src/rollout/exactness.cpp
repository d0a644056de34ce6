#include "temper/rollout/exactness.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "exactness_conditions.h"
#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/nn/scoring.h"
#include "temper/ops/reference.h"
#include "temper/rollout/engine.h"

namespace temper {
namespace {

/// Longest prompt and completion, where the model's context allows.
constexpr int64_t kLongestPrompt = 150;
constexpr int64_t kLongestCompletion = 96;
/// Tokens that the control scores for each weight type, at most.
constexpr int64_t kMostControlTokens = 2000;

constexpr const char* kText =
    "The lighthouse keeper counted the ships that passed before noon: three from the north, two "
    "from the south, and one that turned around. Each carried 48 barrels, so how many barrels went "
    "by? He wrote the numbers in a column, added them twice, and found the same sum both times. "
    "In the evening the wind rose, the lamp was lit, and a letter arrived from the island. \"Dear "
    "friend,\" it began, \"we have mended the roof and the boat; the children have learned to "
    "swim. "
    "When the weather turns, come and see the garden: there are beans, onions and a plum tree.\"";

/// Restores the number of threads.
class ThreadScope {
 public:
  ThreadScope() : before_(num_threads()) {}
  ~ThreadScope() { set_num_threads(before_); }
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;
  void set(int threads) const { set_num_threads(threads > 0 ? threads : before_); }

 private:
  int before_;
};

ExactnessCount compare(CausalLM& lm, const ScoringBatch& batch, double temperature) {
  ScoringTape tape;
  tape.forward.checkpoint = true;  // The same bits, and memory for one layer.
  const TokenScores scores = score_train(lm, batch.tokens, batch.request, temperature, tape);
  const float* logprobs = scores.logprobs.data_ptr<float>();
  const float* entropy = scores.entropy.data_ptr<float>();
  const auto differ = [](float a, float b) {
    return std::bit_cast<uint32_t>(a) != std::bit_cast<uint32_t>(b);
  };
  ExactnessCount count{std::ssize(batch.logprobs), 0};
  for (size_t i = 0; i < batch.logprobs.size(); ++i) {
    count.mismatched +=
        differ(logprobs[i], batch.logprobs[i]) || differ(entropy[i], batch.entropy[i]);
  }
  return count;
}

void add(ExactnessCount& to, const ExactnessCount& more) {
  to.tokens += more.tokens;
  to.mismatched += more.mismatched;
}

/// The conditions over the weights of one type.
class Checker {
 public:
  Checker(const ModelSource& source, WeightDType dtype, const ExactnessOptions& options)
      : lm_(source, dtype, Trainable::kNo), text_(source), seed_(options.seed) {
    if (!options.adapter.empty()) lm_.load_adapter(options.adapter, Trainable::kNo);
    const int64_t context = lm_.config().max_positions;
    TEMPER_CHECK(context >= 16, "[check_exactness] the model's context of ", context,
                 " tokens is below 16");
    longest_prompt_ = std::min(kLongestPrompt, context / 2);
    longest_completion_ = std::min(kLongestCompletion, context / 2 - 1);
    ids_ = text_.tokenizer().encode(kText, {.add_special_tokens = false, .allow_special = false});
    if (ids_.empty()) ids_.push_back(0);
  }

  /// Told of each token that is sampled or scored.
  std::function<void(int64_t)> on_tokens = [](int64_t) {};

  /// Samples at least `tokens` and scores them. @param control  Gets a part of them, if not null.
  ExactnessCount run(const ExactnessCondition& c, int64_t tokens, ExactnessCount* control) {
    ExactnessCount count;
    bool preempted = !c.preempt;
    for (int rest = 0; count.tokens < tokens || !preempted;) {
      TEMPER_CHECK(rest < 8, "[check_exactness] no sequence gave way for memory: the model ends ",
                   "its texts too early");
      if (count.tokens >= tokens) ++rest;
      preempted = rollout(c, tokens - count.tokens, count, control) > 0 || preempted;
    }
    return count;
  }

 private:
  /// One rollout, scored. @return  how many sequences were preempted.
  int64_t rollout(const ExactnessCondition& condition, int64_t tokens, ExactnessCount& count,
                  ExactnessCount* control) {
    ExactnessCondition c = condition;
    const RolloutConfig config = rollout_config(c, tokens);
    const RolloutRequest request = make_request(c);
    RolloutEngine engine(lm_, text_, with_memory(config, c, request));
    const ThreadScope threads;
    threads.set(c.sample_threads);
    const auto samples = engine.generate(request, [&](int64_t, const Sample&) { on_tokens(1); });
    threads.set(c.score_threads);
    const int64_t wanted = std::clamp<int64_t>(tokens / 4, 64, kMostControlTokens);
    for (const auto& batch : scoring_batches(request, samples, c.packing, seed_)) {
      add(count, compare(lm_, batch, config.temperature));
      on_tokens(std::ssize(batch.logprobs));
      if (control == nullptr || control->tokens >= wanted) continue;
      const ops::KernelScope reference("reference");
      add(*control, compare(lm_, batch, config.temperature));
    }
    return engine.stats().preemptions;
  }

  /// Settings for about `tokens` tokens. A preempted rollout gets sequences enough to fill the
  /// least memory that can be asked for.
  RolloutConfig rollout_config(ExactnessCondition& c, int64_t tokens) const {
    const auto sequences = [&] { return c.prompts * c.group_size; };
    // A sequence that gives way needs more than one page.
    const int64_t least = c.preempt ? KvStore::kPageRows + 8 : 2;
    const int64_t even = (tokens + sequences() - 1) / sequences();
    RolloutConfig r;
    r.max_new_tokens = std::min(longest_completion_, std::max(least, even));
    r.prefill_tokens = c.prefill_tokens;
    r.max_sequences = c.slots;
    if (c.preempt) {
      const int64_t pages = KvStore::pages_for(r.max_new_tokens);
      while (sequences() * pages * page_bytes() < 2 << 20) c.prompts *= 2;
      r.max_sequences = sequences();
    }
    if (c.truncate) {
      r.temperature = 0.7;
      r.top_k = 50;
      r.top_p = 0.9;
      r.min_p = 0.01;
      r.repetition_penalty = 1.1;
    }
    return r;
  }

  int64_t page_bytes() const {
    const auto& m = lm_.config();
    return KvStore::page_bytes(m.layers, m.kv_heads * m.head_dim);
  }

  /// For a preempted rollout, memory for its prompts and half of its completions.
  RolloutConfig with_memory(RolloutConfig r, const ExactnessCondition& c,
                            const RolloutRequest& request) const {
    if (!c.preempt) return r;
    int64_t pages = c.prompts * c.group_size * KvStore::pages_for(r.max_new_tokens) / 2;
    for (const auto& prompt : request.prompts) pages += KvStore::pages_for(std::ssize(prompt));
    r.kv_memory_mb = std::max<int64_t>(1, (pages * page_bytes()) >> 20);
    return r;
  }

  /// Prompts are windows of one text, of lengths around those of key blocks and pages.
  RolloutRequest make_request(const ExactnessCondition& c) {
    constexpr int64_t kLengths[] = {33, 1, 64, 150, 31, 5, 100, 32, 65, 12};
    RolloutRequest request{.group_size = c.group_size, .seed = seed_, .step = step_};
    for (int64_t p = 0; p < c.prompts; ++p) {
      const int64_t i = c.repeat_prompt ? step_ : step_ + p;
      const int64_t length = std::min(longest_prompt_, kLengths[i % std::ssize(kLengths)]);
      request.prompts.emplace_back();
      for (int64_t t = 0; t < length; ++t) {
        request.prompts.back().push_back(ids_[static_cast<size_t>(i * 17 + t) % ids_.size()]);
      }
    }
    ++step_;
    return request;
  }

  CausalLM lm_;
  ModelText text_;
  uint64_t seed_;
  uint32_t step_ = 0;
  int64_t longest_prompt_ = 0;
  int64_t longest_completion_ = 0;
  std::vector<int32_t> ids_;
};

}  // namespace

ExactnessReport check_exactness(const ModelSource& source, const ExactnessOptions& options,
                                const ExactnessProgress& progress) {
  TEMPER_CHECK(options.tokens >= 1 && !options.weights.empty(),
               "[check_exactness] expected at least one token and one weight type, got ",
               options.tokens, " and ", options.weights.size());
  double shares = 0;
  for (const auto& c : exactness_conditions()) shares += c.share;
  ExactnessReport report;
  int64_t done = 0;
  for (const WeightDType dtype : options.weights) {
    Checker checker(source, dtype, options);
    ExactnessCount control;
    const double tokens =
        static_cast<double>(options.tokens) / static_cast<double>(options.weights.size());
    for (const auto& c : exactness_conditions()) {
      const std::string name = concat(weight_dtype_name(dtype), "/", c.name);
      checker.on_tokens = [&](int64_t n) {
        done += n;
        if (progress) progress(name, done, std::max(done, 2 * options.tokens));
      };
      const bool first = &c == exactness_conditions().data();
      const auto share = static_cast<int64_t>(std::ceil(tokens * c.share / shares));
      const ExactnessCount count = checker.run(c, share, first ? &control : nullptr);
      add(report.total, count);
      report.conditions.emplace_back(name, count);
    }
    add(report.control, control);
  }
  return report;
}

}  // namespace temper
