#include "temper/reward/timeout.h"

#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace temper {
namespace {

using Clock = std::chrono::steady_clock;

/// One call with all that it reads, owned by its caller and its thread together.
class Call {
 public:
  Call(RewardFn fn, std::span<const Completion> completions) : fn_(std::move(fn)) {
    for (const Completion& c : completions) {
      Completion copy = c;
      copy.ids = ids_.emplace_back(c.ids.begin(), c.ids.end());
      if (c.example != nullptr) copy.example = &examples_.emplace_back(*c.example);
      completions_.push_back(std::move(copy));
    }
  }

  void run() {
    std::vector<float> scores;
    std::exception_ptr error;
    try {
      scores = fn_(completions_);
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    scores_ = std::move(scores);
    error_ = error;
    over_ = true;
    changed_.notify_all();
  }

  /// Whether the call was over by then.
  bool wait_until(Clock::time_point end) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, end, [&] { return over_; });
  }

  /// Of a call that is over.
  std::vector<float> result() {
    const std::lock_guard lock(mutex_);
    if (error_) std::rethrow_exception(error_);
    return std::move(scores_);
  }

 private:
  const RewardFn fn_;
  std::deque<std::vector<int32_t>> ids_;  // Elements stay where they are.
  std::deque<Example> examples_;
  std::vector<Completion> completions_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::vector<float> scores_;
  std::exception_ptr error_;
};

/// What copies of one reward share.
struct State {
  RewardFn fn;
  std::string name;
  double seconds;
  std::shared_ptr<Call> last;

  std::vector<float> operator()(std::span<const Completion> completions) {
    const auto wait = std::chrono::duration<double>(seconds);
    const Clock::time_point end = Clock::now() + std::chrono::duration_cast<Clock::duration>(wait);
    if (last && !last->wait_until(end)) {
      throw RewardTimeout(concat("reward \"", name, "\" has not returned from an earlier call yet"));
    }
    last = std::make_shared<Call>(fn, completions);
    // Detached: joining it would wait for what may never come back. It owns all that it reads.
    std::thread([call = last] { call->run(); }).detach();
    if (!last->wait_until(end)) {
      throw RewardTimeout(concat("reward \"", name, "\" did not return within ", seconds,
                                 " seconds for ", completions.size(), " completions"));
    }
    return std::exchange(last, nullptr)->result();
  }
};

}  // namespace

RewardTimeout::RewardTimeout(std::string sentence)
    : Error("[score] " + sentence), sentence_(std::move(sentence)) {}

RewardTimeout RewardTimeout::at(const std::string& where) const {
  return RewardTimeout(where + ": " + sentence_);
}

NamedReward with_timeout(NamedReward reward, double seconds) {
  TEMPER_CHECK(reward.fn, "[with_timeout] reward \"", reward.name, "\" has no function");
  TEMPER_CHECK(std::isfinite(seconds) && seconds > 0 && seconds < 1e9,
               "[with_timeout] seconds must be above 0 and below 1e9, got ", seconds);
  auto state = std::make_shared<State>(State{std::move(reward.fn), reward.name, seconds, nullptr});
  reward.fn = [state](std::span<const Completion> completions) { return (*state)(completions); };
  return reward;
}

}  // namespace temper
