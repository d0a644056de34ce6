"""Makes tests/golden/adapters: PEFT adapters on tests/golden/models, with their logits and gradients.

Run by hand, when a case is added:
    python tests/golden/make_adapters.py
    python tests/golden/make_adapters.py --check FOLDER     PEFT loads what the test wrote into FOLDER
Needs torch, transformers, peft, safetensors. The library and its tests never run Python.

Per case, <case>/ is a folder as PEFT saves it (A and B random, fp32) and <case>/golden.safetensors holds,
with the texts and coefficients of the model's own golden file:
  out.logits [N, V] f32         from fp64 arithmetic
  out.logits_merged [N, V] f32  of PEFT's merged model, from fp32 arithmetic
  out.logprobs [M] f64          of the model's in.rows and in.targets, T = 1
  grad.<name> f32               of every A, B and magnitude, of sum c * logprob + e * entropy, from fp64 arithmetic
scored/ is one with its head, of a sequence-classification model of tests/golden/reward_models: its golden file holds
out.scores [B] f64 and grad.<name> of the loss that the model's own golden file has.
"""

import argparse
import json
import pathlib

import safetensors.torch
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from make_models import flat_logits, keep_double, save, split, statistics

HERE = pathlib.Path(__file__).parent
OUT = HERE / "adapters"

CASES = {
    "lora": ("llama", dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"])),
    "all_linear": ("qwen2", dict(r=3, lora_alpha=4.5, target_modules="all-linear")),
    "rslora": ("qwen3", dict(r=4, lora_alpha=3, use_rslora=True, target_modules=["k_proj", "o_proj", "down_proj"])),
    "patterns": ("llama_tied", dict(
        r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "up_proj", "down_proj"],
        rank_pattern={"down_proj": 5, "layers.1.self_attn.q_proj": 7}, alpha_pattern={"^model.layers.0.mlp.up_proj": 9})),
    "some_layers": ("mistral", dict(r=33, lora_alpha=16, target_modules=r".*\.1\.mlp\.(gate|up)_proj")),
    "dora": ("llama", dict(r=4, lora_alpha=6, use_dora=True, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"])),
    "dora_all": ("qwen2", dict(
        r=3, lora_alpha=4, use_dora=True, use_rslora=True, target_modules="all-linear", rank_pattern={"o_proj": 5})),
}


def load_base(name):
    model = AutoModelForCausalLM.from_pretrained(HERE / "models" / name, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def inputs(name):
    golden = safetensors.torch.load_file(HERE / "models" / name / "golden.safetensors")
    return golden, split(golden["in.ids"], golden["in.offsets"].tolist())


def fill(model, seed):
    """A as PEFT draws it, but from a seed; B of a size that moves every logit."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_" not in name:
            continue
        if "magnitude" in name:
            p.data.mul_(1 + 0.4 * torch.rand(p.shape, generator=generator, dtype=torch.float64).sub(0.5).to(p.dtype))
            continue
        size = p.shape[1] ** -0.5 if "lora_A" in name else 0.3
        p.data.copy_((torch.rand(p.shape, generator=generator, dtype=torch.float64) * 2 - 1) * size)


def make_case(name, seed):
    base, settings = CASES[name]
    model = get_peft_model(load_base(base), LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    fill(model, seed)
    folder = OUT / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base  # Not where it lay.
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "adapter_model.safetensors").chmod(0o644)

    golden, texts = inputs(base)
    double = model.double()
    with keep_double():
        logits = flat_logits(double, texts)
        lp, entropy = statistics(logits, golden["in.rows"], golden["in.targets"], 1.0)
        (golden["in.c"] * lp + golden["in.e"] * entropy).sum().backward()
    tensors = {"out.logits": logits.float(), "out.logprobs": lp}
    for n, p in double.named_parameters():
        if "lora_" in n:
            name = n.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector")
            tensors["grad." + name] = p.grad.float()
    merged = PeftModel.from_pretrained(load_base(base), folder).merge_and_unload()
    tensors["out.logits_merged"] = flat_logits(merged, texts)
    save(folder / "golden.safetensors", tensors)
    plain = flat_logits(load_base(base), texts)
    return {"seed": seed, "base": base, "moves_logits_by": round((logits - plain).std().item(), 3)}


def load_scored():
    return AutoModelForSequenceClassification.from_pretrained(
        HERE / "reward_models/llama", dtype=torch.float32, attn_implementation="eager").eval()


def score(model, golden):
    texts = split(golden["in.ids"], golden["in.offsets"].tolist())
    return torch.stack([model(input_ids=t[None]).logits[0, 0] for t in texts])


def make_scored(seed):
    """An adapter and a head of its own, as PEFT saves them."""
    folder = OUT / "scored"
    model = get_peft_model(load_scored(), LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "up_proj"])).eval()
    fill(model, seed)
    for name, p in model.named_parameters():
        if "score.modules_to_save" in name:
            p.data.add_(0.2 * torch.rand(p.shape, generator=torch.Generator().manual_seed(seed)))
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "llama"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "adapter_model.safetensors").chmod(0o644)
    golden = safetensors.torch.load_file(HERE / "reward_models/llama/golden.safetensors")
    double = model.double()
    with keep_double():
        scores = score(double, golden)
        (golden["in.c"] * scores).sum().backward()
    tensors = {"out.scores": scores.detach()}
    for n, p in double.named_parameters():
        if p.grad is not None:
            tensors["grad." + n.replace(".modules_to_save", "").replace(".default", "")] = p.grad.float()
    save(folder / "golden.safetensors", tensors)


@torch.no_grad()
def check(folder):
    """Folders that PeftCase.WritesWhatItRead wrote with TEMPER_ADAPTER_FOLDER set: ours must give the logits that PEFT's own gave."""
    for name, (base, _) in CASES.items():
        _, texts = inputs(base)
        expected = safetensors.torch.load_file(OUT / name / "golden.safetensors")["out.logits"]
        logits = flat_logits(PeftModel.from_pretrained(load_base(base), folder / name).eval(), texts)
        difference = (logits - expected).abs().max().item()
        print(f"{name}: largest difference {difference:.2e}")
        assert difference < 1e-4
    expected = safetensors.torch.load_file(OUT / "scored" / "golden.safetensors")["out.scores"]
    golden = safetensors.torch.load_file(HERE / "reward_models/llama/golden.safetensors")
    difference = (score(PeftModel.from_pretrained(load_scored(), folder / "scored").eval(), golden) - expected).abs().max().item()
    print(f"scored: largest difference {difference:.2e}")
    assert difference < 1e-4


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
    else:
        OUT.mkdir(exist_ok=True)
        manifest = {name: make_case(name, 70 + i) for i, name in enumerate(CASES)}
        make_scored(80)
        (OUT / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
