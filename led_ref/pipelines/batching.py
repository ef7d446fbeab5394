"""Batches: several documents that are decoded together.

Documents are encoded one at a time: one document already keeps the encoder busy, and a batch of several gains nothing. They
may be *decoded* together: a step of the decoder reads all weights to generate one id, and with the same read it can generate
one id for each of several documents. docs/performance.md has the gain on a CPU.

A batch holds documents of similar length, since each takes the memory of the longest, and keeps to a budget of memory that
is computed before anything runs (costs/memory.py). Longest first: a document that does not fit shows early.

    >>> plan_batches([5, 900, 7, 880], most=3, fits=lambda longest, count: longest * count <= 2000)
    [[1, 3], [2, 0]]

The texts of a document do not depend on its batch: its encoder states are computed alone, the padding mask hides padding, and
the search keeps documents apart. Only the last bits of the logits may differ, because a product of more rows adds up in
another order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from led_backends.contract import HostArray
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.led import Progress
from led_ref.classes.outputs import LEDEncoderBaseModelOutput
from led_ref.classes.pretrained import device_errors
from led_ref.costs import memory
from led_ref.costs.operations import Workload
from led_ref.errors import InputError, LEDError, quoted, wrong_type
from led_ref.pipelines.loading import Document, shown_progress

Item = TypeVar("Item")
Found = TypeVar("Found")

# Bytes that a batch may take beside the weights, unless the caller says otherwise.
BATCH_MEMORY = 1 << 30


def plan_batches(lengths: Sequence[int], *, most: int, fits: Callable[[int, int], bool]) -> list[list[int]]:
    """Sort the documents by length, the longest first, and cut them into batches of document numbers.

    Args:
        lengths: tokens of each document.
        most: the most documents in a batch.
        fits: whether a batch of `count` documents, the longest of `longest` tokens, may be decoded together:
            fits(longest, count). It is not called for a batch of one.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and len(batches[-1]) < most and fits(lengths[batches[-1][0]], len(batches[-1]) + 1):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def batches_of(
    model: LEDForConditionalGeneration, documents: Sequence[Document], settings: Mapping[str, Any], *, batch_size: int,
    batch_memory: int, cross_attention: str,
) -> list[list[int]]:  # fmt: skip
    """The numbers of the documents of each batch; arguments, and what is decoded alone, as in summarization.write_each.

    Raises:
        SettingsError: for settings that no document can be decoded with.
    """
    resolved = model.effective_settings(**settings)
    uses_source_ids = resolved.encoder_no_repeat_ngram_size > 0 or resolved.encoder_repetition_penalty != 1.0
    uses_source_ids |= resolved.looks_up

    def fits(longest: int, count: int) -> bool:
        new = resolved.max_length - 1
        folded = cross_attention == "folded"
        cache = resolved.cache_implementation if resolved.use_cache else "none"
        load = Workload(longest, count, resolved.rows_per_document, new, dtype=model.dtype, folded=folded, cache=cache)
        return memory.plan(model.config, load).writing <= batch_memory

    if batch_size == 1 or uses_source_ids or resolved.max_time is not None:
        return [[i] for i in range(len(documents))]
    return plan_batches([len(document.ids) for document in documents], most=batch_size, fits=fits)


def encode_each(
    model: LEDForConditionalGeneration, documents: Sequence[Document], progress: Progress | None
) -> tuple[LEDEncoderBaseModelOutput, HostArray]:
    """Encode the documents one after the other: their states (B, T, D), filled up with zeros, and the padding mask (B, T)."""
    B, T = len(documents), max(len(document.ids) for document in documents)
    mask_BT = np.zeros((B, T), np.int64)
    with device_errors(model.backend):
        states_BTD = model.backend.xp.zeros((B, T, model.config.d_model), dtype=model.dtype)
    for b, document in enumerate(documents):
        length = len(document.ids)
        mask_BT[b, :length] = 1
        of_batch = None if progress is None else _progress_of_batch(progress, b, B)
        states_BTD[b, :length] = model.encoder([document.ids], **document.masks(), progress=of_batch).last_hidden_state[
            0
        ]
    return LEDEncoderBaseModelOutput(states_BTD), mask_BT


