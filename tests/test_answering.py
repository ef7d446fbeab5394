"""led_ref.answer: spans on hand-made logits, a model whose answer follows from its weights, and the command.

The bundled tokenizer; the models are made here. The one that comes with led_ref: test_bundled_models.py.
"""

import json
import math
import shutil
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

import led_ref
from led_ref import LEDConfig, LEDForQuestionAnswering, QuestionAnswerer
from led_ref.classes.outputs import LEDSeq2SeqQuestionAnsweringModelOutput
from led_ref.errors import CheckpointError, InputError
from led_ref.pipelines.question_answering import best_spans

POSITIONS = 10_000
QUESTION = "What is it?"
MARKER = "=>"
ONE = ("--max-answer-len", 1)


# ---- spans by themselves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_best_spans_equal_full_table_search(seed):
    rng = np.random.default_rng(seed)
    length, longest, count = (int(rng.integers(1, most)) for most in (23, 30, 12))
    start, end = (rng.integers(-3, 4, length).astype(float) for _ in range(2))  # many are equal
    may_begin, may_end = (rng.random(length) < 0.8 for _ in range(2))
    every = [
        (-(start[i] + end[j]), i, j)
        for i in range(length)
        for j in range(i, min(length, i + longest))
        if may_begin[i] and may_end[j]
    ]
    found = best_spans(start, end, may_begin_T=may_begin, may_end_T=may_end, longest=longest, count=count)
    assert found == [((i, j), -worth) for worth, i, j in sorted(every)[:count]]


