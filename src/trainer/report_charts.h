#pragma once

#include <set>
#include <string>

#include "report_data.h"

namespace temper {

/// Cards with the curves of all metrics that the report knows by name; adds their names to `drawn`.
[[nodiscard]] std::string known_metric_charts(const RunData& run, std::set<std::string>& drawn);

/// A card with the accuracy on held-out data and its 95 % intervals; empty without evaluations.
[[nodiscard]] std::string eval_chart(const RunData& run);

/// A folded section with the metrics that are not in `drawn`; empty if there are none.
[[nodiscard]] std::string other_metric_charts(const RunData& run,
                                              const std::set<std::string>& drawn);

}  // namespace temper
