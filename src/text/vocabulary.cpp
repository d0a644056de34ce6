#include "vocabulary.h"

#include <utility>

namespace temper {

bool Vocabulary::add(std::string token, int32_t id) {
  const size_t index = static_cast<size_t>(id);
  if (index < tokens_.size() && tokens_[index] != nullptr) return false;
  const auto [it, added] = ids_.try_emplace(std::move(token), id);
  if (!added) return false;
  if (index >= tokens_.size()) tokens_.resize(index + 1, nullptr);
  tokens_[index] = &it->first;
  return true;
}

std::optional<int32_t> Vocabulary::id(std::string_view token) const {
  const auto it = ids_.find(token);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

const std::string* Vocabulary::token(int32_t id) const {
  const size_t index = static_cast<size_t>(id);
  return id >= 0 && index < tokens_.size() ? tokens_[index] : nullptr;
}

}  // namespace temper
