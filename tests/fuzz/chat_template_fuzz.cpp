// Any bytes as a template over fixed messages. Whatever the template does, rendering ends soon, in
// a text or in an Error.
#include <cstdint>
#include <nlohmann/json.hpp>

#include "temper/core/error.h"
#include "temper/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto messages = nlohmann::ordered_json::parse(R"([
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Gr\u00fc\u00dfe \ud83d\udc11", "n": [1, 2.5, true, null]},
    {"role": "assistant", "content": "Yes.", "tool_calls": [{"function": {"name": "f",
      "arguments": {"b": 1, "a": ["x", {"y": []}]}}}]}])");
  static const auto tools = nlohmann::ordered_json::parse(
      R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])");
  temper::ChatTemplateOptions options;
  options.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  options.tools = &tools;
  options.unix_time = 1718452800;
  try {
    const temper::ChatTemplate chat({reinterpret_cast<const char*>(data), size});
    const auto rendered = chat.render_with_spans(messages, options);
    for (const auto& [start, end] : rendered.generation) {
      if (start > end || end > rendered.text.size()) __builtin_trap();
    }
  } catch (const temper::Error&) {
  }
  return 0;
}
