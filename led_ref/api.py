"""The one-call functions: text in, text out.

    >>> import led_ref
    >>> page = (led_ref.bundled_model() / "led-ref.1.txt").read_text()
    >>> led_ref.generate(page)  # the small bundled model on led-ref's own manual page
    'led-ref- - print files in a standard output'

`load` gives the loaded thing once for many calls; `generate` is `load(...).generate(...)`.
"""

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from led_backends.contract import Backend, HostArray
from led_ref.errors import InputError, LEDError, SettingsError
from led_ref.led import LEDForConditionalGeneration
from led_ref.pretrained import LEDPreTrainedModel
from led_ref.reading import Progress
from led_ref.tokenizer.tokenizer import LEDTokenizer

Model = TypeVar("Model", bound=LEDPreTrainedModel)

# Which tokens see all and are seen by all: a name, a 0/1 array (a mask), or a list of positions.
GlobalAttention = str | HostArray | Sequence[int]

# What model.generate takes beside settings, and what a call on text has in its place.
_OF_IDS = {
    "input_ids": "give the text itself",
    "attention_mask": "a document has no padding, so it needs none",
    "global_attention_mask": "pass global_attention",
    "encoder_outputs": "give the text itself",
    "inputs_embeds": "give the text itself",
    "decoder_input_ids": "every text that is written starts afresh",
    "return_dict_in_generate": "it gives ids and scores, not text",
}
_GLOBAL_FORMS = "give 'first', 'none', 'all', a list of positions, or a 0/1 array"
_OF_TEXT = ("global_attention", "truncation", "cross_attention", "progress", "model", "backend", "dtype", "revision")

# Ai2's own checkpoints that were pretrained but never taught to summarize.
NOT_FINE_TUNED = ("allenai/led-base-16384", "allenai/led-large-16384")


def bundled_model() -> Path:
    """The folder of the small trained model that comes with led_ref (its card: MODEL_CARD.md in it)."""
    return Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class LED:
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
        progress: Progress | None = None,
        **settings: Any,
    ) -> Any:
        """Write a text for each document. Documents are read one at a time, so none depends on what lies beside it.

        Args:
            text: one document or several.
            global_attention: "first" (what LED was trained with), "none", "all", a list of positions, or a 0/1 array over
                the tokens. Positions count from 0, the start token `<s>`.
            truncation: cut a document that is longer than the model can read, keeping its beginning; False: refuse it.
            cross_attention: "cached", or "folded" to save memory; see LEDForConditionalGeneration.generate.
            progress: told after each encoder layer and each token written, for every document.
            settings: as in LEDForConditionalGeneration.generate: num_beams, max_new_tokens, ...

        Returns:
            A string for one document, a list of strings for several; with num_return_sequences > 1 a list of strings in
            the place of each string.

        Raises:
            InputError: if a document is empty or too long (of several, the message says which; none is read then).
            SettingsError: for a setting that does not exist or contradicts another.
        """
        check_settings(settings)
        settings["cross_attention"] = cross_attention
        # All documents are looked at before the first is read: the last one being too long should not cost an hour.
        if isinstance(text, str):
            ids = self.encode(text, truncation=truncation)
            mask = global_mask(global_attention, len(ids))
            return self._generate_one(ids, mask, progress, settings)
        prepared = []
        for i, document in enumerate(_listed(text)):
            try:
                ids = self.encode(document, truncation=truncation)
                prepared.append((ids, global_mask(global_attention, len(ids))))
            except LEDError as error:
                raise type(error)(f"texts[{i}]: {error}") from error
        return [self._generate_one(ids, mask, progress, settings) for ids, mask in prepared]

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

    def _generate_one(
        self, ids: list[int], mask: list[int], progress: Progress | None, settings: Mapping[str, Any]
    ) -> str | list[str]:
        """The text, or with num_return_sequences > 1 the texts, for the ids of one document."""
        sequences = self.model.generate(
            [ids],
            attention_mask=[[1] * len(ids)],
            global_attention_mask=[mask],
            progress=progress,
            **settings,
        )
        texts = [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in sequences.tolist()]
        return texts if len(texts) > 1 else texts[0]


