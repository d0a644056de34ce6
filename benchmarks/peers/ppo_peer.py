"""TRL's PPOTrainer with its four models; TRL 1.10 is the last release line that has it.

  ppo_peer.py FOLDER prepare LM   makes the work of both programs from a language model's folder
  ppo_peer.py FOLDER DTYPE        one whole update for each line "go" of standard input; a line
                                  "check" writes log-probs, values and scores of given completions
"""

import json
import os
import shutil
import sys
import tempfile
import time

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

PROMPTS, PROMPT_TOKENS, RESPONSE_TOKENS, PASSES = 16, 64, 64, 4
PAD = 0
WORDS = (
    "apple river stone cloud paper green window music garden silver winter bridge yellow market "
    "letter summer animal doctor pocket travel engine forest island kitchen lesson mirror number"
).split()


def without_ends(folder):
    """Takes every id that ends a text out of the folder's files: completions then have one length."""
    for name, keys in {
        "config.json": ["eos_token_id"],
        "generation_config.json": ["eos_token_id"],
        "tokenizer_config.json": ["eos_token"],
    }.items():
        path = f"{folder}/{name}"
        if not os.path.exists(path):
            continue
        with open(path) as f:
            content = json.load(f)
        for key in keys:
            content.pop(key, None)
        with open(path, "w") as f:
            json.dump(content, f, indent=2)


def make_prompts(tokenizer):
    """Texts of common words, as many tokens each as asked for."""
    draw = np.random.default_rng(0)
    texts, ids = [], []
    for _ in range(PROMPTS):
        text = "".join(" " + draw.choice(WORDS) for _ in range(4 * PROMPT_TOKENS))
        kept = tokenizer(text, add_special_tokens=False).input_ids[:PROMPT_TOKENS]
        texts.append(tokenizer.decode(kept))
        ids.append(tokenizer(texts[-1]).input_ids)
        assert ids[-1] == kept, "a cut text has other tokens"
    return texts, ids


