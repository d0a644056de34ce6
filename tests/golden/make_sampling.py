"""Golden vectors of the sampler's logits processing, from transformers.

Run by hand:  python tests/golden/make_sampling.py
Writes tests/golden/sampling/:
  logits.safetensors     logits [rows, 64] float64 (every value is a float32), and history [rows, 6]
                         int64: the ids that the repetition penalty looks at (with repeats)
  processed.safetensors  <case>/probs [rows, 64]: softmax of the processed logits; 0 = removed
  manifest.json          the settings of each case, applied in the order repetition_penalty,
                         temperature, top_k, top_p, min_p (that of transformers' generate)
Rows: 0-3 random of growing spread; 4 nearly one-hot; 5 all equal; 6 two equal maxima and other ties;
7 large negative values. Ties at a cut are only defined for top_k and min_p (all equal values stay):
cases with top_p carry rows 0-4 and 7 alone; `rows` lists a case's rows.
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers.generation.logits_process import (MinPLogitsWarper, RepetitionPenaltyLogitsProcessor,
                                                    TemperatureLogitsWarper, TopKLogitsWarper,
                                                    TopPLogitsWarper)

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
OUT = Path(__file__).parent / "sampling"
VOCABULARY = 64


def make_logits():
    g = torch.Generator().manual_seed(31)
    logits = torch.randn(8, VOCABULARY, generator=g)
    logits[:4] *= torch.tensor([0.5, 1.0, 1.5, 3.0])[:, None]
    logits[4] = -4.0
    logits[4, 17] = 12.0
    logits[4, 18:22] = torch.tensor([0.5, 0.25, -0.25, -0.5])
    logits[5] = 0.75
    logits[6] = torch.round(logits[6] * 2) / 2
    logits[6, 3] = logits[6, 60] = 4.0
    logits[7] = logits[7] * 2 - 500
    history = torch.randint(0, VOCABULARY, (8, 6), generator=g)
    history[:, 5] = history[:, 0]
    history[4, 1] = 17
    return logits.float().double(), history


def process(logits, history, settings):
    warpers = {"repetition_penalty": RepetitionPenaltyLogitsProcessor,
               "temperature": TemperatureLogitsWarper, "top_k": TopKLogitsWarper,
               "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}
    scores = logits.clone()
    for name, make in warpers.items():
        if name in settings:
            scores = make(settings[name])(history, scores)
    return scores.softmax(-1)


def cases():
    for t in (0.25, 0.7, 1.0, 2.0):
        yield f"temperature_{t}", dict(temperature=t)
    for k in (1, 2, 5, 64, 100):
        yield f"top_k_{k}", dict(top_k=k)
    for p in (0.05, 0.5, 0.9, 0.999):
        yield f"top_p_{p}", dict(top_p=p)
    for p in (0.02, 0.1, 0.5):
        yield f"min_p_{p}", dict(min_p=p)
    for r in (0.8, 1.2, 2.0):
        yield f"repetition_penalty_{r}", dict(repetition_penalty=r)
    yield "temperature_top_k", dict(temperature=0.7, top_k=10)
    yield "temperature_top_p", dict(temperature=1.3, top_p=0.8)
    yield "temperature_min_p", dict(temperature=1.5, min_p=0.1)
    yield "top_k_top_p", dict(top_k=12, top_p=0.7)
    yield "all", dict(repetition_penalty=1.1, temperature=0.9, top_k=20, top_p=0.95, min_p=0.05)


def main():
    OUT.mkdir(exist_ok=True)
    logits, history = make_logits()
    save_file(dict(logits=logits, history=history), OUT / "logits.safetensors")
    tensors, listed = {}, []
    for name, settings in cases():
        rows = [0, 1, 2, 3, 4, 7] if "top_p" in settings else list(range(8))
        tensors[f"{name}/probs"] = process(logits[rows], history[rows], settings)
        listed.append(dict(name=name, rows=rows, **settings))
    save_file(tensors, OUT / "processed.safetensors")
    manifest = dict(oracle=f"transformers {transformers.__version__}, "
                           f"torch {torch.__version__.split('+')[0]}",
                    callables=["transformers.generation.logits_process"], dtype="float64",
                    vocabulary=VOCABULARY, cases=listed)
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
