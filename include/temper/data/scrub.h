#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace temper {

/// How many pieces of personal data were replaced.
struct ScrubCounts {
  uint64_t emails = 0;
  uint64_t phones = 0;
  uint64_t cards = 0;
  uint64_t ibans = 0;
  [[nodiscard]] uint64_t all() const { return emails + phones + cards + ibans; }
  bool operator==(const ScrubCounts&) const = default;
};

/// `text` with e-mail addresses, telephone, payment card and bank account numbers replaced by
/// [EMAIL], [PHONE], [CARD] and [IBAN]:
///  - e-mail: name@host.domain of ASCII letters, digits and . _ % + -;
///  - card: 13 to 19 digits, perhaps with single spaces or hyphens between, that pass the Luhn
///  check
///    and begin with 2 to 6;
///  - IBAN: two letters, two digits, 11 to 30 more letters and digits, perhaps with single spaces,
///    of which 97 leaves 1 (ISO 13616);
///  - telephone: 7 to 15 digits behind + or 00; 7 to 15 digits in groups behind 0 or (; or
///    three, three and four digits with spaces, dots or hyphens between.
/// Found by form, so names and addresses stay, and so do numbers written otherwise; sums such as
/// "123 + 456" are left alone. Scrubbing twice changes nothing more.
[[nodiscard]] std::string scrub_personal_data(std::string_view text, ScrubCounts& counts);

}  // namespace temper
