#pragma once

#include <ATen/ops/from_blob.h>

#include <cstdlib>
#include <cstring>
#include <memory>

#include "temper/core/error.h"
#include "temper/core/memory.h"
#include "temper/core/torch.h"

namespace temper {

/// One piece of memory that many tensors share, so that small weights lie in huge pages too. It
/// lives as long as the last of its tensors.
class TensorArena {
 public:
  explicit TensorArena(size_t bytes)
      : size_(bytes), memory_(static_cast<char*>(allocate_aligned(bytes)), std::free) {}

  /// What a tensor takes of an arena.
  static size_t bytes_of(int64_t elements, at::ScalarType type) {
    return (static_cast<size_t>(elements) * at::elementSize(type) + 63) / 64 * 64;
  }

  /// A tensor of zeros [elements].
  at::Tensor zeros(int64_t elements, at::ScalarType type) {
    const size_t bytes = bytes_of(elements, type);
    TEMPER_CHECK(used_ + bytes <= size_, "[TensorArena] holds ", size_, " bytes, asked for ",
                 used_ + bytes);
    char* p = memory_.get() + used_;
    used_ += bytes;
    std::memset(p, 0, bytes);
    return at::from_blob(p, {elements}, [memory = memory_](void*) {}, type);
  }

 private:
  size_t size_;
  size_t used_ = 0;
  std::shared_ptr<char> memory_;
};

}  // namespace temper
