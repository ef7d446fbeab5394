"""Level 5 of the vectors: greedy and beam search with every setting, by dense_search.py.

`search` needs no model: `logits[b, v]` of the input `table` (B, V, V) are the logits of what follows id v in document b,
whatever was written before it. So nothing but the search can be wrong. `generate` is the whole of it, with a model.

A search that adds up in float32 decides as one in float64 does, unless two scores are nearly equal. No case has a decision
closer than CLOSEST, but those in which scores are equal to the bit, and there each order that makes sense is an answer.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from led_ref.oracle.definition import model as dense
from led_ref.oracle.definition import search as dense_search
from led_ref.oracle.vectors.format import Array, Case
from make.draw import LARGEST, numbers, whole
from make.enumeration import enumerate_texts
from make.layers import FULL_TYPES, MODELS, encode, source_ids, weights_of
from make.logits import forward_depth
from make.steps import mask_of

CLOSEST = {"search": 2e-4, "generate": 2e-3}
VOCABULARY = 17
BEAMS = {"num_beams": 3, "num_return_sequences": 3, "max_length": 9}
TWO_BEAMS = {**BEAMS, "num_beams": 2, "num_return_sequences": 2}

# Every setting of the search, by itself and together with others. Each case has 2 documents; pad is 1, and where nothing
# else is said the start is 2 and so is the end.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"max_length": 11},
    "greedy-new-tokens": {"max_new_tokens": 5},
    "greedy-default-length": {},
    "greedy-no-end": {"max_length": 7, "eos_token_id": None},
    "greedy-two-ends": {"max_length": 11, "eos_token_id": [2, 5]},
    "greedy-pad": {"max_length": 11, "pad_token_id": 16},
    "greedy-forced-start": {"max_length": 7, "forced_bos_token_id": 11},
    "greedy-forced-end": {"max_length": 6, "forced_eos_token_id": 5, "eos_token_id": [2, 5]},
    "greedy-min-length": {"max_length": 11, "min_length": 8},
    "greedy-min-new-tokens": {"max_length": 11, "min_new_tokens": 6},
    "greedy-repetition": {"max_length": 13, "repetition_penalty": 1.5},
    "greedy-repetition-welcome": {"max_length": 9, "repetition_penalty": 0.75},
    "greedy-ngrams": {"max_length": 15, "no_repeat_ngram_size": 2},
    "greedy-unigrams": {"max_length": 11, "no_repeat_ngram_size": 1},
    "greedy-source-ngrams": {"max_length": 11, "encoder_no_repeat_ngram_size": 2},
    "greedy-source-unigrams": {"max_length": 9, "encoder_no_repeat_ngram_size": 1},
    "greedy-source-welcome": {"max_length": 9, "encoder_repetition_penalty": 2.0},
    "beams": BEAMS,
    "beams-one-returned": {"num_beams": 4, "max_length": 9},
    "beams-stop-early": {**BEAMS, "early_stopping": True},
    "beams-never-stop-early": {**BEAMS, "early_stopping": "never"},
    "beams-long": {**BEAMS, "length_penalty": 2.0},
    "beams-long-never": {**BEAMS, "length_penalty": 2.0, "early_stopping": "never"},
    "beams-short": {**BEAMS, "length_penalty": -1.0},
    "beams-short-never": {**TWO_BEAMS, "length_penalty": -0.5, "early_stopping": "never"},
    "beams-closed": {**BEAMS, "max_length": 13, "length_penalty": 2.0},
    "beams-source-unigrams": {**BEAMS, "encoder_no_repeat_ngram_size": 1},
    "beams-sum": {**BEAMS, "length_penalty": 0.0},
    "beams-min-length": {**BEAMS, "min_length": 6},
    "beams-min-new-tokens": {**BEAMS, "min_new_tokens": 5},
    "beams-forced": {**BEAMS, "forced_bos_token_id": 0, "forced_eos_token_id": 2},
    "beams-repetition": {**BEAMS, "repetition_penalty": 1.25},
    "beams-ngrams": {**BEAMS, "no_repeat_ngram_size": 3, "max_length": 13},
    "beams-source": {**BEAMS, "encoder_no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.5},
    "beams-three-ends": {**BEAMS, "eos_token_id": [2, 5, 7]},
    "beams-no-end": {**BEAMS, "eos_token_id": None, "max_length": 6},
    "beams-everything": {
        "num_beams": 4, "num_return_sequences": 2, "length_penalty": 1.5, "early_stopping": True, "max_new_tokens": 9,
        "min_new_tokens": 3, "no_repeat_ngram_size": 3, "encoder_no_repeat_ngram_size": 3, "repetition_penalty": 1.25,
        "encoder_repetition_penalty": 1.25, "forced_bos_token_id": 0, "forced_eos_token_id": 5, "eos_token_id": [2, 5],
    },
}  # fmt: skip
_REFUSED: Mapping[str, Mapping[str, Any]] = {
    "more-texts-than-beams": {"num_beams": 2, "num_return_sequences": 3, "max_length": 9},
    "no-beams": {"num_beams": 0, "max_length": 9},
    "no-room": {"max_length": 1},
    "end-before-it-may": {"max_length": 5, "min_length": 6},
    "stopping-sometimes": {"num_beams": 2, "max_length": 9, "early_stopping": "sometimes"},
    "penalty-0": {"max_length": 9, "repetition_penalty": 0.0},
    "end-not-in-vocabulary": {"max_length": 9, "eos_token_id": VOCABULARY},
}


def cases() -> Iterator[Case]:
    """The cases of level 5."""
    for name, settings in _SETTINGS.items():
        yield table_case(f"L5-search-{name}", settings, flags=_flags(settings))
    yield table_case("L5-search-greedy-prompt", {"max_new_tokens": 6, "min_new_tokens": 2}, prompt=3, flags=("prompt",))
    yield table_case("L5-search-beams-prompt", {**BEAMS, "forced_bos_token_id": 0}, prompt=4, flags=("prompt", "beams"))
    for name, settings in _REFUSED.items():
        inputs = _table_inputs(f"L5-refused-{name}", 1)
        arguments = {"settings": {"eos_token_id": 2, "pad_token_id": 1, **settings}}
        yield Case(
            f"L5-refused-{name}",
            "search",
            result="invalid",
            inputs=inputs,
            arguments=arguments,
            flags=("wrong_setting",),
        )
    yield _exhaustive()
    yield from _ties()
    yield from _generate()


def _flags(settings: Mapping[str, Any]) -> tuple[str, ...]:
    found = {"beams": "num_beams" in settings, "ngrams": any("ngram" in name for name in settings)}
    found["forced"] = any("forced" in name for name in settings)
    return ("batch", *(flag for flag, is_set in found.items() if is_set))


def table_case(case: str, settings: Mapping[str, Any], *, prompt: int = 1, flags: tuple[str, ...]) -> Case:
    """A search over a drawn table."""
    inputs = _table_inputs(case, prompt)
    settings = {"eos_token_id": 2, "pad_token_id": 1, **settings}
    found = _search(case, "search", _logits_of(inputs["table"]), inputs, settings)
    return Case(
        case, "search", inputs=inputs, arguments={"settings": settings}, answers=(found,), depth=16, flags=flags
    )


def _table_inputs(case: str, prompt: int) -> dict[str, Array]:
    """A table in which the ends 2 and 5 are a little likelier than the rest, a prompt, and a source."""
    table = numbers(f"{case}/table", (2, VOCABULARY, VOCABULARY), spread=1.25)
    table[:, :, [2, 5]] = np.minimum(table[:, :, [2, 5]] + 0.75, LARGEST / 64)
    prompts = whole(f"{case}/prompt", (2, prompt), 6, VOCABULARY)
    prompts[:, 0] = 2
    return {"table": table, "prompt_ids": prompts, "source_ids": whole(f"{case}/source_ids", (2, 7), 6, VOCABULARY)}


def _logits_of(table: Array) -> dense_search.LogitsOf:
    rows = table.astype(np.float64).tolist()
    return lambda document, ids: rows[document][ids[-1]]


def _search(
    case: str,
    operation: str,
    logits_of: dense_search.LogitsOf,
    inputs: Mapping[str, Array],
    settings: Mapping[str, Any],
) -> dict[str, Array]:
    """The definition's texts, once it is clear that no decision was close."""
    found = dense_search.search(logits_of, inputs["prompt_ids"].tolist(), settings, inputs["source_ids"].tolist())
    if found.smallest_gap < CLOSEST[operation]:
        raise ValueError(
            f"{case}: two scores differ by {found.smallest_gap:.1e} only; draw it again (vectors_draw.DRAWN_AGAIN)."
        )
    return _as_tensors(found.sequences, found.scores)


