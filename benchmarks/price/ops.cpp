// Compiled twice: PRICE_OPS is exact_ops or free_ops, and then `temper` is another namespace.
#include "price/ops.h"

#include <cmath>
#include <memory>

#include "temper/kernels/linear.h"
#include "temper/kernels/linear_logprob.h"
#include "temper/kernels/rms_norm.h"
#include "temper/kernels/tree_attention.h"

namespace {

using namespace temper::kernels;

std::vector<float> noise(int64_t n) {
  std::vector<float> out(static_cast<size_t>(n));
  uint32_t state = 7;
  for (float& x : out) {
    state = state * 1664525u + 1013904223u;
    x = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
  }
  return out;
}

struct Product_ {
  int64_t rows, n, k;
  std::vector<float> x, y, panels;
  std::vector<uint16_t> half;
  Product_(int64_t rows_, int64_t n_, int64_t k_)
      : rows(rows_), n(n_), k(k_), x(noise(rows * k)), y(static_cast<size_t>(rows * n)),
        panels(noise(panel_elements(n, k))), half(panels.size()) {
    panels_to_bf16(panels.data(), panel_elements(n, k), half.data());
  }
};

PriceOp product(const std::string& name, int64_t rows, int64_t n, int64_t k, Product kind) {
  auto p = std::make_shared<Product_>(rows, n, k);
  return {name, [p, kind] {
            linear({.x = p->x.data(),
                    .x_stride = p->k,
                    .weight = {p->panels.data(), p->half.data(), p->n, p->k, kind},
                    .y = p->y.data(),
                    .y_stride = p->n,
                    .rows = p->rows});
          }};
}

PriceOp norm() {
  struct Data {
    std::vector<float> x = noise(512 * 576), w = noise(576), y = x, rstd = noise(512);
  };
  auto d = std::make_shared<Data>();
  return {"rms_norm 512 x 576", [d] {
            rms_norm({d->x.data(), d->w.data(), d->y.data(), d->rstd.data(), 512, 576, 1e-5f});
          }};
}

PriceOp attention() {
  struct Data {
    std::vector<KeySpan> spans = {{0, 384}};
    std::vector<TreeAttentionArgs::Query> queries;
    std::vector<float> q = noise(384 * 576), k = noise(384 * 192), v = k, out = q,
                       lse = noise(384 * 9);
  };
  auto d = std::make_shared<Data>();
  for (int32_t i = 0; i < 384; ++i) d->queries.push_back({0, 1, i + 1, i});
  return {"tree_attention 384 tokens", [d] {
            TreeAttentionArgs a{};
            a.q = d->q.data();
            a.q_stride = 576;
            a.k = d->k.data();
            a.v = d->v.data();
            a.kv_stride = 192;
            a.out = d->out.data();
            a.out_stride = 576;
            a.lse = d->lse.data();
            a.spans = d->spans;
            a.queries = d->queries;
            a.heads = 9;
            a.kv_heads = 3;
            a.head_dim = 64;
            a.scale = 0.125f;
            tree_attention(a);
          }};
}

PriceOp head() {
  struct Data {
    Product_ p{128, 49152, 576};
    std::vector<int32_t> targets = std::vector<int32_t>(128, 5);
    std::vector<float> logprob = std::vector<float>(128), entropy = logprob;
  };
  auto d = std::make_shared<Data>();
  return {"linear_logprob 128 x 49152", [d] {
            linear_logprob({.hidden = d->p.x.data(),
                            .hidden_stride = 576,
                            .head = {d->p.panels.data(), d->p.half.data(), 49152, 576},
                            .targets = d->targets.data(),
                            .rows = 128,
                            .logprob = d->logprob.data(),
                            .entropy = d->entropy.data()});
          }};
}

}  // namespace

std::vector<PriceOp> PRICE_OPS() {
  return {product("linear 1 x 3072 x 576, bf16", 1, 3072, 576, Product::kFma),
          product("linear 64 x 3072 x 576, bf16", 64, 3072, 576, Product::kFma),
          product("linear 512 x 3072 x 576, bf16", 512, 3072, 576, Product::kFma),
          product("linear 512 x 3072 x 576, bf16 dot", 512, 3072, 576, Product::kDot),
          product("linear 512 x 576 x 1536, bf16 dot", 512, 576, 1536, Product::kDot),
          norm(),
          attention(),
          head()};
}
