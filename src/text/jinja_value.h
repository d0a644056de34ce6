#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

/// The values of the template language: Python's, immutable, bounded in size and nesting.
namespace temper::jinja {

inline constexpr size_t kMaxText = size_t{8} << 20;  ///< Bytes of the output and of any string.
inline constexpr size_t kMaxItems = 250'000;         ///< Items of any list or dict.
inline constexpr size_t kMaxRange = 100'000;         ///< Items of `range`.
inline constexpr int kMaxDepth = 64;                 ///< Nesting of source, values, macro calls.
inline constexpr int64_t kMaxSteps = 1'000'000;      ///< Evaluation steps of one rendering.

/// Throws Error unless a string of `bytes` may be built.
void check_text_size(size_t bytes);
/// Throws Error unless a list of `items` may be built.
void check_item_count(size_t items);

/// Counts down the work of one rendering, so that no template runs for ever.
struct Budget {
  int64_t left = kMaxSteps;
  /// @throws Error once the steps are used up.
  void charge(size_t steps = 1);
  /// A pass over `bytes` of text.
  void charge_text(size_t bytes) { charge(bytes / 256); }
};

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kRange,     ///< `range(...)`.
  kView,      ///< `dict.items()`, `keys()`, `values()`: has a length but no index.
  kIterator,  ///< What lazy filters return: can be walked once, always true.
  kSlice,     ///< `a:b:c` within brackets.
  kNamespace,
  kLoop,
  kCallable,
};

class Dict;
struct Sequence;
struct Namespace;
struct Loop;
struct Callable;

/// 32 bytes, cheap to copy. Namespaces and loops belong to the interpreter; the rest is shared.
class Value {
 public:
  Value() = default;  ///< None.
  explicit Value(bool b) : kind_(Kind::kBool) { scalar_.boolean = b; }
  explicit Value(int64_t i) : kind_(Kind::kInt) { scalar_.integer = i; }
  explicit Value(double d) : kind_(Kind::kFloat) { scalar_.real = d; }
  /// @throws Error beyond kMaxText.
  explicit Value(std::string text, bool markup = false);
  explicit Value(std::string_view text) : Value(std::string(text)) {}
  explicit Value(const char* text) : Value(std::string(text)) {}
  explicit Value(Dict dict);
  explicit Value(Namespace* space) : kind_(Kind::kNamespace) { scalar_.space = space; }
  explicit Value(Loop* loop) : kind_(Kind::kLoop) { scalar_.loop = loop; }
  explicit Value(Callable callable);

