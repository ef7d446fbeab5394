"""The tables of docs/gpu.md: what LED costs on a GPU, on paper, and when it last ran on one.

    python docs/build_gpu_page.py docs/gpu.md docs/data/gpu_report.json     fill the tables in anew

The page is prose with places for tables, `<!-- NAME -->` ... `<!-- end -->`; what stands in them is computed here from
costs/operations.py, two cards' published figures and one measured number, LAUNCH. No GPU is asked. tests/test_gpu_page.py holds
that the committed page is what this file makes of it. What was measured is
in the report, whose page is made here, too: `report_page`, for tests/gpu/measure.py.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from led_ref.config import LEDConfig
from led_ref.costs import memory as memory_plan
from led_ref.costs import operations as planning
from led_ref.costs.operations import Work, Workload
from led_ref.tools.gpu.report import failed

MODELS = {"base": planning.LED_BASE, "large": planning.LED_LARGE}
LENGTHS = (1024, 2048, 4096, 8192, 16384)
DTYPES = ("float32", "float16")
BEAMS = 4

# The time of one launch from Python through CuPy, with what the program does around it, in seconds. Measured on 2026-11-22
# on an H100's machine: a decoding step of 141 launches took 5.1 to 7.9 ms there from one moment to the next, of which the
# search on the host is 1.4 ms. The shortest possible launch took 8.4 microseconds.
LAUNCH = 30e-6


@dataclass(frozen=True)
class Card:
    """A GPU by its maker's figures.

    Args:
        name: of the card.
        peak: operations a second, by dtype: float32 without TF32, float16 by tensor cores, adding up in float32, dense.
        bandwidth: bytes a second from its memory.
        memory: its bytes.
        link: bytes a second to the host, one way.
        source: where the figures stand.
    """

    name: str
    peak: dict[str, float]
    bandwidth: float
    memory: float
    link: float
    source: str


CARDS = (
    Card(
        "H100 SXM", {"float32": 66.9e12, "float16": 989.4e12}, 3.35e12, 80e9, 64e9,
        "NVIDIA, H100 Tensor Core GPU (datasheet and architecture paper); PCIe 5 x16",
    ),
    Card(
        "RTX 4090", {"float32": 82.6e12, "float16": 165.2e12}, 1.008e12, 24e9, 32e9,
        "NVIDIA, Ada GPU Architecture (paper); PCIe 4 x16",
    ),
)  # fmt: skip


def floor_seconds(work: Work, card: Card, dtype: str) -> float:
    """A lower bound for any program on this card: its operations at peak speed or its bytes, whichever takes longer."""
    return max(work.operations / card.peak[dtype], work.bytes / card.bandwidth)


def design_seconds(works: Iterable[Work], card: Card, dtype: str, launch: float = LAUNCH) -> tuple[float, str]:
    """The time that the cost model predicts for this design, and what bounds it.

    Kinds of work follow each other, each at its lower bound; meanwhile Python launches. The slower of the two decides.
    """
    works = list(works)
    products = sum(work.operations for work in works) / card.peak[dtype]
    busy = sum(floor_seconds(work, card, dtype) for work in works)
    launching = sum(work.launches for work in works) * launch
    if launching > busy:
        return launching, "launches"
    return busy, "products" if products > busy / 2 else "memory"


def least_encoder_work(config: LEDConfig, load: Workload) -> Work:
    """What the encoder cannot do without: the band and nothing beside it, weights read once, states in and out of a layer."""
    pairs = sum(sum(keys for _, keys in planning.tiles(load.tokens, radius, 1)) for radius in config.radii)
    pairs += load.tokens * load.globals_ * config.encoder_layers
    others = [work for work in planning.encode_work(config, load) if work.name != "window"]
    weights = 7 * config.d_model**2 + 2 * config.d_model * config.encoder_ffn_dim
    moved = config.encoder_layers * (weights + 2 * load.tokens * config.d_model)
    return Work("least", sum(w.operations for w in others) + 4 * config.d_model * pairs, moved * load.item, 0)


# ---- tables -------------------------------------------------------------------------------------------------------------


def table(head: str, rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    columns = head.split(" | ")
    lines = [f"| {head} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def card_table(report: dict[str, Any]) -> str:
    """The figures that all else is divided by."""
    rows = (
        (c.name, *(f"{c.peak[d] / 1e12:g}" for d in DTYPES), f"{c.bandwidth / 1e12:g}", f"{c.memory / 1e9:g}",
         f"{c.link / 1e9:g}", c.source)
        for c in CARDS
    )  # fmt: skip
    head = "card | float32, TFLOP/s | float16, TFLOP/s | memory, TB/s | memory, GB | to the host, GB/s | from"
    return table(head, rows)


def encode_table(report: dict[str, Any]) -> str:
    """The encoder on one document: operations, bytes, launches a layer, floor and design on each card."""
    rows = []
    for name, config, dtype, tokens in _cases(LENGTHS):
        load = planning.on_gpu(config, Workload(tokens=tokens, dtype=dtype))
        works, least = planning.encode_work(config, load), least_encoder_work(config, load)
        done = planning.total(works)
        cells = [f"{name}, {dtype}, {tokens:,}", f"{done.operations / 1e12:.2f}", f"{done.bytes / 1e9:.1f}"]
        cells.append(str(done.launches // config.encoder_layers))
        for card in CARDS:
            reached, by = design_seconds(works, card, dtype)
            cells += [f"{1e3 * floor_seconds(least, card, dtype):.1f}", f"{1e3 * reached:.1f} ({by})"]
        rows.append(cells)
    return table(f"model, dtype, tokens | TFLOP | GB moved | launches a layer | {_card_columns()}", rows)


def step_table(report: dict[str, Any]) -> str:
    """One decoding step of 4 beams: operations, bytes, launches, floor and design on each card, and the way to the host."""
    rows = []
    for name, config, dtype, tokens in _cases((1024, 4096, 16384)):
        load = planning.on_gpu(config, Workload(tokens=tokens, dtype=dtype, beams=BEAMS))
        works = planning.step_work(config, load, 64)
        done = planning.total(works)
        sent = load.rows * config.vocab_size * load.item  # N rows of V logits, to the search on the host
        cells = [f"{name}, {dtype}, {tokens:,}", f"{done.operations / 1e9:.1f}", f"{done.bytes / 1e9:.2f}"]
        cells += [
            str(sum(w.launches for w in works if w.name != "logits") // config.decoder_layers),
            str(done.launches),
        ]
        for card in CARDS:
            reached, by = design_seconds(works, card, dtype)
            cells += [f"{1e3 * floor_seconds(done, card, dtype):.2f}", f"{1e3 * reached:.2f} ({by})"]
            cells.append(f"{1e3 * sent / card.link:.3f}")
        rows.append(cells)
    head = "model, dtype, tokens | GFLOP | GB moved | launches a layer | launches a step | "
    return table(head + _card_columns(", logits to the host"), rows)


def block_table(report: dict[str, Any]) -> str:
    """What the number of queries in a block does: led-base, 16,384 tokens, the window's part of a layer."""
    rows = []
    for queries in (64, 128, 256, 512, 1024, 2048):
        cells: list[str] = [str(queries)]
        load = Workload(tokens=16384, queries_per_block=queries)
        work = planning.window_work(planning.LED_BASE, load, 512)
        cells += [f"{work.operations / 1e9:.0f}", str(work.launches)]
        for card in CARDS:
            for dtype in DTYPES:
                work = planning.window_work(planning.LED_BASE, replace(load, dtype=dtype), 512)
                cells.append(f"{1e3 * design_seconds([work], card, dtype)[0]:.1f}")
        rows.append(cells)
    columns = " | ".join(f"{card.name}, {dtype}, ms" for card in CARDS for dtype in DTYPES)
    return table(f"queries in a block | GFLOP | launches | {columns}", rows)