def test_no_quadratic_table():
    start, end = np.random.default_rng(0).normal(size=(2, POSITIONS))
    anywhere = np.ones(POSITIONS, bool)
    tracemalloc.start()
    best_spans(start, end, may_begin_T=anywhere, may_end_T=anywhere, longest=15, count=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * POSITIONS  # bytes; the table alone would be 8 * POSITIONS**2


def test_nan_scores_are_refused():
    anywhere = np.ones(2, bool)
    with pytest.raises(InputError, match=r"NaN or infinity.*float32"):
        best_spans(np.array([0, np.nan]), np.zeros(2), may_begin_T=anywhere, may_end_T=anywhere, longest=1, count=1)


# ---- hand-made logits ----------------------------------------------------------------------------------------------------


def with_logits(tokenizer, scored):
    """An answerer whose model gives the logits that `scored(ids, start, end)` fills in; and the inputs of its encoder."""
    inputs = {}

    class Drawn:
        longest_document = POSITIONS
        config = SimpleNamespace(settings_of_task=lambda task: {})

        def encoder(self, ids, mask, global_mask, progress=None):
            inputs.update(ids=ids[0], mask=mask[0], global_mask=global_mask[0])

        def __call__(self, ids, mask, **given):
            start, end = np.zeros((2, 1, len(ids[0])))
            scored(inputs["ids"], start[0], end[0])
            return LEDSeq2SeqQuestionAnsweringModelOutput(loss=None, start_logits=start, end_logits=end)

    return QuestionAnswerer(Drawn(), tokenizer, "drawn"), inputs


# Where the peaks are, in characters of the context: (piece of the context, which occurrence, height of start and end).
FILLER = "the file is read and the list is written. " * 995
CASES = {
    "one word": ("The archive is tar.", [("tar", 0, 5)], {}, "tar"),
    "several words": ("It was written by Jay Fenlason in 1987.", [("Jay Fenlason", 0, 5)], {}, "Jay Fenlason"),
    "the very first word": ("tar packs files.", [("tar", 0, 5)], {}, "tar"),
    "the very last word": ("It packs files", [("files", 0, 5)], {}, "files"),
    "the last character": ("It packs files.", [(".", 0, 5)], {}, "."),
    "the whole text": ("It packs files.", [("It packs files.", 0, 5)], {}, "It packs files."),
    "spaces before the text": ("   tar packs", [("tar", 0, 5)], {}, "tar"),
    "several spaces within": ("It is   tar   here", [("tar", 0, 5)], {}, "tar"),
    "an answer over a line break": ("by Jay\nFenlason, 1987", [("Jay\nFenlason", 0, 5)], {}, "Jay\nFenlason"),
    "behind a line break": ("NAME\n\n\ttar - an archiver", [("tar", 0, 5)], {}, "tar"),
    "letters of two bytes": ("Das Maß: Größe zählt.", [("Größe", 0, 5)], {}, "Größe"),
    "characters of many tokens": ("It is 日本語 here", [("日本語", 0, 5)], {}, "日本語"),
    "an emoji": ("All is well 😀 today", [("😀", 0, 5)], {}, "😀"),
    "white space is no answer": ("tar\n\ngzip", [("\n", 0, 9), ("gzip", 0, 5)], {}, "gzip"),
    "the second of two": ("tar and tar", [("tar", 1, 5)], {}, "tar"),
    "the higher of two": ("gzip or tar", [("gzip", 0, 4), ("tar", 0, 5)], {}, "tar"),
    "no longer than it may be": (
        "tar the file is and", [("tar the file is and", 0, 9), ("file is", 0, 7)], {"max_answer_len": 2}, "file is",
    ),
    "no answer": ("It packs files.", [(None, 0, 6), ("files", 0, 5)], {"handle_impossible_answer": True}, ""),
    "an answer where there might be none": (
        "It packs files.", [(None, 0, 5), ("files", 0, 6)], {"handle_impossible_answer": True}, "files",
    ),
    "the end of 10,000 tokens": (FILLER + "It is tar", [("tar", 0, 5)], {"truncation": False}, "tar"),
    "the last word that is kept": (FILLER + FILLER, [("LAST", 0, 5)], {"truncation": True}, "LAST"),
}  # fmt: skip


def test_checkpoint_has_its_own_settings(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "own")
    path = tmp_path / "own" / "config.json"
    config = json.loads(path.read_text())

    def with_settings(settings):
        path.write_text(json.dumps({**config, "task_specific_params": {"question-answering": settings}}))
        return QuestionAnswerer.load(tmp_path / "own")

    assert with_settings({}).answer_settings(None, None) == (15, False)
    own = with_settings({"max_answer_len": 80, "handle_impossible_answer": True})
    assert own.answer_settings(None, None) == (80, True)
    assert own.answer_settings(1, False) == (1, False)
    for bad in ({"max_answer_len": 0}, {"max_answer_len": True}, {"handle_impossible_answer": "no"}):
        ((_, value),) = bad.items()
        with pytest.raises(CheckpointError, match=f"task_specific_params of .*own's config.json.*{value}"):
            with_settings(bad).answer(QUESTION, "It packs files.")


@pytest.mark.parametrize("name", CASES)
def test_spans_on_hand_made_logits(bundled, name):
    context, peaks, options, expected = CASES[name]
    asked = len(bundled.tokenizer(QUESTION, add_special_tokens=False).input_ids)
    offsets = bundled.tokenizer(context, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    wanted = {}

    def scored(ids, start, end):
        kept = len(ids) - asked - 4
        start[1 : asked + 1] = end[1 : asked + 1] = 20  # the question is no answer, nor is a separator
        start[asked + 1 : asked + 3] = end[[asked + 1, asked + 2, -1]] = 20
        for piece, occurrence, height in peaks:
            if piece is None:
                start[0] = end[0] = height
                continue
            if piece == "LAST":
                first = last = asked + 2 + kept
                wanted[piece] = offsets[kept - 1]
            else:
                low = [i for i in range(len(context)) if context.startswith(piece, i)][occurrence]
                wanted[piece] = (low, low + len(piece))
                inside = [t for t, (a, b) in enumerate(offsets) if a < low + len(piece) and b > low and b > a]
                first, last = asked + 3 + inside[0], asked + 3 + inside[-1]
            start[first], end[last] = height, height

    answerer, inputs = with_logits(bundled.tokenizer, scored)
    (found,) = answerer.answer(QUESTION, context, **options)
    piece = None if expected == "" else expected
    low, high = (0, 0) if piece is None else wanted[piece]
    assert (found.start, found.end) == (low, high)
    assert found.answer == context[low:high] == (expected if expected != "LAST" else found.answer)
    if "10,000" in name or "kept" in name:
        assert POSITIONS - 500 < len(inputs["ids"]) <= POSITIONS
    # <s> and the question's tokens, none else.
    assert inputs["global_mask"] == [1] * (asked + 1) + [0] * (len(inputs["ids"]) - asked - 1)


def test_probabilities_and_n_best_order(bundled):
    def scored(ids, start, end):
        start[:], end[:] = np.random.default_rng(0).normal(size=(2, len(ids)))

    answerer, inputs = with_logits(bundled.tokenizer, scored)
    context = "file packs names."
    found = answerer.answer(QUESTION, context, top_k=100, max_answer_len=100, handle_impossible_answer=True)
    tokens = len(bundled.tokenizer(context, add_special_tokens=False).input_ids)
    assert len(found) == tokens * (tokens + 1) // 2 + 1
    assert [answer.score for answer in found] == sorted((answer.score for answer in found), reverse=True)
    start, end = np.random.default_rng(0).normal(size=(2, len(inputs["ids"])))
    places = [0, *range(len(start) - 1 - tokens, len(start) - 1)]
    best = next(answer for answer in found if answer.answer == "file")
    expected = math.exp(start[places[1]] + end[places[1]]) / np.exp(start[places]).sum() / np.exp(end[places]).sum()
    assert best.score == pytest.approx(expected, rel=1e-12)


# ---- a model whose answer follows from its weights -------------------------------------------------------------------------


def pointer(tokenizer, positions=64, **changes):
    """It answers with the token behind `=>`: no layers, and an embedding that tells that token from all others.

    At place t the decoder has read token t - 1. So where that is the marker, the answer starts, and ends.
    """
    config = LEDConfig(
        vocab_size=6144, d_model=2, encoder_layers=0, decoder_layers=0, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=1, decoder_ffn_dim=1, max_encoder_position_embeddings=positions,
        max_decoder_position_embeddings=positions, **changes,
    )  # fmt: skip
    shared = np.tile([-1.0, 1.0], (6144, 1))
    shared[tokenizer(" " + MARKER, add_special_tokens=False).input_ids[0]] = [1, -1]
    norms = {
        f"led.{side}.layernorm_embedding.{k}": np.full(2, v)
        for side in ("encoder", "decoder")
        for k, v in (("weight", 1.0), ("bias", 0.0))
    }
    tables = {f"led.{side}.embed_positions.weight": np.zeros((positions, 2)) for side in ("encoder", "decoder")}
    head = {"qa_outputs.weight": np.array([[5.0, 0], [5.0, 0]]), "qa_outputs.bias": np.zeros(2)}
    return LEDForQuestionAnswering.from_state_dict(config, {"led.shared.weight": shared, **norms, **tables, **head})


def test_span_at_the_end_of_10000_tokens(bundled):
    answerer = QuestionAnswerer(pointer(bundled.tokenizer, POSITIONS), bundled.tokenizer, "pointer")
    context = FILLER + f"It is {MARKER} file"
    assert POSITIONS - 500 < len(answerer.prepare(QUESTION, context).ids) <= POSITIONS
    (found,) = led_ref.answer(QUESTION, context, answerer)
    assert (found.answer, found.start, found.end) == ("file", len(context) - 4, len(context))


@pytest.fixture
def folder(bundled, tmp_path):
    pointer(bundled.tokenizer).save_pretrained(tmp_path / "pointer", others=bundled.tokenizer.save_pretrained)
    return tmp_path / "pointer"


def test_one_call_and_the_command(bundled, folder, command, tmp_path, monkeypatch):
    text = f"One is {MARKER} file, one {MARKER} mail."
    found = led_ref.answer(QUESTION, text, folder, top_k=2, max_answer_len=1)
    assert [(answer.answer, text[answer.start : answer.end]) for answer in found] == [
        ("file", "file"),
        ("mail", "mail"),
    ]
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text("It packs files.")
    monkeypatch.chdir(tmp_path)
    assert command("answer", QUESTION, "a.txt", "--model", folder) == (0, "file\n", "led-ref: a.txt, line 1:\n")
    code, out, err = command(
        "answer", QUESTION, "a.txt", "b.txt", "no.txt", "--model", folder, "--json", "--top-k", 2, *ONE
    )
    first, second = map(json.loads, out.splitlines())
    assert (code, first["file"], second["file"]) == (1, "a.txt", "b.txt")
    assert first["question"] == QUESTION
    assert first["answers"] == [{**vars(answer), "line": 1} for answer in found]
    assert "There is no file no.txt" in err
    (tmp_path / "long.txt").write_text("It packs files. " * 40 + text)
    assert command("answer", QUESTION, "long.txt", "--model", folder, "--split", "--quiet", *ONE) == (0, "file\n", "")
    code, _, err = command("answer", QUESTION, "long.txt", "--model", folder, *ONE)
    assert (code, "reads at most 64" in err) == (1, True)
    assert command("answer", QUESTION, "long.txt", "--model", folder, "--split", "--truncate")[0] == 2
    monkeypatch.setattr(
        "sys.stdin", SimpleNamespace(isatty=lambda: False, buffer=SimpleNamespace(read=lambda n: text.encode()))
    )
    code, out, _ = command("answer", QUESTION, "--model", folder, "--top-k", 2, "--quiet", *ONE)
    assert (code, [line.split()[-1] for line in out.splitlines()]) == (0, ["file", "mail"])


def test_invalid_arguments_are_refused(bundled, folder, command, tmp_path):
    answerer = QuestionAnswerer.load(folder)
    long = "It packs files. " * 30
    for question, context, options, words in (
        ("", "a", {}, ["question is ''"]),
        ("a", " \n", {}, ["context is", "says something"]),
        ("a", "b", {"top_k": 0}, ["top_k is 0"]),
        ("a", "b", {"max_answer_len": True}, ["max_answer_len is True"]),
        ("a", long, {}, ["at most 64", "truncation=True"]),
        (long, "a", {"truncation": True}, ["The question alone has", "at most 64"]),
    ):
        with pytest.raises(InputError) as refusal:
            answerer.answer(question, context, **options)
        assert all(word in str(refusal.value) for word in words), refusal.value
    with pytest.raises(
        CheckpointError, match=r"no qa_outputs.*config\.json names LEDForConditionalGeneration.*fine-tuned as LEDForQ"
    ):
        led_ref.answer("a", "b", led_ref.bundled_model())
    (tmp_path / "a.txt").write_text("It packs files.")
    code, out, err = command("answer", QUESTION, tmp_path / "a.txt", "--model", led_ref.bundled_model())
    assert (code, out) == (1, "")
    assert (
        "has no qa_outputs.*, the head of LEDForQuestionAnswering: config.json names LEDForConditionalGeneration" in err
    )
