"""A peer's side of benchmarks/compare_logprob: one forward and backward of the LM head for each line
of standard input. Usage: logprob_peer.py FOLDER eager|liger|trl float32|bfloat16 ROWS VOCABULARY WIDTH

The loss is that of logprob_round.cpp: a policy gradient at ratio exp(logprob - old), a k3 penalty of
0.04 and, except for Liger, which has none, an entropy bonus of 0.001."""

import json
import os
import sys
import time

import numpy as np
import torch

folder, peer, dtype_name = sys.argv[1:4]
rows, vocabulary, width = map(int, sys.argv[4:7])
dtype = getattr(torch, dtype_name)
torch.set_num_threads(len(os.sched_getaffinity(0)))


def load(name, kind, *shape):
    return torch.from_numpy(np.fromfile(f"{folder}/{name}", dtype=kind).reshape(shape))


hidden = load("hidden.f32", np.float32, rows, width).to(dtype).requires_grad_()
weight = load("weight.f32", np.float32, vocabulary, width).to(dtype).requires_grad_()
ids = load("ids.i32", np.int32, rows).long()
old = load("old.f32", np.float32, rows)
ref = load("ref.f32", np.float32, rows)
advantage = load("advantage.f32", np.float32, rows)


def loss_of(logprob, entropy):
    d = ref - logprob
    token = -(logprob - old).exp() * advantage + 0.04 * (d.exp() - d - 1) - 0.001 * entropy
    return token.mean()


def eager():
    logits = (hidden @ weight.t()).float()
    log_sum = logits.logsumexp(-1)
    logprob = logits.gather(1, ids[:, None])[:, 0] - log_sum
    entropy = log_sum - ((logits - log_sum[:, None]).exp() * logits).sum(-1)
    return logprob, loss_of(logprob, entropy)


def trl():
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    out = ChunkedLogProbFunction.apply(
        hidden, weight, None, ids, 1.0, 32768, None, 1.0, ("log_probs", "entropy")
    )
    return out[0], loss_of(out[0], out[1])


def liger():
    """Advantages are per sequence there, as they are in the inputs: eight sequences."""
    from liger_kernel.chunked_loss.grpo_loss import LigerFusedLinearGRPOLoss

    fused = LigerFusedLinearGRPOLoss(
        beta=0.04, compiled=False, use_ref_model=True, temperature=1.0
    )
    shape = (8, rows // 8)
    loss = fused(
        hidden.view(*shape, width),
        weight,
        ids.view(shape),
        torch.ones(shape),
        advantage.view(shape)[:, 0].contiguous(),
        None,
        ref.view(shape),
        old.view(shape),
    )[0]
    return None, loss


def run():
    hidden.grad = weight.grad = None
    logprob, loss = {"eager": eager, "trl": trl, "liger": liger}[peer]()
    loss.backward()
    return logprob


def status_kb(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field + ":"))


def reply(**values):
    print(json.dumps(values), flush=True)


(hidden[:64] @ weight.t()[:, :64]).sum().backward()  # Threads and libraries are up before the base.
hidden.grad = weight.grad = None
with open("/proc/self/clear_refs", "w") as refs:
    refs.write("5")
base = status_kb("VmRSS")
logprob = run()
# Beyond the gradients themselves, which the other side holds beforehand.
gradients = (hidden.grad.nbytes + weight.grad.nbytes) / 1e6
reply(extra_mb=round((status_kb("VmHWM") - base) * 1024 / 1e6 - gradients, 1))
for line in sys.stdin:
    if line.strip() == "save":
        if logprob is not None:
            logprob.detach().float().numpy().tofile(f"{folder}/{peer}.logprob.f32")
        hidden.grad.float().numpy().tofile(f"{folder}/{peer}.dhidden.f32")
        weight.grad.float().numpy().tofile(f"{folder}/{peer}.dweight.f32")
        reply()
    else:
        start = time.perf_counter()
        logprob = run()
        reply(s=time.perf_counter() - start)