  /// `why` is what using it says, such as "'x' is undefined".
  [[nodiscard]] static Value undefined(std::string why);
  /// kList, kTuple, kRange, kView, kIterator or kSlice. @throws Error beyond kMaxItems or nested
  /// deeper than kMaxDepth.
  [[nodiscard]] static Value sequence(Kind kind, std::vector<Value> items, std::string label = {});
  [[nodiscard]] static Value list(std::vector<Value> items) {
    return sequence(Kind::kList, std::move(items));
  }

  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] bool is(Kind k) const { return kind_ == k; }
  [[nodiscard]] bool is_undefined() const { return kind_ == Kind::kUndefined; }
  [[nodiscard]] bool is_string() const { return kind_ == Kind::kString; }
  [[nodiscard]] bool is_dict() const { return kind_ == Kind::kDict; }
  [[nodiscard]] bool is_sequence() const {
    return kind_ == Kind::kList || kind_ == Kind::kTuple || kind_ == Kind::kRange ||
           kind_ == Kind::kView || kind_ == Kind::kIterator;
  }
  /// int or bool, which Python takes for 0 or 1.
  [[nodiscard]] bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  [[nodiscard]] bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }
  /// Text that `safe` or `escape` marked: `+` escapes what is joined to it.
  [[nodiscard]] bool is_markup() const { return markup_; }
  [[nodiscard]] int depth() const { return depth_; }

  // Each of these wants the matching kind.
  [[nodiscard]] int64_t integer() const {
    return kind_ == Kind::kBool ? int64_t{scalar_.boolean} : scalar_.integer;
  }
  [[nodiscard]] double real() const {
    return kind_ == Kind::kFloat ? scalar_.real : double(integer());
  }
  [[nodiscard]] const std::string& text() const {
    return *static_cast<const std::string*>(data_.get());
  }
  [[nodiscard]] const std::string& why() const { return text(); }
  [[nodiscard]] const std::vector<Value>& items() const;
  [[nodiscard]] const std::string& label() const;
  [[nodiscard]] const Dict& dict() const { return *static_cast<const Dict*>(data_.get()); }
  [[nodiscard]] const Callable& callable() const {
    return *static_cast<const Callable*>(data_.get());
  }
  [[nodiscard]] Namespace& space() const { return *scalar_.space; }
  [[nodiscard]] Loop& loop() const { return *scalar_.loop; }
  /// Takes the items that an iterator has left; it is empty afterwards.
  [[nodiscard]] std::vector<Value> drain() const;

  [[nodiscard]] bool truthy() const;

 private:
  Kind kind_ = Kind::kNone;
  bool markup_ = false;
  uint8_t depth_ = 0;
  union {
    bool boolean;
    int64_t integer;
    double real;
    Namespace* space;
    Loop* loop;
  } scalar_{};
  std::shared_ptr<const void> data_;
};

using Values = std::vector<Value>;
using Keywords = std::vector<std::pair<std::string, Value>>;

/// What a call passes.
struct CallArgs {
  Values positional = {};
  Keywords keyword = {};
};

struct Sequence {
  Values items;
  std::string label;        ///< Type name of a view, repr of a range.
  mutable size_t next = 0;  ///< Iterators: the first item not yet walked.
};

/// A dict in insertion order.
class Dict {
 public:
  /// Adds or replaces. @throws Error if the key cannot be hashed.
  void set(const Value& key, Value value);
  void set(std::string_view key, Value value) { set(Value(key), std::move(value)); }
  /// @return null if absent. @throws Error if the key cannot be hashed.
  [[nodiscard]] const Value* find(const Value& key) const;
  [[nodiscard]] const Value* find(std::string_view key) const;
  [[nodiscard]] const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }

 private:
  [[nodiscard]] size_t position(const std::string& hash) const;
  std::vector<std::pair<Value, Value>> entries_;
  std::unordered_map<std::string, uint32_t> index_;  // by hash_key
};

/// Equal values have equal keys: text for a hash table. @throws Error for lists and dicts.
[[nodiscard]] std::string hash_key(const Value& value);

/// Name of the Python type, for messages.
[[nodiscard]] std::string type_name(const Value& value);
/// str(value) and repr(value). @throws Error beyond kMaxText.
[[nodiscard]] std::string to_text(const Value& value);
[[nodiscard]] std::string repr(const Value& value);
/// Python's ==.
[[nodiscard]] bool equals(const Value& a, const Value& b, Budget& budget);
/// Python's < (or <= with `or_equal`). @throws Error where Python raises a TypeError.
[[nodiscard]] bool less(const Value& a, const Value& b, bool or_equal, Budget& budget);
/// What `for` and `list` walk over: items, keys, code points. @throws Error if not iterable.
[[nodiscard]] Values iterate(const Value& value);
/// len(). @throws Error if there is none.
[[nodiscard]] size_t length_of(const Value& value);

/// @throws Error for integers beyond 64 bit and nesting beyond kMaxDepth.
[[nodiscard]] Value from_json(const nlohmann::ordered_json& json);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool lines = false;  ///< One item a line, indented by `indent`.
  std::string indent = {};
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
/// json.dumps. @throws Error for what JSON cannot hold.
[[nodiscard]] std::string to_json(const Value& value, const JsonStyle& style);

}  // namespace temper::jinja
