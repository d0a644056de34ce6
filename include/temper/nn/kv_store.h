#pragma once

#include <cstdint>
#include <vector>

#include "temper/kernels/tree_attention.h"

namespace temper {

/// Paged keys and values of texts in progress, as a tree: a node continues its parent, so the
/// completions of a group share the pages of their prompt. Float32, one slab a layer for each of K
/// and V. Not thread-safe.
class KvStore {
 public:
  static constexpr int64_t kPageRows = 32;

  /// @param pages  pages of `kPageRows` tokens; see `page_bytes`.
  /// @throws Error when the memory cannot be had.
  KvStore(int64_t layers, int64_t kv_width, int64_t pages);

  /// Bytes of one page over all layers, keys and values.
  [[nodiscard]] static int64_t page_bytes(int64_t layers, int64_t kv_width);

  /// A new, empty node after `parent` (-1: a root).
  [[nodiscard]] int32_t open(int32_t parent);
  /// Makes room for `rows` more tokens at the end of the node. False, and nothing changed, when the
  /// store has too few free pages.
  [[nodiscard]] bool reserve(int32_t node, int64_t rows);
  /// Appends one token to a node with room and returns its row in the slabs.
  [[nodiscard]] int64_t append(int32_t node);
  /// Gives the node up. Its pages are freed once no open node descends from it.
  void close(int32_t node);

  /// Tokens of the node itself, and with all of its ancestors.
  [[nodiscard]] int64_t length(int32_t node) const { return at(node).length; }
  [[nodiscard]] int64_t total_length(int32_t node) const;
  /// Appends the key spans of the node's ancestors and of itself, in logical order.
  void append_spans(int32_t node, std::vector<kernels::KeySpan>& spans) const;

  [[nodiscard]] float* keys(int64_t layer) { return slabs_[static_cast<size_t>(2 * layer)].data(); }
  [[nodiscard]] float* values(int64_t layer) {
    return slabs_[static_cast<size_t>(2 * layer + 1)].data();
  }
  [[nodiscard]] int64_t kv_width() const { return kv_width_; }
  [[nodiscard]] int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  [[nodiscard]] int64_t pages() const { return pages_; }
  [[nodiscard]] static int64_t pages_for(int64_t tokens) {
    return (tokens + kPageRows - 1) / kPageRows;
  }

 private:
  struct Node {
    int32_t parent = -1;
    int32_t holders = 0;  // Itself while open, plus living children.
    bool open = false;
    int64_t length = 0;
    std::vector<int32_t> pages;
  };
  [[nodiscard]] const Node& at(int32_t node) const;
  void release(int32_t node);

  int64_t kv_width_;
  int64_t pages_;
  std::vector<std::vector<float>> slabs_;
  std::vector<int32_t> free_;  // A stack; the lowest page is on top at first.
  std::vector<Node> nodes_;
  std::vector<int32_t> free_nodes_;
};

}  // namespace temper
