// The folder of an adapter.
#include "temper/formats/peft.h"

#include <algorithm>
#include <set>

#include "model_folder.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/formats/safetensors.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightFile = "adapter_model.safetensors";
constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kEndA = ".lora_A.weight";
constexpr std::string_view kEndB = ".lora_B.weight";
constexpr std::string_view kEndM = ".lora_magnitude_vector";
constexpr std::string_view kScore = "base_model.model.score.weight";

/// The module of a tensor's name, or an empty string.
std::string module_of(std::string_view name, std::string_view end) {
  if (!name.starts_with(kPrefix) || !name.ends_with(end)) return "";
  if (name.size() <= kPrefix.size() + end.size()) return "";
  return std::string(name.substr(kPrefix.size(), name.size() - kPrefix.size() - end.size()));
}

void take_tensor(const SafetensorsFile& file, const std::string& name, PeftAdapter& out) {
  const std::string of_a = module_of(name, kEndA), of_b = module_of(name, kEndB);
  const std::string of_m = out.config.use_dora ? module_of(name, kEndM) : "";
  const bool score = out.config.scores && name == kScore;
  TEMPER_CHECK(!of_a.empty() || !of_b.empty() || !of_m.empty() || score, "[adapter] ",
               file.source(), ": \"", name, "\" is not supported: expected ", kPrefix, "<module>",
               kEndA, " and ", kEndB, out.config.use_dora ? concat(" and ", kEndM) : "",
               out.config.scores ? concat(", and ", kScore) : "");
  const TensorView& view = file.at(name);
  const size_t dimensions = of_m.empty() ? 2 : 1;
  TEMPER_CHECK(view.shape.size() == dimensions && view.numel() > 0, "[adapter] ", file.source(),
               ": \"", name, "\" must be a ", dimensions == 2 ? "matrix" : "vector");
  TEMPER_CHECK(view.dtype == DType::kF32 || view.dtype == DType::kF16 ||
                   view.dtype == DType::kBF16 || view.dtype == DType::kF64,
               "[adapter] ", file.source(), ": \"", name, "\" is ", dtype_name(view.dtype),
               ", not a float type");
  if (!of_a.empty()) out.modules[of_a].a = view;
  if (!of_b.empty()) out.modules[of_b].b = view;
  if (!of_m.empty()) out.modules[of_m].m = view;
  if (score) out.score = view;
}

void check_module(const PeftAdapter& adapter, const std::string& name,
                  const PeftAdapter::Module& m) {
  const auto where = [&] { return concat("[adapter] ", adapter.source, ": module ", name); };
  TEMPER_CHECK(!m.a.shape.empty() && !m.b.shape.empty(), where(), " has no lora_",
               m.a.shape.empty() ? "A" : "B");
  TEMPER_CHECK(adapter.config.use_dora == !m.m.shape.empty(), where(), " has no ", kEndM.substr(1));
  TEMPER_CHECK(m.m.shape.empty() || m.m.shape[0] == m.b.shape[0], where(), " has ", m.m.shape[0],
               " magnitudes for ", m.b.shape[0], " outputs");
  const int64_t rank = adapter.config.rank_of(name);
  TEMPER_CHECK(m.a.shape[0] == rank && m.b.shape[1] == rank, where(), " has rank ", m.a.shape[0],
               " in A and ", m.b.shape[1], " in B, but ", rank, " by ", kConfigFile);
  const bool listed =
      !adapter.config.target_modules.empty() || !adapter.config.target_pattern.empty();
  TEMPER_CHECK(!listed || adapter.config.targets(name), where(), " is none of target_modules");
}

/// "all-linear" and every listed name must be there.
void check_targets(const PeftAdapter& adapter) {
  for (const std::string& target : adapter.config.target_modules) {
    if (target == "all-linear") continue;
    AdapterConfig one;
    one.target_modules = {target};
    const bool found = std::any_of(adapter.modules.begin(), adapter.modules.end(),
                                   [&](const auto& m) { return one.targets(m.first); });
    TEMPER_CHECK(found, "[adapter] ", adapter.source, " has no weights for the target module \"",
                 target, "\"");
  }
}

}  // namespace

std::string peft_name_a(std::string_view module) { return concat(kPrefix, module, kEndA); }
std::string peft_name_b(std::string_view module) { return concat(kPrefix, module, kEndB); }
std::string peft_name_m(std::string_view module) { return concat(kPrefix, module, kEndM); }
std::string peft_name_score() { return std::string(kScore); }

PeftAdapter open_peft_adapter(const fs::path& path) {
  const detail::ModelFolder folder(path);
  PeftAdapter out;
  const auto config = folder.find(kConfigFile);
  TEMPER_CHECK(config, "[adapter] ", path.string(), " has no ", kConfigFile);
  out.config =
      parse_adapter_config(read_text_file(*config, kMaxConfigBytes), folder.source(kConfigFile));
  const auto weights = folder.find(kWeightFile);
  TEMPER_CHECK(weights, "[adapter] ", path.string(), " has no ", kWeightFile,
               folder.find("adapter_model.bin")
                   ? " but an adapter_model.bin, which can run code: save it as safetensors"
                   : "");
  const SafetensorsFile file = SafetensorsFile::open(*weights);
  out.source = folder.source(kWeightFile);
  for (const std::string& name : file.names()) take_tensor(file, name, out);
  TEMPER_CHECK(!out.modules.empty(), "[adapter] ", out.source, " holds no adapter");
  for (const auto& [name, module] : out.modules) check_module(out, name, module);
  TEMPER_CHECK(!out.config.scores || !out.score.shape.empty(), "[adapter] ", out.source, " has no ",
               kScore, ", the head of an adapter with task_type SEQ_CLS");
  check_targets(out);
  return out;
}

void write_peft_adapter(const fs::path& folder, const AdapterConfig& config,
                        std::span<const WriteTensor> tensors) {
  config.validate();
  fs::create_directories(folder);
  std::vector<TensorSpec> specs;
  for (const WriteTensor& t : tensors) specs.push_back({t.name, DType::kF32, t.shape});
  std::vector<float> values;
  write_safetensors_streamed(folder / kWeightFile, specs, [&](size_t i) {
    size_t count = 1;
    for (const int64_t size : tensors[i].shape) count *= static_cast<size_t>(size);
    values.resize(count);
    tensors[i].fill(values);
    return std::as_bytes(std::span<const float>(values));
  });
  write_file_atomically(folder / kConfigFile, adapter_config_json(config));
}

}  // namespace temper
