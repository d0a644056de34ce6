#pragma once

// The only gate to Torch headers. Everything else includes single `ATen/ops/<op>.h` files in its
// own .cpp; nothing includes torch/torch.h.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
