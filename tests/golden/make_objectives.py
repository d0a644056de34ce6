"""Golden vectors of the rollout losses and advantages, from TRL 1.16.0 on the CPU.

Run by hand:  TRL_EXPERIMENTAL_SILENCE=1 python tests/golden/make_objectives.py
Writes tests/golden/objectives/: data.safetensors (inputs), <loss>.safetensors (one set of outputs a
case), advantages.safetensors, and manifest.json with each case's settings, loss and metrics. The
inputs are numbers drawn here from a fixed seed. Arithmetic is float64, except where TRL itself
casts to float32 (metrics, the entropy threshold, advantages).
"""

import json
import math
import types
from collections import defaultdict
from pathlib import Path

import torch
import transformers
import trl
from safetensors.torch import save_file
from trl import GRPOTrainer, RLOOTrainer

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
OUT = Path(__file__).parent / "objectives"
LOSSES = ["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"]
CLIPPED = LOSSES[:5]
MAX_LENGTH = 16  # max_completion_length, the divisor of dr_grpo


class Accelerator:
    """One process without an accelerator."""

    device = torch.device("cpu")
    num_processes, process_index, is_main_process = 1, 0, True
    sync_gradients, parallelism_config = True, None
    gather = gather_for_metrics = staticmethod(lambda x, **k: x)
    reduce = staticmethod(lambda x, reduction="sum": x)
    pad_across_processes = staticmethod(lambda x, **k: x)
    unwrap_model = staticmethod(lambda m: m)


def grid(x):
    """Values that float32 holds exactly, so that a float32 run sees the same inputs."""
    return torch.round(x * 4096) / 4096


def make_data(seed, spread, per_token=False):
    """Rows: one token; full length; all masked; masked tokens inside; ordinary ones; A = 0."""
    g = torch.Generator().manual_seed(seed)
    rows, width = 8, 12
    length = torch.tensor([1, 12, 5, 9, 7, 12, 3, 8])
    column = torch.arange(width)[None]
    mask = (column < length[:, None]).double()
    inside = mask.clone()
    mask[2] = 0
    mask[3, 2:5] = 0
    old = grid(-3 * torch.rand(rows, width, generator=g) - 0.05)
    shift = grid(spread * torch.randn(rows, width, generator=g))
    shift[1, :4] = torch.tensor([0.75, -0.75, 2.0, 0.0])  # A > 0: beyond both bounds, and a tie
    shift[4, :4] = torch.tensor([0.75, -0.75, 2.0, 0.0])  # A < 0: the same
    shift[5] = grid(0.03 * torch.randn(width, generator=g))
    lp = old + shift
    ref = lp + grid(spread * torch.randn(rows, width, generator=g))
    entropy = grid(2 * torch.rand(rows, width, generator=g) + 0.01)
    entropy[1, 5:8] = entropy[5, 2]  # ties
    advantages = torch.tensor([1.25, 0.75, -1.0, 0.5, -1.5, -0.25, 0.0, 0.875])
    if per_token:
        advantages = grid(torch.randn(rows, width, generator=g))
    # A model with the fused head returns 0 where the label is ignored.
    lp, old, ref, entropy = (x * inside for x in (lp, old, ref, entropy))
    return dict(lp=lp, old=old, ref=ref, entropy=entropy, advantages=advantages, mask=mask,
                length=length)


