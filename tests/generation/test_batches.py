"""Batches of documents: the same texts as alone, within a budget of memory, and an error stays with its document."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from led_ref.costs import memory as memory_plan
from led_ref.errors import InputError, SettingsError
from led_ref.pipelines.batching import plan_batches
from led_ref.pipelines.loading import Document
from led_ref.pipelines.summarization import write_each

PIECES = [(3, 40), (700, 820), (10, 190), (1500, 1630), (20, 90), (900, 1010), (400, 404)]


@pytest.fixture(scope="module")
def documents(bundled, manual_page):
    return [bundled.prepare(manual_page[start:stop]) for start, stop in PIECES]


@given(lengths=st.lists(st.integers(1, 1000), max_size=30), most=st.integers(1, 5), room=st.integers(1, 2000))
def test_plan_covers_documents_within_limits(lengths, most, room):
    batches = plan_batches(lengths, most=most, fits=lambda longest, count: longest * count <= room)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) <= most for batch in batches)
    assert all(len(batch) == 1 or lengths[batch[0]] * len(batch) <= room for batch in batches)
    in_order = [lengths[i] for batch in batches for i in batch]
    assert in_order == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 1, "max_new_tokens": 8},
        {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 8, "repetition_penalty": 1.2},
        {
            "num_beams": 4,
            "num_beam_groups": 2,
            "diversity_penalty": 0.5,
            "num_return_sequences": 3,
            "max_new_tokens": 9,
        },
        {"do_sample": True, "temperature": 2.0, "seed": 5, "num_return_sequences": 2, "max_new_tokens": 8},
        {"num_beams": 2, "encoder_no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.4, "max_new_tokens": 8},
    ],
)
def test_ids_are_batch_invariant(bundled, documents, settings):
    alone = dict(write_each(bundled.model, documents, settings))
    together = list(write_each(bundled.model, documents, settings, batch_size=4))
    assert sorted(i for i, _ in together) == list(range(len(PIECES)))
    for i, written in together:
        assert written.ids == alone[i].ids
        assert written.scores == (None if alone[i].scores is None else pytest.approx(alone[i].scores, abs=1e-4))


def test_skipped_documents_change_no_batch(bundled, documents, monkeypatch):
    seen = []
    encoder = type(bundled.model.encoder)
    read = encoder.__call__

    def recording(self, ids, *rest, **more):
        seen.append(len(ids[0]))
        return read(self, ids, *rest, **more)

    monkeypatch.setattr(encoder, "__call__", recording)
    lengths = [len(document.ids) for document in documents]
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    skip = set(order[:4]) | {order[5]}
    found = [i for i, _ in write_each(bundled.model, documents, {"max_new_tokens": 2}, batch_size=3, skip=skip)]
    assert found == [order[4], order[6]]
    assert seen == [lengths[i] for i in order[3:]]  # the first batch is all there; the second is made again as it was


def test_batches_stay_within_memory_budget(bundled, documents, monkeypatch):
    loads = []
    plan = memory_plan.plan
    monkeypatch.setattr(memory_plan, "plan", lambda config, load: (loads.append(load), plan(config, load))[1])
    settings = {"num_beams": 2, "max_new_tokens": 4}
    list(write_each(bundled.model, documents, settings, batch_size=4, batch_memory=1))
    loads = [load for load in loads if load.new_tokens]  # without the encoder's own checks of a device's free memory
    assert {load.batch for load in loads} >= {2}
    assert {load.beams for load in loads} == {2}
    longest = max(len(document.ids) for document in documents)
    assert longest in {load.tokens for load in loads}


def test_failed_document_leaves_batch_intact(bundled, documents, monkeypatch):
    model = type(bundled.model)
    write = model.generate

    def broken(self, input_ids=None, **more):
        if input_ids is None or len(input_ids[0]) == len(documents[1].ids):
            raise InputError("no best next id")
        return write(self, input_ids, **more)

    monkeypatch.setattr(model, "generate", broken)
    found = dict(write_each(bundled.model, documents, {"max_new_tokens": 2}, batch_size=7))
    assert [i for i, written in found.items() if isinstance(written, InputError)] == [1]
    assert len(found) == len(PIECES)


def test_results_in_order_and_streamed(bundled, manual_page):
    texts = [manual_page[start:stop] for start, stop in PIECES]
    alone = [bundled.generate(text, max_new_tokens=6) for text in texts]
    assert bundled.generate(texts, max_new_tokens=6, batch_size=4) == alone
    each = list(bundled.generate_each([*texts, ""], max_new_tokens=6, batch_size=4))
    assert each[0][0] == len(texts)
    assert "empty" in str(each[0][1])
    assert sorted(each[1:]) == list(enumerate(alone))
    assert [i for i, _ in each[1:]] != sorted(i for i, _ in each[1:])


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": 2.0}, {"batch_memory": -1}])
def test_invalid_batch_sizes_are_refused(bundled, wrong):
    (name,) = wrong
    with pytest.raises(SettingsError, match=rf"{name} is .*at least 1"):
        list(write_each(bundled.model, [Document([0, 2], [1, 0])], {}, **wrong))
