#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "normalizer.h"
#include "vocabulary.h"

namespace temper {

/// A token that is found in text before anything else happens to it.
struct AddedToken {
  std::string content;
  bool single_word = false;  ///< Only where no word character adjoins.
  bool lstrip = false;       ///< Takes the white space before it.
  bool rstrip = false;       ///< Takes the white space behind it.
  bool normalized = false;   ///< Looked for in normalized text, in its own normalized form.
  bool special = false;
};

/// A part of a text: an added token (`id` >= 0) or text between them.
struct Section {
  size_t begin = 0;
  size_t end = 0;
  int32_t id = -1;
};

/// Finds a fixed set of strings: leftmost, then longest, without overlap. Immutable after `add`s.
class StringFinder {
 public:
  StringFinder();
  /// @return false if the string is there already.
  bool add(std::string_view text, int32_t value);
  [[nodiscard]] bool empty() const { return values_.size() == 1; }

  struct Found {
    size_t begin = 0;
    size_t end = 0;
    int32_t value = -1;
  };
  /// The next match at or after `start`; `value` is -1 if there is none.
  [[nodiscard]] Found find(std::string_view text, size_t start) const;

 private:
  std::unordered_map<uint64_t, uint32_t> edges_;  // (node << 8 | byte) -> node
  std::vector<int32_t> values_;                   // by node; -1 where no string ends
  std::vector<uint32_t> first_;                   // by byte: the root's edges, 0 for none
};

/// The `added_tokens` of a tokenizer file. Immutable.
class AddedTokens {
 public:
  AddedTokens() = default;
  /// Ids are given as the tokenizers package gives them: a token that the vocabulary knows keeps
  /// the id from there, others are numbered behind it; the file's own `id` is not used.
  /// @throws Error, prefixed by `where`.
  AddedTokens(const nlohmann::json& json, const Vocabulary& vocabulary,
              const Normalizer& normalizer, const std::string& where);

  /// Cuts raw text at the tokens that are not normalized, or normalized text at those that are.
  [[nodiscard]] std::vector<Section> cut_raw(std::string_view text, bool allow_special) const {
    return cut(raw_, text, allow_special);
  }
  [[nodiscard]] std::vector<Section> cut_normalized(std::string_view text,
                                                    bool allow_special) const {
    return cut(normalized_, text, allow_special);
  }

  [[nodiscard]] const StringMap<int32_t>& ids() const { return ids_; }
  /// How a token is shown: in normalized form if it is looked for that way. Null if not an added
  /// one.
  [[nodiscard]] const std::string* shown(int32_t id) const;
  [[nodiscard]] bool is_special_text(std::string_view token) const;

 private:
  void insert(AddedToken token, int32_t id, const Normalizer& normalizer);
  [[nodiscard]] std::vector<Section> cut(const StringFinder& finder, std::string_view text,
                                         bool allow_special) const;

  StringMap<int32_t> ids_;
  std::unordered_map<int32_t, AddedToken> tokens_;
  std::unordered_map<int32_t, std::string> shown_;
  std::unordered_set<std::string, StringHash, std::equal_to<>> special_;
  StringFinder raw_;
  StringFinder normalized_;
};

}  // namespace temper
