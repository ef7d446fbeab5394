"""The one-call API: text in, text out."""

import dataclasses
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import led_ref
from led_backends.contract import DeviceMemoryError
from led_backends.numpy_backend import NumpyBackend
from led_ref.api import check_settings
from led_ref.classes.led import LEDModel
from led_ref.errors import ArgumentTypeError, BackendError, InputError, MissingFileError, SettingsError
from led_ref.generation.settings.settings import GenerationSettings
from led_ref.pipelines.loading import global_mask
from led_ref.tokenizer import LEDTokenizer
from led_ref.tokenizer.decoding import text_pieces

QUICK = {"num_beams": 1, "max_new_tokens": 5}
PAGES = ["NAME\ntar - an archiving utility", "SYNOPSIS\nls [OPTION]... [FILE]...\nDESCRIPTION\nList information"]


def test_one_call_with_the_bundled_model(manual_page):
    line = led_ref.generate(manual_page)
    assert "led-ref" in line
    assert line == line.strip()
    assert "<s>" not in line


def test_list_of_texts_is_batch_invariant(bundled):
    alone = [bundled.generate(page, **QUICK) for page in PAGES]
    assert bundled.generate(PAGES, **QUICK) == alone
    assert bundled.generate((page for page in PAGES), **QUICK) == alone
    assert bundled.generate(PAGES[:1], **QUICK) == alone[:1]
    assert led_ref.generate(PAGES, bundled, **QUICK) == alone
    several = bundled.generate(PAGES, num_beams=3, num_return_sequences=2, max_new_tokens=5)
    assert [len(texts) for texts in several] == [2, 2]
    assert bundled.generate(PAGES[0], num_beams=3, num_return_sequences=2, max_new_tokens=5) == several[0]


def test_text_and_ids_agree(bundled):
    ids = bundled.tokenizer(PAGES[0])["input_ids"]
    mask = [1] + [0] * (len(ids) - 1)
    written = bundled.model.generate([ids], global_attention_mask=[mask], num_beams=2, max_new_tokens=7)
    expected = bundled.tokenizer.decode(written[0].tolist(), skip_special_tokens=True).strip()
    assert bundled.generate(PAGES[0], num_beams=2, max_new_tokens=7) == expected


def test_cross_attention_can_be_folded(bundled, monkeypatch):
    """The same text; that nothing is cached then is seen in what the decoder is handed."""
    kept = []
    whole = LEDModel.source_memory

    def watched(self, *arguments, **options):
        kept.append(whole(self, *arguments, **options))
        return kept[-1]

    monkeypatch.setattr(LEDModel, "source_memory", watched)
    cached, folded = (
        bundled.generate("Pack files into a single archive.", num_beams=3, max_new_tokens=9, cross_attention=way)
        for way in ("cached", "folded")
    )
    assert cached == folded
    assert [cache.layers[0].cross_k_BHTK is None for cache in kept] == [False, True]
    with pytest.raises(SettingsError, match="cross_attention is 'gone'; choose 'cached' or 'folded'"):
        bundled.generate("Pack files.", cross_attention="gone")


def test_load_takes_a_folder_and_a_dtype(bundled):
    folder = led_ref.bundled_model()
    loaded = led_ref.load(folder, dtype="float64", backend="numpy")
    assert (loaded.model.dtype, loaded.name) == ("float64", str(folder))
    assert led_ref.generate(PAGES[0], loaded, dtype="float64", **QUICK) == bundled.generate(PAGES[0], **QUICK)
    with pytest.raises(InputError, match=r"dtype is 'float64'.*computes in float32.*led_ref\.load"):
        led_ref.generate(PAGES[0], bundled, dtype="float64")
    with pytest.raises(InputError, match=r"revision is 'refs/pr/4', but no model.*Name a model"):
        led_ref.load(revision="refs/pr/4")
    with pytest.raises(MissingFileError, match=r"(?s)no folder 'nowhere at all'.*vocab\.json"):
        led_ref.load("nowhere at all")
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundled.name = "another"


def test_progress_covers_layers_and_tokens(bundled):
    calls = []
    bundled.generate(PAGES, progress=lambda *step: calls.append(step), num_beams=1, max_new_tokens=4, min_new_tokens=4)
    assert [stage for stage, _, _ in calls] == (["read"] * 3 + ["write"] * 4) * 2
    assert calls[:3] == [("read", 1, 3), ("read", 2, 3), ("read", 3, 3)]
    _, done, total = zip(*calls[3:7], strict=True)
    assert len(set(total)) == 1
    assert [total[0] - step for step in done] == [3, 2, 1, 0]  # what is still to do


# ---- global attention ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "mask"),
    [
        ("first", [1, 0, 0, 0, 0]),
        ("none", [0, 0, 0, 0, 0]),
        ("all", [1, 1, 1, 1, 1]),
        ([0, 3], [1, 0, 0, 1, 0]),
        ([], [0, 0, 0, 0, 0]),
        (range(1, 5, 2), [0, 1, 0, 1, 0]),
        ({4}, [0, 0, 0, 0, 1]),
        ([np.int64(2)], [0, 0, 1, 0, 0]),
        (np.array([0, 1, 0, 0, 1]), [0, 1, 0, 0, 1]),
        (np.array([False, True, False, False, False]), [0, 1, 0, 0, 0]),
        (np.array([0.0, 0.0, 1.0, 0.0, 0.0]), [0, 0, 1, 0, 0]),
    ],
    ids=str,
)
def test_forms_of_global_attention(given, mask):
    assert global_mask(given, 5) == mask


@pytest.mark.parametrize(
    ("given", "found", "remedy"),
    [
        ("last", "'last'", "'first', 'none', 'all'"),
        ([5], "position 5", "0 to 4"),
        ([-1], "position -1", "0 to 4"),
        ([True], "position True", "whole numbers"),
        ([1.0], "position 1.0", "whole numbers"),
        ([1, 0, 0, 0, 0], "position 0 twice", "give it as an array"),  # a mask, taken for positions
        (np.array([1, 0, 0]), "shape (3,)", "5 values"),
        (np.array([2, 0, 0, 0, 0]), "shape (5,)", "of 0 and 1"),
        (np.zeros((1, 5)), "shape (1, 5)", "5 values"),
        (None, "is None", "'first', 'none', 'all'"),
        (3, "is 3", "a list of positions"),
    ],
    ids=str,
)
def test_invalid_global_attention(given, found, remedy):
    with pytest.raises(InputError) as refused:
        global_mask(given, 5)
    assert found in str(refused.value)
    assert remedy in str(refused.value)


def test_global_attention_reaches_the_model(bundled, manual_page):
    """The first token global, by each of its forms, writes the same; all of them global, something else."""
    page = manual_page[:600]
    length = len(bundled.encode(page))
    first = np.arange(length) == 0
    assert bundled.generate(page) == bundled.generate(page, global_attention=first)
    assert bundled.generate(page) == bundled.generate(page, global_attention=[0])
    seen = []
    model = SimpleModel(bundled.model, seen)
    dataclasses.replace(bundled, model=model).generate(PAGES, global_attention=[2], **QUICK)
    assert [np.flatnonzero(mask).tolist() for mask in seen] == [[2], [2]]


def test_loaded_decodes(bundled):
    ids = bundled.tokenizer(["cat", "file"], return_tensors="np")
    for text in (
        bundled.decode(ids["input_ids"][0], skip_special_tokens=True),
        bundled.batch_decode(ids.input_ids, True)[0],
    ):
        assert text == "cat"


