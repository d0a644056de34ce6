"""Makes tests/golden/models: tiny random models with their outputs and gradients, and outputs of the default model.

Run by hand, when a case is added:
    python tests/golden/make_models.py [--gguf .deps/models/SmolLM2-135M-Instruct.Q4_1.gguf]
Needs torch, transformers, safetensors, gguf. The library and its tests never run Python.

Per family, <family>/ is a folder as transformers saves it (random weights, fp32) and
<family>/golden.safetensors holds, with N = 29 rows, M = 26 rows that have a next token, V = 64:
  in.ids [N] i64, in.offsets [4] i64      three sequences, flat
  in.rows [M] i64, in.targets [M] i64     rows with a next token, and that token
  in.c [M], in.e [M] f64                  coefficients of loss = sum c * logprob + e * entropy (T = 1)
  out.logits [N,V] f32                    from fp64 arithmetic; out.logits_fp32: eager fp32
  out.logprobs, out.entropy [M] f64       T = 1; with suffix _t07: T = 0.7
  out.loss [] f64, grad.<name> f32        gradients of the loss, from fp64 arithmetic
  tree.prompt [7], tree.ids [15], tree.offsets [4]    one prompt, three continuations
  tree.logits.<k> [7 + length, V] f32     logits of prompt + continuation k
  greedy.ids [24] i64                     greedy continuation of tree.prompt
In fp64 arithmetic everything is fp64 but the rotary tables, which the models define in fp32.
"""

import argparse
import contextlib
import json
import pathlib
import shutil

import gguf
import safetensors
import safetensors.torch
import torch
import transformers
from transformers import AutoModelForCausalLM

OUT = pathlib.Path(__file__).parent / "models"
LENGTHS = (11, 1, 17)
TREE_PROMPT = 7
TREE_LENGTHS = (5, 1, 9)
GREEDY = 24
VOCAB = 64

COMMON = dict(
    vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=None)


def rope(theta, **scaling):
    return {"rope_type": "default", "rope_theta": theta, **scaling}


