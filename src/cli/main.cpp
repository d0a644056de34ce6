#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>

#include "commands.h"
#include "temper/core/error.h"
#include "temper/version.h"

namespace {

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
  add_generate(app, code);
  add_chat(app, code);
  add_logprobs(app, code);
  add_tokenize(app, code);
  add_template(app, code);
  add_convert(app, code);
  add_inspect(app, code);
  add_report(app, code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kOk : kUsage;
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
