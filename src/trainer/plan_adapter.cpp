// The weights of an adapter, as src/nn/adapter.cpp makes them.
#include <string>

#include "plan_memory.h"

namespace temper::planning {

std::vector<Weight> adapter_weights(const ModelConfig& c, const AdapterConfig& adapter) {
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  struct Part {
    const char* name;
    int64_t rows;
  };
  struct Matrix {
    int64_t in;
    std::vector<Part> parts;
  };
  const std::vector<Matrix> matrices = {
      {c.hidden_size,
       {{"self_attn.q_proj", q}, {"self_attn.k_proj", kv}, {"self_attn.v_proj", kv}}},
      {q, {{"self_attn.o_proj", c.hidden_size}}},
      {c.hidden_size,
       {{"mlp.gate_proj", c.intermediate_size}, {"mlp.up_proj", c.intermediate_size}}},
      {c.intermediate_size, {{"mlp.down_proj", c.hidden_size}}}};
  std::vector<Weight> out;
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    for (const Matrix& m : matrices) {
      int64_t ranks = 0;
      for (const Part& p : m.parts) {
        if (!adapter.targets(prefix + p.name)) continue;
        const int64_t rank = adapter.rank_of(prefix + p.name);
        ranks += rank;
        out.push_back({p.rows, rank, true, 1, p.rows});
        if (adapter.use_dora) out.push_back({p.rows, 1, false, 1, p.rows});
      }
      if (ranks > 0) out.push_back({ranks, m.in, true, 1, ranks});
    }
  }
  return out;
}

}  // namespace temper::planning
