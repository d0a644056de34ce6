#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

#include "temper/core/error.h"

namespace temper {

/// Field numbers of the messages of a TensorBoard event file (tensorflow/core/util/event.proto,
/// framework/summary.proto, framework/tensor.proto).
namespace event_field {
inline constexpr uint32_t kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
}
namespace summary_field {
inline constexpr uint32_t kValue = 1;
}
namespace value_field {
inline constexpr uint32_t kTag = 1, kSimpleValue = 2, kTensor = 8, kMetadata = 9;
}
namespace metadata_field {
inline constexpr uint32_t kPlugin = 1;
}
namespace plugin_field {
inline constexpr uint32_t kName = 1;
}
namespace tensor_field {
inline constexpr uint32_t kDtype = 1, kShape = 2, kStringVal = 8;
}
namespace shape_field {
inline constexpr uint32_t kDim = 2;
}
namespace dim_field {
inline constexpr uint32_t kSize = 1;
}
namespace session_field {
inline constexpr uint32_t kStatus = 1;
}
inline constexpr uint64_t kDtString = 7;
inline constexpr uint64_t kSessionStart = 1;
inline constexpr std::string_view kEventFileVersion = "brain.Event:2";
inline constexpr std::string_view kTextPlugin = "text";

template <class T>
[[nodiscard]] std::string little_endian_bytes(T value) {
  std::string out(sizeof(T), '\0');
  for (size_t i = 0; i < sizeof(T); ++i) out[i] = static_cast<char>((value >> (8 * i)) & 0xFF);
  return out;
}

template <class T>
[[nodiscard]] T from_little_endian(std::string_view bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  }
  return value;
}

/// A CRC as a record stores it, so that the CRC of data that holds CRCs stays meaningful.
[[nodiscard]] constexpr uint32_t masked_crc(uint32_t crc) {
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

/// Builds one protobuf message.
class ProtoWriter {
 public:
  void varint(uint32_t field, uint64_t value) {
    key(field, 0);
    raw_varint(value);
  }
  void fixed64(uint32_t field, double value) {
    key(field, 1);
    out_ += little_endian_bytes(std::bit_cast<uint64_t>(value));
  }
  void bytes(uint32_t field, std::string_view value) {
    key(field, 2);
    raw_varint(value.size());
    out_ += value;
  }
  void message(uint32_t field, const ProtoWriter& value) { bytes(field, value.out_); }
  void fixed32(uint32_t field, float value) {
    key(field, 5);
    out_ += little_endian_bytes(std::bit_cast<uint32_t>(value));
  }
  [[nodiscard]] const std::string& bytes() const { return out_; }

 private:
  void key(uint32_t field, uint32_t wire) { raw_varint((uint64_t{field} << 3) | wire); }
  void raw_varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += static_cast<char>((value & 0x7F) | 0x80);
    out_ += static_cast<char>(value);
  }
  std::string out_;
};

/// Walks the fields of one protobuf message. @throws Error for anything malformed.
class ProtoReader {
 public:
  explicit ProtoReader(std::string_view bytes) : rest_(bytes) {}

  /// Moves to the next field; false at the end.
  [[nodiscard]] bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = take_varint();
    field_ = static_cast<uint32_t>(key >> 3);
    wire_ = static_cast<uint32_t>(key & 7);
    switch (wire_) {
      case 0: number_ = take_varint(); break;
      case 1: number_ = from_little_endian<uint64_t>(take(8)); break;
      case 2: bytes_ = take(take_varint()); break;
      case 5: number_ = from_little_endian<uint32_t>(take(4)); break;
      default: fail("[tensorboard] unknown protobuf wire type ", wire_);
    }
    return true;
  }
  [[nodiscard]] uint32_t field() const { return field_; }
  /// The value of a field of wire type 2 (text, bytes or a message).
  [[nodiscard]] std::string_view bytes() const { return of_type(2), bytes_; }
  [[nodiscard]] uint64_t varint() const { return of_type(0), number_; }
  [[nodiscard]] double float64() const { return of_type(1), std::bit_cast<double>(number_); }
  [[nodiscard]] float float32() const {
    return of_type(5), std::bit_cast<float>(static_cast<uint32_t>(number_));
  }

 private:
  void of_type(uint32_t wire) const {
    TEMPER_CHECK(wire_ == wire, "[tensorboard] field ", field_, " has protobuf wire type ", wire_,
                 ", expected ", wire);
  }
  std::string_view take(uint64_t size) {
    TEMPER_CHECK(size <= rest_.size(), "[tensorboard] a field of ", size,
                 " bytes does not fit into the ", rest_.size(), " bytes left of its message");
    const std::string_view taken = rest_.substr(0, static_cast<size_t>(size));
    rest_.remove_prefix(static_cast<size_t>(size));
    return taken;
  }
  uint64_t take_varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    fail("[tensorboard] a protobuf number is longer than 10 bytes");
  }

  std::string_view rest_;
  std::string_view bytes_;
  uint64_t number_ = 0;
  uint32_t field_ = 0;
  uint32_t wire_ = 0;
};

}  // namespace temper
