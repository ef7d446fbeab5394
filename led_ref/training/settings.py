"""The settings of a training run, each stated once: its name, default, form, one sentence about it, and its option.

    >>> TrainingArguments(learning_rate=3e-5).learning_rate
    3e-05
    >>> SETTINGS["warmup_steps"].option, SETTINGS["warmup_steps"].form.wanted
    ('--warmup', 'a whole number of at least 0')

Where transformers has the same thing, the name and the default are those of its TrainingArguments, and for the data those of
its summarization script (max_source_length, max_target_length, max_train_samples). The options of `led-ref train` are made of
this file. It needs no NumPy, so that `led-ref train --help` answers at once.

    per_device_train_batch_size     documents of a batch. There is one device here; the name is kept, the option is --batch-size
    gradient_accumulation_steps     batches of a step of the optimizer
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from led_ref.errors import SettingsError, nearest, quoted
from led_ref.training.forms import ABOVE_0, FROM_0, GLOBAL, NAME, NAMES, PART, YES_OR_NO, Form, one_of, whole

TASKS = ("summarization", "classification", "question-answering")
SCHEDULES = ("linear", "constant", "cosine", "polynomial", "inverse_sqrt")
ACCUMULATIONS = ("labels", "transformers")
METRICS = ("loss", "rouge")


@dataclass(frozen=True)
class Setting:
    """What is known of a setting beside its type and default.

    Args:
        form: what its value must look like.
        about: one sentence, for --help and the documentation.
        option: its name on the command line; one that begins with `--no-` says False.
        group: under which heading it stands.
        letter: what stands for the value in --help.
    """

    form: Form
    about: str
    option: str
    group: str
    letter: str = ""


_GROUPS = {
    "data": "the documents",
    "length": "the length of the run",
    "batches": "batches",
    "optimizer": "the optimizer",
    "loss": "the loss",
    "parts": "what is trained",
    "validation": "validation and checkpoints",
}


def _setting(default: Any, form: Form, group: str, option: str, letter: str, about: str) -> Any:
    """A field of a dataclass with a default and its Setting."""
    return field(default=default, metadata={"setting": Setting(form, about, option, _GROUPS[group], letter)})


@dataclass(frozen=True)
class CheckedSettings:
    """The base class of settings: each value is checked by its form, and kept in the form's type."""

    def __post_init__(self) -> None:
        """Check each value.

        Raises:
            SettingsError: naming the setting, the value and the form.
        """
        for f in fields(self):
            value, form = getattr(self, f.name), f.metadata["setting"].form
            if value is None and f.default is None:
                continue
            if not form.fits(value):
                off = " (None: not set)" if f.default is None else ""
                raise SettingsError(f"{f.name} is {quoted(value, 80)}; it must be {form.wanted}{off}.")
            object.__setattr__(self, f.name, form.convert(value))

    def to_dict(self) -> dict[str, Any]:
        """All settings, JSON-ready."""
        return {f.name: _as_list(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True)
class DataArguments(CheckedSettings):
    """How training data is read: the fields of a line, and the lengths. `SETTINGS` says what each setting does."""

    task: str | None = _setting(
        None, one_of(*TASKS), "data", "--task", "", "what is learned (default: what the model's class is for)"
    )
    text_field: str = _setting("text", NAME, "data", "--text-field", "NAME", "the field of the document")
    target_field: str | None = _setting(
        None, NAME, "data", "--target-field", "NAME", "the field of the summary or label (default: summary, label)"
    )
    question_field: str = _setting("question", NAME, "data", "--question-field", "NAME", "the field of the question")
    context_field: str = _setting(
        "context", NAME, "data", "--context-field", "NAME", "the field of the question's text"
    )
    answers_field: str = _setting(
        "answers", NAME, "data", "--answers-field", "NAME",
        'the field of the answers: {"text": [...], "answer_start": [...]}; without it, answer and answer_start count',
    )  # fmt: skip
    max_source_length: int | None = _setting(
        None, whole(8), "data", "--max-source-length", "N", "most tokens of a document (default: what the model reads)"
    )
    max_target_length: int | None = _setting(
        None, whole(2), "data", "--max-target-length", "N", "most tokens of a summary (default: what the model writes)"
    )
    truncate: bool = _setting(False, YES_OR_NO, "data", "--truncate", "", "cut documents that are too long")
    truncate_targets: bool = _setting(
        False, YES_OR_NO, "data", "--truncate-targets", "", "cut summaries that are too long"
    )
    max_train_samples: int | None = _setting(
        None, whole(1), "data", "--max-train-samples", "N", "read the first N documents alone"
    )


@dataclass(frozen=True)
class TrainingArguments(CheckedSettings):
    """The settings of a run, with transformers' names and defaults. `SETTINGS` says what each setting does."""

    num_train_epochs: float = _setting(
        3.0, ABOVE_0, "length", "--epochs", "X", "how often each document is read; a fraction ends inside an epoch"
    )
    max_steps: int | None = _setting(
        None, whole(1), "length", "--steps", "N", "steps of the optimizer, in place of epochs"
    )
    seed: int = _setting(42, whole(0), "length", "--seed", "N", "decides the order of documents, dropout, new weights")

    per_device_train_batch_size: int = _setting(
        8, whole(1), "batches", "--batch-size", "N", "most documents of a batch"
    )
    batch_tokens: int | None = _setting(
        None, whole(1), "batches", "--batch-tokens", "N",
        "most tokens of a batch, each document counted as long as the longest (default: no limit)",
    )  # fmt: skip
    gradient_accumulation_steps: int = _setting(
        1, whole(1), "batches", "--gradient-accumulation", "N", "batches of a step"
    )
    accumulate_as: str = _setting(
        "labels", one_of(*ACCUMULATIONS), "batches", "--accumulate-as", "",
        "labels: each label of a step weighs the same; transformers: each batch does, as its Trainer has it for LED",
    )  # fmt: skip
    group_by_length: bool = _setting(
        True, YES_OR_NO, "batches", "--no-group-by-length", "", "do not put documents of like length together"
    )
    documents_at_once: int = _setting(
        1, whole(1), "batches", "--documents-at-once", "N",
        "documents of a batch that are computed together; faster if they are short",
    )  # fmt: skip
    keep_activations: bool = _setting(
        False, YES_OR_NO, "batches", "--keep-activations", "",
        "hold what each layer computed in place of computing it again: faster, in more memory, for small models",
    )  # fmt: skip
    processes: int = _setting(
        1, whole(1), "batches", "--processes", "N",
        "processes that compute parts of a step side by side; faster than threads if documents are short",
    )  # fmt: skip

    learning_rate: float = _setting(5e-5, ABOVE_0, "optimizer", "--learning-rate", "X", "the highest learning rate")
    lr_scheduler_type: str = _setting(
        "linear", one_of(*SCHEDULES), "optimizer", "--schedule", "", "how the learning rate goes on after the warm-up"
    )
    warmup_steps: int = _setting(
        0, whole(0), "optimizer", "--warmup", "N", "steps in which the learning rate grows from 0"
    )
    optim: str = _setting("adamw", one_of("adamw", "adafactor"), "optimizer", "--optimizer", "", "the optimizer")
    weight_decay: float = _setting(
        0.0, FROM_0, "optimizer", "--weight-decay", "X", "decoupled weight decay; never of biases and LayerNorm"
    )
    adam_beta1: float = _setting(0.9, PART, "optimizer", "--adam-beta1", "X", "decay of the mean of gradients")
    adam_beta2: float = _setting(0.999, PART, "optimizer", "--adam-beta2", "X", "decay of the mean of their squares")
    adam_epsilon: float = _setting(1e-8, ABOVE_0, "optimizer", "--adam-epsilon", "X", "is added to the root of it")
    max_grad_norm: float = _setting(
        1.0, FROM_0, "optimizer", "--max-grad-norm", "X", "longer gradients are scaled down to this norm; 0: never"
    )
    max_skipped_steps: int = _setting(
        5, whole(1), "optimizer", "--max-skipped-steps", "N",
        "stop after N steps in a row whose loss or gradient is NaN or infinite; such a step is not taken",
    )  # fmt: skip

    label_smoothing_factor: float = _setting(
        0.0, PART, "loss", "--label-smoothing", "X", "share of the loss that is the mean over the vocabulary"
    )
    dropout: float | None = _setting(
        None, PART, "loss", "--dropout", "X", "of states and updates (default: the checkpoint's)"
    )
    attention_dropout: float | None = _setting(
        None, PART, "loss", "--attention-dropout", "X", "of attention probabilities (default: the checkpoint's)"
    )
    global_attention: str | tuple[int | str, ...] | None = _setting(
        None, GLOBAL, "loss", "--global-attention", "WHICH",
        "who sees all: none, first, all, question, separators, or positions and tokens (default: first; question)",
    )  # fmt: skip
    separator: str = _setting(
        "<doc-sep>", NAME, "loss", "--separator", "TOKEN", "the token between documents, for separators"
    )

    freeze: tuple[str, ...] = _setting(
        (), NAMES, "parts", "--freeze", "NAMES",
        "not trained: encoder, decoder, embeddings, positions, or beginnings of checkpoint keys; commas between",
    )  # fmt: skip
    lora_rank: int | None = _setting(
        None, whole(1), "parts", "--lora-rank", "N",
        "train LoRA matrices of this rank in place of the weights (training/lora.py)",
    )  # fmt: skip
    lora_alpha: float | None = _setting(
        None, ABOVE_0, "parts", "--lora-alpha", "X", "their product is scaled by X / rank (default: 8, as in peft)"
    )
    lora_targets: tuple[str, ...] = _setting(
        (), NAMES, "parts", "--lora-targets", "NAMES",
        "the linear maps that get them, as q_proj, fc1, or modules with * (default: query,value,q_proj,v_proj)",
    )  # fmt: skip

    eval_steps: int | None = _setting(
        None,
        whole(1),
        "validation",
        "--validate-every",
        "N",
        "steps from one validation to the next (default: an epoch)",
    )
    save_steps: int | None = _setting(
        None, whole(1), "validation", "--save-every", "N", "steps from one checkpoint to the next (default: an epoch)"
    )
    metric_for_best_model: str = _setting(
        "loss", one_of(*METRICS), "validation", "--metric", "", "which measure of the held-out documents decides"
    )
    early_stopping_patience: int | None = _setting(
        None, whole(1), "validation", "--early-stopping", "N", "stop after N validations in a row without a better one"
    )
    early_stopping_threshold: float = _setting(
        0.0, FROM_0, "validation", "--early-stopping-threshold", "X", "better means better by more than this"
    )


# Every setting by its name, of both dataclasses.
SETTINGS: dict[str, Setting] = {
    f.name: f.metadata["setting"] for kind in (DataArguments, TrainingArguments) for f in fields(kind)
}


@dataclass(frozen=True)
class Recipe:
    """The settings of a training that people know, and of the generation with its result.

    Args:
        about: what it reproduces.
        settings: by the names of SETTINGS.
        generation: goes into the trained model's generation_config.json.
    """

    about: str
    settings: Mapping[str, Any]
    generation: Mapping[str, Any] = field(default_factory=dict)


# Adam without weight decay is AdamW with weight_decay 0. Neither of Ai2's two programs clips gradients.
RECIPES: dict[str, Recipe] = {
    "ai2": Recipe(
        "LED on arXiv: summarization.py of allenai/longformer",
        {
            "learning_rate": 3e-5, "lr_scheduler_type": "linear", "warmup_steps": 1000, "num_train_epochs": 5,
            "per_device_train_batch_size": 16, "attention_dropout": 0.1, "max_grad_norm": 0, "seed": 1234,
            "group_by_length": False, "global_attention": "first", "max_source_length": 16_368, "max_target_length": 256,
            "truncate": True, "truncate_targets": True,
        },
        {"max_length": 256},
    ),
    "pubmed-notebook": Recipe(
        "LED-base on 250 papers of PubMed: the notebook of transformers",
        {
            "learning_rate": 5e-5, "num_train_epochs": 1, "per_device_train_batch_size": 2, "max_train_samples": 250,
            "gradient_accumulation_steps": 4, "global_attention": "first", "max_source_length": 8192,
            "max_target_length": 512, "truncate": True, "truncate_targets": True,
        },
        {
            "num_beams": 2, "max_length": 512, "min_length": 100, "length_penalty": 2.0, "early_stopping": True,
            "no_repeat_ngram_size": 3,
        },
    ),
    "primera": Recipe(
        "several documents, one summary: primer_main.py of allenai/PRIMER",
        {
            "learning_rate": 3e-5, "lr_scheduler_type": "linear", "warmup_steps": 1000, "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 4, "max_grad_norm": 0, "group_by_length": False,
            "global_attention": "separators", "separator": "<doc-sep>", "max_source_length": 4096,
            "max_target_length": 1024, "truncate": True, "truncate_targets": True,
        },
        {"max_length": 1024},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class RunArguments:
    """All settings of a run.

    Args:
        data: how documents are read.
        training: how the model is trained.
        generation: goes into the trained model's generation_config.json.
    """

    data: DataArguments
    training: TrainingArguments
    generation: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: str | None = None, **settings: Any) -> Self:
        """The settings of a recipe, if one is named, with `settings` in place of its own.

        Raises:
            SettingsError: for a name that does not exist (the nearest is named), and a value that cannot be.

        Example:
            >>> run = RunArguments.of("ai2", num_train_epochs=1)
            >>> run.training.num_train_epochs, run.training.learning_rate, run.data.max_source_length
            (1.0, 3e-05, 16368)
        """
        if recipe is not None and recipe not in RECIPES:
            raise SettingsError(f"There is no recipe {recipe!r}; choose one of {', '.join(RECIPES)}.")
        for name in settings:
            if name not in SETTINGS:
                near = nearest(name, SETTINGS)
                meant = f"Did you mean {near}?" if near else f"There are {', '.join(SETTINGS)}."
                raise SettingsError(f"There is no setting {name!r} of training. {meant}")
        values = {**(RECIPES[recipe].settings if recipe else {}), **settings}
        names = {f.name for f in fields(DataArguments)}
        data = DataArguments(**{name: value for name, value in values.items() if name in names})
        generation = dict(RECIPES[recipe].generation) if recipe else {}
        if generation and data.max_target_length is not None:
            generation["max_length"] = data.max_target_length  # a text is as long as those that it learned
        training = TrainingArguments(**{name: value for name, value in values.items() if name not in names})
        return cls(data, training, generation)


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
