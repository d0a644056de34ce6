"""Golden vectors of the losses over given answers, from TRL on the CPU.

Run by hand:  TRL_EXPERIMENTAL_SILENCE=1 python tests/golden/make_preference.py OLD
TRL 1.16.0 must be installed; OLD is the unpacked folder `trl` of the wheel of TRL 0.29.0, the last
kind of release that has BCO, XPO and Nash-MD (functions of it are read from their files, as the two
cannot be imported together).

Writes tests/golden/preference/: data.safetensors (inputs), <method>.safetensors (gradients of the
loss with respect to each log-prob, a case each) and manifest.json with each case's settings, loss
and metrics. The trainers' own methods run on stubs that hand them log-probs; the inputs are numbers
drawn here from a fixed seed. Everything is float64 unless a case says otherwise.

Rows of pairs stand as they do in Temper: the preferred answer of pair j at 2 j, the other at 2 j + 1.
"""

import ast
import json
import math
import sys
import types
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
import trl
from safetensors.torch import save_file
from trl import DPOTrainer, KTOTrainer, SFTTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
torch.Tensor.float = torch.Tensor.double  # Some losses and metrics would narrow what they get.
OUT = Path(__file__).parent / "preference"
OLD = Path(sys.argv[1])
PAIRS, PROMPT, WIDTH = 6, 4, 10  # Prompt targets and answer tokens of a row.
LOSSES = ["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
          "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"]
DIVERGENT = ["sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"]
SMOOTHED = {"exo_pair": 1e-3, "robust": 0.1, "aot": 0.1, "aot_unpaired": 0.1}


class Accelerator:
    """One process without an accelerator."""

    device = torch.device("cpu")
    num_processes, process_index, is_main_process = 1, 0, True
    sync_gradients, parallelism_config, use_distributed = True, None, False
    gather = gather_for_metrics = staticmethod(lambda x, **k: x)
    reduce = staticmethod(lambda x, reduction="sum": x)
    unwrap_model = staticmethod(lambda m: m)


def grid(x):
    """Values that float32 holds exactly, so that a float32 run sees the same inputs."""
    return torch.round(x * 4096) / 4096


def make_data():
    """Pairs: one token against many; full length; a fully masked side; masked tokens inside; equal
    answers (a tie); far from the reference on both sides."""
    g = torch.Generator().manual_seed(20)
    rows = 2 * PAIRS
    length = torch.tensor([1, 7, 10, 10, 4, 6, 8, 9, 5, 5, 10, 3])
    column = torch.arange(WIDTH)[None]
    inside = (column < length[:, None]).double()
    mask = inside.clone()
    mask[5] = 0
    mask[6, 2:5] = 0
    mask[7, 0] = 0
    lp = grid(-2.5 * torch.rand(rows, WIDTH, generator=g) - 0.03)
    ref = grid(lp - 0.4 * torch.randn(rows, WIDTH, generator=g)).clamp(max=-1 / 64)
    ref[10] = lp[10] - 2.5
    ref[11] = (lp[11] + 1.5).clamp(max=-1 / 64)
    lp[9], ref[9] = lp[8], ref[8]
    q2 = grid(-1.5 * torch.rand(rows, WIDTH, generator=g) - 0.01)  # log sum_v p(v)^2
    prompt_length = torch.tensor([1, 4, 2, 3, 0, 4]).repeat_interleave(2)
    prompt = grid(-3 * torch.rand(PAIRS, PROMPT, generator=g) - 0.02).repeat_interleave(2, 0)
    inside_prompt = (torch.arange(PROMPT)[None] < prompt_length[:, None]).double()
    # For losses whose peer divides by an answer's own length, which must not be 0 then.
    some = mask.clone()
    some[5, 0] = 1
    data = dict(lp=lp * inside, ref=ref * inside, q2=q2 * inside, mask=mask, some=some, length=length,
                prompt=prompt * inside_prompt, prompt_length=prompt_length,
                label=torch.tensor([1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1]).double(),
                probability=grid(torch.rand(rows, generator=g)),
                kl=grid(0.3 + 0.5 * torch.randn(rows, generator=g)))
    return data


