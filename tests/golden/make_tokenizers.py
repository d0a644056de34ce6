"""Makes tests/golden/tokenizers/ from tokenizers 0.23 and sentencepiece 0.2. Run by hand:

    python tests/golden/make_tokenizers.py [tokenizer.json of the default model]

Writes
    strings_N.txt    the test strings, a line each: hexadecimal bytes, with `*n` repeated n times
    FAMILY.json      a small tokenizer of ours with the settings of a model family
    FAMILY.model     the same for sentencepiece
    FAMILY.ids.txt   what it gives: first the hash of every string, then lines of full answers
The texts that the tokenizers are trained on are words of random letters, made here. Of the default
model only ids and hashes of our own strings are written, and only if its file is given.

A hash is FNV-1a (64 bits) over: ids of the plain text, each as 4 bytes, then FF FF FF FF; ids with
special tokens taken from the text and added around it, then FF FF FF FF; the text of these ids
with special tokens left out, FF; with them shown, FF. A full answer is the four, after the
string's number. `-` in place of a hash: the two best segmentations score the same, and versions of
sentencepiece choose differently.
"""

import io
import json
import pathlib
import random
import re
import sys

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).parent / "tokenizers"
STRINGS = 5200
FULL = 150  # strings with full answers
SPACE = "\u2581"

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# Blocks of code points: most scripts, marks, symbols, planes above the first, and letters and digits
# that Unicode added lately.
BLOCKS = [
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2AF), (0x300, 0x36F), (0x370, 0x3FF),
    (0x400, 0x4FF), (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x700, 0x74F), (0x900, 0x97F),
    (0x980, 0x9FF), (0xA00, 0xA7F), (0xB80, 0xBFF), (0xC00, 0xC7F), (0xE00, 0xE7F), (0xE80, 0xEFF),
    (0xF00, 0xFFF), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F),
    (0x13A0, 0x13FF), (0x1680, 0x169F), (0x1780, 0x17FF), (0x1800, 0x18AF), (0x1E00, 0x1EFF),
    (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x209F), (0x20A0, 0x20CF), (0x20D0, 0x20FF),
    (0x2100, 0x218F), (0x2190, 0x21FF), (0x2200, 0x22FF), (0x2460, 0x24FF), (0x2500, 0x257F),
    (0x2600, 0x26FF), (0x2E80, 0x2FDF), (0x3000, 0x303F), (0x3040, 0x30FF), (0x3130, 0x318F),
    (0x3200, 0x33FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFB4F),
    (0xFB50, 0xFDFF), (0xFE00, 0xFE0F), (0xFE20, 0xFEFF), (0xFF00, 0xFFEF), (0x10400, 0x1044F),
    (0x10D40, 0x10D8F), (0x11F00, 0x11F5A), (0x1D400, 0x1D7FF), (0x1E4D0, 0x1E4F9),
    (0x1F000, 0x1F02F), (0x1F300, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F900, 0x1F9FF),
    (0x20000, 0x2A6DF), (0x31350, 0x323AF), (0xE0100, 0xE01EF)]

# What rules speak of: contractions, spaces of all kinds, digits of other scripts, composed and
# decomposed letters, emoji with joiners, and the text of special tokens.
BITS = [
    "'s", "'S", "'t", "'re", "'VE", "'ll", "'\u017f", "'d", "n't", " ", "  ", "   ", "\t", "\n", "\r\n",
    "\r\n\r\n", "\n\n\n", "\u0085", "\u00a0", "\u3000", "\u180e", "\u200b", "\u200d", "\u2028", "\u2003",
    "\u202f", "\ufeff", "\u00ad", "0", "12", "345", "6789", "\u0663\u0664", "\u0967", "\uff11\uff12",
    "\u00b2", "\u00bd", "\u2167", "\u4e00\u4e8c", "e\u0301", "\u00e9", "o\u0302\u0323", "\u1ed9",
    "\u1112\u1161\u11ab", "\ud55c", "\u212b", "\u2126", "\u212a", "\ufb01",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd",
    "\U0001f1eb\U0001f1f7", "\u2764\ufe0f", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>",
    "</s>", "[INST]", "[/INST]", "<|eot_id|>", "<|begin_of_text|>", "<tool_call>", "<unk>", "<pad>",
    "<bos>", "<eos>", "<mask>", "<0x41>", "<0xE2>", "day", "Day", "monday", "\u24d0", SPACE, SPACE * 2,
    "a", "the", " the", " and", "ing", "Hello", "World", "don't", "I'M", "foo_bar", "x=1;", "{}", "()",
    "//", "...", "!?", "--", "\x00", "\x01", "\x7f", "\ufffd", "\ufffe", "\U0010ffff", "\u0130", "\u00df",
    "\u1e9e", "\u03a3\u03c2"]

