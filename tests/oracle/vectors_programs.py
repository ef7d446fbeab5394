"""A program for `led-ref vectors check --cmd` that can do three operations, and misbehaves on request.

    python vectors_programs.py IN OUT [crash|hang|nonsense CASE]

It reads and writes JSON and safetensors by itself and knows nothing of led_ref.
"""

import json
import struct
import sys
import time
from pathlib import Path

import numpy as np

TYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}


def read(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        found[name] = np.frombuffer(raw[start:stop], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


def answer(case, inputs):
    if case["operation"] == "linear":
        return {"outputs": {"y": (inputs["x"].astype(float) @ inputs["weight"].T + inputs["bias"]).tolist()}}
    if case["operation"] == "shift":
        start, pad = case["arguments"]["decoder_start_token_id"], case["arguments"]["pad_token_id"]
        rows = [[start, *row[:-1]] for row in inputs["labels"].tolist()]
        return {"outputs": {"decoder_input_ids": [[pad if i == -100 else i for i in row] for row in rows]}}
    if case["operation"] == "search":
        settings = case["arguments"]["settings"]
        return {"refused": "no beams"} if settings.get("num_beams", 1) == 0 else {"unsupported": "no search yet"}
    return {"unsupported": f"cannot {case['operation']}"}


def main(questions, results, what="", of=""):
    index = json.loads((questions / "index.json").read_text())
    tensors = {}
    for file in sorted(questions.glob("*.inputs.safetensors")):
        tensors |= read(file)
    for case in index["cases"]:
        if case["id"] == of:
            if what == "crash":
                raise RuntimeError("no such luck")
            if what == "hang":
                time.sleep(1000)
            (results / f"{of}.safetensors").write_bytes(b"nonsense")
            continue
        inputs = {name: tensors[f"{case['id']}/{name}"] for name in case["inputs"]}
        (results / f"{case['id']}.json").write_text(json.dumps(answer(case, inputs)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
