"""Many documents: batches, the generated texts of each document, and errors that stay with their document.

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

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.encoder import Progress
from led_ref.classes.outputs import (
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
    LEDEncoderBaseModelOutput,
)
from led_ref.costs import memory
from led_ref.costs.operations import Workload
from led_ref.errors import InputError, LEDError, SettingsError
from led_ref.generation.settings.settings import GenerationSettings
from led_ref.tokenizer.tokenizer import LEDTokenizer

Generated = GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput

# Bytes that a batch may take beside the weights, unless the caller says otherwise.
BATCH_MEMORY = 1 << 30


@dataclass(frozen=True)
class Document:
    """One document as the model reads it: its ids, and its global attention mask (0 or 1 for each id)."""

    ids: Sequence[int]
    global_mask: Sequence[int]


@dataclass(frozen=True)
class Written:
    """The generated texts of one document, num_return_sequences of them, the best first.

    Args:
        ids: the ids of each text, prompt first, without padding.
        scores: the score of each text, from beam search; else None.
    """

    ids: list[list[int]]
    scores: list[float] | None


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


def write_each(
    model: LEDForConditionalGeneration,
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
    """Generate the texts of each document; yield (number of the document, its texts or its error) as each batch is done.

    With a batch_size of 1 in the order of the documents, else the longest first.

    Args:
        model: encodes and decodes.
        documents: as the model reads them.
        settings: of generate.
        batch_size: the most documents in a batch. Processors that use the ids of the source count padding as text, and
            max_time limits a whole batch: with one of these each document is decoded alone.
        batch_memory: bytes that a batch may take beside the weights; a single document may take more.
        cross_attention: see LEDForConditionalGeneration.generate.
        progress: called after each encoder layer and each generated token, with the counts of the whole batch.
        tokenizer: for stop_strings.
        skip: numbers of documents to leave out. The batches are those of all documents nevertheless, so that each document
            is computed in the same batch as without `skip`.

    Raises:
        SettingsError: for settings that no document can be decoded with, or a batch_size or batch_memory below 1.
    """
    for name, value in (("batch_size", batch_size), ("batch_memory", batch_memory)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingsError(f"{name} is {value!r}; give a whole number of at least 1.")
    resolved: GenerationSettings = model.effective_settings(**settings)
    uses_source_ids = resolved.encoder_no_repeat_ngram_size > 0 or resolved.encoder_repetition_penalty != 1.0

    def fits(longest: int, count: int) -> bool:
        new = resolved.max_length - 1
        folded = cross_attention == "folded"
        cache = resolved.cache_implementation if resolved.use_cache else "none"
        load = Workload(longest, count, resolved.rows_per_document, new, dtype=model.dtype, folded=folded, cache=cache)
        return memory.plan(model.config, load).writing <= batch_memory

    if batch_size == 1 or uses_source_ids or resolved.max_time is not None:
        batches = [[i] for i in range(len(documents))]
    else:
        batches = plan_batches([len(document.ids) for document in documents], most=batch_size, fits=fits)
    shared = {**settings, "cross_attention": cross_attention, "return_dict_in_generate": True, "tokenizer": tokenizer}
    seeds = resolved.seed
    if isinstance(seeds, tuple) and len(seeds) != len(documents):
        raise SettingsError(
            f"seed holds {len(seeds)} numbers, but there are {len(documents)} documents. Give one seed, or one for each."
        )

    def attempt(batch: Sequence[int]) -> list[tuple[int, Written | LEDError]]:
        try:
            own = {"seed": [seeds[i] for i in batch]} if isinstance(seeds, tuple) else {}
            found = _generate_batch(model, [documents[i] for i in batch], {**shared, **own}, progress)
        except LEDError as error:
            if len(batch) == 1:
                return [(batch[0], error)]
            # Then each document alone: the others of the batch must not fail with it.
            return [pair for i in batch for pair in attempt([i])]
        return [(i, _texts_of_one(found, b, resolved)) for b, i in enumerate(batch)]

    for batch in batches:
        if not set(batch) <= set(skip):
            yield from (pair for pair in attempt(batch) if pair[0] not in skip)


def _generate_batch(
    model: LEDForConditionalGeneration,
    documents: Sequence[Document],
    settings: Mapping[str, Any],
    progress: Progress | None,
) -> Generated:
    """Encode the documents one after the other, and decode all of them at once."""
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
            progress=None if progress is None else _progress_of_batch(progress, b, B),
        ).last_hidden_state
        if states_BTD is None:
            with memory.device_errors(model.backend):
                states_BTD = model.backend.xp.zeros((B, T, read.shape[-1]), dtype=read.dtype)
        states_BTD[b, :length] = read[0]
    assert states_BTD is not None
    states = LEDEncoderBaseModelOutput(last_hidden_state=states_BTD)
    written: Generated = model.generate(encoder_outputs=states, attention_mask=mask_BT, progress=progress, **settings)
    return written


def _progress_of_batch(progress: Progress, b: int, documents: int) -> Progress:
    """Count the layers of document b as a part of those of all documents."""
    return lambda stage, done, total: progress(stage, b * total + done, documents * total)


def _texts_of_one(found: Generated, b: int, settings: GenerationSettings) -> Written:
    """The texts of document b of a batch, without the padding after them."""
    R = settings.num_return_sequences
    texts = []
    for row in found.sequences[b * R : (b + 1) * R].tolist():
        length = len(row)
        while length > 1 and row[length - 1] == settings.fill_token_id:
            length -= 1
        # Where the end-of-sequence id also pads, the first one belongs to the text.
        is_end = settings.fill_token_id in settings.eos_token_ids and length < len(row)
        texts.append(row[: length + is_end])
    if not isinstance(found, GenerateBeamEncoderDecoderOutput) or found.sequences_scores is None:
        return Written(texts, None)
    return Written(texts, [float(score) for score in found.sequences_scores[b * R : (b + 1) * R]])


def check_document_list(texts: Any) -> list[Any]:
    """The documents as a list.

    Raises:
        InputError: for an empty list, or anything that is no collection of texts.
    """
    if isinstance(texts, bytes | bytearray | Mapping | Path) or not isinstance(texts, Iterable):
        remedy = (
            "of a file, pass its text: path.read_text()" if isinstance(texts, Path) else "decode or take out the text"
        )
        raise InputError(f"A document is {type(texts).__name__}, not str. Give a text or a list of texts ({remedy}).")
    documents = list(texts)
    if not documents:
        raise InputError("There are no documents: the list is empty. Give at least one text.")
    return documents
