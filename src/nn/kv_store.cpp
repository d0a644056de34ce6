#include "temper/nn/kv_store.h"

#include <algorithm>
#include <new>

#include "temper/core/error.h"

namespace temper {

KvStore::KvStore(int64_t layers, int64_t kv_width, int64_t pages)
    : kv_width_(kv_width), pages_(pages) {
  TEMPER_CHECK(layers > 0 && kv_width > 0 && pages > 0, "[KvStore] needs at least one layer, one ",
               "column and one page, got ", layers, ", ", kv_width, ", ", pages);
  try {
    slabs_.resize(static_cast<size_t>(2 * layers));
    for (auto& s : slabs_) s.resize(static_cast<size_t>(pages * kPageRows * kv_width));
  } catch (const std::bad_alloc&) {
    fail("[KvStore] cannot allocate ", pages * page_bytes(layers, kv_width),
         " bytes; lower rollout.kv_memory_mb");
  }
  for (int64_t p = pages; p-- > 0;) free_.push_back(static_cast<int32_t>(p));
}

int64_t KvStore::page_bytes(int64_t layers, int64_t kv_width) {
  return 2 * layers * kv_width * kPageRows * static_cast<int64_t>(sizeof(float));
}

const KvStore::Node& KvStore::at(int32_t node) const {
  TEMPER_CHECK(node >= 0 && static_cast<size_t>(node) < nodes_.size() &&
                   nodes_[static_cast<size_t>(node)].holders > 0,
               "[KvStore] node ", node, " does not exist");
  return nodes_[static_cast<size_t>(node)];
}

int32_t KvStore::open(int32_t parent) {
  if (parent >= 0) nodes_[static_cast<size_t>((void(at(parent)), parent))].holders++;
  int32_t id = static_cast<int32_t>(nodes_.size());
  if (!free_nodes_.empty()) {
    id = free_nodes_.back();
    free_nodes_.pop_back();
  } else {
    nodes_.emplace_back();
  }
  nodes_[static_cast<size_t>(id)] = Node{parent, 1, true, 0, {}};
  return id;
}

bool KvStore::reserve(int32_t node, int64_t rows) {
  Node& n = nodes_[static_cast<size_t>((void(at(node)), node))];
  const int64_t missing = pages_for(n.length + rows) - static_cast<int64_t>(n.pages.size());
  if (missing > free_pages()) return false;
  for (int64_t i = 0; i < missing; ++i) {
    n.pages.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

int64_t KvStore::append(int32_t node) {
  Node& n = nodes_[static_cast<size_t>((void(at(node)), node))];
  const int64_t page = n.length / kPageRows;
  TEMPER_CHECK(page < static_cast<int64_t>(n.pages.size()), "[KvStore] node ", node,
               " has no room: reserve before append");
  return n.pages[static_cast<size_t>(page)] * kPageRows + n.length++ % kPageRows;
}

void KvStore::close(int32_t node) {
  TEMPER_CHECK(at(node).open, "[KvStore] node ", node, " is closed already");
  nodes_[static_cast<size_t>(node)].open = false;
  release(node);
}

void KvStore::release(int32_t node) {
  while (node >= 0) {
    Node& n = nodes_[static_cast<size_t>(node)];
    if (--n.holders > 0) return;
    // Pages go back in reverse, so the next taker gets the lowest first.
    for (auto it = n.pages.rbegin(); it != n.pages.rend(); ++it) free_.push_back(*it);
    n.pages.clear();
    free_nodes_.push_back(node);
    node = n.parent;
  }
}

int64_t KvStore::total_length(int32_t node) const {
  int64_t total = 0;
  for (; node >= 0; node = at(node).parent) total += at(node).length;
  return total;
}

void KvStore::append_spans(int32_t node, std::vector<kernels::KeySpan>& spans) const {
  if (at(node).parent >= 0) append_spans(at(node).parent, spans);
  const Node& n = at(node);
  for (int64_t done = 0; done < n.length; done += kPageRows) {
    spans.push_back({n.pages[static_cast<size_t>(done / kPageRows)] * kPageRows,
                     std::min(kPageRows, n.length - done)});
  }
}

}  // namespace temper
