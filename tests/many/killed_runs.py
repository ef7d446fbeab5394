"""A program: a thousand short documents, while processes are killed and the disk is full; the results are one process's.

    export PYTHONPATH=.:backends:tests
    python tests/many/killed_runs.py FOLDER       every scene; a line for each, and exit code 1 at the first difference
    python tests/many/killed_runs.py FOLDER --documents 60 --kills 1 --scenes client scheduler --json

One process writes the folder `whole`. Then, with a model so small that the reading of files takes as long as the computing:

    workers     four processes of a Dask cluster                                   the same bytes
    shards      four shards at once, and what `led-ref gather` makes of them       the same bytes
    worker      kill -9 of a worker; the run goes on by itself                     the same bytes
    process     kill -9 of the only process, --resume                              the same bytes
    client      kill -9 of the client of a cluster, --resume                       the same bytes, and no worker is left
    scheduler   kill -9 of the scheduler, another one, --resume                    the same bytes
    disk        a file system that is full after half of the results, --resume     the same bytes
    bad         five documents that cannot be read are each their own failure      the same bytes of all others

A moment to kill at is drawn (--seed): before the first result, or after a number of results and up to 50 ms more. Every second
run writes lines (--jsonl) in place of files. `disk` mounts a tmpfs: run as root, or in
`unshare --user --map-root-user --mount`. Linux alone. It needs the extra `cluster`.
"""

import argparse
import contextlib
import gzip
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from short_documents import write_documents

import led_ref
from led_ref.config import LEDConfig
from led_ref.tools.random_weights import random_weights

CONFIG = LEDConfig(
    vocab_size=6144, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    encoder_ffn_dim=8, decoder_ffn_dim=8, attention_window=(8,), max_encoder_position_embeddings=64,
    max_decoder_position_embeddings=32,
)  # fmt: skip
FULL = "No space left on device"
LOST = ("The Dask scheduler has ended", "There is no Dask scheduler with a worker")
BAD = {  # the name of a document that cannot be read, what it holds, and what is said of it
    "0001-latin.txt": (b"caf\xe9", "is not UTF-8"),
    "0011-blank.txt": (b" \n", "is empty"),
    "0021-long.txt": (b"word " * 900, "The document has 90"),
    "0022-torn.txt.gz": (gzip.compress(b"Pack files." * 99)[:-9], "cannot be unpacked"),
    f"0033-{'name' * 61}.txt": (b"Pack files.", "a name of more than 255 bytes"),
}
MOST_RUNS = 5
KILLS_OF_A_RUN = 5  # of workers


class Different(Exception):
    """Something is not as in one unbroken process."""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its name, hidden ones too; lines of results in the order of their documents."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: b"".join(sorted(held.splitlines(True))) if ".jsonl" in name else held for name, held in found.items()}


def compare(folder: Path, whole: Path, *, without: str = "?") -> None:
    """Raises Different if a file of either folder differs, but those whose names begin with `without`."""
    a, b = contents(whole), contents(folder)
    names = {name for name in a.keys() | b.keys() if not name.startswith(without)}
    if other := sorted(name for name in names if a.get(name) != b.get(name)):
        raise Different(f"{len(other)} of {len(names)} files of {folder} differ: {', '.join(other[:5])}")


class Process(subprocess.Popen):
    """A process of led-ref; what it says on standard error goes to a file that has no name."""

    def __init__(self, *words: object) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        super().__init__(command(*words), stdout=subprocess.PIPE, stderr=self._said, text=True)

    def end(self) -> str:
        """Wait for its end; what it said."""
        self.communicate()
        self._said.seek(0)
        return self._said.read()

    def finish(self, *, code: int = 0, words: str = "") -> str:
        """Wait for its end; what it said. Raises Different if it ended otherwise than with this code and words."""
        said = self.end()
        if self.returncode != code or words not in said:
            raise Different(
                f"{' '.join(self.args[3:])}: exit code {self.returncode}, and it said: {said[-2000:] or 'nothing'}"
            )
        return said


