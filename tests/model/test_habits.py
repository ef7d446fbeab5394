"""Habits from transformers and PyTorch, and NumPy states that a caller may have set."""

import numpy as np
import pytest

import led_ref
from led_ref.classes import generate
from led_ref.errors import InputError, SettingsError
from led_ref.model.brief_repr import brief
from led_ref.model.params import LEDParams

LED = led_ref.load(backend="numpy")
MODEL = LED.model
IDS = np.array([[0, 11, 12, 13, 2]])


def test_an_output_is_a_mapping_and_a_tuple():
    out = MODEL(IDS, labels=IDS)
    assert list(out) == list(out.keys()) == ["loss", "logits", "encoder_last_hidden_state"]
    assert out["logits"] is out.logits is out[1] is out.to_tuple()[1]
    loss, logits = out[:2]
    assert loss is out.loss
    assert dict(out.items())["logits"] is logits
    assert "past_key_values" not in out
    assert len(out) == 3
    with pytest.raises(KeyError, match="no 'past_key_values' here; it has loss, logits"):
        out["past_key_values"]


def test_reprs_are_short():
    out = MODEL.generate(IDS, max_new_tokens=3, num_beams=4, return_dict_in_generate=True, output_scores=True)
    for value in (out, MODEL.params, MODEL, MODEL(IDS, decoder_input_ids=IDS), out.past_key_values):
        assert len(repr(value)) <= 1000
    config = led_ref.LEDConfig(extra={"id2label": {str(i): "label" for i in range(999)}})
    of_text = LED.prepare("text " * 999), LED.tokenizer("text " * 999), MODEL.effective_settings(num_beams=2)
    traced = led_ref.trace(MODEL, IDS, decoder_input_ids=IDS)
    of_files = led_ref.oracle.diff(traced, traced), led_ref.weights.summarize_checkpoint(led_ref.bundled_model())
    for value in (LED, LED.tokenizer, MODEL.led, MODEL.encoder, MODEL.backend, config, *of_text, *of_files):
        assert len(repr(value)) <= 1000, type(value)
    assert "sequences=int64 (1, 4)" in repr(out)
    assert brief({str(i): i for i in range(10)}) == "10 names"
    assert repr(MODEL.params.encoder.layers[0].fc1) == "Linear(weight=float32 (768, 192), bias=float32 (768,))"
    assert isinstance(MODEL.params, LEDParams)


def test_unknown_arguments_are_told_the_nearest():
    for call, named, words in (
        (led_ref.load, {"revison": "x"}, "load has no argument 'revison'. Did you mean 'revision'"),
        (led_ref.train, {"data": "x", "modle": "y"}, "train has no argument 'modle'. Did you mean 'model'"),
        (MODEL, {"attention_masks": 1}, "Did you mean 'attention_mask'"),
        (led_ref.train, {}, "train: missing a required argument: 'data'. It takes data, model, out"),
        (led_ref.answer, {"x": 1}, "It takes question, context"),
    ):
        with pytest.raises(SettingsError, match=words) as refused:
            call(**named)
        assert isinstance(refused.value, TypeError)


def test_what_pytorch_has():
    assert MODEL.eval() is MODEL.to("cpu") is MODEL.to(dtype="float32") is MODEL
    assert MODEL.device == "cpu"
    state = MODEL.state_dict()
    again = type(MODEL).from_state_dict(MODEL.config, state, backend="numpy")
    assert (again.generate(IDS, max_new_tokens=3) == MODEL.generate(IDS, max_new_tokens=3, num_beams=1)).all()
    assert MODEL.num_parameters() == sum({id(array): array.size for array in state.values()}.values())
    for where, words in ((("cuda",), "backend='cupy'"), ((None, "float64"), "dtype='float64'")):
        with pytest.raises(InputError, match=words):
            MODEL.to(*where)
    assert MODEL.train(False) is MODEL.cpu() is MODEL
    assert not MODEL.training
    named = dict(MODEL.named_parameters())
    assert list(named) == [key for key in state if key != "lm_head.weight"]  # the tied table once
    assert sum(array.size for array in MODEL.parameters()) == MODEL.num_parameters()
    with pytest.raises(InputError, match="no training mode"):
        MODEL.train()


