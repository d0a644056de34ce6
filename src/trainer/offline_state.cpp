// What a checkpoint of an offline trainer holds, how it comes back, and the reference's cache.
#include <nlohmann/json.hpp>

#include <cstring>
#include <set>
#include <span>

#include "offline_rows.h"
#include "state_file.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/formats/hf_folder.h"
#include "temper/formats/safetensors.h"
#include "temper/nn/adapter.h"
#include "temper/trainer/adapter_run.h"
#include "temper/trainer/offline.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kReferenceFolder = "reference";

/// The rows that steps [0, steps) take.
std::vector<size_t> visited(PromptSampler sampler, int64_t steps, int64_t per_step, size_t count) {
  std::set<size_t> seen;
  for (int64_t s = 0; s < steps && seen.size() < count; ++s) {
    for (const size_t i : sampler.next(static_cast<size_t>(per_step))) seen.insert(i);
  }
  return {seen.begin(), seen.end()};
}

std::vector<size_t> all_of(size_t count) {
  std::vector<size_t> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = i;
  return out;
}

/// The cache as flat tensors: lengths tell which rows are in it.
struct FlatCache {
  std::vector<int64_t> lengths;
  std::vector<float> logprobs;
  std::vector<double> mismatched;
};

FlatCache flatten(const ReferencedRows& rows) {
  FlatCache out;
  for (const auto& row : rows.logprobs) {
    out.lengths.push_back(std::ssize(row));
    out.logprobs.insert(out.logprobs.end(), row.begin(), row.end());
  }
  out.mismatched = rows.mismatched_logprobs;
  return out;
}

template <class T>
NamedTensor named(std::string name, DType dtype, const std::vector<T>& values) {
  return {std::move(name), dtype, {std::ssize(values)}, std::as_bytes(std::span(values))};
}

template <class T>
std::vector<T> read_values(const SafetensorsFile& file, const std::string& name, DType dtype) {
  const TensorView& view = file.at(name);
  TEMPER_CHECK(view.dtype == dtype, file.source(), ": ", name, " is not of the type it should be; "
               "remove the file, it is computed again");
  std::vector<T> out(view.data.size() / sizeof(T));
  std::memcpy(out.data(), view.data.data(), out.size() * sizeof(T));
  return out;
}

/// @return false when the rows in it do not fit these, or one of `list` is not in it.
bool unflatten(const FlatCache& flat, const std::vector<size_t>& list, ReferencedRows& rows) {
  const size_t count = rows.groups.size();
  if (flat.lengths.size() != count) return false;
  if (flat.mismatched.size() != (rows.mismatched.empty() ? 0 : count)) return false;
  std::vector<std::vector<float>> logprobs(count);
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    if (flat.lengths[i] == 0) continue;
    const auto n = static_cast<size_t>(predicted_tokens(rows.groups[i]));
    if (std::cmp_not_equal(flat.lengths[i], n) || at + n > flat.logprobs.size()) return false;
    const auto from = flat.logprobs.begin() + static_cast<std::ptrdiff_t>(at);
    logprobs[i].assign(from, from + static_cast<std::ptrdiff_t>(n));
    at += n;
  }
  for (const size_t i : list) {
    if (logprobs[i].empty()) return false;
  }
  rows.logprobs = std::move(logprobs);
  rows.mismatched_logprobs = flat.mismatched;
  return at == flat.logprobs.size();
}

}  // namespace

uint64_t weights_hash(const CausalLM& model) {
  StableHash hash;
  const auto add = [&](const at::Tensor& t) {
    if (!t.defined()) return;
    hash.update({static_cast<const char*>(t.const_data_ptr()), static_cast<size_t>(t.nbytes())});
  };
  for (const auto& p : model.parameters()) {
    hash.update(p->name);
    // What products read: the float32 master decides nothing beside a rounded copy.
    p->half.defined() ? add(p->half) : p->int8.defined() ? add(p->int8) : add(p->value);
    add(p->scales);
  }
  if (model.adapter_applied()) {
    for (const Parameter* p : model.adapter()->parameters()) add(p->value);
  }
  return hash.value();
}

void OfflineTrainer::cache_reference(CausalLM& model,
                                     const std::function<void(int64_t, int64_t)>& progress) {
  const auto list = visited(PromptSampler(rows_.groups.size(), parts_.seed, parts_.config.shuffle),
                            parts_.total_steps, parts_.config.rows_per_step, rows_.groups.size());
  const int64_t all = std::ssize(list) + std::ssize(held_out_.groups);
  int64_t done = 0;
  const auto report = [&](int64_t rows) {
    done += rows;
    if (progress) progress(done, all);
  };
  learner_.fill_reference(rows_, list, model, report);
  learner_.fill_reference(held_out_, all_of(held_out_.groups.size()), model, report);
}

