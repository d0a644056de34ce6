#include "temper/data/packing.h"

#include "append_segment.h"
#include "temper/core/error.h"

namespace temper {
CompletionBatch pack_completions(std::span<const PackedGroup> groups, Tail tail) {
  CompletionBatch out;
  int32_t sequence = 0;
  for (const PackedGroup& group : groups) {
    TEMPER_CHECK(!group.prompt.empty(), "[pack_completions] a prompt is empty");
    const int32_t parent = static_cast<int32_t>(out.tokens.segments.size());
    (void)append_segment(out.tokens, -1, group.prompt, 0);
    const int32_t prompt_end = static_cast<int32_t>(out.tokens.ids.size()) - 1;
    for (const auto& completion : group.completions) {
      const int32_t start = static_cast<int32_t>(out.tokens.ids.size());
      const size_t kept = completion.size() - (tail == Tail::kKept || completion.empty() ? 0 : 1);
      if (kept > 0) {
        (void)append_segment(out.tokens, parent, completion.first(kept), std::ssize(group.prompt));
      }
      if (tail == Tail::kKept) {
        out.ends.push_back(kept == 0 ? prompt_end : start + static_cast<int32_t>(kept) - 1);
      }
      for (size_t t = 0; t < completion.size(); ++t) {
        out.rows.push_back(t == 0 ? prompt_end : start + static_cast<int32_t>(t) - 1);
        out.targets.push_back(completion[t]);
        out.sequence.push_back(sequence);
      }
      ++sequence;
    }
  }
  return out;
}

}  // namespace temper
