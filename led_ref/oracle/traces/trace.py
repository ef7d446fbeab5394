"""A trace: every named intermediate of one forward pass or one generation, kept with its equation and its line of code.

    import led_ref
    led = led_ref.load()
    t = led_ref.trace(led.model, [[0, 5, 6, 2]], decoder_input_ids=[[2, 7]])       a forward pass
    t = led_ref.trace(led.model.generate, [[0, 5, 6, 2]], num_beams=2)              a generation
    t = led_ref.trace(led, "Pack files with tar.", num_beams=2)                     a generation from text

    t = led_ref.trace(led.model, [[0, 5, 6, 2]], labels=[[7, 2]], gradients=True)   ... and the way back

    t["led.encoder.layers.0.fc1.output"].shape               (1, 4, 512)
    t.steps["led.encoder.layers.0.fc1.output"].equation      "W1 x + b1"
    t.steps["led.encoder.layers.0.fc1.output"].source        "led_ref/model/ops.py:54"

The model's intermediates go to a recorder (model/hooks.py); a trace is a recorder that copies each one at once. So the
code that is traced is the code that runs. step_names.py explains every name; diff.py compares two traces.

A trace of everything is large: at 16,384 tokens the local probabilities of one layer of led-base alone are 0.8 GB. Say
what you want: `only="*.output"`, `layer=3`.
"""

import copy
import fnmatch
import functools
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, FrameType, MappingProxyType
from typing import Any

import numpy as np

import led_backends
from led_backends.contract import Array, HostArray
from led_ref.errors import CheckpointError, InputError, MissingFileError, wrong_type
from led_ref.files.json_file import parse_json
from led_ref.files.staging import to_write
from led_ref.model import attention_maps, backward_hooks, hooks, intermediates, losses, ops
from led_ref.model.intermediates import Recorder
from led_ref.oracle.traces import gradients as way_back
from led_ref.oracle.traces.blind_spots import blind_spots
from led_ref.oracle.traces.gradients import LOGITS_GRADIENT, check_has_loss, record_gradients
from led_ref.oracle.traces.step_names import describe, layer_or_step, place
from led_ref.oracle.traces.tolerances import tolerance
from led_ref.weights.safetensors_file import read_header, read_safetensors, write_safetensors
from led_ref.weights.stored_tensor import FLOAT_NAMES, StoredTensor, from_numpy

# The keys of a trace file's metadata: the format and its version, and the steps in order as JSON.
FORMAT = "led_ref.trace"
VERSION = "1"
_ALSO = ("equation", "letters", "source")


@dataclass(frozen=True, eq=False)
class Step:
    """One named intermediate.

    Args:
        name: the checkpoint's path of the module and a role.
        value: a copy of it, on the host, read-only.
        equation: how it is computed from what comes before.
        letters: one letter of the dimension key for each axis, with blanks between: "B H T K".
        source: file and line of the formula: "led_ref/model/ops.py:54"; "" if not known.
    """

    name: str
    value: HostArray
    equation: str
    letters: str
    source: str