DATA = make_data()


def halves(x):
    """Our order of rows to TRL's: all preferred answers, then all others."""
    return torch.cat([x[0::2], x[1::2]])


def interleave(x):
    return torch.stack(x.chunk(2), 1).flatten(0, 1)


def stub(**fields):
    model = torch.nn.Module()
    model.is_gradient_checkpointing = False
    return types.SimpleNamespace(accelerator=Accelerator(), model=model,
                                 _metrics={"train": defaultdict(list)}, aux_loss_enabled=False,
                                 _total_train_tokens=0, _tp_size=1, **fields)


def fused(lp, mask, q2=None):
    """What a model with the fused head returns: zeros where a token does not count."""
    zero = torch.zeros_like(lp)
    return FusedCausalLMOutput(log_probs=lp * mask, entropy=zero,
                               log_sum_sq_probs=zero if q2 is None else q2 * mask,
                               mean_logits=zero, is_top1=mask.bool(), label_mask=mask.bool())


def answer_inputs(mask):
    """Ids with one token before the answer, so that shifted columns are the answer's."""
    full = torch.cat([torch.zeros(len(mask), 1), mask], 1).long()
    return dict(input_ids=full + 1, attention_mask=torch.ones_like(full), completion_mask=full)


KEPT = ("rewards/", "logps/", "nll_loss", "log_odds", "kl", "delta", "loss/")


def metrics_of(values):
    read = lambda v: float(v[-1] if isinstance(v, list) else v)
    return {k: read(v) for k, v in values.items() if k.startswith(KEPT)}


def dpo(case):
    dtype = torch.float32 if case.get("dtype") == "float32" else torch.float64
    lp, ref, q2, mask = (halves(DATA[k]).to(dtype) for k in ("lp", "ref", "q2", "mask"))
    lp.requires_grad_(True)
    types_ = case["loss_type"]
    self = stub(ld_alpha=case.get("ld_alpha"), precompute_ref_logps=False,
                f_divergence_type=case.get("f_divergence", "reverse_kl"),
                f_alpha_divergence_coef=case.get("f_alpha", 0.5), loss_types=types_,
                loss_weights=case.get("loss_weights") or [1.0] * len(types_),
                beta=case.get("beta", 0.1), label_smoothing=case.get("label_smoothing", 0.0),
                use_weighting=case.get("use_weighting", False),
                args=types.SimpleNamespace(discopop_tau=case.get("discopop_tau", 0.05),
                                           gradient_checkpointing_kwargs=None),
                ref_model=lambda **k: fused(ref, mask))
    loss = DPOTrainer._compute_loss(self, lambda **k: fused(lp, mask, q2), answer_inputs(mask),
                                    False)
    loss.backward()
    return loss, interleave(lp.grad), metrics_of(self._metrics["train"])


def kto(case):
    rows = torch.tensor(case["rows"])
    lp, ref, mask, label, kl = (DATA[k][rows] for k in ("lp", "ref", "mask", "label", "kl"))
    lp = lp.clone().requires_grad_(True)
    kl = kl + case.get("kl_shift", 0.0)
    policy, reference = (lambda **k: fused(lp, mask)), (lambda **k: fused(ref, mask))
    self = stub(precompute_ref_logps=False, calculate_KL=case["loss_type"] == "kto",
                loss_type=case["loss_type"], beta=case["beta"], ref_model=reference,
                desirable_weight=case["desirable_weight"],
                undesirable_weight=case["undesirable_weight"],
                args=types.SimpleNamespace(gradient_checkpointing_kwargs=None))
    self._compute_kl_logps = lambda model, batch: kl if model is policy else torch.zeros_like(kl)
    inputs = answer_inputs(mask) | {"label": label.bool()}
    loss = KTOTrainer._compute_loss(self, policy, inputs, False)
    loss.backward()
    metrics = metrics_of(self._metrics["train"])
    case["baseline"] = metrics["kl"]
    return loss, lp.grad, metrics


