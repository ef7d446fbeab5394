"""Prompt lookup writes the ids of plain search: over toy models whose rounding is planted, and over a small LED."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_led import CONFIG, draw_weights
from test_search_properties import ModelOfDocuments, calls

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.lookup import LookupStep, RowReader
from led_ref.errors import SettingsError
from led_ref.generation import GenerationConfig, OwnRules
from led_ref.generation.prompt_lookup import propose
from led_ref.generation.search import search
from led_ref.model.intermediates import Recorder
from led_ref.model.kv_cache import CachePlan
from led_ref.pipelines import summarization

MANY = settings(max_examples=3 * settings().max_examples)
PIECES = {token: bytes([65 + token]) for token in range(7)}


class RoundingReader:
    """A row of ModelOfDocuments. What was not read id by id is off by a little, and so is all that follows it."""

    def __init__(self, table: np.ndarray, off: float, prompt: int) -> None:
        self.table, self.off, self.prompt = table, off, prompt
        self.read: list[int] = []
        self.exact: list[bool] = []
        self.rng = np.random.default_rng(0)

    def __call__(self, kept: int, ids: Any, wanted: int) -> np.ndarray:
        assert kept <= len(self.read)
        del self.read[kept:], self.exact[kept:]
        alone = len(ids) == (1 if kept else self.prompt)
        self.exact += [alone] * len(ids)
        self.read += ids
        ends = range(len(self.read) - wanted + 1, len(self.read) + 1)
        logits = np.stack([self.table[(0, *self.read)[end - 1], self.read[end - 1]] for end in ends])
        if not all(self.exact):
            logits = logits + self.rng.choice([-self.off, self.off], logits.shape)
        return logits.astype(np.float32)


def models_with_near_ties(seed: int, documents: int) -> ModelOfDocuments:
    """Logits that are whole numbers but for some thousandths, so that two ids often are almost equally good."""
    model = ModelOfDocuments(seed, documents)
    for of_document in model.models:
        of_document.table = np.round(of_document.table) + 0.001 * of_document.table
    return model


def toy_lookup(seed: int, prompts: Any, sources: Any, chosen: dict[str, Any], off: float, close: float) -> LookupStep:
    texts = chosen.get("num_return_sequences", 1)
    models = models_with_near_ties(seed, len(prompts)).models
    rows = [b for b in range(len(prompts)) for _ in range(texts)]
    readers = [RoundingReader(models[b].table, off, len(prompts[0])) for b in rows]
    ids = [np.array(sources[b]) for b in rows]
    return LookupStep(readers, ids, chosen["prompt_lookup_num_tokens"], chosen["max_length"], close)


@st.composite
def one_beam_calls(draw: st.DrawFn) -> tuple[Any, ...]:
    """As `calls`, with one beam or ids drawn, longer texts, and documents long enough to be copied from."""
    seed, chosen, prompts, _ = draw(calls())
    for name in ("length_penalty", "early_stopping", "num_return_sequences"):
        chosen.pop(name, None)
    chosen |= {"num_beams": 1, "max_length": chosen["max_length"] + draw(st.integers(0, 12))}
    chosen |= {"prompt_lookup_num_tokens": draw(st.integers(1, 7)), "output_scores": True, "output_logits": True}
    if draw(st.booleans()):
        chosen |= {"do_sample": True, "seed": draw(st.integers(0, 99)), "top_k": 0}
        chosen |= {"num_return_sequences": draw(st.integers(1, 3)), "temperature": draw(st.sampled_from([1.0, 0.4]))}
    if draw(st.booleans()):
        chosen["stop_strings"] = draw(st.sampled_from([("BF",), ("EG", "DDD")]))
    sources = [draw(st.lists(st.integers(0, 6), min_size=20, max_size=20)) for _ in prompts]
    return seed, chosen, prompts, sources


def own_rules(seen: list[list[int]]) -> OwnRules:
    def keep(ids_NU: np.ndarray, scores_NV: np.ndarray) -> np.ndarray:
        seen.append(ids_NU[:, -1].tolist())
        return scores_NV + np.where(np.arange(7) == (ids_NU.sum(axis=1, keepdims=True) % 7), -1.5, 0)

    return OwnRules(
        logits_processor=[keep],
        stopping_criteria=[lambda ids_NU, scores: ids_NU.sum(axis=1) % 11 == 10],
        text_bytes=lambda ids: b"".join(PIECES[i] for i in ids),
    )


@MANY
@given(one_beam_calls())
def test_lookup_chooses_what_plain_search_chooses(drawn: tuple[Any, ...]) -> None:
    """Also where reading ahead moves every logit by 0.04: whatever is as close as that is asked for again."""
    seed, chosen, prompts, sources = drawn
    given_ids = {"source_ids": np.array(sources)}
    config, prompt = GenerationConfig(**chosen), np.array(prompts)
    off, close = 0.04, 0.2
    seen: tuple[list[Any], list[Any]] = ([], [])
    try:
        plain = search(models_with_near_ties(seed, len(prompts)), prompt, config, own=own_rules(seen[0]), **given_ids)
    except ValueError as error:  # the rules forbid every id
        with pytest.raises(type(error)):
            search(
                toy_lookup(seed, prompts, sources, chosen, off, close), prompt, config, own=own_rules([]), **given_ids
            )
        return
    step = toy_lookup(seed, prompts, sources, chosen, off, close)
    found = search(step, prompt, config, own=own_rules(seen[1]), **given_ids)
    assert found.sequences.tolist() == plain.sequences.tolist()
    assert len(found.logits) == len(plain.logits)
    ended = np.zeros(len(plain.sequences), bool)
    for new, logits, scores, of_logits, of_scores in zip(
        plain.sequences[:, prompt.shape[1] :].T, found.logits, found.scores, plain.logits, plain.scores, strict=True
    ):
        np.testing.assert_allclose(logits[~ended], of_logits[~ended], atol=off + 1e-6)
        np.testing.assert_array_equal(np.isfinite(scores[~ended]), np.isfinite(of_scores[~ended]))
        ended |= np.isin(new, [1, 2, 5])
    assert [ids for n, ids in enumerate(seen[1]) if not n or ids != seen[1][n - 1]] == [
        ids for n, ids in enumerate(seen[0]) if not n or ids != seen[0][n - 1]
    ]


def test_copied_text_takes_few_passes() -> None:
    """The next id is the one after it in a circle of 3 4 5 6, as in the document: twelve ids in three passes."""
    table = np.zeros((7, 7, 7), np.float32)
    table[:, [2, 3, 4, 5, 6], [3, 4, 5, 6, 3]] = 9
    document = np.array([3, 4, 5, 6] * 3 + [3])
    step = LookupStep([RoundingReader(table, 0, 1)], [document], 5, 13, close=1e-6)
    config = GenerationConfig(max_length=13, pad_token_id=1)
    assert search(step, np.array([[2]]), config).sequences.tolist() == [[2, 3, 4, 5, 6] + [3, 4, 5, 6] * 2]
    assert step.passes == 3  # 3 | 4 5 6 3 4 | and the rest: after a longer n-gram more is proposed


@pytest.mark.parametrize(
    ("document", "ids", "proposed"),
    [
        ([0, 5, 6, 7, 5, 8, 9, 2], [2, 5], [6]),  # the first place
        ([0, 5, 6, 7, 5, 8, 9, 2], [2, 7, 5], [8, 9]),  # the longest n-gram
        ([0, 5, 6, 7, 5, 8, 9, 2], [2, 5, 6, 7], [5, 8, 9]),  # after a longer one, more
        ([0, 5, 6, 7, 5, 8, 9, 2], [2, 7, 5, 8], [9, 2]),  # nothing follows the document
        ([0, 5, 6], [2], [0]),  # the beginning
        ([0, 5, 6], [2, 6], []),
        ([0, 5, 6], [2, 7, 8, 9, 7, 8], [9, 7]),  # the text itself
        ([0, 5, 6], [2, 9], []),
    ],
)
def test_proposals(document: list[int], ids: list[int], proposed: list[int]) -> None:
    assert propose(np.array(document), ids, count=3) == proposed


# ---- a small LED -----------------------------------------------------------------------------------------------------

MODEL = LEDForConditionalGeneration.from_state_dict(CONFIG, draw_weights(CONFIG), dtype="float32")
MODEL_PLAN = CachePlan(1)


def random_call(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Documents, encoded; and settings. The ids that are looked through are what plain search writes, with mistakes."""
    rng = np.random.default_rng(seed)
    documents, length = int(rng.integers(1, 4)), int(rng.integers(5, 20))
    ids_BT = rng.integers(3, CONFIG.vocab_size, (documents, length))
    mask_BT = (np.arange(length) < rng.integers(4, length + 1, (documents, 1))).astype(int)
    global_BT = np.eye(1, length, dtype=int).repeat(documents, 0)
    encoded = MODEL.encoder(ids_BT, attention_mask=mask_BT, global_attention_mask=global_BT)
    chosen: dict[str, Any] = {
        "max_length": int(rng.integers(4, 18)),
        "min_length": int(rng.choice([0, 0, 3])),
        "no_repeat_ngram_size": int(rng.choice([0, 0, 1, 2, 3])),
        "repetition_penalty": float(rng.choice([1.0, 1.0, 1.3])),
        "encoder_no_repeat_ngram_size": int(rng.choice([0, 0, 3])),
        "eos_token_id": [None, 2, [2, 7]][rng.integers(3)],
        "forced_eos_token_id": rng.choice([None, 2]),
        "pad_token_id": 1,
        "cache_implementation": str(rng.choice(["dynamic", "static"])),
        "cross_attention": str(rng.choice(["cached", "folded"])),
    }
    if rng.random() < 0.4:
        chosen |= {"do_sample": True, "seed": int(rng.integers(99)), "num_return_sequences": int(rng.integers(1, 4))}
        chosen |= {"top_k": int(rng.choice([0, 7])), "top_p": float(rng.choice([1.0, 0.8]))}
    if rng.random() < 0.3:
        prompt = rng.integers(3, CONFIG.vocab_size, (documents, 2))
        chosen["decoder_input_ids"] = prompt
    call = {"encoder_outputs": encoded, "attention_mask": mask_BT}
    written = MODEL.generate(ids_BT, **call, **chosen)[:: chosen.get("num_return_sequences", 1)]
    copied_BT = np.resize(written.T, (length, documents)).T.copy()
    copied_BT[rng.random(copied_BT.shape) < 0.15] = 11
    return {"input_ids": copied_BT, **call}, chosen


