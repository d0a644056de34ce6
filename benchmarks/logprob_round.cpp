// Our side of benchmarks/compare_logprob: reads the same arrays as the peers and does one forward
// and backward of the LM head for each line of standard input.
// Usage: logprob_round FOLDER float32|bfloat16|bfloat16_dot ROWS VOCABULARY WIDTH
// The folder holds raw little-endian arrays: hidden.f32 [rows, width], weight.f32 [vocabulary,
// width], ids.i32, old.f32, ref.f32 and advantage.f32 [rows]. A line "save" writes logprob,
// dhidden and dweight beside them; any other times a round and prints its seconds.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "peak_memory.h"
#include "roof.h"
#include "rounds.h"
#include "temper/kernels/linear_logprob.h"

namespace {

using namespace temper;
using namespace temper::kernels;

template <class T>
std::vector<T> read(const std::string& path, int64_t count) {
  std::vector<T> out(static_cast<size_t>(count));
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(out.data()),
          static_cast<std::streamsize>(out.size() * sizeof(T)));
  if (!in) throw std::runtime_error("cannot read " + path);
  return out;
}

void write(const std::string& path, const std::vector<float>& values) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!out) throw std::runtime_error("cannot write " + path);
}

class Case {
 public:
  Case(const std::string& folder, const std::string& dtype, int64_t rows, int64_t n, int64_t k)
      : folder_(folder),
        rows_(rows),
        hidden_(read<float>(folder + "/hidden.f32", rows * k)),
        ids_(read<int32_t>(folder + "/ids.i32", rows)),
        old_(read<float>(folder + "/old.f32", rows)),
        ref_(read<float>(folder + "/ref.f32", rows)),
        advantage_(read<float>(folder + "/advantage.f32", rows)),
        head_{nullptr, nullptr, n, k, dtype == "bfloat16_dot" ? Product::kDot : Product::kFma} {
    panels_.resize(static_cast<size_t>(panel_elements(n, k)));
    pack_rows(read<float>(folder + "/weight.f32", n * k).data(), n, k, 0, panels_.data());
    head_.f32 = panels_.data();
    if (dtype != "float32") {
      half_.resize(panels_.size());
      panels_to_bf16(panels_.data(), static_cast<int64_t>(panels_.size()), half_.data());
      head_.bf16 = half_.data();
    }
    for (auto* v : {&logprob_, &entropy_, &max_, &log_sum_, &dlogprob_, &dentropy_}) {
      v->resize(static_cast<size_t>(rows));
    }
    dhidden_.resize(hidden_.size());
    dweight_.resize(panels_.size());
  }

  /// Clipped-surrogate loss at its first step with a k3 penalty of 0.04 and an entropy bonus of
  /// 0.001: the gradients by a token's log-prob and entropy.
  void coefficients(int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const size_t i = static_cast<size_t>(r);
      const float ratio = std::exp(logprob_[i] - old_[i]);
      const float k3 = 1 - std::exp(ref_[i] - logprob_[i]);
      dlogprob_[i] = (-advantage_[i] * ratio + 0.04f * k3) / static_cast<float>(rows_);
      dentropy_[i] = -0.001f / static_cast<float>(rows_);
    }
  }

  void run() {
    // A gradient buffer that starts at zero, as the peers' does.
    std::fill(dweight_.begin(), dweight_.end(), 0.0f);
    linear_logprob_train({{.forward = {.hidden = hidden_.data(),
                                       .hidden_stride = head_.k,
                                       .head = head_,
                                       .targets = ids_.data(),
                                       .rows = rows_,
                                       .logprob = logprob_.data(),
                                       .entropy = entropy_.data(),
                                       .max = max_.data(),
                                       .log_sum = log_sum_.data()},
                           .dlogprob = dlogprob_.data(),
                           .dentropy = dentropy_.data(),
                           .dhidden = dhidden_.data(),
                           .dhidden_stride = head_.k,
                           .dweight = dweight_.data()},
                          [this](int64_t begin, int64_t end) { coefficients(begin, end); }});
  }

  void save() const {
    std::vector<float> rows(static_cast<size_t>(head_.n * head_.k));
    unpack_rows(dweight_.data(), 0, head_.n, head_.k, rows.data());
    write(folder_ + "/temper.logprob.f32", logprob_);
    write(folder_ + "/temper.dhidden.f32", dhidden_);
    write(folder_ + "/temper.dweight.f32", rows);
  }

 private:
  std::string folder_;
  int64_t rows_;
  std::vector<float> hidden_;
  std::vector<int32_t> ids_;
  std::vector<float> old_, ref_, advantage_;
  PackedWeight head_;
  std::vector<float> panels_, logprob_, entropy_, max_, log_sum_, dlogprob_, dentropy_;
  std::vector<float> dhidden_, dweight_;
  std::vector<uint16_t> half_;
};

void serve(Case& c) {
  const benchmarks::RoofProbe probe;
  const double extra = benchmarks::peak_extra_bytes([&] { c.run(); });
  std::printf("{\"extra_mb\": %.1f}\n", extra / 1e6);
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "save") {
      c.save();
      std::printf("{}\n");
    } else {
      const benchmarks::Roof roof = probe.measure();
      const double seconds = benchmarks::seconds_of([&] { c.run(); });
      std::printf("{\"s\": %.6f, \"fma\": %.4g, \"dot\": %.4g, \"read\": %.4g}\n", seconds,
                  roof.fma, roof.dot, roof.read);
    }
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: logprob_round FOLDER DTYPE ROWS VOCABULARY WIDTH\n");
    return 2;
  }
  try {
    Case c(argv[1], argv[2], std::stoll(argv[3]), std::stoll(argv[4]), std::stoll(argv[5]));
    serve(c);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
  return 0;
}
