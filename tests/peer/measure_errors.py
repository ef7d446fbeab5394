"""How far from the truth is float32? transformers and led_ref, layer by layer, against oracle/dense.py in float64.

    python tests/peer/measure_errors.py [--tokens 4096] [--targets 128] [--out docs/data/error_by_layer.json]

An LED of led-base's exact size with random weights (deviation 0.02, as it is initialised), one global token. Both float32
models get the very same float32 weights; the oracle gets them widened, so what is measured is arithmetic alone.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.costs.operations import LED_BASE
from led_ref.oracle.definition import model as dense
from led_ref.tools.doctor import blas, versions
from led_ref.tools.random_weights import write_random_checkpoint
from led_ref.weights.find_files import read_tensors


def states_of(output) -> dict[str, np.ndarray]:
    """Every layer's states and the logits of a model's output, by name."""
    named = {f"encoder {i}": state for i, state in enumerate(output.encoder_hidden_states)}
    named |= {f"decoder {i}": state for i, state in enumerate(output.decoder_hidden_states)}
    return {name: np.asarray(state)[0] for name, state in (named | {"logits": output.logits}).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--targets", type=int, default=128)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(11)
    ids = rng.integers(4, 50000, (1, options.tokens))
    targets = rng.integers(4, 50000, (1, options.targets))
    targets[:, 0] = 2
    mask, first = np.ones_like(ids), np.zeros_like(ids)
    first[:, 0] = 1

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), LED_BASE, seed=11)
        started = time.perf_counter()
        weights = {name: tensor.to_numpy("float64") for name, tensor in read_tensors(folder).items()}
        encoded = dense.encode(weights, LED_BASE, ids, mask, first)
        decoded = dense.decode(weights, LED_BASE, targets, encoded.hidden_states[-1], mask)
        truth = {f"encoder {i}": state[0] for i, state in enumerate(encoded.hidden_states)}
        truth |= {f"decoder {i}": state[0] for i, state in enumerate(decoded.hidden_states)}
        truth["logits"] = decoded.logits[0]
        del weights, encoded, decoded
        print(f"oracle: {time.perf_counter() - started:.0f} s", file=sys.stderr)

        arguments = {"attention_mask": mask, "global_attention_mask": first, "decoder_input_ids": targets}
        for dtype in ("float32", "float64"):
            model = LEDForConditionalGeneration.from_pretrained(Path(folder), dtype=dtype)
            found[f"led_ref {dtype}"] = states_of(model(ids, output_hidden_states=True, **arguments))
            del model
        theirs = transformers.LEDForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            tensors = {name: torch.tensor(value) for name, value in arguments.items()}
            found["transformers float32"] = states_of(theirs(torch.tensor(ids), output_hidden_states=True, **tensors))

    rows = []
    for name, true in truth.items():
        row = {"place": name, "largest": float(np.abs(true).max())}
        for who, states in found.items():
            error = np.abs(states[name] - true)
            row[who] = {"max": float(error.max()), "rms": float(np.sqrt((error**2).mean()))}
        rows.append(row)
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.machine(),
        "versions": {**versions(), "torch": torch.__version__, "transformers": transformers.__version__},
        "blas": blas(),
        "tokens": options.tokens,
        "targets": options.targets,
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['place']:<12}", *(f"{who} max {row[who]['max']:.1e} rms {row[who]['rms']:.1e} |" for who in found))


if __name__ == "__main__":
    main()