@dataclass(frozen=True)
class Run:
    """How led-ref is run on the documents."""

    folder: Path
    documents: Path
    lines: bool = False

    def start(self, out: Path, *more: object) -> "Process":
        """A process that summarizes into `out`."""
        words = [
            "summarize",
            self.documents,
            "--model",
            self.folder / "model",
            "--out",
            out,
            "--resume",
            "--json",
            "--quiet",
        ]
        words += ["--num-beams", 1, "--max-new-tokens", 4, "--threads", 1, *(["--jsonl"] if self.lines else []), *more]
        return Process(*words)

    def whole(self) -> Path:
        """The folder that one process writes, unbroken; it is written once."""
        out = self.folder / f"whole-{self.lines}"
        if not out.exists():
            self.start(out).finish()
        return out


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "led_ref.cli.main", *map(str, words)]


class Cluster:
    """A scheduler and workers, each a process of its own, that can be killed and started anew at the same address."""

    def __init__(self, folder: Path, workers: int) -> None:
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            self.port = place.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._workers, self._log = workers, (folder / "cluster.log").open("a")
        self._place = folder / "dask"

    def _process(self, *words: object) -> subprocess.Popen:
        words = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *map(str, words[1:])]
        return subprocess.Popen(words, stdout=self._log, stderr=self._log, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def start(self) -> None:
        """Both."""
        self.scheduler = self._process("scheduler", "--host", "127.0.0.1", "--port", self.port, "--no-dashboard")
        self.nanny = self._process(
            "worker", self.address, "--nworkers", self._workers, "--nthreads", 1, "--memory-limit", 0, "--no-dashboard",
            "--local-directory", self._place,
        )  # fmt: skip

    def workers(self) -> list[psutil.Process]:
        """The processes of the workers."""
        return children_of(self.nanny.pid)

    def end(self) -> None:
        """Of both, and of all workers."""
        left = [
            *self.workers(),
            *(psutil.Process(each.pid) for each in (self.scheduler, self.nanny) if each.poll() is None),
        ]
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(left)


def children_of(pid: int) -> list[psutil.Process]:
    """The processes that a process of Dask has started for its workers."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [
            each for each in psutil.Process(pid).children(recursive=True) if "spawn_main" in " ".join(each.cmdline())
        ]
    return []


# ---- scenes: each yields what it did, and raises Different ------------------------------------------------------------


class Scenes:
    """What is tried. Each method is a scene, and returns what it counted.

    Args:
        run: on the good documents.
        kills: how often a worker is killed, five times in a run; processes of other kinds a quarter as often.
        seed: of the moments.
    """

    def __init__(self, run: Run, kills: int, seed: int) -> None:
        self.run, self.kills, self.draw = run, kills, random.Random(seed)
        self.count = len(list(run.documents.iterdir()))

    def workers(self) -> dict[str, Any]:
        for run in self._forms(2):
            out = run.folder / f"workers-{run.lines}"
            run.start(out, "--workers", 4).finish()
            compare(out, run.whole())
        return {"runs": 2}

    def shards(self) -> dict[str, Any]:
        for run in self._forms(2):
            out = run.folder / f"shards-{run.lines}"
            shards = [run.start(out, "--shard", f"{i}/4") for i in range(1, 5)]
            for process in shards:
                process.finish()
            self._same_gathered(out, run.whole(), files=not run.lines)
        return {"runs": 8}

    @staticmethod
    def _same_gathered(out: Path, whole: Path, *, files: bool) -> None:
        if files:
            compare(out, whole, without="led-ref")
        gathered = [
            subprocess.run(command("gather", each), capture_output=True, check=True).stdout for each in (out, whole)
        ]
        if gathered[0] != gathered[1]:
            raise Different(f"What is gathered from {out} differs from what is gathered from {whole}.")

    def worker(self) -> dict[str, Any]:
        with self._cluster() as cluster:

            def kill(process: Process) -> None:
                if workers := cluster.workers():
                    self.draw.choice(workers).kill()

            runs = -(-self.kills // KILLS_OF_A_RUN)
            found = self._killed("worker", runs, kill, "--scheduler", cluster.address, kills=self.kills // runs)
            if found["runs"] > runs:
                raise Different(f"{runs} runs took {found['runs']}: they end where a worker is killed.")
            return found

    def process(self) -> dict[str, Any]:
        return self._killed("process", self._fewer(), Process.kill)

    def client(self) -> dict[str, Any]:
        with self._cluster() as cluster:
            found = self._killed("client", self._fewer(), Process.kill, "--scheduler", cluster.address)

        def kill(process: Process) -> None:
            workers = children_of(process.pid)
            process.kill()
            left = [each for each in psutil.wait_procs(workers, timeout=30)[1] if each.status() != psutil.STATUS_ZOMBIE]
            if left:
                raise Different(f"{len(left)} of {len(workers)} workers are left 30 s after their client was killed.")

        own = self._killed("client-of-workers", -(-self._fewer() // 3), kill, "--workers", 2)
        return {name: found[name] + own[name] for name in found}

    def scheduler(self) -> dict[str, Any]:
        with self._cluster() as cluster:

            def kill(process: Process) -> None:
                cluster.scheduler.kill()
                cluster.scheduler.wait()
                if self.draw.random() < 0.5:  # another one at once, or when the client has ended
                    restart()

            def restart() -> None:
                cluster.end()
                cluster.start()

            def again() -> None:
                if cluster.scheduler.poll() is not None:
                    restart()

            return self._killed("scheduler", self._fewer(), kill, "--scheduler", cluster.address, again=again)

    def disk(self) -> dict[str, Any]:
        refused = 0
        for run in self._forms(2):
            place, whole = run.folder / f"disk-{run.lines}", contents(run.whole())
            place.mkdir()
            sizes = {name: -(-len(held) // 4096) * 4096 for name, held in whole.items()}
            room = sum(sizes.values()) // 2 + sizes["led-ref.json"]
            mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", place]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                raise Different("A tmpfs cannot be mounted here. Run this in: unshare --user --map-root-user --mount")
            try:
                out = place / "out"
                refused += run.start(out).finish(code=1, words=FULL).count(FULL)
                for name, held in contents(out).items():
                    if not held or not set(held.splitlines(True)) <= set(whole.get(name, b"").splitlines(True)):
                        raise Different(f"On the full disk {out / name} is not whole.")
                subprocess.run(["mount", "-o", f"remount,size={4 * room + (1 << 24)}", place], check=True)
                run.start(out).finish()
                compare(out, run.whole())
            finally:
                subprocess.run(["umount", place], check=True)
        return {"runs": 4, "results that were refused": refused}

    def bad(self) -> dict[str, Any]:
        documents = self.run.folder / "bad"
        documents.mkdir()
        for path in self.run.documents.iterdir():
            os.link(path, documents / path.name)
        for name, (held, _) in BAD.items():
            (documents / name).write_bytes(held)
        run = replace(self.run, documents=documents)
        said = ""
        for place, shards, more in (("one", 1, ()), ("workers", 1, ("--workers", 2)), ("shards", 2, ())):
            out = run.folder / f"bad-{place}"
            parts = [("--shard", f"{i + 1}/{shards}") if shards > 1 else () for i in range(shards)]
            processes = [run.start(out, *more, *part) for part in parts]
            said = "".join(process.end() for process in processes)
            if 1 not in (codes := {process.returncode for process in processes}) or not codes <= {0, 1}:
                raise Different(f"{out}: exit codes {codes}, and it said: {said[-2000:]}")
            for name, (_, words) in BAD.items():
                lines = [line for line in said.splitlines() if f"{name}" in line and words in line]
                if len(lines) != 1:
                    raise Different(f"{out}: {len(lines)} lines name {name}, and say {words!r}: {said[-2000:]}")
            if shards == 1 and f"5 of {self.count + 5} documents failed" not in said:
                raise Different(f"{out}: it did not say that 5 of {self.count + 5} failed: {said[-2000:]}")
            compare(out, run.folder / "bad-one", without="led-ref")
        alone = self.run.whole()
        for path in alone.glob("*.summary.json"):
            a, b = (json.loads((folder / path.name).read_text()) for folder in (alone, run.folder / "bad-one"))
            if a["text"] != b["text"]:
                raise Different(f"{path.name} is another text beside bad documents.")
        return {"runs": 4, "documents that failed": 5}

    # ---- their parts -------------------------------------------------------------------------------------------------

    def _forms(self, runs: int) -> Iterator[Run]:
        """Files, lines, files, ..."""
        return (replace(self.run, lines=bool(i % 2)) for i in range(runs))

    def _fewer(self) -> int:
        return max(1, self.kills // 4)

    @contextlib.contextmanager
    def _cluster(self) -> Iterator[Cluster]:
        cluster = Cluster(self.run.folder, 4)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.end()

    def _killed(
        self, name: str, runs: int, kill: Callable[[Process], object], *more: object,
        again: Callable[[], object] = lambda: None, kills: int = 1,
    ) -> dict[str, Any]:  # fmt: skip
        """Runs into new folders, in each of which is killed at drawn moments, and with --resume until it is done."""
        count = {"kills": 0, "runs": 0, "results at a kill": []}
        for i, run in enumerate(self._forms(runs)):
            out = run.folder / f"{name}-{i}"
            process = run.start(out, *more)
            for results in self._moments(process, kills):
                count["results at a kill"].append(results)
                count["kills"] += 1
                kill(process)
            for number in itertools.count(1):
                said = process.end()
                if process.returncode == 0:
                    break
                if number == MOST_RUNS or (process.returncode != -9 and not any(words in said for words in LOST)):
                    raise Different(
                        f"{out}: exit code {process.returncode} in run {number}, and it said: {said[-2000:]}"
                    )
                again()
                process = run.start(out, *more)
            count["runs"] += number
            compare(out, run.whole())
        return count

    def _moments(self, process: Process, kills: int) -> Iterator[int]:
        """Wait for drawn moments of a run, one after the other; how many results there were at each."""
        moments = sorted(self.draw.randrange(1, self.count) for _ in range(kills))
        if self.draw.random() < 0.2:
            moments[0] = 0
        for before, results in itertools.pairwise([0, *moments]):
            for _ in range(results - before):
                process.stdout.readline()
            time.sleep(self.draw.uniform(0, 0.05 if results else 3.0))
            yield results


def write_model(folder: Path) -> None:
    """A model of random weights that computes next to nothing, with the bundled tokenizer."""
    led = led_ref.load(backend="numpy")
    model = led_ref.LEDForConditionalGeneration.from_state_dict(CONFIG, random_weights(CONFIG))
    replace(led, model=model).save_pretrained(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name in vars(Scenes) if not name.startswith("_")]
    parser.add_argument("folder", type=Path, help="to be made")
    parser.add_argument("--documents", type=int, default=1000, metavar="N")
    parser.add_argument(
        "--kills", type=int, default=20, metavar="N", help="of workers; a quarter of it of each other kind"
    )
    parser.add_argument("--seed", type=int, default=18, metavar="N", help="of the moments")
    parser.add_argument("--scenes", nargs="+", choices=names, default=names)
    parser.add_argument("--json", action="store_true", help="one JSON object a scene")
    options = parser.parse_args()
    options.folder.mkdir()
    write_model(options.folder / "model")
    (options.folder / "documents").mkdir()
    write_documents(options.folder / "documents", options.documents)
    scenes = Scenes(Run(options.folder, options.folder / "documents"), options.kills, options.seed)
    for name in options.scenes:
        started, found, problem = time.perf_counter(), {}, ""
        try:
            found = getattr(scenes, name)()
        except Different as error:
            problem = str(error)
        seconds = round(time.perf_counter() - started, 1)
        if options.json:
            print(
                json.dumps({"scene": name, "seed": options.seed, **found, "seconds": seconds, "problem": problem}),
                flush=True,
            )
        else:
            counts = ", ".join(f"{number} {what}" for what, number in found.items())
            print(f"{name:<10} {problem or 'the same bytes'}; {counts}, {seconds:,.0f} s", flush=True)
        if problem:
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
