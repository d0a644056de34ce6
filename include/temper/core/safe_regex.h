#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace temper {

/// A compiled Perl-style pattern over UTF-8 (PCRE2; \d, \w and case follow Unicode). Invalid bytes
/// of a subject match nothing. Safe to use from several threads at once.
class SafeRegex {
 public:
  /// @throws Error with the reason and the place in the pattern.
  explicit SafeRegex(const std::string& pattern);
  ~SafeRegex();
  SafeRegex(SafeRegex&&) noexcept;
  SafeRegex& operator=(SafeRegex&&) noexcept;

  /// Whether the pattern matches somewhere in `text`.
  /// @throws Error when the match takes more than a million steps, ten thousand nested ones or
  /// 64 MiB: neither model output nor a file may stall a run.
  [[nodiscard]] bool search(std::string_view text) const;
  /// Whether the pattern matches the whole of `text`. @throws Error as `search` does.
  [[nodiscard]] bool matches(std::string_view text) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper
