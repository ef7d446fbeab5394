"""Every public name with some sixty odd values in each argument.

What is wrong is refused by a LEDError, which names the argument if its type is wrong. What is odd and right gives the plain
call's numbers. Nothing is taken silently: only the values that a kind of argument allows may pass.
"""

import decimal
import fractions
import math
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from tokenizer.vocabularies import TINY_MERGES, tiny_vocab

import led_ref
from led_ref.config import LEDConfig
from led_ref.errors import LEDError
from led_ref.pipelines.classification import Classifier
from led_ref.pipelines.question_answering import QuestionAnswerer
from led_ref.tokenizer import AddedToken, LEDTokenizer
from led_ref.tools.random_weights import random_weights, write_random_checkpoint
from led_ref.training.settings import SETTINGS, RunArguments

TEXT = "NAME tar"
CONFIG_IDS = LEDConfig().vocab_size
IDS = [[0, 5, 7, 2]]
SIZES = {"vocab_size": 6144, "d_model": 6, "max_encoder_position_embeddings": 23, "max_decoder_position_embeddings": 23}
LAYERS = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 3}
CONFIG = LEDConfig(**SIZES, **LAYERS, encoder_ffn_dim=5, decoder_ffn_dim=7, attention_window=4)


class Tensor:
    """A stand-in for other libraries' arrays, such as torch's."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        if self.values is None:
            raise RuntimeError("this tensor lies on another device")
        return np.asarray(self.values, dtype)


def frozen(array):
    array.flags.writeable = False
    return array


class Hostile:
    """An object whose repr, comparison and truth raise."""

    def __repr__(self):
        raise RuntimeError("no repr")

    def __bool__(self):
        raise RuntimeError("no truth")

    __eq__ = __bool__
    __hash__ = None


ARRAY = np.array(IDS)
RAGGED = np.empty(2, object)
RAGGED[:] = [[0, 5], [2]]
SCALARS = [
    None, True, False, np.True_, 0, 1, 2, -1, 7, 10**30, 2**31, -(2**63) - 1, 0.5, 1.0, math.nan, math.inf, -math.inf, 1j,
    np.int64(2), np.uint8(2), np.float32(0.5), np.float64("nan"), decimal.Decimal(1), fractions.Fraction(1, 2),
]  # fmt: skip
TEXTS = ["", " ", TEXT, "\ud800", "a\0b", "é" * 5000, "no", np.str_(TEXT), b"bytes", bytearray(b"x"), Path("nowhere")]
CONTAINERS = [
    [], [[]], (), {}, {1: 2}, {1, 2}, [1], [None], [[0, 5], [2]], [[0, 5.5]], [[True, False, True, True]], [["0", "5"]],
    [[math.nan] * 4], [[10**30, 5, 7, 2]], [[-1, 5, 7, 2]], [TEXT], [TEXT, 5], [[TEXT]], range(4), [range(0, 8, 2)],
]  # fmt: skip
ARRAYS = [
    np.array(5), np.array(2.5), np.array("text"), np.zeros((0, 4), int), ARRAY, ARRAY.astype(">i8"), ARRAY.astype("u1"),
    frozen(ARRAY.copy()), ARRAY[:, ::-1][:, ::-1], ARRAY.astype(object), RAGGED, ARRAY + 0.0, ARRAY > 0,
    ARRAY.astype("M8[s]"), ARRAY.astype([("a", int)]), np.ma.masked_array(ARRAY, ARRAY > 5), ARRAY.astype("S1"), ARRAY[None],
    np.full((1, 4), np.nan), Tensor(IDS), Tensor([[0.5]]), Tensor(None), [Tensor(IDS[0])], memoryview(ARRAY),
]  # fmt: skip
OBJECTS = [object(), Hostile(), ..., iter([1]), (i for i in [IDS[0]])]
VALUES = [*SCALARS, *TEXTS, *CONTAINERS, *ARRAYS, *OBJECTS]


def whole(value, least=1, most=math.inf):
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and least <= value <= most


def read(value, kind=int):
    """An array of whole numbers (ids) or of booleans (a mask), whatever holds them; None for everything else."""
    try:
        array = np.asarray(value)
        if (
            isinstance(value, np.ma.MaskedArray)
            or array.shape != (1, 4)
            or array.dtype.kind not in ("b" if kind is bool else "iuO")
        ):
            return None
        return array.astype(np.int64) if kind is bool or all(whole(x, 0, 8191) for x in array.flat) else None
    except Exception:
        return None


def is_row(value):
    """Ids in a list, a range or an array of one axis, or one id. None for what can be read once only."""
    if isinstance(value, Iterator):
        return None
    if isinstance(value, np.ndarray):
        plain = not isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "iu" and value.ndim <= 1
        return value.size == 0 or (plain and all(whole(x, 0, 8191) for x in value.flat))
    return whole(value, 0, 8191) or (isinstance(value, list | tuple | range) and all(whole(x, 0, 8191) for x in value))


def is_rows(value):
    if isinstance(value, Iterator):
        return None
    if isinstance(value, np.ndarray):
        plain = not isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "iuO" and value.ndim <= 2
        return value.size == 0 or (plain and is_rows(value.tolist()))
    if isinstance(value, memoryview):
        return True
    return is_row(value) or (isinstance(value, list | tuple) and all(is_row(x) for x in value))


def is_flag(value):
    return isinstance(value, bool | np.bool_)


# What a kind of argument takes; everything else is refused.
KINDS: dict[str, Callable[[object], bool | None]] = {
    "ids": lambda value: read(value) is not None,
    "mask": lambda value: read(value, bool) is not None,
    "nothing": lambda value: False,
    "flag": is_flag,
    "document": lambda value: isinstance(value, str) and value in (TEXT, "a\0b", "no"),
    "documents": lambda value: KINDS["document"](value) or (type(value) is list and value == [TEXT]),
    "count": whole,
    "few": lambda value: whole(value, 1, 10),
    "globals": lambda value: type(value) in (list, tuple, range) and list(value) in ([], [1], [0, 1, 2, 3]),
    "settings": lambda value: isinstance(value, dict),
    "nothing_set": lambda value: isinstance(value, dict) and not value,
    "rules": lambda value: isinstance(value, list | tuple) and len(value) == 0,
    "vocabulary": lambda value: whole(value, 3, 1 << 26),
    "few_names": lambda value: isinstance(value, str) and value in ("", "no"),  # parts of names of intermediates
    "zero": lambda value: whole(value, 0, 0),
    "place": lambda value: type(value) is list and value == [1],
    "row": is_row,
    "rows": is_rows,
    "width": lambda value: whole(value, 2, 1 << 24),
    "limit": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "part": lambda value: type(value) in (int, float) and 0 <= value <= 1,
    "id": lambda value: type(value) is int and 0 <= value < CONFIG_IDS,
    "ids_of_config": lambda value: (
        KINDS["id"](value) or (type(value) in (list, tuple) and all(map(KINDS["id"], value)))
    ),
    "count0": lambda value: whole(value, 0),
    "special": lambda value: isinstance(value, str) and value not in ("", "\ud800"),
    "choice": lambda value: value is True or value is False,
    "pieces": lambda value: (
        isinstance(value, str) or (type(value) in (list, tuple) and all(type(x) is str for x in value))
    ),
}
ANY = object()  # taken or refused: what counts is that a refusal is a LEDError
KINDS["any"] = lambda value: None if isinstance(value, Iterator) else ANY
OPTIONAL = "?"  # after a kind: None, too


@pytest.fixture(scope="module")
def led(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    write_random_checkpoint(folder, CONFIG)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        shutil.copyfile(led_ref.bundled_model() / name, folder / name)
    return led_ref.load(folder, backend="numpy")


@cache
def with_head(tokenizer, kind, shapes):
    """A pipeline with a drawn head."""
    rng = np.random.default_rng(3)
    weights = {key: value for key, value in random_weights(CONFIG).items() if "final_logits" not in key}
    weights |= {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes}
    return kind(kind.model_class.from_state_dict(CONFIG, weights, backend="numpy"), tokenizer, "drawn")


def answerer(led):
    return with_head(led.tokenizer, QuestionAnswerer, (("qa_outputs.weight", (2, 6)), ("qa_outputs.bias", (2,))))


def classifier(led):
    dense, out = "classification_head.dense", "classification_head.out_proj"
    shapes = ((f"{dense}.weight", (6, 6)), (f"{dense}.bias", (6,)), (f"{out}.weight", (2, 6)), (f"{out}.bias", (2,)))
    return with_head(led.tokenizer, Classifier, shapes)


def tiny_tokenizer():
    return LEDTokenizer(tiny_vocab(), TINY_MERGES)


SOURCE = "input_ids:ids attention_mask:mask? global_attention_mask:mask? recorder:nothing?"
SHOWN = "inputs_embeds:nothing? output_attentions:flag output_hidden_states:flag"
DECODER = "encoder_outputs:nothing? decoder_input_ids:ids decoder_attention_mask:mask? past_key_values:nothing? "
DECODER += "decoder_inputs_embeds:nothing? use_cache:flag?"
OF_TEXT, OF_IDS = {"text": TEXT, "max_new_tokens": 2}, {"input_ids": IDS, "max_new_tokens": 2}
BOTH = {"input_ids": IDS, "decoder_input_ids": IDS}
# What is called, the arguments of the plain call, and the kinds of the arguments that odd values are put in.
CALLS = {
    "generate": (
        lambda led: lambda **given: led_ref.generate(model=led, **given),
        OF_TEXT,
        "text:documents backend:nothing dtype:nothing max_new_tokens:few?",
    ),
    "LED.generate": (
        lambda led: led.generate,
        OF_TEXT,
        "truncation:flag batch_size:count batch_memory:count cross_attention:nothing global_attention:globals "
        "progress:flag?",
    ),
    "LED.stream": (lambda led: lambda **given: list(led.stream(**given)), OF_TEXT, "text:document truncation:flag"),
    "LED.prepare": (lambda led: led.prepare, {"text": TEXT}, "text:document truncation:flag global_attention:globals"),
    "from_pretrained": (
        lambda led: lambda **given: type(led.model).from_pretrained(**{"name_or_folder": led.name, **given}),
        {"backend": "numpy"},
        "name_or_folder:nothing revision:nothing? backend:nothing dtype:nothing quantize:nothing? keep_stored:flag "
        "notice:nothing?",
    ),
    "from_state_dict": (
        lambda led: partial(type(led.model).from_state_dict, backend="numpy"),
        {"config": CONFIG, "state_dict": {}},
        "config:nothing state_dict:nothing dtype:nothing",
    ),
    "model.generate": (
        lambda led: led.model.generate,
        OF_IDS,
        f"{SOURCE} encoder_outputs:nothing? decoder_input_ids:ids? decoder_attention_mask:nothing? progress:nothing? "
        "generation_config:nothing_set? logits_processor:rules? stopping_criteria:rules? tokenizer:nothing? "
        "prefix_allowed_tokens_fn:nothing? cross_attention:nothing",
    ),
    "model": (lambda led: led.model, BOTH, f"{SOURCE} {SHOWN} {DECODER} labels:ids?"),
    "LEDModel": (lambda led: led.model.led, BOTH, f"{SOURCE} {SHOWN} {DECODER}"),
    "encoder": (lambda led: led.model.encoder, {"input_ids": IDS}, f"{SOURCE} {SHOWN} progress:nothing?"),
    "model.stream": (lambda led: lambda **given: list(led.model.stream(**given)), OF_IDS, "input_ids:ids"),
    "labels": (lambda led: led.model.prepare_decoder_input_ids_from_labels, {}, "labels:ids"),
    "resize": (lambda led: led.model.resize_token_embeddings, {}, "new_num_tokens:vocabulary"),
    "to": (lambda led: led.model.to, {}, "device:nothing? dtype:nothing?"),
    "transition": (
        lambda led: led.model.compute_transition_scores,
        {"sequences": IDS, "scores": ()},
        "sequences:ids scores:rules beam_indices:nothing? normalize_logits:flag",
    ),
    "decode": (lambda led: led.tokenizer.decode, {"token_ids": IDS[0]}, "token_ids:row skip_special_tokens:flag"),
    "batch_decode": (
        lambda led: led.tokenizer.batch_decode,
        {"sequences": IDS},
        "sequences:rows skip_special_tokens:flag",
    ),
    "tokens_to_ids": (lambda led: led.tokenizer.convert_tokens_to_ids, {}, "tokens:pieces"),
    "tokenizer": (
        lambda led: led.tokenizer,
        {"text": TEXT, "truncation": True, "padding": True, "max_length": 8},
        "add_special_tokens:flag max_length:width padding:choice? return_attention_mask:flag "
        "return_token_type_ids:flag padding_side:nothing? return_tensors:nothing? split_special_tokens:flag? ",
    ),
    "pad": (
        lambda led: led.tokenizer.pad,
        {"encoded_inputs": {"input_ids": IDS}},
        "encoded_inputs:nothing padding:choice? return_attention_mask:flag padding_side:nothing? return_tensors:nothing?",
    ),
    "answer": (
        lambda led: partial(led_ref.answer, model=answerer(led)),
        {"question": "no", "context": TEXT},
        "question:document context:documents top_k:count max_answer_len:count? handle_impossible_answer:flag? "
        "truncation:flag progress:flag?",
    ),
    "classify": (
        lambda led: partial(led_ref.classify, model=classifier(led)),
        {"text": TEXT},
        "text:documents global_attention:globals truncation:flag progress:flag?",
    ),
    "LEDForQuestionAnswering": (
        lambda led: answerer(led).model,
        {"input_ids": IDS, "start_positions": [1], "end_positions": [2]},
        f"{SOURCE} {SHOWN} start_positions:place end_positions:place",
    ),
    "LEDForSequenceClassification": (
        lambda led: classifier(led).model,
        {"input_ids": IDS},
        "attention_mask:mask? global_attention_mask:mask? labels:place?",
    ),
    "add_tokens": (lambda led: led.tokenizer.add_tokens, {"new_tokens": []}, "special_tokens:flag"),
    "config": (lambda led: LEDConfig.from_dict, {}, "values:settings"),
    "LEDConfig": (
        lambda led: LEDConfig,
        {},
        "dropout:part encoder_layerdrop:part use_cache:choice extra:settings decoder_start_token_id:id pad_token_id:id? "
        "eos_token_id:ids_of_config? attention_window:any tie_word_embeddings:choice activation_function:any d_model:any",
    ),
    "summarization": (
        lambda led: led_ref.pipeline("summarization", led, max_new_tokens=2),
        {"documents": TEXT},
        "documents:documents truncation:flag num_return_sequences:any generation_config:nothing prefix:nothing",
    ),
    "question-answering": (
        lambda led: led_ref.pipeline("question-answering", answerer(led)),
        {"question": "no", "context": TEXT},
        "question:documents top_k:count max_seq_len:any doc_stride:count0? max_question_len:count? "
        "align_to_words:flag padding:any truncation:flag handle_impossible_answer:flag?",
    ),
    "examples": (lambda led: led_ref.pipeline("question-answering", answerer(led)), {}, "examples:nothing"),
    "text-classification": (
        lambda led: led_ref.pipeline("text-classification", classifier(led)),
        {"documents": TEXT},
        "documents:documents top_k:any global_attention:globals truncation:flag",
    ),
    "pipeline": (
        lambda led: led_ref.pipeline,
        {"task": "summarization", "model": led_ref.load(backend="numpy")},
        "task:nothing model:nothing? tokenizer:nothing? revision:nothing? device:any dtype:nothing? notice:nothing?",
    ),
    "LEDTokenizer": (
        lambda led: led_ref.LEDTokenizer,
        {"vocab": tiny_vocab(), "merges": []},
        "vocab:nothing merges:any bos_token:any mask_token:any added_tokens:any extra_special_tokens:any "
        "model_max_length:limit? padding_side:nothing truncation_side:nothing split_special_tokens:flag engine:nothing",
    ),
    "LEDTokenizer.from_pretrained": (
        lambda led: partial(led_ref.LEDTokenizer.from_pretrained),
        {"folder": "nowhere"},
        "folder:nothing revision:nothing engine:nothing",
    ),
    "special tokens": (
        lambda led: led.tokenizer.build_inputs_with_special_tokens,
        {"token_ids_0": [5]},
        "token_ids_0:row token_ids_1:row?",
    ),
    "special tokens' mask": (
        lambda led: led.tokenizer.get_special_tokens_mask,
        {"token_ids_0": [5]},
        "token_ids_0:row token_ids_1:row? already_has_special_tokens:flag",
    ),
    "token_bytes": (lambda led: led.tokenizer.token_bytes, {}, "token_id:any"),
    "text_bytes": (lambda led: led.tokenizer.text_bytes, {}, "token_ids:row"),
    "tokens_to_string": (lambda led: led.tokenizer.convert_tokens_to_string, {}, "tokens:any"),
    "new tokens": (lambda led: tiny_tokenizer().add_tokens, {}, "new_tokens:any"),
    "new special tokens": (lambda led: tiny_tokenizer().add_special_tokens, {}, "special_tokens_dict:any"),
    "AddedToken": (lambda led: AddedToken, {}, "content:special"),
    "evaluate": (
        lambda led: led_ref.evaluate,
        {"data": "nowhere.jsonl", "model": "nowhere"},
        "data:nothing baselines:any samples:any global_attention:any",
    ),
    "train": (
        lambda led: led_ref.train,
        {"data": "nowhere.jsonl", "model": "nowhere", "out": "out"},
        "data:nothing model:nothing recipe:any validate:any resume:nothing backend:nothing dtype:nothing",
    ),
    **{f"setting {name} of training": (lambda led: RunArguments.of, {}, f"{name}:any") for name in SETTINGS},
    "generate_many": (
        lambda led: lambda **given: list(led_ref.generate_many(**given)),
        {"documents": [TEXT], "num_beams": 1, "max_new_tokens": 1},
        "documents:any shard:any text_field:any id_field:any out:any resume:flag redo:flag",
    ),
    "GenerationSettings": (
        lambda led: led_ref.GenerationSettings,
        {},
        "num_beams:any seed:any stop_strings:any sequence_bias:any eos_token_id:any bad_words_ids:any length_penalty:any "
        "early_stopping:any suppress_tokens:any exponential_decay_length_penalty:any max_time:any",
    ),
    "generate_each": (
        lambda led: lambda **given: list(led.generate_each(max_new_tokens=1, **given)),
        {"texts": [TEXT]},
        "texts:any global_attention:any split:any overlap:any",
    ),
    "global_mask": (lambda led: led.global_mask, {"ids": IDS[0]}, "global_attention:any"),
    "diff": (
        lambda led: led_ref.oracle.diff,
        dict.fromkeys("ab", led_ref.oracle.Trace([])),
        "a:any b:any rtol:any atol:any",
    ),
    "trace": (
        lambda led: lambda **given: led_ref.trace(given.pop("model", led.model), **given),
        BOTH,
        "model:nothing input_ids:ids only:few_names? layer:zero?",
    ),
}


def shown(value):
    return type(value).__name__ if isinstance(value, Hostile) else repr(value)[:60]


@pytest.mark.parametrize("name", CALLS)
def test_odd_values(led, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an odd value may be a name that is written to
    get, plain, arguments = CALLS[name]
    call, wrong = get(led), []
    for argument, kind in (part.split(":") for part in arguments.split()):
        for value in VALUES:
            takes = KINDS[kind.rstrip(OPTIONAL)](value)
            if takes is None:  # an iterator, which an earlier call may have used up
                continue
            takes = takes or (takes is not ANY and value is None and kind.endswith(OPTIONAL))
            try:
                call(**{**plain, argument: value})
                problem = "" if takes or takes is ANY else "was taken"
            except LEDError as error:
                problem = f"was refused: {error}" if takes and takes is not ANY else ""
                if isinstance(error, TypeError) and argument not in str(error):
                    problem = f"is not named: {error}"
            except Exception as error:
                problem = f"raised {type(error).__name__}: {error}"
            if problem:
                wrong.append(f"{argument}={shown(value)} {problem}"[:240])
    assert not wrong, "\n".join([f"{len(wrong)} values:", *wrong])


ODD_IDS = [value for value in VALUES if read(value) is not None and np.array_equal(read(value), ARRAY)]


def test_odd_and_right_ids(led):
    """Ids in other containers, orders and widths give the plain call's numbers, to the bit."""
    assert len(ODD_IDS) >= 8
    plain = led.model(IDS, decoder_input_ids=IDS).logits
    generated = led.model.generate(IDS, max_new_tokens=4)
    for value in ODD_IDS:
        np.testing.assert_array_equal(led.model(value, decoder_input_ids=value).logits, plain)
        np.testing.assert_array_equal(led.model.generate(value, max_new_tokens=np.int8(4)), generated)
    masks = [np.ones((1, 4)), np.ones((1, 4), ">f8"), np.ones((1, 4), bool), Tensor([[1] * 4]), np.ones((1, 4), object)]
    for mask in masks:
        np.testing.assert_array_equal(led.model(IDS, mask, IDS).logits, plain)


def test_wrong_type_is_a_type_error(led):
    with pytest.raises(TypeError, match=r"progress is 4, an int; it takes a function") as refused:
        led.model.generate(IDS, progress=4)
    with pytest.raises(TypeError, match="batch_size is True, a bool; it takes a whole number"):
        led.generate(TEXT, batch_size=True)
    assert isinstance(refused.value, LEDError | ValueError)
