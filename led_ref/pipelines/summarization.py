"""`LED`: documents in, generated texts out; at once, document by document, or as a stream.

    led = led_ref.load("allenai/led-large-16384-arxiv")
    led.generate(text, num_beams=4)                     one text
    led.generate(texts, batch_size=4)                   a list of texts
    for i, summary in led.generate_each(texts): ...     each text as soon as its batch is done
    for piece in led.stream(text, num_beams=1): ...     one text, token by token

Several documents may be decoded together: batching.py. An error stays with its document.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, Unpack, overload

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.input_checks import check_types
from led_ref.classes.led import Progress
from led_ref.errors import InputError, LEDError, SettingsError, wrong_type
from led_ref.generation.settings.typed import SettingsByName
from led_ref.pipelines import batching
from led_ref.pipelines.batching import BATCH_MEMORY, batches_of, check_document_list, encode_each
from led_ref.pipelines.loading import (
    Document,
    GlobalAttention,
    TextPipeline,
    Written,
    for_each_document,
    refuse_misplaced,
    shown_progress,
)
from led_ref.pipelines.splitting import OVERLAP, check_split, prepare_pieces, text_of_pieces
from led_ref.tokenizer.decoding import text_pieces
from led_ref.tokenizer.tokenizer import LEDTokenizer


@dataclass(frozen=True)
class TextOptions:
    """The keyword arguments of `LED.generate` that are no generation settings: how documents are read and batched.

    Args:
        global_attention: the tokens with global attention: "first" (as LED was trained), "none", "all", a list of
            positions and tokens, such as [0, "<doc-sep>"] (wherever it stands), or a 0/1 array over the tokens. Positions
            count from 0, the start token `<s>`. For several documents also a list of such lists and arrays, one for each.
        truncation: cut a document that is longer than the model's input, keeping its beginning; False: refuse it.
        cross_attention: "cached", or "folded" to save memory; see LEDForConditionalGeneration.generate.
        batch_size: the most documents that are decoded together. Above 1 it is faster (docs/performance.md) and takes the
            memory of so many. The texts are the same; only the last bits of the logits may differ.
        batch_memory: bytes that a batch may take beside the weights; where that is too little, batches are smaller. A single
            document may take more.
        split: what is done with a document that is longer than the model's input, in place of refusing it. "join": its pieces
            are summarized, and the summaries put one under the other; "again": these are summarized, too (splitting.py).
        overlap: with `split`, the most tokens that a piece repeats of the one before it.
        progress: called after each encoder layer and each generated token, with the counts of the whole batch; True: bars on
            standard error, of several documents one over all of them too.
    """

    global_attention: GlobalAttention = "first"
    truncation: bool = False
    cross_attention: str = "cached"
    batch_size: int = 1
    batch_memory: int = BATCH_MEMORY
    split: str | None = None
    overlap: int = OVERLAP
    progress: Progress | bool | None = None

    @classmethod
    def separate(cls, arguments: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Separate the keyword arguments of a call into these options and the generation settings, and check the latter.

        Raises:
            SettingsError: as `check_settings`.
        """
        names = {field.name for field in fields(cls)}
        settings = {name: value for name, value in arguments.items() if name not in names}
        check_settings(settings)
        options = check_types(cls)(**{name: value for name, value in arguments.items() if name in names})
        if options.split is not None:
            check_split(options.split, truncation=options.truncation, seed=settings.get("seed"))
        return options, settings


class OptionsByName(SettingsByName, total=False):
    """TextOptions and the settings of a generation by name, for editors and type checkers; a test compares them."""

    global_attention: GlobalAttention
    truncation: bool
    cross_attention: str
    batch_size: int
    batch_memory: int
    split: str | None
    overlap: int
    progress: Progress | bool | None


