#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "temper/core/torch.h"
#include "temper/formats/hf_folder.h"
#include "temper/formats/model_source.h"
#include "temper/formats/peft.h"
#include "temper/kernels/rope.h"
#include "temper/kernels/tree_attention.h"
#include "temper/nn/float_buffer.h"
#include "temper/nn/kv_store.h"
#include "temper/nn/parameter.h"
#include "temper/nn/token_batch.h"

namespace temper {

/// What products read. kFloat32: the masters. kBfloat16: a bf16 copy of them, activations float32.
/// kBfloat16Dot: the same copy, and what enters a product is rounded to bf16 too (Product::kDot):
/// about 1.7 times the speed where the CPU has the instruction, and exact just the same.
/// kFloat16: a copy in IEEE half precision: three more bits than bf16, magnitudes below 65520.
/// kInt8: whole numbers up to 127 with a float32 scale for each output row and 256 steps
/// (kernels/linear.h), a quarter of float32's bytes; frozen models only.
/// kQ4: blocks of 32 weights in 4 bits (kernels/blocks.h), a sixth of float32's bytes; frozen models
/// only. Blocks that a GGUF file holds (Q4_0, Q4_1, Q8_0) are kept as they are. Other matrices are
/// rounded: layers' to 4 bits where the file has them in floats; what the file has in more than 4
/// bits (Q5, Q6_K, ...), the embedding and the LM head to 8.
enum class WeightDType { kFloat32, kBfloat16, kBfloat16Dot, kFloat16, kInt8, kQ4 };
/// Whether a type is for frozen models alone.
[[nodiscard]] constexpr bool frozen_only(WeightDType dtype) {
  return dtype == WeightDType::kInt8 || dtype == WeightDType::kQ4;
}
/// "float32", "bfloat16", "bfloat16_dot", "float16", "int8" or "q4".
[[nodiscard]] const char* weight_dtype_name(WeightDType dtype);
/// The inverse. @throws Error that lists the names.
[[nodiscard]] WeightDType parse_weight_dtype(std::string_view name);
/// All names, for options and configs. int8 and q4 are for frozen models.
[[nodiscard]] const std::vector<std::string>& weight_dtype_names();

/// Whether a model gets gradients. A frozen model in 16 bits or less keeps no float32 copy of its
/// matrices.
enum class Trainable { kNo, kYes };

/// Which weights a model holds. kBackbone: all but a separate LM head, for models that end in
/// hidden rows (rewards, values); a tied head is the embedding and costs nothing.
enum class LmParts { kAll, kBackbone };

/// What attention reads for each row of a batch.
struct AttentionPlan {
  std::vector<kernels::KeySpan> spans;
  std::vector<kernels::TreeAttentionArgs::Query> queries;  ///< [N]
  std::vector<int64_t> slots;  ///< [N] row in the KvStore; empty when keys live in the batch.
};

/// Activations of one layer that its backward needs.
struct LayerTape {
  FloatBuffer x, rstd_in, q_raw, k_raw, rstd_q, rstd_k, qkv, attention, lse, x_mid, rstd_mid,
      gate_up;
};

/// Activations of one training forward. Reuse it from step to step: its memory is kept.
struct ForwardTape {
  /// Keep only each layer's input and compute the rest again in the backward: the same bits, less
  /// memory, a third more work.
  bool checkpoint = false;
  TokenBatch batch;
  AttentionPlan plan;
  std::vector<LayerTape> layers;
  FloatBuffer last, rstd_last, hidden;
  /// Of each row, where an adapter drops out parts of its input: a hash of the row's text.
  std::vector<uint64_t> texts;
};

class Adapter;
class LinearAdapter;

/// A decoder-only language model of the Llama kind (Llama, SmolLM2, Mistral, Qwen2, Qwen3) over
/// flat token streams. Sampling, scoring and training run this one forward. Exactness: a row's
/// hidden state depends on the weights and on the row's own text alone, bit for bit: not on what
/// else is in the batch, on how a text was cut into calls, on shared prompts or on the number of
/// threads. One thread may call it at a time.
class CausalLM {
 public:
  /// Loads every weight. @throws Error naming a tensor that is missing, has another shape or holds
  /// a number that `dtype` cannot (float16: 65520 and above; int8, q4: infinity and NaN), and for a
  /// trainable model in int8 or q4.
  CausalLM(const ModelSource& source, WeightDType dtype, Trainable trainable,
           LmParts parts = LmParts::kAll);
  ~CausalLM();
  /// A frozen copy of `other`'s weights as they are now. @throws Error where it has an adapter.
  [[nodiscard]] static std::unique_ptr<CausalLM> frozen_copy(const CausalLM& other);
  /// The same in another weight type, rounded from `other`'s float32 masters. @throws Error where
  /// it has none, or holds a number that `dtype` cannot, and for q4, which is rounded from files.
  [[nodiscard]] static std::unique_ptr<CausalLM> frozen_copy(const CausalLM& other,
                                                             WeightDType dtype);
  /// Overwrites a frozen copy's weights by `other`'s as they are now. @throws Error as `frozen_copy`.
  void copy_weights(const CausalLM& other);
  /// A frozen model whose weights are pages of a file of `write_panels`, mapped read-only: they are
  /// read from the disk when they are needed, and processes that map the file share them. The bits
  /// of what it computes are those of the model written. Reads the file once, to check its hash.
  /// @throws Error naming the file and the rule that it breaks.
  [[nodiscard]] static std::unique_ptr<CausalLM> map_panels(const std::filesystem::path& file);
  CausalLM(const CausalLM&) = delete;
  CausalLM& operator=(const CausalLM&) = delete;

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] WeightDType dtype() const { return dtype_; }
  /// Whether it gets gradients: its weights, or its adapter.
  [[nodiscard]] bool trainable() const;
  [[nodiscard]] LmParts parts() const { return parts_; }

