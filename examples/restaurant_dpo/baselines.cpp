#include "baselines.h"

#include <cmath>
#include <numeric>

#include "temper/core/rng.h"

namespace restaurant {

std::vector<double> popularity(std::span<const Rating> train, size_t places) {
  std::vector<double> likes(places);
  for (const Rating& r : train) likes[r.place] += r.overall == kLiked ? 1 : 0;
  return likes;
}

BprModel::BprModel(size_t guests, size_t places, const Config& config)
    : config_(config),
      u_(guests * config.factors),
      v_(places * config.factors),
      bias_(places) {
  temper::RngStream rng(config.seed, temper::RngPurpose::kInit, 0);
  for (auto* factors : {&u_, &v_}) {
    for (double& f : *factors) f = 0.1 * (rng.next_uniform() - 0.5);
  }
}

double BprModel::score(size_t guest, size_t place) const {
  const double* u = u_.data() + guest * config_.factors;
  const double* v = v_.data() + place * config_.factors;
  return std::inner_product(u, u + config_.factors, v, bias_[place]);
}

double BprModel::step(const Preference& p) {
  const double x = score(p.guest, p.better) - score(p.guest, p.worse);
  const double pull = 1 / (1 + std::exp(x));  // -d loss / d x
  const auto move = [&](double& value, double along) {
    value += config_.rate * (pull * along - config_.decay * value);
  };
  for (size_t f = 0; f < config_.factors; ++f) {
    double& u = u_[p.guest * config_.factors + f];
    double& a = v_[p.better * config_.factors + f];
    double& b = v_[p.worse * config_.factors + f];
    const double u_before = u;
    move(u, a - b);
    move(a, u_before);
    move(b, -u_before);
  }
  move(bias_[p.better], 1);
  move(bias_[p.worse], -1);
  return std::log1p(std::exp(-x));
}

double BprModel::epoch(std::span<const Preference> preferences) {
  temper::RngStream rng(config_.seed, temper::RngPurpose::kShuffle, epochs_++);
  std::vector<size_t> order(preferences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  double loss = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    std::swap(order[i], order[i + rng.next_below(order.size() - i)]);
    loss += step(preferences[order[i]]);
  }
  return preferences.empty() ? 0 : loss / static_cast<double>(preferences.size());
}

}  // namespace restaurant