@dataclass(frozen=True)
class LED(TextPipeline[LEDForConditionalGeneration]):
    """A model that generates and its tokenizer, loaded once: text in, text out. Arguments as in TextPipeline."""

    model_class = LEDForConditionalGeneration
    task = "summarization"

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str, and comes first
        self, text: str, **options: Unpack[OptionsByName]
    ) -> str | list[str]: ...
    @overload
    def generate(self, text: Sequence[str], **options: Unpack[OptionsByName]) -> list[str] | list[list[str]]: ...
    def generate(
        self, text: str | Sequence[str], **options: Unpack[OptionsByName]
    ) -> str | list[str] | list[list[str]]:
        """Generate a text for each document.

        Args:
            text: one document or several.
            options: `TextOptions` (global_attention="first", truncation=False, cross_attention="cached", batch_size=1,
                batch_memory, split=None, overlap, progress) and the settings of LEDForConditionalGeneration.generate
                (num_beams, max_new_tokens, ...). A `seed` that is a list has one number for each document.

        Returns:
            A string for one document, a list of strings for several, in their order; with num_return_sequences > 1 each
            string becomes a list of strings.

        Raises:
            InputError: if a document is empty or too long (of several, the message says which; none is read then).
            LEDError: if writing for a document fails. Of several, the others are written first, and are the error's `texts`.
            SettingsError: for a setting that does not exist or contradicts another.
        """
        chosen, settings = TextOptions.separate(options)
        # All documents are checked before the first is read: the last one being too long should not cost an hour.
        if isinstance(text, str):
            documents = [self.pieces_of(text, chosen)]
        else:
            given = check_document_list(text)
            own = iter(for_each_document(chosen.global_attention, len(given)))
            documents = batching.prepared_each(
                given, lambda one: self.pieces_of(one, replace(chosen, global_attention=next(own)))
            )
        texts: list[Any] = [None] * len(documents)
        errors: dict[int, LEDError] = {}
        for i, found in self.generate_prepared(documents, chosen, settings):
            if isinstance(found, LEDError):
                errors[i] = found
            else:
                texts[i] = found
        if errors:
            raise errors[0] if isinstance(text, str) else batching.error_of_several(errors, texts)
        return texts[0] if isinstance(text, str) else texts

    def generate_each(
        self, texts: Iterable[str], **options: Unpack[OptionsByName]
    ) -> Iterator[tuple[int, str | list[str] | LEDError]]:
        """Generate a text for each document, and yield it as soon as it is done; a refused document does not stop the rest.

        Arguments as in `generate`.

        Yields:
            (number of the document, its text), or (number, the LEDError that refuses it). With a batch_size of 1 in the
            order of the documents, the refused ones first; else the longest first.

        Raises:
            SettingsError: for a setting that does not exist or contradicts another.
            InputError: for an empty list; for one text, whose letters would each be a document (ArgumentTypeError).
        """
        chosen, settings = TextOptions.separate(options)
        if isinstance(texts, str):
            raise wrong_type("texts", texts, "a list of texts: [text]")
        documents, numbers, given = [], [], check_document_list(texts)
        globals_of = for_each_document(chosen.global_attention, len(given))
        for i, text in enumerate(given):
            try:
                documents.append(self.pieces_of(text, replace(chosen, global_attention=globals_of[i])))
                numbers.append(i)
            except LEDError as error:
                yield i, error
        for k, found in self.generate_prepared(documents, chosen, settings):
            yield numbers[k], found

    def stream(self, text: str, **options: Unpack[OptionsByName]) -> Iterator[str]:
        """Generate a text for a document, and yield it in pieces that together are what `generate` returns.

        No piece ends inside a character. The document is read before this returns; each piece is generated on request.

        Args:
            text: one document.
            options: as in `generate`, without batch_size, batch_memory, split and overlap. Beam search decides at its end, so
                num_beams must be 1: greedy search, or sampling with do_sample=True.

        Raises:
            InputError: as `generate`.
            SettingsError: if num_beams or num_return_sequences is above 1; else as `generate`.
        """
        chosen, settings = TextOptions.separate(options)
        for name in ("batch_size", "batch_memory", "split", "overlap"):
            if name in options:
                raise SettingsError(f"{name} is for generate: stream decodes one document. Leave it out.")
        if chosen.progress is True:
            raise SettingsError(
                "progress is True, but stream yields the text as it is written. Pass a function or None."
            )
        (document,) = self.pieces_of(text, chosen)
        settings.update(cross_attention=chosen.cross_attention, progress=chosen.progress or None)
        return self.stream_prepared(document, **settings)

    def stream_prepared(self, document: Document, **options: Any) -> Iterator[str]:
        """As `stream`, for a document that `prepare` returned."""
        settings = {name: value for name, value in options.items() if name not in ("cross_attention", "progress")}
        texts = self.model.effective_settings(**settings).num_return_sequences
        if texts > 1:
            raise SettingsError(f"num_return_sequences is {texts}, but one text is streamed at a time. Leave it out.")
        ids_of_steps = self.model.stream([document.ids], **document.masks(), tokenizer=self.tokenizer, **options)
        return text_pieces(self.tokenizer, (int(token_id) for (token_id,) in ids_of_steps))

    @check_types
    def prepare(self, text: str, *, global_attention: GlobalAttention = "first", truncation: bool = False) -> Document:
        """A document as the model reads it: its ids, and which of them have global attention.

        Raises:
            InputError: as `encode`, and for a global_attention that does not fit.
        """
        ids = self.encode(text, truncation=truncation)
        return Document(ids, self.global_mask(ids, global_attention))

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> tuple[Path, ...]:
        """Write model and tokenizer into one folder, which `load` and transformers read; all of it, or nothing.

        Arguments (max_shard_size, overwrite), errors and the returned files of weights as in
        LEDPreTrainedModel.save_pretrained.
        """
        return self.model.save_pretrained(save_directory, others=self.tokenizer.save_pretrained, **options)

    def write_in_pieces(
        self, documents: Sequence[Document], strategy: str, settings: Mapping[str, Any], *,
        global_attention: GlobalAttention = "first", overlap: int = OVERLAP, **batches: Any,
    ) -> str:  # fmt: skip
        """The text of a document in pieces; arguments as in TextOptions, and what `write_each` takes besides.

        Raises:
            SettingsError: if several texts are asked for.
            InputError: if the summaries do not become shorter.
        """
        if (several := self.model.effective_settings(**settings).num_return_sequences) > 1:
            raise SettingsError(f"num_return_sequences is {several}, but of a document in pieces one text is made.")

        def write(pieces: Sequence[Document]) -> list[str]:
            texts = [""] * len(pieces)
            for k, written in write_each(self.model, pieces, settings, tokenizer=self.tokenizer, **batches):
                if isinstance(written, LEDError):
                    raise written
                texts[k] = self.texts_of(written)[0]
            return texts

        prepare = partial(prepare_pieces, self, global_attention=global_attention, overlap=overlap)
        return text_of_pieces(documents, strategy, write=write, prepare=prepare)

    def pieces_of(self, text: str, options: TextOptions) -> list[Document]:
        """A document as the model reads it with these options: one, or several pieces.

        Raises:
            InputError: as `prepare` and splitting.prepare_pieces.
        """
        if options.split is not None:
            return prepare_pieces(self, text, global_attention=options.global_attention, overlap=options.overlap)
        return [self.prepare(text, global_attention=options.global_attention, truncation=options.truncation)]

    def generate_prepared(
        self, prepared: Sequence[Sequence[Document]], options: TextOptions, settings: Mapping[str, Any],
        skip: Collection[int] = (),
    ) -> Iterator[tuple[int, str | list[str] | LEDError]]:  # fmt: skip
        """The number of each document and its text (with num_return_sequences > 1 its texts), or its error.

        `skip` as in `write_each`; the rest as `pieces_of` and `TextOptions.separate` return it.
        """
        given = {name: getattr(options, name) for name in ("batch_size", "batch_memory", "cross_attention")}
        whole = [i for i, documents in enumerate(prepared) if len(documents) == 1]
        with shown_progress(options.progress, len(prepared)) as (progress, count):
            given.update(progress=progress)
            documents = [prepared[i][0] for i in whole]
            left_out = {k for k, i in enumerate(whole) if i in skip}
            for k, written in write_each(
                self.model, documents, settings, tokenizer=self.tokenizer, skip=left_out, **given
            ):  # fmt: skip
                count()
                if isinstance(written, LEDError):
                    yield whole[k], written
                    continue
                try:
                    texts = self.texts_of(written)
                    yield whole[k], texts if len(texts) > 1 else texts[0]
                except InputError as error:
                    yield whole[k], error
            given.update(global_attention=options.global_attention, overlap=options.overlap)
            for i in sorted(set(range(len(prepared))) - set(whole) - set(skip)):
                try:
                    yield i, self.write_in_pieces(prepared[i], options.split or "join", settings, **given)
                except LEDError as error:
                    yield i, error
                count()


