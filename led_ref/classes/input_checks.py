"""Validation: every input of the model is checked here once, so that model/ can trust it.

Every function takes lists or arrays and returns a NumPy array of a known dtype and shape, or raises InputError with the
found value and the remedy. An index out of range would wrap around silently on a GPU and give a wrong number; it is
refused before it gets there.
"""

import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from led_backends.contract import Backend, HostArray
from led_ref.classes.outputs import LEDEncoderBaseModelOutput
from led_ref.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LEDConfig
from led_ref.errors import InputError, quoted, wrong_call, wrong_type
from led_ref.generation.settings.settings import is_integer
from led_ref.model.kv_cache import DecoderCache
from led_ref.model.losses import IGNORED_LABEL

_INT64 = 2**63 - 1
Function = TypeVar("Function", bound=Callable[..., Any])

# What a type is called in messages; a class that is not here, by its own name.
_IN_WORDS: dict[Any, str] = {
    type(None): "None", bool: "True or False", int: "a whole number", float: "a number", str: "a text", Path: "a path",
    Callable: "a function", Sequence: "a list", Iterable: "a list", Mapping: "a dict", np.ndarray: "an array",
}  # fmt: skip
# Checked where they are read, with messages of their own.
_CHECKED_INSIDE = {"text", "texts", "question", "context", "generation_config", "logits_processor", "stopping_criteria"}