def _as_tensors(sequences: Sequence[Sequence[int]], scores: Sequence[float] | None) -> dict[str, Array]:
    answer: dict[str, Array] = {"sequences": np.asarray(sequences, np.int64)}
    if scores is not None:
        answer["sequences_scores"] = np.asarray(scores, np.float64)
    return answer


def _exhaustive() -> Case:
    """As many beams as there are texts: the search must find the best of all, which enumeration finds, too."""
    case = "L5-search-exhaustive"
    table = numbers(f"{case}/table", (1, 3, 3), spread=1.0)
    inputs: dict[str, Array] = {"table": table, "prompt_ids": np.array([[2]]), "source_ids": np.array([[0]])}
    settings = {
        "num_beams": 16, "num_return_sequences": 5, "max_length": 4, "eos_token_id": 2, "pad_token_id": 1,
        "early_stopping": "never",
    }  # fmt: skip
    answer = _search(case, "search", _logits_of(table), inputs, settings)
    best = enumerate_texts(_logits_of(table), [2], settings)[:5]
    for row, text in zip(answer["sequences"].tolist(), best, strict=True):
        if row[: len(text.ids)] != text.ids:
            raise ValueError(f"{case}: the search found {row}, but enumeration {text.ids}: one of the two is wrong.")
    return Case(
        case,
        "search",
        inputs=inputs,
        arguments={"settings": settings},
        answers=(answer,),
        depth=16,
        flags=("beams", "enumerable"),
    )