# The keyword arguments of a call with text, for the error message about a misspelt one.
_ARGUMENTS = (*(field.name for field in fields(TextOptions)), "model", "backend", "dtype", "revision")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what needs no model to be refused: a misplaced or misspelt argument, a setting or value that does not exist.

    Raises:
        SettingsError: naming what to pass instead.
    """
    refuse_misplaced(settings, _ARGUMENTS)
    LEDForConditionalGeneration.check_settings(**settings)


# ---- batches -----------------------------------------------------------------------------------------------------------


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

    With a batch_size of 1 in the order of the documents, else the longest first. Arguments that are not described here are
    those of TextOptions. Processors that use the ids of the source count padding as text, and max_time limits a whole batch:
    with one of these each document is decoded alone, and so it is with prompt lookup.

    Args:
        model: encodes and decodes.
        documents: as the model reads them.
        settings: of generate.
        tokenizer: for stop_strings.
        skip: numbers of documents to leave out. The batches are those of all documents nevertheless, so that each document
            is computed in the same batch as without `skip`.

    Raises:
        SettingsError: for settings that no document can be decoded with, or a batch_size or batch_memory below 1.
    """
    for name, value in (("batch_size", batch_size), ("batch_memory", batch_memory)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingsError(f"{name} is {value!r}; give a whole number of at least 1.")
    resolved = model.effective_settings(**settings)
    limits: dict[str, Any] = {
        "batch_size": batch_size,
        "batch_memory": batch_memory,
        "cross_attention": cross_attention,
    }
    batches = [[0]] if len(documents) == 1 else batches_of(model, documents, settings, **limits)
    shared = {**settings, "cross_attention": cross_attention, "return_dict_in_generate": True, "tokenizer": tokenizer}
    seeds = resolved.seed
    if isinstance(seeds, tuple) and len(seeds) != len(documents):
        raise SettingsError(
            f"seed holds {len(seeds)} numbers, but there are {len(documents)} documents. Give one seed, or one for each."
        )

    def attempt(batch: Sequence[int]) -> list[tuple[int, Written | LEDError]]:
        try:
            own = {"seed": [seeds[i] for i in batch]} if isinstance(seeds, tuple) else {}
            found = _generate_batch(model, [documents[i] for i in batch], progress, **{**shared, **own})
        except LEDError as error:
            if len(batch) == 1:
                return [(batch[0], error)]
            # Then each document alone: the others of the batch must not fail with it.
            return [pair for i in batch for pair in attempt([i])]
        return [(i, Written.of(found, b, resolved)) for b, i in enumerate(batch)]

    for batch in batches:
        if not set(batch) <= set(skip):
            yield from (pair for pair in attempt(batch) if pair[0] not in skip)


def _generate_batch(
    model: LEDForConditionalGeneration, documents: Sequence[Document], progress: Progress | None, **settings: Any
) -> Any:
    """Generate for documents that are decoded together; one document alone is a plain call."""
    if len(documents) > 1:
        encoded, mask_BT = encode_each(model, documents, progress)
        return model.generate(encoder_outputs=encoded, attention_mask=mask_BT, progress=progress, **settings)
    (document,) = documents
    return model.generate([document.ids], **document.masks(), progress=progress, **settings)
