"""Batches: each document once an epoch, within the budget, in an order that seed and epoch alone decide."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from led_ref.errors import SettingsError
from led_ref.training.batches import BatchPlan, collate, global_mask
from led_ref.training.data import Dataset
from led_ref.training.examples import Example
from led_ref.training.settings import TrainingArguments

PLANS = st.builds(
    BatchPlan,
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=400).map(tuple),
    batch_size=st.integers(1, 7),
    accumulation=st.integers(1, 4),
    seed=st.integers(0, 9),
    batch_tokens=st.none() | st.integers(40, 120),
    grouped=st.booleans(),
)

YESTERDAY = [((6, 5, 4), (3, 2, 1)), ((0,), (9, 8, 7))]


def dataset(*targets, task="summarization", lengths=(4, 2, 3)):
    examples = [
        Example(np.arange(10, 10 + length, dtype=np.int32), target, f"file:{i}")
        for i, (length, target) in enumerate(zip(lengths, targets, strict=True))
    ]
    return Dataset(task, tuple(examples), "")


@given(PLANS, st.integers(0, 3))
def test_epoch_has_each_document_once_within_budget(plan, epoch):
    steps = plan.steps(epoch)
    batches = [batch for step in steps for batch in step]
    assert sorted(i for batch in batches for i in batch) == list(range(len(plan.lengths)))
    for batch in batches:
        longest = max(plan.lengths[i] for i in batch)
        assert len(batch) <= plan.batch_size
        assert plan.batch_tokens is None or longest * len(batch) <= plan.batch_tokens
    assert {len(step) for step in steps[:-1]} <= {plan.accumulation}
    assert 1 <= len(steps[-1]) <= plan.accumulation


@given(PLANS, st.integers(0, 3))
def test_batches_are_filled(plan, epoch):
    """In the order of documents, no two neighbouring batches of an ungrouped plan fit into one."""
    if plan.grouped:
        return
    batches = [batch for step in plan.steps(epoch) for batch in step]
    for batch, following in itertools.pairwise(batches):
        together = [*batch, following[0]]
        longest = max(plan.lengths[i] for i in together)
        assert len(together) > plan.batch_size or longest * len(together) > plan.batch_tokens


def test_order_depends_on_seed_and_epoch():
    lengths = tuple(np.random.default_rng(0).integers(2, 900, 300).tolist())
    plans = [BatchPlan(lengths, 4, 2, seed) for seed in (0, 1)]
    orders = [plan.steps(epoch) for plan in plans for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6
    batches = [{frozenset(batch) for step in order for batch in step} for order in orders]
    assert max(len(a & b) for a, b in itertools.combinations(batches, 2)) < 20  # of 75: documents meet others
    assert plans[0].steps(1) == BatchPlan(lengths, 4, 2, 0).steps(1)


def test_order_is_that_of_yesterday():
    """Written down once: a checkpoint of one version of Python, NumPy and led_ref is resumed with another."""
    assert BatchPlan(tuple(range(2, 12)), 3, 2, seed=3).steps(5) == YESTERDAY


@given(PLANS, st.sampled_from([0.3, 1, 1.5, 2, 2.01]))
def test_steps_are_counted_before_they_are_made(plan, epochs):
    whole = int(epochs)
    part = plan.steps(whole)
    steps = sum(len(plan.steps(epoch)) for epoch in range(whole)) + int(np.ceil(round((epochs - whole) * len(part), 9)))
    assert plan.total_steps(epochs) == steps


def test_batches_group_documents_of_like_length():
    lengths = tuple(np.random.default_rng(1).integers(10, 1000, 1000).tolist())

    def padded(grouped):
        batches = [batch for step in BatchPlan(lengths, 4, 1, 0, grouped=grouped).steps(0) for batch in step]
        return sum(max(lengths[i] for i in batch) * len(batch) for batch in batches) / sum(lengths)

    assert padded(grouped=True) < 1.03
    assert padded(grouped=False) > 1.4


def test_batch_is_in_order_of_target_length():
    rng = np.random.default_rng(2)
    lengths, targets = (tuple(rng.integers(2, 60, 97).tolist()) for _ in "ab")
    plain = BatchPlan(lengths, 8, 2, 3).steps(1)
    ordered = BatchPlan(lengths, 8, 2, 3, targets=targets).steps(1)
    assert [[set(batch) for batch in step] for step in plain] == [[set(batch) for batch in step] for step in ordered]
    for batch in (batch for step in ordered for batch in step):
        assert list(batch) == sorted(batch, key=targets.__getitem__)
    assert BatchPlan(lengths, 8, 2, 3, targets=targets, grouped=False).steps(1) == BatchPlan(
        lengths, 8, 2, 3, grouped=False
    ).steps(1)


def test_longest_batch_is_not_always_first():
    lengths = tuple(range(2, 402))
    first = {max(lengths[i] for i in BatchPlan(lengths, 4, 1, 0).steps(epoch)[0][0]) for epoch in range(8)}
    assert len(first) > 4


def test_plan_of_arguments():
    plan = BatchPlan.of(
        dataset(*[np.zeros(1, np.int32)] * 3),
        TrainingArguments(
            per_device_train_batch_size=3, gradient_accumulation_steps=5, seed=7, batch_tokens=4, group_by_length=False
        ),
    )
    assert plan == BatchPlan((4, 2, 3), 3, 5, 7, 4, grouped=False, targets=(1, 1, 1))
    with pytest.raises(SettingsError, match="batch_tokens is 3, but file:0 alone has 4 tokens"):
        BatchPlan.of(dataset(*[np.zeros(1, np.int32)] * 3), TrainingArguments(batch_tokens=3))


def test_summaries_are_padded():
    batch = collate(
        dataset(np.array([0, 7, 2], np.int32), np.array([0, 2], np.int32), np.array([0, 7, 8, 2], np.int32)),
        (1, 0),
        1,
        lambda ids_T: (ids_T == 10).astype(np.int64),
    )
    assert {name: array.tolist() for name, array in batch.items()} == {
        "input_ids": [[10, 11, 1, 1], [10, 11, 12, 13]],
        "attention_mask": [[1, 1, 0, 0], [1, 1, 1, 1]],
        "global_attention_mask": [[1, 0, -1, -1], [1, 0, 0, 0]],
        "labels": [[0, 2, -100], [0, 7, 2]],
    }
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_answers_and_labels_in_a_batch():
    answers = dataset(*np.array([[1, 2], [0, 0], [2, 2]], np.int32), task="question-answering")
    batch = collate(answers, (0, 1), 1, lambda ids_T: ids_T)
    assert (batch["start_positions"].tolist(), batch["end_positions"].tolist()) == ([1, 0], [2, 0])
    one = dataset(*[np.array([i]) for i in (1, 0, 4)], task="classification")
    assert collate(one, (2, 0), 1, lambda ids_T: ids_T)["labels"].tolist() == [4, 1]
    several = dataset(*[np.array([i, 0.5]) for i in (1.0, 0, 4)], task="classification")
    assert collate(several, (2, 0), 1, lambda ids_T: ids_T)["labels"].tolist() == [[4.0, 0.5], [1.0, 0.5]]


def test_global_masks(bundled):
    ids = np.array([0, 9, 2, 2, 50, 9, 2])
    word = bundled.tokenizer.convert_ids_to_tokens(9)
    masks = {name: global_mask(name, bundled.tokenizer, word)(ids).tolist() for name in ("none", "first", "question")}
    assert masks == {"none": [0] * 7, "first": [1, 0, 0, 0, 0, 0, 0], "question": [1, 1, 0, 0, 0, 0, 0]}
    assert global_mask("separators", bundled.tokenizer, word)(ids).tolist() == [1, 1, 0, 0, 0, 1, 0]
    with pytest.raises(SettingsError, match="'<doc-sep>' is no token"):
        global_mask("separators", bundled.tokenizer)
    assert global_mask("all", bundled.tokenizer)(ids).tolist() == [1] * 7
    with pytest.raises(SettingsError, match="'last'; it is none, first"):
        global_mask("last", bundled.tokenizer)


def test_global_mask_of_positions_and_tokens(bundled):
    """That of generate, for every document."""
    word = bundled.tokenizer.convert_ids_to_tokens(9)
    for chosen in ((3,), (0, word), ("</s>", 1, word)):
        for ids in ([0, 9, 2, 2, 50, 9, 2], [0, 50, 50, 50, 2]):
            expected = bundled.global_mask(ids, chosen)
            assert global_mask(chosen, bundled.tokenizer)(np.array(ids)).tolist() == expected
    with pytest.raises(SettingsError, match="the token '<sep>', which this model's vocabulary does not have"):
        global_mask(["<sep>"], bundled.tokenizer)


def test_question_mask_is_that_of_answering(bundled):
    """The mask of training is the one that led_ref.answer gives the model."""
    from training.small_models import small_model

    from led_ref.pipelines.question_answering import QuestionAnswerer

    answerer = QuestionAnswerer(small_model("question-answering"), bundled.tokenizer, "")
    prepared = answerer.prepare("Who sat?", "The cat sat.", truncation=True)
    of_question = global_mask("question", bundled.tokenizer)
    assert of_question(np.array(prepared.ids)).tolist() == prepared.global_mask
