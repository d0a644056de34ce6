// tokenize, template, convert, inspect and report: what stands in files.
#include <CLI/App.hpp>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "temper/core/error.h"
#include "temper/nn/models.h"
#include "temper/trainer/report.h"
#include "temper/trainer/run_folder.h"

namespace temper::cli {
namespace {

using Json = nlohmann::ordered_json;

struct FileOptions {
  std::string model;
  std::string adapter;
  std::string file;
  std::string output;
  std::string format = "hf";
  std::string dtype = "float32";
  bool plain = false;
};

/// Prints the answer to each line's value of `key`; empty lines have none. @throws Error naming
/// file and line.
void answer_rows(const std::string& path, const char* key,
                 const std::function<Json(const Json&)>& answer) {
  size_t number = 0;
  for (const std::string& line : read_lines(path)) {
    ++number;
    if (line.empty()) continue;
    const Json row = Json::parse(line, nullptr, false);
    TEMPER_CHECK(!row.is_discarded(), path, ":", number, ": not valid JSON");
    TEMPER_CHECK(row.is_object(), path, ":", number, ": expected a JSON object, got ",
                 row.type_name());
    TEMPER_CHECK(row.contains(key), path, ":", number, ": the key \"", key, "\" is missing");
    Json out;
    try {
      out = answer(row[key]);
    } catch (const std::exception& e) {
      fail(path, ":", number, ": ", e.what());
    }
    print_line(out.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
}

int tokenize(const FileOptions& o) {
  const ModelText text(open_model(o.model));
  answer_rows(o.file, "text", [&](const Json& value) {
    TEMPER_CHECK(value.is_string(), "\"text\" must be a string, got ", value.type_name());
    const EncodeOptions options{.add_special_tokens = false, .allow_special = !o.plain};
    return Json{{"ids", text.tokenizer().encode(value.get<std::string>(), options)}};
  });
  return kOk;
}

int render(const FileOptions& o) {
  const ModelText text(open_model(o.model));
  answer_rows(o.file, "messages", [&](const Json& value) {
    return Json{{"text", text.render(value)}};
  });
  return kOk;
}

int convert(const FileOptions& o) {
  const PolicyModel model = PolicyModel::load(o.model, WeightDType::kFloat32, Trainable::kNo);
  if (!o.adapter.empty()) model.lm().load_adapter(o.adapter, Trainable::kNo);
  const DType dtype = o.dtype == "bfloat16"  ? DType::kBF16
                      : o.dtype == "float16" ? DType::kF16
                                             : DType::kF32;
  model.save(o.output, dtype);
  std::fprintf(stderr, "wrote %s\n", o.output.c_str());
  return kOk;
}

Json describe_model(const std::string& spec) {
  const ModelSource source = open_model(spec);
  const ModelConfig& c = source.config;
  int64_t parameters = 0;
  for (const auto& name : source.weights->names()) {
    int64_t n = 1;
    for (const int64_t d : source.weights->shape(name)) n *= d;
    parameters += n;
  }
  const ModelText text(source);
  return {{"path", source.path},
          {"family", c.family},
          {"parameters", parameters},
          {"tensors", source.weights->names().size()},
          {"layers", c.layers},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"heads", c.heads},
          {"kv_heads", c.kv_heads},
          {"head_dim", c.head_dim},
          {"vocab_size", c.vocab_size},
          {"tokenizer_size", text.tokenizer().vocab_size()},
          {"max_positions", c.max_positions},
          {"tied", c.tied},
          {"eos_token_ids", text.eos_ids()},
          {"chat_template", text.has_template()}};
}

Json describe_run(const std::string& folder) {
  Json checkpoints = Json::array();
  for (const Checkpoint& c : list_checkpoints(folder)) {
    const auto damage = checkpoint_damage(c.folder, VerifyLevel::kHashes);
    checkpoints.push_back(
        {{"step", c.step}, {"complete", !damage}, {"damage", damage.value_or("")}});
  }
  return {{"run", folder}, {"checkpoints", checkpoints}};
}

/// A model's folder has a config.json as a run's has, so that file does not tell them apart.
bool is_run(const std::filesystem::path& path) {
  return std::filesystem::exists(path / "metrics.jsonl") ||
         std::filesystem::is_directory(path / "checkpoints");
}

int inspect(const FileOptions& o) {
  print_line((is_run(o.model) ? describe_run(o.model) : describe_model(o.model)).dump(2));
  return kOk;
}

std::shared_ptr<FileOptions> with_model(CLI::App* cmd) {
  auto o = std::make_shared<FileOptions>();
  cmd->add_option("--model", o->model, "GGUF file, Hugging Face folder or hub id")->required();
  return o;
}

}  // namespace

void add_tokenize(CLI::App& app, int& code) {
  CLI::App* cmd = app.add_subcommand(
      "tokenize", "Token ids of each text of a JSON Lines file, no special tokens added");
  const auto o = with_model(cmd);
  cmd->add_option("--file", o->file, "Lines of {\"text\": ...}")->required();
  cmd->add_flag("--plain", o->plain,
                "Special tokens in the text are text, as for prompts from outside");
  cmd->callback([o, &code] { code = tokenize(*o); });
}

void add_template(CLI::App& app, int& code) {
  CLI::App* cmd = app.add_subcommand(
      "template", "Text of each conversation of a JSON Lines file, generation prompt added");
  const auto o = with_model(cmd);
  cmd->add_option("--file", o->file, "Lines of {\"messages\": [{\"role\", \"content\"}]}")
      ->required();
  cmd->callback([o, &code] { code = render(*o); });
}

void add_convert(CLI::App& app, int& code) {
  CLI::App* cmd =
      app.add_subcommand("convert", "Write a model as a folder that transformers loads");
  const auto o = with_model(cmd);
  cmd->add_option("--output", o->output,
                  "Folder to write; files of a model that are there are replaced")
      ->required();
  cmd->add_option("--adapter", o->adapter, "Folder of an adapter in PEFT's format, merged into the weights");
  cmd->add_option("--format", o->format, "Only hf so far")
      ->check(CLI::IsMember({"hf"}))
      ->capture_default_str();
  cmd->add_option("--dtype", o->dtype, "Of the weights")
      ->check(CLI::IsMember({"float32", "bfloat16", "float16"}))
      ->capture_default_str();
  cmd->callback([o, &code] { code = convert(*o); });
}

void add_inspect(CLI::App& app, int& code) {
  CLI::App* cmd = app.add_subcommand("inspect", "What a model or a run folder holds, as JSON");
  auto o = std::make_shared<FileOptions>();
  cmd->add_option("path", o->model, "GGUF file, Hugging Face folder, hub id, or run folder")
      ->required();
  cmd->callback([o, &code] { code = inspect(*o); });
}

void add_report(CLI::App& app, int& code) {
  CLI::App* cmd = app.add_subcommand("report", "Write report.html of a run folder anew");
  auto o = std::make_shared<FileOptions>();
  cmd->add_option("run", o->output, "Run folder")->required();
  cmd->callback([o, &code] {
    write_report(o->output);
    std::fprintf(stderr, "wrote %s/report.html\n", o->output.c_str());
    code = kOk;
  });
}

}  // namespace temper::cli
