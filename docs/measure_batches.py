"""What documents that are written together cost, into docs/data/batches.json: the table in docs/performance.md is from it.

    python docs/measure_batches.py

One decoding step at led-base's size, random weights and made-up encoder states, for 1, 2 and 4 documents of 1 and of 4 beams.
The sizes take turns, three times; of each the least median step counts, because whatever else runs on the machine
only ever makes it longer.
"""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.outputs import LEDEncoderBaseModelOutput
from led_ref.costs.operations import LED_BASE
from led_ref.tools.bench.machine import machine
from led_ref.tools.random_weights import write_random_checkpoint

DATA = Path(__file__).parent / "data" / "batches.json"
STEPS, ROUNDS = 16, 3


def step_seconds(model: LEDForConditionalGeneration, documents: int, tokens: int, beams: int) -> float:
    """The median step."""
    states = np.random.default_rng(0).standard_normal((documents, tokens, model.config.d_model), dtype=np.float32)
    ticks: list[float] = []
    model.generate(
        encoder_outputs=LEDEncoderBaseModelOutput(last_hidden_state=states),
        num_beams=beams,
        max_new_tokens=STEPS + 2,
        min_new_tokens=STEPS + 2,
        progress=lambda *_: ticks.append(time.perf_counter()),
    )
    return float(np.median(np.diff(ticks)[-STEPS:]))


def main() -> None:
    """Measure and write."""
    with TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), LED_BASE)
        model = LEDForConditionalGeneration.from_pretrained(folder)
        rows = []
        for tokens, beams in ((512, 1), (512, 4), (1024, 1), (1024, 4), (4096, 1), (4096, 4)):
            sizes = (1, 2, 4)
            least = dict.fromkeys(sizes, np.inf)
            for _ in range(ROUNDS):
                for documents in sizes:
                    least[documents] = min(least[documents], step_seconds(model, documents, tokens, beams))
            rows.append(
                {"tokens": tokens, "beams": beams, "step_ms": {str(n): round(1000 * s, 1) for n, s in least.items()}}
            )
            print(rows[-1], flush=True)
    report = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "rows": rows}
    DATA.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
