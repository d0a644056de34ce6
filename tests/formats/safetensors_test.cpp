#include "temper/formats/safetensors.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "formats/temp_folder.h"
#include "temper/core/error.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(TEMPER_SOURCE_DIR) / "tests/golden/formats";

/// A file with this header and this many bytes of data; `length` overrides the true header length.
std::string file_with(std::string_view header, size_t data_bytes, uint64_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes.append(header).append(data_bytes, '\1');
}

SafetensorsFile parse(std::string_view header, size_t data_bytes, uint64_t length) {
  const auto bytes = std::make_shared<std::string>(file_with(header, data_bytes, length));
  return SafetensorsFile::parse(bytes, std::as_bytes(std::span(*bytes)), "test.safetensors");
}

SafetensorsFile parse(std::string_view header, size_t data_bytes) {
  return parse(header, data_bytes, header.size());
}

template <class T>
std::vector<T> values(const TensorView& view) {
  std::vector<T> result(view.data.size() / sizeof(T));
  if (!result.empty()) std::memcpy(result.data(), view.data.data(), view.data.size());
  return result;
}

std::vector<float> floats(const TensorView& view) {
  std::vector<float> result(static_cast<size_t>(view.numel()));
  copy_to_float(view, result);
  return result;
}

using Shape = std::vector<int64_t>;

// The file was written by the Python package; the expected values are the formulas of the script.
TEST(Safetensors, ReadsTheReferenceWritersFile) {
  const auto file = SafetensorsFile::open(kGolden / "reference.safetensors");
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"format", "pt"}}));
  EXPECT_EQ(file.names().size(), 13u);
  for (int i = 0; i < 6; ++i) {
    const auto at = static_cast<size_t>(i);
    EXPECT_EQ(values<double>(file.at("f64"))[at], i * 0.1 - 0.25);
    EXPECT_EQ(floats(file.at("f64"))[at], static_cast<float>(i * 0.1 - 0.25));
    EXPECT_EQ(floats(file.at("f32"))[at], static_cast<float>(i) * 0.5f - 1.0f);
    EXPECT_EQ(floats(file.at("f16"))[at], static_cast<float>(i) * 0.125f - 0.5f);
    EXPECT_EQ(floats(file.at("bf16"))[at], static_cast<float>(i) * 2.0f - 3.0f);
    EXPECT_EQ(values<int64_t>(file.at("i64"))[at], (i - 3) * 1000000007LL);
    EXPECT_EQ(values<int32_t>(file.at("i32"))[at], (i - 3) * 65537);
    EXPECT_EQ(values<int16_t>(file.at("i16"))[at], (i - 3) * 257);
    EXPECT_EQ(values<int8_t>(file.at("i8"))[at], i - 3);
    EXPECT_EQ(values<uint8_t>(file.at("u8"))[at], i + 250);
    EXPECT_EQ(values<uint8_t>(file.at("bool"))[at], i % 2);
  }
  EXPECT_EQ(file.at("f64").shape, (Shape{2, 3}));
  EXPECT_EQ(file.at("f32").shape, (Shape{3, 2}));
  EXPECT_EQ(file.at("bf16").shape, (Shape{1, 6}));
  EXPECT_EQ(file.at("scalar").shape, Shape{});
  EXPECT_EQ(floats(file.at("scalar")), std::vector<float>{7.5f});
  EXPECT_EQ(file.at("empty").shape, (Shape{0, 4}));
  EXPECT_EQ(file.at("empty").numel(), 0);
  EXPECT_EQ(values<int32_t>(file.at("sp\u00e9cial \"name\"")), (std::vector<int32_t>{1, 2}));
}

TEST(Safetensors, WritesTheBytesOfTheReferenceWriter) {
  const TempFolder folder;
  const auto file = SafetensorsFile::open(kGolden / "reference.safetensors");
  std::vector<NamedTensor> tensors;
  for (const std::string& name : file.names()) {
    const TensorView& view = file.at(name);
    tensors.push_back({name, view.dtype, view.shape, view.data});
  }
  write_safetensors(folder / "copy.safetensors", tensors);
  EXPECT_EQ(read_text(folder / "copy.safetensors"), read_text(kGolden / "reference.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "copy.safetensors.partial"));
}

TEST(Safetensors, ViewsOutliveTheFileObject) {
  const auto file = SafetensorsFile::open(kGolden / "reference.safetensors");
  const TensorView view = [] {
    return SafetensorsFile::open(kGolden / "reference.safetensors").at("f32");
  }();
  EXPECT_EQ(floats(view), floats(file.at("f32")));
}

TEST(Safetensors, NamesTheNearestTensorWhenOneIsMissing) {
  const auto file = parse(R"({"weight":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1);
  EXPECT_TRUE(file.has("weight"));
  EXPECT_FALSE(file.has("weigth"));
  EXPECT_ERROR(file.at("weigth"), "the nearest name is \"weight\"");
}

TEST(Safetensors, UnknownDtypeOfAnUnusedTensorLoads) {
  const auto file = parse(R"({"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]},)"
                          R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                          3);
  EXPECT_EQ(file.at("a").dtype, DType::kUnknown);
  EXPECT_EQ(file.at("a").data.size(), 2u);
  std::vector<float> out(4);
  EXPECT_ERROR(copy_to_float(file.at("a"), out), "expected F64, F32, F16 or BF16 data");
}

