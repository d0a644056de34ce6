// Divergences over two LM heads. Oracles: TRL's loss (tests/golden/make_distill.py), LibTorch's
// autograd, central differences in double, plain ATen, values worked by hand, invariants of bits.
#include "temper/ops/divergence.h"

#include <torch/csrc/autograd/autograd.h>

#include <nlohmann/json.hpp>

#include "ops_test_util.h"
#include "temper/core/error.h"
#include "temper/core/file.h"
#include "temper/core/threads.h"
#include "temper/kernels/linear_divergence.h"
#include "temper/kernels/linear_logprob.h"

namespace temper::test_ops {
namespace {

using kernels::LinearDivergenceArgs;
using kernels::LinearDivergenceTrainArgs;

at::Tensor doubles(const nlohmann::json& rows) {
  std::vector<double> flat;
  for (const auto& row : rows) {
    for (const auto& v : row) flat.push_back(v.get<double>());
  }
  const auto n = static_cast<int64_t>(rows.size());
  return at::tensor(flat, at::kDouble).reshape({n, std::ssize(flat) / n});
}

const nlohmann::json& golden() {
  static const auto file =
      nlohmann::json::parse(read_text_file(TEMPER_SOURCE_DIR "/tests/golden/distill.json"));
  return file;
}

double largest(const at::Tensor& t) { return t.abs().max().item<double>(); }

TEST(Divergence, ReferenceIsTrlInFloat64) {
  const at::Tensor teacher = doubles(golden()["teacher"]);
  for (const auto& c : golden()["cases"]) {
    const double beta = c["beta"], temperature = c["temperature"];
    const at::Tensor student = doubles(golden()["student"]).requires_grad_(true);
    const ops::Divergence d = ops::generalized_jsd(student, teacher, beta, temperature);
    const at::Tensor value = at::tensor(c["value"].get<std::vector<double>>(), at::kDouble);
    EXPECT_LT(largest(d.value - value), 1e-9) << beta << " " << temperature;
    const at::Tensor want = doubles(c["gradient"]);
    EXPECT_LT(largest(d.dlogits - want), 1e-9) << beta << " " << temperature;
    torch::autograd::backward({d.value.sum()}, {});
    EXPECT_LT(largest(student.grad() - want), 1e-9) << beta << " " << temperature;
  }
}

struct Options {
  float beta = 0.5f, temperature = 1;
  int64_t support = 0;
  float softcap = 0, teacher_softcap = 0;
};

/// Hidden rows and heads of a student and a teacher of other width, and coefficients.
struct DivergenceCase {
  struct Out {
    Floats divergence, logprob, entropy, agree, dhidden, dweight;
    bool operator==(const Out&) const = default;
  };

  DivergenceCase(int64_t rows_, int64_t vocabulary, int64_t k, Options o,
                 Stored stored = Stored::kFloat32, Stored teacher_stored = Stored::kFloat32)
      : rows(rows_),
        options(o),
        hidden(random_floats(rows_ * k, 51, 2.0f)),
        teacher_hidden(random_floats(rows_ * (k + 3), 52, 2.0f)),
        ddivergence(random_floats(rows_, 53)),
        dlogprob(random_floats(rows_, 54)),
        head(vocabulary, k, 55, stored),
        teacher_head(vocabulary, k + 3, 56, teacher_stored) {
    const int64_t ids = o.support > 0 ? o.support : vocabulary;
    for (int64_t r = 0; r < rows; ++r) targets.push_back(static_cast<int32_t>(7 * r % ids));
  }

  [[nodiscard]] LinearDivergenceArgs args(Out& o) const {
    const auto n = static_cast<size_t>(rows);
    o.divergence = o.logprob = o.entropy = o.agree = Floats(n, NAN);
    return {.student = {hidden.data(), head.k, head.packed(), options.softcap},
            .teacher = {teacher_hidden.data(), teacher_head.k, teacher_head.packed(),
                        options.teacher_softcap},
            .rows = rows,
            .beta = options.beta,
            .inverse_temperature = 1 / options.temperature,
            .support = options.support,
            .targets = targets.data(),
            .divergence = o.divergence.data(),
            .logprob = o.logprob.data(),
            .entropy = o.entropy.data(),
            .agree = o.agree.data()};
  }
  [[nodiscard]] LinearDivergenceTrainArgs train_args(Out& o) const {
    LinearDivergenceTrainArgs a{.forward = args(o)};
    o.dhidden.assign(hidden.size(), NAN);
    if (o.dweight.empty()) o.dweight.assign(head.f32.size(), 0.0f);
    a.ddivergence = ddivergence.data();
    a.dlogprob = dlogprob.data();
    a.dhidden = o.dhidden.data();
    a.dhidden_stride = head.k;
    a.dweight = o.dweight.data();
    return a;
  }
  template <class Op>
  [[nodiscard]] Out train(Op op) const {
    Out o;
    op(train_args(o));
    return o;
  }

