#include "temper/trainer/answer_probe.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "offline_rows.h"
#include "temper/core/error.h"
#include "temper/nn/scoring.h"
#include "temper/trainer/answer_tokens.h"

namespace temper {
namespace {

constexpr int64_t kForwardTokens = 2048;

std::vector<size_t> all_of(size_t count) {
  std::vector<size_t> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = i;
  return out;
}

}  // namespace

std::optional<AnswerProbe> AnswerProbe::make(const ProbeConfig& config, const ModelText& text) {
  if (config.path.empty()) return std::nullopt;
  TEMPER_CHECK(config.every >= 1, "probe.every must be at least 1, got ", config.every);
  CompletionReadOptions read;
  read.form = "prompt_completion";
  TokenizedAnswers rows = tokenize_answers(read_completions(config.path, read), text, {});
  for (AnswerGroup& row : rows.groups) {
    std::vector<int32_t>& ids = row.answers[0].ids;
    const bool ends = std::binary_search(text.eos_ids().begin(), text.eos_ids().end(), ids.back());
    if (config.ended || !ends || ids.size() < 2) continue;
    ids.pop_back();
    if (!row.answers[0].mask.empty()) row.answers[0].mask.pop_back();
  }
  return AnswerProbe(std::move(rows.groups), config.every);
}

AnswerProbe::AnswerProbe(std::vector<AnswerGroup> rows, int64_t every)
    : rows_(std::move(rows)), every_(every) {
  TEMPER_CHECK(!rows_.empty() && every_ >= 1, "[probe] needs an answer, and a step to look at it");
}

std::vector<double> AnswerProbe::logprobs(CausalLM& lm) const {
  std::vector<double> out;
  for (const auto& part : cut_rows(rows_, all_of(rows_.size()), kForwardTokens)) {
    const AnswerTokens packed = pack_rows_of(rows_, part);
    const at::Tensor scores = score(lm, packed.tokens, {packed.rows, packed.targets}, 1.0).logprobs;
    const float* p = scores.const_data_ptr<float>();
    const size_t first = out.size();
    out.resize(first + part.size());
    for (size_t t = 0; t < packed.sequence.size(); ++t) {
      if (packed.mask[t] == 0) continue;
      out[first + static_cast<size_t>(packed.sequence[t])] += double{p[t]};
    }
  }
  return out;
}

std::vector<double> AnswerProbe::probabilities(CausalLM& lm) const {
  std::vector<double> out = logprobs(lm);
  for (double& p : out) p = std::exp(p);
  return out;
}

void AnswerProbe::add_to(Metrics& metrics, int64_t step, CausalLM& lm) const {
  if (step % every_ != 0) return;
  double probability = 0, logps = 0;
  for (const double lp : logprobs(lm)) {
    probability += std::exp(lp);
    logps += lp;
  }
  const double count = static_cast<double>(rows_.size());
  metrics["probe/probability"] = probability / count;
  metrics["probe/logps"] = logps / count;
}

}  // namespace temper
