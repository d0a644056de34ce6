"""Reads the event files of a run folder with the tensorboard package and compares them with
metrics.jsonl: every finite metric of every step must be there as a scalar, to float32.

    TEMPER_SYNTHETIC_RUN=/tmp/run trainer_files_test --gtest_filter='Report.TellsTheWholeRun'
    pip install tensorboard
    python make_tensorboard.py /tmp/run
"""

import json
import math
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def as_float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def main(folder):
    files = sorted(folder.glob("events.out.tfevents.*"))
    print(f"{len(files)} event file(s): {[f.name for f in files]}")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    print(f"{len(tags['scalars'])} scalar tags, {len(tags['tensors'])} text tags")
    for tag in tags["tensors"]:
        plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
        last = events.Tensors(tag)[-1]
        text = last.tensor_proto.string_val[0].decode()
        print(f"  text {tag!r}: plugin {plugin!r}, step {last.step}, {len(text)} characters")
        assert plugin == "text"
    scalars = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in tags["scalars"]}
    compared = 0
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name in ("step", "time", "seconds") or value is None or not math.isfinite(value):
                continue
            assert scalars[name][row["step"]] == as_float32(value), (name, row["step"])
            compared += 1
    steps = {step for values in scalars.values() for step in values}
    print(f"{compared} values agree, steps {min(steps)} to {max(steps)}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