  int64_t rows;
  Options options;
  Floats hidden, teacher_hidden, ddivergence, dlogprob;
  Weight head, teacher_head;
  std::vector<int32_t> targets;
};

const Options kOptions[] = {
    {.beta = 0},
    {.beta = 1},
    {.beta = 0.5f},
    {.beta = 0.1f, .temperature = 0.7f},
    {.beta = 0, .temperature = 2, .softcap = 5, .teacher_softcap = 7},
    {.beta = 1, .temperature = 1.5f, .support = 99},
    {.beta = 0.9f, .temperature = 1.3f, .support = 99, .softcap = 5},
};

TEST(Divergence, KernelIsTrlInFloat32) {
  const auto flat = [](const char* key) {
    Floats out;
    for (const auto& row : golden()[key]) {
      for (const auto& v : row) out.push_back(v.get<float>());
    }
    return out;
  };
  // Rows of an identity matrix: hidden row r picks column r of the head, whose entries are logits.
  constexpr int64_t kRows = 5, kIds = 13;
  const auto transposed = [](const Floats& rows) {
    Floats out(rows.size());
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t v = 0; v < kIds; ++v) out[v * kRows + r] = rows[r * kIds + v];
    }
    return out;
  };
  Floats identity(kRows * kRows, 0.0f);
  for (size_t r = 0; r < kRows; ++r) identity[r * kRows + r] = 1;
  for (const auto& golden_case : golden()["cases"]) {
    DivergenceCase c(kRows, kIds, kRows, {golden_case["beta"].get<float>(), golden_case["temperature"].get<float>()});
    c.head = Weight(transposed(flat("student")), kIds, kRows, Stored::kFloat32);
    c.teacher_head = Weight(transposed(flat("teacher")), kIds, kRows, Stored::kFloat32);
    c.hidden = c.teacher_hidden = identity;
    c.ddivergence.assign(kRows, 1.0f);
    c.dlogprob.assign(kRows, 0.0f);
    const auto got = c.train(kernels::linear_divergence_train);
    Floats dlogits(kIds * kRows);
    kernels::unpack_rows(got.dweight.data(), 0, kIds, kRows, dlogits.data());
    for (size_t r = 0; r < kRows; ++r) {
      EXPECT_NEAR(got.divergence[r], golden_case["value"][r].get<double>(), 1e-5);
      for (size_t v = 0; v < kIds; ++v) {
        EXPECT_NEAR(dlogits[v * kRows + r], golden_case["gradient"][r][v].get<double>(), 1e-5);
      }
    }
  }
}

TEST(Divergence, ValuesAndGradientsAreThoseOfATen) {
  for (const Options& options : kOptions) {
    for (const Stored how : kAllStored) {
      const DivergenceCase c(37, 131, 33, options, how, Stored::kFloat32);
      const auto got = c.train(kernels::linear_divergence_train);
      const auto want = c.train(reference().linear_divergence_train);
      const double size = 60;  // Bound of a scaled logit of this case, and of a log-ratio.
      expect_within(got.divergence, want.divergence, 2 * size, 10, "divergence");
      expect_within(got.logprob, want.logprob, size, 10, "logprob");
      expect_within(got.entropy, want.entropy, size, 10, "entropy");
      EXPECT_EQ(got.agree, want.agree);
      // Where the product rounds dz to bf16, the last bit of dz may decide the rounding of a term.
      const double flip = how == Stored::kBf16Dot ? 65536 / size : 0;
      expect_within(got.dhidden, want.dhidden, size * size, 16 + flip, "dhidden");
      expect_within(got.dweight, want.dweight, size * size, 16 + flip, "dweight");
      DivergenceCase::Out plain;
      kernels::linear_divergence(c.args(plain));
      EXPECT_EQ(plain.divergence, got.divergence);
      EXPECT_EQ(plain.logprob, got.logprob);
    }
  }
}