@settings(max_examples=max(1, settings().max_examples // 4))
@given(st.integers(0, 2**32))
def test_lookup_over_a_small_led(seed: int) -> None:
    call, chosen = random_call(seed)
    plain = MODEL.generate(**call, **chosen)
    found = MODEL.generate(**call, **chosen, prompt_lookup_num_tokens=1 + seed % 7)
    np.testing.assert_array_equal(found, plain)
    steps = list(MODEL.stream(**call, **chosen, prompt_lookup_num_tokens=1 + seed % 7))
    np.testing.assert_array_equal(np.stack(steps, axis=1), plain[:, -len(steps) :])


def test_taken_back_ids_leave_no_trace() -> None:
    """A reader that read other ids first gives the logits of one that did not, to the bit; and its cache does not grow."""
    encoded = MODEL.encoder([[0, 5, 6, 7, 11, 2]])
    memories = [MODEL.led.source_memory(encoded, MODEL_PLAN).of_document(0) for _ in range(2)]
    wanders, straight = (RowReader(MODEL.led, memory, None) for memory in memories)
    room = None
    for kept, new in enumerate([2, 5, 9, 9, 4, 7]):
        if kept:
            wanders(kept, [8, 3, 8][: 1 + kept % 3], 1)
        np.testing.assert_array_equal(wanders(kept, [new], 1), straight(kept, [new], 1))
        buffer = wanders.cache.layers[1].self_v.buffer_BHCK
        assert room is None or buffer is room
        room = buffer


def test_texts_of_a_document_keep_their_own_prefixes(
    bundled: Any, manual_page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three texts are drawn from one document's cache, of which each needs a buffer of its own; and one by one."""
    together = []
    write = summarization._generate_batch
    monkeypatch.setattr(
        summarization,
        "_generate_batch",
        lambda model, each, *rest, **more: (together.append(len(each)), write(model, each, *rest, **more))[1],
    )
    texts = [manual_page[:900], manual_page[2000:3100]]
    drawn = {"num_beams": 1, "do_sample": True, "seed": 4, "num_return_sequences": 3, "max_new_tokens": 12}
    plain = bundled.generate(texts, batch_size=2, **drawn)
    assert bundled.generate(texts, batch_size=2, prompt_lookup_num_tokens=4, **drawn) == plain
    assert together == [2, 1, 1]  # a batch has no ids to look through, each document alone has
    stops = {"num_beams": 1, "stop_strings": [plain[0][0][3:6]], "max_new_tokens": 12, "prompt_lookup_num_tokens": 4}
    assert bundled.generate(texts[0], **stops) == bundled.generate(texts[0], **{**stops, "prompt_lookup_num_tokens": 0})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_beams": 2}, r"prompt_lookup_num_tokens is 3 \(from the call\), but num_beams is 2.*Pass num_beams=1"),
        ({"use_cache": False}, r"use_cache is False.*nothing to take back"),
        ({"output_attentions": True, "return_dict_in_generate": True}, "output_attentions is True.*several ids"),
        ({"recorder": Recorder(lambda name, array: None)}, "a recorder .*several ids"),
        ({"input_ids": None, "encoder_outputs": MODEL.encoder([[0, 5, 2]])}, "needs the ids of the source"),
    ],
)
def test_what_lookup_cannot_do_is_refused(wrong: dict[str, Any], message: str) -> None:
    call = {"input_ids": [[0, 5, 2]], "max_new_tokens": 4, "prompt_lookup_num_tokens": 3, **wrong}
    with pytest.raises(SettingsError, match=message):
        MODEL.generate(**call)


def test_lookup_of_a_file_waits_for_one_beam() -> None:
    file = {"prompt_lookup_num_tokens": 3, "num_beams": 2, "max_length": 9}
    both = MODEL.generate([[0, 5, 2]], generation_config=file)
    np.testing.assert_array_equal(both, MODEL.generate([[0, 5, 2]], num_beams=2, max_length=9))