def check_types(function: Function) -> Function:
    """A decorator: refuse arguments of another type than the function's annotations say. `Any` is checked inside.

    NumPy's numbers and booleans become Python's. An int is no bool and a bool no int: `truncation="no"` would cut.

    Raises:
        ArgumentTypeError: naming the argument, its value, and what it takes.

    Example:
        >>> @check_types
        ... def double(number: int | None) -> int:
        ...     return 2 * (number or 0)
        >>> double(np.int64(4))
        8
        >>> double("4")
        Traceback (most recent call last):
        led_ref.errors.ArgumentTypeError: number is '4', a str; it takes a whole number or None.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        try:
            given = signature.bind(*arguments, **named)
        except TypeError as error:
            raise wrong_call(function.__qualname__, signature.parameters, named, error) from None
        for name, kinds in _kinds_of(function).items():
            if name in given.arguments:
                given.arguments[name] = _as_one_of(kinds, name, given.arguments[name])
        return function(*given.args, **given.kwargs)

    return checked  # type: ignore[return-value]


@cache
def _kinds_of(function: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """For each argument that is checked, the types of its annotation: of a union all, of list[str] only list."""
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    left_out = {name for name, p in inspect.signature(function).parameters.items() if p.kind in variable}
    hints = {name: hint for name, hint in get_type_hints(function).items() if name not in left_out | _CHECKED_INSIDE}
    return {name: kinds for name, hint in hints.items() if name != "return" and Any not in (kinds := _parts(hint))}


def _parts(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for part in get_args(hint) for kind in _parts(part))
    return (hint if get_origin(hint) is None else get_origin(hint),)


def _as_one_of(kinds: tuple[Any, ...], name: str, value: Any) -> Any:
    """The value itself; NumPy's numbers as Python's."""
    for kind in kinds:
        if kind in (Sequence, Iterable) and isinstance(value, str | bytes | bytearray | memoryview):
            continue
        if (kind is bool and isinstance(value, np.bool_)) or (kind is int and isinstance(value, np.integer)):
            return value.item()
        if kind is Path and isinstance(value, os.PathLike) and not isinstance(value, Path):
            return Path(value)
        if kind is Backend and hasattr(value, "to_host") and not isinstance(value, type):
            return value
        if kind is Callable and callable(value):
            return value
        if kind is not Backend and isinstance(value, kind) and not (isinstance(value, bool) and kind is int):
            return value
    words = list(dict.fromkeys(_IN_WORDS.get(kind) or f"a {kind.__name__}" for kind in kinds))
    words.sort(key=lambda word: word == "None")
    raise wrong_type(name, value, " or ".join(words))


def checked_ids(
    name: str,
    ids: Any,
    vocab_size: int,
    *,
    also_allowed: int | None = None,
    remedy: str = "Tokenize with the model's own tokenizer",
) -> HostArray:
    """Token ids as int64 (B, length).

    Args:
        name: the argument's name, for messages.
        ids: nested lists or an integer array.
        vocab_size: V; ids lie in 0 ... V - 1.
        also_allowed: one more allowed value outside that range (-100 in labels).
        remedy: the remedy for an id out of range.

    Raises:
        InputError: for anything else, naming the first wrong value.
    """
    array = as_array(name, ids)
    if array.dtype.kind in "US" or (array.dtype == object and isinstance(_flat_first(array), str)):
        raise InputError(
            f"{name} is text, {quoted(ids)}; ids are whole numbers. Tokenize it, tokenizer(text), or use the calls that take "
            "text: led_ref.generate(text), led_ref.load(...).generate(text)."
        )
    if array.ndim != 2:
        raise InputError(
            f"{name} has shape {array.shape}; it must be (batch, length). For one text wrap it in a list: [{name}]."
        )
    if 0 in array.shape:
        raise InputError(f"{name} has shape {array.shape}: it is empty. Give at least one row of at least one id.")
    if array.dtype.kind not in "iuO" or (array.dtype == object and not is_integer(_flat_first(array))):
        raise InputError(f"{name} holds {array.dtype} values, but ids are whole numbers. Convert them to integers.")
    bad = (array < 0) | (array >= vocab_size)
    if also_allowed is not None:
        bad &= array != also_allowed
    if bad.any():
        raise InputError(f"{_first(name, array, bad)}, outside the vocabulary 0 ... {vocab_size - 1}. {remedy}.")
    return array.astype(np.int64)


def checked_mask(name: str, mask: Any, shape: tuple[int, int], *, padding: int | None = None) -> HostArray:
    """A mask of 0 and 1 as int64 of exactly that shape.

    Args:
        name: the argument's name, for messages.
        mask: nested lists or an array; booleans and floats count if they are 0 and 1.
        shape: the required shape.
        padding: one more allowed value (-1 in the global mask: the tokenizer pads with it).
    """
    array = as_array(name, mask)
    if array.shape != shape:
        raise InputError(
            f"{name} has shape {array.shape}, but the tokens it speaks of have shape {shape}. "
            "Give one entry for each token; the tokenizer's pad() keeps ids and masks together."
        )
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {array.dtype} values; a mask holds 0 and 1.")
    allowed = (0, 1) if padding is None else (padding, 0, 1)
    bad = ~np.isin(array, allowed)
    if bad.any():
        raise InputError(
            f"{_first(name, array, bad)}; only {', '.join(map(str, allowed))} may stand there. "
            "A mask says which tokens count, it does not weigh them."
        )
    return array.astype(np.int64)


def checked_embeds(name: str, embeds: Any, config: LEDConfig, dtype: str) -> HostArray:
    """Embeddings as (B, length, D) of the model's dtype."""
    array = as_array(name, embeds)
    if array.ndim != 3 or 0 in array.shape or array.shape[-1] != config.d_model or array.dtype.kind != "f":
        raise InputError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; it must hold floats of shape "
            f"(batch, length, d_model {config.d_model})."
        )
    finite = np.isfinite(array)
    if not finite.all():
        raise InputError(f"{_first(name, array, ~finite)}; every result would be NaN. Give finite numbers.")
    return array.astype(dtype, copy=False)


def check_source_length(length: int, config: LEDConfig) -> None:
    """Refuse a document that is longer than the encoder's position table."""
    limit = config.max_encoder_position_embeddings
    if length > limit:
        raise InputError(
            f"The document has {length} tokens, but this model reads at most {limit} "
            "(max_encoder_position_embeddings). Shorten it, pass truncation=True to cut it off, or split it."
        )


def check_target_length(before: int, new: int, config: LEDConfig) -> None:
    """Refuse a target that is longer than the decoder's position table."""
    limit = config.max_decoder_position_embeddings
    if before + new > limit:
        cached = f" ({before} in the cache and {new} new)" if before else ""
        raise InputError(
            f"The decoder is given {before + new} positions{cached}, but this model writes at most {limit} "
            "(max_decoder_position_embeddings). Shorten decoder_input_ids or labels."
        )


def refuse_unmasked_padding(ids_BT: HostArray, pad_token_id: int | None) -> None:
    """Refuse pad ids that come without a mask: treated as text they would change the result silently."""
    padded = ids_BT == pad_token_id
    if padded.any():
        raise InputError(
            f"input_ids{np.argwhere(padded)[0].tolist()} is the pad id {pad_token_id}, but there is no attention_mask. "
            "Pass the tokenizer's attention_mask (or a mask of ones, if the pad token is meant as text)."
        )


