"""Many documents: which are written together, how, and what each of them gets.

Documents are read one at a time: the encoder is busy with one already, and reading several at once gains it nothing. They
may be *written* together: a step of the decoder reads all weights to write one id, and can as well write one for each of
several documents with them. What that gains on a CPU is in docs/performance.md.

A batch is cut to documents of about one length, since all of a batch take the memory of its longest, and to a budget of
memory, counted before anything runs (memory_plan.py). Longest first: what will not fit shows early.

    >>> plan_batches([5, 900, 7, 880], most=3, fits=lambda longest, count: longest * count <= 2000)
    [[1, 3], [2, 0]]

What a document gets does not depend on its batch: its states are made alone, padding is masked, and the search keeps
documents apart. Only the last bits of the logits may differ, because a product of more rows adds up in another order.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from led_ref.classes.encoder import Progress
from led_ref.classes.generate_outputs import GenerateBeamEncoderDecoderOutput, GenerateEncoderDecoderOutput
from led_ref.classes.outputs import LEDEncoderBaseModelOutput
from led_ref.costs import memory as memory_plan
from led_ref.costs.device_memory import device_errors
from led_ref.costs.operations import Workload
from led_ref.errors import InputError, LEDError, SettingsError
from led_ref.generation.settings.settings import GenerationSettings
from led_ref.tokenizer.tokenizer import LEDTokenizer

if TYPE_CHECKING:
    from led_ref.classes.led import LEDForConditionalGeneration

Generated = GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput

# Bytes that what is written together may take beside the weights, unless the caller says otherwise.
BATCH_MEMORY = 1 << 30


@dataclass(frozen=True)
class Document:
    """One document as the model reads it: its ids, and which of them are global (0 or 1 for each)."""

    ids: Sequence[int]
    global_mask: Sequence[int]


@dataclass(frozen=True)
class Written:
    """The texts of one document, num_return_sequences of them, the best first.

    Args:
        ids: of each text, prompt first, without padding.
        scores: of each text, from beam search; else None.
    """

    ids: list[list[int]]
    scores: list[float] | None


def plan_batches(lengths: Sequence[int], *, most: int, fits: Callable[[int, int], bool]) -> list[list[int]]:
    """The documents by number, in batches of neighbours by length, the longest first.

    Args:
        lengths: tokens of each document.
        most: documents in a batch.
        fits: whether so many documents, of which the longest has so many tokens, may be together: fits(longest, count).
            One alone is never asked for.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and len(batches[-1]) < most and fits(lengths[batches[-1][0]], len(batches[-1]) + 1):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def write_each(
    model: "LEDForConditionalGeneration",
    documents: Sequence[Document],
    settings: Mapping[str, Any],
    *,
    batch_size: int = 1,
    batch_memory: int = BATCH_MEMORY,
    cross_attention: str = "cached",
    progress: Progress | None = None,
    tokenizer: LEDTokenizer | None = None,
    skip: Collection[int] = (),
) -> Iterator[tuple[int, Written | LEDError]]:
    """What is written for each document, with its number, as it is done; an error if it could not be.

    With a batch_size of 1 they come in their order, else the longest first.

    Args:
        model: what reads and writes.
        documents: as it reads them.
        settings: of generate.
        batch_size: documents written together, at most. Rules that look at the ids of the source count padding as text, and
            max_time counts what all of them take: with one of these each document is written alone.
        batch_memory: bytes that a batch may take beside the weights; one document may take more.
        cross_attention: see LEDForConditionalGeneration.generate.
        progress: told after each encoder layer and each token, of all documents that are written together.
        tokenizer: what stop_strings need.
        skip: numbers of documents that are not wanted. The batches are those of all documents nevertheless, so that none is
            computed in other company than without `skip`.

    Raises:
        SettingsError: for settings that no document can be written with, or a batch_size or batch_memory below 1.
    """
    for name, value in (("batch_size", batch_size), ("batch_memory", batch_memory)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingsError(f"{name} is {value!r}; give a whole number of at least 1.")
    resolved: GenerationSettings = model.effective_settings(**settings)
    looks_at_source = resolved.encoder_no_repeat_ngram_size > 0 or resolved.encoder_repetition_penalty != 1.0

    def fits(longest: int, count: int) -> bool:
        new = resolved.max_length - 1
        folded = cross_attention == "folded"
        cache = resolved.cache_implementation if resolved.use_cache else "none"
        load = Workload(longest, count, resolved.rows_per_document, new, dtype=model.dtype, folded=folded, cache=cache)
        return memory_plan.plan(model.config, load).writing <= batch_memory

    if batch_size == 1 or looks_at_source or resolved.max_time is not None:
        batches = [[i] for i in range(len(documents))]
    else:
        batches = plan_batches([len(document.ids) for document in documents], most=batch_size, fits=fits)
    given = {**settings, "cross_attention": cross_attention, "return_dict_in_generate": True, "tokenizer": tokenizer}
    seeds = resolved.seed
    if isinstance(seeds, tuple) and len(seeds) != len(documents):
        raise SettingsError(
            f"seed holds {len(seeds)} numbers, but there are {len(documents)} documents. Give one seed, or one for each."
        )

    def attempt(batch: Sequence[int]) -> list[tuple[int, Written | LEDError]]:
        try:
            own = {"seed": [seeds[i] for i in batch]} if isinstance(seeds, tuple) else {}
            found = write_together(model, [documents[i] for i in batch], {**given, **own}, progress)
        except LEDError as error:
            if len(batch) == 1:
                return [(batch[0], error)]
            # Each alone, then: the others of the batch are not to suffer.
            return [pair for i in batch for pair in attempt([i])]
        return [(i, _of_one(found, place, resolved)) for place, i in enumerate(batch)]

    for batch in batches:
        if not set(batch) <= set(skip):
            yield from (pair for pair in attempt(batch) if pair[0] not in skip)


def write_together(
    model: "LEDForConditionalGeneration",
    documents: Sequence[Document],
    settings: Mapping[str, Any],
    progress: Progress | None = None,
) -> Generated:
    """Read the documents one after the other, and write for all of them at once."""
    if len(documents) == 1:
        ids = documents[0].ids
        found: Generated = model.generate(
            [ids],
            attention_mask=[[1] * len(ids)],
            global_attention_mask=[documents[0].global_mask],
            progress=progress,
            **settings,
        )
        return found
    B, T = len(documents), max(len(document.ids) for document in documents)
    mask_BT = np.zeros((B, T), np.int64)
    states_BTD = None
    for b, document in enumerate(documents):
        length = len(document.ids)
        mask_BT[b, :length] = 1
        read = model.encoder(
            [document.ids],
            attention_mask=[[1] * length],
            global_attention_mask=[document.global_mask],
            progress=None if progress is None else _part(progress, b, B),
        ).last_hidden_state
        if states_BTD is None:
            with device_errors(model.backend):
                states_BTD = model.backend.xp.zeros((B, T, read.shape[-1]), dtype=read.dtype)
        states_BTD[b, :length] = read[0]
    assert states_BTD is not None
    states = LEDEncoderBaseModelOutput(last_hidden_state=states_BTD)
    written: Generated = model.generate(encoder_outputs=states, attention_mask=mask_BT, progress=progress, **settings)
    return written


def _part(progress: Progress, place: int, parts: int) -> Progress:
    """The progress of one document of several, as that of all."""
    return lambda stage, done, total: progress(stage, place * total + done, parts * total)


def _of_one(found: Generated, place: int, settings: GenerationSettings) -> Written:
    """What of a result is one document's, without what fills its rows up to the length of others."""
    R = settings.num_return_sequences
    texts = []
    for row in found.sequences[place * R : (place + 1) * R].tolist():
        length = len(row)
        while length > 1 and row[length - 1] == settings.fill_token_id:
            length -= 1
        # Where an end also fills up, the first of them is text.
        is_end = settings.fill_token_id in settings.eos_token_ids and length < len(row)
        texts.append(row[: length + is_end])
    if not isinstance(found, GenerateBeamEncoderDecoderOutput) or found.sequences_scores is None:
        return Written(texts, None)
    return Written(texts, [float(score) for score in found.sequences_scores[place * R : (place + 1) * R]])


def listed(texts: Any) -> list[Any]:
    """The documents as a list, or an error that says what was given instead."""
    if isinstance(texts, bytes | bytearray | Mapping | Path) or not isinstance(texts, Iterable):
        remedy = (
            "of a file, pass its text: path.read_text()" if isinstance(texts, Path) else "decode or take out the text"
        )
        raise InputError(f"A document is {type(texts).__name__}, not str. Give a text or a list of texts ({remedy}).")
    listed = list(texts)
    if not listed:
        raise InputError("There are no documents: the list is empty. Give at least one text.")
    return listed
