#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "temper/nn/causal_lm.h"

namespace temper {

/// Low-rank adapters on parts of one matrix [n, k] of a model: q, k and v share one, as do gate and
/// up. A part p of it, some of the matrix's output rows, gets y_p += s_p (x A_p^T) B_p^T. The A of
/// all parts lie in one matrix, for a product with the input that they share.
/// Exactness: these are kernels::linear's float32 products, so what a row gets depends on that row
/// and the weights alone; gradients are chains over ascending rows, as those of any weight.
class LinearAdapter {
 public:
  /// Rows on their way through an adapter; one is enough for all adapters of a model.
  struct Workspace {
    FloatBuffer low;   ///< [rows, sum of ranks] s x A^T
    FloatBuffer dlow;  ///< d loss / d (x A^T)
  };
  struct Part {
    std::string module;      ///< "model.layers.0.self_attn.q_proj"
    int64_t row_begin = 0;   ///< Of the matrix's output rows.
    int64_t rank_begin = 0;  ///< Its first row of A.
    int64_t rank = 0;
    float scale = 0;
    std::unique_ptr<Parameter> b;  ///< [out, rank]
  };
  /// @param matrix  of the model. @param parts  at least one; their `b` are made here.
  LinearAdapter(const Parameter& matrix, std::vector<Part> parts, Trainable trainable,
                std::shared_ptr<Workspace> workspace);

  /// y += what the adapters add. @param x  [rows, k]  @param y  [rows, n]
  void forward(const float* x, float* y, int64_t rows);
  /// Adds to the gradients of A and B, given x and dy [rows, n], and keeps what `backward_input`
  /// needs in the workspace: x may be overwritten in between.
  void backward_weights(const float* x, const float* dy, int64_t rows);
  /// dx += the adapters' share of d loss / d x, of the rows of the last `backward_weights`.
  void backward_input(float* dx, int64_t rows) const;
  /// rows += s B A for the output rows of a part of the matrix, row-major [part.rows, k]; nothing
  /// for a part without an adapter.
  void add_delta(const ParameterPart& part, float* rows) const;

  [[nodiscard]] const std::vector<Part>& parts() const { return parts_; }
  [[nodiscard]] Parameter& a() const { return *a_; }
  [[nodiscard]] std::vector<Parameter*> parameters() const;

 private:
  void down(const float* x, int64_t rows);

  int64_t n_ = 0;
  std::unique_ptr<Parameter> a_;  ///< [sum of ranks, k]
  std::vector<Part> parts_;
  std::shared_ptr<Workspace> work_;
};

/// All adapters of a model.
class Adapter {
 public:
  /// A is drawn from U(-1 / sqrt(in), 1 / sqrt(in)) (Kaiming's with a = sqrt 5, as PEFT's), keyed by
  /// (seed, module); B is 0. @param model  the matrices that it may adapt.
  Adapter(AdapterConfig config, std::span<const std::unique_ptr<Parameter>> model, uint64_t seed);
  /// The weights of a file. @throws Error for modules or shapes that are not the model's.
  Adapter(const PeftAdapter& file, std::span<const std::unique_ptr<Parameter>> model,
          Trainable trainable);

  /// Null where the matrix has none.
  [[nodiscard]] LinearAdapter* on(const Parameter& matrix) const;
  [[nodiscard]] const AdapterConfig& config() const { return config_; }
  [[nodiscard]] bool trainable() const { return trainable_ == Trainable::kYes; }
  /// All weights, in the model's order.
  [[nodiscard]] std::vector<Parameter*> parameters() const;
  /// Weights, not counting the padding of panels.
  [[nodiscard]] int64_t weights() const;
  [[nodiscard]] size_t bytes() const;
  void save(const std::filesystem::path& folder) const;

 private:
  void adapt(const Parameter& matrix, std::vector<LinearAdapter::Part> parts);

  AdapterConfig config_;
  Trainable trainable_ = Trainable::kYes;
  std::shared_ptr<LinearAdapter::Workspace> work_ = std::make_shared<LinearAdapter::Workspace>();
  std::vector<std::unique_ptr<LinearAdapter>> linears_;
  std::map<const Parameter*, LinearAdapter*> on_;
};

/// While it lives, forwards of the model leave its adapter out, and backwards are refused.
class AdapterOff {
 public:
  explicit AdapterOff(CausalLM& model) : model_(model), before_(model.adapter_applied()) {
    model_.apply_adapter(false);
  }
  ~AdapterOff() { model_.apply_adapter(before_); }
  AdapterOff(const AdapterOff&) = delete;
  AdapterOff& operator=(const AdapterOff&) = delete;

 private:
  CausalLM& model_;
  bool before_;
};

}  // namespace temper
