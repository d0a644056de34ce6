#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace temper::kernels {

enum class Workspace { kLogits, kScratch, kReference, kRows, kGradientRows };

/// Scratch memory of the calling thread that grows and is kept: the C library would hand large
/// temporaries back to the kernel and fault them in again at every call.
inline float* workspace(Workspace which, size_t floats) {
  thread_local std::array<std::vector<float>, 5> buffers;
  auto& b = buffers[static_cast<size_t>(which)];
  if (b.size() < floats) b.resize(floats);
  return b.data();
}

/// The same for the packed operands of a product, which may run inside a user of `workspace`.
inline uint32_t* word_workspace(size_t words) {
  thread_local std::vector<uint32_t> buffer;
  if (buffer.size() < words) buffer.resize(words);
  return buffer.data();
}

}  // namespace temper::kernels
