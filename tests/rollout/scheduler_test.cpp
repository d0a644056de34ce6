// Invariants, with a stand-in for the model: it writes ids into the store as keys and reads each
// drawn row's whole past back through the spans that attention would read.
#include "rollout/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "rollout_test_util.h"
#include "temper/rollout/kv_need.h"

namespace temper {
namespace {

using namespace testing_rollout;

/// The next token of a text: any fixed function of all of its ids.
int32_t next_token(const Ids& text) {
  uint32_t hash = 2166136261u;
  for (const int32_t id : text) hash = (hash ^ static_cast<uint32_t>(id)) * 16777619u;
  return static_cast<int32_t>(hash >> 8) % 1000;
}

struct Request {
  RolloutRequest rollout;
  std::vector<int64_t> lengths;  // Of each completion.

  Request(const std::vector<int>& prompts, int64_t group_size, int64_t longest,
          int64_t shortest = 2) {
    rollout = {.prompts = make_prompts(prompts), .group_size = group_size};
    for (int64_t s = 0; s < std::ssize(prompts) * group_size; ++s) {
      lengths.push_back(shortest + (s * 37 + 11) % (longest - shortest + 1));
    }
  }
  const Ids& prompt(int64_t s) const {
    return rollout.prompts[static_cast<size_t>(s / rollout.group_size)];
  }
  std::vector<Ids> expected() const {
    std::vector<Ids> out;
    for (int64_t s = 0; s < std::ssize(lengths); ++s) {
      Ids text = prompt(s);
      while (std::ssize(text) < std::ssize(prompt(s)) + lengths[static_cast<size_t>(s)]) {
        text.push_back(next_token(text));
      }
      out.emplace_back(text.begin() + std::ssize(prompt(s)), text.end());
    }
    return out;
  }
  int64_t least_pages(int64_t longest) const {
    int64_t least = 0;
    for (const auto& p : rollout.prompts)
      least = std::max(least, KvStore::pages_for(std::ssize(p)));
    return least + KvStore::pages_for(longest);
  }
};

class StandIn {
 public:
  StandIn(const Request& request, const RolloutConfig& config, int64_t pages)
      : request_(request),
        config_(config),
        kv_(1, 1, pages),
        scheduler_(request.rollout, config, {&kv_}, stats),
        ready_(request.rollout.prompts.size()),
        ids(request.lengths.size()) {}

  void run() {
    for (int step = 0; !scheduler_.done(); ++step) {
      ASSERT_LT(step, 100000) << "no progress";
      const auto work = scheduler_.next();
      ASSERT_TRUE(work.batch.rows() > 0 || !work.draws.empty());
      ASSERT_NO_FATAL_FAILURE(forward(work));
      for (const auto& [group, row] : work.finished_prompts) {
        ASSERT_EQ(texts_[static_cast<size_t>(row)],
                  request_.rollout.prompts[static_cast<size_t>(group)]);
        ready_[static_cast<size_t>(group)] = true;
      }
      ASSERT_LE(std::ssize(work.draws), config_.max_sequences);
      for (const auto& draw : work.draws) ASSERT_NO_FATAL_FAILURE(accept(draw));
    }
    EXPECT_EQ(kv_.free_pages(), kv_.pages()) << "pages were not given back";
  }

  RolloutStats stats;
  int64_t rows = 0;
  int64_t most_prompt_rows = 0;

 private:
  void forward(const Scheduler::Work& work) {
    texts_.clear();
    std::vector<int64_t> drawn_rows;
    for (const auto& d : work.draws) drawn_rows.push_back(d.row);
    int64_t prompt_rows = 0;
    for (const Segment& segment : work.batch.segments) {
      ASSERT_EQ(segment.parent, -1);
      ASSERT_EQ(segment.start, std::ssize(texts_));
      ASSERT_GT(segment.length, 0);
      for (int32_t i = 0; i < segment.length; ++i) {
        const size_t row = static_cast<size_t>(segment.start + i);
        kv_.keys(0)[kv_.append(segment.node)] = static_cast<float>(work.batch.ids[row]);
        ASSERT_EQ(work.batch.positions[row], kv_.total_length(segment.node) - 1);
        texts_.emplace_back();
      }
      std::vector<kernels::KeySpan> spans;
      kv_.append_spans(segment.node, spans);
      for (const auto& span : spans) {
        for (int64_t k = 0; k < span.count; ++k) {
          texts_.back().push_back(static_cast<int32_t>(kv_.keys(0)[span.first_row + k]));
        }
      }
      if (std::find(drawn_rows.begin(), drawn_rows.end(), std::ssize(texts_) - 1) ==
          drawn_rows.end()) {
        prompt_rows += segment.length;
      }
    }
    ASSERT_EQ(std::ssize(texts_), work.batch.rows());
    ASSERT_LE(prompt_rows, config_.prefill_tokens);
    most_prompt_rows = std::max(most_prompt_rows, prompt_rows);
    rows += work.batch.rows();
  }

  void accept(const Scheduler::Draw& draw) {
    const size_t s = static_cast<size_t>(draw.sequence);
    ASSERT_EQ(draw.group, draw.sequence / request_.rollout.group_size);
    Ids text = request_.prompt(draw.sequence);
    text.insert(text.end(), ids[s].begin(), ids[s].end());
    if (draw.row < 0) {
      ASSERT_TRUE(ids[s].empty() && ready_[static_cast<size_t>(draw.group)]);
    } else {
      ASSERT_EQ(texts_[static_cast<size_t>(draw.row)], text)
          << "sequence " << s << " reads another past";
    }
    ids[s].push_back(next_token(text));
    ASSERT_LE(std::ssize(ids[s]), request_.lengths[s]) << "drawn after its end";
    scheduler_.record(draw.sequence, ids[s].back(), std::ssize(ids[s]) == request_.lengths[s]);
  }

