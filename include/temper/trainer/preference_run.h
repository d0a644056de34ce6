#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "temper/trainer/answer_probe.h"
#include "temper/trainer/labeler_config.h"
#include "temper/trainer/preference_trainer.h"
#include "temper/trainer/run.h"

namespace temper {

/// Given pairs that are learned beside those of the policy's answers.
struct PairFileConfig {
  std::string path;
  TokenLimit limit;
  CompletionReadOptions read;

  template <class V>
  void visit(V&& v) {
    v(path, "path", "File of pairs, as for temper train dpo; read where preference.file_share > 0.");
    v(limit, "limit");
    v(read, "read");
  }
};

/// Everything that `temper train online-dpo` and its kin can be told. Written to the run folder,
/// complete. `trainer.steps` are optimizer steps.
struct PreferenceRunConfig : OnlineRunConfig {
  PreferenceConfig preference;
  OfflineLoss loss{"dpo", online_preference_objectives()};
  LabelerConfig labeler;
  PairFileConfig pairs;
  ProbeConfig probe;

  template <class V>
  void visit(V&& v) {
    visit_with(v, preference, "preference");
    v(loss, "loss");
    v(labeler, "labeler");
    v(pairs, "pairs");
    v(probe, "probe");
  }
};

/// A command of `temper train` that learns from the policy's own answers: a set of defaults.
struct PreferenceMethod {
  std::string name;
  std::string doc;
  std::string loss;  ///< Of `online_preference_objectives`.
  void (*set_defaults)(PreferenceRunConfig&);
};

/// `online-dpo` first.
[[nodiscard]] const std::vector<PreferenceMethod>& preference_methods();

/// The method's defaults, then a JSON file's content (may be empty), then "key=value" assignments.
/// @throws Error naming source and key; see core/config.h.
[[nodiscard]] PreferenceRunConfig read_preference_config(
    std::string_view method, const std::string& json_text, const std::string& source,
    const std::vector<std::string>& assignments);

/// The complete configuration as JSON text.
[[nodiscard]] std::string config_text(PreferenceRunConfig config);

/// What a round and a step are, in words.
[[nodiscard]] std::string describe_batch(const PreferenceRunConfig& config);

/// Trains a policy on preferences over its own answers from a config: samples, labels, learns,
/// evaluates held-out prompts before and after, writes metrics, completions, checkpoints, the
/// trained model and report.html. A run killed at any moment and resumed ends with the same weights
/// and metrics, bit for bit, as one never killed.
/// @throws Error for bad settings before anything is trained; an error while training leaves the run
/// folder with everything up to the last step.
[[nodiscard]] RunResult train_preference(const PreferenceRunConfig& config,
                                         const RunOptions& options);

}  // namespace temper
