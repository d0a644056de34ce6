"""Golden vectors for tests/formats, made by the reference tools, and checks of what Temper writes.

Run by hand, with safetensors, torch, numpy, gguf, tokenizers and transformers installed:

    python tests/golden/make_formats.py                   writes tests/golden/formats/*
    python tests/golden/make_formats.py check FILE        loads a safetensors file that Temper wrote
    python tests/golden/make_formats.py folder DIR GGUF   loads a folder that Temper wrote from GGUF
                                                          (formats_test with TEMPER_EXPORT_FOLDER=DIR)
                                                          and compares it with what transformers
                                                          makes of the same GGUF file
    python tests/golden/make_formats.py train GGUF        trains a small sentencepiece model on this
                                                          file's text and writes it as GGUF and as
                                                          GGUF.model; export it as above with
                                                          TEMPER_EXPORT_MODEL=GGUF, then
    python tests/golden/make_formats.py pieces DIR MODEL  compares the ids of the two
"""

import json
import pathlib
import sys

import numpy as np

OUT = pathlib.Path(__file__).parent / "formats"


def safetensors_file():
    """One tensor of each dtype; every value is a small formula that the test repeats."""
    import torch
    from safetensors.torch import save_file

    ramp = torch.arange(6, dtype=torch.float64)
    tensors = {
        "f64": (ramp * 0.1 - 0.25).reshape(2, 3),
        "f32": (ramp * 0.5 - 1.0).to(torch.float32).reshape(3, 2),
        "f16": (ramp * 0.125 - 0.5).to(torch.float16),
        "bf16": (ramp * 2.0 - 3.0).to(torch.bfloat16).reshape(1, 6),
        "i64": (ramp.to(torch.int64) - 3) * 1000000007,
        "i32": (ramp.to(torch.int32) - 3) * 65537,
        "i16": (ramp.to(torch.int16) - 3) * 257,
        "i8": ramp.to(torch.int8) - 3,
        "u8": ramp.to(torch.uint8) + 250,
        "bool": ramp.to(torch.int64) % 2 == 1,
        "scalar": torch.tensor(7.5, dtype=torch.float32),
        "empty": torch.zeros(0, 4, dtype=torch.float32),
        "sp\u00e9cial \"name\"": torch.tensor([1, 2], dtype=torch.int32),
    }
    save_file(tensors, OUT / "reference.safetensors", metadata={"format": "pt"})


QUANTISED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]