def test_global_attention_by_token_and_document(bundled):
    """Wherever a token stands; positions of its own for each document; both, and one list for all."""
    seen = []
    led = dataclasses.replace(bundled, model=SimpleModel(bundled.model, seen))
    text = "tar </s> ls </s> cat"
    ids = led.encode(text)
    ends = [i for i, token in enumerate(ids) if token == led.tokenizer.eos_token_id]
    assert len(ends) == 3
    assert led.global_mask(ids, [0, "</s>"]) == [int(i in (0, *ends)) for i in range(len(ids))]
    led.generate([text, "ls"], global_attention=[[1, "<s>"], np.arange(len(led.encode("ls"))) == 2], **QUICK)
    list(led.generate_each([text, "ls"], global_attention=[["</s>"], [1]], **QUICK))
    led.generate([text], global_attention=["</s>"], **QUICK)
    assert [np.flatnonzero(mask).tolist() for mask in seen] == [[0, 1], [2], ends, [1], ends]
    with pytest.raises(InputError, match=r"holds 1 lists, but there are 2 documents. Give each document its own"):
        led.generate([text, "ls"], global_attention=[[0]])
    with pytest.raises(
        InputError, match=r"token '</S>', which the vocabulary of the bundled model does not have. Is '</s>'"
    ):
        led.generate(text, global_attention=["</S>"])


class SimpleModel:
    """Passes on to a model, and remembers the global masks."""

    def __init__(self, model, seen):
        self.model, self.config, self.seen = model, model.config, seen

    def generate(self, ids, *, global_attention_mask, **rest):
        self.seen.append(global_attention_mask[0])
        return self.model.generate(ids, global_attention_mask=global_attention_mask, **rest)

    def __getattr__(self, name):
        return getattr(self.model, name)


# ---- documents ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def short_sighted(bundled):
    """The bundled model, as if it could read 11 tokens only."""
    model = bundled.model
    config = dataclasses.replace(model.config, max_encoder_position_embeddings=11)
    return dataclasses.replace(
        bundled, model=type(model)(config, model.params, generation_config=model.generation_config)
    )


def test_too_long_is_refused_or_truncated(short_sighted, bundled):
    document = " ".join("abcdefghijklm")
    ids = bundled.tokenizer(document)["input_ids"]
    assert len(ids) == 15
    with pytest.raises(InputError, match=r"has 15 tokens, but the bundled model reads at most 11.*truncation=True"):
        short_sighted.generate(document)
    assert short_sighted.encode(document, truncation=True) == [*ids[:10], ids[-1]]  # </s> stays
    assert isinstance(short_sighted.generate(document, truncation=True, **QUICK), str)
    assert len(short_sighted.encode(document[:17])) == 11  # exactly as long as can be


def test_documents_are_validated_before_encoding(short_sighted):
    calls = []
    with pytest.raises(InputError, match=r"^texts\[2\]: The document has \d+ tokens"):
        short_sighted.generate(["a", "b", "c " * 40], progress=lambda *step: calls.append(step))
    assert calls == []


@pytest.mark.parametrize(
    ("documents", "found", "remedy"),
    [
        ("", "empty ('')", "Give it some text"),
        (" \n", "empty (' \\n')", "Give it some text"),
        ([], "the list is empty", "at least one"),
        (["a", ""], "texts[1]: The document is empty", "Give it some text"),
        (["a", None], "texts[1]: A document is NoneType", "Give text"),
        (["a", [3, 4]], "texts[1]: A document is list", "ids to model.generate"),
        (b"bytes", "is bytes", "decode"),
        (None, "is NoneType", "list of texts"),
        (7, "is int", "list of texts"),
        ({"a": 1}, "is dict", "take out the text"),
        (Path("page.txt"), "Path, not str", "path.read_text()"),
        ("lone \ud800 surrogate", "U+D800", ""),
    ],
    ids=repr,
)
def test_invalid_documents(bundled, documents, found, remedy):
    with pytest.raises(InputError) as refused:
        bundled.generate(documents, **QUICK)
    assert found.lower() in str(refused.value).lower()
    assert remedy in str(refused.value)


