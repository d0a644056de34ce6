#include "sampling_run.h"

#include <algorithm>
#include <cmath>

#include "temper/core/error.h"
#include "temper/core/rng.h"
#include "temper/rollout/kv_need.h"

namespace temper {
namespace {

/// Rows of blended logits that exist at a time: two tiles of [rows, vocabulary].
constexpr size_t kBlendRows = 16;

void check_request(const RolloutRequest& request, const RolloutConfig& config,
                   const ModelConfig& model) {
  TEMPER_CHECK(request.group_size >= 1, "[rollout] the group size must be at least 1");
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    const int64_t length = std::ssize(request.prompts[i]);
    TEMPER_CHECK(length > 0, "[rollout] prompt ", i, " is empty: it needs at least one token");
    TEMPER_CHECK(length <= model.max_positions - config.max_new_tokens, "[rollout] prompt ", i,
                 " has ", length, " tokens; with rollout.max_new_tokens=", config.max_new_tokens,
                 " it exceeds the model's context of ", model.max_positions);
  }
}

/// Pages of each store: the memory is shared by the models' stores, which hold the same texts.
int64_t store_pages(const RolloutRequest& request, RolloutConfig config,
                    const SamplingModel& model) {
  std::vector<int64_t> tokens;
  for (const auto& p : request.prompts) tokens.push_back(std::ssize(p));
  const KvNeed need = kv_need(tokens, request.group_size, config);
  if (model.blend.other == nullptr) return kv_pages(need, config, model.lm.config());
  config.kv_memory_mb = (config.kv_memory_mb + 1) / 2;
  return std::min(kv_pages(need, config, model.lm.config()),
                  kv_pages(need, config, model.blend.other->config()));
}

KvStore make_store(const ModelConfig& model, int64_t pages) {
  return {model.layers, model.kv_heads * model.head_dim, pages};
}

}  // namespace

SamplingRun::SamplingRun(const SamplingModel& model, const RolloutConfig& config,
                         const RolloutRequest& request)
    : model_(model), config_(config), request_(request), params_(config.sampling()) {
  for (CausalLM* lm : {&model.lm, model.blend.other}) {
    if (lm == nullptr) continue;
    rows_.push_back({lm, lm->config().hidden_size, {}, {}});
    rows_.back().prompts.resize(request.prompts.size());
  }
  samples_.resize(request.prompts.size() * static_cast<size_t>(request.group_size));
  for (size_t s = 0; s < samples_.size(); ++s) {
    samples_[s].prompt = static_cast<int32_t>(s / static_cast<size_t>(request.group_size));
  }
  seen_.resize(samples_.size());
  if (!config.stop.empty()) {
    for (size_t s = 0; s < samples_.size(); ++s) decoders_.emplace_back(model.text.tokenizer());
  }
}

/// Computes the new rows and keeps those that something is drawn from: a forward's own are valid
/// until the next one.
void SamplingRun::forward(Rows& rows, const Scheduler::Work& work, KvStore& kv) const {
  at::Tensor hidden;
  const float* computed = nullptr;
  if (work.batch.rows() > 0) {
    hidden = rows.lm->forward(work.batch, &kv);
    computed = hidden.data_ptr<float>();
  }
  for (const auto& [group, row] : work.finished_prompts) {
    rows.prompts[static_cast<size_t>(group)].assign(computed + row * rows.hidden,
                                                    computed + (row + 1) * rows.hidden);
  }
  rows.gathered.resize(work.draws.size() * static_cast<size_t>(rows.hidden));
  for (size_t i = 0; i < work.draws.size(); ++i) {
    const auto& d = work.draws[i];
    const float* from = d.row < 0 ? rows.prompts[static_cast<size_t>(d.group)].data()
                                  : computed + d.row * rows.hidden;
    std::copy_n(from, rows.hidden, rows.gathered.data() + i * static_cast<size_t>(rows.hidden));
  }
}

void SamplingRun::step(Scheduler& scheduler, const Scheduler::Work& work,
                       std::span<KvStore* const> stores, const RolloutEngine::OnToken& on_token) {
  for (size_t m = 0; m < rows_.size(); ++m) forward(rows_[m], work, *stores[m]);
  draw(work);
  for (size_t i = 0; i < work.draws.size(); ++i) {
    const int64_t s = work.draws[i].sequence;
    const bool ended = accept(s, drawn_[i]);
    scheduler.record(s, drawn_[i].id, ended);
    if (on_token) on_token(s, samples_[static_cast<size_t>(s)]);
  }
}

std::vector<Sample> SamplingRun::take() {
  for (auto& s : samples_) s.text = model_.text.tokenizer().decode(s.ids);
  return std::move(samples_);
}

void SamplingRun::draw(const Scheduler::Work& work) {
  draws_.clear();
  for (const auto& d : work.draws) {
    const auto position =
        static_cast<uint32_t>(samples_[static_cast<size_t>(d.sequence)].ids.size());
    const auto bits = keyed_random(request_.seed, RngPurpose::kSample, request_.step,
                                   static_cast<uint64_t>(d.sequence), position);
    draws_.push_back({&params_, seen(d.sequence), uniform_from_bits(bits[0], bits[1])});
  }
  drawn_.resize(work.draws.size());
  const int64_t allowed =
      std::min(model_.lm.config().vocab_size, model_.text.tokenizer().vocab_size());
  if (rows_.size() > 1) return draw_blended(allowed);
  kernels::linear_sample({.hidden = rows_[0].gathered.data(),
                          .hidden_stride = rows_[0].hidden,
                          .head = model_.lm.head().packed(),
                          .allowed = allowed,
                          .rows = draws_,
                          .out = drawn_});
}

