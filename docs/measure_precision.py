"""What smaller weights cost, into docs/data/precision.json: the tables in docs/precision.md are from it.

    python docs/measure_precision.py HELDOUT

HELDOUT is a folder with the bundled model's held-out manual pages, heldout.jsonl.gz: {"body": text} a line. Speed, memory and
error are of led-base's size with random weights (speed does not depend on what they say), each kind a folder that
`led-ref convert` would write, measured in a process of its own. The kinds take turns, and of each the least time counts,
because whatever else runs on the machine only ever makes it longer. Ids are those that the bundled model writes.
"""

import argparse
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from led_ref.api import bundled_model
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.config import LEDConfig
from led_ref.costs.operations import LED_BASE
from led_ref.tokenizer import LEDTokenizer
from led_ref.tools.bench.machine import MemoryWatch, machine
from led_ref.tools.random_weights import write_random_checkpoint
from led_ref.weights.convert import convert
from led_ref.weights.find_files import read_tensors
from led_ref.weights.quantization.file_format import join, quantizable, split

DATA = Path(__file__).parent / "data" / "precision.json"
KINDS = ("float32", "float16", "bfloat16", "int8", "nf4", "nf4-double")
TOKENS, NEW_TOKENS, TARGETS, ROUNDS = 1024, 16, 32, 2
PAGES, PAGE_CHARACTERS, PAGE_TOKENS, PAGE_NEW_TOKENS = 40, 20_000, 1024, 32


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heldout", type=Path, metavar="HELDOUT")
    pages = parser.parse_args().heldout / "heldout.jsonl.gz"
    report = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "tokens": TOKENS, "new_tokens": NEW_TOKENS}
    with TemporaryDirectory() as scratch:
        source = Path(scratch) / "random"
        source.mkdir()
        write_random_checkpoint(source, LED_BASE)
        sized = converted(source, Path(scratch) / "led-base")
        report["rows"] = measured(sized)
        report["pages"] = {"pages": PAGES, "tokens": PAGE_TOKENS, "new_tokens": PAGE_NEW_TOKENS}
        small = converted(bundled_model(), Path(scratch) / "bundled")
        for kind, changes in changed_ids(small, pages).items():
            report["rows"][kind] |= {"bundled_" + name: figure for name, figure in changes.items()}
            report["rows"][kind]["bundled_tensor_error"] = tensor_errors(small[kind], small["float32"])
    DATA.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n\n".join("\n".join(table) for table in tables(report)))


def converted(source: Path, destination: Path) -> dict[str, Path]:
    """A folder of each kind."""
    destination.mkdir()
    for kind in KINDS:
        how = {"quantize": kind, "dtype": "float32"} if kind in KINDS[3:] else {"dtype": kind}
        convert(source, destination / kind, **how)
    return {kind: destination / kind for kind in KINDS}


def load(folder: Path) -> LEDForConditionalGeneration:
    """The model, each weight kept as it lies in the file."""
    return LEDForConditionalGeneration.from_pretrained(folder, keep_stored=True, backend="numpy")


# ---- led-base's size ------------------------------------------------------------------------------------------------


