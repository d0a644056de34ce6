#include "temper/formats/model_source.h"

#include <algorithm>
#include <cstdlib>

#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/formats/gguf.h"
#include "temper/formats/hf_folder.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIdBytes = 256;
constexpr size_t kMaxRefBytes = 256;

fs::path from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? fs::path(value) : fs::path();
}

fs::path cache_root() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (fs::path root = from_environment(name); !root.empty()) return root;
  }
  if (const fs::path home = from_environment("HF_HOME"); !home.empty()) return home / "hub";
  fs::path base = from_environment("XDG_CACHE_HOME");
  if (base.empty()) base = from_environment("HOME") / ".cache";
  return base / "huggingface" / "hub";
}

/// "name" or "org/name" of letters, digits, '-', '_' and '.', as the hub has them.
bool is_hub_id(std::string_view id) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '/';
  };
  return !id.empty() && id.size() <= kMaxIdBytes && std::all_of(id.begin(), id.end(), allowed) &&
         std::count(id.begin(), id.end(), '/') <= 1 && id.front() != '/' && id.back() != '/' &&
         id.front() != '.' && id.find("/.") == std::string_view::npos &&
         id.find("..") == std::string_view::npos && id.find("--") == std::string_view::npos;
}

}  // namespace

fs::path find_in_hub_cache(std::string_view id) {
  TEMPER_CHECK(is_hub_id(id), "[open_model] \"", id,
               "\" is no file, no folder and no hub id (\"org/name\")");
  std::string folder = "models--";
  for (const char c : id) folder += c == '/' ? std::string("--") : std::string(1, c);
  const fs::path repo = cache_root() / folder;
  std::string commit = "main";
  if (const fs::path ref = repo / "refs" / "main"; fs::is_regular_file(ref)) {
    commit = read_text_file(ref, kMaxRefBytes);
    while (!commit.empty() && (commit.back() == '\n' || commit.back() == '\r')) commit.pop_back();
  }
  const fs::path snapshot = plain_child(repo / "snapshots", commit);
  TEMPER_CHECK(
      fs::is_regular_file(snapshot / "config.json"), "[open_model] \"", id,
      "\" is no file or folder here, and the local hub cache does not have it: looked for ",
      (snapshot / "config.json").string(),
      ". Temper does not use the network; run "
      "`hf download ",
      id, "` first, or give the path of a folder or of a GGUF file");
  return snapshot;
}

bool WeightSource::quantized(std::string_view /*name*/) const { return false; }

std::optional<WeightBlocks> WeightSource::read_blocks(std::string_view /*name*/) const {
  return std::nullopt;
}

ModelSource open_model(std::string_view spec) {
  const fs::path path{std::string(spec)};
  std::error_code error;
  if (fs::is_directory(path, error)) return open_hf_folder(path);
  if (!fs::is_regular_file(path, error)) return open_hf_folder(find_in_hub_cache(spec));
  TEMPER_CHECK(path.extension() != ".safetensors", "[open_model] ", spec,
               " holds weights only; give the folder that it lies in");
  return open_gguf_model(GgufFile::open(path));
}

}  // namespace temper