def memory_table(report: dict[str, Any]) -> str:
    """The plan of a generation: 16,384 tokens, 4 beams, 256 new tokens."""
    rows = []
    for name, config, dtype, tokens in _cases((4096, 16384)):
        cells = [f"{name}, {dtype}, {tokens:,}"]
        for folded in (False, True):
            load = Workload(tokens=tokens, dtype=dtype, beams=BEAMS, new_tokens=256, folded=folded)
            plan = memory_plan.plan(config, planning.on_gpu(config, load))
            if not folded:
                cells += [f"{plan.weights / 1e9:.2f}", f"{plan.encoding / 1e9:.2f}"]
            cells += [f"{plan.writing / 1e9:.2f}", f"{plan.peak / 1e9:.2f}"]
        rows.append(cells)
    head = "model, dtype, tokens | weights, GB | reading | writing | peak | writing, folded | peak, folded"
    return table(head, rows)


def sharing_table(report: dict[str, Any]) -> str:
    """Bytes of the document's keys and values that one step reads: once for all beams, once for each, or states twice."""
    rows = []
    for name, config, dtype, tokens in _cases((16384,)):
        load = Workload(tokens=tokens, dtype=dtype, beams=BEAMS)
        shared = planning.cross_work(config, load)
        folded = planning.cross_work(config, replace(load, folded=True))
        cells = [f"{name}, {dtype}", f"{shared.bytes / 1e9:.2f}", f"{BEAMS * shared.bytes / 1e9:.2f}"]
        cells += [f"{shared.operations / 1e9:.1f}", f"{folded.operations / 1e9:.1f}"]
        rows.append(cells)
    head = "model, dtype, 16,384 tokens | GB, shared | GB, a copy for each beam | GFLOP | GFLOP, folded"
    return table(head, rows)


def last_run(report: dict[str, Any]) -> str:
    """The line at the top of the page."""
    if not report.get("date"):
        return "**Last run on a GPU: never.**"
    kind = "every check passed" if report["ok"] else "some checks failed"
    gpu = report["gpu"]
    versions = f"CuPy {gpu['cupy']}, CUDA {gpu['runtime']}, driver {gpu['driver']}"
    return f"**Last run on a GPU: {report['date']}, {gpu['name']}, {versions}; {kind}** ([report](gpu_report.md))."


