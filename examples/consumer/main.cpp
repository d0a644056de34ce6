// The smallest program over an installed Temper: a config struct, settings from the command line,
// and draws that depend on their coordinates alone.
#include <cstdint>
#include <iostream>
#include <string>

#include "temper/core/config.h"
#include "temper/core/error.h"
#include "temper/core/rng.h"
#include "temper/version.h"

struct DiceConfig {
  int64_t seed = 1;
  int64_t sides = 6;
  int64_t rolls = 5;
  template <class V>
  void visit(V&& v) {
    v(seed, "seed", "Key of every draw.");
    v(sides, "sides", "Sides of a die, at least 1.");
    v(rolls, "rolls", "How many dice are rolled, at least 0.");
  }
};

int main(int argc, char** argv) {
  try {
    DiceConfig config;
    const auto fields = temper::config_fields(config);
    for (int i = 1; i < argc; ++i) temper::config_set(fields, argv[i]);
    TEMPER_CHECK(config.sides >= 1, "[consumer] sides must be at least 1, got ", config.sides);
    temper::RngStream dice(static_cast<uint64_t>(config.seed), temper::RngPurpose::kTask, 0);
    std::cout << "temper " << TEMPER_VERSION << ":";
    for (int64_t i = 0; i < config.rolls; ++i) {
      std::cout << ' ' << 1 + dice.next_below(static_cast<uint64_t>(config.sides));
    }
    std::cout << '\n';
    return 0;
  } catch (const temper::Error& error) {
    std::cerr << error.what() << "\nSettings (name=value):\n";
    DiceConfig defaults;
    std::cerr << temper::config_help(temper::config_fields(defaults));
    return 1;
  }
}
