// Parquet files, where the build reads them; the others refuse them by name (read_jsonl_test).
#include <gtest/gtest.h>

#include "data_test_util.h"
#include "temper/data/completions.h"
#include "temper/data/preference.h"

#ifdef TEMPER_PARQUET
#include <arrow/api.h>
#include <arrow/io/file.h>
#include <arrow/json/from_string.h>
#include <parquet/arrow/writer.h>
#endif

namespace temper {
namespace {

#ifdef TEMPER_PARQUET

/// Writes columns given as JSON arrays, 3 rows a row group.
void write_parquet(const std::filesystem::path& path, const arrow::FieldVector& fields,
                   const std::vector<std::string>& columns) {
  arrow::ArrayVector arrays;
  for (size_t i = 0; i < fields.size(); ++i) {
    arrays.push_back(arrow::json::ArrayFromJSONString(fields[i]->type(), columns[i]).ValueOrDie());
  }
  const auto table = arrow::Table::Make(arrow::schema(fields), arrays);
  const auto file = arrow::io::FileOutputStream::Open(path.string()).ValueOrDie();
  ASSERT_TRUE(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), file, 3).ok());
  ASSERT_TRUE(file->Close().ok());
}

TEST(Parquet, RowsAreThoseOfTheSameJsonLines) {
  const ScratchFile file("a.parquet", "");
  const auto message = arrow::struct_({arrow::field("role", arrow::utf8()), arrow::field("content", arrow::utf8())});
  write_parquet(file.path(),
                {arrow::field("prompt", arrow::list(message)),
                 arrow::field("completion", arrow::list(message)), arrow::field("label", arrow::boolean()),
                 arrow::field("weight", arrow::float64())},
                {R"([[{"role": "user", "content": "a"}], [{"role": "user", "content": "b\"\n"}]])",
                 R"([[{"role": "assistant", "content": "x"}], [{"role": "assistant", "content": "y"}]])",
                 "[true, false]", "[0.5, null]"});
  const CompletionData read = read_completions(file.path());
  const CompletionData same = parse_completions(
      R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "x"}], "label": true, "weight": 0.5})"
      "\n"
      R"({"prompt": [{"role": "user", "content": "b\"\n"}], "completion": [{"role": "assistant", "content": "y"}], "label": false})",
      "same");
  ASSERT_EQ(read.records.size(), 2u);
  EXPECT_EQ(read.form, DataForm::kUnpaired);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read.records[i].prompt, same.records[i].prompt);
    EXPECT_EQ(read.records[i].completion, same.records[i].completion);
    EXPECT_EQ(read.records[i].label, same.records[i].label);
    EXPECT_EQ(read.records[i].weight, same.records[i].weight);
    EXPECT_EQ(read.records[i].line, same.records[i].line);
  }
}

TEST(Parquet, BadRowsAreNamedByTheirNumber) {
  const ScratchFile file("b.parquet", "");
  write_parquet(file.path(),
                {arrow::field("chosen", arrow::utf8()), arrow::field("rejected", arrow::utf8()),
                 arrow::field("when", arrow::date32())},
                {R"(["aa", "ab", "ac", "ad", "ae"])", R"(["b", "b", "b", null, "b"])", "[1, 2, 3, 4, 5]"});
  const std::string error = error_of([&] { (void)read_preferences(file.path()); });
  EXPECT_NE(error.find("b.parquet:4:1"), std::string::npos) << error;
  EXPECT_NE(error.find("\"rejected\""), std::string::npos) << error;
  PreferenceReadOptions o;
  o.skip_bad = true;
  EXPECT_EQ(read_preferences(file.path(), o).pairs.size(), 4u);
}

TEST(Parquet, DamageIsAnError) {
  const ScratchFile file("c.parquet", "PAR1 is not enough");
  const std::string error = error_of([&] { (void)read_completions(file.path()); });
  EXPECT_NE(error.find("c.parquet"), std::string::npos) << error;
}

#else

TEST(Parquet, RowsAreThoseOfTheSameJsonLines) {
  GTEST_SKIP() << "this build does not read Parquet (CMake option TEMPER_PARQUET)";
}

#endif

}  // namespace
}  // namespace temper