LONG = [(b"a", 100_000), (b" ", 100_000), (b"\n", 20_000), (b"ab", 50_000), ("\u00e9".encode(), 30_000),
        (b"the cat sat on the mat. ", 5_000), (b"0", 10_000), ("e\u0301".encode(), 5_000),
        ("\u0301".encode(), 3_000), ("\u0323\u0301".encode(), 3_000), (b"\xff", 1_000),
        ("\U0001f44d".encode(), 3_000), (b" x", 30_000), (b"<s>", 2_000), (b"<|im_end|>", 2_000)]


def character(rng):
    return chr(rng.randint(*rng.choice(BLOCKS)))


def random_string(rng):
    length = rng.choice([1, 2, 3, 5, 8, 13])
    kind = rng.randrange(10)
    if kind < 4:
        return "".join(rng.choice(BITS) for _ in range(length)).encode()
    if kind < 6:
        low, high = rng.choice(BLOCKS)
        return "".join(" " if rng.random() < 0.2 else chr(rng.randint(low, high))
                       for _ in range(2 * length)).encode()
    mixed = "".join(rng.choice(BITS) if rng.random() < 0.5 else character(rng) for _ in range(length))
    data = bytearray(mixed.encode())
    if kind == 8:  # damaged UTF-8
        for _ in range(1 + length // 4):
            at = rng.randrange(len(data)) if data else 0
            data[at:at + 1] = b"" if rng.random() < 0.5 else bytes([rng.randrange(256)])
    if kind == 9:
        return bytes(rng.randrange(256) for _ in range(length))
    return bytes(data)


def make_strings():
    """(bytes, repeat) pairs."""
    rng = random.Random(20)
    strings = [(b"", 1)] + [(b.encode(), 1) for b in BITS]
    strings += [(f"{a}{b}".encode(), 1) for a in ("a", " ", "\n", "'") for b in BITS]
    strings += LONG
    while len(strings) < STRINGS:
        strings.append((random_string(rng), 1))
    return strings


def write_strings(strings):
    lines = [s.hex() + (f"*{n}" if n != 1 else "") for s, n in strings]
    half = len(lines) // 2
    (OUT / "strings_0.txt").write_text("\n".join(lines[:half]) + "\n")
    (OUT / "strings_1.txt").write_text("\n".join(lines[half:]) + "\n")


def training_text():
    """Lines of words; a word's letters come from one script, its frequency falls with its rank."""
    rng = random.Random(21)
    scripts = [(0x61, 0x7A)] * 12 + [(0x41, 0x5A), (0xE0, 0xFC), (0x3B1, 0x3C9), (0x430, 0x44F),
                                      (0x5D0, 0x5EA), (0x627, 0x64A), (0x905, 0x939), (0xE01, 0xE2E),
                                      (0x3042, 0x3093), (0x4E00, 0x4E40), (0xAC00, 0xAC40),
                                      (0x1F600, 0x1F620)]
    weights = [rng.random() ** 3 for _ in range(26)]
    words = []
    for _ in range(900):
        low, high = rng.choice(scripts)
        if (low, high) == (0x61, 0x7A):
            word = "".join(rng.choices("etaoinshrdlucmfwypvbgkjqxz", sorted(weights)[::-1],
                                       k=rng.randint(1, 8)))
        else:
            word = "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 5)))
        words.append(word)
    words[3:3] = ["the", "and", "Hello", "World", "the cat", "I'm", "don't", "it's", "12", "2024"]
    lines = []
    for _ in range(3000):
        line = ""
        for _ in range(rng.randint(1, 12)):
            word = words[min(len(words) - 1, int(rng.paretovariate(0.7)) - 1)]
            line += word + rng.choice([" "] * 14 + ["  ", ", ", ".\n", "\n\n", "\t", "; ", "!", " = "])
        lines.append(line)
    return lines


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern) if len(pattern) > 1 else pattern, behavior, invert)


def byte_level(add_prefix_space=False, use_regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def special(*names, **flags):
    return [AddedToken(n, special=True, normalized=False, **flags) for n in names]


def template(bos, tokenizer, eos=None):
    names = [n for n in (bos, eos) if n]
    single = f"{bos} $A" + (f" {eos}" if eos else "")
    return processors.TemplateProcessing(single=single, pair=single + " $B:1",
                                         special_tokens=[(n, tokenizer.token_to_id(n)) for n in names])


def train(pre_tokenizer, vocab_size, normalizer=None, **options):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **options)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def train_byte_level(pre_tokenizer, vocab_size=900, normalizer=None):
    tokenizer = train(pre_tokenizer, vocab_size, normalizer,
                      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def edit(tokenizer, change):
    """The tokenizer after `change(json)`."""
    data = json.loads(tokenizer.to_str())
    change(data)
    return Tokenizer.from_str(json.dumps(data))


def set_model(**fields):
    return lambda data: data["model"].update(fields)


def legacy_merges(data):
    data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]


