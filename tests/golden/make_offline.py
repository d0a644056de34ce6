"""Makes tests/golden/offline: what TRL's SFT, DPO and KTO trainers do to a tiny model, step by step.

Run by hand, when a case is added:
    python tests/golden/make_offline.py
    python tests/golden/make_offline.py --model FOLDER --rows FILE.jsonl --out FILE.json [--method dpo]
The second form follows a real model over text rows for 50 steps in fp32, to compare with the metrics.jsonl of
`temper train METHOD` over the same rows (offline.shuffle=false, trainer.weights=float32, schedule.shape=linear).
Needs torch, transformers, trl, datasets, safetensors. The library and its tests never run Python.

trajectory.safetensors holds runs over models/llama in fp32, P = 24 rows in file order, B = 4 rows a step, S = 50
steps, AdamW at 1e-3 falling linearly, clipping at 1:
  in.prompt, in.chosen, in.rejected [.] i64, in.*_offsets [P + 1] i64   ids, row by row; prompt of its own
  sft.*, dpo.*, kto.*: loss, grad_norm [S] f64; sft.* and dpo.* also mean_token_accuracy; dpo.* also rewards/{chosen,rejected,accuracies,margins}, logps/{...}
SFT learns the chosen answers. KTO reads the chosen answer of even rows as desirable and the rejected one of odd
rows as undesirable.
"""

import argparse
import json
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
OUT = HERE / "offline"
ROWS, STEP, STEPS, VOCAB, EOS = 24, 4, 50, 64, 2
COMMON = dict(per_device_train_batch_size=STEP, max_steps=STEPS, max_grad_norm=1.0, lr_scheduler_type="linear", bf16=False,
              use_cpu=True, logging_steps=1, report_to=[], save_strategy="no", seed=1, gradient_checkpointing=False)
LOGGED = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected",
          "kl", "entropy", "mean_token_accuracy")


def make_rows(rng):
    rows = []
    for _ in range(ROWS):
        prompt = rng.integers(3, VOCAB, rng.integers(2, 8)).tolist()
        sides = [rng.integers(3, VOCAB, rng.integers(1, 10)).tolist() + [EOS] for _ in range(2)]
        rows.append({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]})
    return rows


def words(ids):
    return " ".join(f"w{i}" for i in ids)


def tokenizer():
    # No name is part of another: the end token is looked for anywhere in a text.
    vocabulary = {{0: "<pad>", EOS: "</s>"}.get(i, f"w{i}"): i for i in range(VOCAB)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w1"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>")


def in_file_order(trainer_class):
    class Ordered(trainer_class):
        def _get_train_sampler(self, *args, **kwargs):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    return Ordered


def run(method, model, rows, processing, rate):
    kinds = {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig),
             "kto": (trl.KTOTrainer, trl.KTOConfig)}
    trainer_class, config_class = kinds[method]
    with tempfile.TemporaryDirectory() as folder:
        args = config_class(output_dir=folder, learning_rate=rate, **COMMON)
        trainer = in_file_order(trainer_class)(model=model, args=args, processing_class=processing,
                                               train_dataset=datasets.Dataset.from_list(rows))
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(logs) == STEPS
    names = ("loss", "grad_norm") + tuple(n for n in LOGGED if n in logs[0])
    return {name: [float(entry.get(name, "nan")) for entry in logs] for name in names}


def rows_for(method, rows):
    if method == "sft":
        return [{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows]
    if method == "dpo":
        return rows
    return [{"prompt": r["prompt"], "completion": r["rejected" if i % 2 else "chosen"], "label": i % 2 == 0}
            for i, r in enumerate(rows)]


def tiny():
    rng = np.random.default_rng(20261125)
    rows = make_rows(rng)
    # The end token is appended by the trainers; a prompt keeps a space behind it, so that words stay words.
    text = [{"prompt": words(r["prompt"]) + " ", "chosen": words(r["chosen"][:-1]), "rejected": words(r["rejected"][:-1])}
            for r in rows]
    tensors = {}
    for part in ("prompt", "chosen", "rejected"):
        ids = [r[part] for r in rows]
        tensors[f"in.{part}"] = torch.tensor(sum(ids, []))
        tensors[f"in.{part}_offsets"] = torch.tensor(np.cumsum([0] + [len(i) for i in ids]))
    for method in ("sft", "dpo", "kto"):
        model = transformers.AutoModelForCausalLM.from_pretrained(HERE / "models/llama", dtype=torch.float32,
                                                                  attn_implementation="eager")
        found = run(method, model, rows_for(method, text), tokenizer(), 1e-3)
        tensors |= {f"{method}.{name}": torch.tensor(v, dtype=torch.float64) for name, v in found.items()}
        print(method, found["loss"][:3], found["loss"][-1], found["grad_norm"][-1], list(found))
    OUT.mkdir(exist_ok=True)
    versions = {m.__name__: m.__version__ for m in (torch, transformers, trl)}
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / "trajectory.safetensors",
                                metadata=versions)


def real(args):
    rows = [json.loads(line) for line in open(args.rows, encoding="utf-8")]
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    found = run(args.method, model, rows_for(args.method, rows), transformers.AutoTokenizer.from_pretrained(args.model), 1e-5)
    pathlib.Path(args.out).write_text(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--rows")
    parser.add_argument("--out")
    parser.add_argument("--method", default="dpo", choices=["sft", "dpo", "kto"])
    args = parser.parse_args()
    torch.manual_seed(0)
    real(args) if args.model else tiny()


if __name__ == "__main__":
    main()