/// sum c D + g ln p, in float64 from the case's numbers.
double loss_of(const DivergenceCase& c, const at::Tensor& hidden, const at::Tensor& head) {
  const auto logits = [&](const at::Tensor& x, const at::Tensor& w, double cap) {
    at::Tensor z = x.matmul(w.t());
    if (cap > 0) z = (z / cap).tanh() * cap;
    return c.options.support > 0 ? z.narrow(1, 0, c.options.support) : z;
  };
  const auto tensor = [](const Floats& v, int64_t columns) {
    return at::tensor(v, at::kFloat).to(at::kDouble).reshape({-1, columns});
  };
  const at::Tensor z = logits(hidden, head, double{c.options.softcap});
  const at::Tensor teacher =
      logits(tensor(c.teacher_hidden, c.teacher_head.k), tensor(c.teacher_head.rows, c.teacher_head.k),
             double{c.options.teacher_softcap});
  const at::Tensor d =
      ops::generalized_jsd(z, teacher, double{c.options.beta}, double{c.options.temperature}).value;
  const at::Tensor targets = at::tensor(c.targets, at::kInt).to(at::kLong).unsqueeze(-1);
  const at::Tensor logprob = z.log_softmax(-1).gather(1, targets).squeeze(-1);
  return (tensor(c.ddivergence, 1).flatten() * d + tensor(c.dlogprob, 1).flatten() * logprob)
      .sum()
      .item<double>();
}

TEST(Divergence, GradientsAreFiniteDifferences) {
  for (Options options : kOptions) {
    if (options.support > 0) options.support = 17;
    const DivergenceCase c(3, 21, 4, options);
    const auto got = c.train(kernels::linear_divergence_train);
    const at::Tensor hidden = at::tensor(c.hidden, at::kFloat).to(at::kDouble).reshape({3, 4});
    const at::Tensor head = at::tensor(c.head.rows, at::kFloat).to(at::kDouble).reshape({21, 4});
    const auto slope = [&](const at::Tensor& x, int64_t at) {
      double& value = x.data_ptr<double>()[at];
      const double h = 1e-5, before = value;
      value = before + h;
      const double up = loss_of(c, hidden, head);
      value = before - h;
      const double down = loss_of(c, hidden, head);
      value = before;
      return (up - down) / (2 * h);
    };
    for (int64_t i = 0; i < hidden.numel(); ++i) {
      ASSERT_NEAR(got.dhidden[static_cast<size_t>(i)], slope(hidden, i), 3e-5) << options.beta;
    }
    Floats dw(c.head.rows.size());
    kernels::unpack_rows(got.dweight.data(), 0, 21, 4, dw.data());
    for (int64_t i = 0; i < head.numel(); i += 3) {
      ASSERT_NEAR(dw[static_cast<size_t>(i)], slope(head, i), 3e-5) << options.beta;
    }
  }
}

TEST(Divergence, EqualDistributionsGiveExactlyZero) {
  for (const float beta : {0.0f, 1e-4f, 0.1f, 0.3f, 0.5f, 0.7f, 0.9f, 1.0f}) {
    DivergenceCase c(9, 1500, 24, {.beta = beta, .temperature = 0.8f});
    c.teacher_head = c.head;
    c.teacher_hidden = c.hidden;
    c.dlogprob.assign(c.dlogprob.size(), 0.0f);
    const auto got = c.train(kernels::linear_divergence_train);
    for (const Floats* zero : {&got.divergence, &got.dhidden, &got.dweight}) {
      for (const float v : *zero) ASSERT_EQ(v, 0.0f) << beta;
    }
    EXPECT_EQ(got.agree, Floats(9, 1.0f));
  }
}

TEST(Divergence, ByHand) {
  // p = (3/4, 1/4), q = (1/2, 1/2), m at beta 1/2 = (5/8, 3/8).
  const auto value = [](float beta) {
    DivergenceCase c(1, 2, 1, {.beta = beta});
    c.head = Weight(Floats{std::log(3.0f), 0}, 2, 1, Stored::kFloat32);
    c.teacher_head = Weight(Floats{7, 7}, 2, 1, Stored::kFloat32);
    c.hidden = c.teacher_hidden = {1.0f};
    return double{c.train(kernels::linear_divergence_train).divergence[0]};
  };
  const double forward = 0.5 * std::log(0.5 / 0.75) + 0.5 * std::log(0.5 / 0.25);
  const double reverse = 0.75 * std::log(0.75 / 0.5) + 0.25 * std::log(0.25 / 0.5);
  const double to_m = 0.5 * std::log(0.5 / 0.625) + 0.5 * std::log(0.5 / 0.375);
  const double from_m = 0.75 * std::log(0.75 / 0.625) + 0.25 * std::log(0.25 / 0.375);
  EXPECT_NEAR(value(0), forward, 1e-7);
  EXPECT_NEAR(value(1), reverse, 1e-7);
  EXPECT_NEAR(value(0.5f), 0.5 * to_m + 0.5 * from_m, 1e-7);
}