def gpt2():
    tokenizer = train_byte_level(byte_level())
    tokenizer.add_special_tokens(special("<|endoftext|>"))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, legacy_merges


def gpt2_prefix():
    tokenizer = train_byte_level(byte_level(add_prefix_space=True))
    tokenizer.add_special_tokens(special("<s>", "</s>") + special("<mask>", lstrip=True))
    tokenizer.add_tokens([AddedToken("day", single_word=True, normalized=True),
                          AddedToken("[INST]", rstrip=True, normalized=False)])
    tokenizer.post_processor = template("<s>", tokenizer, "</s>")
    return tokenizer, legacy_merges


def smollm2():
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer = train_byte_level(pre_tokenizers.Sequence([digits, byte_level()]))
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    return tokenizer, legacy_merges


def llama3():
    tokenizer = train_byte_level(
        pre_tokenizers.Sequence([split(LLAMA3), byte_level(use_regex=False)]))
    tokenizer.add_special_tokens(special("<|begin_of_text|>", "<|eot_id|>"))
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template("<|begin_of_text|>", tokenizer)])

    def change(data):
        # A token that no merge makes: only ignore_merges finds it.
        vocab = data["model"]["vocab"]
        for token in ("\u0120xyzzy", "qqq", "AAAA"):
            vocab[token] = len(vocab) + 100  # behind the added tokens, with a gap
        data["model"]["ignore_merges"] = True
        for added in data["added_tokens"]:
            vocab[added["content"]] = added["id"]
    return tokenizer, change


def qwen():
    tokenizer = train_byte_level(
        pre_tokenizers.Sequence([split(QWEN), byte_level(use_regex=False)]), normalizer=normalizers.NFC())
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("e\u0301", normalized=True)])
    return tokenizer, legacy_merges


BYTES = [f"<0x{b:02X}>" for b in range(256)]


def train_byte_fallback(normalizer, pre_tokenizer, names):
    tokenizer = train(pre_tokenizer, 1000, normalizer, special_tokens=names + BYTES, limit_alphabet=260)

    def change(data):
        data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in BYTES]
        data["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    return edit(tokenizer, change)


def sequence_decoder(strip):
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


def llama2():
    normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer = train_byte_fallback(normalizer, None, ["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken("[INST]", normalized=True)])
    tokenizer.decoder = sequence_decoder(strip=True)
    tokenizer.post_processor = template("<s>", tokenizer)
    return tokenizer, legacy_merges


def mistral():
    metaspace = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    tokenizer = train_byte_fallback(None, metaspace, ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False)])
    tokenizer.decoder = sequence_decoder(strip=True)
    tokenizer.post_processor = template("<s>", tokenizer)
    return tokenizer, None


def gemma():
    tokenizer = train_byte_fallback(normalizers.Replace(" ", SPACE), split(" ", "merged_with_previous"),
                                    ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("\n\n", "\n\n\n", SPACE * 2, "\t")])
    tokenizer.decoder = sequence_decoder(strip=False)
    tokenizer.post_processor = template("<bos>", tokenizer)
    return tokenizer, None


def words():
    """Rules that the families above leave out: normalized added tokens, single words, unknown
    characters, a Metaspace that cuts and decodes."""
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    tokenizer = train(pre_tokenizers.Metaspace(SPACE, prepend_scheme="always"), 600, normalizer,
                      special_tokens=["<unk>"], limit_alphabet=60)
    tokenizer.add_tokens([AddedToken("Day", single_word=True), AddedToken("day", single_word=True, normalized=False),
                          AddedToken("Hello World", lstrip=True), AddedToken("ing", rstrip=True)])
    tokenizer.add_special_tokens(special("<mask>", single_word=True))
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    return tokenizer, set_model(unk_token="<unk>", fuse_unk=False)


def cuts():
    """All split behaviors, inverted too, over one vocabulary with a partial byte fallback."""
    steps = [split(r"[\r\n]+", "removed"), split(r"\p{P}", "merged_with_next"),
             split(r"\s+", "contiguous"), split(r"\w+|\p{Han}", "isolated", True),
             split("-", "merged_with_previous"), pre_tokenizers.Digits(individual_digits=False),
             split(r"(?m)\bth.|x?", "contiguous", True)]
    tokenizer = train(pre_tokenizers.Sequence(steps), 500, normalizers.NFKD(),
                      special_tokens=["<unk>"] + BYTES[:0xC8], limit_alphabet=80)

    def change(data):
        data["added_tokens"] = data["added_tokens"][:1]
        data["model"].update(byte_fallback=True, unk_token="<unk>", fuse_unk=True)
        data["decoder"] = None
    return tokenizer, change


