#include "temper/objective/advantage.h"
#include <gtest/gtest.h>