/// Draws from both models' logits, added up in float32 in their shares.
void SamplingRun::draw_blended(int64_t allowed) {
  const auto share = static_cast<float>(model_.blend.share);
  std::vector<float> logits[2];
  for (size_t begin = 0; begin < draws_.size(); begin += kBlendRows) {
    const size_t count = std::min(kBlendRows, draws_.size() - begin);
    for (size_t m = 0; m < 2; ++m) {
      const kernels::PackedWeight head = rows_[m].lm->head().packed();
      logits[m].resize(count * static_cast<size_t>(head.n));
      kernels::linear({.x = rows_[m].gathered.data() +
                            static_cast<int64_t>(begin) * rows_[m].hidden,
                       .x_stride = rows_[m].hidden,
                       .weight = head,
                       .y = logits[m].data(),
                       .y_stride = head.n,
                       .rows = static_cast<int64_t>(count)});
    }
    std::vector<float> mixed(static_cast<size_t>(allowed));
    for (size_t i = 0; i < count; ++i) {
      const float* a = logits[0].data() + i * (logits[0].size() / count);
      const float* b = logits[1].data() + i * (logits[1].size() / count);
      for (size_t v = 0; v < mixed.size(); ++v) mixed[v] = (1 - share) * a[v] + share * b[v];
      drawn_[begin + i] = draw_from(mixed, draws_[begin + i]);
    }
  }
}

kernels::SampledToken SamplingRun::draw_from(std::span<const float> logits,
                                             const kernels::SampleRow& row) {
  std::vector<float> all(logits.size());
  const kernels::SamplingParams plain{.temperature = params_.temperature};
  kernels::sampling_distribution(logits, plain, {}, all);
  std::vector<float> kept = all;
  const bool whole = params_.top_k == 0 && params_.top_p == 1 && params_.min_p == 0 &&
                     params_.repetition_penalty == 1;
  if (!whole) kernels::sampling_distribution(logits, params_, row.seen, kept);
  kernels::SampledToken out;
  double entropy = 0, kept_mass = 0, below = 0;
  size_t chosen = 0;
  bool found = false;
  for (size_t v = 0; v < logits.size(); ++v) {
    const double p = double{all[v]};
    if (p > 0) entropy -= p * std::log(p);
    if (kept[v] <= 0) continue;
    kept_mass += p;
    below += double{kept[v]};
    if (!found) chosen = v;  // The last that is kept, where rounding leaves `below` short of 1.
    found = found || below > row.uniform;
  }
  out.id = static_cast<int32_t>(chosen);
  out.logprob = std::log(kept[chosen]);
  out.policy_logprob = std::log(all[chosen]);
  out.log_kept_mass = static_cast<float>(std::log(std::min(kept_mass, 1.0)));
  out.entropy = static_cast<float>(entropy);
  return out;
}

/// Prompt and completion ids, kept only where a penalty needs them.
std::span<const int32_t> SamplingRun::seen(int64_t s) {
  if (params_.repetition_penalty == 1.0f) return {};
  auto& ids = seen_[static_cast<size_t>(s)];
  const Sample& sample = samples_[static_cast<size_t>(s)];
  if (ids.empty()) ids = request_.prompts[static_cast<size_t>(sample.prompt)];
  if (!sample.ids.empty()) ids.push_back(sample.ids.back());
  return ids;
}

/// Appends a drawn token; true when the completion has ended.
bool SamplingRun::accept(int64_t s, const kernels::SampledToken& t) {
  TEMPER_CHECK(std::isfinite(t.policy_logprob),
               "[rollout] the log-probability of a token of sequence ", s, " is ",
               t.policy_logprob, ": the weights are not finite any more");
  Sample& sample = samples_[static_cast<size_t>(s)];
  sample.ids.push_back(t.id);
  sample.logprobs.push_back(t.policy_logprob);
  sample.sampled_logprobs.push_back(t.logprob);
  sample.log_kept_mass.push_back(t.log_kept_mass);
  sample.entropy.push_back(t.entropy);
  const auto& eos = model_.text.eos_ids();
  if (std::binary_search(eos.begin(), eos.end(), t.id)) {
    sample.finish = Finish::kEos;
    return true;
  }
  if (!decoders_.empty()) {
    const size_t before = sample.text.size();
    sample.text += decoders_[static_cast<size_t>(s)].push(t.id);
    for (const auto& stop : config_.stop) {
      // A new match ends in the new text.
      const size_t from = before - std::min(before, stop.size() - 1);
      if (sample.text.find(stop, from) == std::string::npos) continue;
      sample.finish = Finish::kStop;
      return true;
    }
  }
  return std::ssize(sample.ids) >= config_.max_new_tokens;
}

std::vector<Sample> sample_request(const SamplingModel& model, const RolloutConfig& config,
                                   const RolloutRequest& request,
                                   const RolloutEngine::OnToken& on_token, RolloutStats& stats) {
  stats = {};
  if (request.prompts.empty()) return {};
  check_request(request, config, model.lm.config());
  const int64_t pages = store_pages(request, config, model);
  std::vector<KvStore> stores;
  stores.push_back(make_store(model.lm.config(), pages));
  if (model.blend.other != nullptr) {
    check_request(request, config, model.blend.other->config());
    stores.push_back(make_store(model.blend.other->config(), pages));
  }
  std::vector<KvStore*> kv;
  for (KvStore& store : stores) kv.push_back(&store);
  Scheduler scheduler(request, config, kv, stats);
  SamplingRun run(model, config, request);
  while (!scheduler.done()) {
    const Scheduler::Work work = scheduler.next();
    run.step(scheduler, work, kv, on_token);
    stats.forwards += work.batch.rows() > 0;
    stats.completion_tokens += std::ssize(work.draws);
  }
  return run.take();
}

}  // namespace temper
