#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "temper/nn/causal_lm.h"
#include "temper/text/chat_template.h"
#include "temper/text/tokenizer.h"

namespace temper {

/// The text side of a model: tokenizer, chat template and the ids that end a text.
class ModelText {
 public:
  explicit ModelText(const ModelSource& source);

  [[nodiscard]] const Tokenizer& tokenizer() const { return tokenizer_; }
  /// Ids that end a completion: generation_config, config and tokenizer taken together; sorted.
  [[nodiscard]] const std::vector<int32_t>& eos_ids() const { return eos_ids_; }
  /// The id that ends a plain text: the tokenizer's own end token, else the first of `eos_ids`.
  [[nodiscard]] std::optional<int32_t> eos_id() const;
  [[nodiscard]] bool has_template() const { return template_.has_value(); }

  /// The text of a conversation, generation prompt added. @param messages  [{"role", "content"}].
  /// @throws Error when the model has no chat template.
  /// @param tools  array of JSON schemas that the template may show, or null.
  [[nodiscard]] std::string render(const nlohmann::ordered_json& messages,
                                   const nlohmann::ordered_json* tools = nullptr) const;
  /// The text of a finished conversation: nothing is asked for behind its last turn.
  [[nodiscard]] std::string render_finished(const nlohmann::ordered_json& messages,
                                            const nlohmann::ordered_json* tools = nullptr) const;
  /// The same, with the byte ranges of the template's {% generation %} blocks, if it has any.
  [[nodiscard]] ChatTemplate::Rendered render_with_spans(
      const nlohmann::ordered_json& messages, const nlohmann::ordered_json* tools = nullptr) const;
  /// `render` for one user message.
  [[nodiscard]] std::string render_user(std::string_view content) const;
  /// Ids of a rendered text: its special tokens count, nothing is added.
  [[nodiscard]] std::vector<int32_t> encode_rendered(std::string_view text) const;

 private:
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> template_;
  ChatTemplateOptions options_;
  std::vector<int32_t> eos_ids_;
};

/// The model that is trained: weights with gradients, text, and the files it came from.
class PolicyModel {
 public:
  /// @param spec  GGUF file, Hugging Face folder or hub id (formats/model_source.h).
  [[nodiscard]] static PolicyModel load(std::string_view spec, WeightDType dtype,
                                        Trainable trainable = Trainable::kYes);
  /// A frozen model, in any weight type, under a new adapter that is trained.
  [[nodiscard]] static PolicyModel load_with_adapter(std::string_view spec, WeightDType dtype,
                                                     AdapterConfig config, uint64_t seed);
  /// The same under the adapter of a folder in PEFT's format.
  [[nodiscard]] static PolicyModel load_with_adapter(std::string_view spec, WeightDType dtype,
                                                     const std::filesystem::path& folder,
                                                     Trainable trainable = Trainable::kYes);

  [[nodiscard]] CausalLM& lm() const { return *lm_; }
  [[nodiscard]] const ModelText& text() const { return *text_; }
  /// The model's files without their weights, which have been read and let go.
  [[nodiscard]] const ModelSource& source() const { return *source_; }
  [[nodiscard]] size_t bytes() const { return lm_->weight_bytes(); }

  /// Writes a Hugging Face folder that transformers loads unchanged, an adapter merged into it.
  void save(const std::filesystem::path& folder, DType dtype = DType::kF32) const;

 private:
  std::unique_ptr<ModelSource> source_;
  std::unique_ptr<ModelText> text_;
  std::unique_ptr<CausalLM> lm_;
};

/// A frozen model to measure the policy against: a copy of the policy as it is now, or another
/// file.
class ReferenceModel {
 public:
  [[nodiscard]] static ReferenceModel copy_of(const PolicyModel& policy);
  /// A copy in another weight type, rounded from the policy's float32 masters.
  [[nodiscard]] static ReferenceModel copy_of(const PolicyModel& policy, WeightDType dtype);
  /// The policy without its adapter: its own weights, not copied. Valid while the policy is.
  [[nodiscard]] static ReferenceModel adapter_off(const PolicyModel& policy);
  [[nodiscard]] static ReferenceModel load(std::string_view spec, WeightDType dtype);
  /// A file that `CausalLM::write_panels` wrote, its pages shared with every process that maps it.
  [[nodiscard]] static ReferenceModel map(const std::filesystem::path& file);
  /// The same, after making the file where it is not there or is of another model or weight type.
  [[nodiscard]] static ReferenceModel map_or_write(std::string_view spec, WeightDType dtype,
                                                   const std::filesystem::path& file);

  [[nodiscard]] CausalLM& lm() const { return *lm_; }
  /// The same, for reward heads over this model.
  [[nodiscard]] const std::shared_ptr<CausalLM>& shared_lm() const { return lm_; }
  [[nodiscard]] size_t bytes() const { return lm_->weight_bytes(); }

  /// reference <- (1 - alpha) reference + alpha policy, for every weight (TR-DPO's soft update;
  /// alpha 1 copies, in the reference's weight type). @throws Error for alpha outside (0, 1], for
  /// an alpha below 1 with a reference that is not in float32, for a mapped reference, and for a
  /// policy with an adapter.
  void sync(const PolicyModel& policy, double alpha);

 private:
  std::shared_ptr<CausalLM> lm_;
};

}  // namespace temper
