#include "survey.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <map>

#include "temper/core/error.h"
#include "temper/data/csv.h"

namespace restaurant {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

/// A table by the names of its columns; "?" is what it writes for nothing.
class Table {
 public:
  explicit Table(const fs::path& file)
      : name_(file.string()), reader_(file, {.encoding = "latin-1"}) {}

  bool next() { return reader_.next(record_); }
  [[nodiscard]] std::string text(std::string_view column) const {
    std::string cell = record_.cells[reader_.column(column)];
    const size_t from = cell.find_first_not_of(' ');
    cell = from == std::string::npos ? "" : cell.substr(from, cell.find_last_not_of(' ') + 1 - from);
    return cell == "?" ? "" : cell;
  }
  template <class Number>
  [[nodiscard]] Number number(std::string_view column) const {
    const std::string cell = text(column);
    Number value{};
    const auto [end, fault] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
    TEMPER_CHECK(fault == std::errc() && end == cell.data() + cell.size(), name_, ":", record_.line,
                 ": expected a number in column \"", column, "\"");
    return value;
  }
  /// The index under which `known` has a cell's name.
  [[nodiscard]] size_t index(std::string_view column, const std::map<std::string, size_t>& known) {
    const auto it = known.find(text(column));
    TEMPER_CHECK(it != known.end(), name_, ":", record_.line, ": column \"", column,
                 "\" names somebody or something that no other table knows");
    return it->second;
  }

 private:
  std::string name_;
  temper::CsvReader reader_;
  temper::CsvRecord record_;
};

std::string spaced(std::string word) {
  std::replace(word.begin(), word.end(), '_', ' ');
  return word;
}

/// The three towns of the survey: how cities are spelled in it varies, where they lie does not.
std::string town_at(double latitude, double longitude) {
  struct Town {
    const char* name;
    double latitude, longitude;
  };
  constexpr std::array<Town, 3> kTowns{{{"San Luis Potosi", 22.15, -100.98},
                                        {"Cuernavaca", 18.92, -99.23},
                                        {"Ciudad Victoria", 23.74, -99.13}}};
  const auto distance = [&](const Town& t) {
    const double north = latitude - t.latitude, east = longitude - t.longitude;
    return north * north + east * east;  // Of degrees; the towns are hundreds of kilometres apart.
  };
  return std::min_element(kTowns.begin(), kTowns.end(), [&](const Town& a, const Town& b) {
           return distance(a) < distance(b);
         })->name;
}

std::vector<Guest> read_guests(const fs::path& folder, std::map<std::string, size_t>& index) {
  std::vector<Guest> out;
  for (Table t(folder / "userprofile.csv"); t.next();) {
    index[t.text("userID")] = out.size();
    out.push_back({.id = t.text("userID"),
                   .town = town_at(t.number<double>("latitude"), t.number<double>("longitude")),
                   .smoker = t.text("smoker") == "true",
                   .drinks = t.text("drink_level"),
                   .dress = t.text("dress_preference"),
                   .ambience = t.text("ambience"),
                   .budget = t.text("budget"),
                   .cuisines = {}});
  }
  for (Table t(folder / "usercuisine.csv"); t.next();) {
    out[t.index("userID", index)].cuisines.push_back(spaced(t.text("Rcuisine")));
  }
  return out;
}

std::vector<Place> read_places(const fs::path& folder, std::map<std::string, size_t>& index) {
  std::vector<Place> out;
  for (Table t(folder / "geoplaces2.csv"); t.next();) {
    index[t.text("placeID")] = out.size();
    out.push_back({.id = t.text("placeID"),
                   .name = spaced(t.text("name")),
                   .town = town_at(t.number<double>("latitude"), t.number<double>("longitude")),
                   .price = t.text("price"),
                   .alcohol = t.text("alcohol"),
                   .smoking = t.text("smoking_area"),
                   .dress = t.text("dress_code"),
                   .ambience = t.text("Rambience"),
                   .open_air = t.text("area") == "open",
                   .cuisines = {}});
  }
  for (Table t(folder / "chefmozcuisine.csv"); t.next();) {
    const auto it = index.find(t.text("placeID"));  // It lists places that nobody rated, too.
    if (it != index.end()) out[it->second].cuisines.push_back(spaced(t.text("Rcuisine")));
  }
  return out;
}

std::string joined(const Words& words, size_t most, const char* last) {
  std::string out;
  const size_t n = std::min(most, words.size());
  for (size_t i = 0; i < n; ++i) out += (i == 0 ? "" : i + 1 == n ? last : ", ") + words[i];
  return out;
}

std::string alcohol_words(const Place& p) {
  if (p.alcohol == "Full_Bar") return "full bar";
  return p.alcohol == "Wine-Beer" ? "wine and beer" : "no alcohol";
}

bool may_smoke(const Place& p) {
  return p.smoking == "section" || p.smoking == "permitted" || p.smoking == "only at bar";
}

}  // namespace

Survey read_survey(const fs::path& folder) {
  Survey s;
  std::map<std::string, size_t> guests, places;
  s.guests = read_guests(folder, guests);
  s.places = read_places(folder, places);
  for (Table t(folder / "rating_final.csv"); t.next();) {
    s.ratings.push_back(
        {t.index("userID", guests), t.index("placeID", places), t.number<int>("rating")});
  }
  return s;
}

std::string prompt_of(const Guest& g) {
  std::string out = "Guest in " + g.town;
  if (!g.cuisines.empty()) out += ", likes " + joined(g.cuisines, 2, " and ") + " food";
  if (!g.budget.empty()) out += ", " + g.budget + " budget";
  out += g.smoker ? ", smoker" : ", no smoker";
  if (!g.drinks.empty()) out += ", " + g.drinks;
  if (!g.dress.empty() && g.dress != "no preference") out += ", " + g.dress + " dress";
  if (!g.ambience.empty()) out += ", " + g.ambience;
  return out + ". Restaurant:";
}

std::string card_of(const Place& p) {
  std::string out = " " + p.town + ", " + (p.price.empty() ? "unknown" : p.price) + " prices, " +
                    alcohol_words(p) + (may_smoke(p) ? ", smoking section" : ", no smoking");
  if (!p.dress.empty() && p.dress != "informal") out += ", " + p.dress + " dress";
  if (p.ambience == "quiet") out += ", quiet";
  if (p.open_air) out += ", open air";
  if (!p.cuisines.empty()) out += ", " + joined(p.cuisines, 2, " and ") + " food";
  return out + ": " + p.name;
}

Words reasons(const Guest& g, const Place& p) {
  Words out;
  for (const std::string& c : p.cuisines) {
    if (std::ranges::find(g.cuisines, c) != g.cuisines.end()) out.push_back("it serves " + c + " food");
  }
  if (p.town == g.town) out.push_back("it is in " + p.town);
  if (!p.price.empty() && p.price == g.budget) out.push_back("its prices are " + p.price);
  if (g.smoker && may_smoke(p)) out.emplace_back("there is a place to smoke");
  if (!g.smoker && !may_smoke(p)) out.emplace_back("nobody smokes");
  if (g.drinks == "abstemious" && alcohol_words(p) == "no alcohol") out.emplace_back("it serves no alcohol");
  if (g.drinks == "social drinker" && alcohol_words(p) != "no alcohol") {
    out.push_back("it serves " + (p.alcohol == "Full_Bar" ? std::string("drinks") : alcohol_words(p)));
  }
  if (!g.dress.empty() && g.dress == p.dress) out.push_back("dress is " + p.dress);
  return out;
}

}  // namespace restaurant