def refuse_unmasked_prompt_padding(ids_BP: HostArray, pad_token_id: int | None, start_token_id: int | None) -> None:
    """Refuse pad ids in a prompt without a mask: read as text they would change what follows. A start id may be pad."""
    padded = ids_BP == pad_token_id
    if pad_token_id == start_token_id:
        padded[:, 0] = False
    if padded.any():
        raise InputError(
            f"decoder_input_ids{np.argwhere(padded)[0].tolist()} is the pad id {pad_token_id}, but there is no "
            "decoder_attention_mask. Pass one, with 0 where the prompt is padded (or with ones, if pad is meant as text)."
        )


def check_rows(rows: int, cache: DecoderCache, encoded: LEDEncoderBaseModelOutput | None) -> None:
    """Refuse targets whose rows do not belong to the documents or to the cache."""
    documents = len(encoded.last_hidden_state) if encoded else cache.source_shape[0]
    if rows % documents:
        raise InputError(
            f"There are {rows} target rows for {documents} documents; give every document the same number of rows."
        )
    if cache.rows != rows:
        raise InputError(f"There are {rows} target rows, but past_key_values was made for {cache.rows}.")


def checked_encoder_outputs(given: Any, config: LEDConfig) -> LEDEncoderBaseModelOutput:
    """The encoder's output, from the output of model.encoder, or from a tuple or array of the states alone."""
    if not isinstance(given, LEDEncoderBaseModelOutput):
        states = given[0] if isinstance(given, tuple | list) and given else given
        given = LEDEncoderBaseModelOutput(
            states if hasattr(getattr(states, "dtype", None), "kind") else as_array("encoder_outputs", states)
        )
    output: LEDEncoderBaseModelOutput = given
    shape = tuple(output.last_hidden_state.shape)
    if len(shape) != 3 or 0 in shape or shape[-1] != config.d_model or output.last_hidden_state.dtype.kind != "f":
        raise InputError(
            f"encoder_outputs holds {output.last_hidden_state.dtype} states of shape {shape}; give floats (batch, length, "
            f"d_model {config.d_model})."
        )
    return output


def check_labels_shape(labels_NU: HostArray, shape: tuple[int, ...]) -> None:
    """Refuse labels that are not one for each target position."""
    if labels_NU.shape != tuple(shape):
        raise InputError(
            f"labels has shape {labels_NU.shape}, but the target has shape {tuple(shape)}. Give one label for each position."
        )


def checked_positions(name: str, positions: Any, rows: int) -> HostArray:
    """Positions of answers' first or last tokens, int64 (B,). One beyond the end is allowed (losses.span_loss)."""
    array = as_array(name, positions)
    if array.shape == (rows, 1):
        array = array[:, 0]
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise InputError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; give one whole number for each of the {rows} rows."
        )
    if (array < 0).any():
        raise InputError(
            f"{_first(name, array, array < 0)}; positions count from 0. For a row without an answer give the position of <s>, "
            "0; for an answer in a part that was cut off, the length or more: it does not count then."
        )
    return array.astype(np.int64)


def checked_class_labels(labels: Any, rows: int, num_labels: int, problem_type: str | None) -> tuple[str, HostArray]:
    """The problem type, and the labels in its form: int64 (B,) for a single label, else float64 (B, Y).

    Args:
        labels: numbers of labels, (B,) or (B, 1); 0 and 1 for each label, (B, Y); or the values of a regression, (B, Y),
            for Y = 1 also (B,).
        rows: B.
        num_labels: Y.
        problem_type: one of config.PROBLEM_TYPES; None: a regression if Y is 1; else a single label if the labels are
            whole numbers, several if they are floats.

    Raises:
        InputError: for another shape, or values that cannot be.
    """
    array = as_array("labels", labels)
    is_whole = array.dtype.kind in "iu"
    if problem_type is None:
        problem_type = REGRESSION if num_labels == 1 else SINGLE_LABEL if is_whole else MULTI_LABEL
    is_single = problem_type == SINGLE_LABEL
    shapes = [(rows,), (rows, 1)] if is_single else [(rows, num_labels)] + [(rows,)] * (num_labels == 1)
    if array.shape not in shapes or array.dtype.kind not in ("iu" if is_single else "biuf"):
        raise InputError(
            f"labels has shape {array.shape} and dtype {array.dtype}; for {problem_type} give "
            f"{'whole numbers' if is_single else 'numbers'} of shape {' or '.join(map(str, shapes))}."
        )
    if is_single:
        bad = (array != IGNORED_LABEL) & ((array < 0) | (array >= num_labels))
        allowed = f"the labels are 0 ... {num_labels - 1}, and {IGNORED_LABEL} does not count"
    elif problem_type == MULTI_LABEL:
        bad = ~((array >= 0) & (array <= 1))
        allowed = "each label is there, 1, or not, 0 (or somewhere between)"
    else:
        bad = ~np.isfinite(array)
        allowed = "a regression learns finite numbers"
    if bad.any():
        raise InputError(f"{_first('labels', array, bad)}; {allowed} (problem_type is {problem_type}).")
    if is_single:
        return problem_type, array.astype(np.int64).reshape(rows)
    return problem_type, array.astype(np.float64).reshape(rows, num_labels)