  /// Hidden rows [N, hidden] after the final norm, float32, valid until the next call.
  /// Segments with a `node` read their past from `kv` and are appended to it (the caller has
  /// reserved room); the others live in the batch. @throws Error for ids or positions out of range.
  [[nodiscard]] at::Tensor forward(const TokenBatch& batch, KvStore* kv = nullptr);

  /// The same rows, with everything that `backward` needs left in `tape`; no KvStore.
  [[nodiscard]] at::Tensor forward_train(const TokenBatch& batch, ForwardTape& tape);

  /// Adds d loss / d weight to the gradients, given d loss / d hidden [N, hidden]. Every gradient
  /// element is one chain over ascending rows: splitting a step into micro-batches of whole trees,
  /// in order, gives the same bits.
  void backward(ForwardTape& tape, const at::Tensor& dhidden);
  /// Folds in what `backward` keeps aside (embedding rows). Call once before the optimizer.
  void finish_gradients();
  void zero_gradients();

  /// Puts a low-rank adapter on a frozen model (nn/adapter.h): from now on every forward applies
  /// it, and gradients are its alone. A is drawn, keyed by (seed, module), and B is 0, so no bit of
  /// the model's output changes yet. @throws Error for a model whose weights are trained, a second
  /// adapter, and a target that the model lacks.
  void add_adapter(const AdapterConfig& config, uint64_t seed);
  /// The same with the weights of a folder in PEFT's format. Frozen, it costs its weights alone.
  /// @throws Error naming the file and the rule that it breaks.
  void load_adapter(const std::filesystem::path& folder, Trainable trainable);
  /// Writes a folder that PEFT loads, in float32: it comes back with its bits.
  void save_adapter(const std::filesystem::path& folder) const;
  /// Adds the adapter to the weights for good and removes it. Models of `without_adapter` change
  /// with them. @throws Error unless the weights are float32 and no mapped file.
  void merge_adapter();
  /// This model's own weights, not copied, as a frozen model without the adapter: the reference of
  /// a policy that is an adapter, or what another adapter goes on. The two share their workspace
  /// too, so one thread may call either at a time.
  [[nodiscard]] std::unique_ptr<CausalLM> without_adapter() const;
  /// Null where there is none.
  [[nodiscard]] const Adapter* adapter() const { return adapter_.get(); }
  /// Whether forwards apply the adapter; see AdapterOff.
  [[nodiscard]] bool adapter_applied() const { return adapter_ != nullptr && adapter_on_; }
  void apply_adapter(bool on) { adapter_on_ = on; }
  /// Whether a training forward drops out parts of what the adapter reads: its rows then are not
  /// those of `forward`.
  [[nodiscard]] bool drops_out() const;
  /// The coordinates of dropout's draws from now on: what is dropped is a function of (seed, step,
  /// matrix, the row's text, column), so it does not depend on how a step is cut or on threads.
  /// Modules over one input (q, k and v; gate and up) share what is dropped.
  void set_dropout_step(uint64_t seed, int64_t step);

