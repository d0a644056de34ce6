#include <algorithm>
#include <set>

#include "jinja_runtime.h"
#include "jinja_text.h"
#include "temper/core/error.h"

namespace temper::jinja {
namespace {

struct Entry {
  std::string_view name;
  Filter filter;
};

Value iterator(Values items) { return Value::sequence(Kind::kIterator, std::move(items)); }

Value ignore_case(const Value& value) {
  return value.is_string() ? Value(lower_text(value.text())) : value;
}

/// Reads `attribute` (null: the item itself) of items, for sorting and grouping.
struct Getter {
  const Value* attribute = nullptr;
  bool case_sensitive = true;
  const Value* otherwise = nullptr;  ///< Instead of undefined.

  Value operator()(const Value& item) const {
    Value value = item;
    if (attribute != nullptr && !attribute->is(Kind::kNone)) value = get_path(item, *attribute);
    if (value.is_undefined() && otherwise != nullptr && !otherwise->is(Kind::kNone)) {
      value = *otherwise;
    }
    return case_sensitive ? value : ignore_case(value);
  }
};

/// Stable, also in reverse.
void sort_by_key(Runtime& runtime, std::vector<std::pair<Value, Value>>& keyed, bool reverse) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? less(b.first, a.first, false, runtime.budget)
                   : less(a.first, b.first, false, runtime.budget);
  });
}

std::vector<std::pair<Value, Value>> with_keys(const Values& items, const Getter& key) {
  std::vector<std::pair<Value, Value>> keyed;
  keyed.reserve(items.size());
  for (const Value& item : items) keyed.emplace_back(key(item), item);
  return keyed;
}

Value length(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("length", args, {});
  return Value(int64_t(length_of(input)));
}

Value list(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("list", args, {});
  return Value::list(iterate(input));
}

