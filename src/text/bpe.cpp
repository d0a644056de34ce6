#include "bpe.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <queue>
#include <utility>

#include "json_parts.h"
#include "temper/text/unicode.h"

namespace temper {
namespace {

constexpr size_t kMaxMerges = 1 << 22;
constexpr size_t kMaxUncut = 64;  // bytes of a piece that is encoded as one

void refuse_affix(const Json& json, const char* key, const std::string& where) {
  const auto it = json.find(key);
  const bool absent = it == json.end() || it->is_null() ||
                      (it->is_string() && it->get_ref<const std::string&>().empty());
  TEMPER_CHECK(absent, where, ": \"", key, "\" is not supported");
}

}  // namespace

// ---- merge table ----

MergeTable::MergeTable(size_t max_count) : slots_(std::bit_ceil(2 * max_count + 2)) {}

size_t MergeTable::slot_of(uint64_t key) const {
  // The finalizer of splitmix64; linear probing.
  uint64_t h = key;
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9U;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBU;
  h ^= h >> 31;
  size_t i = h & (slots_.size() - 1);
  while (slots_[i].key != key && slots_[i].key != kEmpty) i = (i + 1) & (slots_.size() - 1);
  return i;
}

void MergeTable::set(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  slots_[slot_of(key)] = {key, merge};
}

const Merge* MergeTable::find(int32_t left, int32_t right) const {
  const uint64_t key = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  const Slot& slot = slots_[slot_of(key)];
  return slot.key == kEmpty ? nullptr : &slot.merge;
}

// ---- reading ----

Bpe::Bpe(const nlohmann::json& json, const std::string& where) {
  TEMPER_CHECK(json.is_object(), where, " must be an object, not ", json.type_name());
  if (json.contains("type")) {
    const std::string& type = string_member(json, "type", where);
    TEMPER_CHECK(type == "BPE", where, " is of type \"", type, "\"; only BPE is supported");
  }
  refuse_affix(json, "continuing_subword_prefix", where);
  refuse_affix(json, "end_of_word_suffix", where);
  if (const auto it = json.find("dropout"); it != json.end() && !it->is_null()) {
    TEMPER_CHECK(it->is_number() && it->get<double>() == 0.0, where,
                 ": \"dropout\" makes encoding random; remove it from the file");
  }
  byte_fallback_ = bool_member(json, "byte_fallback", false, where);
  fuse_unknown_ = bool_member(json, "fuse_unk", false, where);
  ignore_merges_ = bool_member(json, "ignore_merges", false, where);
  read_vocabulary(member(json, "vocab", where), where + ": vocab");
  read_merges(member(json, "merges", where), where + ": merges");
  if (const auto it = json.find("unk_token"); it != json.end() && !it->is_null()) {
    unknown_token_ = string_member(json, "unk_token", where);
    unknown_id_ = vocabulary_.id(*unknown_token_);
  }
  for (size_t b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(b));
    byte_ids_[b] = vocabulary_.id(name).value_or(-1);
  }
}

void Bpe::read_vocabulary(const nlohmann::json& json, const std::string& where) {
  TEMPER_CHECK(json.is_object(), where, " must be an object, not ", json.type_name());
  for (const auto& [token, id] : json.items()) {
    TEMPER_CHECK(id.is_number_integer(), where, ": the id of \"", token, "\" must be an integer");
    const int64_t value = checked_integer(id, Vocabulary::kMaxId, where + ": the id of a token");
    TEMPER_CHECK(vocabulary_.add(token, static_cast<int32_t>(value)), where, ": id ", value,
                 " is given to \"", token, "\" and to another token");
  }
}

void Bpe::read_merges(const nlohmann::json& json, const std::string& where) {
  TEMPER_CHECK(json.is_array(), where, " must be an array, not ", json.type_name());
  TEMPER_CHECK(json.size() <= kMaxMerges, where, ": ", json.size(), " merges; at most ", kMaxMerges,
               " are accepted");
  merges_ = MergeTable(json.size());
  joins_ = MergeTable(json.size());
  int32_t rank = 0;
  for (const Json& item : json) {
    if (item.is_string()) {
      const std::string_view line = item.get_ref<const std::string&>();
      if (line.starts_with("#version")) continue;
      const size_t space = line.find(' ');
      TEMPER_CHECK(space != std::string_view::npos && line.find(' ', space + 1) == line.npos, where,
                   ": \"", line, "\" is not two tokens with a space between");
      add_merge(rank++, line.substr(0, space), line.substr(space + 1), where);
    } else {
      TEMPER_CHECK(
          item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string(), where,
          ": entry ", rank, " must be \"a b\" or [\"a\", \"b\"]");
      add_merge(rank++, item[0].get_ref<const std::string&>(),
                item[1].get_ref<const std::string&>(), where);
    }
  }
}

void Bpe::add_merge(int32_t rank, std::string_view left, std::string_view right,
                    const std::string& where) {
  const auto id_of = [&](std::string_view token) {
    const std::optional<int32_t> id = vocabulary_.id(token);
    TEMPER_CHECK(id.has_value(), where, ": entry ", rank, " needs the token \"", token,
                 "\", which is not in the vocabulary");
    return *id;
  };
  const int32_t left_id = id_of(left);
  const int32_t right_id = id_of(right);
  if (left.empty() || right.empty()) {
    may_cut_ = false;
  } else {
    size_t last = unicode::previous_start(left, left.size());
    size_t first = 0;
    joins_.set(static_cast<int32_t>(unicode::next_code_point(left, &last)),
               static_cast<int32_t>(unicode::next_code_point(right, &first)), {});
  }
  merges_.set(left_id, right_id, {rank, id_of(std::string(left).append(right))});
}

