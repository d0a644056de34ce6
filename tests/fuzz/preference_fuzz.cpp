// Any bytes must give pairs or an Error, and what was read must be what `PreferencePair` promises.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "temper/core/error.h"
#include "temper/data/preference.h"

namespace {

bool one_kind(const temper::Passage& passage, bool conversation) {
  return conversation ? passage.text.empty() : passage.turns.empty();
}

void check(const temper::PreferencePair& p) {
  const bool kinds = one_kind(p.prompt, p.conversation) && one_kind(p.chosen, p.conversation) &&
                     one_kind(p.rejected, p.conversation);
  const bool answers = !p.chosen.empty() && !p.rejected.empty() &&
                       !(p.chosen == p.rejected && p.chosen_json == p.rejected_json);
  if (!kinds || !answers || !std::isfinite(p.margin) || p.line == 0) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const char* transcripts : {"messages", "text", "off"}) {
    temper::PreferenceReadOptions options;
    options.transcripts = transcripts;
    options.skip_bad = *transcripts != 'o';
    options.lossy_utf8 = *transcripts == 't';
    options.max_line_bytes = 4096;
    try {
      for (const auto& pair : temper::parse_preferences(text, "fuzz", options).pairs) check(pair);
    } catch (const temper::Error&) {
    }
  }
  return 0;
}
