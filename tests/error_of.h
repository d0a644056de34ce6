#pragma once

#include <string>

#include "temper/core/error.h"

namespace temper {

/// The message of the error that `call` throws; empty when it throws none.
template <class Call>
[[nodiscard]] std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace temper
