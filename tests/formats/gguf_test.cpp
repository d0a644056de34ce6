#include "temper/formats/gguf.h"

#include <gtest/gtest.h>

#include <bit>

#include "formats/gguf_builder.h"
#include "formats/temp_folder.h"
#include "temper/core/error.h"
#include "temper/formats/safetensors.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(TEMPER_SOURCE_DIR) / "tests/golden/formats";

GgufFile parse(const std::string& bytes) {
  const auto owner = std::make_shared<std::string>(bytes);
  return GgufFile::parse(owner, std::as_bytes(std::span(*owner)), "test.gguf");
}

std::vector<float> floats(const TensorView& view) {
  std::vector<float> result(static_cast<size_t>(view.numel()));
  copy_to_float(view, result);
  return result;
}

// Golden: random blocks and the gguf package's values for them, equal to the bit.
TEST(GgufDequantize, MatchesTheGgufPackageToTheBit) {
  const auto golden = SafetensorsFile::open(kGolden / "dequantise.safetensors");
  const std::pair<std::string, GgmlType> types[] = {
      {"F16", GgmlType::kF16},   {"BF16", GgmlType::kBF16}, {"Q4_0", GgmlType::kQ4_0},
      {"Q4_1", GgmlType::kQ4_1}, {"Q5_0", GgmlType::kQ5_0}, {"Q5_1", GgmlType::kQ5_1},
      {"Q8_0", GgmlType::kQ8_0}, {"Q4_K", GgmlType::kQ4_K}, {"Q5_K", GgmlType::kQ5_K},
      {"Q6_K", GgmlType::kQ6_K}};
  for (const auto& [name, type] : types) {
    const std::vector<float> expected = floats(golden.at(name + ".values"));
    std::vector<float> actual(expected.size());
    ggml_dequantize(type, golden.at(name + ".blocks").data, actual);
    ASSERT_GE(actual.size(), 200u) << name;
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i]))
          << name << " weight " << i;
    }
    EXPECT_EQ(ggml_type_name(static_cast<uint32_t>(type)), name);
  }
}

// The formula of WeightBlocks, in float32.
TEST(GgufUnpack, CodesScalesAndMinimumsGiveTheBitsOfDequantizing) {
  const SafetensorsFile golden = SafetensorsFile::open(kGolden / "dequantise.safetensors");
  for (const GgmlType type : {GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ8_0}) {
    const auto blocks = golden.at(ggml_type_name(static_cast<uint32_t>(type)) + ".blocks").data;
    const auto unpacked = ggml_unpack(type, blocks);
    ASSERT_TRUE(unpacked);
    std::vector<float> expected(unpacked->codes.size());
    ggml_dequantize(type, blocks, expected);
    for (size_t i = 0; i < expected.size(); ++i) {
      const float scale = half_to_float(unpacked->scales[i / 32]);
      const bool eight = unpacked->bits == 8;
      const float code = eight ? static_cast<int8_t>(unpacked->codes[i]) : unpacked->codes[i];
      const float minimum = !unpacked->minimums.empty() ? half_to_float(unpacked->minimums[i / 32])
                                                        : (eight ? 0.0f : -8 * scale);
      ASSERT_EQ(scale * code + minimum, expected[i]) << i;
    }
  }
  EXPECT_FALSE(ggml_unpack(GgmlType::kQ5_0, std::vector<std::byte>(22)));
}

TEST(GgufDequantize, RefusesPartOfABlockAndUnreadTypes) {
  std::vector<std::byte> blocks(20);
  std::vector<float> out(32);
  ggml_dequantize(GgmlType::kQ4_1, blocks, out);
  EXPECT_ERROR(ggml_dequantize(GgmlType::kQ4_0, blocks, out), "20 bytes of Q4_0");
  out.resize(31);
  EXPECT_ERROR(ggml_dequantize(GgmlType::kQ4_1, blocks, out), "do not hold 31 weights");
  EXPECT_ERROR(ggml_dequantize(GgmlType{10}, blocks, out), "Q2_K is not supported");
}

