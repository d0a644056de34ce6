#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "temper/core/dtype.h"
#include "temper/core/torch.h"
#include "temper/nn/causal_lm.h"
#include "temper/nn/models.h"
#include "temper/nn/parameter.h"
#include "temper/nn/token_batch.h"

namespace temper {

/// A linear map from a hidden row to one number: a reward head or a value head, over a trunk of its
/// own or over rows that another model computed. Float32 weight [width] and an optional bias.
/// Exactness: a value is summed in double, as one chain over ascending columns, and rounded once,
/// so its bits depend on its row and the weights alone. Gradients are chains over ascending entries
/// of `rows`, so that a split step has the bits of a whole one.
class ScalarHead {
 public:
  /// All zeros: values start at 0, and only the head learns from the first step.
  /// @param name  of the weight, and in checkpoints of its optimizer; the bias is `name` + "_bias".
  explicit ScalarHead(int64_t width, bool bias = false, std::string name = "score");

  /// Replaces the weights. @param bias  read only where the head has one.
  void set(std::span<const float> weight, float bias = 0);

  [[nodiscard]] int64_t width() const { return weight_->n; }
  [[nodiscard]] bool has_bias() const { return bias_ != nullptr; }
  [[nodiscard]] std::span<const float> weight() const;
  /// 0 without a bias.
  [[nodiscard]] float bias() const;

  /// [M] float32: the value of each row `rows[m]` of `hidden` [N, width].
  /// @throws Error for a row outside [0, N) or another width.
  [[nodiscard]] at::Tensor values(const at::Tensor& hidden, std::span<const int32_t> rows) const;

  /// Adds d loss / d weight and d loss / d bias, given d loss / d value [M].
  /// @param dhidden  [N, width], may be null: d loss / d hidden is added to its rows `rows`.
  void backward(const at::Tensor& hidden, std::span<const int32_t> rows, const at::Tensor& dvalues,
                at::Tensor* dhidden);

  void zero_gradients();
  /// The weight and the bias if there is one. Neither is a matrix: no weight decay reaches them.
  [[nodiscard]] std::vector<Parameter*> parameters() const;

 private:
  std::unique_ptr<Parameter> weight_;
  std::unique_ptr<Parameter> bias_;
};

/// What `values_backward` needs; reuse it from step to step.
struct ScalarTape {
  ForwardTape forward;
  std::vector<int32_t> rows;  ///< [M] batch rows whose values were asked for.
  at::Tensor hidden;          ///< [M, hidden] their hidden rows.
};

/// A text to score, cut where a shared prompt ends. Neighbours with equal prompts share its rows.
struct PromptedText {
  std::span<const int32_t> prompt;      ///< May be empty.
  std::span<const int32_t> completion;  ///< May be empty, but not both.
};

/// A backbone with a scalar head. A value's bits depend on the weights and on its own text up to
/// its row: not on the batch, the threads or how a step was split. One thread may call it at a
/// time, and a backbone that several models share counts as one.
class ScalarModel {
 public:
  /// A head over a backbone that others may use too. Training it trains the backbone only if
  /// that is trainable, so that a frozen reference can carry reward heads.
  /// @param source  where the backbone's config and tokenizer come from: what `save` copies.
  ScalarModel(std::shared_ptr<CausalLM> backbone, ScalarHead head,
              std::shared_ptr<const ModelSource> source);

  [[nodiscard]] CausalLM& backbone() const { return *backbone_; }
  [[nodiscard]] const std::shared_ptr<CausalLM>& shared_backbone() const { return backbone_; }
  [[nodiscard]] ScalarHead& head() { return head_; }
  [[nodiscard]] const ScalarHead& head() const { return head_; }
  /// The model's files without their weights.
  [[nodiscard]] const ModelSource& source() const { return *source_; }
  [[nodiscard]] const std::shared_ptr<const ModelSource>& shared_source() const { return source_; }
  /// The tokenizer and chat template, read when first asked for. @throws Error if there is none.
  [[nodiscard]] const ModelText& text() const;
  /// Bytes of weights and gradients.
  [[nodiscard]] size_t bytes() const;

  /// Values [M] float32 at rows of the batch, without gradient.
  [[nodiscard]] at::Tensor values(const TokenBatch& batch, std::span<const int32_t> rows);
  /// The same values, with what `values_backward` needs left in `tape`.
  [[nodiscard]] at::Tensor values_train(const TokenBatch& batch, std::span<const int32_t> rows,
                                        ScalarTape& tape);
  /// Adds the gradients of the head and, if it is trainable, of the backbone.
  /// @param dvalues  d loss / d value [M].
  void values_backward(ScalarTape& tape, const at::Tensor& dvalues);
  /// Folds in what the backbone keeps aside. Call once before the optimizer.
  void finish_gradients();
  void zero_gradients();

  /// The backbone's weights, if it is trainable, then the head's.
  [[nodiscard]] std::vector<Parameter*> parameters() const;

