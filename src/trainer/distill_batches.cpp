// How a step's rows become the batches of both models, and what is summed over their tokens.
#include "distill_batches.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "temper/core/error.h"

namespace temper {
namespace {

using Ids = std::vector<int32_t>;

/// Adds a segment of these tokens, the first one at `position` of its text.
void append(TokenBatch& b, int32_t parent, std::span<const int32_t> ids, size_t position) {
  b.segments.push_back({parent, static_cast<int32_t>(b.ids.size()), static_cast<int32_t>(ids.size()),
                        -1});
  for (const int32_t id : ids) {
    b.ids.push_back(id);
    b.positions.push_back(static_cast<int32_t>(position++));
  }
}

/// The teacher's texts, what all of its prompts begin with computed once, and the rows that predict
/// each answer's tokens. It gets no gradient, so that the tree's shape changes no bit.
void pack_teacher(const std::vector<DistillRow>& rows, size_t prefix, TokenBatch& batch,
                  std::vector<int32_t>& predicting) {
  if (prefix > 0) append(batch, -1, std::span(rows[0].teacher_prompt).first(prefix), 0);
  for (const DistillRow& row : rows) {
    const Ids& answer = row.student.answers[0].ids;
    Ids text(row.teacher_prompt.begin() + static_cast<std::ptrdiff_t>(prefix),
             row.teacher_prompt.end());
    const size_t before = text.size();
    text.insert(text.end(), answer.begin(), answer.end() - 1);  // Nothing follows the last token.
    const auto start = static_cast<int32_t>(batch.ids.size());
    if (!text.empty()) append(batch, prefix > 0 ? 0 : -1, text, prefix);
    for (size_t t = before == 0 ? 1 : 0; t < answer.size(); ++t) {
      predicting.push_back(start + static_cast<int32_t>(before + t) - 1);
    }
  }
}

size_t common_prefix(const Ids& a, const Ids& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                             a.begin());
}

}  // namespace

double active_tokens(const std::vector<DistillRow>& rows) {
  int64_t n = 0;
  for (const DistillRow& row : rows) n += row.student.active(0);
  return static_cast<double>(n);
}

size_t common_beginning(const std::vector<DistillRow>& a, const std::vector<DistillRow>& b) {
  const DistillRow* first = !a.empty() ? &a[0] : b.empty() ? nullptr : &b[0];
  if (first == nullptr || first->teacher_prompt.empty()) return 0;
  size_t most = first->teacher_prompt.size() - 1;
  for (const auto* rows : {&a, &b}) {
    for (const DistillRow& row : *rows) {
      if (row.teacher_prompt.empty()) return 0;
      most = std::min({most, common_prefix(first->teacher_prompt, row.teacher_prompt),
                       row.teacher_prompt.size() - 1});
    }
  }
  return most;
}

std::vector<DistillTrainer::Rows> DistillTrainer::cut(const Rows& rows) const {
  std::vector<Rows> out;
  int64_t filled = 0;
  for (const DistillRow& row : rows) {
    const int64_t teacher = row.teacher_rows() - static_cast<int64_t>(prefix_);
    const int64_t more = std::max(row.student.rows(), teacher);
    if (out.empty() || filled + more > parts_.config.micro_batch_tokens) {
      out.emplace_back();
      filled = 0;
    }
    out.back().push_back(row);
    filled += more;
  }
  return out;
}

DistillTrainer::MicroBatch DistillTrainer::pack(const Rows& rows) const {
  std::vector<const AnswerGroup*> groups;
  for (const DistillRow& row : rows) groups.push_back(&row.student);
  AnswerTokens packed = pack_answers(groups);
  MicroBatch out;
  std::vector<int32_t> teacher;
  pack_teacher(rows, prefix_, out.teacher, teacher);
  size_t t = 0;
  for (size_t row = 0; row < rows.size(); ++row) {
    const AnswerGroup& group = rows[row].student;
    const std::vector<uint8_t>& mask = group.answers[0].mask;
    for (size_t i = group.prompt.empty() ? 1 : 0; i < group.answers[0].ids.size(); ++i, ++t) {
      if (!mask.empty() && mask[i] == 0) continue;
      out.tokens.rows.push_back(packed.rows[t]);
      out.tokens.targets.push_back(packed.targets[t]);
      out.teacher_rows.push_back(teacher[t]);
      out.weights.push_back(static_cast<float>(group.weight));
      out.row.push_back(row);
    }
  }
  out.student = std::move(packed.tokens);
  return out;
}

void DistillTrainer::Sums::add(const DivergenceScores& s, const MicroBatch& batch,
                               const Rows& rows, const std::string& source) {
  const float* d = s.divergence.const_data_ptr<float>();
  const float* p = s.logprobs.const_data_ptr<float>();
  const float* h = s.entropy.const_data_ptr<float>();
  const float* same = s.agree.const_data_ptr<float>();
  for (size_t t = 0; t < batch.row.size(); ++t) {
    TEMPER_CHECK(std::isfinite(d[t]) && std::isfinite(p[t]), "[distill] line ",
                 rows[batch.row[t]].student.line, " of ", source, ": a token has divergence ", d[t],
                 " and log-prob ", p[t],
                 "; no step was made with it. Lower schedule.learning_rate, or go back to a "
                 "checkpoint");
    const double weight = double{batch.weights[t]};
    divergence += weight * double{d[t]};
    nll -= weight * double{p[t]};
    entropy += double{h[t]};
    agree += double{same[t]};
    tokens += 1;
  }
}

void DistillTrainer::Sums::write_to(Metrics& out, double nll_weight,
                                    const std::string& prefix) const {
  if (tokens == 0) return;
  out[prefix + "loss"] = (divergence + nll_weight * nll) / tokens;
  out[prefix + "divergence"] = divergence / tokens;
  out[prefix + "nll_loss"] = nll / tokens;
  out[prefix + "entropy"] = entropy / tokens;
  out[prefix + "top1_agreement"] = agree / tokens;
}

}  // namespace temper