def _ties() -> Iterator[Case]:
    """Equal scores: here the lower id goes first; elsewhere whichever the machine sees first.

    Two forced ends are the third such place: each of them has the score 0.
    """
    table = np.zeros((1, 5, 5), np.float32)
    table[:, :, 3] = table[:, :, 4] = 2.0
    table[:, 3:, 2] = 4.0
    inputs: dict[str, Array] = {"table": table, "prompt_ids": np.array([[2]]), "source_ids": np.array([[0]])}
    comment = "3 and 4 are equally likely. The lower id goes first here; torch.topk and argmax leave it open."
    for name, more in (
        ("greedy", {}),
        ("beams", {"num_beams": 2, "num_return_sequences": 2}),
        ("forced-ends", {"max_length": 2, "forced_eos_token_id": [3, 4]}),
    ):
        settings = {"max_length": 4, "eos_token_id": 2, "pad_token_id": 1, **more}
        found = dense_search.search(_logits_of(table), [[2]], settings)
        swapped = [[{3: 4, 4: 3}.get(i, i) for i in row] for row in found.sequences]
        answers = tuple(_as_tensors(rows, found.scores) for rows in (found.sequences, swapped))
        yield Case(
            f"L5-search-tie-{name}", "search", result="acceptable", inputs=inputs, arguments={"settings": settings},
            answers=answers, depth=16, flags=("tie",), comment=comment,
        )  # fmt: skip


def _generate() -> Iterator[Case]:
    """With a model: sources, masks and settings in, texts out."""
    for name, settings, flags in (
        ("greedy", {"max_length": 13}, ("batch", "padding", "globals_vary")),
        ("no-cache", {"max_length": 9, "use_cache": False}, ("batch", "padding", "globals_vary")),
        ("another-start", {"max_length": 9, "decoder_start_token_id": 7}, ("batch", "padding", "globals_vary")),
        ("beams", {"num_beams": 4, "num_return_sequences": 2, "max_length": 11}, ("batch", "padding", "beams")),
        ("summary", {"num_beams": 4, "max_length": 16, "min_length": 5, "no_repeat_ngram_size": 3, "length_penalty": 2.0,
                     "early_stopping": True}, ("batch", "padding", "beams", "ngrams")),
    ):  # fmt: skip
        case = f"L5-generate-{name}"
        rows = [("1111111111111", "1000000000000"), ("1111111100000", "1000100000000")]
        mask = np.stack([mask_of(seen, 13, 1) for seen, _ in rows])
        marks = np.stack([mask_of(marks, 13, 0) for _, marks in rows])
        ids = source_ids(case, mask, MODELS["writer"])
        inputs = {"input_ids": ids, "attention_mask": mask, "global_attention_mask": marks}
        settings = {"eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 2, **settings}
        asked = {"prompt_ids": np.full((2, 1), settings["decoder_start_token_id"]), "source_ids": ids}
        found = _search(case, "generate", model_logits("writer", inputs), asked, settings)
        depth = forward_depth("writer") + 16
        yield Case(case, "generate", model="writer", inputs=inputs, arguments={"settings": settings}, answers=(found,),
                   depth=depth, types=FULL_TYPES, flags=flags)  # fmt: skip
    inputs = {"input_ids": np.array([[5, 6, 7]]), "attention_mask": np.ones((1, 3), np.int64)}
    yield Case("L5-refused-longer-than-positions", "generate", result="invalid", model="writer", inputs=inputs,
               arguments={"settings": {"max_length": 30}}, flags=("too_long", "wrong_setting"))  # fmt: skip


def model_logits(model: str, inputs: Mapping[str, Array]) -> dense_search.LogitsOf:
    """The definition's model as what a search asks: all ids so far are decoded again for every id."""
    states = encode(model, inputs, {}).hidden_states[-1]

    @functools.cache
    def asked(document: int, ids: tuple[int, ...]) -> Sequence[float]:
        one = slice(document, document + 1)
        mask = inputs["attention_mask"][one]
        decoded = dense.decode(weights_of(model), MODELS[model], [list(ids)], states[one], mask)
        last: list[float] = decoded.logits[0, -1].tolist()
        return last

    return lambda document, ids: asked(document, tuple(ids))