def loss_trainer(case):
    self = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True), accelerator=Accelerator(),
        _metrics={"train": defaultdict(list)}, aux_loss_enabled=False, use_vllm=False,
        vllm_importance_sampling_correction=False, current_gradient_accumulation_steps=1,
        max_completion_length=MAX_LENGTH, use_adaptive_entropy=False, loss_type=case["loss"],
        importance_sampling_level=case["level"], beta=case["beta"], epsilon_low=case["clip_low"],
        epsilon_high=case["clip_high"], top_entropy_quantile=1 - case["entropy_quantile"],
        off_policy_mask_threshold=case["off_policy"], entropy_coef=case["entropy_coef"],
        _entropy_bonus_enabled=case["entropy_coef"] != 0,
        args=types.SimpleNamespace(
            use_bias_correction_kl=case["bias_correction"], delta=case["delta"],
            steps_per_generation=1, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05,
            vespo_k_pos=2.0, vespo_lambda_pos=3.0, vespo_k_neg=3.0, vespo_lambda_neg=2.0))
    self.get_off_policy_mask = GRPOTrainer.get_off_policy_mask
    self.get_gamma_weights = GRPOTrainer.get_gamma_weights
    self.get_high_entropy_mask = types.MethodType(GRPOTrainer.get_high_entropy_mask, self)
    return self


def run_loss(case, data):
    self = loss_trainer(case)
    lp = data["lp"].clone().requires_grad_()
    entropy = data["entropy"].clone().requires_grad_()
    self._get_per_token_logps_and_entropies = lambda *a, **k: (lp, entropy, None)
    mask = data["mask"].long()
    ids = torch.ones_like(mask)
    inputs = dict(prompt_ids=ids[:, :2], prompt_mask=ids[:, :2], completion_ids=ids,
                  completion_mask=mask, advantages=data["advantages"],
                  num_items_in_batch=mask.sum())
    if case["old"]:
        inputs["old_per_token_logps"] = data["old"]
    if case["beta"] != 0:
        inputs["ref_per_token_logps"] = data["ref"]
    loss = GRPOTrainer._compute_loss(self, self.model, inputs)
    dlp, dentropy = torch.autograd.grad(loss, [lp, entropy], allow_unused=True)
    metrics = {k: v[0] for k, v in self._metrics["train"].items()}
    return loss.item(), dlp, dentropy, metrics


def loss_cases(loss):
    high = 5.0 if loss == "cispo" else 0.2
    base = dict(loss=loss, level="token", old=True, beta=0.0, clip_low=0.2, clip_high=high,
                delta=None, bias_correction=True, entropy_quantile=0.0, off_policy=None,
                entropy_coef=0.0, data="plain")
    for level in ("token", "sequence"):
        for old in (True, False):
            for beta in (0.0, 0.04):
                name = f"{level}_{'old' if old else 'on_policy'}_{'kl' if beta else 'no_kl'}"
                yield name, base | dict(level=level, old=old, beta=beta)
        yield f"{level}_kl_uncorrected", base | dict(level=level, beta=0.04, bias_correction=False)
        yield f"{level}_off_policy", base | dict(level=level, off_policy=0.125, beta=0.04)
        yield f"{level}_wide", base | dict(level=level, data="wide", beta=0.04)
        yield f"{level}_token_advantages", base | dict(level=level, data="token_advantages",
                                                       off_policy=0.125)
        if loss in CLIPPED:
            yield f"{level}_delta", base | dict(level=level, delta=1.5, beta=0.04)
    yield "clip_high", base | dict(clip_high=1.5 if loss == "cispo" else 0.28)
    yield "entropy_mask", base | dict(entropy_quantile=0.6, beta=0.04)
    yield "entropy_bonus", base | dict(entropy_coef=0.01)
    yield "entropy_mask_and_bonus", base | dict(entropy_quantile=0.6, entropy_coef=0.01, beta=0.04)
    yield "everything", base | dict(level="sequence", entropy_quantile=0.35, entropy_coef=0.02,
                                    beta=0.1, off_policy=0.0625,
                                    delta=2.0 if loss in CLIPPED else None)


def entropy_threshold(case, data):
    if case["entropy_quantile"] == 0:
        return None
    active = data["entropy"][data["mask"] > 0].float()
    threshold = torch.quantile(active, case["entropy_quantile"]).item()
    assert (active - threshold).abs().min() > 1e-6, "float32 rounding would decide the mask"
    return threshold