TEST(GgufFile, ReadsEveryValueType) {
  GgufBuilder b;
  b.key("u8", 0, b.raw(uint8_t{200})).key("i8", 1, b.raw(int8_t{-5}));
  b.key("u16", 2, b.raw(uint16_t{60000})).key("i16", 3, b.raw(int16_t{-600}));
  b.u32("u32", 4000000000u).key("i32", 5, b.raw(int32_t{-7})).f32("f32", 0.5f);
  b.key("bool", 7, b.raw(uint8_t{1})).str("str", "text").strings("strs", {"a", "", "\xc3\xa9"});
  b.key("u64", 10, b.raw(~uint64_t{0})).key("i64", 11, b.raw(int64_t{-9}));
  b.key("f64", 12, b.raw(0.25));
  b.numbers<float>("floats", 6, {1.5f, -2.0f}).numbers<uint16_t>("shorts", 2, {1, 65535});
  const GgufFile file = parse(b.bytes());
  EXPECT_EQ(file.integer("u8", 0, 255), 200);
  EXPECT_EQ(file.integer("i8", -5, 0), -5);
  EXPECT_EQ(file.integer("u16", 0, 65535), 60000);
  EXPECT_EQ(file.integer("i16", -600, 0), -600);
  EXPECT_EQ(file.integer("u32", 0, UINT32_MAX), 4000000000);
  EXPECT_EQ(file.integer("i32", -7, 0), -7);
  EXPECT_EQ(file.integer("i64", -9, 0), -9);
  EXPECT_EQ(*file.find<uint64_t>("u64"), ~uint64_t{0});
  EXPECT_EQ(*file.find<double>("f32"), 0.5);
  EXPECT_EQ(*file.find<double>("f64"), 0.25);
  EXPECT_TRUE(*file.find<bool>("bool"));
  EXPECT_EQ(*file.find<std::string_view>("str"), "text");
  EXPECT_EQ(*file.find<std::vector<std::string_view>>("strs"),
            (std::vector<std::string_view>{"a", "", "\xc3\xa9"}));
  EXPECT_EQ(*file.find<std::vector<double>>("floats"), (std::vector<double>{1.5, -2.0}));
  EXPECT_EQ(*file.find<std::vector<int64_t>>("shorts"), (std::vector<int64_t>{1, 65535}));
  EXPECT_EQ(file.find<bool>("absent"), nullptr);
  EXPECT_EQ(file.integer("absent", 0, 1), std::nullopt);
  EXPECT_ERROR(file.find<bool>("str"), "\"str\" holds a value of an unexpected type");
  EXPECT_ERROR(file.integer("f32", 0, 1), "unexpected type");
  EXPECT_ERROR(file.integer("u8", 0, 100), "must be in [0, 100], got 200");
  EXPECT_ERROR(file.integer("u64", 0, INT64_MAX), "must be in");
}

TEST(GgufFile, ShapesAreInTorchOrder) {
  GgufBuilder b;
  b.filled("m", {3, 2}, 1.0f).filled("v", {5}, 2.0f);
  const GgufFile file = parse(b.bytes());
  EXPECT_EQ(file.tensors().at("m").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.tensors().at("m").data.size(), 24u);
  EXPECT_EQ(file.tensors().at("v").data.data() - file.tensors().at("m").data.data(), 32);
}

TEST(GgufFile, RefusesWrongHeads) {
  GgufBuilder b;
  b.magic = "GGUX";
  EXPECT_ERROR(parse(b.bytes()), "is no GGUF file");
  EXPECT_ERROR(parse(""), "is no GGUF file");
  b.magic = "GGUF";
  for (const uint32_t version : {0u, 1u, 4u}) {
    b.version = version;
    EXPECT_THROW((void)parse(b.bytes()), Error) << version;
  }
  b.version = 0x03000000;
  EXPECT_ERROR(parse(b.bytes()), "big-endian");
  b.version = 2;
  EXPECT_TRUE(parse(b.bytes()).tensors().empty());
}

TEST(GgufFile, RefusesCountsThatTheFileCannotHold) {
  GgufBuilder b;
  b.n_keys = ~uint64_t{0};
  EXPECT_ERROR(parse(b.bytes()), "do not fit");
  b.n_keys = 0;
  b.n_tensors = uint64_t{1} << 62;
  EXPECT_ERROR(parse(b.bytes()), "do not fit");
  const auto one_key = [](uint32_t type, const std::string& value) {
    return parse(GgufBuilder().key("k", type, value).bytes());
  };
  using B = GgufBuilder;
  EXPECT_ERROR(one_key(8, B::raw(~uint64_t{0})), "bytes, more than");
  EXPECT_ERROR(one_key(9, B::raw(uint32_t{8}) + B::raw(uint64_t{1} << 61)), "claims");
  EXPECT_ERROR(one_key(9, B::raw(uint32_t{6}) + B::raw(~uint64_t{0})), "claims");
  EXPECT_ERROR(one_key(9, B::raw(uint32_t{9}) + B::raw(uint64_t{1})), "array of arrays");
  EXPECT_ERROR(one_key(9, B::raw(uint32_t{13}) + B::raw(uint64_t{0})), "unknown value type 13");
  EXPECT_ERROR(one_key(13, ""), "unknown value type 13");
  EXPECT_ERROR(one_key(7, B::raw(uint8_t{2})), "a bool of value 2");
  EXPECT_ERROR(one_key(9, B::raw(uint32_t{10}) + B::raw(uint64_t{1}) + B::raw(~uint64_t{0})),
               "above 2^63");
  EXPECT_ERROR(parse(GgufBuilder().u32("k", 1).u32("k", 1).bytes()), "duplicate key \"k\"");
  EXPECT_ERROR(parse(GgufBuilder().u32(std::string(70000, 'k'), 1).bytes()), "a key of 70000");
}

