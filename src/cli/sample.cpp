// generate, chat and logprobs: what a model says, and how likely it finds a text.
#include <CLI/App.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "temper/core/error.h"
#include "temper/nn/scoring.h"
#include "temper/ops/reference.h"
#include "temper/rollout/engine.h"
#include "temper/text/stream_decoder.h"

namespace temper::cli {
namespace {

using Json = nlohmann::ordered_json;

struct SampleOptions {
  std::string model;
  std::string adapter;
  std::string prompt;
  std::string ids;
  std::string weights = "float32";
  std::string kernels = "cpu";
  bool chat = false;
  bool json = false;
  int64_t seed = 42;
  RolloutConfig rollout;
};

PolicyModel load(const SampleOptions& o) {
  const WeightDType dtype = parse_weight_dtype(o.weights);
  if (o.adapter.empty()) return PolicyModel::load(o.model, dtype, Trainable::kNo);
  const std::filesystem::path folder = o.adapter;
  return PolicyModel::load_with_adapter(o.model, dtype, folder, Trainable::kNo);
}

void add_model_options(CLI::App* cmd, SampleOptions& o) {
  cmd->add_option("--model", o.model, "GGUF file, Hugging Face folder or hub id")->required();
  cmd->add_option("--adapter", o.adapter, "Folder of an adapter in PEFT's format, applied to the model");
  cmd->add_option("--weights", o.weights, "What matrix products read: float32, a bf16, float16, int8 or q4 copy, or bf16 on both sides (fastest)")
      ->check(CLI::IsMember(weight_dtype_names()))
      ->capture_default_str();
  add_kernels_option(cmd, o.kernels);
}

void add_sampling_options(CLI::App* cmd, SampleOptions& o) {
  RolloutConfig& r = o.rollout;
  r.max_new_tokens = 128;
  cmd->add_option("--temperature", r.temperature, "Divides the logits; 0 is greedy")
      ->capture_default_str();
  cmd->add_option("--top-k", r.top_k, "Keep the k most likely tokens; 0: all")
      ->capture_default_str();
  cmd->add_option("--top-p", r.top_p, "Keep the smallest set with this mass")
      ->capture_default_str();
  cmd->add_option("--min-p", r.min_p, "Drop tokens below this share of the likeliest")
      ->capture_default_str();
  cmd->add_option("--repetition-penalty", r.repetition_penalty, "Above 1: less repetition")
      ->capture_default_str();
  cmd->add_option("--max-new-tokens", r.max_new_tokens, "Longest completion, in tokens")
      ->capture_default_str();
  cmd->add_option("--stop", r.stop, "Text that ends the completion; may be given many times");
  cmd->add_option("--seed", o.seed, "Same seed, same text")->capture_default_str();
}

Sample sample_one(PolicyModel& model, const SampleOptions& o, std::vector<int32_t> prompt,
                  bool stream) {
  RolloutEngine engine(model.lm(), model.text(), o.rollout);
  StreamDecoder decoder(model.text().tokenizer());
  const auto show = [&](int64_t, const Sample& s) {
    std::fputs(decoder.push(s.ids.back()).c_str(), stdout);
    std::fflush(stdout);
  };
  const RolloutRequest request{{std::move(prompt)}, 1, static_cast<uint64_t>(o.seed), 0};
  auto samples = engine.generate(request, stream ? RolloutEngine::OnToken(show) : nullptr);
  if (stream) print_line(decoder.finish());
  return std::move(samples.front());
}

/// What can be wrong with the input is said before a model is loaded.
/// @return  the ids that were given, or none for a text.
std::vector<int32_t> check_input(const SampleOptions& o, const char* option) {
  TEMPER_CHECK(o.ids.empty() != o.prompt.empty(), "give either ", option,
               " or --ids, and not an empty one");
  TEMPER_CHECK(o.ids.empty() || !o.chat, "--chat applies to --prompt: --ids are taken as they are");
  return o.ids.empty() ? std::vector<int32_t>{} : parse_ids(o.ids);
}

std::vector<int32_t> encode_prompt(const SampleOptions& o, const ModelText& text) {
  if (o.chat) return text.encode_rendered(text.render_user(o.prompt));
  return text.tokenizer().encode(o.prompt, {.add_special_tokens = true, .allow_special = false});
}

int generate(const SampleOptions& o) {
  std::vector<int32_t> prompt = check_input(o, "--prompt");
  o.rollout.validate();
  const ops::KernelScope kernels(o.kernels);
  PolicyModel model = load(o);
  if (prompt.empty()) prompt = encode_prompt(o, model.text());
  const Sample s = sample_one(model, o, std::move(prompt), !o.json);
  if (o.json) {
    print_line(Json{{"ids", s.ids}, {"text", s.text}, {"logprobs", s.logprobs}}.dump());
  }
  return kOk;
}

int chat(const SampleOptions& o) {
  o.rollout.validate();
  const ops::KernelScope kernels(o.kernels);
  PolicyModel model = load(o);
  Json messages = Json::array();
  std::fprintf(stderr, "An empty line or end of input ends the conversation.\n");
  for (std::string line; std::fputs("> ", stderr), std::getline(std::cin, line) && !line.empty();) {
    messages.push_back({{"role", "user"}, {"content", line}});
    auto prompt = model.text().encode_rendered(model.text().render(messages));
    const Sample s = sample_one(model, o, std::move(prompt), true);
    messages.push_back({{"role", "assistant"}, {"content", s.text}});
  }
  return kOk;
}

int logprobs(const SampleOptions& o) {
  std::vector<int32_t> ids = check_input(o, "--text");
  TEMPER_CHECK(o.rollout.temperature > 0, "--temperature must be above 0, got ",
               o.rollout.temperature);
  const ops::KernelScope kernels(o.kernels);
  PolicyModel model = load(o);
  if (ids.empty()) ids = encode_prompt(o, model.text());
  TokenBatch batch{ids, {}, {{-1, 0, static_cast<int32_t>(ids.size()), -1}}};
  ScoreRequest request;
  for (size_t i = 0; i < ids.size(); ++i) {
    batch.positions.push_back(static_cast<int32_t>(i));
    request.rows.push_back(static_cast<int32_t>(i));
    // The last position has no next token: its log-prob is dropped, its entropy is wanted.
    request.targets.push_back(i + 1 < ids.size() ? ids[i + 1] : 0);
  }
  const TokenScores s = score(model.lm(), batch, request, o.rollout.temperature);
  const float* lp = s.logprobs.data_ptr<float>();
  const float* h = s.entropy.data_ptr<float>();
  const std::vector<float> logprob(lp, lp + ids.size() - 1), entropy(h, h + ids.size());
  if (o.json) {
    print_line(Json{{"ids", ids}, {"logprobs", logprob}, {"entropy", entropy}}.dump());
    return kOk;
  }
  for (size_t i = 1; i < ids.size(); ++i) {
    std::printf("%8d %10.5f  %s\n", ids[i], static_cast<double>(logprob[i - 1]),
                model.text().tokenizer().id_to_token(ids[i]).c_str());
  }
  finish_output();
  return kOk;
}

}  // namespace

void add_generate(CLI::App& app, int& code) {
  CLI::App* cmd =
      app.add_subcommand("generate", "Complete a prompt; --json prints ids, text and log-probs");
  auto o = std::make_shared<SampleOptions>();
  add_model_options(cmd, *o);
  cmd->add_option("--prompt", o->prompt, "The prompt's text");
  cmd->add_option("--ids", o->ids, "The prompt as token ids: 1,2,3");
  cmd->add_flag("--chat", o->chat, "The prompt is a user's message: apply the chat template");
  cmd->add_flag("--json", o->json, "{\"ids\": new ids, \"text\": ..., \"logprobs\": [...]}");
  add_sampling_options(cmd, *o);
  cmd->callback([o, &code] { code = generate(*o); });
}

void add_chat(CLI::App& app, int& code) {
  CLI::App* cmd = app.add_subcommand("chat", "Talk with a model, line by line");
  auto o = std::make_shared<SampleOptions>();
  add_model_options(cmd, *o);
  add_sampling_options(cmd, *o);
  cmd->callback([o, &code] { code = chat(*o); });
}

void add_logprobs(CLI::App& app, int& code) {
  CLI::App* cmd = app.add_subcommand(
      "logprobs", "Log-probability of each token of a text given those before it, in nats");
  auto o = std::make_shared<SampleOptions>();
  add_model_options(cmd, *o);
  cmd->add_option("--text", o->prompt, "The text");
  cmd->add_option("--ids", o->ids, "The text as token ids: 1,2,3");
  cmd->add_option("--temperature", o->rollout.temperature, "Divides the logits, above 0")
      ->capture_default_str();
  cmd->add_flag(
      "--json", o->json,
      "{\"ids\", \"logprobs\": one for each id after the first, \"entropy\": one a position}");
  cmd->callback([o, &code] { code = logprobs(*o); });
}

}  // namespace temper::cli
