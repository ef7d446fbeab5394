"""Whether a training fits into this machine's memory, before it begins, and what to lower where it does not.

    check_room(config, args, load, notice)      refuses what the machine cannot hold, and says what does not fit now

What it takes is counted by costs/training.py; here stands what its settings mean for that:

    >>> from led_ref.costs.operations import LED_BASE
    >>> load = Workload(tokens=16384, new_tokens=512)
    >>> for settings in ({}, {"optim": "adafactor"}, {"lora_rank": 8}):
    ...     print(f"{room(LED_BASE, TrainingArguments(**settings), load).peak / 1e9:.1f} GB {settings}")
    3.3 GB {}
    2.0 GB {'optim': 'adafactor'}
    1.7 GB {'lora_rank': 8}
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from led_backends.numpy_backend import NumpyBackend
from led_ref.config import LEDConfig
from led_ref.costs.operations import Workload
from led_ref.costs.training import Trained, TrainingPlan, training_plan
from led_ref.errors import InputError
from led_ref.training.data import Dataset
from led_ref.training.lora import DEFAULT_TARGETS, targeted
from led_ref.training.parameters import frozen_keys
from led_ref.training.settings import TrainingArguments
from led_ref.weights.keys import FINAL_LOGITS_BIAS, LM_HEAD, POSITION_TABLES, TIED, entries

Shape = tuple[int, ...]


def room(config: LEDConfig, args: TrainingArguments, load: Workload) -> TrainingPlan:
    """The memory of a training's largest step.

    Args:
        config: sizes of the model.
        args: optim, lora_rank, lora_targets, freeze, documents_at_once, keep_activations and processes count.
        load: its longest document and target, as in training_plan.

    Raises:
        InputError: for `freeze` that names nothing, and as training_plan.
        SettingsError: for `lora_targets` that name nothing.
    """
    left_out = {FINAL_LOGITS_BIAS, *([LM_HEAD] if config.tie_word_embeddings else [])}
    shapes = {entry.key: entry.shape for entry in entries(config) if entry.key not in left_out}
    changed, merged = _trained(shapes, args)
    together = min(args.documents_at_once, args.per_device_train_batch_size)
    plan = training_plan(config, load, args.optim, Trained(changed, merged, together, args.keep_activations))
    if args.processes == 1:
        return plan
    # Another process has all but the moments, and two slots of gradients; the first one may hold two of its own (processes.py).
    gradients = plan.parts["gradients"]
    one = plan.peak - plan.parts[f"moments of {args.optim}"] + 2 * gradients
    others = (args.processes - 1) * one + 2 * gradients
    return TrainingPlan({**plan.parts, "other processes": others}, plan.peak + others)


def _trained(shapes: Mapping[str, Shape], args: TrainingArguments) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """The shapes of what is trained, and with LoRA of the matrices that exist twice."""
    if args.lora_rank is None:
        frozen = frozen_keys(args.freeze, shapes)
        return {key: shape for key, shape in shapes.items() if key not in frozen}, {}
    tables = (*TIED, *POSITION_TABLES)
    maps = {
        key.removesuffix(".weight"): shape for key, shape in shapes.items() if len(shape) == 2 and key not in tables
    }
    merged: dict[str, Shape] = {name: maps[name] for name in targeted(maps, args.lora_targets or DEFAULT_TARGETS)}
    thin: dict[str, Shape] = {}
    for name, shape in merged.items():
        thin |= {f"{name}.A": (args.lora_rank, shape[1]), f"{name}.B": (shape[0], args.lora_rank)}
    return thin, merged


def load_of(dataset: Dataset, dtype: str) -> Workload:
    """The longest document of a dataset, with the longest target; classes without words read the document twice."""
    tokens = max(dataset.lengths)
    target = max(len(example.target) for example in dataset.examples) if dataset.task == "summarization" else tokens
    return Workload(tokens=tokens, new_tokens=target, dtype=dtype, tiles_at_once=NumpyBackend().threads)


# ---- what fits --------------------------------------------------------------------------------------------------------


def check_room(
    config: LEDConfig,
    args: TrainingArguments,
    load: Workload,
    notice: Callable[[str], object],
    memory: "Memory | None" = None,
) -> None:
    """Before a training: refuse one that this machine cannot hold, and say so of one that does not fit beside the rest.

    Args:
        config: as in `room`.
        args: as in `room`.
        load: as in `room`.
        notice: called with a sentence, where what is free now does not suffice.
        memory: of the machine; None: as it is.

    Raises:
        InputError: if the training needs more memory than the machine has; what to lower is in the message.
    """
    memory = machine_memory() if memory is None else memory
    peak = room(config, args, load).peak
    if memory is None or peak <= memory.free:
        return
    lower = "; ".join(what_to_lower(config, args, load, memory.free)) or "a smaller model"
    needs = f"a step on {load.tokens:,} tokens takes about {_gb(peak)}"
    if peak > memory.total:
        raise InputError(
            f"This training does not fit: {needs}, and this machine has {_gb(memory.total)}. Lower: {lower}."
        )
    notice(f"this training may not fit: {needs}, and {_gb(memory.free)} are free now; lower: {lower}")


def what_to_lower(config: LEDConfig, args: TrainingArguments, load: Workload, limit: int) -> list[str]:
    """What makes a training smaller, each by itself, with what it takes then; those that fit `limit`, if any does."""
    options: list[tuple[str, TrainingArguments, Workload]] = []
    if args.keep_activations:
        options.append(("no --keep-activations", replace(args, keep_activations=False), load))
    if args.processes > 1:
        options.append(("--processes 1", replace(args, processes=1), load))
    if args.documents_at_once > 1:
        options.append(("--documents-at-once 1", replace(args, documents_at_once=1), load))
    if args.lora_rank is None:
        if args.optim == "adamw":
            options.append(("--optimizer adafactor", replace(args, optim="adafactor"), load))
        options.append(("--lora-rank 8", replace(args, lora_rank=8, freeze=()), load))
    half = load.tokens // 2
    shorter = replace(load, tokens=max(1, half), globals_=min(max(1, half), load.globals_))
    if half:
        options.append(
            (
                f"--max-source-length {half} --truncate",
                args,
                shorter,
            )
        )
    if load.dtype == "float64":
        options.append(("--dtype float32", args, replace(load, dtype="float32")))
    peaks = {name: room(config, changed, smaller).peak for name, changed, smaller in options}
    fitting = {name: peak for name, peak in peaks.items() if peak <= limit} or peaks
    return [f"{name} ({_gb(peak)})" for name, peak in fitting.items()]


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


@dataclass(frozen=True)
class Memory:
    """Of a machine, or of the container that this process is in, in bytes."""

    total: int
    free: int


def machine_memory() -> Memory | None:
    """The memory that this process can have; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = {name: 1024 * int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        memory = Memory(found["MemTotal"], found["MemAvailable"])
    except (OSError, KeyError, ValueError, IndexError):
        if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
            return None
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Memory(total, total)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))  # "max": none
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return memory
    return Memory(min(memory.total, limit), min(memory.free, max(0, limit - used)))
