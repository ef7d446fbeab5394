"""dense.py and the model against transformers' LED, on random configurations: every state, attention, logit and loss.

Where transformers gives something that it does not mean, only what it means is compared:
- its global attentions keep the positions with which it padded the input: cut back to T here;
- their columns beyond a document's own global tokens are filler (uniform in float32, NaN in float64); ours are 0;
- a query whose visible keys are all masked spreads evenly over all keys, the future included; ours sees nothing. So no
  document is masked whole, and decoder queries before the first unmasked target token are left out, of the loss too;
- it ignores decoder_attention_mask for a single target token: none is drawn there;
- it crashes at window 2, and where a layer's window does not divide the padded length: tests/model has these.
"""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pytest

from led_ref.config import ACTIVATIONS, LEDConfig
from led_ref.oracle.definition import model as dense

pytestmark = pytest.mark.peer

CASES = 200
# transformers computes the encoder's softmax in float32 whatever the rest is in: 6e-8 relative, a few layers deep.
FLOAT32_SOFTMAX = 5e-6
# With that one softmax lifted to float64, only the order of float64 sums is left.
FLOAT64_ROUNDING = 1e-12
# Both sides in float32: some 1e-7 of states and logits that are themselves of size 1 to 20, a few layers deep.
FLOAT32_ROUNDING = 3e-5
SOURCE = ("input_ids", "inputs_embeds", "attention_mask", "global_attention_mask")
TIED = ("lm_head.weight", "led.encoder.embed_tokens.weight", "led.decoder.embed_tokens.weight")

Arrays = dict[str, Any]


# ---- drawing a case -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """One LED and one call of it, all of it following from the seed."""

    seed: int
    config: LEDConfig
    call: Arrays  # forward's arguments

    def __str__(self) -> str:
        shown = {k: f"floats {v.shape}" if v.dtype.kind == "f" else v.tolist() for k, v in self.call.items()}
        return f"draw_case({self.seed}):\n{self.config}\n" + "\n".join(f"{k} = {v}" for k, v in shown.items())


def draw_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    batch, length, target = (int(rng.integers(1, most)) for most in (4, 44, 12))
    heads = [int(h) for h in rng.choice([1, 2, 3, 5], size=2)]
    widest = int(rng.choice([4, 6, 8, 10, 12, 14, 18, 24, 30, 64]))
    padded = math.ceil(length / widest) * widest
    layers = int(rng.integers(1, 4))
    fitting = [w for w in range(4, widest + 1, 2) if padded % w == 0]
    windows = tuple(int(w) for w in rng.permutation([widest, *rng.choice(fitting, size=layers - 1)]))
    config = LEDConfig(
        vocab_size=int(rng.choice([29, 37, 53])),
        d_model=math.lcm(*heads) * int(rng.choice([2, 3, 4, 7])),
        encoder_layers=layers,
        decoder_layers=int(rng.integers(1, 4)),
        encoder_attention_heads=heads[0],
        decoder_attention_heads=heads[1],
        encoder_ffn_dim=int(rng.choice([5, 11, 31])),
        decoder_ffn_dim=int(rng.choice([7, 13, 29])),
        attention_window=widest if rng.random() < 0.2 else windows,
        max_encoder_position_embeddings=padded + int(rng.integers(0, 3)),
        max_decoder_position_embeddings=target + int(rng.integers(0, 3)),
        tie_word_embeddings=bool(rng.random() < 0.85),
        eos_token_id=2,
        activation_function=ACTIVATIONS[seed % len(ACTIVATIONS)],
    )
    call = {**_draw_source(rng, config, batch, length), **_draw_target(rng, config, batch, target)}
    return Case(seed, config, call)


def _draw_source(rng: np.random.Generator, config: LEDConfig, batch: int, length: int) -> Arrays:
    call: Arrays = {}
    mask = draw_mask(rng, batch, length)
    first_id = 0 if mask is not None else 2  # pad ids among what is read only where the mask says so
    if rng.random() < 0.15:
        call["inputs_embeds"] = rng.normal(size=(batch, length, config.d_model))
    else:
        call["input_ids"] = rng.integers(first_id, config.vocab_size, (batch, length))
    if mask is not None:
        call["attention_mask"] = mask
    marks = draw_global_mask(rng, batch, length)
    if marks is not None:
        if rng.random() < 0.3:  # -1 is how tokenizers pad this mask; it masks, with or without an attention_mask
            marks[:, int(rng.integers(1, length + 1)) :] = -1
        call["global_attention_mask"] = marks
    return call


