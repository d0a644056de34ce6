#include "split.h"

#include <algorithm>
#include <set>

#include "temper/core/rng.h"

namespace restaurant {
namespace {

using temper::RngPurpose;
using temper::RngStream;
enum Stream : uint64_t { kHeldOut = 0x10, kRivals = 0x11, kUnrated = 0x12 };

std::set<size_t> rated_by(std::span<const Rating> ratings, size_t guest) {
  std::set<size_t> out;
  for (const Rating& r : ratings) {
    if (r.guest == guest) out.insert(r.place);
  }
  return out;
}

/// Moves `count` drawn elements to the front and drops the others; 0 or too many: keeps all.
void draw(std::vector<size_t>& from, size_t count, RngStream& rng) {
  if (count == 0 || count >= from.size()) return;
  for (size_t i = 0; i < count; ++i) std::swap(from[i], from[i + rng.next_below(from.size() - i)]);
  from.resize(count);
}

std::vector<size_t> places_without(size_t count, const std::set<size_t>& rated) {
  std::vector<size_t> out;
  for (size_t p = 0; p < count; ++p) {
    if (!rated.contains(p)) out.push_back(p);
  }
  return out;
}

}  // namespace

Split leave_one_out(const Survey& survey, const SplitConfig& config) {
  Split out;
  out.train = survey.ratings;
  RngStream held(config.seed, RngPurpose::kTask, kHeldOut);
  RngStream rivals(config.seed, RngPurpose::kTask, kRivals);
  for (size_t g = 0; g < survey.guests.size(); ++g) {
    const std::set<size_t> rated = rated_by(survey.ratings, g);
    std::vector<size_t> liked;
    for (const Rating& r : survey.ratings) {
      if (r.guest == g && r.overall == kLiked) liked.push_back(r.place);
    }
    Trial trial{g, places_without(survey.places.size(), rated)};
    if (liked.empty() || rated.size() < 2 || trial.places.empty()) continue;
    draw(trial.places, config.rivals, rivals);
    const size_t wanted = liked[held.next_below(liked.size())];
    trial.places.insert(trial.places.begin(), wanted);
    std::erase_if(out.train, [&](const Rating& r) { return r.guest == g && r.place == wanted; });
    (held.next_uniform() < config.validation ? out.validation : out.test).push_back(trial);
  }
  return out;
}

std::vector<Preference> rated_pairs(std::span<const Rating> train) {
  std::vector<Preference> out;
  for (const Rating& a : train) {
    for (const Rating& b : train) {
      if (a.guest == b.guest && a.overall > b.overall) out.push_back({a.guest, a.place, b.place});
    }
  }
  return out;
}

std::vector<Preference> unrated_pairs(std::span<const Rating> train, size_t places, size_t count,
                                      uint64_t seed) {
  std::vector<Preference> out;
  if (count == 0) return out;
  RngStream rng(seed, RngPurpose::kTask, kUnrated);
  for (const Rating& r : train) {
    if (r.overall != kLiked) continue;
    std::vector<size_t> others = places_without(places, rated_by(train, r.guest));
    draw(others, count, rng);
    for (const size_t p : others) out.push_back({r.guest, r.place, p});
  }
  return out;
}

}  // namespace restaurant
