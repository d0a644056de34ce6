#include "temper/rollout/engine.h"

#include <algorithm>
#include <cmath>

#include "scheduler.h"
#include "temper/core/error.h"
#include "temper/core/rng.h"
#include "temper/rollout/kv_need.h"
#include "temper/text/stream_decoder.h"

namespace temper {
namespace {

/// One call of `generate`: samples in the making and the prompts' last hidden rows.
class Run {
 public:
  Run(CausalLM& lm, const ModelText& text, const RolloutConfig& config,
      const RolloutRequest& request)
      : lm_(lm),
        text_(text),
        config_(config),
        request_(request),
        params_(config.sampling()),
        hidden_(lm.config().hidden_size) {
    samples_.resize(request.prompts.size() * static_cast<size_t>(request.group_size));
    for (size_t s = 0; s < samples_.size(); ++s) {
      samples_[s].prompt = static_cast<int32_t>(s / static_cast<size_t>(request.group_size));
    }
    prompt_rows_.resize(request.prompts.size());
    seen_.resize(samples_.size());
    if (!config.stop.empty()) {
      for (size_t s = 0; s < samples_.size(); ++s) decoders_.emplace_back(text.tokenizer());
    }
  }

  void step(Scheduler& scheduler, const Scheduler::Work& work, KvStore& kv,
            const RolloutEngine::OnToken& on_token) {
    at::Tensor hidden;
    const float* rows = nullptr;
    if (work.batch.rows() > 0) {
      hidden = lm_.forward(work.batch, &kv);
      rows = hidden.data_ptr<float>();
    }
    for (const auto& [group, row] : work.finished_prompts) {
      prompt_rows_[static_cast<size_t>(group)].assign(rows + row * hidden_,
                                                      rows + (row + 1) * hidden_);
    }
    draw(work, rows);
    for (size_t i = 0; i < work.draws.size(); ++i) {
      const int64_t s = work.draws[i].sequence;
      const bool ended = accept(s, drawn_[i]);
      scheduler.record(s, drawn_[i].id, ended);
      if (on_token) on_token(s, samples_[static_cast<size_t>(s)]);
    }
  }

  std::vector<Sample> take() {
    for (auto& s : samples_) s.text = text_.tokenizer().decode(s.ids);
    return std::move(samples_);
  }

 private:
  void draw(const Scheduler::Work& work, const float* rows) {
    const size_t count = work.draws.size();
    gathered_.resize(count * static_cast<size_t>(hidden_));
    draws_.clear();
    for (size_t i = 0; i < count; ++i) {
      const auto& d = work.draws[i];
      const float* from =
          d.row < 0 ? prompt_rows_[static_cast<size_t>(d.group)].data() : rows + d.row * hidden_;
      std::copy_n(from, hidden_, gathered_.data() + i * static_cast<size_t>(hidden_));
      const auto position =
          static_cast<uint32_t>(samples_[static_cast<size_t>(d.sequence)].ids.size());
      const auto bits = keyed_random(request_.seed, RngPurpose::kSample, request_.step,
                                     static_cast<uint64_t>(d.sequence), position);
      draws_.push_back({&params_, seen(d.sequence), uniform_from_bits(bits[0], bits[1])});
    }
    drawn_.resize(count);
    const int64_t allowed = std::min(lm_.config().vocab_size, text_.tokenizer().vocab_size());
    kernels::linear_sample({.hidden = gathered_.data(),
                            .hidden_stride = hidden_,
                            .head = lm_.head().packed(),
                            .allowed = allowed,
                            .rows = draws_,
                            .out = drawn_});
  }

  /// Prompt and completion ids, kept only where a penalty needs them.
  std::span<const int32_t> seen(int64_t s) {
    if (params_.repetition_penalty == 1.0f) return {};
    auto& ids = seen_[static_cast<size_t>(s)];
    const Sample& sample = samples_[static_cast<size_t>(s)];
    if (ids.empty()) ids = request_.prompts[static_cast<size_t>(sample.prompt)];
    if (!sample.ids.empty()) ids.push_back(sample.ids.back());
    return ids;
  }

  /// Appends a drawn token; true when the completion has ended.
  bool accept(int64_t s, const kernels::SampledToken& t) {
    TEMPER_CHECK(std::isfinite(t.policy_logprob),
                 "[rollout] the log-probability of a token of sequence ", s, " is ",
                 t.policy_logprob, ": the weights are not finite any more");
    Sample& sample = samples_[static_cast<size_t>(s)];
    sample.ids.push_back(t.id);
    sample.logprobs.push_back(t.policy_logprob);
    sample.sampled_logprobs.push_back(t.logprob);
    sample.log_kept_mass.push_back(t.log_kept_mass);
    sample.entropy.push_back(t.entropy);
    const auto& eos = text_.eos_ids();
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

  CausalLM& lm_;
  const ModelText& text_;
  const RolloutConfig& config_;
  const RolloutRequest& request_;
  kernels::SamplingParams params_;
  int64_t hidden_;
  std::vector<Sample> samples_;
  std::vector<std::vector<float>> prompt_rows_;
  std::vector<std::vector<int32_t>> seen_;
  std::vector<StreamDecoder> decoders_;
  std::vector<float> gathered_;
  std::vector<kernels::SampleRow> draws_;
  std::vector<kernels::SampledToken> drawn_;
};

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

int64_t store_pages(const RolloutRequest& request, const RolloutConfig& config,
                    const ModelConfig& model) {
  std::vector<int64_t> tokens;
  for (const auto& p : request.prompts) tokens.push_back(std::ssize(p));
  return kv_pages(kv_need(tokens, request.group_size, config), config, model);
}

}  // namespace

RolloutEngine::RolloutEngine(CausalLM& lm, const ModelText& text, RolloutConfig config)
    : lm_(lm), text_(text), config_(std::move(config)) {
  config_.validate();
}

std::vector<Sample> RolloutEngine::generate(const RolloutRequest& request,
                                            const OnToken& on_token) {
  stats_ = {};
  if (request.prompts.empty()) return {};
  check_request(request, config_, lm_.config());
  KvStore kv(lm_.config().layers, lm_.config().kv_heads * lm_.config().head_dim,
             store_pages(request, config_, lm_.config()));
  Scheduler scheduler(request, config_, kv, stats_);
  Run run(lm_, text_, config_, request);
  while (!scheduler.done()) {
    const Scheduler::Work work = scheduler.next();
    run.step(scheduler, work, kv, on_token);
    stats_.forwards += work.batch.rows() > 0;
    stats_.completion_tokens += std::ssize(work.draws);
  }
  return run.take();
}

}  // namespace temper
