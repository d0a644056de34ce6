#include "temper/trainer/adapter_run.h"

#include <charconv>

#include "temper/core/error.h"
#include "temper/nn/adapter.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
constexpr const char* kModelFolder = "model";
constexpr const char* kAdapterFolder = "adapter";

/// "down_proj=4" to a pair.
template <class T>
std::vector<std::pair<std::string, T>> parse_pattern(const char* key,
                                                     const std::vector<std::string>& words) {
  std::vector<std::pair<std::string, T>> out;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    T value{};
    const char* end = word.data() + word.size();
    const auto parsed = equals == std::string::npos
                            ? std::from_chars_result{nullptr, std::errc::invalid_argument}
                            : std::from_chars(word.data() + equals + 1, end, value);
    TEMPER_CHECK(parsed.ec == std::errc() && parsed.ptr == end, key, ": \"", word,
                 "\" is no module=number");
    out.emplace_back(word.substr(0, equals), value);
  }
  return out;
}

/// A run goes on with the adapter that it has, not with one that the config tells of now.
void check_same(const AdapterRunConfig& now, const AdapterConfig& then) {
  if (!now.path.empty()) return;
  const AdapterConfig wanted = now.settings();
  const auto check = [](bool same, const char* key) {
    TEMPER_CHECK(same, "[resume] adapter.", key, " is not that of the checkpoint's adapter");
  };
  check(wanted.r == then.r, "r");
  check(wanted.alpha == then.alpha, "alpha");
  check(wanted.use_rslora == then.use_rslora, "use_rslora");
  check(wanted.use_dora == then.use_dora, "use_dora");
  check(wanted.dropout == then.dropout, "dropout");
  check(wanted.rank_pattern == then.rank_pattern, "rank_pattern");
  check(wanted.alpha_pattern == then.alpha_pattern, "alpha_pattern");
}

}  // namespace

AdapterConfig AdapterRunConfig::settings() const {
  AdapterConfig c;
  c.r = r;
  c.alpha = alpha;
  c.target_modules = target_modules;
  c.rank_pattern = parse_pattern<int64_t>("adapter.rank_pattern", rank_pattern);
  c.alpha_pattern = parse_pattern<double>("adapter.alpha_pattern", alpha_pattern);
  c.use_rslora = use_rslora;
  c.use_dora = use_dora;
  c.dropout = dropout;
  c.target_pattern = target_pattern;
  return c;
}

PolicyModel load_run_policy(const std::string& model, WeightDType dtype,
                            const AdapterRunConfig& adapter, uint64_t seed,
                            const std::optional<fs::path>& checkpoint) {
  TEMPER_CHECK(adapter.r >= 0, "adapter.r must be at least 0, got ", adapter.r);
  TEMPER_CHECK(!frozen_only(dtype) || adapter.used(), "trainer.weights=", weight_dtype_name(dtype),
               " is for a model under an adapter: set adapter.r, or weights that "
               "can be trained");
  if (checkpoint) {
    const fs::path folder = *checkpoint / kAdapterFolder;
    TEMPER_CHECK(fs::exists(folder) == adapter.used(), "[resume] the checkpoint ",
                 checkpoint->string(), adapter.used() ? " has no adapter" : " is one of an adapter",
                 ": set adapter.r or adapter.path as they were");
    if (!adapter.used()) return PolicyModel::load((*checkpoint / kModelFolder).string(), dtype);
    PolicyModel policy = PolicyModel::load_with_adapter(model, dtype, folder);
    check_same(adapter, policy.lm().adapter()->config());
    return policy;
  }
  if (!adapter.used()) return PolicyModel::load(model, dtype);
  if (!adapter.path.empty()) return PolicyModel::load_with_adapter(model, dtype, fs::path(adapter.path));
  return PolicyModel::load_with_adapter(model, dtype, adapter.settings(), seed);
}

void save_run_policy(const PolicyModel& policy, const fs::path& checkpoint) {
  if (policy.lm().adapter() != nullptr) return policy.lm().save_adapter(checkpoint / kAdapterFolder);
  policy.save(checkpoint / kModelFolder);
}

uint64_t run_policy_bytes(const PolicyModel& policy) {
  uint64_t elements = 0;
  for (const Parameter* p : policy.lm().parameter_list()) elements += static_cast<uint64_t>(p->elements());
  return elements * 4;
}

ReferenceModel run_reference(const PolicyModel& policy, WeightDType dtype) {
  if (policy.lm().adapter() == nullptr) return ReferenceModel::copy_of(policy, dtype);
  TEMPER_CHECK(dtype == policy.lm().dtype(), "the reference of an adapter is the model under it, in ",
               weight_dtype_name(policy.lm().dtype()), ", not ", weight_dtype_name(dtype),
               ": leave trainer.reference_weights at same");
  return ReferenceModel::adapter_off(policy);
}

fs::path save_trained_policy(const PolicyModel& policy, const AdapterRunConfig& adapter,
                             const fs::path& run) {
  const bool adapted = policy.lm().adapter() != nullptr;
  if (adapted) policy.lm().save_adapter(run / kAdapterFolder);
  if (adapted && !adapter.save_merged) return run / kAdapterFolder;
  policy.save(run / kModelFolder);
  return run / kModelFolder;
}

std::string adapter_line(const PolicyModel& policy) {
  const Adapter* adapter = policy.lm().adapter();
  if (adapter == nullptr) return "";
  return concat("adapter of rank ", adapter->config().r, ", ",
                static_cast<double>(adapter->weights()) / 1e6, " M parameters");
}

}  // namespace temper