def write_losses(manifest):
    data = {"plain": make_data(1, 0.3), "wide": make_data(2, 4.0),
            "token_advantages": make_data(3, 0.4, per_token=True)}
    save_file({f"{d}/{k}": v for d, x in data.items() for k, v in x.items()},
              OUT / "data.safetensors")
    for loss in LOSSES:
        tensors = {}
        for name, case in loss_cases(loss):
            value, dlp, dentropy, metrics = run_loss(case, data[case["data"]])
            tensors[f"{name}/dlp"] = dlp
            if dentropy is not None:
                tensors[f"{name}/dentropy"] = dentropy
            threshold = entropy_threshold(case, data[case["data"]])
            manifest["losses"].append(case | dict(name=name, file=f"{loss}.safetensors",
                                                  entropy_threshold=threshold, value=value,
                                                  metrics=metrics))
        save_file(tensors, OUT / f"{loss}.safetensors")


def write_quantiles(manifest):
    data = make_data(1, 0.3)
    active = data["entropy"][data["mask"] > 0]
    for q in (0.0, 0.1, 0.25, 0.5, 0.8, 0.9, 1.0):
        threshold = torch.quantile(active, q).item()
        manifest["entropy_thresholds"].append(
            dict(data="plain", quantile=q, threshold=threshold,
                 tokens=int((active >= threshold).sum())))


def score_trainer(rewards, group, weights, scale="group", aggregation="sum_then_normalize"):
    rows, functions = rewards.shape
    ids = [[5, 6, 7]] * rows
    model = torch.nn.Linear(1, 1)
    model.is_gradient_checkpointing = False
    names = [f"f{k}" for k in range(functions)]
    self = types.SimpleNamespace(
        accelerator=Accelerator(), model=model, environment_factories=None, environments=None,
        tools=[], _tokenizer=types.SimpleNamespace(pad_token_id=0, eos_token_id=7),
        eos_token_ids=[7], pad_to_multiple_of=None, mask_truncated_completions=False,
        args=types.SimpleNamespace(per_device_train_batch_size=rows, per_device_eval_batch_size=rows,
                                   steps_per_generation=1, gradient_accumulation_steps=1,
                                   gradient_checkpointing_kwargs=None),
        num_iterations=1, use_vllm=False, beta=0.0, num_generations=group,
        num_generations_eval=group, reward_weights=weights, scale_rewards=scale,
        multi_objective_aggregation=aggregation, reward_funcs=names, reward_func_names=names,
        _logs=dict(prompt=[], completion=[], rewards=defaultdict(list), advantages=[],
                   extra=defaultdict(list), images=[]),
        _metrics={"train": defaultdict(list)}, _pending_extra_logs={}, _pending_metrics={},
        log_multimodal=False, _is_vlm=False)
    self._generate = lambda p: (ids, ids, None, ["x"] * rows, None, {}, None, [])
    self._calculate_rewards = lambda *a: rewards
    return self


def run_advantages(self):
    cls = RLOOTrainer if hasattr(self, "normalize_advantages") else GRPOTrainer
    rows = self.args.per_device_train_batch_size
    out = cls._generate_and_score_completions(self, [{"prompt": "p"}] * rows)
    metrics = {k: v[0] for k, v in self._metrics["train"].items()
               if k.startswith("reward") or k.startswith("frac")}
    return out["advantages"], {k: (None if math.isnan(v) else v) for k, v in metrics.items()}


def rloo_trainer(rewards, group, weights, normalize):
    self = score_trainer(rewards, group, weights)
    rows = rewards.shape[0]
    self.normalize_advantages, self.reward_clip_range, self.ref_model = normalize, None, object()
    ids = [[5, 6, 7]] * rows
    self._generate = lambda p: (ids, ids, ["x"] * rows)
    self._get_per_token_logps_and_entropies = lambda *a, **k: (torch.zeros(rows, 3), None, None)
    return self


