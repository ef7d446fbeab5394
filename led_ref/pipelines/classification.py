"""`Classifier`: a text in, the labels of a classification and their scores out.

    labels = led_ref.classify(text, "./my-classifier")
    labels[0].label, labels[0].score                                    the most probable one

The names of the labels are config.json's `id2label`. The meaning of a score depends on `problem_type` in config.json:

    one of several labels       softmax over the labels: the scores add up to 1
    any number of labels        sigmoid of each; a single label, too
    a regression                the value itself

Without a name the bundled classifier is loaded (bundled/classifier/MODEL_CARD.md); others are those of
LEDForSequenceClassification.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from led_backends.contract import HostArray
from led_ref.classes.heads import LEDForSequenceClassification
from led_ref.classes.input_checks import check_types
from led_ref.classes.led import Progress
from led_ref.config import MULTI_LABEL, REGRESSION
from led_ref.generation.step import log_softmax
from led_ref.pipelines.batching import check_document_list, of_each
from led_ref.pipelines.loading import Document, GlobalAttention, TextPipeline, for_each_document


@dataclass(frozen=True)
class Label:
    """A label and its score; the fields are those of transformers' text-classification pipeline."""

    label: str
    score: float


@dataclass(frozen=True)
class Classifier(TextPipeline[LEDForSequenceClassification]):
    """A model that classifies (it gives each label a logit) and its tokenizer; arguments as in TextPipeline."""

    model_class = LEDForSequenceClassification
    task = "classification"

    @overload
    def classify(  # type: ignore[overload-overlap]  # a str is a sequence of str, and comes first
        self,
        text: str,
        *,
        global_attention: GlobalAttention = "first",
        truncation: bool = False,
        progress: Progress | bool | None = None,
    ) -> list[Label]: ...
    @overload
    def classify(
        self,
        text: Sequence[str],
        *,
        global_attention: GlobalAttention = "first",
        truncation: bool = False,
        progress: Progress | bool | None = None,
    ) -> list[list[Label]]: ...
    @check_types
    def classify(
        self,
        text: str | Sequence[str],
        *,
        global_attention: GlobalAttention = "first",
        truncation: bool = False,
        progress: Progress | bool | None = None,
    ) -> list[Label] | list[list[Label]]:
        """All labels with their scores, the highest first; of several documents, a list for each.

        Args:
            text: one document or several.
            global_attention: the tokens with global attention: "first" (as in the paper for classification), or as in
                LED.generate.
            truncation: cut a document that is too long, keeping its beginning; False: refuse it.
            progress: called after each encoder layer; True: bars on standard error.

        Raises:
            InputError: if a document is empty or too long (of several, the message says which; none is read then).
        """
        texts = text if isinstance(text, str) else check_document_list(text)
        globals_of = iter(
            [global_attention] if isinstance(texts, str) else for_each_document(global_attention, len(texts))
        )

        def prepare(text: str) -> Document:
            ids = self.encode(text, truncation=truncation)
            return Document(ids, self.global_mask(ids, next(globals_of)))

        found = of_each(texts, prepare, self._labels, progress)
        return found

    def _labels(self, document: Document, progress: Progress | None) -> list[Label]:
        """The labels of one document."""
        ids = document.ids
        read = self.model.encoder([ids], [[1] * len(ids)], [document.global_mask], progress=progress)
        logits_Y = self.model([ids], encoder_outputs=read, use_cache=False).to_numpy().logits[0].astype(np.float64)
        scores_Y = _scores(logits_Y, self.model.config.problem_type)
        names = self.model.config.id2label
        order = np.argsort(-scores_Y, kind="stable")
        return [Label(names[int(i)], float(scores_Y[i])) for i in order]


def _scores(logits_Y: HostArray, problem_type: str | None) -> HostArray:
    """Convert logits to the scores that the problem type asks for."""
    if problem_type == REGRESSION:
        return logits_Y
    if problem_type == MULTI_LABEL or len(logits_Y) == 1:
        return np.exp(-np.logaddexp(0, -logits_Y))  # 1 / (1 + exp(-x)), for any x
    return np.exp(log_softmax(logits_Y))
