"""Makes tests/golden/rewards/*.json from trl.rewards (TRL 1.16.0). Run by hand:

    python tests/golden/make_rewards.py

Inputs are our own; only numbers and our own texts are written.
"""

import json
import pathlib
import random

import trl
import trl.rewards.accuracy_rewards as accuracy
from trl.rewards import get_repetition_penalty_reward, get_soft_overlong_punishment, think_format_reward

OUT = pathlib.Path(__file__).parent / "rewards"


def write(name, cases):
    OUT.mkdir(exist_ok=True)
    data = {"oracle": f"trl {trl.__version__}", "cases": cases}
    (OUT / f"{name}.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")


def soft_overlong():
    cases = []
    for limit, cache in [(100, 20), (32, 32), (64, 0), (7, 3), (512, 64)]:
        bounds = [0, 1, limit - cache, limit, (2 * limit - cache) // 2]
        lengths = sorted({max(0, b + d) for b in bounds for d in (-1, 0, 1)})
        fn = get_soft_overlong_punishment(limit, cache)
        cases.append({"max_tokens": limit, "cache": cache, "lengths": lengths,
                      "out": fn(completion_ids=[[1] * n for n in lengths])})
    write("soft_overlong", cases)


def repetition():
    rng = random.Random(11)
    rows = [[], [5], [5, 5], [5, 5, 5], [1, 2, 3, 4], [7] * 40, [1, 2] * 9, [1, 2, 3] * 5 + [9]]
    rows += [[rng.randrange(vocabulary) for _ in range(length)]
             for vocabulary in (2, 3, 10) for length in (3, 17, 64)]
    cases = []
    for n, penalty in [(1, -1.0), (2, -1.0), (3, -1.0), (4, -0.5), (3, 0.0)]:
        fn = get_repetition_penalty_reward(ngram_size=n, max_penalty=penalty)
        cases.append({"ngram": n, "max_penalty": penalty, "ids": rows, "out": fn(completion_ids=rows)})
    write("repetition", cases)


def cosine():
    """The schedule alone: which completions are right is given, not verified."""
    lengths = [0, 1, 25, 50, 75, 99, 100, 101, 500]
    cases = []
    for limit in (100, 33):
        for right in (True, False, None):
            accuracy.accuracy_reward = lambda completions, solution: [right] * len(completions)
            fn = accuracy.get_cosine_scaled_reward(max_len=limit)
            out = fn(completions=lengths, solution=lengths, completion_ids=[[1] * n for n in lengths])
            cases.append({"max_tokens": limit, "correct": right, "lengths": lengths, "out": out})
    write("cosine", cases)


def think_format():
    texts = [
        "<think>a</think>b", "<think>\na\nb\n</think>\nc\nd", "<think></think>", "<think>a", "a</think>b",
        " <think>a</think>b", "<think>a</think>b<think>c</think>", "<think><think>a</think>", "",
        "<think>a</think></think>", "</think><think>", "x\n<think>a</think>", "<think>a</think>\n<think>",
        "<Think>a</Think>", "<think>a</think >", "<think>caf\u00e9</think>\u00fc", "<think>a\n\n</think>",
    ]
    out = think_format_reward([[{"role": "assistant", "content": t}] for t in texts])
    write("think_format", [{"texts": texts, "out": out}])


if __name__ == "__main__":
    soft_overlong()
    repetition()
    cosine()
    think_format()
