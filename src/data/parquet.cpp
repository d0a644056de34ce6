#include "parquet.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "temper/core/error.h"
#include "temper/data/dataset.h"

namespace temper::detail {
namespace {

using Json = nlohmann::ordered_json;

Json value_at(const arrow::Array& array, int64_t i, int depth);

template <class Array>
Json list_at(const arrow::Array& array, int64_t i, int depth) {
  const auto& list = static_cast<const Array&>(array);
  Json out = Json::array();
  for (int64_t k = 0; k < list.value_length(i); ++k) {
    out.push_back(value_at(*list.values(), list.value_offset(i) + k, depth));
  }
  return out;
}

Json struct_at(const arrow::Array& array, int64_t i, int depth) {
  const auto& record = static_cast<const arrow::StructArray&>(array);
  Json out = Json::object();
  for (int f = 0; f < record.num_fields(); ++f) {
    out[record.struct_type()->field(f)->name()] = value_at(*record.field(f), i, depth);
  }
  return out;
}

template <class Array>
Json plain_at(const arrow::Array& array, int64_t i) {
  return static_cast<const Array&>(array).Value(i);
}

template <class Array>
Json text_at(const arrow::Array& array, int64_t i) {
  return static_cast<const Array&>(array).GetString(i);
}

Json value_at(const arrow::Array& array, int64_t i, int depth) {
  TEMPER_CHECK(depth < kMaxJsonDepth, "its types are nested deeper than ", kMaxJsonDepth);
  if (array.IsNull(i)) return nullptr;
  switch (array.type_id()) {
    case arrow::Type::BOOL: return plain_at<arrow::BooleanArray>(array, i);
    case arrow::Type::INT8: return plain_at<arrow::Int8Array>(array, i);
    case arrow::Type::INT16: return plain_at<arrow::Int16Array>(array, i);
    case arrow::Type::INT32: return plain_at<arrow::Int32Array>(array, i);
    case arrow::Type::INT64: return plain_at<arrow::Int64Array>(array, i);
    case arrow::Type::UINT8: return plain_at<arrow::UInt8Array>(array, i);
    case arrow::Type::UINT16: return plain_at<arrow::UInt16Array>(array, i);
    case arrow::Type::UINT32: return plain_at<arrow::UInt32Array>(array, i);
    case arrow::Type::UINT64: return plain_at<arrow::UInt64Array>(array, i);
    case arrow::Type::FLOAT: return plain_at<arrow::FloatArray>(array, i);
    case arrow::Type::DOUBLE: return plain_at<arrow::DoubleArray>(array, i);
    case arrow::Type::STRING: return text_at<arrow::StringArray>(array, i);
    case arrow::Type::LARGE_STRING: return text_at<arrow::LargeStringArray>(array, i);
    case arrow::Type::LIST: return list_at<arrow::ListArray>(array, i, depth + 1);
    case arrow::Type::LARGE_LIST: return list_at<arrow::LargeListArray>(array, i, depth + 1);
    case arrow::Type::STRUCT: return struct_at(array, i, depth + 1);
    case arrow::Type::DICTIONARY: {
      const auto& words = static_cast<const arrow::DictionaryArray&>(array);
      return value_at(*words.dictionary(), words.GetValueIndex(i), depth + 1);
    }
    default: return array.GetScalar(i).ValueOrDie()->ToString();
  }
}

/// Hands out a file's rows as lines.
class ParquetLines {
 public:
  explicit ParquetLines(const std::filesystem::path& path) : name_(path.string()) {
    guarded([&] {
      auto file = arrow::io::ReadableFile::Open(name_);
      check(file.status());
      auto reader = parquet::arrow::OpenFile(*file, arrow::default_memory_pool());
      check(reader.status());
      reader_ = std::move(*reader);
      reader_->set_batch_size(kRowsOfABatch);
      auto batches = reader_->GetRecordBatchReader();
      check(batches.status());
      batches_ = std::move(*batches);
    });
  }

  size_t read(char* buffer, size_t size) {
    while (at_ == text_.size()) {
      if (!next_batch()) return 0;
    }
    const size_t n = std::min(size, text_.size() - at_);
    text_.copy(buffer, n, at_);
    at_ += n;
    return n;
  }

 private:
  static constexpr int64_t kRowsOfABatch = 64;

  void check(const arrow::Status& status) const {
    TEMPER_CHECK(status.ok(), "[read_jsonl] ", name_, ": it cannot be read as Parquet: ",
                 status.message());
  }

  /// Arrow throws here and there instead of returning a status.
  template <class Body>
  void guarded(const Body& body) const {
    try {
      body();
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {
      fail("[read_jsonl] ", name_, ": it cannot be read as Parquet: ", e.what());
    }
  }

  bool next_batch() {
    text_.clear();
    at_ = 0;
    std::shared_ptr<arrow::RecordBatch> batch;
    guarded([&] {
      check(batches_->ReadNext(&batch));
      for (int64_t i = 0; batch && i < batch->num_rows(); ++i) text_ += line(*batch, i) + "\n";
    });
    return batch != nullptr;
  }

  std::string line(const arrow::RecordBatch& batch, int64_t i) const {
    Json row = Json::object();
    for (int c = 0; c < batch.num_columns(); ++c) {
      // A missing value is a missing key: readers tell the two apart from words alone.
      Json value = value_at(*batch.column(c), i, 1);
      if (!value.is_null()) row[batch.schema()->field(c)->name()] = std::move(value);
    }
    return row.dump();
  }

  std::string name_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::shared_ptr<arrow::RecordBatchReader> batches_;
  std::string text_;
  size_t at_ = 0;
};

}  // namespace

bool reads_parquet() { return true; }

ByteSource parquet_bytes(const std::filesystem::path& path) {
  auto lines = std::make_shared<ParquetLines>(path);
  return [lines](char* buffer, size_t size) { return lines->read(buffer, size); };
}

}  // namespace temper::detail
