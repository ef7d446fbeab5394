"""What LED, QuestionAnswerer and Classifier share: load a model and its tokenizer, the ids and global tokens of a document."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from led_backends.contract import HostArray
from led_backends.notices import warn
from led_ref.classes.input_checks import check_types as check_types
from led_ref.classes.led import Progress as Progress
from led_ref.classes.pretrained import LEDPreTrainedModel
from led_ref.config import LEDConfig
from led_ref.errors import InputError, SettingsError, nearest, printable, quoted
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.pipelines.progress import bars_of
from led_ref.tokenizer.files import vocabularies_that_differ
from led_ref.tokenizer.tokenizer import LEDTokenizer
from led_ref.weights.find_files import resolve

Model = TypeVar("Model", bound=LEDPreTrainedModel)

# Which tokens see all and are seen by all: a name, a 0/1 array (a mask), a list of positions and tokens, or for several
# documents a list of such lists and arrays.
GlobalAttention = str | HostArray | Sequence[int | str] | Sequence[Sequence[int | str] | HostArray]
_BYTES = bytes | bytearray | memoryview
_GLOBAL_FORMS = "give 'first', 'none', 'all', a list of positions and tokens, or a 0/1 array"

_LONGEST_PATH = 1000  # characters; a text of one line that is longer is no path

# Ai2's own checkpoints that were pretrained but not fine-tuned to summarize.
NOT_FINE_TUNED = ("allenai/led-base-16384", "allenai/led-large-16384")
BUNDLED = {"summarization": "", "question-answering": "answerer", "classification": "classifier"}  # task: folder


def bundled_model(task: str = "summarization") -> Path:
    """The folder of the small trained model for a task that comes with led_ref (its card: MODEL_CARD.md in it).

    Raises:
        InputError: if the task is not "summarization", "question-answering" or "classification".
    """
    if task not in BUNDLED:
        raise InputError(f"There is no bundled model for {quoted(task)}, but for {', '.join(BUNDLED)}.")
    return Path(__file__).parent.parent / "bundled" / BUNDLED[task]


@dataclass(frozen=True, repr=False)
class Document:
    """One document as the model reads it: its ids, and its global attention mask (0 or 1 for each id)."""

    ids: Sequence[int]
    global_mask: Sequence[int]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.ids)} ids, {sum(self.global_mask)} of them global)"

    def masks(self) -> dict[str, Any]:
        """The padding mask and the global mask that `model.encoder` and `model.generate` take beside `[ids]`."""
        return {"attention_mask": [[1] * len(self.ids)], "global_attention_mask": [self.global_mask]}


@dataclass(frozen=True)
class Written:
    """The generated texts of one document, num_return_sequences of them, the best first.

    Args:
        ids: the ids of each text, prompt first, without padding.
        scores: the score of each text, from beam search; else None.
    """

    ids: list[list[int]]
    scores: list[float] | None

    @classmethod
    def of(cls, found: Any, b: int, settings: GenerationConfig) -> Self:
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
        scores = getattr(found, "sequences_scores", None)  # of beam search
        return cls(texts, None if scores is None else scores[b * R : (b + 1) * R].tolist())


@dataclass(frozen=True)
class TextPipeline(Generic[Model]):
    """A model and its tokenizer, loaded once for many texts.

    Args:
        model: computes on ids.
        tokenizer: turns text into ids, and ids into text.
        name: the Hub name or folder that they were loaded from.
    """

    model: Model
    tokenizer: LEDTokenizer
    name: str

    # The class of the model and its task as `bundled_model` names it, set by each subclass.
    model_class: ClassVar[type[LEDPreTrainedModel]]
    task: ClassVar[str]

    @classmethod
    @check_types
    def load(
        cls,
        model: str | Path | None = None,
        *,
        revision: str | None = None,
        notice: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Self:
        """Load a checkpoint of this pipeline's model class; arguments (backend, dtype, ...) and errors as in led_ref.load.

        Raises:
            CheckpointError: if the checkpoint lacks the head of that class (`qa_outputs`, `classification_head`); the
                message names the class that it was saved from.
        """
        if model is None and revision is not None:
            raise InputError(
                f"revision is {revision!r}, but no model is named, and a bundled one has none. Name a model."
            )
        folder = bundled_model(cls.task) if model is None else resolve(model, revision=revision, notice=notice)
        LEDConfig.from_pretrained(folder)  # another model's folder is named as such, before its tokenizer is missed
        tokenizer = LEDTokenizer.from_pretrained(folder)
        loaded: Any = cls.model_class.from_pretrained(folder, notice=notice, **options)
        name = f"the bundled {BUNDLED[cls.task] or 'model'}" if model is None else printable(str(model))
        for sentence in notices_of(loaded, tokenizer):
            (notice or warn)(f"{name}: {sentence}")
        return cls(loaded, tokenizer, name)

    def decode(self, token_ids: int | Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of ids, such as model.generate returns for one document; as LEDTokenizer.decode."""
        return self.tokenizer.decode(token_ids, skip_special_tokens)

    def batch_decode(self, sequences: Iterable[Iterable[int]], skip_special_tokens: bool = False) -> list[str]:
        """`decode` of each row, as of what model.generate returns."""
        return self.tokenizer.batch_decode(sequences, skip_special_tokens)

    @staticmethod
    def check_text(text: object) -> None:
        """Refuse what is no document, and warn of a path.

        Raises:
            InputError: for something other than a text, and one of blanks alone.
        """
        if not isinstance(text, str):
            raise InputError(
                f"A document is {type(text).__name__}, not str. Give text, or ids to model.generate or model.forward."
            )
        warn_of_path(text)
        if not text.strip():
            raise InputError(f"The document is empty ({text[:20]!r}): there is nothing to read. Give it some text.")

    def texts_of(self, written: Written) -> list[str]:
        """The texts of one document.

        Raises:
            InputError: if one holds an id that the model has and its tokenizer has not.
        """
        for ids in written.ids:
            unknown = [token_id for token_id in ids if not self.tokenizer.has_id(token_id)]
            if unknown:
                raise InputError(
                    f"In the text stands the id {unknown[0]}, which {self.name} has and its tokenizer has not. "
                    f"Forbid it, suppress_tokens={quoted(unknown)}, or give the tokenizer that belongs to the model."
                )
        return [self.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in written.ids]

    @check_types
    def encode(self, text: str, *, truncation: bool = False) -> list[int]:
        """The ids of a document, with `<s>` and `</s>`.

        Raises:
            InputError: if it is empty, or longer than the model's input and `truncation` is False; the message gives both
                lengths.
        """
        self.check_text(text)
        # The models that classify and answer say it themselves: their decoders read the document, too.
        limit = self.model.longest_document
        ids: list[int] = self.tokenizer(text)["input_ids"]
        if len(ids) <= limit:
            return ids
        if not truncation:
            raise InputError(
                f"The document has {len(ids)} tokens, but {self.name} reads at most {limit}. "
                "Shorten it, pass truncation=True (--truncate) to read its beginning only, or split='join' (--split join) for "
                "summaries of its pieces."
            )
        ids = self.tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        return ids

    def global_mask(self, ids: Sequence[int], global_attention: GlobalAttention) -> list[int]:
        """The global mask of one document's ids: 1 where they have global attention.

        Raises:
            InputError: as the function `global_mask`, and for a token that the vocabulary does not have.
        """

        def places_of(token: str) -> list[int]:
            if token not in vocabulary:
                meant = nearest(token, vocabulary) if token.startswith("<") else None
                raise InputError(
                    f"global_attention holds the token {quoted(token, 60)}, which the vocabulary of {self.name} does not have. "
                    + (f"Is {meant!r} meant?" if meant else "Give one that it has, such as '</s>', or positions.")
                )
            return [place for place, token_id in enumerate(ids) if token_id == vocabulary[token]]

        vocabulary = self.tokenizer.get_vocab() if _holds_tokens(global_attention) else {}
        return global_mask(global_attention, len(ids), places_of)


