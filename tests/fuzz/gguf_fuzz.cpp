// Any bytes: an Error, or a file whose tensors decode, and, where it is a model, one that reads.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "temper/core/error.h"
#include "temper/core/threads.h"
#include "temper/formats/gguf.h"

namespace {

void read_tensors(const temper::GgufFile& file) {
  for (const auto& [name, tensor] : file.tensors()) {
    size_t numel = 1;
    for (const int64_t d : tensor.shape) numel *= static_cast<size_t>(d);
    std::vector<float> values(numel);  // at most 128 floats for each byte of the input
    temper::ggml_dequantize(tensor.type, tensor.data, values);
  }
}

void read_model(const temper::GgufFile& file) {
  const temper::ModelSource model = temper::open_gguf_model(file);
  if (model.tokenizer.tokenizer_json.empty()) __builtin_trap();
  for (const std::string& name : model.weights->names()) {
    size_t numel = 1;
    for (const int64_t d : model.weights->shape(name)) numel *= static_cast<size_t>(d);
    std::vector<float> values(numel);
    model.weights->read_float(name, values);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  temper::set_num_threads(1);
  try {
    const auto file =
        temper::GgufFile::parse(nullptr, std::as_bytes(std::span(data, size)), "fuzz");
    read_tensors(file);
    read_model(file);
  } catch (const temper::Error&) {
  }
  return 0;
}
