#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace temper::cli {

/// Exit codes of the program; docs/cli.md lists them.
enum ExitCode : int {
  kOk = 0,
  kError = 1,    ///< Something named in the message is wrong: a file, a key, a value.
  kUsage = 2,    ///< The command line itself.
  kStopped = 3,  ///< A run ended early: on request, or because its diagnosis stopped it.
};

/// Each adds one command to the program; the command runs when the line is parsed and leaves its
/// exit code in `code`. Answers for machines go to stdout as JSON, everything else to stderr.
void add_train(CLI::App& app, int& code);
void add_eval(CLI::App& app, int& code);
void add_plan(CLI::App& app, int& code);
void add_generate(CLI::App& app, int& code);
void add_chat(CLI::App& app, int& code);
void add_logprobs(CLI::App& app, int& code);
void add_tokenize(CLI::App& app, int& code);
void add_template(CLI::App& app, int& code);
void add_convert(CLI::App& app, int& code);
void add_inspect(CLI::App& app, int& code);
void add_report(CLI::App& app, int& code);
void add_check(CLI::App& app, int& code);
void add_data(CLI::App& app, int& code);
void add_judge(CLI::App& app, int& code);

/// `--kernels cpu|reference`: which implementation computes.
void add_kernels_option(CLI::App* cmd, std::string& kernels);

/// "1,2,3" to ids. @throws Error naming what is no id.
[[nodiscard]] std::vector<int32_t> parse_ids(const std::string& text);
/// `path` split into lines, without their ends.
[[nodiscard]] std::vector<std::string> read_lines(const std::string& path);
/// Writes a line to stdout. @throws Error when it cannot be written (a closed pipe, a full disk).
void print_line(const std::string& line);
/// For what was written to stdout by other means: flushes it. @throws Error as `print_line` does.
void finish_output();

}  // namespace temper::cli
