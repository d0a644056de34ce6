#pragma once

#include <cstdint>
#include <span>

#include "temper/core/torch.h"
#include "temper/data/batch.h"
#include "temper/objective/objective.h"

namespace temper {

/// Scores of one micro-batch of preference pairs. Tensors share one floating dtype and device.
struct ScoredPairs {
  at::Tensor chosen;    ///< [P] reward of the preferred side, differentiable.
  at::Tensor rejected;  ///< [P] reward of the other side, differentiable.
  at::Tensor margin;    ///< [P] by how much the first is to exceed the second, or undefined: 0.
  double total = 0;     ///< Pairs of the whole optimizer step: what the loss is divided by.
};

/// The reward model's loss: the negative log-likelihood of the preferences under Bradley and Terry
/// (1952), where P(chosen beats rejected) = sigmoid(r_w - r_l). With z = r_w - r_l - margin,
/// smoothing e and centring c (Eisenstein et al. 2023, arXiv 2312.09244), over the step's pairs:
///
///     1 / total sum_pairs (1 - e) log(1 + exp(-z)) + e log(1 + exp(z)) + c (r_w + r_l)^2
///
/// Arithmetic is float64; no z overflows. Gradient of r_w in a pair without smoothing:
/// (-sigmoid(-z) + 2 c (r_w + r_l)) / total; a pair's gradient does not depend on the others, so a
/// split into micro-batches changes no bit of it.
///
/// Metrics, with TRL's names: `accuracy` (share of pairs with r_w > r_l; the margin plays no part),
/// `margin` (mean of r_w - r_l), `mean_reward`, `min_reward`, `max_reward` (over both sides).
struct BradleyTerry {
  struct Config {
    double center_coef = 0;
    double label_smoothing = 0;

    template <class V>
    void visit(V&& v) {
      v(center_coef, "center_coef",
        "Weight of the squared sum of a pair's rewards, which keeps rewards near 0 (0.01 is "
        "usual), at least 0.");
      v(label_smoothing, "label_smoothing",
        "Share of preferences that are taken to be the wrong way round, in [0, 0.5).");
    }
  };
  using Batch = ScoredPairs;
  Config config;

  /// @throws Error if shapes disagree, there is no pair, or a setting is out of its range.
  LossOutput operator()(const ScoredPairs& batch) const;
};

static_assert(Objective<BradleyTerry>);

/// Expected calibration error of a reward model's probabilities (Guo et al. 2017, arXiv 1706.04599,
/// eq. 3): the side with the higher reward is taken to win with p = sigmoid(|r_w - r_l|); pairs are
/// sorted into `bins` equal parts of [0.5, 1] by p, and the distances between a part's mean p and
/// the share of its pairs where that side was the preferred one (a tie counts half) are averaged by
/// the parts' sizes. 0: a difference of 1 is right in sigmoid(1) = 73 % of the cases.
/// @param differences  r_w - r_l of held-out pairs; not empty, not NaN.
/// @param bins         at least 1.
[[nodiscard]] double calibration_error(std::span<const double> differences, int64_t bins = 10);

}  // namespace temper
