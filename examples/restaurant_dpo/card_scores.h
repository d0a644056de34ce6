#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "temper/nn/scoring.h"

namespace restaurant {

/// Log-probability of a text behind a prompt.
struct CardScore {
  double sum = 0;      ///< Nats, over its tokens.
  int64_t tokens = 0;
  [[nodiscard]] double mean() const { return sum / static_cast<double>(tokens); }
  bool operator==(const CardScore&) const = default;
};

/// Texts behind one prompt as one tree of tokens: the prompt is computed once, and so is every
/// beginning that several texts share.
struct CardTree {
  temper::TokenBatch batch;
  temper::ScoreRequest request;
  std::vector<std::vector<int32_t>> paths;  ///< [texts] indices into `request`, token by token.
};

/// @param prompt  token ids, not empty. @param cards  token ids, each with an end token that stands
/// nowhere else in it. @throws temper::Error for a card that is the beginning of another one.
[[nodiscard]] CardTree card_tree(std::span<const int32_t> prompt,
                                 std::span<const std::vector<int32_t>* const> cards);

/// The cards' scores, in order: the bits of scoring each by itself.
[[nodiscard]] std::vector<CardScore> score_cards(temper::CausalLM& model, const CardTree& tree);

}  // namespace restaurant