  /// All weights but an adapter's, in a fixed order. A tied head is the embedding.
  [[nodiscard]] std::span<const std::unique_ptr<Parameter>> parameters() const { return params_; }
  /// What an optimizer moves: all weights, or those of the adapter where there is one.
  [[nodiscard]] std::vector<Parameter*> parameter_list() const;
  /// @throws Error for a backbone without a head.
  [[nodiscard]] Parameter& head() const;
  /// Of weights and gradients, an adapter's included.
  [[nodiscard]] size_t weight_bytes() const;

  /// Writes what products read, an adapter left out, in the layout in which they read it, with a
  /// hash; a safetensors file by its container. It takes its place whole or not at all.
  /// @param origin  a note that `read_panel_file_info` gives back.
  void write_panels(const std::filesystem::path& file, std::string_view origin = {}) const;
  /// Whether the weights are pages of a file, and so cannot be changed.
  [[nodiscard]] bool mapped() const { return mapped_; }

  /// Tensors for `write_hf_folder`; they read the weights when they are filled. With an adapter:
  /// what products read, merged with it in float32.
  [[nodiscard]] std::vector<WriteTensor> write_tensors() const;

 private:
  struct Layer {
    Parameter* norm_in;
    Parameter* qkv;
    Parameter* qkv_bias;
    Parameter* q_norm;
    Parameter* k_norm;
    Parameter* o;
    Parameter* o_bias;
    Parameter* norm_mid;
    Parameter* gate_up;
    Parameter* gate_up_bias;
    Parameter* down;
    Parameter* down_bias;
  };
  /// What lives during a call alone.
  struct Workspace {
    kernels::RopeTable rope;
    LayerTape layer;
    FloatBuffer h, wide, a, b, dqkv, dx, out;
  };
  CausalLM();
  void declare();
  Layer declare_layer(int64_t index);
  Parameter* matrix(std::string name, std::vector<ParameterPart> parts, int64_t k);
  Parameter* vector(std::string name, std::vector<ParameterPart> parts);
  void check_shapes(const WeightSource& weights) const;
  void allocate();
  void load(const WeightSource& weights);
  void check_batch(const TokenBatch& batch, const KvStore* kv) const;
  [[nodiscard]] AttentionPlan make_plan(const TokenBatch& batch, KvStore* kv) const;
  void ensure_rope(std::span<const int32_t> positions);
  void embed(const TokenBatch& batch, float* x) const;
  [[nodiscard]] kernels::TreeAttentionArgs attention_args(const AttentionPlan& plan, int64_t layer,
                                                          LayerTape& t, KvStore* kv) const;
  void layer_forward(int64_t layer, const TokenBatch& batch, const AttentionPlan& plan, KvStore* kv,
                     LayerTape& t, float* out);
  [[nodiscard]] LinearAdapter* adapter_on(const Parameter& weight) const;
  void project(const Parameter& weight, const Parameter* bias, const float* x, float* y,
               int64_t rows, bool add) const;
  void project_backward(const Parameter& weight, const Parameter* bias, const float* dy,
                        const float* x, float* dx, int64_t rows) const;
  void take_adapter(std::unique_ptr<Adapter> adapter);
  /// While it lives, the adapter drops out parts of its input.
  struct DropoutScope {
    const Adapter* adapter;
    ~DropoutScope();
  };
  [[nodiscard]] DropoutScope drop_out_rows(const ForwardTape& tape) const;
  void qkv_forward(int64_t layer, const TokenBatch& batch, LayerTape& t);
  void mlp_forward(int64_t layer, int64_t rows, LayerTape& t, float* out);
  void layer_backward(int64_t layer, const ForwardTape& tape, LayerTape& t, float* dx);
  void mlp_backward(int64_t layer, int64_t rows, LayerTape& t, float* dx);
  void qkv_backward(int64_t layer, const ForwardTape& tape, LayerTape& t);

  ModelConfig config_;
  WeightDType dtype_ = WeightDType::kFloat32;
  Trainable trainable_ = Trainable::kNo;
  LmParts parts_ = LmParts::kAll;
  bool tied_head_ = false;
  bool mapped_ = false;
  std::vector<std::unique_ptr<Parameter>> params_;
  Parameter* embed_ = nullptr;
  Parameter* final_norm_ = nullptr;
  Parameter* lm_head_ = nullptr;
  std::vector<Layer> layers_;
  std::unique_ptr<Adapter> adapter_;
  bool adapter_on_ = true;
  uint64_t dropout_seed_ = 0;
  int64_t dropout_step_ = 0;
  FloatBuffer hidden_;
  std::shared_ptr<Workspace> work_ = std::make_shared<Workspace>();
  std::map<int32_t, std::vector<float>> embed_grad_;
};

}  // namespace temper