def _progress_of_batch(progress: Progress, b: int, documents: int) -> Progress:
    """Count the layers of document b as a part of those of all documents."""
    return lambda stage, done, total: progress(stage, b * total + done, documents * total)


# ---- several documents given, several results ------------------------------------------------------------------------


def check_document_list(texts: Any, name: str = "text") -> list[Any]:
    """The documents as a list; `name` is the argument's.

    Raises:
        InputError: for an empty list, a data frame, or anything else that is no collection of texts. A column of one is taken.
    """
    if isinstance(texts, set | frozenset):  # whose text would be whose?
        raise wrong_type(name, texts, "a list of texts, which has an order")
    if isinstance(texts, bytes | bytearray | Mapping | Path) or not isinstance(texts, Iterable):
        remedy = (
            "of a file, pass its text: path.read_text()" if isinstance(texts, Path) else "decode or take out the text"
        )
        raise InputError(f"A document is {type(texts).__name__}, not str. Give a text or a list of texts ({remedy}).")
    if hasattr(texts, "columns"):  # of pandas, polars, Spark: iterated, they give the names of their columns
        raise wrong_type(name, texts, f"a column of such a frame, frame[name] (columns: {quoted(list(texts.columns))})")
    try:
        documents = list(texts)
    except Exception as error:  # an array without an axis, or what another library's iterator raises
        raise wrong_type(name, texts, "a text or a list of texts") from error
    if not documents:
        raise InputError("There are no documents: the list is empty. Give at least one text.")
    return documents


def prepared_each(texts: str | Sequence[str], prepare: Callable[[str], Item], name: str = "text") -> list[Item]:
    """Each document as the model reads it: all are checked before the first is read.

    Raises:
        LEDError: as `prepare`; of several documents it says which.
    """
    prepared = []
    for i, text in enumerate([texts] if isinstance(texts, str) else check_document_list(texts, name)):
        try:
            prepared.append(prepare(text))
        except LEDError as error:
            if isinstance(texts, str):
                raise
            raise type(error)(f"texts[{i}]: {error}") from error
    return prepared


def of_each(
    texts: str | Sequence[str],
    prepare: Callable[[str], Item],
    find: Callable[[Item, Progress | None], Found],
    progress: Progress | bool | None,
    name: str = "text",
) -> Found | list[Found]:
    """What is found for a text, or for each of several, one after the other.

    Args:
        texts: one document or several.
        prepare: gives a document as the model reads it.
        find: is given that, and what to call after each layer.
        progress: as in LED.generate.
        name: of the argument that holds the documents.

    Raises:
        LEDError: as `prepare` and `find`. Where one of several fails, the others are done first, and are the error's `texts`.
    """
    prepared = prepared_each(texts, prepare, name)
    found: list[Any] = [None] * len(prepared)
    errors: dict[int, LEDError] = {}
    with shown_progress(progress, len(prepared)) as (shown, count):
        for i, document in enumerate(prepared):
            try:
                found[i] = find(document, shown)
            except LEDError as error:
                errors[i] = error
            count()
    if errors:
        raise errors[0] if isinstance(texts, str) else error_of_several(errors, found)
    return found[0] if isinstance(texts, str) else found


def error_of_several(errors: Mapping[int, LEDError], results: Sequence[Any]) -> LEDError:
    """The error of the first document that failed, which says how many did, and has the results of the others as `texts`."""
    first = min(errors)
    error = type(errors[first])(
        f"texts[{first}]: {errors[first]} ({len(errors)} of {len(results)} documents failed; this error's `texts` are the "
        "results of the others.)"
    )
    error.texts = results
    return error