def checked_scores(scores: Any) -> tuple[HostArray, ...]:
    """The scores of the steps of a search: each (N, V) numbers."""
    if not isinstance(scores, tuple | list):
        raise wrong_type("scores", scores, "a tuple with the scores of each step, result.scores")
    arrays = tuple(as_array(f"scores[{n}]", of_step) for n, of_step in enumerate(scores))
    for n, array in enumerate(arrays):
        if array.ndim != 2 or array.dtype.kind != "f" or array.shape != arrays[0].shape:
            raise InputError(
                f"scores[{n}] has shape {array.shape} and dtype {array.dtype}; give floats (rows, ids) of each step."
            )
    return arrays


def checked_beam_indices(indices: Any) -> HostArray:
    """The rows of the step function that chose each id: whole numbers of at least -1, (rows, steps)."""
    array = as_array("beam_indices", indices)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "iu" or (array < -1).any():
        raise InputError(
            f"beam_indices has shape {array.shape} and dtype {array.dtype}; give result.beam_indices, (rows, steps)."
        )
    return array.astype(np.int64)


def exactly_one(choices: dict[str, Any], remedy: str) -> str:
    """The name of the one argument that is not None."""
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        found = " and ".join(given) if given else f"none of {', '.join(choices)}"
        raise InputError(f"Found {found}; give exactly one of {', '.join(choices)}. {remedy}")
    return given[0]


def _flat_first(array: HostArray) -> object:
    return array.flat[0] if array.size else None


def _first(name: str, array: HostArray, bad: HostArray) -> str:
    """The first of the bad values with its place: "input_ids[0, 3] is -1"."""
    place = np.argwhere(bad)[0].tolist()
    return f"{name}{place} is {quoted(array[tuple(place)].tolist() if array.dtype != object else array[tuple(place)])}"


def as_array(name: str, values: Any) -> HostArray:
    """The values as an array, whole numbers among objects as int64, or an error that says which row is of another length."""
    if isinstance(values, bytearray | Mapping):  # NumPy would take bytes for numbers
        raise wrong_type(name, values, "nested lists of numbers or an array; an encoding goes in as **encoding")
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(
            f"{name} is a masked array, whose mask would be lost. Give its data, {name}.data, and say with attention_mask "
            "which tokens count."
        )
    try:
        array = np.asarray(values)
    except Exception as error:  # whatever another library's __array__ raises
        _refuse_unequal_rows(name, values)
        raise wrong_type(
            name, values, f"nested lists of numbers or an array, and this cannot be read ({error})"
        ) from error
    if array.dtype == object:
        _refuse_unequal_rows(name, array.tolist() if array.ndim else values)
        if array.size and all(map(is_integer, array.flat)):
            return array if any(abs(int(value)) > _INT64 for value in array.flat) else array.astype(np.int64)
    if array.ndim == 0 and not isinstance(values, np.ndarray | np.generic | str | int | float):
        raise wrong_type(name, values, "nested lists of numbers or an array")
    return array


def _refuse_unequal_rows(name: str, rows: Any) -> None:
    lengths = {len(row) for row in rows if hasattr(row, "__len__")} if isinstance(rows, list | tuple) else set()
    if len(lengths) > 1:
        raise InputError(
            f"The rows of {name} are of different lengths ({', '.join(map(str, sorted(lengths)))}). "
            "Pad them to one length with the tokenizer's pad(), which keeps ids and masks together."
        )