def dequantise_file():
    """Blocks of random bytes (scales finite) and the gguf package's values for them."""
    import gguf
    from safetensors.numpy import save_file

    rng = np.random.default_rng(7)
    halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
              "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
    tensors = {}
    for name in QUANTISED:
        kind = gguf.GGMLQuantizationType[name]
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (1024 // weights, size), dtype=np.uint8)
        for at in halves[name]:
            scale = rng.normal(0, 0.05, len(blocks)).astype(np.float16)
            scale[0] = np.float16(6e-7)  # a subnormal half
            blocks[:, at:at + 2] = scale.view(np.uint8).reshape(-1, 2)
        tensors[name + ".blocks"] = blocks
        tensors[name + ".values"] = gguf.quants.dequantize(blocks, kind).astype(np.float32)
    for name in ["F16", "BF16"]:
        bits = rng.integers(0, 65536, 256, dtype=np.uint16)
        bits = bits[(bits & 0x7c00) != 0x7c00]  # no inf, no NaN in either format
        kind = gguf.GGMLQuantizationType[name]
        tensors[name + ".blocks"] = bits.view(np.uint8)
        tensors[name + ".values"] = gguf.quants.dequantize(bits.view(np.uint8), kind).astype(np.float32)
    save_file(tensors, OUT / "dequantise.safetensors")


def byte_chars():
    """The byte-level alphabet: the character that stands for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    table = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}
    return [table[b] for b in range(256)]


def add_sizes(writer, arch_vocab):
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(arch_vocab)


def tiny_llama():
    """A llama of one layer with rows permuted as converters do, and its plain weights beside it."""
    import gguf
    from safetensors.numpy import save_file

    rng = np.random.default_rng(11)
    tokens = ["<|end|>", "<|user|>", *byte_chars(), "he", "\u0120t", "\u0120the", "[PAD261]"]
    merges = ["h e", "\u0120 t", "\u0120t he"]
    types = [3, 4] + [1] * (len(tokens) - 3) + [5]
    writer = gguf.GGUFWriter(OUT / "tiny_llama.gguf", "llama")
    add_sizes(writer, len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ messages[0].content }}")

    expected = {}

    def tensor(name, hf, shape, kind="F32", heads=0):
        value = rng.normal(0, 0.1, shape).astype(np.float32)
        stored = value
        if heads:
            half = shape[0] // heads // 2
            stored = value.reshape(heads, 2, half, *shape[1:]).swapaxes(1, 2).reshape(shape)
        quant = gguf.GGMLQuantizationType[kind]
        data = gguf.quants.quantize(stored, quant)
        back = gguf.quants.dequantize(data, quant).astype(np.float32).reshape(shape)
        if heads:
            back = back.reshape(heads, half, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        expected[hf] = np.ascontiguousarray(back)
        writer.add_tensor(name, data, raw_dtype=quant)

    block, layer = "blk.0.", "model.layers.0."
    tensor("token_embd.weight", "model.embed_tokens.weight", (len(tokens), 32), "Q8_0")
    tensor("output_norm.weight", "model.norm.weight", (32,))
    tensor(block + "attn_norm.weight", layer + "input_layernorm.weight", (32,))
    tensor(block + "ffn_norm.weight", layer + "post_attention_layernorm.weight", (32,))
    tensor(block + "attn_q.weight", layer + "self_attn.q_proj.weight", (32, 32), "F16", heads=4)
    tensor(block + "attn_q.bias", layer + "self_attn.q_proj.bias", (32,), heads=4)
    tensor(block + "attn_k.weight", layer + "self_attn.k_proj.weight", (16, 32), "Q4_0", heads=2)
    tensor(block + "attn_k.bias", layer + "self_attn.k_proj.bias", (16,), heads=2)
    tensor(block + "attn_v.weight", layer + "self_attn.v_proj.weight", (16, 32), "BF16")
    tensor(block + "attn_v.bias", layer + "self_attn.v_proj.bias", (16,))
    tensor(block + "attn_output.weight", layer + "self_attn.o_proj.weight", (32, 32), "Q5_1")
    tensor(block + "attn_output.bias", layer + "self_attn.o_proj.bias", (32,))
    tensor(block + "ffn_gate.weight", layer + "mlp.gate_proj.weight", (64, 32), "Q4_1")
    tensor(block + "ffn_up.weight", layer + "mlp.up_proj.weight", (64, 32), "Q5_0")
    tensor(block + "ffn_down.weight", layer + "mlp.down_proj.weight", (32, 64), "F32")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, OUT / "tiny_llama.safetensors")


def tiny_sentencepiece():
    """A sentencepiece vocabulary in a GGUF file, and the merges that transformers derives from it."""
    import gguf
    from transformers.convert_slow_tokenizer import generate_merges

    pieces = ["\u2581t", "he", "\u2581the", "er", "in", "\u2581a", "re", "on", "\u2581there", "ther",
              "the", "ere", "\u00e9t", "\u00e9t\u00e9", "\u2581\u2581", "\u2581\u2581\u2581"]
    letters = ["\u2581", *"etaoinshrdlu", "\u00e9"]
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)]]
    scores = [0.0] * len(tokens)
    types = [2, 3, 3] + [6] * 256
    for i, piece in enumerate(pieces + letters):
        tokens.append(piece)
        scores.append(-float(i // 2))  # pairs of equal scores, so that ties are decided too
        types.append(1)
    writer = gguf.GGUFWriter(OUT / "tiny_sentencepiece.gguf", "llama")
    add_sizes(writer, len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 32), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    vocab = {t: i for i, t in enumerate(tokens)}
    merges = generate_merges(vocab, dict(zip(tokens, scores)))
    (OUT / "tiny_sentencepiece.json").write_text(
        json.dumps({"merges": [list(m) for m in merges]}, ensure_ascii=False))


def fuzz_seeds():
    """Small valid files for the fuzz targets to start from."""
    import gguf
    from safetensors.numpy import save_file

    seeds = OUT.parent.parent / "fuzz" / "seeds"
    for name in ["safetensors", "gguf", "hf_config"]:
        (seeds / name).mkdir(parents=True, exist_ok=True)
    save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(3, np.float16)},
              seeds / "safetensors" / "two", metadata={"format": "pt"})
    for model in ["gpt2", "llama"]:
        tokens = ["<e>", "a", "b", "ab"]
        writer = gguf.GGUFWriter(seeds / "gguf" / model, "llama")
        for add in [writer.add_context_length, writer.add_embedding_length,
                    writer.add_feed_forward_length]:
            add(32)
        writer.add_block_count(1)
        writer.add_head_count(2)
        writer.add_rope_freq_base(10000.0)
        writer.add_tokenizer_model(model)
        writer.add_token_list(tokens)
        writer.add_token_types([3, 1, 1, 1])
        writer.add_token_scores([0.0, -1.0, -2.0, -3.0])
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(0)
        writer.add_bos_token_id(0)
        kind = gguf.GGMLQuantizationType[{"gpt2": "Q4_1", "llama": "Q5_0"}[model]]
        data = gguf.quants.quantize(np.ones((4, 32), np.float32), kind)
        writer.add_tensor("token_embd.weight", data, raw_dtype=kind)
        writer.add_tensor("blk.0.attn_q.bias", np.ones(32, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 9,
             "eos_token_id": [1, 2], "bos_token_id": 0}
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    for config in [{"model_type": "llama", "rope_scaling": llama3, "rope_theta": 500000.0},
                   {"model_type": "mistral", "sliding_window": 4},
                   {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1},
                   {"model_type": "qwen3", "head_dim": 4, "rope_parameters": {"rope_theta": 1e6},
                    "layer_types": ["full_attention", "sliding_attention"]}]:
        (seeds / "hf_config" / config["model_type"]).write_text(json.dumps(config | sizes))


def check(path):
    from safetensors.torch import load_file

    for name, tensor in sorted(load_file(path).items()):
        print(name, tensor.dtype, tuple(tensor.shape), tensor.flatten()[:6].tolist())


TEXTS = ["", " ", "Hello world", "  two  spaces ", "tabs\tand\r\n\r\nlines", "12345 and 3.14",
         "caf\u00e9 na\u00efve \u4f60\u597d \U0001f600\u200d\U0001f525", "don't I'LL", "x" * 300,
         "<|im_start|>user\nHi<|im_end|>", "a\u00a0b\u3000c\u0085d", "\u0663\u0664 \u00bd"]


def check_folder(folder, gguf_file):
    """Weights equal to the bit, ids equal, and a greedy completion to look at."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    where = pathlib.Path(gguf_file)
    theirs = AutoModelForCausalLM.from_pretrained(
        where.parent, gguf_file=where.name, dtype=torch.float32)
    reference = AutoTokenizer.from_pretrained(where.parent, gguf_file=where.name)
    # transformers drops the digit splitter that `pre = smollm` means; only numbers outside ASCII tell.
    reference.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    state = theirs.state_dict()
    differing = [n for n, t in ours.state_dict().items() if not torch.equal(t, state[n])]
    print("tensors", len(state), "differing", differing)
    print("config", {k: (v, getattr(theirs.config, k, None))
                     for k, v in ours.config.to_dict().items()
                     if getattr(theirs.config, k, None) != v})
    for text in TEXTS:
        a = tokenizer(text, add_special_tokens=False).input_ids
        b = reference(text, add_special_tokens=False).input_ids
        assert a == b, (text, a, b)
        assert tokenizer.decode(a) == text, (text, tokenizer.decode(a))
    print("token ids agree on", len(TEXTS), "texts; specials", tokenizer.special_tokens_map)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt",
                                        return_dict=True)
    out = ours.generate(**ids, max_new_tokens=24, do_sample=False)
    print(tokenizer.decode(out[0]))