def reward_tables():
    """Groups of: ordinary; equal; one NaN; all NaN but one; all NaN; ties of two values."""
    g = torch.Generator().manual_seed(11)
    nan = math.nan
    r = torch.round(torch.rand(24, 1, generator=g) * 64) / 64
    r[4:8] = 0.1
    r[9] = nan
    r[12:15] = nan
    r[16:20] = nan
    r[20:24, 0] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    yield "one_function", r, 4, torch.ones(1)
    yield "hand", torch.tensor([[1.0], [0], [0.5], [2], [2], [1]]), 3, torch.ones(1)
    hand = torch.tensor([[1.0, 0], [0, 1], [0.5, 1], [2, 0.5], [2, 0], [1, 1]])
    yield "hand_two", hand, 3, torch.tensor([1.0, 0.5])
    r = torch.round(torch.randn(24, 3, generator=g) * 64) / 64 * torch.tensor([1.0, 10.0, 0.125])
    r[0:4, 1] = 3.0
    r[4:8] = torch.tensor([1.0, 2.0, 0.5])
    r[8:12, 2] = nan
    r[13, 0] = nan
    r[15] = nan
    r[16:19] = nan
    r[20:24, 1:] = nan
    yield "three_functions", r, 4, torch.tensor([1.0, 0.5, 2.0])
    yield "all_nan", torch.full((8, 2), nan), 4, torch.ones(2)
    yield "all_equal", torch.full((8, 1), 0.7), 4, torch.ones(1)
    yield "group_of_two", torch.tensor([[1.0], [2.0], [0.5], [0.5]]), 2, torch.ones(1)


def write_advantages(manifest):
    tensors = {}
    modes = {"group": ("group", "sum_then_normalize"), "batch": ("batch", "sum_then_normalize"),
             "none": ("none", "sum_then_normalize"), "gdpo": ("group", "normalize_then_sum")}
    for name, rewards, group, weights in reward_tables():
        tensors[f"{name}/rewards"] = rewards
        tensors[f"{name}/weights"] = weights
        for mode, (scale, aggregation) in modes.items():
            self = score_trainer(rewards, group, weights, scale, aggregation)
            tensors[f"{name}/{mode}"], metrics = run_advantages(self)
            manifest["advantages"].append(dict(name=name, estimator=mode, group_size=group,
                                               metrics=metrics))
        for mode in ("rloo", "rloo_normalized"):
            self = rloo_trainer(rewards, group, weights, mode == "rloo_normalized")
            tensors[f"{name}/{mode}"], metrics = run_advantages(self)
            manifest["advantages"].append(dict(name=name, estimator=mode, group_size=group,
                                               metrics=metrics))
    save_file(tensors, OUT / "advantages.safetensors")


def main():
    OUT.mkdir(exist_ok=True)
    manifest = dict(
        oracle=f"trl {trl.__version__}, transformers {transformers.__version__}, "
               f"torch {torch.__version__.split('+')[0]}",
        callables=["GRPOTrainer._compute_loss", "GRPOTrainer._generate_and_score_completions",
                   "RLOOTrainer._generate_and_score_completions", "torch.quantile"],
        dtype="float64", max_completion_tokens=MAX_LENGTH, losses=[], advantages=[],
        entropy_thresholds=[])
    write_losses(manifest)
    write_quantiles(manifest)
    write_advantages(manifest)
    text = ",\n".join(f'"{k}": ' + ("[\n" + ",\n".join(json.dumps(x) for x in v) + "\n]"
                                    if isinstance(v, list) else json.dumps(v))
                      for k, v in manifest.items())
    (OUT / "manifest.json").write_text("{\n" + text + "\n}\n")
    print(len(manifest["losses"]), "loss cases,", len(manifest["advantages"]), "advantage cases")


if __name__ == "__main__":
    main()
