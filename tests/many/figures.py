"""A program: the figures of docs/many.md, measured on this machine.

    export PYTHONPATH=.:backends:tests
    python tests/many/figures.py FOLDER workers      four workers of one thread beside a process of two: speed, memory
    python tests/many/figures.py FOLDER workers --model DIR --documents 8
    python tests/many/figures.py FOLDER long      60,000 tokens by --split join, --split again, and an answer in them
    python tests/many/figures.py FOLDER tiny      100,000 documents of a few words: memory of the client, time for each
    python tests/many/figures.py FOLDER tiny --workers 2

FOLDER is made. Prints one JSON object a line. Linux alone (/proc); `workers` needs the extra `cluster`.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
from killed_runs import children_of, command, write_model
from short_documents import WORDS

import led_ref
from led_ref.model.params import Linear
from led_ref.tools.terminal import print_json

PAGE = (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")


# ---- workers ---------------------------------------------------------------------------------------------------------


def workers(folder: Path, options: argparse.Namespace) -> None:
    """Documents a second of both, in turns; and the memory of each worker while it computes."""
    documents = folder / "documents"
    documents.mkdir()
    for i in range(options.documents or 256):
        start = 97 * i % (len(PAGE) - 2000)
        (documents / f"{i:04}.txt").write_text(PAGE[start : start + 400 + 37 * i % 1200], encoding="utf-8")
    ways = {"one process of two threads": ("--threads", 2), "four workers of one": ("--threads", 1, "--workers", 4)}
    speeds: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for way, more in ways.items():
            out = folder / f"{way}-{number}"
            found = _run(documents, out, *_model(options), *more)
            speeds[way].append(found)
            print_json({"way": way, **found})
    one, four = (
        {name: statistics.median(found[name] for found in each) for name in each[0] if name != "memory"}
        for each in speeds.values()
    )
    print_json(
        {"four workers to one process": {name: round(four[name] / one[name], 3) for name in one if "a second" in name}}
    )


def _model(options: argparse.Namespace) -> tuple[object, ...]:
    """A model of one's own is there for its memory: a few words of each document do."""
    return () if options.model is None else ("--model", options.model, "--batch-size", 1, "--max-new-tokens", 8)