def _draw_target(rng: np.random.Generator, config: LEDConfig, batch: int, target: int) -> Arrays:
    call: Arrays = {}
    mask = draw_mask(rng, batch, target) if target > 1 and rng.random() < 0.4 else None
    if mask is not None:
        call["decoder_attention_mask"] = mask
    if rng.random() < 0.6:
        labels = rng.integers(0, config.vocab_size, (batch, target))
        labels[rng.random(labels.shape) < 0.2] = -100
        labels[~sees_something(call, batch, target)] = -100
        labels[0, -1] = 3  # at least one label counts; the last query always sees something
        call["labels"] = labels
    if "labels" in call and rng.random() < 0.5:
        return call  # the decoder's ids are then the labels, one place to the right
    if rng.random() < 0.15:
        call["decoder_inputs_embeds"] = rng.normal(size=(batch, target, config.d_model))
    else:
        call["decoder_input_ids"] = rng.integers(0, config.vocab_size, (batch, target))
    return call


def draw_mask(rng: np.random.Generator, batch: int, length: int) -> np.ndarray | None:
    """No mask, all seen, padding on the right, on the left, or holes anywhere; no document is masked whole."""
    kind = rng.choice(["none", "ones", "right", "left", "scattered"])
    lengths = rng.integers(1, length + 1, (batch, 1))
    if kind == "none":
        return None
    if kind == "ones":
        return np.ones((batch, length), np.int64)
    if kind == "scattered":
        mask = (rng.random((batch, length)) < 0.7).astype(np.int64)
        mask[np.arange(batch), lengths[:, 0] - 1] = 1
        return mask
    right = (np.arange(length) < lengths).astype(np.int64)
    return right if kind == "right" else right[:, ::-1].copy()


def draw_global_mask(rng: np.random.Generator, batch: int, length: int) -> np.ndarray | None:
    """No mask, no mark, the first token, marks anywhere, everywhere, or each of these in another row."""
    kind = rng.choice(["none", "zeros", "first", "some", "all", "mixed", "mixed"])
    if kind == "none":
        return None
    marks = np.zeros((batch, length), np.int64)
    for row in marks:
        of_row = rng.choice(["zeros", "first", "some", "all"]) if kind == "mixed" else kind
        if of_row == "first":
            row[0] = 1
        if of_row == "some":
            row[:] = rng.random(length) < rng.choice([0.1, 0.4])
        if of_row == "all":
            row[:] = 1
    return marks


def sees_something(call: Arrays, batch: int, target: int) -> np.ndarray:
    """(B, U): whether a decoder query has any visible key at or before it."""
    return np.cumsum(call.get("decoder_attention_mask", np.ones((batch, target), np.int64)), axis=1) > 0


# ---- three ways to run it -------------------------------------------------------------------------------------------


def build_transformers(config: LEDConfig, seed: int, dtype: str = "float64") -> tuple[Any, Arrays]:
    """transformers' model with drawn weights, and those weights as a file of transformers 5 holds them."""
    import torch
    import transformers

    values = {k: v for k, v in config.to_dict().items() if k != "model_type"}
    model = transformers.LEDForConditionalGeneration(transformers.LEDConfig(**values)).double().eval()
    rng = np.random.default_rng([seed, 1])
    state = model.state_dict()
    for key, tensor in state.items():
        drawn = rng.normal(size=tuple(tensor.shape))
        if "norm" in key and key.endswith("weight"):
            drawn = 1 + 0.2 * drawn
        elif tensor.ndim == 1 or key == "final_logits_bias":
            drawn *= 0.3
        else:
            drawn *= 1.3 / math.sqrt(tensor.shape[1])  # scores of size 1 to 2: attention neither flat nor a single peak
        state[key] = torch.from_numpy(drawn)
    for key in TIED if config.tie_word_embeddings else TIED[1:]:
        state[key] = state["led.shared.weight"]
    model.load_state_dict(state)
    model = model.to(getattr(torch, dtype)).requires_grad_(False)
    left_out = TIED if config.tie_word_embeddings else TIED[1:]
    return model, {k: v.numpy() for k, v in model.state_dict().items() if k not in left_out}


def tensors_of(call: Arrays) -> Arrays:
    import torch

    return {k: torch.from_numpy(v) for k, v in call.items()}


def run_transformers(model: Any, call: Arrays, **options: Any) -> Any:
    options = {"output_hidden_states": True, "output_attentions": True, **options}
    return model(**tensors_of(call), **options)


@functools.lru_cache(maxsize=CASES)
def transformers_on(seed: int) -> tuple[Case, Arrays, Arrays]:
    case = draw_case(seed)
    model, weights = build_transformers(case.config, seed)
    return case, weights, named(run_transformers(model, case.call, use_cache=False), case)


