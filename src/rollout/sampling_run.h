#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scheduler.h"
#include "temper/rollout/engine.h"
#include "temper/text/stream_decoder.h"

namespace temper {

/// A second model that is sampled together with the first: softmax((1 - share) z + share z_other).
struct Blend {
  CausalLM* other = nullptr;  ///< Null: there is none.
  double share = 0;
};

/// What completions are sampled from.
struct SamplingModel {
  CausalLM& lm;
  const ModelText& text;
  Blend blend;
};

/// One request on its way: samples in the making and the prompts' last hidden rows.
class SamplingRun {
 public:
  SamplingRun(const SamplingModel& model, const RolloutConfig& config,
              const RolloutRequest& request);

  /// One forward and what is drawn after it. @param stores  one for each model.
  void step(Scheduler& scheduler, const Scheduler::Work& work, std::span<KvStore* const> stores,
            const RolloutEngine::OnToken& on_token);
  [[nodiscard]] std::vector<Sample> take();

 private:
  /// Hidden rows of one model.
  struct Rows {
    CausalLM* lm;
    int64_t hidden;
    std::vector<std::vector<float>> prompts;  ///< The last row of each.
    std::vector<float> gathered;              ///< [draws, hidden]
  };
  void forward(Rows& rows, const Scheduler::Work& work, KvStore& kv) const;
  void draw(const Scheduler::Work& work);
  void draw_blended(int64_t allowed);
  [[nodiscard]] kernels::SampledToken draw_from(std::span<const float> logits,
                                                const kernels::SampleRow& row);
  [[nodiscard]] std::span<const int32_t> seen(int64_t s);
  [[nodiscard]] bool accept(int64_t s, const kernels::SampledToken& t);

  SamplingModel model_;
  const RolloutConfig& config_;
  const RolloutRequest& request_;
  kernels::SamplingParams params_;
  std::vector<Rows> rows_;  ///< Of the model, and of the one blended in.
  std::vector<Sample> samples_;
  std::vector<std::vector<int32_t>> seen_;
  std::vector<StreamDecoder> decoders_;
  std::vector<kernels::SampleRow> draws_;
  std::vector<kernels::SampledToken> drawn_;
};

/// All completions of a request. @throws Error as RolloutEngine::generate.
[[nodiscard]] std::vector<Sample> sample_request(const SamplingModel& model,
                                                 const RolloutConfig& config,
                                                 const RolloutRequest& request,
                                                 const RolloutEngine::OnToken& on_token,
                                                 RolloutStats& stats);

}  // namespace temper
