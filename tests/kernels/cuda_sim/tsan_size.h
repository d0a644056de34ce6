#pragma once
// Sizes of emulator tests under ThreadSanitizer, for which every emulated thread of a block is a
// fiber that takes a millisecond to make. It sees a race in any order and in small problems.

namespace temper::test {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
#else
inline constexpr bool kThreadSanitizer = false;
#endif

/// A size, or a list of cases: `usual`, or `watched` where ThreadSanitizer watches.
template <class T>
constexpr T tsan_size(T usual, T watched) {
  return kThreadSanitizer ? watched : usual;
}

}  // namespace temper::test
