"""Pieces of a long document: every token is in one, overlaps are as asked, cuts lie between sentences where they can."""

import itertools
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import led_ref
from led_ref.errors import InputError
from led_ref.pipelines.splitting import pieces, prepare_pieces

TOKENIZER = led_ref.load(backend="numpy").tokenizer
WORDS = st.sampled_from(
    ["window", "a", "B", "naïve", "3.5", "¿", "x.", "End.", 'said."', "no!\n\n", "\n", "e.g.", " ", "😀😀"]
)


@given(st.lists(WORDS, min_size=1, max_size=60).map(" ".join), st.integers(1, 23), st.data())
def test_every_token_is_in_a_piece(text, room, data):
    overlap = data.draw(st.integers(0, room // 2))
    encoding = TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoding["offset_mapping"]
    found = pieces(text, offsets, room, overlap)
    assert (found[0].start, found[-1].stop) == (0, len(offsets))
    assert all(0 < stop - start <= room for start, stop in found)
    for before, after in itertools.pairwise(found):
        assert before.stop - before.start > room // 2
        assert before.start < after.start
        assert before.stop < after.stop
        assert 0 <= before.stop - after.start <= overlap


def test_cuts_lie_between_sentences():
    ends = (".", "?", '."', "!)", "!", ".", "?")
    text = " ".join(f"The file is {name}{end}" for name, end in zip("abcdefg", ends, strict=True))
    encoding = TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoding["offset_mapping"]
    sentence = max(len(TOKENIZER(part, add_special_tokens=False)["input_ids"]) for part in text.split("The"))
    found = pieces(text, offsets, room=2 * sentence, overlap=0)
    texts = [text[offsets[start][0] : offsets[stop - 1][1]] for start, stop in found]
    assert len(found) > 1
    assert all(part[-1] in '.?!)"' and part.startswith("The") for part in texts)
    assert " ".join(texts) == text


def test_a_piece_begins_with_a_sentence_of_the_one_before():
    text = "a b. c d. e f. g h. i j. k l."
    offsets = [match.span() for match in re.finditer(r"[a-z]|[.]", text)]
    assert pieces(text, offsets, room=10, overlap=5) == [(0, 9), (6, 15), (12, 18)]
    assert pieces(text, offsets, room=10, overlap=2) == [(0, 9), (9, 18)]  # no sentence is so short


def test_pieces_of_one_sentence_are_cut_between_words():
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota"]
    text = "So. " + " ".join(words)  # the only end of a sentence lies in the first half
    offsets = [match.span() for match in re.finditer(r"\w\w?|[.]", text)]
    found = pieces(text, offsets, room=11, overlap=5)
    texts = [text[offsets[start][0] : offsets[stop - 1][1]] for start, stop in found]
    assert len(texts) > 2
    assert all(set(part.split()) <= {"So.", *words} for part in texts)
    assert all(before.stop > after.start for before, after in itertools.pairwise(found))
    assert texts[0] == "So. alpha beta gamma"


def test_one_word_without_end_is_cut_anywhere():
    offsets = [(i, i + 1) for i in range(17)]
    assert pieces("x" * 17, offsets, room=7, overlap=3) == [(0, 7), (4, 11), (8, 15), (12, 17)]


@pytest.mark.parametrize("overlap", [-1, 4])
def test_an_overlap_that_does_not_fit_is_refused(overlap):
    with pytest.raises(InputError, match="from 0 to 3"):
        pieces("x" * 17, [(i, i + 1) for i in range(17)], room=7, overlap=overlap)


# ---- summaries of pieces -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short():
    """The bundled model with a table of 64 positions: longer documents come in pieces."""
    led = led_ref.load(backend="numpy")
    weights = {name: values for name, values in led.model.state_dict().items() if name != "lm_head.weight"}
    key = "led.encoder.embed_positions.weight"
    weights[key] = weights[key][:64]
    config = replace(led.model.config, max_encoder_position_embeddings=64)
    return replace(led, model=led_ref.LEDForConditionalGeneration.from_state_dict(config, weights))


QUICK = {"num_beams": 1, "max_new_tokens": 6}
LONG = "The first file is packed. It lists what the archive holds, and prints it. " * 8


def test_pieces_are_summarized_each_by_itself(short):
    pieces = prepare_pieces(short, LONG, overlap=8)
    assert len(pieces) > 2
    assert all(len(piece.ids) <= 64 and (piece.ids[0], piece.ids[-1]) == (0, 2) for piece in pieces)
    assert [sum(piece.global_mask) for piece in pieces] == [1] * len(pieces)
    texts = [short.generate(short.decode(piece.ids, skip_special_tokens=True), **QUICK) for piece in pieces]
    assert short.generate(LONG, split="join", overlap=8, **QUICK) == "\n".join(texts)
    again = short.generate(LONG, split="again", overlap=8, **QUICK)
    assert again == short.generate("\n".join(texts), **QUICK)
    both = dict(short.generate_each([LONG, "Pack files.", ""], split="join", overlap=8, batch_size=3, **QUICK))
    assert (both[0], both[1]) == ("\n".join(texts), short.generate("Pack files.", **QUICK))
    assert isinstance(both[2], InputError)


def test_the_default_stays_a_refusal(short):
    with pytest.raises(InputError, match=r"reads at most 64.*--truncate.*split='join'"):
        short.generate(LONG)
    for options, words in (
        ({"split": "sentences"}, "split is 'sentences'"),
        ({"split": "join", "truncation": True}, "Leave one out"),
        ({"split": "join", "seed": [1], "do_sample": True}, "Give one"),
        ({"split": "join", "num_return_sequences": 2, "num_beams": 2}, "one text is made"),
        ({"split": "join", "overlap": 40}, "from 0 to 31"),
        ({"split": "again", "max_new_tokens": 110, "min_new_tokens": 100}, "about as long as the pieces"),
    ):
        with pytest.raises(InputError, match=words):
            short.generate(LONG, **{**QUICK, "overlap": 8, **options})
    with pytest.raises(InputError, match="split is for generate"):
        short.stream(LONG, split="join")


def test_the_command_reads_pieces(short, tmp_path, command):
    short.save_pretrained(tmp_path / "model")
    (tmp_path / "long.txt").write_text(LONG, encoding="utf-8")
    (tmp_path / "short.txt").write_text("Pack files.", encoding="utf-8")
    run = ("summarize", tmp_path / "long.txt", tmp_path / "short.txt", "--model", tmp_path / "model")
    run += ("--num-beams", "1", "--max-new-tokens", "6", "--quiet", "--json")
    assert (command(*run)[0], command(*run, "--overlap", "9")[0]) == (1, 2)
    code, printed, _ = command(*run, "--split", "join", "--overlap", "20")
    found = [json.loads(line) for line in printed.splitlines()]
    assert (code, found[0]["text"]) == (0, short.generate(LONG, split="join", overlap=20, **QUICK))
    assert found[0]["tokens"] == sum(found[0]["pieces"])
    assert "pieces" not in found[1]
    out = (*run, "--split", "join", "--overlap", "20", "--out", tmp_path / "out")
    assert command(*out)[0] == 0
    written = json.loads((tmp_path / "out" / "long.summary.json").read_text(encoding="utf-8"))
    assert written == {name: value for name, value in found[0].items() if name != "seconds"}
    code, _, said = command(*out, "--resume", "--overlap", "21")
    assert (code, "overlap 20; this run has overlap 21" in said) == (1, True)
