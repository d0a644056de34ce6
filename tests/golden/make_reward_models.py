"""Makes tests/golden/reward_models: tiny sequence-classification models with their scores and gradients.

Run by hand, when a case is added:
    python tests/golden/make_reward_models.py               writes tests/golden/reward_models/*
    python tests/golden/make_reward_models.py check DIR     loads every folder that Temper wrote below DIR
                                                            (nn_test with TEMPER_EXPORT_FOLDER=DIR)
                                                            and compares the scores with Temper's
Needs torch, transformers, safetensors. The library and its tests never run Python.

Each folder is as transformers saves it (random weights, fp32) and its golden.safetensors holds, with B = 3 texts
of N = 20 tokens in all:
  in.ids [N] i64, in.offsets [4] i64    texts, flat
  in.c [B] f64                          coefficients of loss = sum c * score
  out.values [N] f64                    the head at every token, from fp64 arithmetic
  out.scores [B] f64                    at the last token of each text, from fp64 arithmetic
  out.scores_padded [B] f32             the class's own scores of the padded batch, eager fp32
  grad.<name> f32                       gradients of the loss, from fp64 arithmetic
In fp64 arithmetic everything is fp64 but the rotary tables, which the models define in fp32.
"""

import contextlib
import json
import pathlib
import shutil
import sys

import safetensors.torch
import torch
import transformers
from transformers import AutoModelForSequenceClassification

OUT = pathlib.Path(__file__).parent / "reward_models"
LENGTHS = (8, 1, 11)
VOCAB = 48
PAD = 0

COMMON = dict(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=PAD, num_labels=1,
    rope_parameters={"rope_type": "default", "rope_theta": 1e4})
FAMILIES = {
    "llama": ("Llama", dict(tie_word_embeddings=False)),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3", dict(tie_word_embeddings=False, head_dim=8)),
}


@contextlib.contextmanager
def keep_double():
    """Inside, what the models ask to be done in fp32 (norms, softmax) stays in fp64 for fp64 tensors."""
    to, softmax = torch.Tensor.to, torch.nn.functional.softmax

    def patched_to(self, *args, **kwargs):
        if self.dtype == torch.float64 and (args[:1] == (torch.float32,) or kwargs.get("dtype") == torch.float32):
            return self
        return to(self, *args, **kwargs)

    def patched_softmax(x, dim=None, dtype=None, **kwargs):
        return softmax(x, dim=dim, dtype=torch.float64 if x.dtype == torch.float64 else dtype, **kwargs)

    torch.Tensor.to, torch.nn.functional.softmax = patched_to, patched_softmax
    try:
        yield
    finally:
        torch.Tensor.to, torch.nn.functional.softmax = to, softmax


def fill(model, generator):
    """Weights that make every part count: peaked attention, uneven norms, biases, scores of order 1."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        if "norm" in name:
            value = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif "q_proj" in name or "k_proj" in name:
            value = 0.35 * noise
        else:
            value = noise * 1.2 / p.shape[-1] ** 0.5
        p.data.copy_(value.float())


def padded_scores(model, texts, pad):
    """The class's own scores of one right-padded batch."""
    longest = max(len(t) for t in texts)
    ids = torch.full((len(texts), longest), pad)
    mask = torch.zeros_like(ids)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.as_tensor(text)
        mask[i, : len(text)] = 1
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits[:, 0]


def make_family(name, seed):
    kind, extra = FAMILIES[name]
    config = getattr(transformers, kind + "Config")(**COMMON, **extra)
    config._attn_implementation = "eager"
    model = getattr(transformers, kind + "ForSequenceClassification")(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    fill(model, generator)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)

    texts = [torch.randint(3, VOCAB, (n,), generator=generator) for n in LENGTHS]
    c = torch.randn(len(texts), generator=generator, dtype=torch.float64)
    padded = padded_scores(model, texts, PAD)

    model = model.double()
    with keep_double():
        values = [model.score(model.model(input_ids=t[None], use_cache=False).last_hidden_state[0])[:, 0] for t in texts]
        scores = torch.stack([v[-1] for v in values])
        (c * scores).sum().backward()
    assert scores.dtype == torch.float64
    difference = (padded.double() - scores).abs().max().item()
    assert difference < 1e-5, difference
    tensors = {
        "in.ids": torch.cat(texts), "in.offsets": torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()]), "in.c": c,
        "out.values": torch.cat(values), "out.scores": scores, "out.scores_padded": padded}
    tensors |= {f"grad.{n}": p.grad.float() for n, p in model.named_parameters()}
    path = folder / "golden.safetensors"
    safetensors.torch.save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path)
    path.chmod(0o644)
    assert sum(f.stat().st_size for f in folder.iterdir()) < 100_000
    return {
        "seed": seed, "class": kind + "ForSequenceClassification", "parameters": sum(p.numel() for p in model.parameters()),
        "scores": [round(s, 4) for s in scores.tolist()], "fp32_max_difference": difference}


def check(below):
    """Folders with scores.json {"texts": [[id]], "scores": [float]} beside their model."""
    folders = sorted(p.parent for p in pathlib.Path(below).glob("*/scores.json"))
    assert folders, f"no exported folder below {below}"
    for folder in folders:
        expected = json.loads((folder / "scores.json").read_text())
        model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").float().eval()
        pad = model.config.pad_token_id
        assert model.config.num_labels == 1 and pad is not None
        ends = model.config.eos_token_id
        assert pad not in (ends if isinstance(ends, list) else [ends]), (pad, ends)
        if (folder / "tokenizer.json").exists():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            assert tokenizer.pad_token_id == pad, (tokenizer.pad_token, pad)
        got = padded_scores(model, expected["texts"], pad).double()
        wanted = torch.tensor(expected["scores"], dtype=torch.float64)
        difference = ((got - wanted).abs() / (1 + wanted.abs())).max().item()
        print(folder.name, type(model).__name__, "pad", pad, "largest difference", difference)
        assert difference < (1e-5 if len(expected["texts"][0]) < 40 else 1e-4), difference


def main():
    torch.set_num_threads(1)
    if len(sys.argv) == 3 and sys.argv[1] == "check":
        return check(sys.argv[2])
    torch.manual_seed(0)
    OUT.mkdir(exist_ok=True)
    manifest = {
        "oracle": {m.__name__: m.__version__ for m in (torch, transformers, safetensors)},
        "families": {name: make_family(name, 300 + k) for k, name in enumerate(FAMILIES)}}
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(json.dumps(manifest, indent=1))


main()
