#include "cuda/sim/meet.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace temper::sim {
namespace {

using Lanes = std::array<Thread*, 32>;

std::string triple(const uint3& v) {
  if (v.y == 0 && v.z == 0) return std::to_string(v.x);
  return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

bool same_place(const Place& a, const Place& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

bool same_meeting(const Thread& a, const Thread& b) {
  return a.op == b.op && a.mask == b.mask && same_place(a.place, b.place);
}

std::string settle_barrier(std::vector<Thread*>& threads) {
  const Thread* first = nullptr;
  for (const Thread* t : threads) {
    if (t->state == State::kDone) continue;  // Ended threads do not count, as on sm_70 and later.
    if (t->state != State::kWaiting || t->op != Op::kBarrier) return "";
    if (first == nullptr) first = t;
    if (!same_place(t->place, first->place)) {
      return "divergent barrier: " + where(*first) + ", " + where(*t);
    }
  }
  for (Thread* t : threads) {
    if (t->state == State::kWaiting) t->state = State::kReady;
  }
  return "";
}

float bf16(uint32_t word, int half) {
  return bit_copy<float>(half == 0 ? word << 16 : word & 0xffff0000u);
}

/// The layout is at mma_bf16_16x8x16 in device.cuh.
void multiply(const Lanes& lanes) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* f = reinterpret_cast<const MmaFragment*>(lanes[static_cast<size_t>(lane)]->value);
    const int g = lane / 4, t = lane % 4;
    for (int h = 0; h < 2; ++h) {
      for (int word = 0; word < 4; ++word) {
        a[g + 8 * (word & 1)][2 * t + h + 8 * (word >> 1)] = bf16(f->a[word], h);
      }
      for (int word = 0; word < 2; ++word) b[2 * t + h + 8 * word][g] = bf16(f->b[word], h);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    auto* f = reinterpret_cast<MmaFragment*>(lanes[static_cast<size_t>(lane)]->value);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i >> 1), column = lane % 4 * 2 + (i & 1);
      float sum = f->c[i];
      for (int k = 0; k < 16; ++k) sum = std::fma(a[row][k], b[k][column], sum);
      f->d[i] = sum;
    }
  }
}

uint64_t combine(Op op, uint64_t x, uint64_t y) {
  const auto a = static_cast<unsigned>(x), b = static_cast<unsigned>(y);
  const auto i = static_cast<int>(a), j = static_cast<int>(b);
  switch (op) {
    case Op::kReduceAdd: return a + b;
    case Op::kReduceMin: return std::min(a, b);
    case Op::kReduceMax: return std::max(a, b);
    case Op::kReduceMinSigned: return static_cast<unsigned>(std::min(i, j));
    case Op::kReduceMaxSigned: return static_cast<unsigned>(std::max(i, j));
    case Op::kReduceAnd: return a & b;
    case Op::kReduceOr: return a | b;
    default: return a ^ b;
  }
}

/// The result of ops that are the same for all lanes.
uint64_t common_result(const Lanes& lanes, const Thread& first) {
  unsigned ballot = 0;
  uint64_t reduced = first.value;
  bool started = false;
  for (size_t l = 0; l < 32; ++l) {
    if (lanes[l] == nullptr) continue;
    ballot |= static_cast<unsigned>(lanes[l]->value & 1) << l;
    reduced = started ? combine(first.op, reduced, lanes[l]->value) : lanes[l]->value;
    started = true;
  }
  if (first.op == Op::kBallot) return ballot;
  if (first.op == Op::kAny) return ballot != 0;
  if (first.op == Op::kAll) return ballot == first.mask;
  return reduced;
}

std::string finish(const Lanes& lanes, const Thread& first) {
  if (first.op == Op::kMma) multiply(lanes);
  const uint64_t common = common_result(lanes, first);
  for (Thread* t : lanes) {
    if (t == nullptr) continue;
    t->result = common;
    if (t->op == Op::kShuffle) {
      const Thread* source = lanes[static_cast<size_t>(t->source & 31)];
      if (source == nullptr) return "shuffle from a lane outside the mask: " + where(*t);
      t->result = source->value;
    }
    if (t->op == Op::kMatchAny) {
      t->result = 0;
      for (size_t l = 0; l < 32; ++l) {
        if (lanes[l] != nullptr && lanes[l]->value == t->value) t->result |= uint64_t{1} << l;
      }
    }
  }
  for (Thread* t : lanes) {
    if (t != nullptr) t->state = State::kReady;
  }
  return "";
}

/// `t` waits in the warp that begins at threads[base].
std::string settle_warp(const std::vector<Thread*>& threads, size_t base, const Thread& t) {
  Lanes lanes{};
  bool complete = true;
  for (size_t l = 0; l < 32; ++l) {
    if ((t.mask >> l & 1) == 0) continue;
    if (base + l >= threads.size() || threads[base + l]->state == State::kDone) {
      return "the mask names lane " + std::to_string(l) + ", which is gone: " + where(t);
    }
    Thread* other = lanes[l] = threads[base + l];
    if (other->state == State::kWaiting && same_meeting(*other, t)) continue;
    complete = false;
    const bool both_wait = other->state == State::kWaiting && other->op != Op::kBarrier;
    const size_t own = static_cast<size_t>(
        std::find(threads.begin() + static_cast<std::ptrdiff_t>(base), threads.end(), &t) -
        threads.begin());
    if (both_wait && (other->mask >> (own - base) & 1) != 0) {
      return "different warp operations or masks meet: " + where(t) + ", " + where(*other);
    }
  }
  return complete ? finish(lanes, t) : "";
}

}  // namespace

std::string where(const Thread& t) {
  return "thread " + triple(t.ctx.thread) + " of block " + triple(t.ctx.block) + " at " +
         t.place.file + ":" + std::to_string(t.place.line);
}

std::string settle(std::vector<Thread*>& threads) {
  std::string error = settle_barrier(threads);
  for (size_t i = 0; i < threads.size() && error.empty(); ++i) {
    const Thread& t = *threads[i];
    if (t.state != State::kWaiting || t.op == Op::kBarrier) continue;
    if ((t.mask >> (i & 31) & 1) == 0) return "caller not in its own mask: " + where(t);
    error = settle_warp(threads, i / 32 * 32, t);
  }
  return error;
}

std::string deadlock(const std::vector<Thread*>& threads) {
  std::string text = "deadlock:";
  const Thread* last = nullptr;
  int shown = 0;
  for (const Thread* t : threads) {  // One of each run of threads that wait at the same place.
    if (t->state != State::kWaiting) continue;
    if (last != nullptr && same_place(last->place, t->place)) continue;
    if (++shown <= 4) text += (last == nullptr ? " " : ", ") + where(*t);
    last = t;
  }
  if (shown > 4) text += " and others";
  return last == nullptr ? "" : text;
}

}  // namespace temper::sim
