// Operations and seconds of a step.
#include <algorithm>
#include <chrono>
#include <cmath>

#include "plan_memory.h"
#include "temper/kernels/linear.h"

namespace temper {
namespace planning {
namespace {

/// Matrix weights of the layers, and of the LM head.
struct MatrixCount {
  double trunk = 0;
  double head = 0;
};

MatrixCount count(const ModelConfig& config) {
  MatrixCount m;
  for (const Weight& w : weights_of(config, true)) {
    if (w.matrix && !w.vocabulary) m.trunk += static_cast<double>(w.n * w.k * w.copies);
  }
  m.head = static_cast<double>(config.vocab_size * config.hidden_size);
  return m;
}

/// Tokens of a step.
struct Tokens {
  double prompt_rows;  ///< Each prompt once.
  double rows;         ///< Prompts once and completions, but for last tokens.
  double scored;       ///< Tokens that are drawn, and scored again in training.
  double visible;      ///< Sum over the rows of the keys that each sees.

  explicit Tokens(const PlanBatch& b) {
    const auto prompts = static_cast<double>(b.prompts);
    const auto sequences = prompts * static_cast<double>(b.group_size);
    const auto p = static_cast<double>(b.mean_prompt_tokens);
    const auto t = static_cast<double>(b.mean_completion_tokens);
    prompt_rows = prompts * p;
    rows = prompt_rows + sequences * (t - 1);
    scored = sequences * t;
    visible = prompts * p * (p + 1) / 2 + sequences * ((t - 1) * p + (t - 1) * t / 2);
  }
};

/// Operations of attention over `visible` pairs of a query and a key: `products` of them, 2 for
/// each element.
double attention(const ModelConfig& c, double visible, double products) {
  return 2 * products * static_cast<double>(c.layers * c.heads * c.head_dim) * visible;
}

/// Bytes of all weights that a forward's products read.
double product_bytes(const ModelConfig& config, WeightDType dtype) {
  const MatrixCount m = count(config);
  return (m.trunk + m.head) * (dtype == WeightDType::kFloat32 ? 4 : 2);
}

/// A weight's bytes in an optimizer step: AdamW reads and writes weights and moments and reads and
/// clears gradients.
double optimizer_bytes(int64_t moment_bytes) { return static_cast<double>(16 + 4 * moment_bytes); }

PlanPhase forward_phase(const char* name, const ModelConfig& config, const Tokens& t) {
  const MatrixCount m = count(config);
  return {name, 2 * m.trunk * t.rows, 0, attention(config, t.visible, 2), 0};
}

PlanPhase rollout_phase(const PlanInput& in, const Tokens& t) {
  PlanPhase p = forward_phase("rollout", in.policy, t);
  p.head = 2 * count(in.policy).head * t.scored;
  const auto sequences = static_cast<double>(in.batch.prompts * in.batch.group_size);
  const double turns = std::ceil(sequences / static_cast<double>(in.rollout.max_sequences));
  // One forward a token and turn, each reading every weight.
  p.read_bytes = turns * static_cast<double>(in.batch.mean_completion_tokens) *
                 product_bytes(in.policy, in.dtype);
  return p;
}

/// Forward and backward of all passes; the first optimizer step has its logits from the forward.
PlanPhase update_phase(const PlanInput& in, const Tokens& t) {
  const MatrixCount m = count(in.policy);
  const auto passes = static_cast<double>(in.batch.iterations);
  const double again = in.batch.gradient_checkpointing ? 1 : 0;
  const double first = t.scored / static_cast<double>(in.batch.minibatches);
  PlanPhase p{"update", 0, 0, 0, 0};
  // A frozen matrix has a gradient of its input alone.
  const double own = in.adapter ? 0 : 2;
  p.trunk = passes * (4 + own + 2 * again) * m.trunk * t.rows;
  p.head = m.head * ((6 + own) * passes * t.scored - 2 * first);
  p.attention = passes * attention(in.policy, t.visible, 9 + 2 * again);
  p.read_bytes = passes * static_cast<double>(in.batch.minibatches) *
                 optimizer_bytes(in.moment_bytes) * (m.trunk + m.head);
  if (!in.adapter) return p;
  double weights = 0;
  for (const Weight& w : adapter_weights(in.policy, *in.adapter)) {
    weights += static_cast<double>(w.n * w.k * w.copies);
  }
  p.trunk += passes * (8 + 2 * again) * weights * t.rows;  // x A^T is made again.
  p.read_bytes *= weights / (m.trunk + m.head);
  return p;
}

PlanPhase value_phase(const PlanInput& in, const Tokens& t) {
  // Values of a rollout before its first update: a forward, of the policy's trunk where it is
  // shared.
  const bool own = in.value == ValuePlacement::kOwn;
  const ModelConfig& model = own ? in.value_model : in.policy;
  PlanPhase p = forward_phase("value", model, t);
  if (!own) return p;
  const auto passes = static_cast<double>(in.batch.iterations);
  const double again = in.batch.gradient_checkpointing ? 1 : 0;
  p.trunk *= 1 + passes * (in.value_adapter ? 2 + again : 3 + again);
  p.attention += passes * attention(model, t.visible, 9 + 2 * again);
  return p;
}

/// Forward and backward of a step's pairs; with a frozen backbone the forward alone.
PlanPhase pairs_phase(const PlanInput& in) {
  const PlanPairs& p = *in.pairs;
  const double trunk = count(in.policy).trunk;
  const double again = in.batch.gradient_checkpointing ? 2 : 0;
  const auto pairs = static_cast<double>(p.pairs_per_step), rows = static_cast<double>(p.mean);
  const double visible = pairs * rows * (rows + 1) / 2;  // As if no side were hidden from the other.
  if (p.freeze_backbone) {
    return {"update", 2 * trunk * pairs * rows, 0, attention(in.policy, visible, 2), 0};
  }
  double own = 2, trained = trunk, extra = 0;
  if (in.adapter) {  // A frozen matrix has a gradient of its input alone.
    own = trained = 0;
    for (const Weight& w : adapter_weights(in.policy, *in.adapter)) {
      trained += static_cast<double>(w.n * w.k * w.copies);
    }
    extra = (8 + again) * trained;
  }
  return {"update", ((4 + own + again) * trunk + extra) * pairs * rows, 0,
          attention(in.policy, visible, 9 + again), optimizer_bytes(in.moment_bytes) * trained};
}

/// Steps on given answers: forwards of the loss's sums and of a live reference, then the update.
std::vector<PlanPhase> answer_phases(const PlanInput& in) {
  const PlanAnswers& a = *in.answers;
  const MatrixCount m = count(in.policy);
  const double rows = static_cast<double>(a.rows_per_step * a.mean);
  const double scored = rows * a.scored_share;
  // As if an answer saw the other one behind its prompt: at most a third too many.
  const double visible = rows * static_cast<double>(a.mean + 1) / 2;
  const auto forward = [&](const char* name) {
    return PlanPhase{name, 2 * m.trunk * rows, 2 * m.head * scored, attention(in.policy, visible, 2), 0};
  };
  std::vector<PlanPhase> out;
  if (in.reference != ReferencePlacement::kNone) out.push_back(forward("reference"));
  if (a.sums_first) out.push_back(forward("sums"));
  const double again = in.batch.gradient_checkpointing ? 1 : 0;
  const double own = in.adapter ? 0 : 2;
  double trained = m.trunk + m.head, extra = 0;
  if (in.adapter) {
    trained = 0;
    for (const Weight& w : adapter_weights(in.policy, *in.adapter)) {
      trained += static_cast<double>(w.n * w.k * w.copies);
    }
    extra = (8 + 2 * again) * trained * rows;  // x A^T is made again.
  }
  out.push_back({"update", (4 + own + 2 * again) * m.trunk * rows + extra, (6 + own) * m.head * scored,
                 attention(in.policy, visible, 9 + 2 * again),
                 optimizer_bytes(in.moment_bytes) * trained});
  return out;
}

}  // namespace

std::vector<PlanPhase> phases(const PlanInput& in) {
  if (in.pairs) return {pairs_phase(in)};
  if (in.answers) return answer_phases(in);
  const Tokens t(in.batch);
  std::vector<PlanPhase> out{rollout_phase(in, t)};
  if (in.reference != ReferencePlacement::kNone) {
    // Once a rollout: its log-probs serve every pass.
    out.push_back(forward_phase("reference", in.policy, t));
    out.back().head = 2 * count(in.policy).head * t.scored;
  }
  bool shared = false;
  for (const PlannedReward& r : in.rewards) {
    if (r.shares_backbone && shared) continue;
    shared = shared || r.shares_backbone;
    out.push_back(forward_phase("reward", r.model, t));
  }
  if (in.value != ValuePlacement::kNone) out.push_back(value_phase(in, t));
  out.push_back(update_phase(in, t));
  return out;
}

}  // namespace planning

namespace {

/// Shortest of `rounds` calls, in seconds.
template <class Call>
double shortest(int rounds, const Call& call) {
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    call();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::min(best, spent.count());
  }
  return best;
}

/// A weight of ones in the type that products read.
class ProbeWeight {
 public:
  ProbeWeight(int64_t n, int64_t k, WeightDType dtype) : n_(n), k_(k), dtype_(dtype) {
    const auto elements = static_cast<size_t>(kernels::panel_elements(n, k));
    if (dtype == WeightDType::kFloat32) {
      floats_.assign(elements, 1.0f);
    } else {
      const uint16_t one = dtype == WeightDType::kFloat16 ? 0x3c00 : 0x3f80;
      halves_.assign(elements, one);
    }
  }
  [[nodiscard]] kernels::PackedWeight packed() const {
    const bool half = dtype_ == WeightDType::kFloat16;
    const uint16_t* halves = halves_.empty() ? nullptr : halves_.data();
    return {.f32 = floats_.empty() ? nullptr : floats_.data(),
            .bf16 = half ? nullptr : halves,
            .n = n_,
            .k = k_,
            .product = dtype_ == WeightDType::kBfloat16Dot ? kernels::Product::kDot
                                                           : kernels::Product::kFma,
            .f16 = half ? halves : nullptr};
  }