def measured(folders: dict[str, Path]) -> dict[str, dict]:
    """Size, memory, time and error of each kind."""
    rows: dict[str, dict] = {}
    for _ in range(ROUNDS):
        for kind, folder in folders.items():
            command = [sys.executable, __file__, "--one", str(folder)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            least = rows.setdefault(kind, found)
            rows[kind] = {name: (max if name == "peak_mb" else min)(least[name], found[name]) for name in found}
            print(kind, found, flush=True)
    exact = folders["float32"]
    for kind, folder in folders.items():
        rows[kind]["matrices_bytes"] = matrices_bytes(folder)
        rows[kind]["of_float32"] = round(rows[kind]["matrices_bytes"] / matrices_bytes(exact), 4)
        rows[kind]["tensor_error"] = tensor_errors(folder, exact)
        for name in ("states", "logits"):
            rows[kind][f"{name}_error"] = error(np.load(folder / f"{name}.npy"), np.load(exact / f"{name}.npy"))
    return rows


def measure_one(folder: Path) -> None:
    """Time and memory of one kind, in this process and nothing else in it; its states and logits go into its folder."""
    watch, model = MemoryWatch(), load(folder)
    rng = np.random.default_rng(0)
    ids_BT = rng.integers(4, model.config.vocab_size, (1, TOKENS))
    targets_BU = rng.integers(4, model.config.vocab_size, (1, TARGETS))
    global_BT = np.zeros_like(ids_BT)
    global_BT[:, 0] = 1
    model.generate(ids_BT[:, :64], max_new_tokens=2, min_new_tokens=2)  # libraries, threads and weights are there then
    started = time.perf_counter()
    read = model.encoder(ids_BT, global_attention_mask=global_BT)
    found = {"encode_s": round(time.perf_counter() - started, 3)}
    for beams in (1, 4):
        ticks: list[float] = []
        document = (
            {"encoder_outputs": read} if beams == 1 else {"input_ids": ids_BT, "global_attention_mask": global_BT}
        )
        model.generate(
            **document,
            num_beams=beams,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            progress=lambda *_, ticks=ticks: ticks.append(time.perf_counter()),
        )
        found[f"step_{beams}_ms"] = round(1000 * float(np.median(np.diff(ticks)[2:])), 1)
    found["peak_mb"] = round(watch.peak() / 1e6)
    logits_BUV = model.forward(encoder_outputs=read, decoder_input_ids=targets_BU).logits
    np.save(folder / "states.npy", read.last_hidden_state)
    np.save(folder / "logits.npy", logits_BUV)
    print(json.dumps(found))


def error(found: np.ndarray, exact: np.ndarray) -> float:
    """Root mean square of the difference, relative to that of the exact numbers."""
    off, size = (np.sqrt(np.square(numbers, dtype=np.float64).mean()) for numbers in (found - exact, exact))
    return float(f"{off / size:.3g}")


def matrices(folder: Path) -> dict:
    """The tensors of the linear maps' matrices: those that are quantized, in every kind."""
    config = LEDConfig.from_pretrained(folder)
    tensors = join(read_tensors(folder), config)
    return {key: tensors[key] for key in quantizable(config)}


def matrices_bytes(folder: Path) -> int:
    """What they take, with scales and all else that goes with them."""
    return sum(part.data.nbytes for part in split(matrices(folder)).values())


def tensor_errors(folder: Path, exact: Path) -> list[float]:
    """The least and the most that a matrix is off."""
    truth = matrices(exact)
    errors = [error(tensor.to_numpy(), truth[key].to_numpy()) for key, tensor in matrices(folder).items()]
    return [min(errors), max(errors)]


# ---- what the bundled model writes ----------------------------------------------------------------------------------


def changed_ids(folders: dict[str, Path], file: Path) -> dict[str, dict[str, list[int]]]:
    """By search: how many pages get other ids than from float32, how many ids differ at their place, and of how many."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        bodies = [json.loads(line)["body"] for line, _ in zip(lines, range(PAGES), strict=False)]
    tokenizer = LEDTokenizer.from_pretrained(bundled_model())
    pages = [tokenizer(body[:PAGE_CHARACTERS], truncation=True, max_length=PAGE_TOKENS)["input_ids"] for body in bodies]
    written = {kind: {beams: write(load(folder), pages, beams) for beams in (1, 4)} for kind, folder in folders.items()}
    found: dict[str, dict[str, list[int]]] = {}
    for kind, texts in written.items():
        found[kind] = {}
        for beams, ids in texts.items():
            off = [differing(new, old) for new, old in zip(ids, written["float32"][beams], strict=True)]
            total = sum(len(old) for old in written["float32"][beams])
            found[kind][f"{beams}_beams"] = [sum(map(bool, off)), sum(off), total]
    return found


def write(model: LEDForConditionalGeneration, pages: list[list[int]], beams: int) -> list[list[int]]:
    """The ids for each page."""
    found = []
    for page in pages:
        first = np.zeros((1, len(page)), np.int64)
        first[:, 0] = 1
        ids = model.generate([page], global_attention_mask=first, num_beams=beams, max_new_tokens=PAGE_NEW_TOKENS)
        found.append(np.asarray(ids)[0].tolist())
    return found


def differing(new: list[int], old: list[int]) -> int:
    """How many places have another id; a place that only one of them has is another."""
    return sum(a != b for a, b in zip(new, old, strict=False)) + abs(len(new) - len(old))


# ---- the page -------------------------------------------------------------------------------------------------------


def tables(report: dict) -> list[list[str]]:
    """The lines of the page's tables: size and speed, then error."""
    speed = _table("kept as", "matrices, of float32", "peak MB", "encode, s", "step, ms", "step of 4 beams, ms")
    wrong = _table("kept as", "a matrix", "states", "logits", "bundled: a matrix", "ids, greedy", "ids, 4 beams")
    for kind, row in report["rows"].items():
        times = f"{row['encode_s']:.2f} | {row['step_1_ms']:.0f} | {row['step_4_ms']:.0f}"
        speed.append(f"| {kind} | {row['of_float32']:.4f} | {row['peak_mb']:,} | {times} |")
        worst = (row["tensor_error"][1], row["states_error"], row["logits_error"], row["bundled_tensor_error"][1])
        cells = [f"{100 * off:.2g}%" if off else "0" for off in worst]
        for beams in (1, 4):
            pages, ids, total = row[f"bundled_{beams}_beams"]
            cells.append(f"{ids} of {total} on {pages} pages")
        wrong.append(f"| {kind} | {' | '.join(cells)} |")
    return [speed, wrong]


def _table(*titles: str) -> list[str]:
    """A table's first two lines."""
    return [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure_one(Path(sys.argv[2]))
    else:
        main()