  /// Writes a folder that transformers' AutoModelForSequenceClassification loads: num_labels 1, the
  /// head as "score.weight" [1, hidden] ("score.bias" where there is one; that class has no bias,
  /// so its scores lack it). It scores a text at the rightmost token that is not config.json's
  /// pad_token_id: were that an end token, a finished text would lose its last token. So the pad
  /// token written, in the tokenizer's files too, is the model's own unless it ends texts, else
  /// the unknown token, the first token or any special one; an end token only if all are.
  /// @throws Error for a backbone that is frozen in 16 bits, or an I/O failure.
  void save(const std::filesystem::path& folder, DType dtype = DType::kF32) const;
  /// Writes the backbone's adapter and the head as PEFT's folder of a sequence-classification model
  /// (task_type SEQ_CLS, the head under modules_to_save), in float32.
  /// @throws Error without an adapter, or for a head with a bias, which PEFT's has not.
  void save_adapter(const std::filesystem::path& folder) const;

 protected:
  ScalarModel() = default;
  std::shared_ptr<CausalLM> backbone_;
  ScalarHead head_{0};
  std::shared_ptr<const ModelSource> source_;

 private:
  mutable std::shared_ptr<const ModelText> text_;
};

/// Scores whole texts: its value at a text's last token is the text's reward.
class RewardModel : public ScalarModel {
 public:
  static constexpr int64_t kScoreTokens = 4096;

  using ScalarModel::ScalarModel;
  /// An adapter's folder in PEFT's format (task_type SEQ_CLS) over the model that it names, or
  /// a sequence-classification folder with one label (score.weight [1, hidden], score.bias), or a
  /// language model with a value head as TRL saves it (v_head.summary.weight and bias, names of the
  /// backbone with or without the prefix "pretrained_model.").
  /// @param trainable  whether the backbone gets gradients; the head always does.
  /// @throws Error naming the file and the key when there is no head or more than one label.
  [[nodiscard]] static RewardModel load(std::string_view spec, WeightDType dtype,
                                        Trainable trainable = Trainable::kNo);
  /// A language model's backbone under a head of zeros. @param spec  see `open_model`.
  [[nodiscard]] static RewardModel from_language_model(std::string_view spec, WeightDType dtype,
                                                       Trainable trainable = Trainable::kYes);
  /// A frozen model under a new adapter that is trained. @param spec  a folder with a head, which it
  /// begins with, or a language model, under a head of zeros.
  [[nodiscard]] static RewardModel load_with_adapter(std::string_view spec, WeightDType dtype,
                                                     AdapterConfig config, uint64_t seed);
  /// The same under the adapter and head of a folder in PEFT's format (task_type SEQ_CLS).
  [[nodiscard]] static RewardModel load_with_adapter(std::string_view spec, WeightDType dtype,
                                                     const std::filesystem::path& folder,
                                                     Trainable trainable = Trainable::kYes);
  /// Another head of zeros over this backbone (frozen backbones are shared so by many rewards).
  [[nodiscard]] RewardModel with_new_head() const;

  /// One score a text, at its last token.
  /// @param texts  token ids, each text at least one.
  [[nodiscard]] std::vector<float> score(std::span<const std::vector<int32_t>> texts);
  /// The same with shared prompts. @param max_tokens  of one forward; a longer text runs alone. It
  /// decides memory and speed, no bit.
  [[nodiscard]] std::vector<float> score(std::span<const PromptedText> texts,
                                         int64_t max_tokens = kScoreTokens);
  /// Scores [heads][texts] by several models over one backbone, which runs once for all of them.
  /// The bits are those of each one's own `score`. @throws Error where the backbones differ.
  [[nodiscard]] static std::vector<std::vector<float>> score_together(
      std::span<RewardModel* const> models, std::span<const PromptedText> texts,
      int64_t max_tokens = kScoreTokens);
};

/// The critic of PPO: its value at a row estimates the return that follows the row's token.
class ValueModel : public ScalarModel {
 public:
  using ScalarModel::ScalarModel;
  /// A copy of a reward model's weights and head as they are now, with memory of its own.
  /// @param dtype  the reward's own if not given, which a trainable copy of an int8 one cannot
  /// have.
  [[nodiscard]] static ValueModel copy_of(const RewardModel& reward,
                                          Trainable trainable = Trainable::kYes,
                                          std::optional<WeightDType> dtype = std::nullopt);
  /// What `save` or RewardModel::load knows, as a critic.
  [[nodiscard]] static ValueModel load(std::string_view spec, WeightDType dtype,
                                       Trainable trainable = Trainable::kYes);
  [[nodiscard]] static ValueModel from_language_model(std::string_view spec, WeightDType dtype,
                                                      Trainable trainable = Trainable::kYes);
  /// A trained adapter of its own under a head of zeros over the policy's weights, which are not
  /// copied and must be frozen: it costs what its adapter does. Valid while the policy is; the two
  /// share a workspace, so one thread may call either at a time.
  [[nodiscard]] static ValueModel over(const PolicyModel& policy, const AdapterConfig& config,
                                       uint64_t seed);
  /// The same with the adapter and head of a folder in PEFT's format (task_type SEQ_CLS).
  [[nodiscard]] static ValueModel over(const PolicyModel& policy,
                                       const std::filesystem::path& folder);
};

}  // namespace temper