@contextlib.contextmanager
def shown_progress(
    progress: Progress | bool | None, documents: int
) -> Iterator[tuple[Progress | None, Callable[[], None]]]:
    """What a call with so many documents calls after each layer and token, and after each document; True: bars."""
    if progress is True:
        with bars_of(documents) as shown:
            yield shown
    else:
        yield progress or None, lambda: None


def warn_of_path(text: str) -> None:
    """Warn that a text is also the path of a file or folder: it is read as a text, and the file's own text may be meant."""
    if len(text) < _LONGEST_PATH and "\n" not in text:
        with contextlib.suppress(OSError, ValueError):  # too long a name, a NUL in it
            if Path(text).is_file() or ("/" in text and Path(text).exists()):
                warn(
                    f"The text {quoted(text)} is also the path of a file, and is read as a text. For the text of the file, "
                    "pass pathlib.Path(...).read_text()."
                )


# Arguments of model.generate that LED.generate refuses, and what to do instead.
_FOR_IDS_ONLY = {
    name: remedy
    for remedy, names in {
        "give the text itself": ("input_ids", "encoder_outputs", "inputs_embeds"),
        "a document has no padding, so it needs none": ("attention_mask",),
        "pass global_attention": ("global_attention_mask",),
        "every generated text begins with the start token": ("decoder_input_ids",),
        "it has its own": ("tokenizer",),
        "give its settings by name: **generation_config.to_dict()": ("generation_config",),
        "rules that are functions work on ids": ("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn"),
        "it gives ids and scores, not text": ("return_dict_in_generate",),
        "the text alone is given": ("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
    }.items()
    for name in names
}


def refuse_misplaced(settings: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Refuse what is for ids, and a misspelt one of the other arguments.

    Raises:
        SettingsError: naming what to pass instead.
    """
    for name, value in settings.items():
        if name in _FOR_IDS_ONLY and not (value is False and name.startswith(("return_", "output_"))):
            raise SettingsError(
                f"{name} is for LEDForConditionalGeneration.generate, which takes ids. Here, {_FOR_IDS_ONLY[name]}."
            )
        if near := nearest(name, arguments, cutoff=0.75):
            raise SettingsError(f"There is no setting {name!r} (it was set to {value!r}) here. Is {near!r} meant?")


def notices_of(model: LEDPreTrainedModel, tokenizer: LEDTokenizer) -> list[str]:
    """What the user should know of a loaded model: ids that differ from the tokenizer's, and writing without a cache."""
    settings = getattr(model, "effective_settings", None)  # of a model that generates
    differ = vocabularies_that_differ(tokenizer.get_vocab(), model.config.vocab_size, writes=settings is not None)
    found = [] if differ is None else [differ]
    if settings is not None and not settings().use_cache:
        found.append(
            "use_cache is false in its files: each step computes the whole text that is written so far again, and writing is "
            "slow. Pass use_cache=True, which writes the same."
        )
    return found


def notice_task_settings(model: LEDPreTrainedModel, name: str, notice: Callable[[str], None] | None) -> None:
    """Say which settings of config.json are for a task alone: `generate` names no task, and does not use them."""
    extra = model.config.extra
    unused = {key: extra[key] for key in ("prefix", "task_specific_params") if extra.get(key)}
    if unused:
        say = notice or warn
        found = ", ".join(f"{key} {quoted(value)}" for key, value in unused.items())
        say(
            f"{name} has {found} in config.json. They are not used here: pass them as settings, and begin the text "
            "with the prefix."
        )


def notice_missing_fine_tuning(model: str | Path | None, notice: Callable[[str], None] | None) -> None:
    """Say that a checkpoint does not summarize yet: to `notice`, or as a warning at the caller of led_ref.load."""
    if model in NOT_FINE_TUNED:
        say = notice or warn
        say(
            f"{model} was pretrained but not fine-tuned: it fills in masked text and does not summarize. "
            "For summaries of papers take allenai/led-large-16384-arxiv."
        )


# ---- global attention ------------------------------------------------------------------------------------------------


def for_each_document(global_attention: GlobalAttention, count: int) -> list[GlobalAttention]:
    """The global attention of each of `count` documents: its own, where a list of lists or arrays is given.

    Raises:
        InputError: if there are more of them, or fewer.

    Example:
        >>> for_each_document([[0, 7], ["</s>"]], 2), for_each_document([0, 7], 2)
        ([[0, 7], ['</s>']], [[0, 7], [0, 7]])
    """
    if not holds_globals_of_each(global_attention):
        return [global_attention] * count
    if len(global_attention) != count:
        raise InputError(
            f"global_attention holds {len(global_attention)} lists, but there are {count} documents. Give each document its "
            "own, or one list for all."
        )
    return [own for own in global_attention if not isinstance(own, int | str)]


def holds_globals_of_each(global_attention: GlobalAttention) -> bool:
    """Whether it is a list of what each of several documents has."""
    is_list = isinstance(global_attention, list | tuple) and len(global_attention) > 0
    return is_list and all(isinstance(own, list | tuple | range | np.ndarray) for own in global_attention)


def _holds_tokens(global_attention: GlobalAttention) -> bool:
    is_list = isinstance(global_attention, Iterable) and not isinstance(global_attention, str | np.ndarray | _BYTES)
    return is_list and any(isinstance(entry, str) for entry in global_attention)


def global_mask(
    global_attention: GlobalAttention, length: int, places_of: Callable[[str], Sequence[int]] | None = None
) -> list[int]:
    """The global mask of one document of `length` tokens.

    Args:
        global_attention: "first", "none", "all", a list of positions and tokens, or a mask (an array of 0 and 1).
        length: T.
        places_of: the positions of a token in the document, if tokens may be named.

    Raises:
        InputError: for another name, a position outside the document or given twice, or a mask of another length.

    Example:
        >>> global_mask("first", 4), global_mask([0, 3], 4)
        ([1, 0, 0, 0], [1, 0, 0, 1])
    """
    seen: set[int] = set()
    if isinstance(global_attention, str):
        named = {"first": [0], "none": [], "all": range(length)}
        if global_attention not in named:
            raise InputError(f"global_attention is {quoted(global_attention)}; {_GLOBAL_FORMS}.")
        seen.update(named[global_attention])
    elif isinstance(global_attention, np.ndarray):
        if global_attention.shape != (length,) or not np.isin(global_attention, (0, 1)).all():
            raise InputError(
                f"global_attention is an array of shape {global_attention.shape}; as a mask it must hold {length} values "
                "of 0 and 1, one for each token. (A list is taken as positions.)"
            )
        seen.update(np.flatnonzero(global_attention).tolist())
    elif not isinstance(global_attention, Iterable) or isinstance(global_attention, Mapping | _BYTES):
        raise InputError(f"global_attention is {quoted(global_attention)}; {_GLOBAL_FORMS}.")
    else:
        for position in global_attention:
            if isinstance(position, str) and places_of is not None:
                seen.update(places_of(position))
                continue
            if isinstance(position, bool) or not isinstance(position, int | np.integer) or not 0 <= position < length:
                raise InputError(
                    f"global_attention holds the position {quoted(position, 60)}; positions are whole numbers from 0 to "
                    f"{length - 1} (the document's last token)."
                )
            if position in seen:
                raise InputError(
                    f"global_attention holds the position {position} twice. A list is taken as positions; "
                    "if a mask is meant, give it as an array: numpy.array([1, 0, 0, ...])."
                )
            seen.add(position)
    return [int(i in seen) for i in range(length)]
