#include "temper/nn/adapter.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "temper/core/error.h"
#include "temper/core/hash.h"
#include "temper/core/rng.h"

namespace temper {
namespace {

constexpr std::string_view kWeight = ".weight";

/// The linear module that a part of a matrix is, or an empty string: embedding and LM head are not
/// adapted.
std::string module_of(const Parameter& p, const ParameterPart& part) {
  if (!p.matrix || !part.name.starts_with("model.layers.")) return "";
  return part.name.substr(0, part.name.size() - kWeight.size());
}

/// Calls `take(matrix, part, module)` for each linear module.
template <class Take>
void each_module(std::span<const std::unique_ptr<Parameter>> model, const Take& take) {
  for (const auto& p : model) {
    for (const ParameterPart& part : p->parts) {
      const std::string module = module_of(*p, part);
      if (!module.empty()) take(*p, part, module);
    }
  }
}

std::string last_name(std::string_view module) {
  return std::string(module.substr(module.rfind('.') + 1));
}

/// Every target must name something: a misspelt one would be trained around in silence.
void check_targets(const AdapterConfig& config, std::span<const std::unique_ptr<Parameter>> model) {
  if (!config.target_pattern.empty()) {
    bool found = false;
    each_module(model, [&](const Parameter&, const ParameterPart&, const std::string& module) {
      found = found || config.targets(module);
    });
    TEMPER_CHECK(found, "[adapter] target_pattern: no linear module's whole path matches \"",
                 config.target_pattern, "\"; paths are such as model.layers.0.self_attn.q_proj");
    return;
  }
  TEMPER_CHECK(!config.target_modules.empty(), "[adapter] target_modules is empty");
  for (const std::string& target : config.target_modules) {
    AdapterConfig one;
    one.target_modules = {target};
    bool found = false;
    std::set<std::string> names;
    each_module(model, [&](const Parameter&, const ParameterPart&, const std::string& module) {
      found = found || (target != "all-linear" && one.targets(module));
      names.insert(last_name(module));
    });
    if (target == "all-linear" && config.target_modules.size() == 1) found = true;
    std::string all;
    for (const auto& name : names) all += (all.empty() ? "" : ", ") + name;
    TEMPER_CHECK(found, "[adapter] target_modules: no linear module of the model is \"", target,
                 "\"; it has ", all, ", or all-linear alone");
  }
}

/// Whether the targets name these modules and no others.
bool names_exactly(const AdapterConfig& config, const std::set<std::string>& adapted,
                   std::span<const std::unique_ptr<Parameter>> model) {
  bool exactly = !config.target_modules.empty() || !config.target_pattern.empty();
  each_module(model, [&](const Parameter&, const ParameterPart&, const std::string& module) {
    exactly = exactly && config.targets(module) == adapted.contains(module);
  });
  return exactly;
}

/// target_modules for a file: names where every module of a name is adapted, else whole paths.
std::vector<std::string> targets_of(const std::set<std::string>& adapted,
                                    std::span<const std::unique_ptr<Parameter>> model) {
  std::set<std::string> whole, out;
  each_module(model, [&](const Parameter&, const ParameterPart&, const std::string& module) {
    whole.insert(last_name(module));
  });
  each_module(model, [&](const Parameter&, const ParameterPart&, const std::string& module) {
    if (!adapted.contains(module)) whole.erase(last_name(module));
  });
  for (const auto& module : adapted) {
    out.insert(whole.contains(last_name(module)) ? last_name(module) : module);
  }
  return {out.begin(), out.end()};
}

void draw_a(LinearAdapter& linear, uint64_t seed) {
  const Parameter& a = linear.a();
  const double bound = 1.0 / std::sqrt(static_cast<double>(a.k));
  for (const auto& part : linear.parts()) {
    RngStream rng(seed, RngPurpose::kInit, content_hash64(part.module));
    std::vector<float> rows(static_cast<size_t>(part.rank * a.k));
    for (float& v : rows) v = static_cast<float>(bound * (2 * rng.next_uniform() - 1));
    linear.a().set_part({"", part.rank_begin, part.rank}, rows.data());
  }
}

/// Before memory is asked for by the sizes that a file claims.
void check_shape(const PeftAdapter& file, const std::string& module, const PeftAdapter::Module& m,
                 int64_t out, int64_t in) {
  TEMPER_CHECK(m.b.shape[0] == out && m.a.shape[1] == in, "[adapter] ", file.source, ": ", module,
               " is ", m.b.shape[0], " x ", m.a.shape[1], ", the model's ", out, " x ", in);
  TEMPER_CHECK(m.m.shape.empty() || m.m.shape[0] == out, "[adapter] ", file.source, ": ", module,
               " has ", m.m.shape[0], " magnitudes, and the model's ", out, " outputs");
}

void read_matrix(const TensorView& from, const ParameterPart& part, Parameter& to,
                 const std::string& source) {
  std::vector<float> rows(static_cast<size_t>(part.rows * to.k));
  copy_to_float(from, rows);
  for (const float v : rows) {
    TEMPER_CHECK(std::isfinite(v), "[adapter] ", source, ": ", part.name, " holds ", v);
  }
  to.set_part(part, rows.data());
}

}  // namespace

Adapter::Adapter(AdapterConfig config, std::span<const std::unique_ptr<Parameter>> model,
                 uint64_t seed)
    : config_(std::move(config)) {
  config_.validate();
  check_targets(config_, model);
  for (const auto& p : model) {
    std::vector<LinearAdapter::Part> parts;
    for (const ParameterPart& part : p->parts) {
      const std::string module = module_of(*p, part);
      if (module.empty() || !config_.targets(module)) continue;
      LinearAdapter::Part one;
      one.module = module;
      one.rank = config_.rank_of(module);
      one.scale = static_cast<float>(config_.scale_of(module));
      parts.push_back(std::move(one));
    }
    if (parts.empty()) continue;
    adapt(*p, std::move(parts));
    draw_a(*linears_.back(), seed);
    linears_.back()->reset_magnitudes();
  }
}

Adapter::Adapter(const PeftAdapter& file, std::span<const std::unique_ptr<Parameter>> model,
                 Trainable trainable)
    : config_(file.config), trainable_(trainable) {
  std::set<std::string> adapted;
  for (const auto& p : model) {
    std::vector<LinearAdapter::Part> parts;
    for (const ParameterPart& part : p->parts) {
      const std::string module = module_of(*p, part);
      const auto found = file.modules.find(module);
      if (module.empty() || found == file.modules.end()) continue;
      check_shape(file, module, found->second, part.rows, p->k);
      LinearAdapter::Part one;
      one.module = module;
      one.rank = found->second.a.shape[0];
      one.scale = static_cast<float>(config_.scale_of(module));
      parts.push_back(std::move(one));
      adapted.insert(module);
    }
    if (!parts.empty()) adapt(*p, std::move(parts));
  }
  for (const auto& [name, unused] : file.modules) {
    TEMPER_CHECK(adapted.contains(name), "[adapter] ", file.source,
                 ": the model has no linear module ", name);
  }
  if (!names_exactly(config_, adapted, model)) {
    config_.target_modules = targets_of(adapted, model);
    config_.target_pattern.clear();
  }
  for (const auto& l : linears_) {
    for (const auto& part : l->parts()) {
      const auto& m = file.modules.at(part.module);
      read_matrix(m.a, {peft_name_a(part.module), part.rank_begin, part.rank}, l->a(), file.source);
      read_matrix(m.b, part.b->parts.front(), *part.b, file.source);
      if (part.m) read_matrix(m.m, part.m->parts.front(), *part.m, file.source);
    }
  }
}

void Adapter::adapt(const Parameter& matrix, std::vector<LinearAdapter::Part> parts) {
  linears_.push_back(
      std::make_unique<LinearAdapter>(matrix, std::move(parts), config_, trainable_, work_));
  on_[&matrix] = linears_.back().get();
}

LinearAdapter* Adapter::on(const Parameter& matrix) const {
  const auto found = on_.find(&matrix);
  return found == on_.end() ? nullptr : found->second;
}

std::vector<Parameter*> Adapter::parameters() const {
  std::vector<Parameter*> out;
  for (const auto& l : linears_) {
    const auto own = l->parameters();
    out.insert(out.end(), own.begin(), own.end());
  }
  return out;
}

int64_t Adapter::weights() const {
  int64_t total = 0;
  for (const Parameter* p : parameters()) total += p->n * p->k;
  return total;
}

size_t Adapter::bytes() const {
  size_t total = 0;
  for (const Parameter* p : parameters()) total += p->bytes();
  return total;
}

void Adapter::save(const std::filesystem::path& folder, std::span<const float> head) const {
  std::vector<WriteTensor> tensors;
  for (const Parameter* p : parameters()) {
    for (const ParameterPart& part : p->parts) {
      std::vector<int64_t> shape{part.rows};
      if (p->matrix) shape.push_back(p->k);
      tensors.push_back({part.name, std::move(shape), [p, part](std::span<float> rows) {
                           p->get_part(part, p->value, rows.data());
                         }});
    }
  }
  AdapterConfig config = config_;
  config.scores = !head.empty();
  if (config.scores) {
    tensors.push_back({peft_name_score(), {1, std::ssize(head)}, [head](std::span<float> row) {
                         std::copy(head.begin(), head.end(), row.begin());
                       }});
  }
  write_peft_adapter(folder, config, tensors);
}

}  // namespace temper
