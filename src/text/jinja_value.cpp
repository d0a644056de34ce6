#include "jinja_value.h"

#include <algorithm>
#include <cmath>

#include "jinja_runtime.h"
#include "jinja_text.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

constexpr size_t kIndexFrom = 12;  // below that a walk is faster than a hash table

void check_depth(int depth) {
  TEMPER_CHECK(depth <= kMaxDepth, "values nested deeper than ", kMaxDepth, " levels");
}

}  // namespace

void check_text_size(size_t bytes) {
  TEMPER_CHECK(bytes <= kMaxText, "a string of ", bytes, " bytes, more than the limit of ",
               kMaxText);
}

void check_item_count(size_t items) {
  TEMPER_CHECK(items <= kMaxItems, "a list of ", items, " items, more than the limit of ",
               kMaxItems);
}

void Budget::charge(size_t steps) {
  left -= int64_t(steps);
  TEMPER_CHECK(left >= 0, "more than ", kMaxSteps, " evaluation steps: does the template end?");
}

Value::Value(std::string text, bool markup) : kind_(Kind::kString), markup_(markup) {
  check_text_size(text.size());
  data_ = std::make_shared<const std::string>(std::move(text));
}

Value::Value(Dict dict) : kind_(Kind::kDict) {
  int depth = 0;
  for (const auto& [key, value] : dict.entries()) {
    depth = std::max({depth, key.depth(), value.depth()});
  }
  check_depth(depth + 1);
  depth_ = uint8_t(depth + 1);
  data_ = std::make_shared<const Dict>(std::move(dict));
}

Value::Value(Callable callable) : kind_(Kind::kCallable), depth_(uint8_t(callable.self.depth())) {
  data_ = std::make_shared<const Callable>(std::move(callable));
}

Value Value::undefined(std::string why) {
  Value v(std::move(why));
  v.kind_ = Kind::kUndefined;
  return v;
}

Value Value::sequence(Kind kind, Values items, std::string label) {
  check_item_count(items.size());
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  check_depth(depth + 1);
  Value v;
  v.kind_ = kind;
  v.depth_ = uint8_t(depth + 1);
  v.data_ = std::make_shared<const Sequence>(Sequence{std::move(items), std::move(label)});
  return v;
}

const Values& Value::items() const { return static_cast<const Sequence*>(data_.get())->items; }
const std::string& Value::label() const { return static_cast<const Sequence*>(data_.get())->label; }

Values Value::drain() const {
  const auto& sequence = *static_cast<const Sequence*>(data_.get());
  Values rest(sequence.items.begin() + std::ptrdiff_t(sequence.next), sequence.items.end());
  sequence.next = sequence.items.size();
  return rest;
}

bool Value::truthy() const {
  switch (kind_) {
    case Kind::kUndefined:
    case Kind::kNone: return false;
    case Kind::kBool: return scalar_.boolean;
    case Kind::kInt: return scalar_.integer != 0;
    case Kind::kFloat: return scalar_.real != 0;
    case Kind::kString: return !text().empty();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kView: return !items().empty();
    case Kind::kDict: return !dict().entries().empty();
    case Kind::kLoop: return !loop().items.empty();
    default: return true;
  }
}

size_t Dict::position(const std::string& hash) const {
  if (entries_.size() > kIndexFrom) {
    const auto it = index_.find(hash);
    return it == index_.end() ? entries_.size() : it->second;
  }
  size_t i = 0;
  while (i < entries_.size() && hash_key(entries_[i].first) != hash) ++i;
  return i;
}

void Dict::set(const Value& key, Value value) {
  const std::string hash = hash_key(key);
  const size_t at = position(hash);
  if (at < entries_.size()) {
    entries_[at].second = std::move(value);
    return;
  }
  check_item_count(entries_.size() + 1);
  entries_.emplace_back(key, std::move(value));
  if (entries_.size() == kIndexFrom + 1) {
    for (const auto& entry : entries_) index_.emplace(hash_key(entry.first), index_.size());
  } else if (entries_.size() > kIndexFrom) {
    index_.emplace(hash, at);
  }
}

const Value* Dict::find(const Value& key) const {
  if (key.is_string()) return find(std::string_view(key.text()));
  const size_t at = position(hash_key(key));
  return at < entries_.size() ? &entries_[at].second : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  if (entries_.size() > kIndexFrom) {
    const auto it = index_.find("s" + std::string(key));
    return it == index_.end() ? nullptr : &entries_[it->second].second;
  }
  for (const auto& [k, v] : entries_) {
    if (k.is_string() && k.text() == key) return &v;
  }
  return nullptr;
}

std::string hash_key(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return "u";
    case Kind::kNone: return "n";
    case Kind::kBool:
    case Kind::kInt: return "i" + std::to_string(value.integer());
    case Kind::kFloat: {
      const double d = value.real();
      const bool whole = d == std::floor(d) && std::abs(d) < 9.2e18;
      return whole ? "i" + std::to_string(int64_t(d)) : "f" + repr_float(d);
    }
    case Kind::kString: return "s" + value.text();
    case Kind::kTuple: {
      std::string key = "(";
      for (const Value& item : value.items()) {
        const std::string part = hash_key(item);
        check_text_size(key.size() + part.size());
        key += std::to_string(part.size()) + ":" + part;
      }
      return key;
    }
    default: fail("unhashable type: '", type_name(value), "'");
  }
}

size_t length_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return 0;
    case Kind::kString: return text_length(value.text());
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kView: return value.items().size();
    case Kind::kDict: return value.dict().entries().size();
    default: fail("object of type '", type_name(value), "' has no len()");
  }
}

Values iterate(const Value& value) {
  Values out;
  switch (value.kind()) {
    case Kind::kUndefined: return {};
    case Kind::kIterator: return value.drain();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kView: return value.items();
    case Kind::kDict:
      for (const auto& entry : value.dict().entries()) out.push_back(entry.first);
      return out;
    case Kind::kString:
      for (size_t i = 0; i < value.text().size();) {
        check_item_count(out.size() + 1);
        const size_t size = decode(value.text(), i).size;
        out.emplace_back(std::string_view(value.text()).substr(i, size));
        i += size;
      }
      return out;
    default: fail("'", type_name(value), "' object is not iterable");
  }
}

}  // namespace temper::jinja
