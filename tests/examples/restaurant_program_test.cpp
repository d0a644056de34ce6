// examples/restaurant_dpo as a program, over tables of our own and a random model.
#include "cli/run_program.h"
#include "survey.h"
#include "temper/core/rng.h"
#include "trainer/tiny_model.h"

namespace restaurant {
namespace {

using temper::cli_test::Folder;
using temper::cli_test::Outcome;
using temper::cli_test::run_program;
using temper::error_of;

constexpr const char* kProfileHead =
    "userID,latitude,longitude,smoker,drink_level,dress_preference,ambience,transport,"
    "marital_status,hijos,birth_year,interest,personality,religion,activity,color,weight,budget,"
    "height\n";
constexpr const char* kPlaceHead =
    "placeID,latitude,longitude,name,alcohol,smoking_area,dress_code,price,Rambience,area\n";

/// Thirty guests and nine places in tables that look like the survey's.
void write_tables(const Folder& folder) {
  std::string guests = kProfileHead, cuisines = "userID,Rcuisine\n", places = kPlaceHead;
  std::string kinds = "placeID,Rcuisine\n99,Bar\n", ratings = "userID,placeID,rating,food_rating\n";
  temper::RngStream rng(2, temper::RngPurpose::kTest, 0);
  for (int g = 0; g < 30; ++g) {
    const std::string id = temper::concat("U", g);
    guests += id + ",22.1,-100.9,false,abstemious,?,family,public,secret,?,1901,?,?,secret,?,?,1,low,1\n";
    cuisines += id + (g % 2 == 0 ? ",Mexican\n" : ",Pizzeria\n");
    for (int p = 0; p < 9; ++p) {
      if (rng.next_below(2) == 0) continue;
      ratings += id + "," + std::to_string(p) + "," + std::to_string((g + p) % 3) + ",1\n";
    }
  }
  for (int p = 0; p < 9; ++p) {
    const std::string id = std::to_string(p);
    places += id + ",22.2,-101,Caf\xe9 " + id + ",No_Alcohol_Served,none,informal,low,familiar,closed\n";
    kinds += id + (p % 2 == 0 ? ",Mexican\n" : ",Cafe-Coffee_Shop\n");
  }
  (void)folder.write("userprofile.csv", guests);
  (void)folder.write("usercuisine.csv", cuisines);
  (void)folder.write("geoplaces2.csv", places);
  (void)folder.write("chefmozcuisine.csv", kinds);
  (void)folder.write("rating_final.csv", ratings);
}

/// The tests' random model with room for prompts of letters.
std::string roomy_model(const Folder& folder) {
  temper::ModelSource source = temper::testing_trainer::tiny_source();
  source.config.max_positions = 1024;
  temper::write_hf_folder(folder / "model", source, temper::testing_trainer::tiny_tensors(), {});
  return folder / "model";
}

TEST(RestaurantSurvey, ReadsTheTablesAndSaysNothingPrivate) {
  const Folder folder;
  write_tables(folder);
  const Survey s = read_survey(folder / "");
  ASSERT_EQ(s.guests.size(), 30u);
  ASSERT_EQ(s.places.size(), 9u);
  EXPECT_EQ(s.places[3].name, "Caf\xc3\xa9 3");  // Latin-1 in the file.
  EXPECT_EQ(card_of(s.places[3]),
            " San Luis Potosi, low prices, no alcohol, no smoking, Cafe-Coffee Shop food: Caf\xc3\xa9 3");
  EXPECT_EQ(prompt_of(s.guests[0]),
            "Guest in San Luis Potosi, likes Mexican food, low budget, no smoker, abstemious, family. "
            "Restaurant:");
  for (const Guest& g : s.guests) {
    EXPECT_EQ(prompt_of(g).find("secret"), std::string::npos);
    EXPECT_EQ(prompt_of(g).find("1901"), std::string::npos);
  }
  EXPECT_EQ(reasons(s.guests[0], s.places[0]),
            (std::vector<std::string>{"it serves Mexican food", "it is in San Luis Potosi",
                                      "its prices are low", "nobody smokes", "it serves no alcohol"}));
}

TEST(RestaurantSurvey, FaultsNameFileAndLine) {
  const Folder folder;
  write_tables(folder);
  (void)folder.write("rating_final.csv", "userID,placeID,rating\nU0,1,2\nU0,2,many\n");
  EXPECT_NE(error_of([&] { (void)read_survey(folder / ""); }).find("rating_final.csv:3"),
            std::string::npos);
  (void)folder.write("rating_final.csv", "userID,placeID,rating\nU99,1,2\n");
  EXPECT_NE(error_of([&] { (void)read_survey(folder / ""); }).find("rating_final.csv:2"),
            std::string::npos);
}

TEST(RestaurantProgram, TrainsComparesAndRecommends) {
  const Folder folder;
  write_tables(folder);
  const std::vector<std::string> words{"--data",  folder / "", "--model",  roomy_model(folder),
                                       "--quick", "--output",  folder / "adapters"};
  const Outcome o = run_program("restaurant_dpo", words);
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.out.find("asking dpo"), std::string::npos);
  for (const char* row : {"\n| random | ", "\n| popularity | ", "\n| popularity in the guest's town | ",
                          "\n| BPR matrix factorisation (", "\n| the untrained model by ", "\n| dpo by ",
                          "\n| simpo by ", "\nFor guest U", "By NDCG@10 the best tuned model"}) {
    EXPECT_NE(o.out.find(row), std::string::npos) << row << "\n" << o.out;
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "adapters/dpo/adapter_model.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(folder / "adapters/simpo/adapter_model.safetensors"));
  // Adapters and scores in the folder are used again, and come to the same table.
  const Outcome again = run_program("restaurant_dpo", words);
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(again.out.find("asking"), std::string::npos);
  EXPECT_EQ(again.out.find("step 1"), std::string::npos);
  const auto table = [](const std::string& out) { return out.substr(out.find("\nChosen on ")); };
  EXPECT_EQ(table(again.out), table(o.out));
  std::vector<std::string> other = words;
  other.insert(other.end(), {"--unrated", "1"});
  EXPECT_NE(run_program("restaurant_dpo", other).out.find("step 1"), std::string::npos);
  const Outcome none = run_program("restaurant_dpo", {"--data", folder / "nowhere"});
  EXPECT_EQ(none.code, 1);
  EXPECT_TRUE(none.says("no such file")) << none.err;
}

}  // namespace
}  // namespace restaurant
