"""Makes tests/golden/reward: what TRL's RewardTrainer does to a tiny model, step by step.

Run by hand, when a case is added:
    python tests/golden/make_reward.py
Needs torch, transformers, trl, datasets, safetensors. The library and its tests never run Python.

trajectory.safetensors holds a run over models/llama in fp32 with a given head, P = 24 pairs in file order,
B = 4 pairs a step, S = 12 steps (two epochs), AdamW at 1e-2 falling linearly, clipping at 1,
centring 0.01:
  in.chosen, in.rejected [.] i64, in.chosen_offsets, in.rejected_offsets [P + 1] i64   ids, pair by pair
  in.margin [P] f32, in.head [32] f32
  out.loss, out.grad_norm, out.learning_rate, out.accuracy, out.margin, out.min_reward, out.mean_reward,
  out.max_reward, out.num_tokens [S] f64
  out.head [32] f32, out.chosen, out.rejected [P] f32     the head and all scores after the last step
  score_only.* the same run with a frozen backbone (out.* but num_tokens)
Sides end with id 2, the model's end token, and are padded with 0, which is in no side: with the end token as
padding transformers would read the score one token earlier.
"""

import pathlib
import tempfile

import datasets
import numpy as np
import safetensors.torch
import tokenizers
import torch
import transformers
import trl

HERE = pathlib.Path(__file__).parent
OUT = HERE / "reward"
PAIRS, STEP, STEPS, VOCAB, EOS, PAD = 24, 4, 12, 64, 2, 0
LOGS = ("accuracy", "margin", "min_reward", "mean_reward", "max_reward", "num_tokens")


def make_pairs(rng):
    rows = []
    for i in range(PAIRS):
        prompt = rng.integers(3, VOCAB, rng.integers(1, 8)).tolist()
        sides = [prompt + rng.integers(3, VOCAB, rng.integers(1, 10)).tolist() + [EOS] for _ in range(2)]
        if i == 5:  # One side is the other's beginning.
            sides[1] = sides[0] + [7, EOS]
        if i == 9:  # Nothing in common.
            sides[1] = [3 + (sides[0][0] - 2) % 60] + sides[1][1:]
        rows.append({"chosen_ids": sides[0], "rejected_ids": sides[1], "margin": float(np.float32(i % 3 * 0.3))})
    return rows


def tokenizer():
    words = {f"w{i}": i for i in range(VOCAB)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w1"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="w0", eos_token="w2")


class Recorder(trl.RewardTrainer):
    """Keeps what each step computes; takes rows in file order."""

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        out = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.kept["loss"].append((out[0] if return_outputs else out).item())
        for name in LOGS:
            self.kept[name].append(self._metrics["train"][name][-1])
        return out


def run(rows, head, frozen):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        HERE / "models/llama", num_labels=1, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        model.score.weight.copy_(head[None])
    if frozen:
        for p in model.model.parameters():
            p.requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        args = trl.RewardConfig(
            output_dir=folder, per_device_train_batch_size=STEP, max_steps=STEPS, learning_rate=1e-2,
            max_grad_norm=1.0, lr_scheduler_type="linear", bf16=False, use_cpu=True,
            center_rewards_coefficient=0.01, logging_steps=1, report_to=[], save_strategy="no", seed=1)
        trainer = Recorder(model=model, args=args, processing_class=tokenizer(),
                           train_dataset=datasets.Dataset.from_list(rows))
        trainer.kept = {name: [] for name in ("loss",) + LOGS}
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(logs) == STEPS
    out = {f"out.{k}": torch.tensor(v, dtype=torch.float64) for k, v in trainer.kept.items()}
    for name in ("grad_norm", "learning_rate"):
        out[f"out.{name}"] = torch.tensor([entry[name] for entry in logs], dtype=torch.float64)
    out["out.head"] = model.score.weight.detach()[0].clone()
    model.eval()
    for side in ("chosen", "rejected"):
        with torch.no_grad():
            scores = [model(torch.tensor([row[side + "_ids"]])).logits[0, 0] for row in rows]
        out[f"out.{side}"] = torch.stack(scores)
    return out


def flat(rows, side):
    ids = [row[side + "_ids"] for row in rows]
    return {f"in.{side}": torch.tensor(sum(ids, [])),
            f"in.{side}_offsets": torch.tensor(np.cumsum([0] + [len(i) for i in ids]))}


def main():
    torch.manual_seed(0)
    rng = np.random.default_rng(20261124)
    rows = make_pairs(rng)
    head = torch.tensor(rng.normal(0, 0.2, 32), dtype=torch.float32)
    tensors = {"in.margin": torch.tensor([row["margin"] for row in rows], dtype=torch.float32), "in.head": head}
    tensors |= flat(rows, "chosen") | flat(rows, "rejected") | run(rows, head, False)
    tensors |= {f"score_only.{k}": v for k, v in run(rows, head, True).items() if "num_tokens" not in k}
    OUT.mkdir(exist_ok=True)
    versions = {m.__name__: m.__version__ for m in (torch, transformers, trl)}
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / "trajectory.safetensors",
                                metadata=versions)
    print(tensors["out.loss"], tensors["out.grad_norm"], tensors["score_only.out.loss"])


if __name__ == "__main__":
    main()