// ---- encoding ----

// Without a pre-tokenizer a piece is a whole text. It is cut where no merge can ever reach across
// (mostly between words), which changes no id and lets the cache work.
void Bpe::encode(std::string_view piece, std::vector<int32_t>* out) const {
  if (piece.size() <= kMaxUncut || ignore_merges_ || !may_cut_) {
    encode_part(piece, out);
    return;
  }
  size_t begin = 0;
  size_t i = 0;
  char32_t left = unicode::next_code_point(piece, &i);
  while (i < piece.size()) {
    const size_t at = i;
    const char32_t right = unicode::next_code_point(piece, &i);
    if (never_joins(left, right)) {
      encode_part(piece.substr(begin, at - begin), out);
      begin = at;
    }
    left = right;
  }
  encode_part(piece.substr(begin), out);
}

// Both must be tokens themselves: what stands for unknown characters (bytes, the unknown token) is
// spelled otherwise than the text, and unknown ones fuse.
bool Bpe::never_joins(char32_t left, char32_t right) const {
  if (joins_.find(static_cast<int32_t>(left), static_cast<int32_t>(right)) != nullptr) return false;
  std::string spelled;
  unicode::append_code_point(&spelled, left);
  if (!vocabulary_.id(spelled)) return false;
  spelled.clear();
  unicode::append_code_point(&spelled, right);
  return vocabulary_.id(spelled).has_value();
}

void Bpe::encode_part(std::string_view part, std::vector<int32_t>* out) const {
  if (cache_->append(part, out)) return;
  const size_t before = out->size();
  const std::optional<int32_t> whole = ignore_merges_ ? vocabulary_.id(part) : std::nullopt;
  if (whole) {
    out->push_back(*whole);
  } else {
    merge(characters(part), out);
  }
  cache_->insert(part, out->data() + before, out->data() + out->size());
}

bool Bpe::append_bytes(std::string_view character, std::vector<int32_t>* out) const {
  for (const char c : character) {
    if (byte_ids_[static_cast<uint8_t>(c)] < 0) return false;
  }
  for (const char c : character) out->push_back(byte_ids_[static_cast<uint8_t>(c)]);
  return true;
}

// The ids of the single characters. An unknown one is its bytes, else the unknown token, else (with
// no unknown token declared) nothing. An unknown token waits until the next known character, also
// while bytes pass: the order that the tokenizers package gives.
std::vector<int32_t> Bpe::characters(std::string_view piece) const {
  std::vector<int32_t> ids;
  ids.reserve(piece.size());
  bool unknown_waits = false;
  for (size_t begin = 0; begin < piece.size();) {
    size_t end = begin;
    (void)unicode::next_code_point(piece, &end);
    const std::string_view character = piece.substr(begin, end - begin);
    begin = end;
    if (const std::optional<int32_t> id = vocabulary_.id(character)) {
      if (unknown_waits) ids.push_back(*unknown_id_);
      unknown_waits = false;
      ids.push_back(*id);
      continue;
    }
    if (byte_fallback_ && append_bytes(character, &ids)) continue;
    if (!unknown_token_) continue;
    TEMPER_CHECK(unknown_id_.has_value(), "[encode] the character \"", character,
                 "\" has no token, and the unknown token \"", *unknown_token_,
                 "\" is not in the vocabulary");
    if (unknown_waits && !fuse_unknown_) ids.push_back(*unknown_id_);
    unknown_waits = true;
  }
  if (unknown_waits) ids.push_back(*unknown_id_);
  return ids;
}

struct Bpe::Symbol {
  int32_t id;
  int32_t previous;  // index, -1 at the ends
  int32_t next;
  bool gone;
};

struct Bpe::Candidate {
  int32_t rank;
  int32_t position;  // of the left symbol
  int32_t id;        // of the merged one
  // For a max-heap that yields the lowest rank, leftmost first.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

void Bpe::merge(const std::vector<int32_t>& ids, std::vector<int32_t>* out) const {
  TEMPER_CHECK(ids.size() < INT32_MAX, "[encode] a piece of ", ids.size(), " characters");
  const int32_t n = static_cast<int32_t>(ids.size());
  std::vector<Symbol> symbols(ids.size());
  std::vector<Candidate> start;
  for (int32_t i = 0; i < n; ++i) {
    symbols[i] = {ids[i], i - 1, i + 1 < n ? i + 1 : -1, false};
    if (i + 1 == n) break;
    if (const Merge* m = merges_.find(ids[i], ids[i + 1])) start.push_back({m->rank, i, m->id});
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>{}, std::move(start));
  const auto offer = [&](int32_t left) {
    const int32_t right = symbols[left].next;
    if (const Merge* m = merges_.find(symbols[left].id, symbols[right].id)) {
      queue.push({m->rank, left, m->id});
    }
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.position];
    if (left.gone || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // Stale if the two have changed since; compared by result, as the tokenizers package does.
    const Merge* m = merges_.find(left.id, right.id);
    if (m == nullptr || m->id != top.id) continue;
    left.id = top.id;
    left.next = right.next;
    right.gone = true;
    if (left.next >= 0) symbols[left.next].previous = top.position;
    if (left.previous >= 0) offer(left.previous);
    if (left.next >= 0) offer(top.position);
  }
  for (int32_t i = n > 0 ? 0 : -1; i >= 0; i = symbols[i].next) out->push_back(symbols[i].id);
}

}  // namespace temper
