#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace restaurant {

/// What a guest says of herself, as far as choosing a restaurant needs it. The table knows more
/// (religion, year of birth, family, weight, ...); none of that is read. Empty: not stated.
struct Guest {
  std::string id, town;
  bool smoker = false;
  std::string drinks, dress, ambience, budget;
  std::vector<std::string> cuisines;
};

/// A restaurant's card. Empty: not stated.
struct Place {
  std::string id, name, town, price, alcohol, smoking, dress, ambience;
  bool open_air = false;
  std::vector<std::string> cuisines;
};

/// How much a guest liked a restaurant on the whole: 0, 1 or 2.
struct Rating {
  size_t guest = 0, place = 0;  ///< Indices into `Survey`.
  int overall = 0;
  bool operator==(const Rating&) const = default;
};
inline constexpr int kLiked = 2;

/// The UCI "Restaurant & consumer data": userprofile.csv, usercuisine.csv, geoplaces2.csv,
/// chefmozcuisine.csv and rating_final.csv.
struct Survey {
  std::vector<Guest> guests;
  std::vector<Place> places;
  std::vector<Rating> ratings;
};

/// @throws temper::Error naming file and line: a missing file or column, a number that is none, a
/// rating by or of somebody who is not in the tables.
[[nodiscard]] Survey read_survey(const std::filesystem::path& folder);

/// Profile and context in words: the prompt.
[[nodiscard]] std::string prompt_of(const Guest& guest);

/// The card in words, what many places have in common first: the answer. It begins with a space.
[[nodiscard]] std::string card_of(const Place& place);

/// Which words of the card answer to which of the guest's; may be empty.
[[nodiscard]] std::vector<std::string> reasons(const Guest& guest, const Place& place);

}  // namespace restaurant