def sentencepiece_model(kind):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, model_type=kind, vocab_size=900, hard_vocab_limit=False,
        byte_fallback=True, character_coverage=0.98, user_defined_symbols=["[INST]"],
        control_symbols=["<mask>"], minloglevel=2, num_threads=1,
        split_digits=kind == "bpe", normalization_rule_name="identity",  # the others weigh 240 kB
        remove_extra_whitespaces=kind != "bpe")
    return model.getvalue()


def fnv(state, data):
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return state


def answer_hash(answer):
    plain, full, skipped, shown = answer
    state = 0xCBF29CE484222325
    for ids in (plain, full):
        state = fnv(state, b"".join(i.to_bytes(4, "little") for i in ids) + b"\xff" * 4)
    for text in (skipped, shown):
        state = fnv(state, text.encode() + b"\xff")
    return state


def write_answers(name, strings, answer):
    hashes, full = [], []
    for number, (data, repeat) in enumerate(strings):
        result = answer((data * repeat).decode("utf-8", "replace"))
        if result is None:
            hashes.append("-")
            continue
        hashes.append(f"{answer_hash(result):016x}")
        if len(data) * repeat < 200 and number % (len(strings) // FULL) == 0:
            ids = [",".join(map(str, i)) for i in result[:2]]
            full.append(" ".join([str(number)] + [i or "-" for i in ids] +
                                 [t.encode().hex() or "-" for t in result[2:]]))
    (OUT / f"{name}.ids.txt").write_text("\n".join(hashes + full) + "\n")


def json_answer(tokenizer):
    def answer(text):
        tokenizer.encode_special_tokens = True  # they are plain text
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        full = tokenizer.encode(text, add_special_tokens=True).ids
        return (plain, full, tokenizer.decode(full, skip_special_tokens=True),
                tokenizer.decode(full, skip_special_tokens=False))
    return answer


def sentencepiece_answer(model, kind):
    """Special tokens are cut out first, the parts are encoded one by one, as transformers' slow
    tokenizers do. The library writes nothing for control pieces: to show them, their names are put in
    where the text before them ends."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    control = [i for i in range(processor.get_piece_size()) if processor.is_control(i)]
    names = {processor.id_to_piece(i): i for i in control}

    def cut(text):
        ids = []
        while True:
            starts = [(text.find(n), -len(n), n) for n in names if n in text]
            if not starts:
                return ids + (processor.encode(text) if text else [])
            at, _, name = min(starts)
            ids += (processor.encode(text[:at]) if at else []) + [names[name]]
            text = text[at + len(name):]

    def ambiguous(text):
        best = [sum(map(processor.get_score, ids)) for ids in processor.nbest_encode(text, nbest_size=2)]
        return len(best) == 2 and abs(best[0] - best[1]) < 1e-3

    def answer(text):
        parts = re.split("|".join(map(re.escape, names)), text)
        if kind == "unigram" and len(text) < 300 and any(ambiguous(part) for part in {text, *parts} - {""}):
            return None
        full = [processor.bos_id()] + cut(text)
        shown, before, done = "", [], ""
        for i in full + [None]:
            if i is not None and i not in control:
                before.append(i)
                continue
            text_of = processor.decode(before)
            shown += text_of[len(done):] + (processor.id_to_piece(i) if i is not None else "")
            done = text_of
        return processor.encode(text), full, done, shown
    return answer


def main():
    OUT.mkdir(exist_ok=True)
    strings = make_strings()
    write_strings(strings)
    for family in (gpt2, gpt2_prefix, smollm2, llama3, qwen, llama2, mistral, gemma, words, cuts):
        tokenizer, change = family()
        data = json.loads(tokenizer.to_str())
        if change:
            change(data)
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        (OUT / f"{family.__name__}.json").write_text(text + "\n")
        write_answers(family.__name__, strings, json_answer(Tokenizer.from_str(text)))
        print(family.__name__, flush=True)
    for kind in ("bpe", "unigram"):
        model = sentencepiece_model(kind)
        (OUT / f"sentencepiece_{kind}.model").write_bytes(model)
        write_answers(f"sentencepiece_{kind}", strings, sentencepiece_answer(model, kind))
        print("sentencepiece", kind, flush=True)
    if len(sys.argv) > 1:
        write_answers("default_model", strings, json_answer(Tokenizer.from_file(sys.argv[1])))


if __name__ == "__main__":
    TEXT = training_text()
    main()