def train_sentencepiece(path):
    import gguf
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        input=__file__, model_prefix=path, model_type="bpe", vocab_size=700, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, minloglevel=2)
    model = sentencepiece.SentencePieceProcessor(model_file=path + ".model")
    ids = range(model.get_piece_size())
    types = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
             for i in ids]
    writer = gguf.GGUFWriter(path, "llama")
    add_sizes(writer, len(ids))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([model.id_to_piece(i) for i in ids])
    writer.add_token_scores([model.get_score(i) for i in ids])
    writer.add_token_types(types)
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())
    writer.add_tensor("token_embd.weight", np.zeros((len(ids), 32), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_pieces(folder, model_file):
    import sentencepiece
    from tokenizers import Tokenizer

    ours = Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    model = sentencepiece.SentencePieceProcessor(model_file=model_file)
    texts = [*TEXTS, *pathlib.Path(__file__).read_text().split("\n\n")]
    # sentencepiece never takes special tokens out of text; tokenizers always does
    texts = [t for t in texts if t and not any(s in t for s in ["<unk>", "<s>", "</s>"])]
    for text in texts:
        a, b = ours.encode(text, add_special_tokens=False).ids, model.encode(text)
        assert a == b, (text, a, b)
        assert ours.decode(a) == text, (text, ours.decode(a))
        assert ours.encode(text).ids[0] == model.bos_id()
    print("token ids agree on", len(texts), "texts")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "check":
        check(sys.argv[2])
    elif len(sys.argv) == 4 and sys.argv[1] == "folder":
        check_folder(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 3 and sys.argv[1] == "train":
        train_sentencepiece(sys.argv[2])
    elif len(sys.argv) == 4 and sys.argv[1] == "pieces":
        check_pieces(sys.argv[2], sys.argv[3])
    else:
        OUT.mkdir(exist_ok=True)
        safetensors_file()
        dequantise_file()
        tiny_llama()
        tiny_sentencepiece()
        fuzz_seeds()