def dense_on(case: Case, weights: Arrays) -> Arrays:
    call, config = case.call, case.config
    mask = call.get("attention_mask")
    encoded = dense.encode(
        weights,
        config,
        call.get("input_ids"),
        mask,
        call.get("global_attention_mask"),
        inputs_embeds_BTD=call.get("inputs_embeds"),
    )
    ids, embeds = call.get("decoder_input_ids"), call.get("decoder_inputs_embeds")
    if ids is None and embeds is None:
        ids = dense.decoder_ids_from_labels(call["labels"], config)
    decoded = dense.decode(
        weights,
        config,
        ids,
        encoded.hidden_states[-1],
        mask,
        call.get("decoder_attention_mask"),
        inputs_embeds_BUD=embeds,
    )
    return {
        "encoder hidden states": encoded.hidden_states,
        "encoder attentions": encoded.attentions,
        "global attentions": encoded.global_attentions,
        "decoder hidden states": decoded.hidden_states,
        "decoder attentions": decoded.attentions,
        "cross attentions": decoded.cross_attentions,
        "logits": (decoded.logits,),
        "loss": (np.asarray(dense.loss(decoded.logits, call["labels"])),) if "labels" in call else (),
    }


def load_model(config: LEDConfig, weights: Arrays, dtype: str) -> Any:
    from led_ref.classes.conditional_generation import LEDForConditionalGeneration

    return LEDForConditionalGeneration.from_state_dict(config, weights, dtype=dtype)


def model_on(case: Case, weights: Arrays, dtype: str) -> Arrays:
    model = load_model(case.config, weights, dtype)
    return named(model(**case.call, output_hidden_states=True, output_attentions=True).to_numpy(), case)


def named(output: Any, case: Case) -> Arrays:
    """The fields of an LEDSeq2SeqLMOutput (transformers' or ours) as arrays under the names of `dense_on`."""
    length = output.encoder_last_hidden_state.shape[1]
    assert np.array_equal(output.encoder_last_hidden_state, output.encoder_hidden_states[-1])
    return {
        "encoder hidden states": _arrays(output.encoder_hidden_states),
        "encoder attentions": _arrays(output.encoder_attentions),
        "global attentions": tuple(a[:, :, :length] for a in _arrays(output.encoder_global_attentions or ())),
        "decoder hidden states": _arrays(output.decoder_hidden_states),
        "decoder attentions": _arrays(output.decoder_attentions),
        "cross attentions": _arrays(output.cross_attentions),
        "logits": _arrays([output.logits]),
        "loss": _arrays([output.loss] if "labels" in case.call else []),
    }


def _arrays(tensors: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(t) for t in tensors)


def compare(worst: Any, who: str, ours: Arrays, theirs: Arrays, case: Case, tolerance: float) -> None:
    """Every array of every layer, where transformers' value means something."""
    batch, target = theirs["logits"][0].shape[:2]
    sees_BU = sees_something(case.call, batch, target)
    shape_BT = theirs["encoder hidden states"][0].shape[:2]
    kinds_BT = dense.token_kinds(shape_BT, case.call.get("attention_mask"), case.call.get("global_attention_mask"))
    counts_B1 = (kinds_BT == dense.GLOBAL).sum(axis=1)[:, None]
    is_real_BG = np.arange(counts_B1.max()) < counts_B1
    for kind, arrays in theirs.items():
        if kind == "global attentions" and not arrays:  # without a global token transformers gives none; G is 0
            assert all(array.size == 0 for array in ours[kind])
            continue
        assert len(ours[kind]) == len(arrays), (
            f"{who}, {kind}: {len(ours[kind])} arrays, expected {len(arrays)}\n{case}"
        )
        for a, b in zip(ours[kind], arrays, strict=True):
            if a.shape == b.shape and kind == "global attentions":
                a, b = (x.transpose(0, 3, 1, 2)[is_real_BG] for x in (a, b))
            elif a.shape == b.shape and kind in ("decoder attentions", "cross attentions"):
                a, b = (x.transpose(0, 2, 1, 3)[sees_BU] for x in (a, b))
            elif a.shape == b.shape and kind in ("decoder hidden states", "logits"):
                a, b = a[sees_BU], b[sees_BU]
            worst.compare(f"{who}, {kind}", a, b, tolerance, case)


# ---- the tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(CASES))
def test_dense_equals_transformers(seed: int, worst: Any) -> None:
    case, weights, theirs = transformers_on(seed)
    compare(worst, "dense float64", dense_on(case, weights), theirs, case, FLOAT32_SOFTMAX)


@pytest.mark.parametrize("seed", range(CASES))
def test_model_equals_transformers(seed: int, worst: Any) -> None:
    case, weights, theirs = transformers_on(seed)
    compare(worst, "model float64", model_on(case, weights, "float64"), theirs, case, FLOAT32_SOFTMAX)