def _cases(lengths: Iterable[int]) -> Iterator[tuple[str, LEDConfig, str, int]]:
    for name, config in MODELS.items():
        for dtype in DTYPES:
            for tokens in lengths:
                yield name, config, dtype, tokens


def _card_columns(more: str = "") -> str:
    each = (f"{card.name}, floor, ms | reached, ms{f' | {more[2:]}, ms' if more else ''}" for card in CARDS)
    return " | ".join(each)


# ---- the page -----------------------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "last run": last_run,
    "cards": card_table,
    "encode": encode_table,
    "step": step_table,
    "blocks": block_table,
    "memory": memory_table,
    "sharing": sharing_table,
}


def filled(page: str, report: dict[str, Any]) -> str:
    """The page with every table in its place made anew.

    Example:
        >>> print(filled("top <!-- last run --> what stood here <!-- end --> bottom", {"date": None}))
        top <!-- last run -->
        <BLANKLINE>
        **Last run on a GPU: never.**
        <BLANKLINE>
        <!-- end --> bottom
    """

    def fill(place: re.Match[str]) -> str:
        return f"<!-- {place[1]} -->\n\n{TABLES[place[1]](report)}\n\n<!-- end -->"

    return re.sub(r"<!-- ([a-z ]+) -->.*?<!-- end -->", fill, page, flags=re.DOTALL)


def best_block(card: Card, dtype: str) -> int:
    """The power of two of queries in a block that is fastest in the model (led-base, 16,384 tokens)."""
    load = Workload(tokens=16384, dtype=dtype)

    def seconds(queries: int) -> float:
        work = planning.window_work(planning.LED_BASE, replace(load, queries_per_block=queries), 512)
        return design_seconds([work], card, dtype)[0]

    return min((1 << int(math.log2(64)) + n for n in range(6)), key=seconds)


# ---- the report -----------------------------------------------------------------------------------------------------------


def report_page(report: Mapping[str, Any]) -> str:
    """docs/gpu_report.md, made from the report; one sentence if there has been no run."""
    head = "# Report of a run on a GPU\n\nMade by `tests/gpu/measure.py`; [On a GPU](gpu.md) says what it checks.\n\n"
    if not report.get("date"):
        return head + "There has been no run on a GPU yet.\n"
    gpu, speeds = report["gpu"], report["speeds"]
    parts = [
        f"{report['date']}: {gpu['name']}, {gpu['memory'] / 1e9:.1f} GB, CuPy {gpu['cupy']}, CUDA {gpu['runtime']}, "
        f"driver {gpu['driver']}. {'Every check passed.' if report['ok'] else 'Failed: ' + ', '.join(failed(report)) + '.'}",
        "## Every operation against float64",
        f"Largest error in units of the dtype's eps, relative to the largest number; allowed are "
        f"{report['operations']['allowed eps']:g}.",
        _operations_table(report["operations"]["rows"]),
        "## A whole model against the CPU",
        _values(report["model"]),
        *(_values(report[name]) for name in ("model in float16", "gradients") if name in report),
        "## Waits for the device",
        _values(report["waits"]),
        "## Memory beside the weights, 4 beams",
        table(
            "tokens | planned, MB | in use at the peak, MB | in use / planned | CuPy's pool grew by, MB",
            (
                (f"{r['tokens']:,}", _mb(r["planned"]), _mb(r["in use"]), r["in use / planned"], _mb(r["pool"]))
                for r in report["memory"]["rows"]
            ),
        ),
        "## Speeds",
        _values(
            {f"products in {dtype}, TFLOP/s": f"{peak / 1e12:.1f}" for dtype, peak in speeds["products"].items()}
            | {
                "memory, GB/s": f"{speeds['memory'] / 1e9:.0f}",
                "to the host, GB/s": f"{speeds['to the host'] / 1e9:.1f}",
            }
            | {"the shortest launch, µs": f"{1e6 * speeds['launch']:.1f}"}
        ),
        "## Times, and what the sizes and these speeds predict",
        _rows_table(report["times"]),
        "## transformers on the same device",
        report["transformers"].get("missing") or _rows_table(report["transformers"]["rows"]),
    ]
    return head + "\n\n".join(parts) + "\n"


def _operations_table(rows: list[dict[str, Any]]) -> str:
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    cells = {(row["operation"], row["dtype"]): row.get("error") or f"{row['eps']:g}" for row in rows}
    names = dict.fromkeys(row["operation"] for row in rows)
    return table(
        f"operation | {' | '.join(dtypes)}", ((name, *(cells[name, dtype] for dtype in dtypes)) for name in names)
    )


def _rows_table(rows: list[dict[str, Any]]) -> str:
    return table(" | ".join(rows[0]), (row.values() for row in rows))


def _values(values: Mapping[str, Any]) -> str:
    shown = ((name, "yes" if value is True else "no" if value is False else value) for name, value in values.items())
    return table("what | found", shown)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"


if __name__ == "__main__":
    path, report_path = map(Path, sys.argv[1:])
    path.write_text(
        filled(path.read_text(encoding="utf-8"), json.loads(report_path.read_text(encoding="utf-8"))), "utf-8"
    )
