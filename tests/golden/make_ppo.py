"""Golden vectors of PPO's parts, from verl 0.9.1, torchtune 0.6.1 and TRL 1.16.0 on the CPU.

Run by hand:  pip install --no-deps --target peers verl==0.9.1 torchtune==0.6.1
              TRL_EXPERIMENTAL_SILENCE=1 PYTHONPATH=peers python tests/golden/make_ppo.py
Writes tests/golden/ppo/: data.safetensors (inputs and outputs, by case) and manifest.json (each
case's oracle and settings, and scalar outputs). Inputs are drawn here from a fixed seed and are
exact in float32; arithmetic is float64. verl and torchtune are loaded file by file, with stand-ins
for what those files import and never call here. What no peer has (bootstrap values, two lambdas,
TRL's phantom step) comes from `explicit_gae` below, which writes the recursion as a double sum.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import torch
import trl
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from make_objectives import rloo_trainer, run_advantages  # noqa: E402

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
OUT = Path(__file__).parent / "ppo"
PEERS = next(Path(p) for p in sys.path if (Path(p) / "verl/trainer/ppo/core_algos.py").exists())


def stand_in(name, **attributes):
    module = sys.modules.setdefault(name, types.ModuleType(name))
    module.__path__ = []
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, PEERS / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_peers():
    nothing = type("Nothing", (), {})
    stand_in("omegaconf", DictConfig=nothing)
    stand_in("tensordict", TensorDict=nothing)
    stand_in("verl")
    stand_in("verl.utils", as_torch_index=None, group_mean_std=None)
    stand_in("verl.utils.device", get_device_name=None, get_torch_device=None)
    stand_in("verl.utils.import_utils", deprecated=lambda text: lambda f: f)
    stand_in("verl.trainer")
    stand_in("verl.trainer.config", AlgoConfig=type("AlgoConfig", (), {}))
    stand_in("verl.workers")
    stand_in("verl.workers.config", ActorConfig=nothing)
    sys.modules["verl.utils"].torch_functional = load("verl.utils.torch_functional",
                                                      "verl/utils/torch_functional.py")
    core = load("core_algos", "verl/trainer/ppo/core_algos.py")
    rewards = load("tune_rewards", "torchtune/rlhf/rewards.py")
    stand_in("torchtune", rlhf=rewards)
    return core, rewards, load("tune_loss", "torchtune/rlhf/loss/ppo.py")


def grid(x):
    """Values that float32 holds exactly."""
    return torch.round(x * 4096) / 4096


def make_data(seed, ragged):
    """Six rows in groups of two. `ragged`: masked tokens inside, a fully masked row."""
    g = torch.Generator().manual_seed(seed)
    rows, width = 6, 10
    length = torch.tensor([1, 10, 6, 4, 10, 7])
    mask = (torch.arange(width)[None] < length[:, None]).double()
    inside = mask.clone()
    if ragged:
        mask[1, 3:6] = 0
        mask[2] = 0
        mask[4, 0] = 0
        mask[5, 6] = 0
    draw = lambda *shape: torch.randn(*shape, generator=g)
    old = grid(-2 * torch.rand(rows, width, generator=g) - 0.05)
    shift = grid(0.4 * draw(rows, width))
    shift[1, :3] = torch.tensor([0.75, -0.75, 0.0])
    shift[3, :3] = torch.tensor([2.0, -0.75, 1.25])
    data = dict(old=old, ref=old + grid(0.3 * draw(rows, width)), lp=old + shift,
                values=grid(draw(rows, width)), new_values=grid(draw(rows, width)),
                returns=grid(draw(rows, width)), advantages=grid(draw(rows, width)))
    data["advantages"][4, 2] = 0
    data = {k: v * inside for k, v in data.items()}
    return data | dict(mask=mask, length=length, scores=grid(draw(rows)),
                       bootstrap=grid(draw(rows)), greedy=grid(draw(rows // 2)),
                       truncated=torch.tensor([0.0, 1, 0, 0, 1, 1]))


def last_active(mask):
    index = torch.arange(mask.shape[1])
    return torch.where(mask > 0, index, -1).amax(1)


def shaped(core, d, kl_coef, scores):
    """Rewards per token: the KL by the peer, the score put at the last active token."""
    at_end = torch.zeros_like(d["mask"])
    for row, last in enumerate(last_active(d["mask"])):
        if last >= 0:
            at_end[row, last] = scores[row]
    return core.compute_rewards(at_end, d["old"], d["ref"], kl_coef) * d["mask"]


def explicit_gae(d, rewards, values, mask, gamma, lam, behind):
    """A_t = sum_k (gamma lam_i)^k delta_{t+k} over a row's active steps; `behind` [rows] is V after
    the last. `lam` is a number or a function of the number of active steps."""
    out = torch.zeros_like(rewards)
    for i in range(rewards.shape[0]):
        steps = [t for t in range(rewards.shape[1]) if mask[i, t] > 0]
        rate = lam(len(steps)) if callable(lam) else lam
        v = [values[i, t].item() for t in steps] + [behind[i].item()]
        delta = [rewards[i, t].item() + gamma * v[k + 1] - v[k] for k, t in enumerate(steps)]
        for k, t in enumerate(steps):
            out[i, t] = sum((gamma * rate) ** (j - k) * delta[j] for j in range(k, len(delta)))
    return out


def whiten(x, mask, shift=True):
    active = x[mask > 0]
    y = (x - active.mean()) / torch.sqrt(active.var() + 1e-8) + (0 if shift else active.mean())
    return y * mask


class Cases:
    def __init__(self):
        self.tensors, self.rows = {}, []

    def add(self, kind, oracle, data, settings, tensors, **scalars):
        name = f"case{len(self.rows)}"
        for key, value in tensors.items():
            self.tensors[f"{name}/{key}"] = value.detach().clone().contiguous()
        self.rows.append(dict(name=name, kind=kind, oracle=oracle, data=data, settings=settings,
                              scalars=scalars))


def peer_advantages(cases, core, tune, name, d):
    for gamma, lam, kl in ((1.0, 0.95, 0.1), (0.9, 0.5, 0.0), (1.0, 1.0, 0.05), (0.99, 0.0, 0.2)):
        r = shaped(core, d, kl, d["scores"])
        a, returns = core.compute_gae_advantage_return(r, d["values"], d["mask"], gamma, lam)
        cases.add("gae", "verl compute_gae_advantage_return", name,
                  dict(gamma=gamma, kl_coef=kl, **{"lambda": lam}),
                  dict(advantages=a * d["mask"], returns=returns * d["mask"]))
        config = types.SimpleNamespace(gamma=gamma)
        a, _ = core.compute_reinforce_plus_plus_outcome_advantage(r, d["mask"], config=config)
        cases.add("reinforce_pp", "verl compute_reinforce_plus_plus_outcome_advantage", name,
                  dict(gamma=gamma, kl_coef=kl), dict(advantages=a))
        baselines = d["greedy"].repeat_interleave(2)
        a, _ = core.compute_remax_outcome_advantage(r, baselines, d["mask"])
        cases.add("remax", "verl compute_remax_outcome_advantage", name, dict(kl_coef=kl),
                  dict(advantages=a * d["mask"]))
    if name == "ragged":  # verl counts a row without tokens, whose reward it cannot see, as 0
        return
    r = shaped(core, d, 0.0, d["scores"])
    a, _ = core.compute_reinforce_plus_plus_baseline_outcome_advantage(
        r, d["mask"], [i // 2 for i in range(6)])
    cases.add("reinforce_pp_baseline",
              "verl compute_reinforce_plus_plus_baseline_outcome_advantage", name,
              dict(kl_coef=0.0), dict(advantages=a))
    total, _, _ = tune.get_rewards_ppo(d["scores"], d["old"], d["ref"], 0.1, d["length"] - 1)
    a, returns = tune.estimate_advantages(d["values"], total, 0.98, 0.9)
    raw = returns - d["values"]
    a = tune.whiten(raw, d["mask"], shift_mean=False) * d["mask"]
    cases.add("gae", "torchtune get_rewards_ppo, estimate_advantages, whiten", name,
              dict(gamma=0.98, kl_coef=0.1, **{"lambda": 0.9}), dict(advantages=a, returns=returns))


def explicit_advantages(cases, core, name, d):
    """Settings that no peer has, on rewards with a KL of 0.1."""
    none = torch.zeros(6)
    cut = d["truncated"] * d["bootstrap"]
    r = shaped(core, d, 0.1, d["scores"])

    def add(settings, advantages, returns):
        cases.add("gae", "explicit double sum", name, dict(kl_coef=0.1) | settings,
                  dict(advantages=advantages * d["mask"], returns=returns * d["mask"]))

    run = lambda rewards, gamma, lam, behind: explicit_gae(d, rewards, d["values"], d["mask"],
                                                           gamma, lam, behind)
    a = run(r, 0.97, 0.9, cut)
    add(dict(bootstrap_truncated=True, whiten=False, gamma=0.97, **{"lambda": 0.9}), a,
        a + d["values"])
    a, target = run(r, 1.0, 0.8, none), run(r, 1.0, 1.0, none)
    add(dict(lambda_value=1.0, **{"lambda": 0.8}), whiten(a, d["mask"]), target + d["values"])
    a = run(r, 1.0, lambda n: max(0.0, 1 - 1 / (0.3 * n)) if n else 0.0, none)
    add(dict(length_adaptive_alpha=0.3, lambda_value=1.0, whiten=False), a, target + d["values"])
    a = run(whiten(r, d["mask"], shift=False), 1.0, 0.95, none)
    add(dict(reward_whiten=True, **{"lambda": 0.95}), whiten(a, d["mask"]), a + d["values"])
    scores = (d["scores"] - 0.5 * d["truncated"]).clamp(-0.75, 0.75)
    a = run(shaped(core, d, 0.1, scores), 1.0, 0.95, none)
    add(dict(missing_eos_penalty=0.5, reward_clip=0.75, **{"lambda": 0.95}), whiten(a, d["mask"]),
        a + d["values"])
    kl = core.kl_penalty(d["old"], d["ref"], "k3")
    a = run((shaped(core, d, 0.0, d["scores"]) - 0.1 * kl) * d["mask"], 1.0, 0.95, none)
    add(dict(kl_estimator="k3", **{"lambda": 0.95}), whiten(a, d["mask"]), a + d["values"])


def phantom_advantages(cases, core, name, d, reward_whiten):
    """The score one column behind the last token, where that column exists."""
    width = d["mask"].shape[1]
    mask, values = d["mask"].clone(), d["values"].clone()
    rewards = core.compute_rewards(torch.zeros_like(mask), d["old"], d["ref"], 0.1) * mask
    for row, n in enumerate(d["length"].tolist()):
        slot = min(n, width - 1)
        rewards[row, slot] += d["scores"][row]
        if slot == n:
            mask[row, slot], values[row, slot] = 1, d["bootstrap"][row]
    if reward_whiten:
        rewards = whiten(rewards, mask, shift=False)
    a = explicit_gae(d, rewards, values, mask, 1.0, 0.95, torch.zeros(6))
    cases.add("gae", "explicit double sum", name,
              dict(trl_compat=True, reward_whiten=reward_whiten, kl_coef=0.1, **{"lambda": 0.95}),
              dict(advantages=whiten(a * d["mask"], d["mask"]),
                   returns=(a + values) * d["mask"]))


def losses(cases, core, tune_loss, name, d):
    for low, high, c in ((0.2, 0.2, 1e9), (0.2, 0.28, 3.0), (0.1, 0.3, 1.5)):
        lp = d["lp"].clone().requires_grad_(True)
        config = types.SimpleNamespace(clip_ratio=low, clip_ratio_low=low, clip_ratio_high=high,
                                       global_batch_info={}, get=lambda key, default: c)
        loss, metrics = core.compute_policy_loss_vanilla(d["old"], lp, d["advantages"], d["mask"],
                                                         config=config)
        loss.backward()
        cases.add("policy", "verl compute_policy_loss_vanilla", name,
                  dict(clip_low=low, clip_high=high, dual_clip=c), dict(dlp=lp.grad),
                  loss=loss.item(), **metrics)
    for clip in (0.2, 0.5, 1e9):
        v = d["new_values"].clone().requires_grad_(True)
        loss, clipfrac = core.compute_value_loss(v, d["returns"], d["values"], d["mask"], clip)
        loss.backward()
        cases.add("value", "verl compute_value_loss", name, dict(clip=clip), dict(dvalues=v.grad),
                  loss=loss.item(), **{"critic/vf_clipfrac": clipfrac.item()})
    lp = d["lp"].clone().requires_grad_(True)
    v = d["new_values"].clone().requires_grad_(True)
    loss, pg, vf, _, clipfrac = tune_loss.PPOLoss(0.2, 0.3, 0.5)(
        d["old"], lp, d["advantages"], d["values"], v, d["returns"], d["mask"], d["mask"])
    loss.backward()
    cases.add("both", "torchtune PPOLoss", name,
              dict(clip_low=0.2, clip_high=0.2, clip=0.3, coef=0.5),
              dict(dlp=lp.grad, dvalues=v.grad), loss=loss.item(),
              **{"loss/policy_avg": pg.item(), "loss/value_avg": vf.item(),
                 "policy/clipfrac_avg": clipfrac.item()})


def rloo(cases, name, d):
    """TRL's trainer with its own KL in the reward; it has no masked tokens inside a row."""
    for beta in (0.05, 0.5):
        for normalize in (False, True):
            self = rloo_trainer(d["scores"].float()[:, None], 2, torch.ones(1), normalize)
            self.beta = beta
            ids = [[5] * (n - 1) + [7] for n in d["length"].tolist()]
            self._generate = lambda p: (ids, ids, ["x"] * 6)
            answers = iter((d["old"].float(), d["ref"].float()))
            self._get_per_token_logps_and_entropies = lambda *a, **k: (next(answers), None, None)
            a, metrics = run_advantages(self)
            cases.add("rloo_normalized" if normalize else "rloo",
                      "RLOOTrainer._generate_and_score_completions", name, dict(kl_coef=beta),
                      dict(rows=a.double()),
                      **{k: metrics[k] for k in ("reward", "reward_std", "frac_reward_zero_std")})


