#pragma once

#include <malloc.h>  // Linux, as /proc below.

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>

namespace temper::benchmarks {

/// A field of /proc/self/status in bytes, e.g. "VmRSS"; 0 where there is none.
inline double status_bytes(const std::string& field) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(field + ":")) return 1024 * std::stod(line.substr(field.size() + 1));
  }
  return 0;
}

/// The most resident bytes that `op` held beyond those before it. The kernel keeps the peak: no
/// sampling, and nothing that lives for a moment is missed.
template <class Op>
double peak_extra_bytes(const Op& op) {
  malloc_trim(0);  // What was freed but kept would hide as much of the peak.
  std::ofstream("/proc/self/clear_refs") << "5";  // The peak begins again at what there is now.
  const double before = status_bytes("VmRSS");
  op();
  return std::max(0.0, status_bytes("VmHWM") - before);
}

}  // namespace temper::benchmarks
