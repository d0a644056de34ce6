// Any bytes must give scored prompts or an Error; pairs made of them must be pairs, and scrubbed
// text must have nothing left to scrub.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "temper/core/error.h"
#include "temper/data/near_duplicates.h"
#include "temper/data/scored.h"
#include "temper/data/scrub.h"

namespace {

void check_text(const std::string& text) {
  temper::ScrubCounts first, second;
  const std::string once = temper::scrub_personal_data(text, first);
  if (temper::scrub_personal_data(once, second) != once || second.all() != 0) std::abort();
  if ((first.all() == 0) != (once == text)) std::abort();
  if (temper::fold_text(temper::fold_text(text)) != temper::fold_text(text)) std::abort();
  if (temper::shingles(text, 3).empty()) std::abort();
}

void check(const temper::ScoredPrompt& p) {
  if (p.prompt.turns.empty() == p.conversation || p.line == 0) std::abort();
  check_text(p.prompt.text);
  for (const temper::ScoredAnswer& a : p.answers) {
    if (a.answer.turns.empty() == p.conversation || !std::isfinite(a.score)) std::abort();
    check_text(a.answer.text);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const char* name : {"fuzz.jsonl", "fuzz.csv"}) {
    temper::PreferenceReadOptions options;
    options.skip_bad = true;
    options.lossy_utf8 = true;
    options.max_line_bytes = 4096;
    try {
      for (const auto& prompt : temper::parse_scored(text, name, options).prompts) check(prompt);
    } catch (const temper::Error&) {
    }
  }
  return 0;
}