@pytest.mark.parametrize(
    ("name", "words"), [("half", "dtype"), ("zero_grad", "led_ref.train"), ("quatsch", "no 'quatsch'")]
)
def test_what_pytorch_has_and_we_have_not(name, words):
    assert not hasattr(MODEL, name)
    with pytest.raises(AttributeError, match=words):
        getattr(MODEL, name)


def test_a_generation_config_replaces_the_file():
    given = {"num_beams": 1, "max_new_tokens": 3, "min_new_tokens": 3}
    by_name = MODEL.generate(IDS, **given)
    assert (MODEL.generate(IDS, generation_config=given) == by_name).all()
    resolved = MODEL.effective_settings(**given)
    assert (MODEL.generate(IDS, generation_config=resolved) == by_name).all()
    assert MODEL.generate(IDS, generation_config=given, max_new_tokens=4, min_new_tokens=4).shape[1] == 5
    assert led_ref.GenerationConfig is led_ref.GenerationSettings
    assert [int(ids[0]) for ids in MODEL.stream(IDS, generation_config=given)] == by_name[0, 1:].tolist()
    assert led_ref.GenerationSettings(bad_words_ids=[[5]], top_k=None).bad_words_ids == ((5,),)
    for wrong, words in (
        (4, "generation_config is a int"),
        ({"num_beams": "4"}, r"num_beams is '4' \(from the argument generation_config\); it must be a whole number"),
        ({"num_beans": 4}, "no generation setting 'num_beans' .* mean 'num_beams'"),
        ({"penalty_alpha": 0.6}, "from the argument generation_config"),
    ):
        with pytest.raises(SettingsError, match=words):
            MODEL.generate(IDS, generation_config=wrong)
    with pytest.raises(SettingsError, match="num_beams is '4'; it must be a whole number"):
        led_ref.GenerationSettings(num_beams="4")


def test_the_caller_may_let_numpy_raise():
    with np.errstate(all="raise"):
        strict = LED.generate("A text about files and folders. " * 20, max_new_tokens=5)
        MODEL(IDS, labels=IDS)
    assert strict == LED.generate("A text about files and folders. " * 20, max_new_tokens=5)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (np.ma.masked_array(IDS, IDS > 11), "masked array"),
        (IDS.astype("m8[s]"), "timedelta64"),
        ("text", "input_ids is text"),
        ([["a", "b"]], "input_ids is text"),
        (IDS + 0.5, "float64"),
        ([[True, False]], "bool"),
    ],
)
def test_what_is_no_ids(ids, words):
    with pytest.raises(InputError, match=words):
        MODEL.generate(ids)


def test_odd_but_right_ids():
    plain = MODEL.generate(IDS, max_new_tokens=3)
    frozen = IDS.copy()
    frozen.flags.writeable = False
    for ids in (IDS.tolist(), IDS.astype(">i4"), IDS.astype(np.uint8), frozen, IDS[:, ::-1][:, ::-1]):
        assert (MODEL.generate(ids, max_new_tokens=np.int64(3)) == plain).all()


def test_embeddings_that_are_not_finite():
    embeds = np.zeros((1, 5, MODEL.config.d_model), np.float32)
    embeds[0, 3, 2] = np.nan
    with pytest.raises(InputError, match=r"inputs_embeds\[0, 3, 2\] is nan"):
        MODEL(inputs_embeds=embeds, decoder_input_ids=IDS)


def test_bad_words_come_in_no_form():
    text = "A text about files and folders. " * 20
    plain = LED.generate(text, max_new_tokens=8)
    word = max(plain.split(), key=len).strip(".,")
    for given in (word, f" {word}", [word, "other"]):
        assert word not in LED.generate(text, max_new_tokens=8, bad_words=given)
    forms = [LED.tokenizer(form, add_special_tokens=False)["input_ids"] for form in (word, f" {word}")]
    expected = LED.generate(text, max_new_tokens=8, bad_words_ids=forms)
    assert LED.generate(text, max_new_tokens=8, bad_words=word) == expected
    # At the beginning of a text and of a line a word has no blank, however it is given.
    assert set(generate._ids_of_word(LED.tokenizer, f" {word}")) == {tuple(ids) for ids in forms}
    with pytest.raises(SettingsError, match=r"bad_words is .* no tokenizer"):
        MODEL.generate(IDS, bad_words="files")
