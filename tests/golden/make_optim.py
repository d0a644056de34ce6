"""Golden vectors of the optimizer and of learning-rate schedules, from torch and transformers.

Run by hand:  python tests/golden/make_optim.py
Writes tests/golden/optim/:
  adamw.safetensors      <case>/param0/<p>, <case>/grad<step>/<p>, and after each step (1, 2, 3)
                         <case>/param<step>/<p>, <case>/exp_avg<step>/<p>, <case>/exp_avg_sq<step>/<p>
                         for parameters p = matrix [5, 7] and vector [9]
  clip_grad_norm.safetensors  <case>/in/<p>, <case>/out/<p>; the norm is in the manifest
  manifest.json          settings of every case, and the schedules' learning rate at each step
Inputs are numbers drawn here from a fixed seed.
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import (get_constant_schedule, get_constant_schedule_with_warmup,
                          get_cosine_schedule_with_warmup,
                          get_cosine_with_min_lr_schedule_with_warmup,
                          get_linear_schedule_with_warmup)

torch.set_num_threads(1)
OUT = Path(__file__).parent / "optim"
SHAPES = {"matrix": (5, 7), "vector": (9,)}
STEPS = 3


def draw(generator, dtype, scale=1.0):
    values = {k: torch.randn(s, generator=generator, dtype=torch.float32) * scale
              for k, s in SHAPES.items()}
    return {k: v.to(dtype) for k, v in values.items()}


def adamw_case(tensors, name, dtype, settings):
    g = torch.Generator().manual_seed(21)
    start = draw(g, dtype, 0.5)
    params = {k: torch.nn.Parameter(v.clone()) for k, v in start.items()}
    optimizer = torch.optim.AdamW(params.values(), foreach=False, **settings)
    store = lambda kind, step, values: tensors.update(
        {f"{name}/{kind}{step}/{k}": v.detach().clone() for k, v in values.items()})
    store("param", 0, params)
    for step in range(1, STEPS + 1):
        grads = draw(g, dtype, 10.0 ** (1 - 2 * step))  # 0.1, 1e-3, 1e-5
        grads["vector"][0] = 0
        for k, p in params.items():
            p.grad = grads[k].clone()
        optimizer.step()
        store("grad", step, grads)
        store("param", step, params)
        for kind in ("exp_avg", "exp_avg_sq"):
            store(kind, step, {k: optimizer.state[p][kind] for k, p in params.items()})


def write_adamw(manifest):
    base = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    settings = {"no_decay": base, "decay": base | dict(weight_decay=0.1),
                "other_betas": base | dict(lr=1e-2, betas=(0.8, 0.95), eps=1e-6,
                                           weight_decay=0.01)}
    tensors = {}
    for dtype, suffix in ((torch.float32, "f32"), (torch.float64, "f64")):
        for name, s in settings.items():
            adamw_case(tensors, f"{name}_{suffix}", dtype, s)
            manifest["adamw"].append(dict(name=f"{name}_{suffix}", steps=STEPS, **s))
    save_file(tensors, OUT / "adamw.safetensors")


def write_clipping(manifest):
    tensors = {}
    cases = {"clipped": (1.0, 1.0), "far_above": (1e4, 1.0), "below": (1e-3, 1.0),
             "zero": (0.0, 1.0), "other_limit": (0.1, 0.25)}
    for name, (scale, limit) in cases.items():
        grads = draw(torch.Generator().manual_seed(22), torch.float32, scale)
        params = [torch.nn.Parameter(torch.zeros_like(v)) for v in grads.values()]
        for p, v in zip(params, grads.values()):
            p.grad = v.clone()
        norm = torch.nn.utils.clip_grad_norm_(params, limit)
        for p, (k, v) in zip(params, grads.items()):
            tensors[f"{name}/in/{k}"] = v
            tensors[f"{name}/out/{k}"] = p.grad
        manifest["clip_grad_norm"].append(dict(name=name, max_norm=limit, norm=norm.item()))
    save_file(tensors, OUT / "clip_grad_norm.safetensors")


def write_schedules(manifest):
    peak = 2e-4
    def rates(make, total):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
        schedule = make(optimizer)
        values = []
        for _ in range(total + 2):  # two steps beyond the end
            values.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        return values
    for total, warmup in ((20, 0), (20, 5), (7, 3), (1, 0), (10, 10)):
        makers = {
            "constant": (lambda o: get_constant_schedule(o)) if warmup == 0 else
                        (lambda o: get_constant_schedule_with_warmup(o, warmup)),
            "linear": lambda o: get_linear_schedule_with_warmup(o, warmup, total),
            "cosine": lambda o: get_cosine_schedule_with_warmup(o, warmup, total),
            "cosine_with_min_lr": lambda o: get_cosine_with_min_lr_schedule_with_warmup(
                o, warmup, total, min_lr_rate=0.1),
        }
        for shape, make in makers.items():
            manifest["schedules"].append(dict(shape=shape, learning_rate=peak, min_lr_rate=0.1,
                                              warmup_steps=warmup, total_steps=total,
                                              values=rates(make, total)))


def main():
    OUT.mkdir(exist_ok=True)
    manifest = dict(oracle=f"torch {torch.__version__.split('+')[0]}, "
                           f"transformers {transformers.__version__}",
                    callables=["torch.optim.AdamW", "torch.nn.utils.clip_grad_norm_",
                               "transformers.get_{constant,linear,cosine,cosine_with_min_lr}_schedule"],
                    adamw=[], clip_grad_norm=[], schedules=[])
    write_adamw(manifest)
    write_clipping(manifest)
    write_schedules(manifest)
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
