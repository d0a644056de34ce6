"""Golden vectors of the generalized Jensen-Shannon divergence, from TRL on the CPU.

Run by hand with TRL 1.16.0 installed:  TRL_EXPERIMENTAL_SILENCE=1 python tests/golden/make_distill.py

Writes tests/golden/distill.json: logits of a student and of a teacher, and for each beta and
temperature the loss of every row by itself and its gradient with respect to the student's logits,
all in float64. The logits are drawn here from a fixed seed and are held exactly by float32.
"""

import json
from pathlib import Path

import torch
from trl.experimental.gkd import GKDTrainer

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
ROWS, VOCABULARY = 5, 13


def draw(generator, scale):
    logits = scale * torch.randn(ROWS, VOCABULARY, generator=generator)
    return torch.round(logits * 1024) / 1024


def run(student, teacher, beta, temperature):
    values, gradients = [], []
    for row in range(ROWS):
        s = student[row].clone().requires_grad_(True)
        loss = GKDTrainer.generalized_jsd_loss(
            s[None, None], teacher[row][None, None], beta=beta, temperature=temperature,
            reduction="sum")
        loss.backward()
        values.append(loss.item())
        gradients.append(s.grad.tolist())
    return {"beta": beta, "temperature": temperature, "value": values, "gradient": gradients}


def main():
    generator = torch.Generator().manual_seed(20)
    student, teacher = draw(generator, 1.5), draw(generator, 2.5)
    teacher[1] = student[1] + 3  # The same distribution by other logits.
    student[2, 4], teacher[3, 7] = 20.0, 25.0  # Nearly certain.
    cases = [run(student, teacher, beta, temperature)
             for beta in (0, 0.1, 0.5, 0.9, 1) for temperature in (1.0, 0.7, 2.0)]
    out = {"student": student.tolist(), "teacher": teacher.tolist(), "cases": cases}
    path = Path(__file__).parent / "distill.json"
    path.write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
