"""Validation: how good the model is on held-out documents, and whether a training should stop.

    loss      mean of the losses over all labels, without dropout and label smoothing
    rouge     mean of the F-measures of ROUGE-1, ROUGE-2 and ROUGE-L, in percent, of what the model writes with its own
              generation_config; Google's rouge-score (extra `evaluate`), without its stemmer

Documents are read one at a time, so that no number depends on how they are put together.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.errors import InputError, SettingsError
from led_ref.tokenizer.decoding import readable
from led_ref.tokenizer.tokenizer import LEDTokenizer
from led_ref.training.batch import Trainable, checked_batch
from led_ref.training.batches import GlobalMask, collate
from led_ref.training.data import Dataset

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Best:
    """The best validation so far.

    Args:
        value: of the deciding measure; None before the first validation.
        step: after which it was measured.
        since: how many validations came after it.
    """

    value: float | None = None
    step: int = 0
    since: int = 0

    def after(self, value: float, step: int, *, higher_is_better: bool, threshold: float) -> "Best":
        """The best after one more validation. NaN is never better."""
        gain = 0.0 if self.value is None else (value - self.value if higher_is_better else self.value - value)
        if math.isfinite(value) and (self.value is None or gain > threshold):
            return Best(value, step, 0)
        return replace(self, since=self.since + 1)


def validate(
    model: Trainable,
    held_out: Dataset,
    tokenizer: LEDTokenizer,
    mask_of: GlobalMask,
    metric: str,
    *,
    pad_token_id: int,
) -> dict[str, float]:
    """The measures of held-out documents: eval_loss, and with metric "rouge" eval_rouge1, ..., eval_rouge.

    Args:
        model: as it is now.
        held_out: the documents.
        tokenizer: decodes what the model writes.
        mask_of: the global attention mask of a document.
        metric: "loss" or "rouge".
        pad_token_id: of the model.

    Raises:
        InputError: if rouge-score is not installed.
    """
    sums = [0.0, 0.0]
    for i in range(len(held_out)):
        batch = collate(held_out, (i,), pad_token_id, mask_of)
        counts = checked_batch(model, batch).target.counts
        loss: Any = model(**batch).loss
        sums[0] += float(loss) * counts[0]
        sums[1] += counts[0]
    measures = {"eval_loss": sums[0] / sums[1]}
    if metric == "rouge":
        measures |= _rouge(model, held_out, tokenizer, mask_of)
    return measures


def check_metric(metric: str, task: str) -> None:
    """Refuse a metric that cannot be measured, before anything is trained.

    Raises:
        SettingsError: if it is rouge, and the task is no summarization.
        InputError: if rouge-score is not installed.
    """
    if metric != "rouge":
        return
    if task != "summarization":
        raise SettingsError(f"The metric rouge compares summaries, but the task is {task}. Validate by loss.")
    _scorer()


def _rouge(model: Any, held_out: Dataset, tokenizer: LEDTokenizer, mask_of: GlobalMask) -> dict[str, float]:
    assert isinstance(model, LEDForConditionalGeneration)
    score, totals = _scorer(), dict.fromkeys(ROUGE_TYPES, 0.0)
    for example in held_out.examples:
        written = model.generate([example.ids_T.tolist()], global_attention_mask=[mask_of(example.ids_T).tolist()])
        texts = [
            readable(tokenizer, ids.tolist(), skip_special_tokens=True).strip()
            for ids in (example.target, np.asarray(written)[0])
        ]
        for name, found in score(*texts).items():
            totals[name] += 100 * found.fmeasure / len(held_out)
    mean = sum(totals.values()) / len(totals)
    return {**{f"eval_{name}": value for name, value in totals.items()}, "eval_rouge": mean}


def _scorer() -> Callable[[str, str], Any]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise InputError(f"ROUGE needs rouge-score ({error}). Install it: pip install 'led-ref[evaluate]'") from error
    score: Callable[[str, str], Any] = RougeScorer(list(ROUGE_TYPES), use_stemmer=False).score
    return score
