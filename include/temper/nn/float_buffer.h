#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "temper/core/memory.h"

namespace temper {

/// Float memory that grows and is kept for the life of its owner: activations of a step reuse the
/// pages of the step before. Contents are not preserved when it grows. Aligned to 64 bytes.
class FloatBuffer {
 public:
  /// At least `n` floats. @throws std::bad_alloc when memory runs out.
  float* ensure(size_t n) {
    if (n > size_) {
      data_.reset();
      size_ = 0;
      data_.reset(static_cast<float*>(allocate_aligned(n * sizeof(float))));
      size_ = n;
    }
    return data_.get();
  }
  [[nodiscard]] float* data() const { return data_.get(); }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  size_t size_ = 0;
};

}  // namespace temper
