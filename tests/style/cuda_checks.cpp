#include "style/cuda_checks.h"

#include <algorithm>
#include <iterator>
#include <regex>
#include <string>

namespace temper::style {
namespace {

struct Rule {
  std::regex pattern;
  const char* why;
  bool host_too;  // Also in .cu files, which are launchers.
};

const std::vector<Rule>& rules() {
  static const std::vector<Rule> all = {
      {std::regex("<<<"), "launch by launch(), which the emulator runs too", true},
      {std::regex(R"(\b__(shared|constant)__\b)"), "take shared memory from SharedArena", true},
      {std::regex(R"(\basm\b)"), "inline PTX belongs to device.cuh", true},
      {std::regex(R"(\b(printf|throw|cooperative_groups|__activemask|__nanosleep)\b)"),
       "outside the vocabulary", true},
      {std::regex(R"(\b__threadfence(_block|_system)?\b)"),
       "blocks do not talk to each other inside a kernel: launch twice", true},
      {std::regex(R"(\b(__)?(exp|exp2|exp10|log|log2|log10|pow|sin|cos|tanh|rsqrt|fdivide)f\b)"),
       "its bits differ between host and device: use math.cuh", false},
      {std::regex(R"(\b__(fdividef|frsqrt_rn|frcp_\w+|fmaf_\w+|saturatef)\b)"),
       "outside the vocabulary", false},
      {std::regex(R"(\b(new|malloc|delete)\b(?!;))"), "kernels and launchers do not allocate",
       false},
      {std::regex(R"(\bcuda(Malloc|Free|Memcpy|Memset)\w*|\bcuda\w*Synchronize\b)"),
       "launchers do not allocate, copy or wait", true},
      {std::regex(R"(\b(wgmma|cp_async_bulk|__cluster_dims__)\b)"),
       "is not emulated: a specialisation of its own", true},
  };
  return all;
}

bool is_kernel_file(const std::string& path) {
  return path.starts_with("src/kernels/cuda/") && !path.starts_with("src/kernels/cuda/sim/") &&
         (path.ends_with(".cuh") || path.ends_with(".cu")) && !path.ends_with("/device.cuh");
}

/// Start-up work, which may allocate and wait, and says so in its header.
bool may_wait(const std::string& path) { return path == "src/kernels/cuda/cublaslt.cu"; }

int line_at(const std::string& text, size_t offset) {
  return 1 +
         static_cast<int>(std::count(text.begin(), text.begin() + static_cast<long>(offset), '\n'));
}

}  // namespace

std::vector<Violation> check_cuda_vocabulary(const std::vector<SourceFile>& files) {
  std::vector<Violation> found;
  for (const SourceFile& file : files) {
    if (!is_kernel_file(file.path)) continue;
    const std::string code = code_only(file.text);
    for (const Rule& rule : rules()) {
      if (file.path.ends_with(".cu") && !rule.host_too) continue;
      for (auto it = std::sregex_iterator(code.begin(), code.end(), rule.pattern);
           it != std::sregex_iterator(); ++it) {
        const std::string word = it->str();
        if (word.starts_with("cuda") && may_wait(file.path)) continue;
        found.push_back({file.path, line_at(code, static_cast<size_t>(it->position())),
                         "'" + word + "': " + rule.why});
      }
    }
    static const std::regex unbounded(R"(\b__global__\b(?!\s+void\s+__launch_bounds__\())");
    for (auto it = std::sregex_iterator(code.begin(), code.end(), unbounded);
         it != std::sregex_iterator(); ++it) {
      found.push_back({file.path, line_at(code, static_cast<size_t>(it->position())),
                       "a kernel needs __launch_bounds__ after 'void'"});
    }
  }
  return found;
}

std::vector<Violation> check_cuda_sources_listed(const std::vector<SourceFile>& files,
                                                 const std::string& list) {
  std::vector<Violation> found;
  for (const SourceFile& file : files) {
    if (!file.path.starts_with("src/kernels/cuda/") || !file.path.ends_with(".cu")) continue;
    const std::string name = file.path.substr(file.path.rfind('/') + 1);
    if (list.find(" " + name) == std::string::npos) {
      found.push_back({file.path, 0, "is not in src/kernels/cuda/CMakeLists.txt"});
    }
  }
  return found;
}

}  // namespace temper::style
