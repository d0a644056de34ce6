// check: properties of this build, this machine and a model that the library promises.
#include <unistd.h>

#include <CLI/App.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "temper/core/error.h"
#include "temper/rollout/exactness.h"
#include "temper/trainer/progress.h"

namespace temper::cli {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct ExactOptions {
  std::string model;
  std::string adapter;
  std::string precision = "all";
  int64_t tokens = 20000;
  int64_t seed = 42;
  bool json = false;
};

/// A bar on stderr: rewritten a few times a second on a terminal, a line a condition elsewhere.
class Bar {
 public:
  void show(const std::string& condition, int64_t done, int64_t total) {
    const auto now = Clock::now();
    const bool changed = condition != condition_;
    if (terminal_ ? now - shown_ < std::chrono::milliseconds(200) : !changed) return;
    condition_ = condition;
    shown_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double share = static_cast<double>(done) / static_cast<double>(total);
    const int filled = static_cast<int>(share * kWidth);
    const std::string bar(static_cast<size_t>(filled), '=');
    std::fprintf(stderr, "%s[%-*s] %3.0f %%  %.0f tok/s  left %s  %s%s", terminal_ ? "\r" : "",
                 kWidth, bar.c_str(), 100 * share,
                 seconds > 0 ? static_cast<double>(done) / seconds : 0,
                 format_duration(share > 0.005 ? seconds / share - seconds : -1).c_str(),
                 condition.c_str(), terminal_ ? "\x1b[K" : "\n");
    std::fflush(stderr);
  }
  ~Bar() {
    if (terminal_) std::fputs("\r\x1b[K", stderr);
  }

 private:
  static constexpr int kWidth = 20;
  const bool terminal_ = ::isatty(STDERR_FILENO) != 0;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point shown_;
  std::string condition_;
};

Json to_json(const ExactnessReport& r) {
  Json conditions = Json::object();
  for (const auto& [name, c] : r.conditions) {
    conditions[name] = {{"tokens", c.tokens}, {"mismatched", c.mismatched}};
  }
  return {{"tokens", r.total.tokens},
          {"mismatched", r.total.mismatched},
          {"control_mismatched", r.control.mismatched},
          {"control_tokens", r.control.tokens},
          {"conditions", conditions}};
}

void print_table(const ExactnessReport& r) {
  const auto line = [](const std::string& name, const ExactnessCount& c) {
    std::printf("%-45s %9lld tokens %9lld mismatched\n", name.c_str(),
                static_cast<long long>(c.tokens), static_cast<long long>(c.mismatched));
  };
  for (const auto& [name, count] : r.conditions) line(name, count);
  line("all", r.total);
  line("control: the same tokens by LibTorch's products", r.control);
  finish_output();
}

int check_exact(const ExactOptions& o) {
  TEMPER_CHECK(o.tokens >= 1, "--tokens must be at least 1, got ", o.tokens);
  ExactnessOptions options{.tokens = o.tokens, .seed = static_cast<uint64_t>(o.seed)};
  options.adapter = o.adapter;
  if (o.precision != "all") options.weights = {parse_weight_dtype(o.precision)};
  const ModelSource source = open_model(o.model);
  ExactnessReport r;
  {
    Bar bar;
    r = check_exactness(source, options,
                        [&](const std::string& condition, int64_t done, int64_t total) {
                          bar.show(condition, done, total);
                        });
  }
  if (o.json) {
    print_line(to_json(r).dump());
  } else {
    print_table(r);
  }
  TEMPER_CHECK(r.total.mismatched == 0, r.total.mismatched, " of ", r.total.tokens,
               " tokens were scored to another log-probability than they were sampled with; the "
               "conditions above say where");
  TEMPER_CHECK(
      r.control.mismatched > 0, "the control saw no mismatch in ", r.control.tokens,
      " tokens: LibTorch's products should have other bits, so the comparison is in doubt");
  return kOk;
}

}  // namespace

void add_check(CLI::App& app, int& code) {
  CLI::App* group = app.add_subcommand("check", "Check what the library promises, on this machine");
  group->require_subcommand(1);
  std::vector<std::string> precisions = weight_dtype_names();
  precisions.insert(precisions.begin(), "all");
  CLI::App* cmd = group->add_subcommand(
      "exact",
      "Is a sampled token's log-probability, bit for bit, the one that training computes?\n"
      "Samples with the rollout engine in batches of 1 to 64, on 1 and 2 threads, prompts in\n"
      "chunks, shared and not, sequences joining, leaving and giving way for memory; scores the\n"
      "tokens by the trainer's forward as trees, alone and in shuffled packings; counts those\n"
      "whose log-probability or entropy differs in any bit. Must be 0.\n"
      "A control scores some of them by LibTorch's own matmul and attention, whose bits depend on\n"
      "the batch: it must show mismatches, or the comparison could not see any.\n"
      "200000 tokens of a 135M model took 24 minutes on two busy cores.\n"
      "Exit code 1 when a token differs, or the control shows none.\n"
      "Example: temper check exact --model M --tokens 20000 --json");
  auto o = std::make_shared<ExactOptions>();
  cmd->add_option("--model", o->model, "GGUF file, Hugging Face folder or hub id")->required();
  cmd->add_option("--adapter", o->adapter, "Folder of an adapter in PEFT's format that is applied")
      ->type_name("FOLDER");
  cmd->add_option("--tokens", o->tokens, "Tokens to sample at least, over all conditions")
      ->capture_default_str();
  cmd->add_option("--precision", o->precision, "What products read; all: each in turn")
      ->check(CLI::IsMember(precisions))
      ->capture_default_str();
  cmd->add_option("--seed", o->seed, "Of prompts, draws and packings")->capture_default_str();
  cmd->add_flag("--json", o->json,
                "{\"tokens\", \"mismatched\", \"control_mismatched\", \"control_tokens\", "
                "\"conditions\": {name: {\"tokens\", \"mismatched\"}}}");
  cmd->callback([o, &code] { code = check_exact(*o); });
}

}  // namespace temper::cli
