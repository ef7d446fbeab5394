"""The one-call functions: text in, text out.

    >>> import led_ref
    >>> page = (led_ref.bundled_model() / "led-ref.1.txt").read_text()
    >>> led_ref.generate(page)  # the small bundled model on led-ref's own manual page
    'led-ref- - print files in a standard output'

`load` gives the loaded thing once for many calls; `generate` is `load(...).generate(...)`.
"""

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from led_backends.contract import Backend
from led_ref.classes.encoder import Progress
from led_ref.classes.led import LEDForConditionalGeneration
from led_ref.classes.pretrained import LEDPreTrainedModel
from led_ref.errors import InputError, LEDError, SettingsError
from led_ref.pipelines.batching import BATCH_MEMORY, Document, Written, listed, write_each
from led_ref.pipelines.global_attention import GlobalAttention as GlobalAttention
from led_ref.pipelines.global_attention import global_mask as global_mask
from led_ref.pipelines.streaming import StreamsText
from led_ref.tokenizer.tokenizer import LEDTokenizer

Model = TypeVar("Model", bound=LEDPreTrainedModel)

# What model.generate takes beside settings, and what a call on text has in its place.
_OF_IDS = {
    "input_ids": "give the text itself",
    "attention_mask": "a document has no padding, so it needs none",
    "global_attention_mask": "pass global_attention",
    "encoder_outputs": "give the text itself",
    "inputs_embeds": "give the text itself",
    "decoder_input_ids": "every text that is written starts afresh",
    "tokenizer": "it has its own",
    "logits_processor": "rules that are functions work on ids",
    "stopping_criteria": "rules that are functions work on ids",
    "prefix_allowed_tokens_fn": "rules that are functions work on ids",
    "return_dict_in_generate": "it gives ids and scores, not text",
    "output_scores": "the text alone is given",
    "output_logits": "the text alone is given",
    "output_attentions": "the text alone is given",
    "output_hidden_states": "the text alone is given",
}
_OF_TEXT = (
    "global_attention", "truncation", "cross_attention", "progress", "model", "backend", "dtype", "revision",
    "batch_size", "batch_memory",
)  # fmt: skip
# Of these, what says how a text is written and not what is.
_HOW = ("cross_attention", "progress", "batch_size", "batch_memory")

# Ai2's own checkpoints that were pretrained but never taught to summarize.
NOT_FINE_TUNED = ("allenai/led-base-16384", "allenai/led-large-16384")


