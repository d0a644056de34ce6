"""What the comparisons share: programs that answer line by line, rounds in turn, intervals."""

import json
import os
import random
import statistics
import subprocess
import sys


class Program:
    """A child that answers each line with one of JSON; `first` is what it says when it is ready."""

    def __init__(self, command, environment):
        self.child = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first = self.read()

    def read(self):
        line = self.child.stdout.readline()
        if not line:
            sys.exit(f"{self.child.args} ended with {self.child.wait()}")
        return json.loads(line)

    def ask(self, word):
        self.child.stdin.write(word + "\n")
        self.child.stdin.flush()
        return self.read()

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def busy_seconds():
    with open("/proc/stat") as stat:
        v = [int(x) for x in stat.readline().split()[1:9]]
    return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK")


def children_seconds(programs):
    total = 0
    for p in programs:
        with open(f"/proc/{p.child.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def rounds(programs, count, max_load):
    """What each program answered in each round, the load beside it, and the rounds thrown away."""
    kept, loads, discarded = [], [], 0
    while len(kept) < count:
        busy, own = busy_seconds(), children_seconds(programs.values())
        names = list(programs)
        turn = (len(kept) + discarded) % len(names)  # Whoever begins changes from round to round.
        answers = {name: programs[name].ask("go") for name in names[turn:] + names[:turn]}
        busy, own = busy_seconds() - busy, children_seconds(programs.values()) - own
        load = max(0.0, busy - own) / sum(a["s"] for a in answers.values())
        if load > max_load and discarded < count:
            discarded += 1
            continue
        kept.append(answers)
        loads.append(load)
    return kept, loads, discarded


def interval(ratios):
    """95 % bootstrap interval of the median."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[1949]
