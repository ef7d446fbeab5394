"""A program: kill a training at every change that it makes to the disk, let it go on, and compare what it ends with.

    python killed_training.py FOLDER [EVERY]    prints the number of changes that it tried, every third if EVERY is 3;
                                                exit code 1 and a message at the first difference

A child process trains and ends itself, without any cleaning up, just before its n-th change, or just after it opened a file for
writing, for n = 0, 1, 2, ... until it gets through. Then a run with `resume` must end with the bits of a whole one, and nothing
may be left beside. Changes are what Python's audit events say: files opened for writing,
renamed, made, removed. The safetensors library writes without one, but between others.
"""

import json
import os
import sys
from pathlib import Path

from training.small_models import small_model

import led_ref
from led_backends.numpy_backend import NumpyBackend
from led_ref.training.data import read_dataset
from led_ref.training.settings import DataArguments, RunArguments
from led_ref.training.trainer import run_training

KILLED = 9
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.utime"}
ARGUMENTS = RunArguments.of(
    per_device_train_batch_size=2,
    max_steps=2,
    save_steps=1,
    eval_steps=1,
    learning_rate=3e-2,
    lr_scheduler_type="constant",
)


def die_at(last: int) -> None:
    """Let this process end at its change number `last`; an opened file is left empty."""
    seen = -1

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        is_writing = event == "open" and isinstance(arguments[1], str) and not set(arguments[1]).isdisjoint("wax+")
        if is_writing or event in CHANGES:
            seen += 1
            if seen == last:
                if is_writing and "w" in arguments[1]:
                    os.close(os.open(arguments[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
                os._exit(KILLED)

    sys.addaudithook(watch)


class NoFiles:
    """In place of a tokenizer: it saves nothing, so there are fewer changes to try."""

    def save_pretrained(self, folder: Path) -> None:
        """Nothing."""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its name, without the log, which says when."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {
        "out/log.jsonl": str([json.loads(line)["step"] for line in (folder / "out" / "log.jsonl").open()]).encode()
    }


def main(folder: Path, every: int = 1) -> int:
    """Returns the number of changes of a training that were tried."""
    model = small_model()
    model.backend = NumpyBackend(1)
    tokenizer = led_ref.load(backend="numpy").tokenizer
    data = folder / "data.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"the cat {i} sat", "summary": f"cat {i % 3}"}) for i in range(4)))
    dataset = read_dataset([data], DataArguments(), tokenizer, model)

    def train(out: Path, *, resume: bool = False) -> None:
        run_training(model, NoFiles(), dataset, out, ARGUMENTS, held_out=dataset, resume=resume)

    (folder / "whole").mkdir()
    train(folder / "whole" / "out")
    whole = contents(folder / "whole")
    change = 0
    while True:
        place = folder / str(change)
        place.mkdir()
        child = os.fork()
        if child == 0:
            die_at(change)
            train(place / "out")
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return change // every
        assert code == KILLED, code
        train(place / "out", resume=True)
        found = contents(place)
        different = sorted(name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name))
        if different:
            raise SystemExit(f"killed at change {change}: {', '.join(different)}")
        change += every


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
