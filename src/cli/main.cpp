#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>
#include <string>
#include <vector>

#include "commands.h"
#include "temper/core/error.h"
#include "temper/version.h"

namespace {

/// Says what of the line was not understood: CLI11 names a missing part first, though a misspelt
/// word is often why it is missing.
void explain(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  std::vector<std::string> known;
  for (const CLI::App* sub : at->get_subcommands([](const CLI::App*) { return true; })) {
    known.push_back(sub->get_name());
  }
  for (const CLI::Option* option : at->get_options())
    known.push_back("--" + option->get_single_name());
  const std::vector<std::string> rest = app.remaining(true);
  if (rest.empty()) return;
  // Only the first: what follows is likely its value.
  const std::string near = temper::nearest_name(rest.front(), known);
  std::fprintf(stderr, "\"%s\" is no command or option here%s\n", rest.front().c_str(),
               near.empty() ? "" : ("; did you mean \"" + near + "\"?").c_str());
}

int run(int argc, char** argv) {
  using namespace temper::cli;
  CLI::App app(
      "Temper: post-training of language models by reinforcement learning and preferences.\n"
      "A model is a GGUF file, a Hugging Face folder, or a hub id in the local cache.\n"
      "First steps: temper generate --model M --prompt \"...\" --chat; temper train grpo --help");
  app.set_version_flag("--version", "temper " TEMPER_VERSION);
  app.require_subcommand(1);
  int code = kOk;
  add_train(app, code);
  add_eval(app, code);
  add_plan(app, code);
  add_generate(app, code);
  add_chat(app, code);
  add_logprobs(app, code);
  add_tokenize(app, code);
  add_template(app, code);
  add_convert(app, code);
  add_inspect(app, code);
  add_report(app, code);
  add_check(app, code);
  add_data(app, code);
  add_judge(app, code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (app.exit(e) == 0) return kOk;
    explain(app);
    return kUsage;
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const temper::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: out of memory\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
  }
  return temper::cli::kError;
}