Value first(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("first", args, {});
  const Values items = iterate(input);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("last", args, {});
  TEMPER_CHECK(!input.is(Kind::kIterator), "last: a generator is not reversible, use list first");
  const Values items = iterate(input);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value join(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Bound bound("join", args, {"d", "attribute"});
  const std::string separator = bound[0] != nullptr ? to_text(*bound[0]) : "";
  const Getter get{.attribute = bound[1]};
  std::string out;
  bool start = true;
  for (const Value& item : iterate(input)) {
    const std::string part = to_text(get(item));
    check_text_size(out.size() + separator.size() + part.size());
    runtime.budget.charge_text(part.size());
    if (!start) out += separator;
    out += part;
    start = false;
  }
  return Value(std::move(out));
}

CallArgs without_first(const CallArgs& args, size_t n) {
  return {.positional = Values(args.positional.begin() + std::ptrdiff_t(n), args.positional.end()),
          .keyword = args.keyword};
}

std::string name_argument(const CallArgs& args, size_t i, std::string_view what) {
  const Value& name = args.positional[i];
  require_defined(name);
  TEMPER_CHECK(name.is_string(), what, ": expected a name as text, got ", type_name(name));
  return name.text();
}

Value map(Runtime& runtime, const Value& input, const CallArgs& args) {
  if (!input.truthy()) return iterator({});
  const Values items = iterate(input);
  Values out;
  if (args.positional.empty()) {
    const Bound bound("map", args, {"attribute", "default"}, 1);
    const Getter get{.attribute = bound[0], .otherwise = bound[1]};
    for (const Value& item : items) {
      runtime.budget.charge();
      out.push_back(get(item));
    }
    return iterator(std::move(out));
  }
  const std::string name = name_argument(args, 0, "map");
  const CallArgs rest = without_first(args, 1);
  for (const Value& item : items) out.push_back(runtime.call_filter(name, item, rest));
  return iterator(std::move(out));
}

template <bool kAttribute, bool kKeep>
Value select(Runtime& runtime, const Value& input, const CallArgs& args) {
  if (!input.truthy()) return iterator({});
  const size_t skipped = kAttribute ? 1 : 0;
  TEMPER_CHECK(args.positional.size() >= skipped, "selectattr needs the name of an attribute");
  const Getter get{.attribute = kAttribute ? &args.positional[0] : nullptr};
  const bool has_test = args.positional.size() > skipped;
  const std::string test = has_test ? name_argument(args, skipped, "select") : "";
  const CallArgs rest = without_first(args, skipped + has_test);
  Values out;
  for (const Value& item : iterate(input)) {
    runtime.budget.charge();
    const Value value = get(item);
    const bool hit = has_test ? runtime.call_test(test, value, rest) : value.truthy();
    if (hit == kKeep) out.push_back(item);
  }
  return iterator(std::move(out));
}

Value sort(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Bound bound("sort", args, {"reverse", "case_sensitive", "attribute"});
  const bool sensitive = bound.flag(1, false);
  std::vector<std::pair<Value, Value>> keyed;
  if (bound.given(2) && bound[2]->is_string()) {
    // "a,b" sorts by several attributes.
    Values paths;
    const std::string& text = bound[2]->text();
    for (size_t start = 0; start <= text.size();) {
      const size_t end = std::min(text.find(',', start), text.size());
      paths.emplace_back(text.substr(start, end - start));
      start = end + 1;
    }
    for (const Value& item : iterate(input)) {
      Values key;
      for (const Value& path : paths) {
        runtime.budget.charge();
        key.push_back(Getter{.attribute = &path, .case_sensitive = sensitive}(item));
      }
      keyed.emplace_back(Value::list(std::move(key)), item);
    }
  } else {
    keyed = with_keys(iterate(input), Getter{.attribute = bound[2], .case_sensitive = sensitive});
  }
  sort_by_key(runtime, keyed, bound.flag(0, false));
  Values out;
  for (auto& entry : keyed) out.push_back(std::move(entry.second));
  return Value::list(std::move(out));
}

Value dict_sort(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Bound bound("dictsort", args, {"case_sensitive", "by", "reverse"});
  const std::string_view by = bound.text(1, "key");
  TEMPER_CHECK(by == "key" || by == "value", "dictsort: by must be key or value, got '", by, "'");
  require_defined(input);
  TEMPER_CHECK(input.is_dict(), "dictsort: expected a mapping, got ", type_name(input));
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : input.dict().entries()) {
    const Value& chosen = by == "key" ? key : value;
    keyed.emplace_back(bound.flag(0, false) ? chosen : ignore_case(chosen),
                       Value::sequence(Kind::kTuple, {key, value}));
  }
  sort_by_key(runtime, keyed, bound.flag(2, false));
  Values out;
  for (auto& entry : keyed) out.push_back(std::move(entry.second));
  return Value::list(std::move(out));
}

Value unique(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Bound bound("unique", args, {"case_sensitive", "attribute"});
  const Getter get{.attribute = bound[1], .case_sensitive = bound.flag(0, false)};
  std::set<std::string> seen;
  Values out;
  for (const Value& item : iterate(input)) {
    std::string key = hash_key(get(item));
    runtime.budget.charge_text(key.size());
    if (seen.insert(std::move(key)).second) out.push_back(item);
  }
  return iterator(std::move(out));
}

