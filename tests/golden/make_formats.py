"""Golden vectors for tests/formats, made by the reference tools.

Run by hand, with safetensors, torch, numpy and gguf installed:

    python tests/golden/make_formats.py             writes tests/golden/formats/*
    python tests/golden/make_formats.py check FILE  loads a safetensors file that Temper wrote
"""

import pathlib
import sys

import numpy as np

OUT = pathlib.Path(__file__).parent / "formats"


def safetensors_file():
    """One tensor of each dtype; every value is a small formula that the test repeats."""
    import torch
    from safetensors.torch import save_file

    ramp = torch.arange(6, dtype=torch.float64)
    tensors = {
        "f64": (ramp * 0.1 - 0.25).reshape(2, 3),
        "f32": (ramp * 0.5 - 1.0).to(torch.float32).reshape(3, 2),
        "f16": (ramp * 0.125 - 0.5).to(torch.float16),
        "bf16": (ramp * 2.0 - 3.0).to(torch.bfloat16).reshape(1, 6),
        "i64": (ramp.to(torch.int64) - 3) * 1000000007,
        "i32": (ramp.to(torch.int32) - 3) * 65537,
        "i16": (ramp.to(torch.int16) - 3) * 257,
        "i8": ramp.to(torch.int8) - 3,
        "u8": ramp.to(torch.uint8) + 250,
        "bool": ramp.to(torch.int64) % 2 == 1,
        "scalar": torch.tensor(7.5, dtype=torch.float32),
        "empty": torch.zeros(0, 4, dtype=torch.float32),
        "sp\u00e9cial \"name\"": torch.tensor([1, 2], dtype=torch.int32),
    }
    save_file(tensors, OUT / "reference.safetensors", metadata={"format": "pt"})


def check(path):
    from safetensors.torch import load_file

    for name, tensor in sorted(load_file(path).items()):
        print(name, tensor.dtype, tuple(tensor.shape), tensor.flatten()[:6].tolist())


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "check":
        check(sys.argv[2])
    else:
        OUT.mkdir(exist_ok=True)
        safetensors_file()
