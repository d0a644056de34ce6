#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "temper/kernels/linear.h"
#include "temper/nn/causal_lm.h"
#include "temper/nn/dropout.h"

namespace temper {

/// Low-rank adapters on parts of one matrix W [n, k] of a model: q, k and v share one, as do gate and
/// up. A part p of it, some of the matrix's output rows, gives z_p = x W_p^T + s_p (x A_p^T) B_p^T,
/// scaled column by column by g_p = m_p / |rows of W_p + s_p B_p A_p| where it has magnitudes m_p
/// (DoRA). The gradient takes those norms for constants, as the paper does. The A of all parts lie
/// in one matrix, for a product with the input that they share.
/// Exactness: these are kernels::linear's float32 products and elementwise steps, so what a row gets
/// depends on that row and the weights alone; gradients are chains over ascending rows, as those of
/// any weight. While every g is 1, as it is at first, no column is scaled: B = 0 adds zeros.
class LinearAdapter {
 public:
  /// Rows on their way through an adapter, and what they are there for; one is enough for all
  /// adapters of a model.
  struct Workspace {
    FloatBuffer low;    ///< [rows, sum of ranks] s x A^T
    FloatBuffer dlow;   ///< d loss / d (x A^T)
    FloatBuffer x;      ///< [rows, k] the input, parts of it dropped out.
    FloatBuffer z;      ///< [rows, n]
    FloatBuffer share;  ///< [rows, k] of d loss / d x.
    Dropout dropout;    ///< Of the forward or backward under way.
  };
  struct Part {
    std::string module;      ///< "model.layers.0.self_attn.q_proj"
    int64_t row_begin = 0;   ///< Of the matrix's output rows.
    int64_t rank_begin = 0;  ///< Its first row of A.
    int64_t rank = 0;
    float scale = 0;
    std::unique_ptr<Parameter> b;  ///< [out, rank]
    std::unique_ptr<Parameter> m;  ///< [out], or null.
  };
  struct BackwardArgs {
    const float* x = nullptr;   ///< [rows, k]
    const float* dy = nullptr;  ///< [rows, n]
    float* dx = nullptr;        ///< [rows, k] overwritten; it may be `x`.
    int64_t rows = 0;
  };
  /// @param matrix  of the model, which it reads as long as it lives.
  /// @param parts   at least one; their `b` are made here, and their `m` with `use_dora`.
  LinearAdapter(const Parameter& matrix, std::vector<Part> parts, const AdapterConfig& config,
                Trainable trainable, std::shared_ptr<Workspace> workspace);

  /// y = or += the adapted product, as `args` say; their weight is the matrix, without SwiGLU.
  void forward(const kernels::LinearArgs& args);
  /// Adds to the gradients of A, B and m, and writes d loss / d x.
  void backward(const BackwardArgs& args);
  /// rows <- g (rows + s B A) for the output rows of a part of the matrix, row-major
  /// [part.rows, k]; nothing for a part without an adapter.
  void merge(const ParameterPart& part, float* rows);
  /// Makes every magnitude the norm that it is divided by: the columns' own lengths.
  void reset_magnitudes();

  [[nodiscard]] const std::vector<Part>& parts() const { return parts_; }
  [[nodiscard]] Parameter& a() const { return *a_; }
  [[nodiscard]] std::vector<Parameter*> parameters() const;

 private:
  [[nodiscard]] bool drops() const { return work_->dropout.rate > 0; }
  void down(const float* x, int64_t rows);
  void add_low(float* y, int64_t rows) const;
  void forward_scaled(const kernels::LinearArgs& args, const float* dropped);
  void backward_weights(const float* x, const float* dy, int64_t rows);
  void backward_magnitudes(const float* x, const float* dy, int64_t rows);
  void backward_dropped(const BackwardArgs& args);
  void add_share(const BackwardArgs& args, const float* dz);
  [[nodiscard]] std::vector<double> row_norms(const Part& part) const;
  void add_delta(const Part& part, int64_t first, int64_t count, double* rows) const;
  void refresh_factors();

  const Parameter& matrix_;
  std::unique_ptr<Parameter> a_;  ///< [sum of ranks, k]
  std::vector<Part> parts_;
  std::shared_ptr<Workspace> work_;
  std::vector<float> factors_;  ///< [n] g, and 1 where there is no part; empty without magnitudes.
  std::vector<float> norms_;    ///< [n] what m is divided by.
  bool scales_ = false;         ///< Whether some g is not 1.
  std::vector<int64_t> versions_;  ///< Of the weights that `factors_` are of.
};

/// All adapters of a model.
class Adapter {
 public:
  /// A is drawn from U(-1 / sqrt(in), 1 / sqrt(in)) (Kaiming's with a = sqrt 5, as PEFT's), keyed by
  /// (seed, module); B is 0; magnitudes are the lengths of W's rows. @param model  the matrices that it may adapt.
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
  /// @param head  [1, width] a scalar head's weight, which makes it a scoring model's folder; or none.
  void save(const std::filesystem::path& folder, std::span<const float> head = {}) const;
  /// What the model's forward or backward under way drops out; {} for nothing.
  void set_dropout(const Dropout& dropout) const { work_->dropout = dropout; }

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