def sft(case):
    lp, mask = DATA["lp"].clone().requires_grad_(True), DATA["mask"]
    self = stub(compute_loss_func=None, label_smoother=None, get_tp_size=lambda: 1,
                args=types.SimpleNamespace(loss_type=case["loss_type"], max_length=None,
                                           average_tokens_across_devices=True),
                current_gradient_accumulation_steps=1)
    inputs = {k: v for k, v in answer_inputs(mask).items() if k != "completion_mask"}
    loss = SFTTrainer.compute_loss(self, lambda **k: fused(lp, mask), inputs,
                                   num_items_in_batch=mask.sum())
    loss.backward()
    return loss, lp.grad, {}


def two_logits(lp):
    """Logits over two words whose first has log-prob lp, and whose slope by lp is that of lp."""
    return torch.stack([lp, torch.log(-torch.expm1(lp))], -1)


def with_logits(trainer, self):
    """Runs a trainer's get_batch_loss_metrics on full logits: prompt and answer of each row."""
    lp = DATA["lp"].clone().requires_grad_(True)
    prompt = DATA["prompt"].clone().requires_grad_(True)
    mask, rows = DATA["some"], 2 * PAIRS
    tokens = torch.cat([prompt, lp], 1)
    in_prompt = (torch.arange(PROMPT)[None] < DATA["prompt_length"][:, None]).double()
    counted = torch.cat([in_prompt, mask], 1)
    z = two_logits(torch.where(counted.bool(), tokens, torch.tensor(-1.0)))
    z = torch.cat([z, torch.zeros(rows, 1, 2)], 1)  # The last column predicts nothing.
    first = torch.ones(rows, 1)
    attention = torch.cat([first, counted], 1).long()
    labels = torch.cat([first * -100, in_prompt * 0 - 100, torch.where(mask.bool(), 0.0, -100.0)],
                       1).long()
    batch = {}
    for i, side in enumerate(("chosen", "rejected")):
        batch[f"{side}_input_ids"] = torch.zeros_like(attention)[i::2]
        batch[f"{side}_attention_mask"] = attention[i::2]
        batch[f"{side}_labels"] = labels[i::2]
    self.is_encoder_decoder, self.pad_token_id, self.padding_value = False, 0, 0
    for name in ("concatenated_inputs", "get_batch_logps"):
        setattr(self, name, getattr(trainer, name))
    for name in ("concatenated_forward", "cpo_loss", "odds_ratio_loss"):
        if hasattr(trainer, name):
            setattr(self, name, types.MethodType(getattr(trainer, name), self))
    model = lambda *a, **k: types.SimpleNamespace(logits=halves(z))
    loss, metrics = trainer.get_batch_loss_metrics(self, model, batch)
    loss.backward()
    grad = torch.zeros_like(prompt) if prompt.grad is None else prompt.grad
    return loss, lp.grad, metrics_of(metrics), grad


def cpo(case):
    kind = case["loss_type"]
    # TRL's __init__ turns alphapo into simpo without the likelihood.
    alpha_po = kind == "alphapo"
    self = stub(loss_type="simpo" if alpha_po else kind, alpha=case.get("alpha", 0.0),
                cpo_alpha=0.0 if alpha_po else case.get("cpo_alpha", 1.0),
                beta=case.get("beta", 0.1), simpo_gamma=case.get("simpo_gamma", 0.5),
                label_smoothing=case.get("label_smoothing", 0.0))
    return with_logits(CPOTrainer, self)[:3]


def orpo(case):
    return with_logits(ORPOTrainer, stub(beta=case["beta"]))