TEST(GgufFile, RefusesTensorsThatDoNotFit) {
  const auto one = [](const std::vector<int64_t>& dims, uint32_t type, uint64_t offset) {
    GgufBuilder b;
    b.data = std::string(64, '\0');
    return parse(b.tensor("t", dims, type, offset).bytes());
  };
  EXPECT_EQ(one({8}, 0, 32).tensors().size(), 1u);
  EXPECT_ERROR(one({9}, 0, 32), "reaches past the 64 bytes");
  EXPECT_ERROR(one({1}, 0, 64), "reaches past");
  EXPECT_ERROR(one({1}, 0, 33), "no multiple of the alignment 32");
  EXPECT_ERROR(one({1}, 0, ~uint64_t{0} - 31), "reaches past");
  EXPECT_ERROR(one({0}, 0, 0), "a size of 0");
  EXPECT_ERROR(one({-1}, 0, 0), "a size of -1");
  EXPECT_ERROR(one({int64_t{1} << 40, int64_t{1} << 40}, 0, 0), "too many elements");
  EXPECT_ERROR(one({int64_t{1} << 62}, 0, 0), "too many bytes");
  EXPECT_ERROR(one({1, 1, 1, 1, 1}, 0, 0), "5 dimensions");
  EXPECT_ERROR(one({256}, 10, 0), "stored as Q2_K, which Temper does not read");
  EXPECT_ERROR(one({256}, 77, 0), "the unknown type 77");
  EXPECT_ERROR(one({33}, 2, 0), "no multiple of the 32 weights");
  GgufBuilder twice;
  twice.filled("t", {1}, 0.0f).filled("t", {1}, 0.0f);
  EXPECT_ERROR(parse(twice.bytes()), "duplicate tensor \"t\"");
  GgufBuilder named;
  EXPECT_ERROR(parse(named.filled(std::string(64, 'n'), {1}, 0.0f).bytes()), "name of 64 bytes");
}

TEST(GgufFile, ObeysAndChecksTheAlignment) {
  GgufBuilder b;
  b.alignment = 64;
  b.u32("general.alignment", 64).filled("t", {2}, 3.0f);
  std::vector<float> out(2);
  const GgufFile file = parse(b.bytes());
  ggml_dequantize(GgmlType::kF32, file.tensors().at("t").data, out);
  EXPECT_EQ(out, (std::vector<float>{3.0f, 3.0f}));
  for (const uint32_t wrong : {0u, 48u, 1u << 30}) {
    EXPECT_ERROR(parse(GgufBuilder().u32("general.alignment", wrong).bytes()), "alignment");
  }
  EXPECT_ERROR(parse(GgufBuilder().f32("general.alignment", 32).bytes()), "unexpected type");
}

TEST(GgufFile, EveryPrefixIsRefused) {
  const std::string small = small_llama().bytes();
  for (size_t n = 0; n < small.size(); ++n)
    EXPECT_THROW((void)parse(small.substr(0, n)), Error) << n;
  // The last tensor of this one ends with the file, so that no prefix is whole.
  const std::string golden = read_text(kGolden / "tiny_llama.gguf");
  for (size_t n = 0; n < golden.size(); n += 7) {
    const auto bytes = std::as_bytes(std::span(golden)).first(n);
    EXPECT_THROW((void)GgufFile::parse(nullptr, bytes, "prefix"), Error) << n;
  }
}

// Every byte of a whole model file set to each of three values: an Error or a model, never worse.
TEST(GgufFile, DamagedModelsAreRefusedOrRead) {
  const std::string whole = small_llama().bytes();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const unsigned char value : {0x00, 0x7f, 0xff}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(value);
      try {
        const ModelSource model = open_gguf_model(parse(damaged));
        for (const std::string& name : model.weights->names()) {
          EXPECT_FALSE(model.weights->shape(name).empty());
        }
      } catch (const Error&) {
      }
    }
  }
}

}  // namespace
}  // namespace temper