def language_model(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(f"{folder}/policy", dtype=dtype)


def scored_model(folder, name, dtype):
    model = AutoModelForSequenceClassification.from_pretrained(
        f"{folder}/{name}", num_labels=1, dtype=dtype
    )
    model.config.pad_token_id = PAD
    return model


def scores_of(models, query_responses, dtype_name, folder):
    """Log-probs, values and scores by the functions that the trainer calls."""
    from trl.experimental.ppo import ppo_trainer

    policy, value, reward = models
    n, context = len(query_responses), PROMPT_TOKENS
    with torch.no_grad():
        logits = ppo_trainer.forward(policy, query_responses, PAD).logits[:, context - 1 : -1]
        response = query_responses[:, context:]
        logprob = ppo_trainer.selective_log_softmax(logits, response)
        values = ppo_trainer.get_reward(value, query_responses, PAD, context)[0]
        scores = ppo_trainer.get_reward(reward, query_responses, PAD, context)[1]
    found = {
        "logprob": logprob,
        "value": values[:, context - 1 : -1].reshape(n, -1),
        "score": scores,
    }
    for name, tensor in found.items():
        tensor.float().numpy().astype(np.float32).tofile(f"{folder}/{dtype_name}.{name}.f32")


def make_head(folder, name, lm_folder, seed):
    """A sequence-classification folder over the same backbone, values of about unit size."""
    model = AutoModelForSequenceClassification.from_pretrained(
        lm_folder, num_labels=1, dtype=torch.bfloat16
    )
    draw = torch.Generator().manual_seed(seed)
    width = model.score.weight.shape[1]
    head = torch.randn(1, width, generator=draw) / width**0.5 / 2
    with torch.no_grad():
        model.score.weight.copy_(head)
    model.config.pad_token_id = PAD
    model.save_pretrained(f"{folder}/{name}")
    for file in os.listdir(lm_folder):
        if file.startswith("tokenizer"):
            shutil.copy(f"{lm_folder}/{file}", f"{folder}/{name}/{file}")


def prepare(folder, lm_folder):
    shutil.copytree(lm_folder, f"{folder}/policy")
    without_ends(f"{folder}/policy")
    for seed, name in enumerate(("reward", "value")):
        make_head(folder, name, f"{folder}/policy", seed)
    texts, ids = make_prompts(AutoTokenizer.from_pretrained(f"{folder}/policy"))
    # The given completions are samples of the model: a float32 forward of it is the reference.
    torch.manual_seed(0)
    policy = language_model(folder, torch.float32)
    config = GenerationConfig(
        max_new_tokens=RESPONSE_TOKENS, do_sample=True, top_k=0, top_p=1.0, pad_token_id=PAD
    )
    queries = torch.tensor(ids)
    mask = torch.ones_like(queries)
    full = policy.generate(queries, attention_mask=mask, generation_config=config)
    assert not (full == PAD).any(), "a sample has a pad token"
    work = {"prompts": texts, "prompt_ids": ids, "response_ids": full[:, PROMPT_TOKENS:].tolist()}
    with open(f"{folder}/work.json", "w") as f:
        json.dump(work, f)
    models = [policy] + [scored_model(folder, n, torch.float32) for n in ("value", "reward")]
    scores_of([m.eval() for m in models], full, "reference", folder)


class Turns:
    """Batches of the trainer, each handed out on a line "go", and the time until the next is due."""

    def __init__(self, batches, check, weight):
        self.batches, self.check, self.weight = batches, check, weight

    def __iter__(self):
        for batch in self.batches:
            wait_for_turn(self.check)
            before = self.weight.detach().clone()
            began, cpu = time.perf_counter(), time.process_time()
            yield batch
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            with open("/proc/self/status") as status:
                peak = next(int(x.split()[1]) for x in status if x.startswith("VmHWM"))
            moved = (self.weight != before).float().mean().item()
            answer({"s": seconds, "cpu_s": cpu, "peak_mb": peak * 1024 / 1e6, "moved": moved})


def answer(what):
    os.write(ANSWERS, (json.dumps(what) + "\n").encode())


def wait_for_turn(check):
    for line in sys.stdin:
        if line.strip() == "go":
            return
        check()
        answer({})
    os._exit(0)


def serve(folder, dtype_name):
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    with open(f"{folder}/work.json") as f:
        work = json.load(f)
    dtype = getattr(torch, dtype_name)
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/policy", padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.convert_ids_to_tokens(PAD)
    value, reward = (scored_model(folder, name, dtype) for name in ("value", "reward"))
    policy, reference = language_model(folder, dtype), language_model(folder, dtype)
    config = PPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, per_device_train_batch_size=PROMPTS,
        gradient_accumulation_steps=1, num_mini_batches=1, num_ppo_epochs=PASSES,
        local_rollout_forward_batch_size=PROMPTS, response_length=RESPONSE_TOKENS, temperature=1.0,
        learning_rate=1e-6, lr_scheduler_type="constant", total_episodes=PROMPTS << 20,
        num_sample_generations=0, report_to=[], save_strategy="no", disable_tqdm=True,
        gradient_checkpointing=False, dataloader_pin_memory=False,
    )  # fmt: skip
    data = Dataset.from_dict({"input_ids": work["prompt_ids"]})
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference,
        reward_model=reward, value_model=value, train_dataset=data, eval_dataset=data,
    )  # fmt: skip
    given = torch.tensor([p + r for p, r in zip(work["prompt_ids"], work["response_ids"])])
    trainer.dataloader = Turns(
        trainer.dataloader,
        lambda: scores_of((policy, value, reward), given, dtype_name, folder),
        policy.model.layers[0].mlp.down_proj.weight,
    )
    answer({"ready": True})
    trainer.train()


if __name__ == "__main__":
    ANSWERS = os.dup(1)
    os.dup2(2, 1)  # Trainers print; the answers go where standard output was.
    if sys.argv[2] == "prepare":
        prepare(sys.argv[1], sys.argv[3])
    else:
        serve(sys.argv[1], sys.argv[2])