# The llama3 numbers put one frequency below, one inside and two above the interpolated band.
FAMILIES = {
    "llama": ("Llama", dict(tie_word_embeddings=False, rope_parameters=rope(1e4))),
    "llama_tied": ("Llama", dict(tie_word_embeddings=True, rms_norm_eps=1e-5, rope_parameters=rope(1e5))),
    "llama3": ("Llama", dict(tie_word_embeddings=False, rope_parameters=rope(
        100.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32))),
    "mistral": ("Mistral", dict(tie_word_embeddings=False, sliding_window=5, rope_parameters=rope(1e4))),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True, rope_parameters=rope(1e6))),
    "qwen3": ("Qwen3", dict(tie_word_embeddings=False, head_dim=16, rope_parameters=rope(1e6))),
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
    """Weights that make every part count: peaked attention, uneven norms, biases, logits of order 1."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        if "norm" in name:
            value = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif "q_proj" in name or "k_proj" in name:
            value = 0.25 * noise
        else:
            value = noise * 1.2 / p.shape[-1] ** 0.5
        p.data.copy_(value.float())


def split(flat, offsets):
    return [flat[a:b] for a, b in zip(offsets[:-1], offsets[1:])]


def offsets_of(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])


def rows_and_targets(ids, offsets):
    rows = [r for a, b in zip(offsets[:-1], offsets[1:]) for r in range(a, b - 1)]
    rows = torch.tensor(rows)
    return rows, ids[rows + 1]


def flat_logits(model, sequences):
    return torch.cat([model(input_ids=s[None], use_cache=False).logits[0] for s in sequences])


def statistics(logits, rows, targets, temperature):
    lp = (logits[rows] / temperature).log_softmax(-1)
    return lp.gather(-1, targets[:, None])[:, 0], -(lp.exp() * lp).sum(-1)


@torch.no_grad()
def greedy(model, prompt, count):
    ids, margin = prompt.clone(), float("inf")
    for _ in range(count):
        best = model(input_ids=ids[None], use_cache=False).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids = torch.cat([ids, best.indices[:1]])
    return ids[len(prompt):], margin


def save(path, tensors):
    # clone: tensors that share storage (tied weights, views) are refused by the writer.
    safetensors.torch.save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path)
    path.chmod(0o644)
    size = path.stat().st_size
    assert size < 200_000, f"{path} has {size} bytes"


def make_family(name, seed):
    kind, extra = FAMILIES[name]
    config = getattr(transformers, kind + "Config")(**COMMON, **extra)
    config._attn_implementation = "eager"
    model = getattr(transformers, kind + "ForCausalLM")(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    fill(model, generator)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    assert (folder / "model.safetensors").stat().st_size < 200_000

    draw = lambda n: torch.randint(3, VOCAB, (n,), generator=generator)
    offsets, tree_offsets = offsets_of(LENGTHS), offsets_of(TREE_LENGTHS)
    ids, prompt, tree_ids = draw(sum(LENGTHS)), draw(TREE_PROMPT), draw(sum(TREE_LENGTHS))
    rows, targets = rows_and_targets(ids, offsets.tolist())
    c, e = (torch.randn(len(rows), generator=generator, dtype=torch.float64) for _ in range(2))
    logits32 = flat_logits(model, split(ids, offsets)).detach()

    model = model.double()
    with keep_double():
        logits = flat_logits(model, split(ids, offsets))
        lp, entropy = statistics(logits, rows, targets, 1.0)
        lp07, entropy07 = statistics(logits, rows, targets, 0.7)
        loss = (c * lp + e * entropy).sum()
        loss.backward()
        trees = [flat_logits(model, [torch.cat([prompt, t])]) for t in split(tree_ids, tree_offsets)]
        greedy_ids, margin = greedy(model, prompt, GREEDY)
    assert logits.dtype == torch.float64

    tensors = {
        "in.ids": ids, "in.offsets": offsets, "in.rows": rows, "in.targets": targets, "in.c": c, "in.e": e,
        "out.logits": logits.float(), "out.logits_fp32": logits32, "out.loss": loss,
        "out.logprobs": lp, "out.entropy": entropy, "out.logprobs_t07": lp07, "out.entropy_t07": entropy07,
        "tree.prompt": prompt, "tree.ids": tree_ids, "tree.offsets": tree_offsets, "greedy.ids": greedy_ids}
    tensors |= {f"tree.logits.{k}": t.float() for k, t in enumerate(trees)}
    tensors |= {f"grad.{n}": p.grad.float() for n, p in model.named_parameters()}
    save(folder / "golden.safetensors", tensors)
    return {
        "seed": seed, "class": kind + "ForCausalLM", "parameters": sum(p.numel() for p in model.parameters()),
        "logits_std": round(logits.std().item(), 3), "greedy_margin": round(margin, 5),
        "fp32_max_difference": (logits32.double() - logits).abs().max().item()}


# Our own sentences. The chat is written out with the control tokens 1 and 2, around our own messages.
TEXTS = (
    "The river bends twice before it reaches the old mill, and in spring the lower meadow is under water for a week.",
    "Each crate holds 12 jars. 7 crates and 5 loose jars make 89 jars; at 3 coins a jar that is 267 coins.\n",
)
CHAT = (("system", "You answer in one short sentence."), ("user", "Which weighs more, a litre of water or a litre of oil?"))
CHAT_ANSWER = "A litre of water weighs more, because oil is less dense."
PARAMETERS = (
    "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight",
    "model.layers.0.mlp.down_proj.weight", "model.layers.14.self_attn.o_proj.weight",
    "model.layers.14.mlp.gate_proj.weight", "model.layers.14.post_attention_layernorm.weight",
    "model.layers.29.self_attn.k_proj.weight", "model.layers.29.mlp.up_proj.weight", "model.norm.weight")


def encode_chat(tokenizer):
    plain = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = []
    for role, text in CHAT:
        ids += [1, *plain(f"{role}\n{text}"), 2, *plain("\n")]
    ids += [1, *plain("assistant\n")]
    return ids, ids + plain(CHAT_ANSWER) + [2]


def check_weights(model, path):
    """The loader's q and k rows against our own undoing of the file's interleaved order."""
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    config = model.config
    for part, heads in (("q", config.num_attention_heads), ("k", config.num_key_value_heads)):
        t = tensors[f"blk.3.attn_{part}.weight"]
        stored = torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type))
        out, width = stored.shape
        half = out // heads // 2
        undone = stored.reshape(heads, half, 2, width).swapaxes(1, 2).reshape(out, width)
        loaded = model.get_parameter(f"model.layers.3.self_attn.{part}_proj.weight")
        assert torch.equal(loaded, undone), part


def gradient_slices(model, ids, generator):
    """64 elements of some parameters; of the embedding, half of them in rows that the input uses."""
    tensors = {}
    for name in PARAMETERS:
        grad = model.get_parameter(name).grad
        index = torch.randperm(grad.numel(), generator=generator)[:64]
        if name == "model.embed_tokens.weight":
            used = ids.unique()[:32] * grad.shape[1]
            index[:32] = used + torch.randint(0, grad.shape[1], (32,), generator=generator)
        tensors[f"grad_index.{name}"] = index
        tensors[f"grad.{name}"] = grad.flatten()[index].float()
    return tensors


def make_smollm2(path):
    load = dict(gguf_file=path.name, dtype=torch.float32, attn_implementation="eager")
    model = AutoModelForCausalLM.from_pretrained(path.parent, **load).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    check_weights(model, path)
    chat_prompt, chat = encode_chat(tokenizer)
    sequences = [torch.tensor(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in TEXTS]
    sequences.append(torch.tensor(chat))
    chat_prompt = torch.tensor(chat_prompt)
    ids, offsets = torch.cat(sequences), offsets_of([len(s) for s in sequences])
    rows, targets = rows_and_targets(ids, offsets.tolist())
    generator = torch.Generator().manual_seed(7)
    columns = torch.randperm(model.config.vocab_size, generator=generator)[:64].sort().values
    with torch.no_grad():
        logits32 = flat_logits(model, sequences)
    greedy32, _ = greedy(model, chat_prompt, 32)
    plain32, _ = greedy(model, sequences[0][:9], 32)

    model = model.double()
    with keep_double():
        logits = flat_logits(model, sequences)
        lp, entropy = statistics(logits, rows, targets, 1.0)
        loss = lp.mean()
        loss.backward()
        greedy_ids, margin = greedy(model, chat_prompt, 32)
        plain_ids, plain_margin = greedy(model, sequences[0][:9], 32)
    assert torch.equal(greedy_ids, greedy32) and torch.equal(plain_ids, plain32)
    assert lp.mean() > -4.5, lp.mean()  # wrongly ordered q and k rows give about -6 and worse

    top = logits.topk(5)
    tensors = {
        "in.ids": ids, "in.offsets": offsets, "in.rows": rows, "in.targets": targets, "in.columns": columns,
        "out.logits": logits[:, columns].float(), "out.top_ids": top.indices, "out.top_logits": top.values.float(),
        "out.logprobs": lp, "out.entropy": entropy, "out.loss": loss,
        "greedy.prompt": chat_prompt, "greedy.ids": greedy_ids,
        "greedy_plain.prompt": sequences[0][:9], "greedy_plain.ids": plain_ids}
    tensors |= gradient_slices(model, ids, generator)
    save(OUT / "smollm2.safetensors", tensors)
    print(repr(tokenizer.decode(greedy_ids)), repr(tokenizer.decode(plain_ids)))
    return {
        "file": path.name, "texts": [*TEXTS, [*CHAT, ["assistant", CHAT_ANSWER]]], "loss": "mean log-probability of in.targets",
        "mean_logprob": round(loss.item(), 4), "greedy_margins": [round(margin, 5), round(plain_margin, 5)],
        "fp32_max_difference": (logits32.double() - logits).abs().max().item()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=pathlib.Path,
                        default=pathlib.Path(__file__).parents[2] / ".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    manifest = {
        "oracle": {m.__name__: m.__version__ for m in (torch, transformers, safetensors)},
        "families": {name: make_family(name, 100 + k) for k, name in enumerate(FAMILIES)},
        "smollm2": make_smollm2(arguments.gguf),
        "tolerance": {"tiny_logits": 1e-5, "smollm2_logits": 2e-4}}  # about twice the oracle's own fp32 error
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    main()