TEST(Safetensors, EmptyFileOfTensorsIsLegal) {
  EXPECT_TRUE(parse("{}", 0).names().empty());
  EXPECT_TRUE(parse(R"({"__metadata__":{"format":"pt"}}  )", 0).names().empty());
}

TEST(Safetensors, RefusesHeaderLengthsThatDoNotFit) {
  EXPECT_ERROR(SafetensorsFile::parse(nullptr, {}, "x"), "too few");
  EXPECT_ERROR(parse("{}", 0, 3), "does not fit");
  EXPECT_ERROR(parse("{}", 0, std::numeric_limits<uint64_t>::max()), "does not fit");
  EXPECT_ERROR(parse(std::string(100'000'001, ' '), 0), "does not fit");
  EXPECT_ERROR(parse("", 0), "must start with '{'");
  EXPECT_ERROR(parse(" {}", 0), "must start with '{'");
}

TEST(Safetensors, RefusesHeadersThatAreNotTheGrammar) {
  EXPECT_ERROR(parse("{", 0), "not valid JSON");
  EXPECT_ERROR(parse("{}{}", 0), "not valid JSON");
  EXPECT_ERROR(parse("{\"\xff\":1}", 0), "not valid JSON");
  EXPECT_ERROR(parse(R"({"a":1})", 0), "must not be a number");
  EXPECT_ERROR(parse(R"({"a":null})", 0), "must not be null");
  EXPECT_ERROR(parse(R"({"a":[]})", 0), "must not be an array");
  EXPECT_ERROR(parse(R"({"a":{"dtype":{}}})", 0), "must not be an object");
  EXPECT_ERROR(parse(R"({"a":{"shape":[[1]]}})", 0), "must not be an array");
  EXPECT_ERROR(parse(R"({"a":{"shape":["1"]}})", 0), "must not be a string");
  EXPECT_ERROR(parse(R"({"a":{"shape":[true]}})", 0), "must not be a boolean");
  EXPECT_ERROR(parse(R"({"a":{"stride":1}})", 0), "unknown key \"stride\"");
  EXPECT_ERROR(parse(R"({"a":{"dtype":"U8","shape":[0]}})", 0), "lacks");
  EXPECT_ERROR(parse(R"({"__metadata__":{"format":1}})", 0), "must not be a number");
  EXPECT_ERROR(parse("{\"a\":" + std::string(100'000, '['), 0), "must not be an array");
}

TEST(Safetensors, RefusesDuplicates) {
  EXPECT_ERROR(parse(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                     R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                     0),
               "duplicate tensor name \"a\"");
  EXPECT_ERROR(parse(R"({"a":{"dtype":"U8","dtype":"U8"}})", 0), "two keys \"dtype\"");
  EXPECT_ERROR(parse(R"({"__metadata__":{},"__metadata__":{}})", 0), "duplicate __metadata__");
  EXPECT_ERROR(parse(R"({"__metadata__":{"a":"b","a":"c"}})", 0), "duplicate key");
}

TEST(Safetensors, RefusesOffsetsAndShapesThatDisagree) {
  const auto one = [](const std::string& shape, const std::string& offsets, size_t bytes) {
    return parse(R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
                 bytes);
  };
  EXPECT_EQ(one("[2]", "[0,8]", 8).at("a").numel(), 2);
  EXPECT_ERROR(one("[2]", "[8,0]", 8), "do not lie inside");
  EXPECT_ERROR(one("[2]", "[0,9]", 8), "do not lie inside");
  EXPECT_ERROR(one("[2]", "[0]", 8), "must hold 2 numbers");
  EXPECT_ERROR(one("[2]", "[0,4,8]", 8), "must hold 2 numbers");
  EXPECT_ERROR(one("[3]", "[0,8]", 8), "the shape asks for 12 bytes");
  EXPECT_ERROR(one("[-2]", "[0,8]", 8), "is negative");
  EXPECT_ERROR(one("[2.0]", "[0,8]", 8), "must hold integers");
  EXPECT_ERROR(one("[18446744073709551616]", "[0,8]", 8), "must hold integers");
  EXPECT_ERROR(one("[18446744073709551615]", "[0,8]", 8), "overflows");
  EXPECT_ERROR(one("[4294967296,4294967296]", "[0,0]", 0), "overflows");
  EXPECT_ERROR(one("[4611686018427387904]", "[0,0]", 0), "overflows");
  EXPECT_ERROR(one("[" + std::string(80, '1') + "]", "[0,8]", 8), "must hold integers");
  std::string many = "[1";
  for (int i = 0; i < 32; ++i) many += ",1";
  EXPECT_ERROR(one(many + "]", "[0,4]", 4), "more than 32 numbers");
}

TEST(Safetensors, RefusesOverlapHolesAndTrailingBytes) {
  const auto two = [](const std::string& a, const std::string& b, size_t bytes) {
    return parse(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" + a +
                     R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + b + "}}",
                 bytes);
  };
  EXPECT_EQ(two("[2,4]", "[0,2]", 4).names().size(), 2u);
  EXPECT_ERROR(two("[0,2]", "[0,2]", 2), "overlap or hole");
  EXPECT_ERROR(two("[0,2]", "[1,3]", 3), "overlap or hole");
  EXPECT_ERROR(two("[0,2]", "[3,5]", 5), "overlap or hole");
  EXPECT_ERROR(two("[1,3]", "[3,5]", 5), "overlap or hole");
  EXPECT_ERROR(two("[0,2]", "[2,4]", 5), "5 bytes of data follow");
  EXPECT_ERROR(parse("{}", 1), "1 bytes of data follow");
}

TEST(Safetensors, EveryPrefixOfAFileIsRefused) {
  const std::string whole = read_text(kGolden / "reference.safetensors");
  for (size_t n = 0; n < whole.size(); ++n) {
    const auto bytes = std::as_bytes(std::span(whole)).first(n);
    EXPECT_THROW((void)SafetensorsFile::parse(nullptr, bytes, "prefix"), Error) << n;
  }
}

TEST(Safetensors, WriterRefusesWhatItCannotWriteAndKeepsTheOldFile) {
  const TempFolder folder;
  const fs::path path = folder / "w.safetensors";
  write_text(path, "old");
  const std::vector<std::byte> data(8);
  const auto write = [&](std::vector<NamedTensor> tensors) { write_safetensors(path, tensors); };
  EXPECT_ERROR(write({{"a", DType::kF32, {2}, data}, {"a", DType::kF32, {2}, data}}), "twice");
  EXPECT_ERROR(write({{"a", DType::kF32, {3}, data}}), "needs 12 bytes, got 8");
  EXPECT_ERROR(write({{"a", DType::kUnknown, {2}, data}}), "no dtype");
  EXPECT_ERROR(write({{"a", DType::kF32, {-2}, data}}), "size of -2");
  EXPECT_ERROR(write({{"\xff", DType::kF32, {2}, data}}), "not valid UTF-8");
  EXPECT_ERROR(write({{"__metadata__", DType::kF32, {2}, data}}), "reserved");
  EXPECT_EQ(read_text(path), "old");
  EXPECT_FALSE(fs::exists(path.string() + ".partial"));
  EXPECT_ERROR(write_safetensors(folder / "absent/w.safetensors", {}), "cannot open");
}

TEST(TensorView, UnalignedDataIsRead) {
  std::vector<std::byte> bytes(1 + 3 * 4);
  const std::vector<float> expected{1.5f, -2.25f, 1e-30f};
  std::memcpy(bytes.data() + 1, expected.data(), 12);
  const TensorView view{DType::kF32, {3}, std::span(bytes).subspan(1), nullptr};
  EXPECT_EQ(floats(view), expected);
  std::vector<float> small(2);
  EXPECT_ERROR(copy_to_float(view, small), "a buffer of 2 floats");
}

// Every half: widening and rounding back is the identity (NaN payloads keep their quiet form).
TEST(TensorView, HalfRoundTripsEveryBitPattern) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float wide = half_to_float(half);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(wide)))) << bits;
    } else {
      ASSERT_EQ(float_to_half(wide), half) << bits;
    }
  }
}

