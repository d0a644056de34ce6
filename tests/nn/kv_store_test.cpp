#include "temper/nn/kv_store.h"

#include <gtest/gtest.h>

#include "temper/core/error.h"

namespace temper {
namespace {

TEST(KvStore, ChildrenShareTheirParentsPages) {
  KvStore kv(1, 4, 5);
  const int32_t prompt = kv.open(-1);
  ASSERT_TRUE(kv.reserve(prompt, 40));
  for (int i = 0; i < 40; ++i) (void)kv.append(prompt);
  ASSERT_EQ(kv.free_pages(), 3);
  const int32_t a = kv.open(prompt);
  const int32_t b = kv.open(prompt);
  ASSERT_TRUE(kv.reserve(a, 2));
  ASSERT_TRUE(kv.reserve(b, 1));
  (void)kv.append(a);
  (void)kv.append(a);
  EXPECT_EQ(kv.append(b), 3 * 32);
  EXPECT_EQ(kv.total_length(a), 42);
  std::vector<kernels::KeySpan> spans;
  kv.append_spans(a, spans);
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[0].first_row, 0);
  EXPECT_EQ(spans[0].count, 32);
  EXPECT_EQ(spans[1].first_row, 32);
  EXPECT_EQ(spans[1].count, 8);
  EXPECT_EQ(spans[2].first_row, 2 * 32);
  EXPECT_EQ(spans[2].count, 2);
}

TEST(KvStore, PagesComeBackWhenTheLastDescendantCloses) {
  KvStore kv(1, 4, 3);
  const int32_t prompt = kv.open(-1);
  ASSERT_TRUE(kv.reserve(prompt, 1));
  (void)kv.append(prompt);
  const int32_t child = kv.open(prompt);
  ASSERT_TRUE(kv.reserve(child, 33));
  EXPECT_FALSE(kv.reserve(prompt, 64));
  kv.close(prompt);
  EXPECT_EQ(kv.free_pages(), 0);
  EXPECT_THROW(kv.close(prompt), Error);
  kv.close(child);
  EXPECT_EQ(kv.free_pages(), 3);
  EXPECT_THROW((void)kv.length(child), Error);
}

TEST(KvStore, AppendNeedsRoom) {
  KvStore kv(1, 4, 1);
  const int32_t node = kv.open(-1);
  EXPECT_THROW((void)kv.append(node), Error);
  EXPECT_EQ(KvStore::page_bytes(30, 192), 2 * 30 * 192 * 32 * 4);
}

}  // namespace
}  // namespace temper