@pytest.mark.parametrize("seed", range(0, CASES, 8))
def test_only_float32_softmax_differs(seed: int, worst: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerance above hides nothing else: with that softmax lifted to float64, the three agree to rounding."""
    import torch

    case = draw_case(seed)
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))
    model, weights = build_transformers(case.config, seed)
    theirs = named(run_transformers(model, case.call, use_cache=False), case)
    compare(worst, "dense, softmax lifted", dense_on(case, weights), theirs, case, FLOAT64_ROUNDING)
    compare(worst, "model, softmax lifted", model_on(case, weights, "float64"), theirs, case, FLOAT64_ROUNDING)


@pytest.mark.parametrize("seed", range(1, CASES, 8))
def test_float32_equals_transformers_in_float32(seed: int, worst: Any) -> None:
    case = draw_case(seed)
    as_float32 = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in case.call.items()}
    case = dataclasses.replace(case, call=as_float32)
    model, weights = build_transformers(case.config, seed, dtype="float32")
    theirs = named(run_transformers(model, case.call, use_cache=False), case)
    ours = model_on(case, weights, "float32")
    assert {array.dtype for arrays in ours.values() for array in arrays} == {np.dtype(np.float32)}
    compare(worst, "model float32", ours, theirs, case, FLOAT32_ROUNDING)


@pytest.mark.parametrize("seed", range(2, CASES, 10))
def test_decoding_with_a_cache(seed: int, worst: Any) -> None:
    """A prompt, single tokens, then two at once; the encoder runs alone and its output is handed in."""
    case = draw_case(seed)
    config = dataclasses.replace(case.config, max_decoder_position_embeddings=11)
    theirs, weights = build_transformers(config, seed)
    ours = load_model(config, weights, "float64")
    source = {k: v for k, v in case.call.items() if k in SOURCE}
    encoded = ours.encoder(**source)
    their_encoded = theirs.led.encoder(**tensors_of(source))
    mask = {k: v for k, v in case.call.items() if k == "attention_mask"}
    batch = len(encoded.last_hidden_state)
    ids = np.random.default_rng(seed).integers(0, config.vocab_size, (batch, 11))
    past = their_past = None
    for start, stop in ((0, 4), (4, 5), (5, 6), (6, 8), (8, 9), (9, 11)):
        call = {"decoder_input_ids": ids[:, start:stop], **mask}
        a = ours(encoder_outputs=encoded, past_key_values=past, use_cache=True, output_hidden_states=True, **call)
        b = run_transformers(theirs, call, encoder_outputs=their_encoded, past_key_values=their_past, use_cache=True)
        past, their_past = a.past_key_values, b.past_key_values
        worst.compare("model, cached logits", a.to_numpy().logits, np.asarray(b.logits), FLOAT32_SOFTMAX, case)
        for x, y in zip(a.to_numpy().decoder_hidden_states, b.decoder_hidden_states, strict=True):
            worst.compare("model, cached hidden states", x, np.asarray(y), FLOAT32_SOFTMAX, case)


@pytest.mark.parametrize("seed", range(3, CASES, 20))
def test_encoder_and_given_encoder_outputs(seed: int, worst: Any) -> None:
    case, weights, theirs = transformers_on(seed)
    model = load_model(case.config, weights, "float64")
    source = {k: v for k, v in case.call.items() if k in SOURCE}
    encoded = model.encoder(**source, output_hidden_states=True, output_attentions=True)
    alone = encoded.to_numpy()
    assert np.array_equal(alone.last_hidden_state, alone.hidden_states[-1])
    for kind, arrays in (("encoder hidden states", alone.hidden_states), ("encoder attentions", alone.attentions)):
        for a, b in zip(arrays, theirs[kind], strict=True):
            worst.compare(f"model.encoder, {kind}", a, b, FLOAT32_SOFTMAX, case)
    whole = model_on(case, weights, "float64")
    rest = {k: v for k, v in case.call.items() if k not in SOURCE or k == "attention_mask"}
    handed = model(encoder_outputs=encoded, **rest).to_numpy()
    assert np.array_equal(handed.logits, whole["logits"][0])
    for a, b in zip(alone.global_attentions or (), whole["global attentions"], strict=True):
        assert np.array_equal(a, b)


def test_bare_model_last_hidden_state(worst: Any) -> None:
    from led_ref.classes.led import LEDModel

    case, weights, theirs = transformers_on(2)
    assert "decoder_input_ids" in case.call
    assert "decoder_attention_mask" not in case.call
    bare = LEDModel.from_state_dict(case.config, weights, dtype="float64")
    output = bare(**{k: v for k, v in case.call.items() if k != "labels"}).to_numpy()
    worst.compare(
        "LEDModel, last hidden state",
        output.last_hidden_state,
        theirs["decoder hidden states"][-1],
        FLOAT32_SOFTMAX,
        case,
    )