# ---- settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ({"num_beam": 3}, "'num_beams'"),
        ({"max_tokens": 3}, "max_new_tokens"),
        ({"truncate": True}, "'truncation'"),
        ({"globalattention": "all"}, "'global_attention'"),
        ({"attention_mask": [[1]]}, "a document has no padding"),
        ({"global_attention_mask": [[1]]}, "pass global_attention"),
        ({"input_ids": [[1]]}, "give the text itself"),
        ({"decoder_input_ids": [[2]]}, "LEDForConditionalGeneration.generate"),
        ({"return_dict_in_generate": True}, "not text"),
        ({"output_scores": True}, "the text alone"),
        ({"output_attentions": True}, "the text alone is given"),
        ({"penalty_alpha": 0.6}, "Leave penalty_alpha out"),
        ({"logits_processor": [len]}, "rules that are functions work on ids"),
    ],
    ids=str,
)
def test_unknown_setting_gets_a_suggestion(bundled, setting, nearest):
    with pytest.raises(SettingsError) as refused:
        led_ref.generate(PAGES[0], bundled, **setting)
    assert next(iter(setting)) in str(refused.value)
    assert nearest in str(refused.value)


def test_mistyped_setting_is_refused_before_loading():
    with pytest.raises(SettingsError, match="truncation"):
        led_ref.generate(PAGES[0], "no model of this name", trunkation=True)
    for wrong, found in (
        ({"nm_beams": 4}, "no generation setting 'nm_beams'"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"temperature": -0.7}, "temperature is -0.7"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id is -1"),
    ):
        with pytest.raises(SettingsError, match=found):
            led_ref.generate(PAGES[0], "no model of this name", **wrong)
    check_settings({"num_return_sequences": 4, "decoder_start_token_id": None})  # the model's files say how many beams


def test_effective_settings_of_call_files_defaults(bundled):
    found = bundled.model.effective_settings(max_new_tokens=9)
    assert (found.num_beams, found.max_length, found.no_repeat_ngram_size, found.repetition_penalty) == (4, 10, 3, 1.0)
    with pytest.raises(SettingsError, match=r"max_new_tokens is 256 .*Pass max_new_tokens=255 or less"):
        bundled.model.effective_settings(max_new_tokens=256)


def test_real_settings_are_accepted():
    settings = dataclasses.asdict(GenerationSettings())
    check_settings(settings)


def test_public_names_and_unknown_name_message():
    assert all(getattr(led_ref, name) is not None for name in led_ref.__all__)
    assert led_ref.LEDTokenizer is LEDTokenizer
    assert set(led_ref.__all__) < set(dir(led_ref))
    with pytest.raises(AttributeError, match=r"no 'summarize'.*generate"):
        led_ref.summarize  # noqa: B018