TEST(Divergence, ScoresHaveTheBitsOfScoring) {
  for (const float temperature : {1.0f, 0.7f}) {
    const DivergenceCase c(33, 1025, 33, {.beta = 0.5f, .temperature = temperature});
    const auto got = c.train(kernels::linear_divergence_train);
    Floats logprob(33), entropy(33);
    kernels::linear_logprob({.hidden = c.hidden.data(),
                             .hidden_stride = 33,
                             .head = c.head.packed(),
                             .targets = c.targets.data(),
                             .rows = 33,
                             .logprob = logprob.data(),
                             .entropy = entropy.data()});
    EXPECT_EQ(got.logprob, logprob);
    EXPECT_EQ(got.entropy, entropy);
  }
}

TEST(Divergence, BitsDoNotDependOnSplitsTilesOrThreads) {
  for (const Options& options : {kOptions[0], kOptions[1], kOptions[3]}) {
    const DivergenceCase c(kernels::kHeadTileRows + 45, 331, 17, options);
    set_num_threads(1);
    const auto whole = c.train(kernels::linear_divergence_train);
    set_num_threads(2);
    EXPECT_EQ(c.train(kernels::linear_divergence_train), whole);
    DivergenceCase::Out parts;
    const LinearDivergenceTrainArgs all = c.train_args(parts);
    for (int64_t begin = 0; begin < c.rows; begin += 38) {
      LinearDivergenceTrainArgs a = all;
      LinearDivergenceArgs& f = a.forward;
      f.rows = std::min<int64_t>(38, c.rows - begin);
      f.student.hidden += begin * c.head.k;
      f.teacher.hidden += begin * c.teacher_head.k;
      f.targets += begin;
      for (float** out : {&f.divergence, &f.logprob, &f.entropy, &f.agree}) *out += begin;
      a.ddivergence += begin;
      a.dlogprob += begin;
      a.dhidden += begin * c.head.k;
      kernels::linear_divergence_train(a);
    }
    EXPECT_EQ(parts, whole);
  }
}

TEST(Divergence, OtherWeightTypesOfTheTeacher) {
  for (const Stored how : kAllRead) {
    const DivergenceCase c(19, 131, 260, {.beta = 0.5f, .temperature = 9}, Stored::kFloat32, how);
    const auto got = c.train(kernels::linear_divergence_train);
    const auto want = c.train(reference().linear_divergence_train);
    expect_within(got.divergence, want.divergence, 60.0, 10, "divergence");
  }
}

TEST(Divergence, NotANumberOnEitherSideIsSeen) {
  for (const float beta : {0.0f, 0.5f, 1.0f}) {
    for (const bool teacher : {false, true}) {
      DivergenceCase c(3, 70, 5, {.beta = beta});
      (teacher ? c.teacher_hidden : c.hidden)[teacher ? 9 : 6] = NAN;
      DivergenceCase::Out out;
      kernels::linear_divergence(c.args(out));
      EXPECT_TRUE(std::isfinite(out.divergence[0])) << beta << teacher;
      EXPECT_FALSE(std::isfinite(out.divergence[1])) << beta << teacher;
    }
  }
}

TEST(Divergence, OptionsOutOfRangeAreRefused) {
  const DivergenceCase c(2, 9, 3, {});
  const Weight other(10, 6, 1, Stored::kFloat32);
  const auto message = [&](const auto& change) -> std::string {
    DivergenceCase::Out o;
    LinearDivergenceTrainArgs a = c.train_args(o);
    change(a);
    try {
      kernels::linear_divergence_train(a);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const auto expect = [&](const char* word, const auto& change) {
    EXPECT_NE(message(change).find(word), std::string::npos) << word << ": " << message(change);
  };
  using Args = LinearDivergenceTrainArgs;
  expect("teacher over 10 ids", [&](Args& a) { a.forward.teacher.head = other.packed(); });
  expect("beta", [](Args& a) { a.forward.beta = -0.1f; });
  expect("beta", [](Args& a) { a.forward.beta = 1e-6f; });
  expect("beta", [](Args& a) { a.forward.beta = NAN; });
  expect("inverse_temperature", [](Args& a) { a.forward.inverse_temperature = 0; });
  expect("support", [](Args& a) { a.forward.support = 10; });
  expect("softcap", [](Args& a) { a.forward.teacher.softcap = -1; });
  expect("targets", [](Args& a) { a.forward.targets = nullptr; });
  expect("log-prob's gradient", [](Args& a) { a.forward.logprob = nullptr; });
}

}  // namespace
}  // namespace temper::test_ops