def old_function(path, owner, name, extra=None):
    """A method of a class in a file of the older release, as a plain function."""
    tree = ast.parse((OLD / path).read_text())
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner).body
    node = next(n for n in body if isinstance(n, ast.FunctionDef) and n.name == name)
    scope = {"torch": torch, "F": F, **(extra or {})}
    exec(compile(ast.Module([node], []), path, "exec"), scope)
    return scope[name]


def bco(case):
    loss_of = old_function("experimental/bco/bco_trainer.py", "BCOTrainer", "bco_loss")
    lp = DATA["lp"].clone().requires_grad_(True)
    logps, ref = (lp * DATA["mask"]).sum(1), (DATA["ref"] * DATA["mask"]).sum(1)
    good = DATA["label"].bool()
    self = types.SimpleNamespace(beta=case["beta"], match_underlying_distribution=False,
                                 running=types.SimpleNamespace(mean=case["baseline"]))
    losses, *_ = loss_of(self, logps[good], logps[~good], ref[good], ref[~good], None, None, False)
    loss = losses.nanmean()
    loss.backward()
    return loss, lp.grad, {}


def xpo(case):
    loss_of = old_function("experimental/xpo/xpo_trainer.py", "XPOTrainer", "_compute_losses")
    lp, ref, mask = DATA["lp"].clone().requires_grad_(True), DATA["ref"], DATA["mask"]
    own = torch.tensor(case["policy_chosen"])  # Of each pair: the policy's answer is preferred.
    pick = lambda x, first: torch.where(first[:, None], x[0::2], x[1::2])
    model, reference = lp * mask, ref * mask
    self = types.SimpleNamespace(beta=case["beta"], alpha=case["alpha"],
                                 args=types.SimpleNamespace(loss_type=case["loss_type"]))
    loss, dpo_losses, xpo_losses = loss_of(self, pick(model, own), pick(model, ~own),
                                           pick(reference, ~own), pick(reference, own), own)
    loss.backward()
    return loss, lp.grad, {"loss/dpo": dpo_losses.mean().item(), "loss/xpo": xpo_losses.mean().item()}


def nash_md(case):
    loss_of = old_function("experimental/nash_md/nash_md_trainer.py", "NashMDTrainer",
                           "_compute_losses")
    lp, ref, mask = DATA["lp"].clone().requires_grad_(True), DATA["ref"], DATA["mask"]
    self = types.SimpleNamespace(beta=case["beta"])
    loss, score, kl = loss_of(self, lp * mask, ref * mask, DATA["probability"])
    loss.backward()
    return loss, lp.grad, {"loss/score": score.mean().item(), "loss/kl": kl.mean().item(),
                           "rewards/probabilities": DATA["probability"].mean().item()}


def dpo_cases():
    for name in LOSSES:
        smoothing = {"label_smoothing": SMOOTHED[name]} if name in SMOOTHED else {}
        yield dict(loss_type=[name], **smoothing)
        yield dict(loss_type=[name], beta=0.5, **smoothing)
        if name not in ("aot", "aot_unpaired"):
            yield dict(loss_type=[name], ld_alpha=0.5, **smoothing)
        # TRL weighs pairs in place, where autograd still needs hinge's value.
        if name not in ("aot", "aot_unpaired", "sft", "hinge"):
            yield dict(loss_type=[name], use_weighting=True, **smoothing)
    for name in ("aot", "aot_unpaired"):
        yield dict(loss_type=[name])
    for name in DIVERGENT:
        smoothing = {"label_smoothing": SMOOTHED[name]} if name in SMOOTHED else {}
        for divergence in ("forward_kl", "js_divergence"):
            yield dict(loss_type=[name], f_divergence=divergence, **smoothing)
        # TRL's table of clamps has no float64.
        yield dict(loss_type=[name], f_divergence="alpha_divergence", f_alpha=0.5, dtype="float32",
                   **smoothing)
    yield dict(loss_type=["sigmoid"], f_divergence="alpha_divergence", f_alpha=1.0)
    yield dict(loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0])
    yield dict(loss_type=["sigmoid", "sft"])
    yield dict(loss_type=["robust", "aot"], loss_weights=[0.25, 2.0], label_smoothing=0.1)
    yield dict(loss_type=["discopop"], discopop_tau=2.0)


