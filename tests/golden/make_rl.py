"""Golden vectors of the small kernels around a policy update, from torch and TRL, in float64.

Run by hand:  python tests/golden/make_rl.py
Writes tests/golden/rl/manifest.json:
  kl      logprobs, ref; for k1, k2, k3, abs the values and, by autograd, the slopes in logprobs
  groups  ragged rewards (null: not scored), TRL's nanmean and nanstd of each group, and advantages
          as GRPOTrainer and RLOOTrainer write them
  whiten  x and mask; torch's mean and unbiased variance of the active elements, and both whitenings
Inputs are numbers drawn here from a fixed seed that float32 holds exactly.
"""

import json
from pathlib import Path

import torch
import trl
from trl.trainer.utils import nanstd

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
OUT = Path(__file__).parent / "rl"
NAN = float("nan")


def grid(x):
    return torch.round(x * 4096) / 4096


def plain(x):
    return [None if v != v else v for v in x.tolist()]


def kl_case():
    g = torch.Generator().manual_seed(31)
    ref = grid(-4 * torch.rand(40, generator=g) - 0.01)
    size = torch.cat([torch.full((15,), 0.01), torch.full((15,), 1.0), torch.full((10,), 6.0)])
    shift = grid(size * torch.randn(40, generator=g))
    lp = (ref + shift).requires_grad_()
    d = lp - ref
    out = dict(logprobs=plain(lp.detach()), ref=plain(ref), values={}, slopes={})
    # k3 is TRL's expression: exp(ref - lp) - (ref - lp) - 1.
    for name, v in dict(k1=d, k2=d * d / 2, k3=torch.exp(-d) + d - 1, abs=d.abs()).items():
        out["values"][name] = plain(v.detach())
        out["slopes"][name] = plain(torch.autograd.grad(v.sum(), lp, retain_graph=True)[0])
    return out


def groups_case():
    rewards = [[1, 0, 0.5], [2, 2, 1, 0.25], [0.5, NAN, 0.125, 0.75, NAN], [3, 3], [-1, 0.5],
               [NAN, 4], [0.1, 0.7, 0.2, 0.9, 0.4, 0.3, 0.8, 0.6]]
    out = dict(rewards=[], means=[], stds=[], standardized=[], leave_one_out=[])
    for group in rewards:
        r = torch.tensor(group, dtype=torch.float64)
        mean, std = torch.nanmean(r), nanstd(r)
        n = (~torch.isnan(r)).sum()
        others = (torch.nansum(r) - r) / (n - 1)
        alone = torch.zeros_like(r)
        out["rewards"].append(plain(r))
        out["means"].append(mean.item())
        out["stds"].append(None if torch.isnan(std) else std.item())
        out["standardized"].append(plain(torch.nan_to_num((r - mean) / (std + 1e-4))))
        out["leave_one_out"].append(plain(torch.nan_to_num(r - others) if n > 1 else alone))
    return out


def whiten_case():
    g = torch.Generator().manual_seed(32)
    x = grid(3 * torch.randn(77, generator=g) + 1.5)
    mask = (torch.rand(77, generator=g) < 0.7).long()
    active = x[mask == 1]
    y = (x - active.mean()) * torch.rsqrt(active.var(unbiased=True) + 1e-8)
    return dict(x=plain(x), mask=mask.tolist(), mean=active.mean().item(),
                variance=active.var(unbiased=True).item(), whitened=plain(y * mask),
                whitened_keeping_mean=plain((y + active.mean()) * mask))


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    manifest = dict(torch=torch.__version__, trl=trl.__version__, kl=kl_case(), groups=groups_case(),
                    whiten=whiten_case())
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=None) + "\n")
