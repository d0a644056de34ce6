#include "protobuf.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/trainer/tensorboard.h"

namespace temper {
namespace {

/// True and the next record's data, or false when the file ends inside it.
bool next_record(std::string_view& rest, std::string_view& data) {
  constexpr size_t kHead = 12;
  constexpr size_t kTail = 4;
  if (rest.size() < kHead) return false;
  const auto stored = from_little_endian<uint32_t>(rest.substr(8, 4));
  TEMPER_CHECK(stored == masked_crc(crc32c(rest.substr(0, 8))),
               "[tensorboard] wrong checksum of a record's length");
  const auto length = from_little_endian<uint64_t>(rest);
  const uint64_t room = rest.size() - kHead;
  if (room < kTail || length > room - kTail) return false;
  data = rest.substr(kHead, static_cast<size_t>(length));
  rest.remove_prefix(kHead + data.size());
  TEMPER_CHECK(from_little_endian<uint32_t>(rest) == masked_crc(crc32c(data)),
               "[tensorboard] wrong checksum of a record of ", length, " bytes");
  rest.remove_prefix(kTail);
  return true;
}

std::string tensor_text(std::string_view message) {
  ProtoReader reader(message);
  std::string text;
  while (reader.next()) {
    if (reader.field() == tensor_field::kStringVal) text = reader.bytes();
  }
  return text;
}

void read_value(std::string_view message, TensorBoardValue value,
                std::vector<TensorBoardValue>& out) {
  ProtoReader reader(message);
  while (reader.next()) {
    switch (reader.field()) {
      case value_field::kTag: value.tag = reader.bytes(); break;
      case value_field::kSimpleValue: value.scalar = reader.float32(); break;
      case value_field::kTensor:
        value.is_text = true;
        value.text = tensor_text(reader.bytes());
        break;
      default: break;
    }
  }
  out.push_back(std::move(value));
}

void read_event(std::string_view message, std::string& version,
                std::vector<TensorBoardValue>& out) {
  TensorBoardValue base;
  std::vector<std::string_view> summaries;
  ProtoReader reader(message);
  while (reader.next()) {
    switch (reader.field()) {
      case event_field::kWallTime: base.unix_seconds = reader.float64(); break;
      case event_field::kStep: base.step = static_cast<int64_t>(reader.varint()); break;
      case event_field::kFileVersion: version = reader.bytes(); break;
      case event_field::kSummary: summaries.push_back(reader.bytes()); break;
      default: break;
    }
  }
  // A summary may come before the step in the message, so it is read when both are known.
  for (const std::string_view summary : summaries) {
    ProtoReader values(summary);
    while (values.next()) {
      if (values.field() == summary_field::kValue) read_value(values.bytes(), base, out);
    }
  }
}

}  // namespace

std::vector<TensorBoardValue> read_tensorboard(const std::filesystem::path& path, bool* complete) {
  const auto file = MappedFile::open(path);
  std::string_view rest(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  std::vector<TensorBoardValue> values;
  std::string_view data;
  bool first = true;
  while (next_record(rest, data)) {
    std::string version;
    read_event(data, version, values);
    TEMPER_CHECK(!first || version == kEventFileVersion, "[tensorboard] ", path.string(),
                 " begins with version \"", version, "\", expected \"", kEventFileVersion, "\"");
    first = false;
  }
  if (complete != nullptr) *complete = rest.empty() && !first;
  return values;
}

}  // namespace temper
