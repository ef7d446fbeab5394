"""Validation: every input of the model is checked here once, so that model/ can trust it.

Every function takes lists or arrays and returns a NumPy array of a known dtype and shape, or raises InputError with the
found value and the remedy. An index out of range would wrap around silently on a GPU and give a wrong number; it is
refused before it gets there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.classes.outputs import LEDEncoderBaseModelOutput
from led_ref.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LEDConfig
from led_ref.errors import InputError
from led_ref.model.kv_cache import DecoderCache
from led_ref.model.losses import IGNORED_LABEL


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
    array = _as_array(name, ids)
    if array.ndim != 2:
        raise InputError(
            f"{name} has shape {array.shape}; it must be (batch, length). For one text wrap it in a list: [{name}]."
        )
    if 0 in array.shape:
        raise InputError(f"{name} has shape {array.shape}: it is empty. Give at least one row of at least one id.")
    if not np.issubdtype(array.dtype, np.integer):
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
    array = _as_array(name, mask)
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
    array = np.asarray(embeds)
    if array.ndim != 3 or 0 in array.shape or array.shape[-1] != config.d_model or array.dtype.kind != "f":
        raise InputError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; it must hold floats of shape "
            f"(batch, length, d_model {config.d_model})."
        )
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
        states = given[0] if isinstance(given, tuple | list) else given
        given = LEDEncoderBaseModelOutput(np.asarray(states) if isinstance(states, list) else states)
    output: LEDEncoderBaseModelOutput = given
    shape = tuple(output.last_hidden_state.shape)
    if len(shape) != 3 or 0 in shape or shape[-1] != config.d_model:
        raise InputError(
            f"encoder_outputs holds states of shape {shape}; they must be (batch, length, d_model {config.d_model})."
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
    array = _as_array(name, positions)
    if array.shape == (rows, 1):
        array = array[:, 0]
    if array.shape != (rows,) or not np.issubdtype(array.dtype, np.integer):
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
    array = _as_array("labels", labels)
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


def exactly_one(choices: dict[str, Any], remedy: str) -> str:
    """The name of the one argument that is not None."""
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        found = " and ".join(given) if given else f"none of {', '.join(choices)}"
        raise InputError(f"Found {found}; give exactly one of {', '.join(choices)}. {remedy}")
    return given[0]


def _first(name: str, array: HostArray, bad: HostArray) -> str:
    """The first of the bad values with its place: "input_ids[0, 3] is -1"."""
    place = np.argwhere(bad)[0].tolist()
    return f"{name}{place} is {array[tuple(place)]}"


def _as_array(name: str, values: Any) -> HostArray:
    """The values as an array, or an error that says which row is of another length."""
    try:
        return np.asarray(values)
    except ValueError as error:
        lengths: Sequence[int] = sorted({len(row) for row in values if hasattr(row, "__len__")})
        raise InputError(
            f"The rows of {name} are of different lengths ({', '.join(map(str, lengths))}). "
            "Pad them to one length with the tokenizer's pad(), which keeps ids and masks together."
        ) from error
