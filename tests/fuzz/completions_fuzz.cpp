// Any bytes must give records or an Error, and what was read must be what `CompletionRecord`
// promises, as lines of JSON and as a table.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "temper/core/error.h"
#include "temper/data/completions.h"

namespace {

bool one_kind(const temper::Passage& passage, bool conversation) {
  return conversation ? passage.text.empty() : passage.turns.empty();
}

void check(const temper::CompletionRecord& r, temper::DataForm form) {
  const bool kinds = one_kind(r.prompt, r.conversation) && one_kind(r.completion, r.conversation);
  const bool words = r.completion.empty() == (form == temper::DataForm::kPrompt);
  const bool flags = r.assistant.size() == r.completion.turns.size();
  const bool numbers = std::isfinite(r.weight) && r.weight >= 0 && r.line > 0;
  if (!kinds || !words || !flags || !numbers) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const char* form : {"auto", "prompt"}) {
    for (const char* name : {"fuzz.jsonl", "fuzz.csv"}) {
      temper::CompletionReadOptions options;
      options.form = form;
      options.skip_bad = *form == 'a';
      options.lossy_utf8 = *form == 'a';
      options.max_line_bytes = 4096;
      try {
        const auto read = temper::parse_completions(text, name, options);
        for (const auto& record : read.records) check(record, read.form);
      } catch (const temper::Error&) {
      }
    }
  }
  return 0;
}
