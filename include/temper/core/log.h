#pragma once

#include <string>
#include <string_view>

#include "temper/core/error.h"

namespace temper {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kOff };

/// Messages below this level are dropped. Default: `kInfo`.
void set_log_level(LogLevel level);

/// One line to stderr; stdout belongs to machine-readable answers. Safe from any thread.
void log_line(LogLevel level, std::string_view text);

template <class... Args>
void log_info(const Args&... args) {
  log_line(LogLevel::kInfo, concat(args...));
}
template <class... Args>
void log_warn(const Args&... args) {
  log_line(LogLevel::kWarn, concat(args...));
}
template <class... Args>
void log_debug(const Args&... args) {
  log_line(LogLevel::kDebug, concat(args...));
}

}  // namespace temper