def controllers(core):
    control = core.AdaptiveKLController(0.2, 6.0, 10000)
    trace = []
    for kl, n in ((12.0, 64), (6.0, 64), (3.0, 64), (6.5, 512), (5.9, 2048), (-1.0, 100)):
        control.update(kl, n)
        trace.append(dict(kl=kl, sequences=n, coef=float(control.value)))
    return trace


def main():
    OUT.mkdir(exist_ok=True)
    core, tune, tune_loss = load_peers()
    cases = Cases()
    inputs = {}
    for name, seed, ragged in (("plain", 3, False), ("ragged", 4, True)):
        d = make_data(seed, ragged)
        for key, value in d.items():
            inputs[f"{name}/{key}"] = value.contiguous()
        peer_advantages(cases, core, tune, name, d)
        explicit_advantages(cases, core, name, d)
        losses(cases, core, tune_loss, name, d)
        if not ragged:
            phantom_advantages(cases, core, name, d, False)
            phantom_advantages(cases, core, name, d, True)
            rloo(cases, name, d)
    save_file(inputs | cases.tensors, OUT / "data.safetensors")
    head = dict(oracle=f"verl 0.9.1, torchtune 0.6.1, trl {trl.__version__}, "
                       f"torch {torch.__version__.split('+')[0]}", dtype="float64")
    lists = dict(cases=cases.rows, adaptive_kl=controllers(core))
    text = ",\n".join([f'"{k}": {json.dumps(v)}' for k, v in head.items()] +
                      [f'"{k}": [\n' + ",\n".join(json.dumps(x) for x in v) + "\n]"
                       for k, v in lists.items()])
    (OUT / "manifest.json").write_text("{\n" + text + "\n}\n")
    print(len(cases.rows), "cases")


if __name__ == "__main__":
    main()
