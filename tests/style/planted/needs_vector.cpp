#include "needs_vector.h"
