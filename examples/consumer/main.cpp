// A program over an installed Temper: the rewards of one prompt's completions become advantages,
// and those the DAPO loss of an update that starts from the policy that sampled.
//   consumer rewards=1,0,0.5 lengths=3,2,4
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "temper/core/config.h"
#include "temper/core/error.h"
#include "temper/core/torch.h"
#include "temper/objective/advantage.h"
#include "temper/objective/dapo.h"
#include "temper/version.h"

struct Settings {
  std::vector<double> rewards = {1, 0, 0.5};
  std::vector<double> lengths = {3, 2, 4};
  template <class V>
  void visit(V&& v) {
    v(rewards, "rewards", "A reward for each completion of the prompt.");
    v(lengths, "lengths", "Tokens of each completion, at least 1.");
  }
};

double loss_of(const temper::Advantages& advantages, const std::vector<double>& lengths) {
  std::vector<int64_t> sequence;  // the completion that each token belongs to
  for (size_t i = 0; i < lengths.size(); ++i) {
    sequence.insert(sequence.end(), static_cast<size_t>(lengths[i]), static_cast<int64_t>(i));
  }
  const auto n = static_cast<int64_t>(sequence.size());
  temper::RolloutBatch batch;
  batch.logprobs = at::full({n}, -1.25, at::dtype(at::kDouble).requires_grad(true));
  batch.old_logprobs = batch.logprobs.detach();
  batch.advantages = at::tensor(advantages.values, at::kDouble);
  batch.mask = at::ones({n}, at::kDouble);
  batch.sequence = at::tensor(sequence, at::kLong);
  batch.sequences = static_cast<int64_t>(lengths.size());
  batch.totals.tokens = static_cast<double>(n);
  batch.totals.sequences = static_cast<double>(lengths.size());
  return temper::Dapo{}(batch).loss.item<double>();
}

int main(int argc, char** argv) {
  try {
    Settings settings;
    for (int i = 1; i < argc; ++i) temper::config_set(temper::config_fields(settings), argv[i]);
    TEMPER_CHECK(settings.lengths.size() == settings.rewards.size(), "[consumer] ",
                 settings.rewards.size(), " rewards, but ", settings.lengths.size(), " lengths");
    for (const double length : settings.lengths) {
      TEMPER_CHECK(length >= 1 && length <= 1e6, "[consumer] a length of ", length);
    }
    temper::RewardTable table;
    table.values = settings.rewards;
    table.group_size = static_cast<int64_t>(settings.rewards.size());
    const temper::Advantages advantages = temper::GroupAdvantage{}(table);
    std::cout << "temper " << TEMPER_VERSION << "\nadvantages";
    for (const double a : advantages.values) std::cout << ' ' << a;
    std::cout << "\nloss " << loss_of(advantages, settings.lengths) << '\n';
    return 0;
  } catch (const temper::Error& error) {
    Settings defaults;
    std::cerr << error.what() << "\nSettings (name=value):\n"
              << temper::config_help(temper::config_fields(defaults));
    return 1;
  }
}