def load(
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    notice: Callable[[str], None] | None = None,
) -> LED:
    """Load a model and its tokenizer, once for many calls.

    Args:
        model: a folder, or a name on the Hugging Face Hub; None: the small trained model that is bundled.
        revision: branch, tag or commit on the Hub; only with a name on the Hub.
        backend: "auto", "numpy", or a backend object.
        dtype: what to compute in: "float32" or "float64".
        notice: told in a sentence what a person may want to know.

    Raises:
        InputError: for a revision of what has none, or another dtype.
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
    kind = LEDForConditionalGeneration
    return LED(*load_parts(kind, model, revision=revision, backend=backend, dtype=dtype, notice=notice))


def load_parts(
    kind: type[Model],
    model: str | Path | None,
    *,
    revision: str | None,
    backend: str | Backend,
    dtype: str,
    notice: Callable[[str], None] | None,
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
    return kind.from_pretrained(folder, dtype=dtype, backend=backend, notice=notice), tokenizer, name


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
        settings: see `LED.generate`; also `cross_attention` and `progress`.

    Returns:
        A string for one document, a list of strings for several.

    Raises:
        LEDError: as `load` and `LED.generate`.
    """
    check_settings(settings)
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
        if name in _OF_IDS and not (name == "return_dict_in_generate" and value is False):
            raise SettingsError(
                f"{name} is for LEDForConditionalGeneration.generate, which takes ids. Here, {_OF_IDS[name]}."
            )
        nearest = difflib.get_close_matches(name, _OF_TEXT, n=1, cutoff=0.75)
        if nearest:
            raise SettingsError(
                f"There is no setting {name!r} (it was set to {value!r}) here. Is {nearest[0]!r} meant?"
            )
    LEDForConditionalGeneration.check_settings(**settings)


def global_mask(global_attention: GlobalAttention, length: int) -> list[int]:
    """The global mask of one document of `length` tokens.

    Args:
        global_attention: "first", "none", "all", positions (a list of ints), or a mask (an array of 0 and 1).
        length: T.

    Raises:
        InputError: for another name, a position outside the document or given twice, or a mask of another length.

    Example:
        >>> global_mask("first", 4), global_mask([0, 3], 4)
        ([1, 0, 0, 0], [1, 0, 0, 1])
    """
    if isinstance(global_attention, str):
        named = {"first": [0], "none": [], "all": range(length)}
        if global_attention not in named:
            raise InputError(f"global_attention is {global_attention!r}; {_GLOBAL_FORMS}.")
        return _marked(named[global_attention], length)
    if isinstance(global_attention, np.ndarray):
        if global_attention.shape != (length,) or not np.isin(global_attention, (0, 1)).all():
            raise InputError(
                f"global_attention is an array of shape {global_attention.shape}; as a mask it must hold {length} values "
                "of 0 and 1, one for each token. (A list is taken as positions.)"
            )
        return _marked(np.flatnonzero(global_attention).tolist(), length)
    try:
        positions = list(global_attention)
    except TypeError:
        raise InputError(f"global_attention is {global_attention!r}; {_GLOBAL_FORMS}.") from None
    seen: set[int] = set()
    for position in positions:
        if isinstance(position, bool) or not isinstance(position, int | np.integer) or not 0 <= position < length:
            raise InputError(
                f"global_attention holds the position {position!r}; positions are whole numbers from 0 to {length - 1} "
                "(the document's last token)."
            )
        if position in seen:
            raise InputError(
                f"global_attention holds the position {position} twice. A list is taken as positions; "
                "if a mask is meant, give it as an array: numpy.array([1, 0, 0, ...])."
            )
        seen.add(position)
    return _marked(positions, length)


def _marked(positions: Iterable[int], length: int) -> list[int]:
    """A mask with 1 at the positions."""
    mask = [0] * length
    for position in positions:
        mask[position] = 1
    return mask


def _listed(texts: Any) -> list[Any]:
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