 private:
  int64_t n_, k_;
  WeightDType dtype_;
  std::vector<float> floats_;
  std::vector<uint16_t> halves_;
};

/// Seconds of one product of `rows` rows with a weight.
double product_seconds(const kernels::PackedWeight& w, int64_t rows, int rounds) {
  const std::vector<float> x(static_cast<size_t>(rows * w.k), 1.0f);
  std::vector<float> y(static_cast<size_t>(rows * w.n));
  const kernels::LinearArgs args{
      .x = x.data(), .x_stride = w.k, .weight = w, .y = y.data(), .y_stride = w.n, .rows = rows};
  return shortest(rounds, [&] { kernels::linear(args); });
}

}  // namespace

double Plan::operations() const {
  double sum = 0;
  for (const PlanPhase& p : phases) sum += p.trunk + p.head + p.attention;
  return sum;
}

MachineRates probe_rates(WeightDType dtype) {
  constexpr int64_t kWide = 1024, kRows = 512, kTall = 32768;
  const ProbeWeight square(kWide, kWide, dtype);
  const ProbeWeight tall(kTall, kWide, dtype);  // Too large for a cache.
  const double read = static_cast<double>(kTall * kWide) * (dtype == WeightDType::kFloat32 ? 4 : 2);
  return {2.0 * kRows * kWide * kWide / product_seconds(square.packed(), kRows, 7),
          read / product_seconds(tall.packed(), 1, 3)};
}

double phase_seconds(const PlanPhase& p, const MachineRates& rates) {
  const double compute = (p.trunk + p.head + p.attention) / rates.flops;
  const double read = p.read_bytes / rates.bytes;
  // An update's products and its optimizer come after each other; a decoder's reads overlap.
  return p.name == "rollout" ? std::max(compute, read) : compute + read;
}

}  // namespace temper