def test_packages_hand_on_their_names_when_they_are_used():
    """No package is imported with led_ref; each is an attribute of it, and has the names of its `__all__`."""
    program = """
import sys, led_ref
packages = "classes cli costs generation model oracle pipelines tokenizer tools weights".split()
assert not [name for name in sys.modules if name.startswith("led_ref.") and name != "led_ref.lazy"]
for package in packages:
    module = getattr(led_ref, package)
    assert module is sys.modules[f"led_ref.{package}"] and package in dir(led_ref)
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name).__module__.startswith("led_ref."), name
        assert name in dir(module)
    files = {path.split(".")[2] for path in sys.modules if path.startswith(f"led_ref.{package}.")}
    assert "__getattr__" not in vars(module) or not files & set(module.__all__)  # no name hides a file
try:
    led_ref.model.Encoder
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "led_ref.model has no 'Encoder'; its public names are DecoderCache\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DeviceMemoryError("0 bytes are free; lower num_beams"), "lower num_beams"),
        (MemoryError("Unable to allocate 2.98 GiB"), "does not suffice .*2.98 GiB.*fewer tokens.*led-ref estimate"),
    ],
    ids=["device", "host"],
)
def test_out_of_memory_says_what_to_lower(bundled, monkeypatch, error, said):
    """Wherever the model computes: while it loads, reads, and writes."""

    @contextmanager
    def none_left(self):
        raise error
        yield

    ids = [[0, 5, 2]]
    read = bundled.model.encoder(ids)
    monkeypatch.setattr(NumpyBackend, "at_work", none_left)
    for attempt in (
        lambda: led_ref.load(),
        lambda: bundled.model.encoder(ids),
        lambda: bundled.model.led(encoder_outputs=read, decoder_input_ids=[[2]]),
        lambda: bundled.model.generate(encoder_outputs=read, max_new_tokens=2),
    ):
        with pytest.raises(BackendError, match=said):
            attempt()


# ---- text that comes as it is written -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"do_sample": True, "seed": 3, "temperature": 1.4}], ids=["greedy", "sampled"])
def test_streamed_pieces_form_the_text(bundled, manual_page, how):
    calls = {"num_beams": 1, "early_stopping": False, "max_new_tokens": 9, **how}
    stages = []
    pieces = bundled.stream(manual_page, progress=lambda stage, done, total: stages.append(stage), **calls)
    assert stages == ["read"] * 3  # nothing is written before somebody asks
    first = next(pieces)
    assert stages.count("write") < 9
    assert "".join([first, *pieces]) == bundled.generate(manual_page, **calls)


def test_character_of_several_ids_is_whole(bundled):
    text = " caf\u00e9 \U0001f600\u2615 \u4e2d\u6587 !  \n"
    ids = bundled.tokenizer(text)["input_ids"]
    for end in range(len(ids) + 1):
        pieces = list(text_pieces(bundled.tokenizer, ids[:end]))
        assert "".join(pieces) == bundled.tokenizer.decode(ids[:end], skip_special_tokens=True).strip()
        assert end < len(ids) or not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, r"num_beams is 4, and beams decide only at their end .*Pass num_beams=1"),
        ({"num_beams": 1, "do_sample": True, "num_return_sequences": 2}, "num_return_sequences is 2, but one text"),
        ({"num_beams": 1, "batch_size": 2}, "batch_size is for generate: stream decodes one document"),
    ],
)
def test_streaming_is_validated_before_encoding(bundled, settings, words):
    with pytest.raises(SettingsError, match=words):
        bundled.stream("a page", **settings)


def test_seed_for_all_or_each_document(bundled):
    draw = {"num_beams": 1, "do_sample": True, "max_new_tokens": 6, "temperature": 2.0}
    a, b = bundled.generate([PAGES[0], PAGES[0]], seed=[1, 2], **draw)
    assert a != b
    assert bundled.generate([PAGES[0], PAGES[0]], seed=1, **draw) == [a, a]
    with pytest.raises(SettingsError, match="seed holds 3 numbers, but there are 2 documents"):
        bundled.generate(PAGES[:2], seed=[1, 2, 3], **draw)


def test_a_stop_string_ends_a_text(bundled, manual_page):
    whole = bundled.generate(manual_page, num_beams=1, max_new_tokens=12)
    word = whole.split()[2]
    cut = bundled.generate(manual_page, num_beams=1, max_new_tokens=12, stop_strings=word)
    assert whole.startswith(cut)
    assert word in cut
    assert len(cut) < len(whole)


def test_blas_threads_between_streamed_pieces(bundled):
    """Who streams may compute with the pieces, or stop asking: BLAS is held to one thread while an id is written, no longer."""
    with threadpool_limits(3, user_api="blas"):
        before = {library["filepath"]: library["num_threads"] for library in threadpool_info()}
        ids = bundled.model.stream([[0, 5, 2]], num_beams=1, early_stopping=False, max_new_tokens=3)
        next(ids)
        assert {library["filepath"]: library["num_threads"] for library in threadpool_info()} == before


def test_one_text_is_no_list_of_letters(bundled):
    with pytest.raises(ArgumentTypeError, match=r"texts is 'abc', a str; it takes a list of texts: \[text\]"):
        next(bundled.generate_each("abc", max_new_tokens=3))


@pytest.mark.parametrize("name", ["add_special_tokens", "return_attention_mask", "return_offsets_mapping"])
def test_a_text_is_no_switch_of_the_tokenizer(bundled, name):
    with pytest.raises(ArgumentTypeError, match=f"{name} is 'no', a str; it takes True or False"):
        bundled.tokenizer("abc", **{name: "no"})
    for decode in (bundled.tokenizer.decode, bundled.tokenizer.convert_ids_to_tokens):
        with pytest.raises(ArgumentTypeError, match="skip_special_tokens is 'no'"):
            decode([0, 5], skip_special_tokens="no")