def bundled_model() -> Path:
    """The folder of the small trained model that comes with led_ref (its card: MODEL_CARD.md in it)."""
    return Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class LED(StreamsText):
    """A model and its tokenizer, loaded: text in, text out.

    Args:
        model: what reads and writes ids.
        tokenizer: what makes ids of text and text of ids.
        name: the Hub name or folder that it came from.
    """

    model: LEDForConditionalGeneration
    tokenizer: LEDTokenizer
    name: str

    def generate(
        self,
        text: str | Sequence[str],
        *,
        global_attention: GlobalAttention = "first",
        truncation: bool = False,
        cross_attention: str = "cached",
        batch_size: int = 1,
        batch_memory: int = BATCH_MEMORY,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Any:
        """Write a text for each document.

        Args:
            text: one document or several.
            global_attention: "first" (what LED was trained with), "none", "all", a list of positions, or a 0/1 array over
                the tokens. Positions count from 0, the start token `<s>`.
            truncation: cut a document that is longer than the model can read, keeping its beginning; False: refuse it.
            cross_attention: "cached", or "folded" to save memory; see LEDForConditionalGeneration.generate.
            batch_size: documents that are written together, at most. Above 1 it is faster (docs/performance.md) and takes the
                memory of so many. The texts are the same; only the last bits of the logits may differ.
            batch_memory: bytes that these may take beside the weights; where that is too little, fewer are together.
            progress: told after each encoder layer and each token written, for every document.
            settings: as in LEDForConditionalGeneration.generate: num_beams, max_new_tokens, ... A `seed` that is a list has
                one number for each document.

        Returns:
            A string for one document, a list of strings for several, in their order; with num_return_sequences > 1 a list
            of strings in the place of each string.

        Raises:
            InputError: if a document is empty or too long (of several, the message says which; none is read then).
            SettingsError: for a setting that does not exist or contradicts another.
        """
        check_settings(settings)
        # All documents are looked at before the first is read: the last one being too long should not cost an hour.
        if isinstance(text, str):
            documents = [self.prepare(text, global_attention=global_attention, truncation=truncation)]
        else:
            documents = [
                _named(i, self.prepare, document, global_attention=global_attention, truncation=truncation)
                for i, document in enumerate(listed(text))
            ]
        texts: list[Any] = [None] * len(documents)
        for i, written in write_each(
            self.model, documents, settings, batch_size=batch_size, batch_memory=batch_memory,
            cross_attention=cross_attention, progress=progress, tokenizer=self.tokenizer,
        ):  # fmt: skip
            if isinstance(written, LEDError):
                raise written
            texts[i] = self._texts(written)
        return texts[0] if isinstance(text, str) else texts

    def generate_each(
        self,
        texts: Iterable[str],
        *,
        global_attention: GlobalAttention = "first",
        truncation: bool = False,
        cross_attention: str = "cached",
        batch_size: int = 1,
        batch_memory: int = BATCH_MEMORY,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Iterator[tuple[int, Any]]:
        """Write a text for each document, and hand it out as soon as it is there; one bad document does not stop the rest.

        The arguments are those of `generate`.

        Yields:
            (number of the document, its text), or (number, the LEDError that it is refused with). With a batch_size of 1 in
            the order of the documents, the refused ones first; else the longest first.

        Raises:
            SettingsError: for a setting that does not exist or contradicts another.
            InputError: if there are no documents.
        """
        check_settings(settings)
        documents, places = [], []
        for i, document in enumerate(listed(texts)):
            try:
                documents.append(self.prepare(document, global_attention=global_attention, truncation=truncation))
                places.append(i)
            except LEDError as error:
                yield i, error
        for place, written in write_each(
            self.model, documents, settings, batch_size=batch_size, batch_memory=batch_memory,
            cross_attention=cross_attention, progress=progress, tokenizer=self.tokenizer,
        ):  # fmt: skip
            yield places[place], written if isinstance(written, LEDError) else self._texts(written)

    def prepare(self, text: str, *, global_attention: GlobalAttention = "first", truncation: bool = False) -> Document:
        """A document as the model reads it: its ids, and which of them are global.

        Raises:
            InputError: as `encode`, and for a global_attention that does not fit.
        """
        ids = self.encode(text, truncation=truncation)
        return Document(ids, global_mask(global_attention, len(ids)))

    def encode(self, text: str, *, truncation: bool = False) -> list[int]:
        """The ids of a document, with `<s>` and `</s>`.

        Raises:
            InputError: if it is empty, or longer than the model reads and `truncation` is False; both lengths are named.
        """
        limit = self.model.config.max_encoder_position_embeddings
        return encode_document(text, self.tokenizer, limit, self.name, truncation=truncation)

    def save_pretrained(
        self, save_directory: str | Path, *, max_shard_size: int | str = "50GB", overwrite: bool = False
    ) -> tuple[Path, ...]:
        """Write model and tokenizer into one folder, which `load` and transformers read; all of it, or nothing.

        Args:
            save_directory: see LEDPreTrainedModel.save_pretrained.
            max_shard_size: see there.
            overwrite: see there.

        Returns:
            The files of weights.

        Raises:
            LEDError: see there.
        """
        return self.model.save_pretrained(
            save_directory, max_shard_size=max_shard_size, overwrite=overwrite, others=self.tokenizer.save_pretrained
        )

    def _texts(self, written: Written) -> str | list[str]:
        """The text, or with num_return_sequences > 1 the texts, of one document."""
        texts = [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in written.ids]
        return texts if len(texts) > 1 else texts[0]


def load(
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    quantize: str | None = None,
    keep_stored: bool = False,
    notice: Callable[[str], None] | None = None,
) -> LED:
    """Load a model and its tokenizer, once for many calls.

    Args:
        model: a folder, or a name on the Hugging Face Hub; None: the small trained model that is bundled.
        revision: branch, tag or commit on the Hub; only with a name on the Hub.
        backend: "auto", "numpy", or a backend object.
        dtype: what to compute in: "float32" or "float64".
        quantize: "int8", "nf4" or "nf4-double": keep the linear maps' matrices in a quarter or a seventh of float32's memory,
            for some of the accuracy and of the speed (docs/precision.md).
        keep_stored: keep weights that are float16 or bfloat16 in the file so, in half the memory; the same text.
        notice: told in a sentence what a person may want to know.

    Raises:
        InputError: for a revision of what has none, or another dtype or quantization.
        MissingFileError: if there is no such model or a file of it is missing.
        ConfigError: if it is no LED.
        CheckpointError: if its weights are damaged or do not cover it exactly.
    """
    if model in NOT_FINE_TUNED:
        tell = notice or partial(warnings.warn, stacklevel=2)
        tell(
            f"{model} was pretrained but not fine-tuned: it fills in masked text and does not summarize. "
            "For summaries of papers take allenai/led-large-16384-arxiv."
        )
    return LED(
        *load_parts(
            LEDForConditionalGeneration,
            model,
            revision=revision,
            backend=backend,
            dtype=dtype,
            quantize=quantize,
            keep_stored=keep_stored,
            notice=notice,
        )
    )


def load_parts(
    kind: type[Model],
    model: str | Path | None,
    *,
    revision: str | None,
    backend: str | Backend,
    dtype: str,
    notice: Callable[[str], None] | None,
    quantize: str | None = None,
    keep_stored: bool = False,
) -> tuple[Model, LEDTokenizer, str]:
    """A model of that class, its tokenizer and its name; the arguments and errors are those of `load`."""
    from led_ref.weights.hub import resolve

    if model is None and revision is not None:
        raise InputError(
            f"revision is {revision!r}, but no model is named, and the bundled one has none. Name a model."
        )
    folder = bundled_model() if model is None else resolve(model, revision=revision, notice=notice)
    name = "the bundled model" if model is None else str(model)
    tokenizer = LEDTokenizer.from_pretrained(folder)
    loaded = kind.from_pretrained(
        folder, dtype=dtype, quantize=quantize, keep_stored=keep_stored, backend=backend, notice=notice
    )
    return loaded, tokenizer, name


def encode_document(text: str, tokenizer: LEDTokenizer, limit: int, name: str, *, truncation: bool) -> list[int]:
    """The ids of a document, with `<s>` and `</s>`, at most `limit` of them, which is what the model of that name reads.

    Raises:
        InputError: if it is empty, or longer and `truncation` is False; both lengths are named.
    """
    if not isinstance(text, str):
        raise InputError(
            f"A document is {type(text).__name__}, not str. Give text, or ids to model.generate or model.forward."
        )
    if not text.strip():
        raise InputError(f"The document is empty ({text[:20]!r}): there is nothing to read. Give it some text.")
    ids: list[int] = tokenizer(text)["input_ids"]
    if len(ids) <= limit:
        return ids
    if not truncation:
        raise InputError(
            f"The document has {len(ids)} tokens, but {name} reads at most {limit}. "
            "Shorten or split it, or pass truncation=True (--truncate) to read its beginning only."
        )
    ids = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
    return ids


def generate(
    text: str | Sequence[str],
    model: str | Path | LED | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    global_attention: GlobalAttention = "first",
    truncation: bool = False,
    **settings: Any,
) -> Any:
    """Write a text for each document: load a model and run it, in one call.

    Args:
        text: one document or several.
        model: a folder, a name on the Hub, or what `load` returned; None: the small trained model that is bundled.
        backend: see `load`; what is loaded already has its own.
        dtype: see `load`; likewise.
        global_attention: see `LED.generate`.
        truncation: see `LED.generate`.
        settings: see `LED.generate`; also `cross_attention`, `batch_size`, `batch_memory` and `progress`.

    Returns:
        A string for one document, a list of strings for several.

    Raises:
        LEDError: as `load` and `LED.generate`.
    """
    check_settings({name: value for name, value in settings.items() if name not in _HOW})
    if isinstance(model, LED):
        led = model
        if backend != "auto" or dtype not in ("float32", led.model.dtype):
            raise InputError(
                f"backend is {backend!r} and dtype is {dtype!r}, but {led.name} is loaded already and computes in "
                f"{led.model.dtype} on {led.model.backend.name}. Pass both to led_ref.load."
            )
    else:
        led = load(model, backend=backend, dtype=dtype)
    return led.generate(text, global_attention=global_attention, truncation=truncation, **settings)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what needs no model to be refused: an argument misplaced or misspelt, a setting or value that does not exist.

    Raises:
        SettingsError: naming what to pass instead.
    """
    for name, value in settings.items():
        if name in _OF_IDS and not (value is False and name.startswith(("return_", "output_"))):
            raise SettingsError(
                f"{name} is for LEDForConditionalGeneration.generate, which takes ids. Here, {_OF_IDS[name]}."
            )
        nearest = difflib.get_close_matches(name, _OF_TEXT, n=1, cutoff=0.75)
        if nearest:
            raise SettingsError(
                f"There is no setting {name!r} (it was set to {value!r}) here. Is {nearest[0]!r} meant?"
            )
    LEDForConditionalGeneration.check_settings(**settings)


def _named(number: int, prepare: Callable[..., Document], text: Any, **how: Any) -> Document:
    """What `prepare` makes of one text of several; an error says which."""
    try:
        return prepare(text, **how)
    except LEDError as error:
        raise type(error)(f"texts[{number}]: {error}") from error
