// cuBLASLt behind `linear`: the promise that `pin` proves, checked from outside.
#include <algorithm>

#include "gpu/gpu_test_util.h"
#include "kernels/linear_case.h"
#include "temper/kernels/cublaslt.h"

namespace temper::kernels::cuda {
namespace {

using test::Forward;
using test::GpuBuffer;
using test::LinearWeight;

std::vector<uint16_t> bf16_rows(const LinearWeight& w) {
  std::vector<uint16_t> rows(w.rows.size());
  std::transform(w.rows.begin(), w.rows.end(), rows.begin(), float_to_bf16);
  return rows;
}

/// Products of one weight by one LtLinear.
struct Lt {
  template <class T>
  using Buffer = GpuBuffer<T>;
  static inline LtLinear* products = nullptr;
  static inline const uint16_t* rows = nullptr;
  static bool linear(const LinearArgs& a) { return products->linear(a, rows, nullptr).ok(); }
};

using CublasltGpu = test::GpuTest;

TEST_F(CublasltGpu, PinnedOrNotRowsKeepTheirBitsAndAreTheSumInDouble) {
  const LinearWeight w(test::Kind::kDot, 576, 1536);
  GpuBuffer<uint16_t> rows(bf16_rows(w));
  LtLinear products;
  ASSERT_TRUE(products.pin({rows.data(), w.n, w.k}, 2048, nullptr).ok());
  RecordProperty("pinned", products.pinned(w.n, w.k) ? "yes" : products.reason(w.n, w.k));
  Lt::products = &products;
  Lt::rows = rows.data();
  const std::vector<float> base = test::forward<Lt>(w, {.rows = 2048});
  for (const int64_t count : {1, 2, 3, 5, 16, 33, 100, 1024}) {
    const std::vector<float> y = test::forward<Lt>(w, {.rows = count});
    EXPECT_TRUE(std::equal(y.begin(), y.end(), base.begin())) << count;
  }
  for (const int64_t row : {7, 1029}) {
    const auto at = base.begin() + row * w.n;
    EXPECT_TRUE(test::same_bits(test::forward_row<Lt>(w, {.rows = 2048}, row),
                                std::vector<float>(at, at + w.n)));
  }
  const Forward f{.rows = 19, .bias = true, .add = true};
  test::expect_dot_sums(test::forward<Lt>(w, f), w, f, 4.0 * 1536 + 16);
}

TEST_F(CublasltGpu, ShapesThatItCannotReadRunOnOurOwnKernel) {
  const LinearWeight w(test::Kind::kDot, 45, 33);
  GpuBuffer<uint16_t> rows(bf16_rows(w));
  LtLinear products;
  EXPECT_STREQ(products.reason(45, 33), "pin was not called for this shape");
  ASSERT_TRUE(products.pin({rows.data(), w.n, w.k}, 64, nullptr).ok());
  EXPECT_FALSE(products.pinned(45, 33));
  EXPECT_STREQ(products.reason(45, 33), "n and k must be multiples of 8");
  Lt::products = &products;
  Lt::rows = rows.data();
  const Forward f{.rows = 9};
  test::expect_dot_sums(test::forward<Lt>(w, f), w, f, 4.0 * 33 + 16);
}

TEST_F(CublasltGpu, RefusesWhatCannotBePinned) {
  LtLinear products;
  EXPECT_EQ(products.pin({nullptr, 8, 8}, 0, nullptr).code, kInvalidArgument);
  EXPECT_EQ(products.pin({nullptr, 0, 8}, 1, nullptr).code, kInvalidArgument);
  EXPECT_EQ(products.pin({nullptr, 8, 8}, 1, nullptr).code, kInvalidArgument);
}

}  // namespace
}  // namespace temper::kernels::cuda
