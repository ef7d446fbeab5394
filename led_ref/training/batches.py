"""Batches: which documents are read together, in which order, and as which arrays.

A step of the optimizer reads `gradient_accumulation_steps` batches. Batches hold documents of like length, so that little is
padding, and keep to a budget of documents and of tokens. The order is a pure function of (seed, epoch): a run that goes on at
(epoch, position) reads what it would have read.

    >>> plan = BatchPlan(lengths=(5, 900, 7, 880, 6), batch_size=2, accumulation=1, seed=0)
    >>> [[sorted(batch) for batch in step] for step in plan.steps(epoch=0)]
    [[[0]], [[1, 3]], [[2, 4]]]

Documents are drawn by a hash and not by NumPy's generators, whose numbers may change with NumPy's version.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.errors import SettingsError, quoted
from led_ref.model.losses import IGNORED_LABEL
from led_ref.tokenizer.tokenizer import LEDTokenizer
from led_ref.training.data import Dataset
from led_ref.training.settings import TrainingArguments

# Within so many batches, documents are sorted by length. More: less padding; fewer: an epoch's order is freer.
_BATCHES_SORTED = 50

Batch = tuple[int, ...]  # numbers of documents
Step = tuple[Batch, ...]


@dataclass(frozen=True)
class BatchPlan:
    """The batches of every epoch.

    Args:
        lengths: tokens of each document.
        batch_size: most documents of a batch.
        accumulation: batches of a step; the last step of an epoch may have fewer.
        seed: of the run.
        batch_tokens: most tokens of a batch, each document counted as long as the longest; None: any number.
        grouped: put documents of like length together.
        targets: tokens of each document's target; those of a batch come in this order, so that documents which are computed
            together have targets of like length, too.
    """

    lengths: tuple[int, ...]
    batch_size: int
    accumulation: int
    seed: int
    batch_tokens: int | None = None
    grouped: bool = True
    targets: tuple[int, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset, args: TrainingArguments) -> "BatchPlan":
        """The plan of a run.

        Raises:
            SettingsError: if a document alone has more tokens than `batch_tokens`.
        """
        lengths, tokens = dataset.lengths, args.batch_tokens
        if tokens is not None and max(lengths) > tokens:
            longest = dataset.examples[int(np.argmax(lengths))]
            raise SettingsError(
                f"batch_tokens is {tokens:,}, but {longest.place} alone has {max(lengths):,} tokens. Give at least as many, or "
                "cut documents with max_source_length and truncate."
            )
        return cls(
            tuple(lengths),
            args.per_device_train_batch_size,
            args.gradient_accumulation_steps,
            args.seed,
            tokens,
            args.group_by_length,
            tuple(dataset.target_lengths),
        )

    def steps(self, epoch: int) -> list[Step]:
        """The steps of an epoch: each document is in one batch of one step."""
        order = self._shuffled(range(len(self.lengths)), f"{self.seed} {epoch} document")
        if self.grouped:
            pool = _BATCHES_SORTED * self.batch_size
            order = [
                i for k in range(0, len(order), pool) for i in sorted(order[k : k + pool], key=self._longest_first)
            ]
        batches = self._cut(order)
        if self.grouped:
            batches = [batches[i] for i in self._shuffled(range(len(batches)), f"{self.seed} {epoch} batch")]
        return [tuple(batches[k : k + self.accumulation]) for k in range(0, len(batches), self.accumulation)]

    def total_steps(self, epochs: float) -> int:
        """The steps of so many epochs; a fraction of an epoch is rounded up to whole steps."""
        whole = int(epochs)
        if self.batch_tokens is None:  # then every epoch has as many
            each = -(-len(self.lengths) // self.batch_size)
            each = -(-each // self.accumulation)
            return whole * each + _part(epochs - whole, each)
        counts = [len(self.steps(epoch)) for epoch in range(math.ceil(epochs))]
        return sum(counts[:whole]) + sum(_part(epochs - whole, count) for count in counts[whole:])

    def _longest_first(self, i: int) -> int:
        return -self.lengths[i]

    def _cut(self, order: Sequence[int]) -> list[Batch]:
        """The documents in this order, cut where the next one would be above the budget."""
        batches: list[list[int]] = []
        longest = 0
        for i in order:
            longest = max(longest, self.lengths[i])
            if batches and self._fits(longest, len(batches[-1]) + 1):
                batches[-1].append(i)
            else:
                batches.append([i])
                longest = self.lengths[i]
        if self.grouped and self.targets:
            return [tuple(sorted(batch, key=self.targets.__getitem__)) for batch in batches]
        return [tuple(batch) for batch in batches]

    def _fits(self, longest: int, count: int) -> bool:
        return count <= self.batch_size and (self.batch_tokens is None or longest * count <= self.batch_tokens)

    @staticmethod
    def _shuffled(numbers: Sequence[int], draw: str) -> list[int]:
        """The numbers sorted by a hash of each and of `draw`."""

        def key(i: int) -> bytes:
            return hashlib.blake2b(f"{draw} {i}".encode(), digest_size=16).digest()

        return sorted(numbers, key=key)


def _part(fraction: float, steps: int) -> int:
    """A fraction of so many steps, rounded up; 0.1 of 10 is 1, whatever the last bits of 0.1 are."""
    return math.ceil(round(fraction * steps, 6))


# ---- global attention ----------------------------------------------------------------------------------------------------

# From the ids of a document to its global attention mask: int64 (T,) of 0 and 1.
GlobalMask = Callable[[HostArray], HostArray]


def global_mask(name: str | Sequence[int | str], tokenizer: LEDTokenizer, separator: str = "<doc-sep>") -> GlobalMask:
    """The function from ids to a global attention mask that has this name.

    Args:
        name: "none"; "first": `<s>`; "all"; "question": all up to the first `</s>`, as question_answering.py has it;
            "separators": `<s>` and every separator, as PRIMERA has it; or a list of positions and tokens, as in LED.generate.
        tokenizer: knows the ids.
        separator: the token between documents.

    Raises:
        SettingsError: for another name, or a separator or token that the vocabulary does not have. What it returns raises it
            for a document that ends before a position.

    Example:
        >>> import led_ref
        >>> of_question = global_mask("question", led_ref.load().tokenizer)
        >>> of_question(np.array([0, 77, 78, 2, 2, 99, 2])).tolist()
        [1, 1, 1, 0, 0, 0, 0]
    """
    if not isinstance(name, str):
        return _of_positions_and_tokens(name, tokenizer)
    if name == "all":
        return lambda ids_T: np.ones(len(ids_T), np.int64)
    if name == "none":
        return lambda ids_T: np.zeros(len(ids_T), np.int64)
    if name == "first":
        return lambda ids_T: (np.arange(len(ids_T)) == 0).astype(np.int64)
    if name == "question":
        end = tokenizer.sep_token_id
        return lambda ids_T: (np.cumsum(ids_T == end) == 0).astype(np.int64)
    if name == "separators":
        if separator not in tokenizer.get_vocab():
            raise SettingsError(
                f"The separator {separator!r} is no token of this model's vocabulary. PRIMERA's has <doc-sep>; name another "
                "token with separator (--separator), </s> for one."
            )
        between = tokenizer.convert_tokens_to_ids(separator)
        return lambda ids_T: ((ids_T == between) | (np.arange(len(ids_T)) == 0)).astype(np.int64)
    raise SettingsError(f"global_attention is {name!r}; it is none, first, all, question or separators.")


def check_global_masks(mask_of: GlobalMask, *datasets: Dataset | None) -> None:
    """Refuse a global attention that a document cannot have, before the first step.

    Raises:
        SettingsError: with the document's place.
    """
    for example in (one for dataset in datasets if dataset is not None for one in dataset.examples):
        try:
            mask_of(example.ids_T)
        except SettingsError as error:
            raise SettingsError(f"{example.place}: {error}") from error


def _of_positions_and_tokens(given: Sequence[int | str], tokenizer: LEDTokenizer) -> GlobalMask:
    positions, tokens = [i for i in given if not isinstance(i, str)], [i for i in given if isinstance(i, str)]
    vocabulary = tokenizer.get_vocab() if tokens else {}
    for token in tokens:
        if token not in vocabulary:
            raise SettingsError(
                f"global_attention holds the token {quoted(token, 60)}, which this model's vocabulary does not have. Give one "
                f"that it has, such as '</s>', positions, or a name."
            )
    ids = [vocabulary[token] for token in tokens]

    def mask_of(ids_T: HostArray) -> HostArray:
        if positions and max(positions) >= len(ids_T):
            raise SettingsError(
                f"global_attention holds the position {max(positions)}, but a document has {len(ids_T)} tokens. Give positions "
                "that every document has, or tokens."
            )
        mask_T = np.isin(ids_T, ids).astype(np.int64)
        mask_T[positions] = 1
        return mask_T

    return mask_of


# ---- arrays --------------------------------------------------------------------------------------------------------------


def collate(dataset: Dataset, documents: Sequence[int], pad_token_id: int, mask_of: GlobalMask) -> dict[str, Any]:
    """A batch as arguments of the model's `forward`, padded to its longest document and target.

    Args:
        dataset: the documents.
        documents: which of them, at least one.
        pad_token_id: fills up input_ids.
        mask_of: the global attention mask of a document.

    Returns:
        input_ids, attention_mask (0 behind a document), global_attention_mask (-1 there), int64 (B, T); and by the task labels
        int64 (B, U), -100 behind a target; start_positions and end_positions (B,); or labels (B,) or (B, Y). The decoder's
        input is made of the labels where the loss is (training/batch.py).
    """
    examples = [dataset.examples[i] for i in documents]
    ids = [example.ids_T.astype(np.int64) for example in examples]
    batch: dict[str, Any] = {
        "input_ids": _padded(ids, pad_token_id),
        "attention_mask": _padded([np.ones(len(row), np.int64) for row in ids], 0),
        "global_attention_mask": _padded([mask_of(row) for row in ids], -1),
    }
    targets = [example.target for example in examples]
    if dataset.task == "question-answering":
        spans_B2 = np.stack(targets).astype(np.int64)
        return {**batch, "start_positions": spans_B2[:, 0], "end_positions": spans_B2[:, 1]}
    if dataset.task == "classification":
        labels = np.stack(targets)
        return {**batch, "labels": labels[:, 0] if labels.dtype == np.int64 else labels}
    return {**batch, "labels": _padded([target.astype(np.int64) for target in targets], IGNORED_LABEL)}


def _padded(rows: Sequence[HostArray], value: int) -> HostArray:
    """Rows of different lengths as one array, int64."""
    padded = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for row, content in zip(padded, rows, strict=True):
        row[: len(content)] = content
    return padded