def _run(documents: Path, out: Path, *more: object) -> dict[str, object]:
    """How fast a run is: all of it, and between an eighth and seven eighths of its results; and the memory of its processes."""
    count = len(list(documents.iterdir()))
    began, times, memory = time.perf_counter(), [], {}
    words = command("summarize", documents, "--out", out, "--truncate", "--quiet", *more)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        for _ in process.stdout:
            times.append(time.perf_counter())
            if len(times) == count // 2:
                processes = [psutil.Process(process.pid), *children_of(process.pid)]
                memory = {
                    ("client" if i == 0 else f"worker {i}"): _memory(each.pid) for i, each in enumerate(processes)
                }
    assert (process.returncode, len(times)) == (0, count)
    first, last = times[count // 8], times[7 * count // 8]
    return {
        "documents a second": round(count / (time.perf_counter() - began), 2),
        "documents a second in the middle": round((7 * count // 8 - count // 8) / (last - first), 2),
        "memory": memory,
    }


def _memory(pid: int) -> dict[str, float]:
    """MB of a process: all that is mapped, its share of it; and of the file of weights, what others have mapped, too."""
    found = dict(
        re.findall(r"^(Rss|Pss|Private_Dirty): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    )
    weights = {"Rss": 0, "Pss": 0, "Shared_Clean": 0}
    is_weights = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_weights = line.endswith(".safetensors")
        elif is_weights and (name := line.split(":")[0]) in weights:
            weights[name] += int(line.split()[1])
    found |= {f"weights {name}": size for name, size in weights.items()}
    return {name: round(int(size) * 1024 / 1e6, 1) for name, size in found.items()}


# ---- long ------------------------------------------------------------------------------------------------------------


def long(folder: Path, options: argparse.Namespace) -> None:
    """A document of 60,000 tokens, from end to end."""
    led = led_ref.load(backend="numpy")
    text, tokens = "", 0
    for i in range(10**6):
        # No two copies of the page are alike, so that a piece at a wrong place is another text.
        text += PAGE.replace("led-ref", f"led-ref {i}")
        tokens = len(led.tokenizer(text, add_special_tokens=False)["input_ids"]) if i % 8 == 7 else 0
        if tokens >= 60_000:
            break
    (folder / "long.txt").write_text(text, encoding="utf-8")
    for way in ("join", "again"):
        found, about = _command("summarize", folder / "long.txt", "--split", way, "--json", "--quiet")
        pieces = found["pieces"]
        assert found["tokens"] == sum(pieces) >= tokens + 2 * len(pieces)
        assert max(pieces) <= led.model.longest_document
        kept = {
            "tokens": tokens,
            "pieces": len(pieces),
            "tokens of pieces": sum(pieces),
            "lines": found["text"].count("\n") + 1,
        }
        print_json({"split": way, **kept, **about})
    rng, width = np.random.default_rng(0), led.model.config.d_model
    head = Linear(rng.standard_normal((2, width), np.float32), np.zeros(2, np.float32))
    answerer = led_ref.LEDForQuestionAnswering(led.model.config, replace(led.model.params, qa_outputs=head))
    answerer.save_pretrained(folder / "answerer", others=led.tokenizer.save_pretrained)
    words = ("answer", "Which option names the model?", folder / "long.txt", "--model", folder / "answerer")
    found, about = _command(*words, "--split", "--top-k", 5, "--json", "--quiet")
    assert all(text[each["start"] : each["end"]] == each["answer"] for each in found["answers"])
    print_json({"answer": found["answers"][0], "tokens": tokens, "a piece": answerer.longest_document, **about})


def _command(*words: object) -> tuple[dict[str, object], dict[str, float]]:
    """What a command prints, its seconds, and its memory at the peak."""
    began = time.perf_counter()
    done = subprocess.run(
        ["/usr/bin/env", "time", "-f", "%M", *command(*words)], capture_output=True, text=True, check=True
    )
    about = {
        "seconds": round(time.perf_counter() - began, 1),
        "MB at the peak": int(done.stderr.split()[-1]) * 1024 // 10**6,
    }
    return json.loads(done.stdout), about


# ---- tiny ------------------------------------------------------------------------------------------------------------


def tiny(folder: Path, options: argparse.Namespace) -> None:
    """Milliseconds for each document, of every tenth of them, and the client's memory at the peak."""
    count = options.documents or 100_000
    write_model(folder / "model")
    draw = random.Random(0)
    with (folder / "tiny.jsonl").open("w", encoding="utf-8") as file:
        for i in range(count):
            words = " ".join(draw.choice(WORDS) for _ in range(draw.randrange(3, 9)))
            file.write(json.dumps({"id": i, "text": f"{words}."}) + "\n")
    more = () if options.workers is None else ("--workers", options.workers)
    words = ("summarize", folder / "tiny.jsonl", "--model", folder / "model", "--out", folder / "out", "--threads", 1)
    words += ("--num-beams", 1, "--max-new-tokens", 2, "--quiet", *more)
    with subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True) as process:
        began = last = time.perf_counter()
        for tenth in range(10):
            assert len(list(islice(process.stdout, count // 10))) == count // 10
            now = time.perf_counter()
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6
            about = {"MB at the peak": round(peak, 1), "workers": options.workers}
            print_json(
                {"documents": (tenth + 1) * count // 10, "ms for each": round(1e4 * (now - last) / count, 2), **about}
            )
            last = now
    assert process.returncode == 0
    print_json({"documents": count, "seconds": round(last - began, 1)})


FIGURES = {"workers": workers, "long": long, "tiny": tiny}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="to be made")
    parser.add_argument("figures", choices=FIGURES)
    parser.add_argument("--documents", type=int, metavar="N", help="default: 256 for workers, 100,000 for tiny")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="of workers (default: 2)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="of workers (default: the bundled model)")
    parser.add_argument("--workers", type=int, metavar="N", help="of tiny (default: one process)")
    options = parser.parse_args()
    options.folder.mkdir()
    FIGURES[options.figures](options.folder, options)


if __name__ == "__main__":
    main()
