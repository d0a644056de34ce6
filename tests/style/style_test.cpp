// House rules over the whole checkout. Each rule is first tried on a planted violation, so that a
// checker that finds nothing because it looks at nothing does not pass.
#include <gtest/gtest.h>

#include <string>

#include "style/checks.h"

namespace temper::style {
namespace {

std::vector<SourceFile> sources(const std::vector<std::string>& folders) {
  return read_sources(TEMPER_SOURCE_DIR, folders, {".h", ".cuh", ".cpp", ".cu"});
}

const std::vector<SourceFile>& library() {
  static const std::vector<SourceFile> files = sources({"include", "src"});
  return files;
}

const std::vector<SourceFile>& everything() {
  static const std::vector<SourceFile> files =
      sources({"include", "src", "tests", "examples", "benchmarks"});
  return files;
}

std::string lines(int n, const std::string& line) {
  std::string text;
  for (int i = 0; i < n; ++i) text += line;
  return text;
}

TEST(StyleScan, CheckoutIsRead) {
  EXPECT_GE(library().size(), 20u);
  EXPECT_GT(everything().size(), library().size());
}

TEST(StyleScan, CommentsAndLiteralsAreNotCode) {
  const std::string code = code_only(
      "int a; // {\n/* {\n { */ char b = '{'; auto c = \"{\\\"{\"; auto d = R\"x({)\")x\";\n"
      "#define E { \\\n {\nlong f = 1'000'000;{}\n");
  EXPECT_EQ(std::count(code.begin(), code.end(), '{'), 1);
  EXPECT_EQ(std::count(code.begin(), code.end(), '\n'), 6);
}

TEST(StyleScan, FunctionsAreFound) {
  const Outline o = outline(
      "namespace a {\n"
      "struct S : T<int(int)> {\n"
      "  S(int x, int y) : x_(x) {}\n"
      "  int table[2] = {1, 2};\n"
      "};\n"
      "template <class F = void(int)>\n"
      "auto f(std::map<int, int> m,\n"
      "       F g) -> int {\n"
      "  if (g) { return [&](int) { return 1; }(2); }\n"
      "}\n"
      "constexpr int kTable[] = {(1), (2)};\n"
      "int h() { return 0; }\n"
      "}\n");
  ASSERT_EQ(o.functions.size(), 3u);
  EXPECT_EQ(o.functions[0].parameters, 2);
  EXPECT_EQ(o.functions[1].parameters, 2);
  EXPECT_EQ(o.functions[1].first_line, 8);
  EXPECT_EQ(o.functions[1].last_line, 10);
  EXPECT_EQ(o.functions[2].parameters, 0);
}

TEST(StyleLayers, PlantedViolationsAreFound) {
  const auto found = check_layers({
      {"include/temper/core/a.h", "#include \"temper/nn/token_batch.h\"\n"},
      {"src/reward/b.cpp", "#include <vector>\n#include \"temper/rollout/engine.h\"\n"},
      {"src/objective/c.cpp", "#include \"temper/data/dataset.h\"\n"},
      {"include/temper/objective/d.h", "#include \"temper/data/batch.h\"\n"},
      {"src/trainer/e.cpp", "#include \"temper/core/error.h\"\n#include \"temper/nn/lora.h\"\n"},
  });
  ASSERT_EQ(found.size(), 3u) << describe(found);
  EXPECT_EQ(found[0].path, "include/temper/core/a.h");
  EXPECT_EQ(found[1].line, 2);
  EXPECT_EQ(found[2].path, "src/objective/c.cpp");
}

TEST(StyleLayers, IncludesPointUp) {
  const auto found = check_layers(library());
  EXPECT_TRUE(found.empty()) << describe(found);
}

TEST(StyleTorch, PlantedViolationsAreFound) {
  const auto found = check_torch_gate({
      {"include/temper/core/torch.h", "#include <ATen/core/Tensor.h>\n"},
      {"include/temper/nn/model.h", "#include \"temper/core/torch.h\"\n"},
      {"include/temper/nn/bad.h", "#include <ATen/core/Tensor.h>\n"},
      {"src/nn/bad.cpp", "#include <ATen/ops/add.h>\n#include <torch/torch.h>\n"},
      {"src/kernels/bad.cpp", "#include <c10/core/Device.h>\n"},
      {"include/temper/data/batch.h", "#include \"temper/core/torch.h\"\n"},
      {"src/data/indirect.cpp", "#include \"temper/data/batch.h\"\n"},
      {"tests/ops/bad_test.cpp", "#include <ATen/ATen.h>\n"},
  });
  ASSERT_EQ(found.size(), 5u) << describe(found);
  EXPECT_EQ(found[0].path, "include/temper/nn/bad.h");
  EXPECT_EQ(found[1].line, 2);
  EXPECT_EQ(found[2].path, "src/kernels/bad.cpp");
  EXPECT_EQ(found[3].path, "src/data/indirect.cpp");
  EXPECT_EQ(found[4].path, "tests/ops/bad_test.cpp");
}

TEST(StyleTorch, StaysBehindItsGate) {
  const auto found = check_torch_gate(everything());
  EXPECT_TRUE(found.empty()) << describe(found);
}

TEST(StyleHeaders, PlantedHeavyHeaderIsFound) {
  const auto found = check_heavy_headers({
      {"include/temper/core/a.h",
       "#include <nlohmann/json_fwd.hpp>\n#include <nlohmann/json.hpp>\n"},
      {"src/core/a.cpp", "#include <nlohmann/json.hpp>\n"},
  });
  ASSERT_EQ(found.size(), 1u) << describe(found);
  EXPECT_EQ(found[0].line, 2);
}

TEST(StyleHeaders, PublicOnesAreLight) {
  const auto found = check_heavy_headers(library());
  EXPECT_TRUE(found.empty()) << describe(found);
}

TEST(StyleHeaders, PlantedViolationsAreFound) {
  const auto found = check_headers({
      {"include/temper/core/a.h", "int f();\n"},
      {"include/temper/core/b.h", "#pragma once\nnamespace temper {\nusing namespace std;\n}\n"},
      {"include/temper/core/c.h", "#pragma once\ninline void f() { using namespace std; }\n"},
      {"src/core/d.cpp", "using namespace std;\n"},
  });
  ASSERT_EQ(found.size(), 2u) << describe(found);
  EXPECT_EQ(found[0].path, "include/temper/core/a.h");
  EXPECT_EQ(found[1].line, 3);
}

TEST(StyleHeaders, AreGuardedAndOpenNoNamespace) {
  const auto found = check_headers(everything());
  EXPECT_TRUE(found.empty()) << describe(found);
}

TEST(StyleLimits, PlantedViolationsAreFound) {
  const auto found = check_limits({
      {"src/core/long.cpp", lines(401, "\n")},
      {"src/core/fits.cpp", lines(400, "\n")},
      {"tests/core/long_test.cpp", lines(401, "\n")},
      {"src/core/f.cpp", "void f() {\n" + lines(59, "  g();\n") + "}\n"},
      {"src/core/g.cpp", "void f() {\n" + lines(58, "  g();\n") + "}\n"},
      {"src/core/h.cpp", "void h(int a, int b, int c, int d, int e, int f, int g) {}\n"},
      {"src/core/i.h",
       "struct C { template <class V> void visit(V&& v) {\n" + lines(16, "v(a);\n") + "} };\n"},
      {"src/core/j.h",
       "struct C { template <class V> void visit(V&& v) {\n" + lines(15, "v(a);\n") + "} };\n"},
  });
  ASSERT_EQ(found.size(), 4u) << describe(found);
  EXPECT_EQ(found[0].path, "src/core/long.cpp");
  EXPECT_EQ(found[1].path, "src/core/f.cpp");
  EXPECT_EQ(found[2].path, "src/core/h.cpp");
  EXPECT_EQ(found[3].path, "src/core/i.h");
}

TEST(StyleLimits, FilesAndFunctionsAreShort) {
  const auto found = check_limits(everything());
  EXPECT_TRUE(found.empty()) << describe(found);
}

TEST(StyleWords, PlantedMarkIsFound) {
  const std::string word = std::string("TO") + "DO";
  const auto found = check_unfinished(
      {{"src/a.cpp", "int a;\n// " + word + ": later\n"}, {"src/b.cpp", "int " + word + "S;\n"}});
  ASSERT_EQ(found.size(), 1u) << describe(found);
  EXPECT_EQ(found[0].line, 2);
}

TEST(StyleWords, NothingIsMarkedUnfinished) {
  const auto found = check_unfinished(read_sources(
      TEMPER_SOURCE_DIR,
      {"include", "src", "tests", "examples", "benchmarks", "cmake", "scripts", "docs"},
      {".h", ".cuh", ".cpp", ".cu", ".cmake", ".txt", ".in", ".py", ".md", "scripts/setup",
       "scripts/test", "scripts/demo", "scripts/fuzz"}));
  EXPECT_TRUE(found.empty()) << describe(found);
}

}  // namespace
}  // namespace temper::style