  const Request& request_;
  const RolloutConfig& config_;
  KvStore kv_;
  Scheduler scheduler_;
  std::vector<bool> ready_;
  std::vector<Ids> texts_;  // Of each batch row, whole at a segment's last row.

 public:
  std::vector<Ids> ids;
};

TEST(Scheduler, EveryTokenSeesItsWholePastUnderAnyMemoryAndBatching) {
  const Request request({3, 40, 1, 64, 33, 32}, 4, 70);
  const auto expected = request.expected();
  const int64_t least = request.least_pages(70);
  int64_t once = 0;
  for (const auto& p : request.rollout.prompts) once += std::ssize(p);
  for (const int64_t n : request.lengths) once += n - 1;
  bool preempted = false;
  for (const int64_t pages : {least, least + 1, least + 2, 2 * least, int64_t{20}, int64_t{200}}) {
    for (const int64_t sequences : {1, 2, 5, 64}) {
      for (const int64_t prefill : {1, 7, 512}) {
        const RolloutConfig config{
            .max_new_tokens = 70, .max_sequences = sequences, .prefill_tokens = prefill};
        const std::string what = std::to_string(pages) + " pages, " + std::to_string(sequences) +
                                 " sequences, prefill " + std::to_string(prefill);
        SCOPED_TRACE(what);
        StandIn model(request, config, pages);
        ASSERT_NO_FATAL_FAILURE(model.run());
        ASSERT_EQ(model.ids, expected);
        // What was dropped is computed again, and nothing else is.
        ASSERT_EQ(model.rows, once + model.stats.recomputed_tokens);
        ASSERT_EQ(model.stats.preemptions > 0 || model.stats.recomputed_tokens > 0,
                  model.rows > once);
        preempted = preempted || model.stats.preemptions > 0;
        if (pages == 200) {
          ASSERT_EQ(model.stats.preemptions, 0);
          ASSERT_EQ(model.stats.prompt_tokens, 3 + 40 + 1 + 64 + 33 + 32);
          ASSERT_EQ(model.stats.recomputed_tokens, 0);
        }
      }
    }
  }
  EXPECT_TRUE(preempted);
}

TEST(KvNeed, IsWhatRunsAtATime) {
  // By hand, pages of 32 tokens: prompts of 1, 2 and 2 pages, completions of 3.
  const std::vector<int64_t> prompts{32, 33, 64};
  const auto need = [&](int64_t group_size, int64_t sequences) {
    return kv_need(prompts, group_size, {.max_new_tokens = 70, .max_sequences = sequences});
  };
  EXPECT_EQ(need(4, 64).wanted, 5 + 12 * 3);  // All of them.
  EXPECT_EQ(need(4, 5).wanted, 5 + 5 * 3);
  EXPECT_EQ(need(4, 2).wanted, 4 + 2 * 3);  // At most two groups are begun.
  EXPECT_EQ(need(4, 2).least, 5);
  EXPECT_EQ(kv_need({}, 4, {}).wanted, 0);
}

TEST(KvNeed, IsEnoughForNothingToBeComputedTwice) {
  const Request request({3, 40, 1, 64, 33, 32, 31, 96, 2, 65}, 3, 70);
  std::vector<int64_t> tokens;
  for (const auto& p : request.rollout.prompts) tokens.push_back(std::ssize(p));
  for (const int64_t sequences : {1, 2, 3, 4, 5, 8, 11, 64}) {
    for (const int64_t prefill : {1, 7, 50, 512}) {
      const RolloutConfig config{
          .max_new_tokens = 70, .max_sequences = sequences, .prefill_tokens = prefill};
      SCOPED_TRACE(testing::Message() << sequences << " sequences, prefill " << prefill);
      StandIn model(request, config, kv_need(tokens, 3, config).wanted);
      ASSERT_NO_FATAL_FAILURE(model.run());
      EXPECT_EQ(model.stats.recomputed_tokens, 0);
    }
  }
}

TEST(Scheduler, FillsThePrefillBudgetAcrossPrompts) {
  const Request request({10, 10, 10}, 2, 3);
  const RolloutConfig config{.max_new_tokens = 3, .prefill_tokens = 25};
  StandIn model(request, config, 50);
  ASSERT_NO_FATAL_FAILURE(model.run());
  EXPECT_EQ(model.most_prompt_rows, 25);
}

TEST(Scheduler, ACompletionOfOneTokenNeedsNoForwardOfItsOwn) {
  const Request request({5, 6}, 3, 1, 1);
  const RolloutConfig config{.max_new_tokens = 1};
  StandIn model(request, config, request.least_pages(1));
  ASSERT_NO_FATAL_FAILURE(model.run());
  EXPECT_EQ(model.rows, 11);
  EXPECT_EQ(model.ids, request.expected());
}

TEST(Scheduler, SaysWhenOneCompletionDoesNotFit) {
  const Request request({40}, 2, 40, 40);
  const RolloutConfig config{.max_new_tokens = 40};
  KvStore kv(1, 1, 1);
  RolloutStats stats;
  Scheduler scheduler(request.rollout, config, {&kv}, stats);
  EXPECT_NE(
      error_of([&] { (void)scheduler.next(); }).find("[rollout] rollout.kv_memory_mb is too small"),
      std::string::npos);
}

}  // namespace
}  // namespace temper