void OfflineTrainer::save_cache(const fs::path& file, uint64_t model_hash) {
  state_.cached_model = model_hash;
  const FlatCache a = flatten(rows_), b = flatten(held_out_);
  const std::vector<NamedTensor> tensors{
      named("rows.lengths", DType::kI64, a.lengths),
      named("rows.logprobs", DType::kF32, a.logprobs),
      named("rows.mismatched", DType::kF64, a.mismatched),
      named("held_out.lengths", DType::kI64, b.lengths),
      named("held_out.logprobs", DType::kF32, b.logprobs),
      named("held_out.mismatched", DType::kF64, b.mismatched)};
  write_safetensors(file, tensors,
                    {{"format", "pt"},
                     {"data_hash", std::to_string(parts_.data.hash)},
                     {"model_hash", std::to_string(model_hash)}});
}

bool OfflineTrainer::load_cache(const fs::path& file, uint64_t model_hash) {
  if (!fs::exists(file)) return false;
  const SafetensorsFile in = SafetensorsFile::open(file);
  const auto says = [&](const char* key, uint64_t value) {
    const auto it = in.metadata().find(key);
    return it != in.metadata().end() && it->second == std::to_string(value);
  };
  if (!says("data_hash", parts_.data.hash) || !says("model_hash", model_hash)) return false;
  const auto read = [&](const std::string& part) {
    return FlatCache{read_values<int64_t>(in, part + ".lengths", DType::kI64),
                     read_values<float>(in, part + ".logprobs", DType::kF32),
                     read_values<double>(in, part + ".mismatched", DType::kF64)};
  };
  const auto list = visited(PromptSampler(rows_.groups.size(), parts_.seed, parts_.config.shuffle),
                            parts_.total_steps, parts_.config.rows_per_step, rows_.groups.size());
  if (!unflatten(read("rows"), list, rows_) ||
      !unflatten(read("held_out"), all_of(held_out_.groups.size()), held_out_)) {
    return false;
  }
  state_.cached_model = model_hash;
  return true;
}

uint64_t OfflineTrainer::cached_model(const fs::path& folder) {
  return required<uint64_t>(read_state(folder), "cached_model");
}

void OfflineTrainer::save(const fs::path& folder) const {
  save_run_policy(policy_, folder);
  learner_.optimizer().save(folder / kOptimizerFile);
  if (learner_.reference() && parts_.config.ref_sync_every > 0) {
    write_hf_folder(folder / kReferenceFolder, policy_.source(), learner_.reference()->lm().write_tensors(),
                    {});
  }
  const PromptSampler::State sampler = sampler_.state();
  const Json state{{"step", state_.step},
                   {"num_tokens", state_.num_tokens},
                   {"ratio_sum", learner_.running_ratio().sum},
                   {"ratio_count", learner_.running_ratio().count},
                   {"optimizer_steps", learner_.optimizer().steps()},
                   {"sampler_epoch", sampler.epoch},
                   {"sampler_position", sampler.position},
                   {"cached_model", state_.cached_model},
                   {"data_hash", parts_.data.hash},
                   {"seed", parts_.seed}};
  write_file_atomically(folder / kStateFile, state.dump(2) + "\n");
}

void OfflineTrainer::load(const fs::path& folder) {
  const Json state = read_state(folder);
  TEMPER_CHECK(required<uint64_t>(state, "data_hash") == parts_.data.hash,
               "[resume] the training rows are not those of the checkpoint: restore the data file "
               "and the data settings, or start a new run");
  TEMPER_CHECK(required<uint64_t>(state, "seed") == parts_.seed,
               "[resume] the seed is not that of the checkpoint");
  state_.step = required<int64_t>(state, "step");
  state_.num_tokens = required<double>(state, "num_tokens");
  learner_.running_ratio().sum = required<double>(state, "ratio_sum");
  learner_.running_ratio().count = required<double>(state, "ratio_count");
  learner_.optimizer().load(folder / kOptimizerFile, required<int64_t>(state, "optimizer_steps"));
  sampler_.restore(
      {required<uint64_t>(state, "sampler_epoch"), required<uint64_t>(state, "sampler_position")});
  if (learner_.reference() && parts_.config.ref_sync_every > 0) {
    learner_.reference() = ReferenceModel::load((folder / kReferenceFolder).string(), policy_.lm().dtype());
  }
}

uint64_t OfflineTrainer::checkpoint_bytes() const {
  const uint64_t policy = run_policy_bytes(policy_);
  const uint64_t copies = learner_.reference() && parts_.config.ref_sync_every > 0 ? 2 : 1;
  return copies * policy + learner_.optimizer().bytes() + (uint64_t{1} << 22);
}

}  // namespace temper
