#include "card_scores.h"

#include <algorithm>

#include "temper/core/error.h"

namespace restaurant {
namespace {

using Ids = std::vector<int32_t>;

/// Where a text has got to in the tree.
struct Branch {
  int32_t segment = 0;  ///< What the next segment continues.
  int32_t row = 0;      ///< Its last row.
  size_t depth = 0;     ///< Tokens of the cards that are placed.
  Ids path;
};

class Builder {
 public:
  Builder(std::span<const int32_t> prompt, std::span<const Ids* const> cards)
      : cards_(cards), prompt_(static_cast<int32_t>(prompt.size())) {
    TEMPER_CHECK(!prompt.empty(), "[card_tree] the prompt has no tokens");
    tree_.paths.resize(cards.size());
    order_.resize(cards.size());
    for (size_t i = 0; i < order_.size(); ++i) order_[i] = i;
    std::sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return *cards[a] < *cards[b]; });
    append(-1, prompt, 0);
  }

  CardTree build() {
    grow(0, order_.size(), {0, prompt_ - 1, 0, {}});
    return std::move(tree_);
  }

 private:
  [[nodiscard]] const Ids& card(size_t sorted) const { return *cards_[order_[sorted]]; }

  int32_t append(int32_t parent, std::span<const int32_t> ids, int32_t position) {
    auto& b = tree_.batch;
    const auto start = static_cast<int32_t>(b.ids.size());
    b.segments.push_back({parent, start, static_cast<int32_t>(ids.size()), -1});
    b.ids.insert(b.ids.end(), ids.begin(), ids.end());
    for (size_t i = 0; i < ids.size(); ++i) b.positions.push_back(position++);
    return start;
  }

  /// Cards [begin, end) of the sorted ones share `at.depth` tokens.
  void grow(size_t begin, size_t end, Branch at) {
    if (begin == end) return;
    const Ids &first = card(begin), &last = card(end - 1);  // Sorted: what these share, all do.
    const auto shared = static_cast<size_t>(
        std::mismatch(first.begin(), first.end(), last.begin(), last.end()).first - first.begin());
    const bool whole = shared == last.size();  // One card, or equal ones.
    TEMPER_CHECK(whole || shared < first.size(),
                 "[card_tree] a card is empty or the beginning of another one");
    extend(at, std::span(first).subspan(at.depth, shared - at.depth), whole);
    if (whole) {
      for (size_t i = begin; i < end; ++i) tree_.paths[order_[i]] = at.path;
      return;
    }
    for (size_t from = begin, to = begin; from < end; from = to) {
      while (to < end && card(to)[shared] == card(from)[shared]) ++to;
      grow(from, to, at);
    }
  }

  /// Adds tokens to a branch. Nothing is predicted from the last one of a card: it gets no row.
  void extend(Branch& at, std::span<const int32_t> ids, bool ends) {
    if (ids.empty()) return;
    const auto rows = ids.first(ids.size() - (ends ? 1 : 0));
    const auto segment = static_cast<int32_t>(tree_.batch.segments.size());
    const int32_t start =
        rows.empty() ? 0 : append(at.segment, rows, prompt_ + static_cast<int32_t>(at.depth));
    for (size_t t = 0; t < ids.size(); ++t) {
      predict(at, t == 0 ? at.row : start + static_cast<int32_t>(t) - 1, ids[t]);
    }
    if (!rows.empty()) {
      at.segment = segment;
      at.row = start + static_cast<int32_t>(rows.size()) - 1;
    }
    at.depth += ids.size();
  }

  void predict(Branch& at, int32_t row, int32_t target) {
    at.path.push_back(static_cast<int32_t>(tree_.request.rows.size()));
    tree_.request.rows.push_back(row);
    tree_.request.targets.push_back(target);
  }

  std::span<const Ids* const> cards_;
  std::vector<size_t> order_;
  int32_t prompt_;
  CardTree tree_;
};

}  // namespace

CardTree card_tree(std::span<const int32_t> prompt, std::span<const Ids* const> cards) {
  return Builder(prompt, cards).build();
}

std::vector<CardScore> score_cards(temper::CausalLM& model, const CardTree& tree) {
  const at::Tensor logprobs = temper::score(model, tree.batch, tree.request, 1.0).logprobs;
  const float* p = logprobs.const_data_ptr<float>();
  std::vector<CardScore> out;
  for (const Ids& path : tree.paths) {
    CardScore s{0, std::ssize(path)};
    for (const int32_t i : path) s.sum += static_cast<double>(p[i]);
    out.push_back(s);
  }
  return out;
}

}  // namespace restaurant
