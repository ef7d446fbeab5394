"""led_ref.classify: a text in, the labels of a classification and their scores out.

    labels = led_ref.classify(text, "./my-classifier")
    labels[0].label, labels[0].score                                    the likeliest one

The names of the labels are config.json's `id2label`. What a score is depends on what the model was trained for
(`problem_type` there):

    one of several labels       softmax over the labels: they add up to 1
    any number of labels        sigmoid of each; so it is for a lone label, too
    a regression                the value itself

No model that was trained to classify comes with led_ref: name one of your own, fine-tuned as LEDForSequenceClassification.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from led_backends.contract import Backend, HostArray
from led_ref.api import encode_document, load_parts
from led_ref.classes.encoder import Progress
from led_ref.classes.heads import LEDForSequenceClassification
from led_ref.config import MULTI_LABEL, REGRESSION
from led_ref.pipelines.global_attention import GlobalAttention, global_mask
from led_ref.pipelines.spans import log_softmax
from led_ref.tokenizer.tokenizer import LEDTokenizer


@dataclass(frozen=True)
class Label:
    """A label and its score; the fields are those of transformers' text-classification pipeline."""

    label: str
    score: float


@dataclass(frozen=True)
class Classifier:
    """A model that classifies and its tokenizer, loaded once for many texts.

    Args:
        model: what judges.
        tokenizer: what makes ids of text.
        name: the Hub name or folder that it came from.
    """

    model: LEDForSequenceClassification
    tokenizer: LEDTokenizer
    name: str

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        revision: str | None = None,
        backend: str | Backend = "auto",
        dtype: str = "float32",
        notice: Callable[[str], None] | None = None,
    ) -> "Classifier":
        """Load a checkpoint of LEDForSequenceClassification; the arguments are those of led_ref.load.

        Raises:
            CheckpointError: if it has no `classification_head`, as the bundled model has none; the message says what it is.
            LEDError: as led_ref.load.
        """
        return cls(
            *load_parts(
                LEDForSequenceClassification, model, revision=revision, backend=backend, dtype=dtype, notice=notice
            )
        )

    def classify(
        self,
        text: str,
        *,
        global_attention: GlobalAttention = "first",
        truncation: bool = False,
        progress: Progress | None = None,
    ) -> list[Label]:
        """All labels with their scores, the highest first.

        Args:
            text: a document.
            global_attention: which tokens see everything: "first" (what the paper did for classification), or as in
                LED.generate.
            truncation: cut a document that is too long, keeping its beginning; False: refuse it.
            progress: told after each encoder layer.

        Raises:
            InputError: if the document is empty or too long.
        """
        ids = self.encode(text, truncation=truncation)
        mask = global_mask(global_attention, len(ids))
        read = self.model.encoder([ids], [[1] * len(ids)], [mask], progress=progress)
        logits_Y = self.model([ids], encoder_outputs=read, use_cache=False).to_numpy().logits[0].astype(np.float64)
        scores_Y = _scores(logits_Y, self.model.config.problem_type)
        names = self.model.config.id2label
        order = np.argsort(-scores_Y, kind="stable")
        return [Label(names[int(i)], float(scores_Y[i])) for i in order]

    def encode(self, text: str, *, truncation: bool = False) -> list[int]:
        """The ids of a document, with `<s>` and `</s>`.

        Raises:
            InputError: if it is empty, or longer than the model reads and `truncation` is False.
        """
        return encode_document(text, self.tokenizer, self.model.longest_document, self.name, truncation=truncation)


def classify(
    text: str,
    model: str | Path | Classifier | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    global_attention: GlobalAttention = "first",
    truncation: bool = False,
) -> list[Label]:
    """Give a text labels: load a model and run it, in one call.

    Args:
        text: a document.
        model: a folder or a name on the Hub of a fine-tuned LEDForSequenceClassification (none is bundled), or a Classifier.
        backend: see `led_ref.load`; a Classifier has its own.
        dtype: see there; likewise.
        global_attention: see `Classifier.classify`.
        truncation: see there.

    Returns:
        All labels, the highest score first.

    Raises:
        CheckpointError: if the checkpoint is not one of LEDForSequenceClassification; the message says of which class it is.
        LEDError: as `led_ref.load` and `Classifier.classify`.
    """
    loaded = model if isinstance(model, Classifier) else Classifier.load(model, backend=backend, dtype=dtype)
    return loaded.classify(text, global_attention=global_attention, truncation=truncation)


def _scores(logits_Y: HostArray, problem_type: str | None) -> HostArray:
    """What the logits mean."""
    if problem_type == REGRESSION:
        return logits_Y
    if problem_type == MULTI_LABEL or len(logits_Y) == 1:
        return np.exp(-np.logaddexp(0, -logits_Y))  # 1 / (1 + exp(-x)), for any x
    return np.exp(log_softmax(logits_Y))
