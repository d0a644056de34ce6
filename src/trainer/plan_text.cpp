// A bill for people and for machines.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "temper/trainer/plan.h"

namespace temper {
namespace {

template <class... Args>
std::string format(const char* pattern, Args... args) {
  char line[256];
  std::snprintf(line, sizeof line, pattern, args...);
  return line;
}

double mib(uint64_t bytes) { return static_cast<double>(bytes) / 0x1p20; }

}  // namespace

std::string bytes_text(uint64_t bytes) {
  if (bytes >= uint64_t{1} << 30) return format("%.2f GiB", static_cast<double>(bytes) / 0x1p30);
  return format("%.1f MiB", mib(bytes));
}

std::string plan_text(const Plan& plan, const MachineRates& rates) {
  std::string out;
  std::string owner;
  for (const PlanPart& p : plan.parts) {
    out += format("%-10s %-18s %11.1f MiB  %5.1f %%\n", p.owner == owner ? "" : p.owner.c_str(),
                  p.name.c_str(), mib(p.bytes),
                  100.0 * static_cast<double>(p.bytes) / static_cast<double>(plan.training));
    owner = p.owner;
  }
  out += format("%-29s %11.1f MiB\n", "while it trains", mib(plan.training));
  out += format("%-29s %11.1f MiB\n", "while weights are read", mib(plan.loading));
  if (plan.saving > 0) {
    out += format("%-29s %11.1f MiB\n", "while weights are written", mib(plan.saving));
  }
  out += format("%-29s %11.1f MiB\n\n", "peak", mib(plan.peak()));
  out += format("%-10s %12s %12s %12s %10s\n", "phase", "layers", "LM head", "attention", "seconds");
  double seconds = 0;
  for (const PlanPhase& p : plan.phases) {
    const double s = phase_seconds(p, rates);
    seconds += s;
    out += format("%-10s %7.1f Gflop %5.1f Gflop %5.1f Gflop %10.2f\n", p.name.c_str(),
                  p.trunk / 1e9, p.head / 1e9, p.attention / 1e9, s);
  }
  out += format("%-10s %7.1f Gflop %38.2f\n", "step", plan.operations() / 1e9, seconds);
  out += format("at %.0f Gflop/s and %.1f GB/s; at most %lld rows in a forward and backward\n",
                rates.flops / 1e9, rates.bytes / 1e9, static_cast<long long>(plan.rows));
  return out;
}

nlohmann::ordered_json plan_json(const Plan& plan, const MachineRates& rates) {
  using Json = nlohmann::ordered_json;
  Json parts = Json::array();
  for (const PlanPart& p : plan.parts) {
    parts.push_back({{"owner", p.owner}, {"name", p.name}, {"bytes", p.bytes}});
  }
  Json phases = Json::array();
  double seconds = 0;
  for (const PlanPhase& p : plan.phases) {
    const double s = phase_seconds(p, rates);
    seconds += s;
    phases.push_back({{"name", p.name},
                      {"trunk_flop", p.trunk},
                      {"head_flop", p.head},
                      {"attention_flop", p.attention},
                      {"seconds", s}});
  }
  return {{"parameters", plan.parameters},
          {"rows", plan.rows},
          {"parts", parts},
          {"training_bytes", plan.training},
          {"loading_bytes", plan.loading},
          {"saving_bytes", plan.saving},
          {"peak_bytes", plan.peak()},
          {"phases", phases},
          {"flop", plan.operations()},
          {"seconds", seconds},
          {"flop_per_second", rates.flops},
          {"bytes_per_second", rates.bytes}};
}

}  // namespace temper
