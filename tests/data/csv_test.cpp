#include "temper/data/csv.h"

#include <zlib.h>

#include "data_test_util.h"
#include "temper/data/completions.h"

namespace temper {
namespace {

using Cells = std::vector<std::string>;

std::vector<Cells> cells_of(std::string_view text, const CsvOptions& options = {}) {
  CsvReader reader = CsvReader::from_text(text, "f.csv", options);
  std::vector<Cells> all{reader.columns()};
  for (CsvRecord record; reader.next(record);) all.push_back(record.cells);
  return all;
}

std::string refusal(std::string_view text, const CsvOptions& options = {}) {
  return error_of([&] { (void)cells_of(text, options); });
}

TEST(Csv, QuotesSeparatorsAndLineEnds) {
  const std::vector<Cells> expected = {
      {"a", "b"}, {"1", "x,y"}, {"", "two\nlines"}, {"say \"hi\"", ""}, {"", ""}};
  const std::string text = "a,b\n1,\"x,y\"\n,\"two\nlines\"\n\n\"say \"\"hi\"\"\",\n\"\",\"\"\n";
  EXPECT_EQ(cells_of(text), expected);
  EXPECT_EQ(cells_of("\xef\xbb\xbf" + text), expected) << "a byte-order mark is no cell";
  EXPECT_EQ(cells_of(text.substr(0, text.size() - 1)), expected) << "no line end at the end";
  std::string dos;
  for (const char c : text) dos += c == '\n' ? std::string("\r\n") : std::string(1, c);
  std::vector<Cells> dos_expected = expected;
  dos_expected[2][1] = "two\r\nlines";  // Inside quotes the bytes are the cell's.
  EXPECT_EQ(cells_of(dos), dos_expected);
}

TEST(Csv, LinesAreCountedThroughQuotedOnes) {
  CsvReader reader = CsvReader::from_text("a\n\"1\n2\n3\"\n\nx\n", "f.csv");
  CsvRecord record;
  ASSERT_TRUE(reader.next(record));
  EXPECT_EQ(record.line, 2u);
  ASSERT_TRUE(reader.next(record));
  EXPECT_EQ(record.line, 6u);
  EXPECT_FALSE(reader.next(record));
  EXPECT_EQ(reader.column("a"), 0u);
  EXPECT_EQ(error_of([&] { (void)reader.column("b"); }),
            "[read_csv] f.csv: no column is called \"b\"; there are \"a\"");
}

TEST(Csv, OtherSeparatorsAndEncodings) {
  CsvOptions o;
  o.separator = "\t";
  EXPECT_EQ(cells_of("a\tb\n1,2\t3\n", o), (std::vector<Cells>{{"a", "b"}, {"1,2", "3"}}));
  o.separator = ",";
  o.encoding = "latin-1";
  EXPECT_EQ(cells_of("a\ncaf\xe9\n", o)[1][0], "caf\u00e9");
  o.encoding = "utf-8";
  o.lossy_utf8 = true;
  EXPECT_EQ(cells_of("a\ncaf\xe9\n", o)[1][0], "caf\ufffd");
  o.separator = "ab";
  EXPECT_NE(refusal("a\n", o), "");
}

TEST(Csv, FaultsArePlaced) {
  EXPECT_EQ(refusal("a,b\n1\n"),
            "[read_csv] f.csv:2:1: expected 2 cells, as the header has, got 1");
  EXPECT_EQ(refusal("a,b\n1,2,3\n"),
            "[read_csv] f.csv:2:1: expected 2 cells, as the header has, got 3");
  EXPECT_EQ(refusal("a,b\n1,\"x\ny\n"),
            "[read_csv] f.csv:2:3: the quote that opens here is not closed");
  EXPECT_EQ(refusal("a,b\n1,5\" nail\n"),
            "[read_csv] f.csv:2:4: a quote inside a cell that does not begin with one; quote the "
            "cell and double the quote");
  EXPECT_EQ(
      refusal("a,b\n\"x\ny\"z,2\n"),
      "[read_csv] f.csv:3:3: expected a separator or the line's end behind the closing quote");
  EXPECT_EQ(refusal("a,a\n"),
            "[read_csv] f.csv:1:1: two columns are called \"a\" (number 2 is the second)");
  EXPECT_EQ(refusal(""), "[read_csv] f.csv: no header: the file is empty");
  EXPECT_EQ(
      refusal("a,b\n1,caf\xe9\n"),
      "[read_jsonl] f.csv:2:6: the text is not valid UTF-8 here; fix the file or read it with "
      "lossy_utf8");
  CsvOptions o;
  o.max_record_bytes = 5;
  EXPECT_NE(refusal("a,b\n1,\"23456789\"\n", o).find("longer than 5 bytes"), std::string::npos);
}

TEST(Csv, AMisplacedQuoteSpoilsItsOwnRecordOnly) {
  CompletionReadOptions o;
  o.skip_bad = true;
  const CompletionData data =
      parse_completions("prompt,completion\na 5\" nail,x\np,y\n\"q\"r,z\np,w\n", "f.csv", o);
  EXPECT_EQ(data.skipped, 2u);
  ASSERT_EQ(data.records.size(), 2u);
  EXPECT_EQ(data.records[1].completion.text, "w");
  EXPECT_EQ(data.records[1].line, 5u);
}

TEST(Csv, GivesRecordsOfEveryKindOfTextColumns) {
  const CompletionData labelled =
      parse_completions("prompt,completion,label,weight\np,\"a\nb\",1,0.5\np,c,FALSE,\n", "f.csv");
  EXPECT_EQ(labelled.form, DataForm::kUnpaired);
  ASSERT_EQ(labelled.records.size(), 2u);
  EXPECT_EQ(labelled.records[0].completion.text, "a\nb");
  EXPECT_EQ(labelled.records[0].label, true);
  EXPECT_EQ(labelled.records[0].weight, 0.5);
  EXPECT_EQ(labelled.records[1].label, false);
  EXPECT_EQ(labelled.records[1].weight, 1);
  EXPECT_EQ(labelled.records[1].line, 4u);
  const PreferenceData pairs =
      parse_preferences("prompt,chosen,rejected,margin\np,a,b,2.5\n", "pairs.CSV");
  EXPECT_EQ(pairs.pairs.at(0).margin, 2.5);
  EXPECT_EQ(error_of([] {
              (void)parse_preferences("prompt,chosen,rejected,margin\np,a,b,x\n", "f.csv");
            }),
            "[read_jsonl] f.csv:2:1: key \"margin\": expected a number, got other text");
  EXPECT_EQ(parse_jsonl("question,answer\n\"1,5 + 1?\",2.5\n", "f.csv").examples.at(0).prompt,
            "1,5 + 1?");
  // Only where the file is a table may text stand for a number.
  EXPECT_NE(error_of([] {
              (void)parse_preferences("{\"chosen\": \"a\", \"rejected\": \"b\", \"margin\": \"1\"}",
                                      "f.jsonl");
            }),
            "");
}

/// Records whose quoted cells lie across the ends of the reader's buffer, plain and packed.
TEST(Csv, FilesLargerThanTheBufferAreReadInPieces) {
  std::string text = "id,words\n";
  for (int i = 0; i < 3000; ++i) {
    text +=
        std::to_string(i) + ",\"a\"\"" + std::string(static_cast<size_t>(i % 97), '\n') + "\"\r\n";
  }
  ASSERT_GT(text.size(), size_t{2} << 16);
  const ScratchFile plain("t.csv", text), packed("t.csv.gz", "");
  gzFile file = gzopen(packed.path().c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  for (const auto& path : {plain.path(), packed.path()}) {
    const CsvTable table = read_csv(path);
    ASSERT_EQ(table.records.size(), 3000u) << path;
    for (size_t i = 0; i < 3000; ++i) {
      ASSERT_EQ(table.records[i].cells,
                (Cells{std::to_string(i), "a\"" + std::string(i % 97, '\n')}));
    }
    EXPECT_EQ(table.content_hash, read_csv(plain.path()).content_hash);
  }
}

TEST(Csv, RealTablesAreReadWhole) {
  if (!std::filesystem::exists(shared_data("restaurants"))) GTEST_SKIP() << "no tables here";
  EXPECT_EQ(read_csv(shared_data("restaurants/rating_final.csv")).records.size(), 1161u);
  EXPECT_EQ(read_csv(shared_data("true_false/capitals.csv")).records.size(), 1458u);
  const auto places = shared_data("restaurants/geoplaces2.csv");  // Latin-1.
  EXPECT_NE(error_of([&] { (void)read_csv(places); }).find("not valid UTF-8"), std::string::npos);
  CsvOptions o;
  o.encoding = "latin-1";
  EXPECT_EQ(read_csv(places, o).records.size(), 130u);
  CompletionReadOptions read;
  read.prompt_key = "statement";
  read.form = "prompt";
  EXPECT_EQ(read_completions(shared_data("true_false/facts.csv"), read).records.size(), 612u);
}

}  // namespace
}  // namespace temper