class Trace(Mapping[str, HostArray]):
    """The named intermediates of one run, in the order in which they were computed: a mapping from name to array.

    Args:
        steps: in order; no name twice.
        radii: R of each encoder layer; none if not known.

    Attributes:
        steps: name -> Step, in order.
        radii: as given.
    """

    def __init__(self, steps: Iterable[Step], radii: Iterable[int] = ()) -> None:
        self.steps: Mapping[str, Step] = MappingProxyType({step.name: step for step in steps})
        self.radii = tuple(radii)

    def __reduce__(self) -> tuple[Any, ...]:
        return Trace, (list(self.steps.values()), self.radii)

    def __getitem__(self, name: str) -> HostArray:
        return self.steps[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return f"<Trace of {len(self)} steps, {self.nbytes / 1e6:,.1f} MB>"

    @property
    def nbytes(self) -> int:
        """How much memory the arrays take."""
        return sum(step.value.nbytes for step in self.steps.values())

    def blind_spots(self) -> tuple[str, ...]:
        """Mistakes that a comparison with this trace could not show at the default tolerances: a sentence for each."""
        return blind_spots(self, self.radii, {name: tolerance(value, value) for name, value in self.items()})

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a safetensors file, whole or not at all; any library reads it. Order, equations, ... are its metadata.

        Args:
            path: the file to write. Its folder must exist.
            overwrite: whether a file of that name may be replaced.

        Returns:
            The path.

        Raises:
            InputError: if the file is there already, or a value is of a type that the format does not have.
            MissingFileError: if there is no such folder.
            CheckpointError: if the disk does not take the file.
        """
        check_target(path, overwrite=overwrite)
        tensors = {name: from_numpy(name, value) for name, value in self.items()}
        steps = [{"name": step.name, **{key: getattr(step, key) for key in _ALSO}} for step in self.steps.values()]
        about = {FORMAT: VERSION, "steps": json.dumps(steps), "radii": json.dumps(self.radii)}
        return write_safetensors(path, tensors, about)

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read a file that `save` wrote, or any other safetensors file: its names are put in the order of work then.

        Half-precision numbers are widened to float32. Arrays look into the file's memory map; nothing is copied.

        Raises:
            MissingFileError: if there is no such file.
            CheckpointError: if it is no sound safetensors file, or claims to be a trace and is not.
        """
        tensors = read_safetensors(path)
        metadata = read_header(path).metadata
        radii: tuple[int, ...] = ()
        if FORMAT in metadata:
            words, radii = _recorded_words(path, metadata, tensors)
        else:
            words = {name: {**describe(name)._asdict(), "source": ""} for name in sorted(tensors, key=place)}
        return cls((Step(name, _widened(tensors[name]), **also) for name, also in words.items()), radii)


def trace(
    model: Any,
    /,
    *arguments: Any,
    only: str | Iterable[str] | None = None,
    layer: int | None = None,
    gradients: bool = False,
    **options: Any,
) -> Trace:
    """Run a model and record its intermediates; with `gradients` go back, too, and record theirs.

    Args:
        model: what is called: an LEDModel or LEDForConditionalGeneration (its forward), `model.generate`,
            `model.encoder`, or what `led_ref.load` returned (its `generate`, for one text).
        arguments: for the call.
        only: keep only names like this, or like one of these: shell patterns for the name or its end (`*.probs`,
            `longformer_self_attn.*`, `led.encoder.layers.[01].*`), or a part of it (`fc1`).
        layer: keep only intermediates of the layers of this number.
        gradients: record also the gradient of the loss with respect to every intermediate and weight, under its name and
            `.grad` (`led.encoder.layers.0.fc1.weight.grad`), from the loss to the embeddings. The call is a forward pass of a
            class with a head, with labels. Nothing is dropped out.
        options: for the call.

    Returns:
        The trace. What the call itself returned is in it: the states, the logits, `beam.sequences`.

    Raises:
        InputError: if `only` and `layer` leave nothing; and as the call does.

    Example:
        >>> import led_ref
        >>> t = led_ref.trace(led_ref.load().model, [[0, 5, 6, 2]], decoder_input_ids=[[2, 7]], only="fc1.output", layer=0)
        >>> for name, value in t.items():
        ...     print(name, value.shape, t.steps[name].letters)
        led.encoder.layers.0.fc1.output (1, 4, 768) B T F
        led.decoder.layers.0.fc1.output (1, 2, 768) N U F
    """
    if not hasattr(model, "tokenizer") and not _takes_recorder(model):
        raise wrong_type("model", model, "a model, one of its methods, or what led_ref.load returned")
    if layer is not None and (isinstance(layer, bool) or not isinstance(layer, int)):
        raise wrong_type("layer", layer, "a whole number or None")
    texts = [only] if isinstance(only, str) else [] if only is None else only
    if not isinstance(texts, list | tuple | set) or not all(isinstance(text, str) for text in texts):
        raise wrong_type("only", only, "a text, a list of texts, or None")
    patterns = None if only is None else [only] if isinstance(only, str) else list(only)
    offered: dict[str, None] = {}
    steps: list[Step] = []

    def wanted(name: str) -> bool:
        offered[name] = None
        return (patterns is None or any(_is_like(name, pattern) for pattern in patterns)) and (
            layer is None or layer_or_step(name, "layers") == layer
        )

    def record(name: str, value: Array) -> None:
        made_late = name == LOGITS_GRADIENT  # of parts, when the run is over
        source = _first_line(losses.cross_entropy_backward.__code__) if made_late else _source_line(sys._getframe(1))
        steps.append(Step(name, _copied(value), *describe(name), source=source))

    if gradients:
        check_has_loss(model)
    recorder = Recorder(record, wanted)
    if hasattr(model, "tokenizer"):
        _generate_recorded(model, recorder, *arguments, **options)
    else:
        model(*arguments, recorder=recorder, **options)
    if gradients:
        forward, steps = steps, []
        record_gradients(model, arguments, options, recorder)
        steps = forward + sorted(steps, key=lambda step: place(step.name))
    if not steps:
        few = ", ".join([*offered][:: max(1, len(offered) // 4)][:4])
        raise InputError(
            f"only={only!r} and layer={layer} leave none of the {len(offered)} steps of this run, among them {few}. "
            "`led-ref steps` lists all names."
        )
    return Trace(steps, _radii_of(model))


def _takes_recorder(call: Any) -> bool:
    """Whether it can be called with a recorder. Of some built-in types Python does not know what they take."""
    try:
        return callable(call) and "recorder" in inspect.signature(call).parameters
    except (TypeError, ValueError):
        return False


def check_target(path: str | Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written: one that is there and may not be overwritten, one in no folder.

    Raises:
        InputError: if there is something of that name.
        MissingFileError: if there is no such folder.
    """
    path = to_write("path", path)
    if not path.parent.is_dir():
        raise MissingFileError(f"There is no folder {path.parent} to write {path.name} into. Make it first.")
    if path.is_dir():
        raise InputError(f"{path} is a folder. Name a file in it.")
    if not overwrite and path.exists():
        raise InputError(f"{path} is there already. Pass overwrite=True (--overwrite), or name another file.")


# ---- recording ----------------------------------------------------------------------------------------------------------


def _generate_recorded(led: Any, recorder: Recorder, text: Any, **options: Any) -> None:
    """As `led.generate` of one text, with a recorder. `led` is a pipelines.LED; its class lies above and is not imported."""
    if not isinstance(text, str):
        raise InputError(
            f"A trace is of one document, and {type(text).__name__} was given. Give one text (str), or trace "
            "model.generate, which takes a batch of ids."
        )
    model = copy.copy(led.model)
    model.generate = functools.partial(led.model.generate, recorder=recorder)
    replace(led, model=model).generate(text, **options)


def _radii_of(model: Any) -> tuple[int, ...]:
    """R of the layers of a model, of the model of a bound method, or of that of a pipelines.LED; () of anything else."""
    owner = getattr(model, "model", None) if hasattr(model, "tokenizer") else getattr(model, "__self__", model)
    return getattr(getattr(owner, "config", None), "radii", ())


def _is_like(name: str, pattern: str) -> bool:
    """Whether a name, or its end from one of its dots on, fits a shell pattern; of what is no pattern, whether it holds it.

    Example:
        >>> name = "led.encoder.layers.0.fc1.output"
        >>> _is_like(name, "fc1.*"), _is_like(name, "led.*.output"), _is_like(name, "fc1"), _is_like(name, "*.fc1")
        (True, True, True, False)
    """
    if any(sign in pattern for sign in "*?["):
        return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")
    return pattern in name


def _copied(value: Array) -> HostArray:
    """The value as it is now, on the host, for reading only."""
    copied = np.array(led_backends.to_host(value))
    copied.flags.writeable = False
    return copied


# Frames of these files, and these functions of ops.py, record for the line that calls them.
_HOOKS = tuple(
    module.__file__
    for module in (hooks, backward_hooks, way_back, intermediates, attention_maps, sys.modules[__name__])
)
_OPERATIONS = ("linear", "add_and_norm", "linear_backward", "add_and_norm_backward")
_PACKAGES = Path(__file__).parents[3]


def _source_line(frame: FrameType | None) -> str:
    """File and line of the formula whose result is being recorded; the file relative to the package's folder."""
    while frame is not None and (
        frame.f_code.co_filename in _HOOKS
        or (frame.f_code.co_name in _OPERATIONS and frame.f_code.co_filename == ops.__file__)
    ):
        frame = frame.f_back
    return "" if frame is None else _place(frame.f_code.co_filename, frame.f_lineno)


def _first_line(code: CodeType) -> str:
    return _place(code.co_filename, code.co_firstlineno)


def _place(file: str, line: int) -> str:
    path = Path(file)
    shown = path.relative_to(_PACKAGES).as_posix() if path.is_relative_to(_PACKAGES) else path.name
    return f"{shown}:{line}"


# ---- files ------------------------------------------------------------------------------------------------------------


def _widened(stored: StoredTensor) -> HostArray:
    """The numbers: floats as float64 or float32, others as they are."""
    if stored.dtype in FLOAT_NAMES:
        return stored.to_numpy("float64" if stored.dtype == "F64" else "float32")
    return stored.data


def _recorded_words(
    path: str | Path, metadata: Mapping[str, str], names: Iterable[str]
) -> tuple[dict[str, dict[str, str]], tuple[int, ...]]:
    """What the metadata of a trace file says of each step, in order, and the radii; refused if it does not fit the tensors."""
    if metadata[FORMAT] != VERSION:
        raise CheckpointError(
            f"{path} is a trace of version {metadata[FORMAT]!r}; this led_ref reads version {VERSION}. Record it again."
        )
    try:
        words = {step["name"]: {key: step[key] for key in _ALSO} for step in parse_json(metadata["steps"])}
        sound = set(words) == set(names) and all(
            isinstance(word, str) for also in words.values() for word in also.values()
        )
        radii = parse_json(metadata.get("radii", "[]"))
        sound &= isinstance(radii, list) and all(isinstance(radius, int) for radius in radii)
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise CheckpointError(
            f"{path} says that it is a trace, but its metadata does not list the tensors that it holds. Record it again."
        )
    return words, tuple(radii)