// Hand-worked: ties go to the even neighbour, at the subnormal edge and at the top as well.
TEST(TensorView, RoundsToHalfAndBfloat16) {
  EXPECT_EQ(float_to_half(1.0f + 0x1p-11f), 0x3c00);             // halfway, down to even
  EXPECT_EQ(float_to_half(1.0f + 0x1p-10f + 0x1p-11f), 0x3c02);  // halfway, up to even
  EXPECT_EQ(float_to_half(65519.0f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(-0x1p-25f), 0x8000);
  EXPECT_EQ(float_to_half(0x1.8p-25f), 0x0001);
  EXPECT_EQ(float_to_half(0x1.ffcp-15f + 0x1p-26f), 0x0400);
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::infinity()), 0x7c00);
  const std::vector<float> in{1.0f, 1.0f + 0x1p-8f, -3.0f};
  std::vector<std::byte> out(6);
  copy_from_float(in, DType::kBF16, out);
  EXPECT_EQ(floats({DType::kBF16, {3}, out, nullptr}), (std::vector<float>{1.0f, 1.0f, -3.0f}));
  copy_from_float(in, DType::kF16, out);
  EXPECT_EQ(floats({DType::kF16, {3}, out, nullptr}), in);
  EXPECT_ERROR(copy_from_float(in, DType::kI16, out), "got I16");
}

}  // namespace
}  // namespace temper
