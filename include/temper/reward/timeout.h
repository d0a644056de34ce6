#pragma once

#include <string>

#include "temper/core/error.h"
#include "temper/reward/reward.h"

namespace temper {

/// A reward that did not return in time. `score` lets it pass: the rows are not to blame one by one.
class RewardTimeout : public Error {
 public:
  /// @param sentence  what happened, beginning with the reward.
  explicit RewardTimeout(std::string sentence);
  /// The same, said to have happened at `where` ("step 3").
  [[nodiscard]] RewardTimeout at(const std::string& where) const;

 private:
  std::string sentence_;
};

/// The reward, called on a thread of its own and waited for at most `seconds`: for functions of
/// unknown code, and for those that ask another machine.
///
/// A thread cannot be stopped from outside. One that is late goes on, its result unread, with a copy
/// of the completions and their dataset rows that lives as long as it does; so does the function.
/// What that refers to without owning it must live as long, too. While it goes on, a further call
/// waits for it first (within the same time), so the function never runs twice at once. A process
/// that ends ends it as well.
///
/// The function runs on another thread than its caller's: one that needs a thread's state (or uses a
/// model of this process, whose products belong to one thread at a time) has no place here.
/// @throws Error for seconds that are not above 0, or no function. The reward throws what the
/// function throws, and RewardTimeout with its name.
[[nodiscard]] NamedReward with_timeout(NamedReward reward, double seconds);

}  // namespace temper
