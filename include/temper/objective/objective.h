#pragma once

#include <concepts>
#include <functional>

#include "temper/core/config.h"
#include "temper/data/batch.h"

namespace temper {

/// Settings that declare their fields once, by `visit`.
template <class C>
concept VisitableConfig = std::copyable<C> && std::default_initializable<C> &&
                          requires(C& config, ConfigVisitor& visitor) { config.visit(visitor); };

/// A loss: settings, the batch that it reads, and one call.
///
/// The call is a pure function of the batch. It returns the micro-batch's share of the step's loss,
/// already divided by `Batch::totals`, so that shares are summed and the split into micro-batches
/// cannot change the result. See docs/add_a_loss.md.
template <class O>
concept Objective =
    VisitableConfig<typename O::Config> &&
    requires(const O& objective, const typename O::Config& config, const typename O::Batch& batch) {
      O{config};
      { objective(batch) } -> std::same_as<LossOutput>;
    };

/// Any objective over rollouts, as a value: what a trainer holds.
using RolloutObjective = std::function<LossOutput(const RolloutBatch&)>;

/// An objective that a `RolloutObjective` can hold.
template <class O>
concept RolloutLossType = Objective<O> && std::same_as<typename O::Batch, RolloutBatch>;

}  // namespace temper
