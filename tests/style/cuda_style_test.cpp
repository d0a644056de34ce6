// The rules for kernels of docs/gpu.md, each tried on a planted violation first.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "style/cuda_checks.h"

namespace temper::style {
namespace {

std::vector<SourceFile> kernel_files() {
  return read_sources(TEMPER_SOURCE_DIR, {"src"}, {".cuh", ".cu"});
}

TEST(StyleCuda, PlantedViolationsAreFound) {
  const auto found = check_cuda_vocabulary({
      {"src/kernels/cuda/a.cuh", "// printf, <<<\nvoid f() { k<<<1, 2>>>(); }\n"},
      {"src/kernels/cuda/b.cuh", "__device__ void f() {\n  __shared__ float s[3];\n}\n"},
      {"src/kernels/cuda/c.cuh", "float f(float x) { return __expf(x) + vexp(x); }\n"},
      {"src/kernels/cuda/d.cu", "int f() { return cudaDeviceSynchronize(); }\n"},
      {"src/kernels/cuda/e.cuh", "__global__ void __launch_bounds__(32) k() {}\n"},
      {"src/kernels/cuda/f.cuh", "__global__ void k() {}\n"},
      {"src/kernels/cuda/g.cuh", "void f() { asm(\"bar.sync 0;\"); __threadfence(); }\n"},
      {"src/kernels/cuda/cublaslt.cu", "int f() { return cudaStreamSynchronize(0); }\n"},
      {"src/kernels/cuda/device.cuh", "void f() { asm(\"bar.sync 0;\"); }\n"},
      {"src/kernels/cuda/sim/g.cuh", "float f(float x) { return expf(x); }\n"},
  });
  ASSERT_EQ(found.size(), 7u) << describe(found);
  EXPECT_EQ(found[0].path, "src/kernels/cuda/a.cuh");
  EXPECT_EQ(found[0].line, 2);
  EXPECT_EQ(found[1].line, 2);
  EXPECT_EQ(found[2].path, "src/kernels/cuda/c.cuh");
  EXPECT_EQ(found[3].path, "src/kernels/cuda/d.cu");
  EXPECT_EQ(found[4].path, "src/kernels/cuda/f.cuh");
  EXPECT_EQ(found[5].path, "src/kernels/cuda/g.cuh");
  EXPECT_EQ(found[6].path, "src/kernels/cuda/g.cuh");
}

TEST(StyleCuda, KernelsKeepToTheVocabulary) {
  const auto files = kernel_files();
  EXPECT_GE(files.size(), 20u);
  const auto found = check_cuda_vocabulary(files);
  EXPECT_TRUE(found.empty()) << describe(found);
}

TEST(StyleCuda, EverySourceIsCompiled) {
  const auto planted = check_cuda_sources_listed(
      {{"src/kernels/cuda/a.cu", ""}, {"src/kernels/cuda/gae.cu", ""}}, "  SOURCES\n    gae.cu)\n");
  ASSERT_EQ(planted.size(), 1u);
  EXPECT_EQ(planted[0].path, "src/kernels/cuda/a.cu");
  std::ifstream file(TEMPER_SOURCE_DIR "/src/kernels/cuda/CMakeLists.txt");
  std::stringstream text;
  text << file.rdbuf();
  const auto found = check_cuda_sources_listed(kernel_files(), text.str());
  EXPECT_TRUE(found.empty()) << describe(found);
}

}  // namespace
}  // namespace temper::style