template <bool kMax>
Value extreme(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Bound bound("min/max", args, {"case_sensitive", "attribute"});
  const Getter get{.attribute = bound[1], .case_sensitive = bound.flag(0, false)};
  const auto keyed = with_keys(iterate(input), get);
  if (keyed.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  for (size_t i = 1; i < keyed.size(); ++i) {
    const auto& [low, high] = kMax ? std::pair(best, i) : std::pair(i, best);
    if (less(keyed[low].first, keyed[high].first, false, runtime.budget)) best = i;
  }
  return keyed[best].second;
}

Value sum(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Bound bound("sum", args, {"attribute", "start"});
  const Getter get{.attribute = bound[0]};
  Value total = bound[1] != nullptr ? *bound[1] : Value(int64_t{0});
  TEMPER_CHECK(!total.is_string(), "sum: strings cannot be summed, use join");
  for (const Value& item : iterate(input)) {
    total = binary(Binary::kAdd, total, get(item), runtime.budget);
    runtime.budget.charge(total.is_sequence() ? total.items().size() / 8 + 1 : 1);
  }
  return total;
}

Value reverse(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("reverse", args, {});
  Values items = iterate(input);
  std::reverse(items.begin(), items.end());
  if (!input.is_string()) return iterator(std::move(items));
  std::string out;
  for (const Value& item : items) out += item.text();
  return Value(std::move(out));
}

Value items(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("items", args, {});
  Values out;
  if (input.is_undefined()) return iterator({});
  TEMPER_CHECK(input.is_dict(), "items: expected a mapping, got ", type_name(input));
  for (const auto& [key, value] : input.dict().entries()) {
    out.push_back(Value::sequence(Kind::kTuple, {key, value}));
  }
  return iterator(std::move(out));
}

Value batch(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("batch", args, {"linecount", "fill_with"}, 1);
  const int64_t size = bound.integer(0, 1);
  TEMPER_CHECK(size > 0, "batch: linecount must be positive");
  Values rows, row;
  for (const Value& item : iterate(input)) {
    if (int64_t(row.size()) == size) rows.push_back(Value::list(std::exchange(row, {})));
    row.push_back(item);
  }
  if (!row.empty()) {
    if (bound.given(1)) {
      check_item_count(size_t(size));
      row.resize(size_t(size), *bound[1]);
    }
    rows.push_back(Value::list(std::move(row)));
  }
  return iterator(std::move(rows));
}

Value slice(Runtime&, const Value& input, const CallArgs& args) {
  const Bound bound("slice", args, {"slices", "fill_with"}, 1);
  const int64_t count = bound.integer(0, 1);
  TEMPER_CHECK(count > 0, "slice: the number of slices must be positive");
  check_item_count(size_t(count));
  const Values all = iterate(input);
  const size_t n = size_t(count), each = all.size() / n, longer = all.size() % n;
  Values rows;
  size_t at = 0;
  for (size_t i = 0; i < n; ++i) {
    const size_t size = each + (i < longer);
    Values row(all.begin() + std::ptrdiff_t(at), all.begin() + std::ptrdiff_t(at + size));
    if (bound.given(1) && i >= longer) row.push_back(*bound[1]);
    rows.push_back(Value::list(std::move(row)));
    at += size;
  }
  return iterator(std::move(rows));
}

Value group_by(Runtime& runtime, const Value& input, const CallArgs& args) {
  const Bound bound("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const bool sensitive = bound.flag(2, false);
  const Getter key{.attribute = bound[0], .case_sensitive = sensitive, .otherwise = bound[1]};
  const Getter shown{.attribute = bound[0], .otherwise = bound[1]};
  auto keyed = with_keys(iterate(input), key);
  sort_by_key(runtime, keyed, false);
  Values groups;
  for (size_t i = 0; i < keyed.size();) {
    Values members;
    const size_t start = i;
    while (i < keyed.size() && equals(keyed[i].first, keyed[start].first, runtime.budget)) {
      members.push_back(keyed[i++].second);
    }
    if (i == start) ++i;  // a key that differs from itself (nan)
    groups.push_back(Value::sequence(Kind::kTuple,
                                     {shown(keyed[start].second), Value::list(std::move(members))},
                                     std::string(kGroupLabel)));
  }
  return Value::list(std::move(groups));
}

constexpr Entry kFilters[] = {
    {"length", length},
    {"count", length},
    {"list", list},
    {"first", first},
    {"last", last},
    {"join", join},
    {"map", map},
    {"select", select<false, true>},
    {"reject", select<false, false>},
    {"selectattr", select<true, true>},
    {"rejectattr", select<true, false>},
    {"sort", sort},
    {"dictsort", dict_sort},
    {"unique", unique},
    {"min", extreme<false>},
    {"max", extreme<true>},
    {"sum", sum},
    {"reverse", reverse},
    {"items", items},
    {"batch", batch},
    {"slice", slice},
    {"groupby", group_by},
};

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  for (const Entry& entry : kFilters) {
    if (entry.name == name) return entry.filter;
  }
  return nullptr;
}

}  // namespace temper::jinja
