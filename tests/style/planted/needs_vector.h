#pragma once

// Not self-contained on purpose: std::vector is named and <vector> is not included.
namespace temper::planted {
std::vector<int> f();
}
