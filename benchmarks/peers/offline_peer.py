"""TRL's SFT, DPO, KTO and reward trainers, a whole optimizer step at a time.

  offline_peer.py FOLDER prepare             makes work.json, reward/ and a float32 forward's log-probs and scores
                                             from FOLDER/model
  offline_peer.py FOLDER METHOD DTYPE REF    one step for each line "go" of standard input; REF: live or cached;
                                             a line "check" writes the log-probs of the preferred answers,
                                             or for METHOD reward the scores of both
"""

import json
import resource
import sys
import tempfile
import time

import datasets
import numpy as np
import torch
import transformers
import trl

ROWS, PROMPT_TOKENS, ANSWER_TOKENS = 8, 128, 128
WORDS = ("apple river stone cloud paper green window music garden silver winter bridge yellow market letter summer animal "
         "doctor pocket travel engine forest island kitchen lesson mirror number").split()


def cut_text(tokenizer, draw, tokens):
    text = "".join(" " + draw.choice(WORDS) for _ in range(4 * tokens))
    return tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids[:tokens])


def make_work(folder, tokenizer):
    draw = np.random.default_rng(0)
    rows, texts = [], []
    for _ in range(ROWS):
        prompt = cut_text(tokenizer, draw, PROMPT_TOKENS)
        row = {"prompt": prompt, "chosen": cut_text(tokenizer, draw, ANSWER_TOKENS - 1),
               "rejected": cut_text(tokenizer, draw, ANSWER_TOKENS - 1)}
        start = tokenizer(prompt).input_ids
        ids = {"prompt": start}
        for side in ("chosen", "rejected"):
            whole = tokenizer(prompt + row[side]).input_ids
            assert whole[: len(start)] == start, "a prompt's tokens changed behind its answer"
            ids[side] = whole[len(start):] + [tokenizer.eos_token_id]
        rows.append(ids)
        texts.append(row)
    with open(f"{folder}/work.json", "w") as f:
        json.dump({"rows": rows, "texts": texts}, f)


def logprobs(model, work):
    out = []
    for row in work["rows"]:
        ids = torch.tensor([row["prompt"] + row["chosen"]])
        with torch.no_grad():
            scores = model(ids).logits.float().log_softmax(-1)[0]
        n = len(row["prompt"])
        out.append(scores[n - 1: -1].gather(1, ids[0, n:, None])[:, 0])
    return torch.cat(out).numpy().astype(np.float32)


def scores(model, work):
    # The trainer makes the end token the padding, and a text would be scored before its own end.
    padding, model.config.pad_token_id = model.config.pad_token_id, 0
    out = []
    for row in work["rows"]:
        for side in ("chosen", "rejected"):
            with torch.no_grad():
                out.append(float(model(torch.tensor([row["prompt"] + row[side]])).logits.float()))
    model.config.pad_token_id = padding
    return np.array(out, dtype=np.float32)


def make_reward_model(folder, tokenizer):
    """A head of random weights on the same trunk; the pad token is none that a text has."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(f"{folder}/model", num_labels=1,
                                                                            dtype=torch.float32)
    torch.nn.init.normal_(model.score.weight, std=0.02)
    model.config.pad_token_id = 0
    model.to(torch.bfloat16).save_pretrained(f"{folder}/reward")
    tokenizer.save_pretrained(f"{folder}/reward")


def load(folder, method, dtype):
    kind = transformers.AutoModelForSequenceClassification if method == "reward" else transformers.AutoModelForCausalLM
    return kind.from_pretrained(f"{folder}/{'reward' if method == 'reward' else 'model'}", dtype=getattr(torch, dtype))


def check(folder, method, model, work, who):
    what, values = ("score", scores(model, work)) if method == "reward" else ("logprob", logprobs(model, work))
    values.tofile(f"{folder}/{who}.{what}.f32")


def rows_for(method, texts):
    if method in ("dpo", "reward"):
        return texts
    rows = [{"prompt": t["prompt"], "completion": t["chosen"]} for t in texts]
    return [{**r, "label": i % 2 == 0} for i, r in enumerate(rows)] if method == "kto" else rows


def make_trainer(method, model, tokenizer, texts, reference, output):
    kinds = {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig),
             "kto": (trl.KTOTrainer, trl.KTOConfig), "reward": (trl.RewardTrainer, trl.RewardConfig)}
    trainer_class, config_class = kinds[method]
    settings = dict(output_dir=output, per_device_train_batch_size=ROWS, learning_rate=1e-6, bf16=False, use_cpu=True,
                    report_to=[], save_strategy="no", gradient_checkpointing=False, logging_steps=10**6)
    if method in ("dpo", "kto") and reference == "cached":
        settings["precompute_ref_log_probs"] = True
    return trainer_class(model=model, args=config_class(**settings), processing_class=tokenizer,
                         train_dataset=datasets.Dataset.from_list(rows_for(method, texts)))


def serve(folder, method, dtype, reference):
    with open(f"{folder}/work.json") as f:
        work = json.load(f)
    tokenizer = transformers.AutoTokenizer.from_pretrained(f"{folder}/model")
    model = load(folder, method, dtype)
    with tempfile.TemporaryDirectory() as output:
        trainer = make_trainer(method, model, tokenizer, work["texts"], reference, output)
        batch = next(iter(trainer.get_train_dataloader()))
        trainer.current_gradient_accumulation_steps = 1  # What train() sets before its first step.
        optimizer = trainer.create_optimizer()
        parameters = [p for p in model.parameters() if p.requires_grad]
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            if line.strip() == "check":
                model.eval()
                check(folder, method, model, work, dtype)
                print("{}", flush=True)
                continue
            start, cpu = time.perf_counter(), time.process_time()
            loss = trainer.training_step(model, batch)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
            print(json.dumps({"s": seconds, "cpu_s": time.process_time() - cpu, "peak_mb": peak, "loss": float(loss)}),
                  flush=True)


def main():
    folder, what = sys.argv[1], sys.argv[2]
    torch.manual_seed(0)
    if what != "prepare":
        return serve(folder, *sys.argv[2:5])
    tokenizer = transformers.AutoTokenizer.from_pretrained(f"{folder}/model")
    make_work(folder, tokenizer)
    make_reward_model(folder, tokenizer)
    with open(f"{folder}/work.json") as f:
        work = json.load(f)
    for method in ("sft", "reward"):
        check(folder, method, load(folder, method, "float32").eval(), work, "reference")


if __name__ == "__main__":
    main()
