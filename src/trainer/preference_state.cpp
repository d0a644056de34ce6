// What a checkpoint of a preference trainer holds, and how it comes back.
#include <nlohmann/json.hpp>
#include <utility>

#include "answer_json.h"
#include "offline_rows.h"
#include "state_file.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/trainer/adapter_run.h"
#include "temper/trainer/preference_trainer.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kRoundFile = "round.json";

/// The parts of a round that a later step reads.
struct SavedRound {
  ReferencedRows rows;
  std::vector<AnswerLearner::RowList> lists;
};

SavedRound parse_round(const Json& json) {
  SavedRound out;
  try {
    for (const Json& row : json.at("rows")) out.rows.groups.push_back(parse_answer_group(row));
    json.at("reference").get_to(out.rows.logprobs);
    json.at("lists").get_to(out.lists);
  } catch (const Json::exception& e) {
    fail("[resume] ", kRoundFile, " cannot be read: ", e.what());
  }
  const ReferencedRows& rows = out.rows;
  TEMPER_CHECK(rows.logprobs.empty() || rows.logprobs.size() == rows.groups.size(), "[resume] ",
               kRoundFile, " has the reference's log-probs of ", rows.logprobs.size(), " rows, not ",
               rows.groups.size());
  for (size_t i = 0; i < rows.logprobs.size(); ++i) {
    TEMPER_CHECK(std::cmp_equal(rows.logprobs[i].size(), predicted_tokens(rows.groups[i])),
                 "[resume] ", kRoundFile, ": row ", i, " has a log-prob too many or too few");
  }
  for (const auto& list : out.lists) {
    for (const size_t i : list) {
      TEMPER_CHECK(i < rows.groups.size(), "[resume] ", kRoundFile, " names row ", i, " of ",
                   rows.groups.size());
    }
  }
  return out;
}

}  // namespace

void PreferenceTrainer::save(const fs::path& folder) const {
  save_run_policy(policy_, folder);
  learner_.optimizer().save(folder / kOptimizerFile);
  Json rows = Json::array();
  const bool left = round_.next < round_.lists.size();
  const auto begin = round_.lists.begin() + static_cast<std::ptrdiff_t>(round_.next);
  const std::vector<RowList> lists(begin, round_.lists.end());
  if (left) {
    for (const AnswerGroup& g : round_.rows.groups) rows.push_back(answer_group_json(g));
  }
  // A reference that moves has moved on by now: what it said is kept.
  const auto said = left && moves() ? round_.rows.logprobs : std::vector<std::vector<float>>();
  const Json round{{"rows", rows}, {"reference", said}, {"lists", lists}};
  write_file_atomically(folder / kRoundFile, round.dump() + "\n");
  const Json state{{"step", state_.step},
                   {"rounds", state_.rounds},
                   {"num_tokens", state_.num_tokens},
                   {"ratio_sum", learner_.running_ratio().sum},
                   {"ratio_count", learner_.running_ratio().count},
                   {"optimizer_steps", learner_.optimizer().steps()},
                   {"seed", parts_.seed},
                   {"source", parts_.source->state()}};
  write_file_atomically(folder / kStateFile, state.dump(2) + "\n");
}

void PreferenceTrainer::load(const fs::path& folder) {
  const Json state = read_state(folder);
  TEMPER_CHECK(required<uint64_t>(state, "seed") == parts_.seed,
               "[resume] the seed is not that of the checkpoint");
  TEMPER_CHECK(state.contains("source"), "[resume] ", kStateFile, " has no \"source\"");
  const Json json = Json::parse(read_text_file(folder / kRoundFile), nullptr, false);
  TEMPER_CHECK(json.is_object(), "[resume] ", (folder / kRoundFile).string(),
               " is not a JSON object");
  SavedRound round = parse_round(json);
  parts_.source->restore(state["source"]);
  learner_.optimizer().load(folder / kOptimizerFile, required<int64_t>(state, "optimizer_steps"));
  learner_.running_ratio() = {required<double>(state, "ratio_sum"),
                              required<double>(state, "ratio_count")};
  state_ = {required<int64_t>(state, "step"), required<int64_t>(state, "rounds"),
            required<double>(state, "num_tokens")};
  round_ = {};
  round_.rows = std::move(round.rows);
  round_.lists = std::move(round.lists);
  if (!round_.rows.groups.empty() && round_.rows.logprobs.empty()) fill_reference(round_.rows);
}

uint64_t PreferenceTrainer::checkpoint_bytes() const {
  uint64_t rows = 0;
  for (const AnswerGroup& g : round_.rows.groups) rows += static_cast<uint64_t>(g.tokens());
  constexpr uint64_t kBytesOfToken = 32;  // Id, mask and log-prob in decimal.
  const uint64_t kept = static_cast<uint64_t>(parts_.source->state().dump().size());
  return run_policy_bytes(policy_) + learner_.optimizer().bytes() + rows * kBytesOfToken + kept +
         (uint64_t{1} << 22);
}

}  // namespace temper