def cases():
    for case in dpo_cases():
        yield "dpo", case
    every = list(range(2 * PAIRS))
    good = [i for i in every if DATA["label"][i] == 1]
    for kind in ("kto", "apo_zero_unpaired"):
        base = dict(loss_type=kind, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0)
        yield "kto", base | dict(rows=every)
        yield "kto", base | dict(rows=every, desirable_weight=1.25, undesirable_weight=0.5)
        yield "kto", base | dict(rows=every, beta=0.5, kl_shift=-2.0)  # Below 0: held there.
        yield "kto", base | dict(rows=good)
        yield "kto", base | dict(rows=[i for i in every if i not in good])
    for kind in ("nll", "dft"):
        yield "sft", dict(loss_type=kind)
    yield "cpo", dict(loss_type="sigmoid")
    yield "cpo", dict(loss_type="sigmoid", cpo_alpha=0.25, label_smoothing=0.1, beta=0.3)
    yield "cpo", dict(loss_type="hinge")
    yield "cpo", dict(loss_type="ipo", beta=0.5)
    yield "cpo", dict(loss_type="simpo", beta=2.0, simpo_gamma=1.0, cpo_alpha=0.0)
    yield "cpo", dict(loss_type="simpo", beta=2.0, label_smoothing=0.2)
    yield "cpo", dict(loss_type="alphapo", beta=2.0, alpha=0.25)
    yield "cpo", dict(loss_type="alphapo", beta=2.0, alpha=-0.5, simpo_gamma=0.1)
    for beta in (0.1, 1.0):
        yield "orpo", dict(beta=beta)
    for delta in (0.0, 0.375, -1.5):
        yield "bco", dict(beta=0.1, baseline=delta)
    choice = [True, False, True, True, False, False]
    for kind in ("sigmoid", "ipo"):
        yield "xpo", dict(loss_type=kind, beta=0.1, alpha=1e-5, policy_chosen=choice)
        yield "xpo", dict(loss_type=kind, beta=0.5, alpha=0.03, policy_chosen=choice)
    for beta in (0.1, 0.0, 1.0):
        yield "nash_md", dict(beta=beta)


def main():
    OUT.mkdir(exist_ok=True)
    run = dict(dpo=dpo, kto=kto, sft=sft, cpo=cpo, orpo=orpo, bco=bco, xpo=xpo, nash_md=nash_md)
    files, lines = defaultdict(dict), []
    for method, case in cases():
        loss, grad, metrics, *prompt = run[method](case)
        name = f"case{len(files[method])}"
        assert math.isfinite(loss.item()), (method, case)
        assert not torch.isnan(grad).any(), (method, case)
        files[method][name] = grad.double().contiguous()
        if prompt:
            files["orpo_prompt"][name] = prompt[0].contiguous()
        lines.append(json.dumps(dict(method=method, name=name, **case, value=loss.item(),
                                     metrics=metrics)))
    for method, tensors in files.items():
        save_file(tensors, OUT / f"{method}.safetensors")
    save_file({k: v.contiguous() for k, v in DATA.items()}, OUT / "data.safetensors")
    head = dict(oracle=f"trl {trl.__version__}, transformers {transformers.__version__}, "
                       f"torch {torch.__version__.split('+')[0]}; bco, xpo, nash_md: trl 0.29.0",
                dtype="float64")
    body = ",\n".join(lines)
    (OUT / "manifest.json").write_text(json.dumps(head, indent=0)[:-2] + ',\n"cases": [\n' + body +
                                       "\n]\n}\n")
    print(len(lines), "cases")


main()
