"""Random LEDs with a training batch, and transformers' loss and gradients for it, with the same dropout masks.

Both sides compute in float64. transformers' softmaxes are float32 whatever the model is; here they are lifted to the model's
dtype (docs/deviations.md), else a masked row's gradient is 0 * NaN. What transformers cannot run is not drawn: windows
below 4, or that do not divide the padded length.
"""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
from small_led import draw_weights

from led_backends.numpy_backend import NumpyBackend
from led_ref import LEDForConditionalGeneration, LEDForQuestionAnswering, LEDForSequenceClassification
from led_ref.config import LEDConfig
from led_ref.model.dropout import Dropout, Tile

Arrays = dict[str, np.ndarray]
NUMPY = NumpyBackend(threads=1)
CLASSES = {"words": LEDForConditionalGeneration, "span": LEDForQuestionAnswering, "label": LEDForSequenceClassification}


@dataclasses.dataclass(frozen=True)
class Case:
    """One LED with a head and one batch, all of it following from the seed."""

    head: str
    config: LEDConfig
    weights: Arrays
    batch: Arrays
    smoothing: float

    def ours(self, **options: Any) -> Any:
        """Our model."""
        given = {"dtype": "float64", **options}
        return CLASSES[self.head].from_state_dict(self.config, self.weights, **given)


def draw_case(seed: int) -> Case:
    """Three heads; unequal lengths, holes in masks; no, one, some or all tokens global, row by row; label smoothing."""
    rng = np.random.default_rng([seed, 2811])
    head = str(rng.choice(["words", "words", "span", "label"]))
    batch, length = int(rng.integers(1, 4)), int(rng.integers(2, 60))
    heads = [int(h) for h in rng.choice([1, 2, 3, 5], size=2)]
    widest = int(rng.choice([4, 6, 8, 10, 12, 14, 18, 24]))
    padded = math.ceil(length / widest) * widest
    layers = int(rng.integers(1, 4))
    fitting = [w for w in range(4, widest + 1, 2) if padded % w == 0]
    problem = [None, "single_label_classification", "multi_label_classification", "regression"][seed % 4]
    # One label of one is certain: its loss is 0.
    labels = int(rng.integers(2 if problem == "single_label_classification" else 1, 5))
    target = int(rng.integers(1, 14)) if head == "words" else length
    config = LEDConfig(
        vocab_size=int(rng.choice([29, 37, 53])),
        d_model=max(4, math.lcm(*heads) * int(rng.choice([2, 3, 4]))),  # of two numbers LayerNorm leaves the signs
        encoder_layers=layers,
        decoder_layers=int(rng.integers(1, 4)),
        encoder_attention_heads=heads[0],
        decoder_attention_heads=heads[1],
        encoder_ffn_dim=int(rng.choice([5, 11, 31])),
        decoder_ffn_dim=int(rng.choice([7, 13, 29])),
        attention_window=tuple(int(w) for w in rng.permutation([widest, *rng.choice(fitting, size=layers - 1)])),
        max_encoder_position_embeddings=padded + int(rng.integers(0, 3)),
        max_decoder_position_embeddings=target + int(rng.integers(0, 3)),
        activation_function=str(rng.choice(["gelu", "gelu", "relu", "silu", "gelu_new"])),
        tie_word_embeddings=bool(head != "words" or rng.random() < 0.85),
        dropout=0.0,
        extra={"id2label": {str(i): f"label {i}" for i in range(labels)}, "problem_type": problem}
        if head == "label"
        else {},
    )
    call = _draw_documents(rng, config, batch, length)
    smoothing = 0.0
    if head == "words":
        call["labels"] = rng.integers(0, config.vocab_size, (batch, target))
        call["labels"][rng.random((batch, target)) < 0.25] = -100
        call["labels"][0, rng.integers(target)] = 3  # one word counts, at least
        smoothing = float(rng.choice([0.0, 0.1, 0.3]))
    elif head == "span":
        for name in ("start_positions", "end_positions"):
            call[name] = rng.integers(0, length + 2, batch)
            call[name][0] = length - 1
    else:
        call["labels"] = _draw_labels(rng, problem, batch, labels)
    return Case(head, config, _draw_weights(rng, config, seed, head, labels), call, smoothing)


def _draw_documents(rng: np.random.Generator, config: LEDConfig, batch: int, length: int) -> Arrays:
    ids = rng.integers(3, config.vocab_size, (batch, length))
    ids[rng.random(ids.shape) < 0.05] = config.pad_token_id  # pad ids that are read, too
    mask, marks = np.ones_like(ids), np.zeros_like(ids)
    for b in range(batch):
        if rng.random() < 0.6:
            stop = int(rng.integers(1, length + 1))
            mask[b, stop:] = 0
            ids[b, stop:] = config.pad_token_id
        if rng.random() < 0.2:  # holes
            mask[b, 1:] &= rng.random(length - 1) < 0.7
        kind = str(rng.choice(["none", "first", "some", "all"]))
        marks[b] = {"none": 0, "first": np.arange(length) == 0, "some": rng.random(length) < 0.3, "all": 1}[kind]
    ids[np.arange(batch), rng.integers(0, length, batch)] = config.eos_token_id  # one in each row
    return {"input_ids": ids, "attention_mask": mask, "global_attention_mask": marks & mask}


def _draw_labels(rng: np.random.Generator, problem: str | None, batch: int, labels: int) -> np.ndarray:
    if problem == "regression" or (problem is None and labels == 1):
        return rng.normal(size=(batch, labels))
    if problem == "multi_label_classification":
        return (rng.random((batch, labels)) < 0.5).astype(np.float64)
    drawn = rng.integers(0, labels, batch)
    drawn[1:][rng.random(batch - 1) < 0.3] = -100
    return drawn


def _draw_weights(rng: np.random.Generator, config: LEDConfig, seed: int, head: str, labels: int) -> Arrays:
    weights, d = draw_weights(config, seed), config.d_model
    shapes: dict[str, tuple[int, ...]] = {}
    if head == "words":
        if not config.tie_word_embeddings:
            shapes = {"lm_head.weight": (config.vocab_size, d)}
    else:
        del weights["final_logits_bias"]
    if head == "span":
        shapes = {"qa_outputs.weight": (2, d), "qa_outputs.bias": (2,)}
    if head == "label":
        shapes = {f"classification_head.{key}": shape for key, shape in {
            "dense.weight": (d, d), "dense.bias": (d,), "out_proj.weight": (labels, d), "out_proj.bias": (labels,),
        }.items()}  # fmt: skip
    return weights | {key: rng.normal(size=shape) / math.sqrt(shape[-1]) for key, shape in shapes.items()}


# ---- transformers --------------------------------------------------------------------------------------------------------


def their_gradients(case: Case, dropout: Dropout | None = None) -> tuple[float, Arrays]:
    """The loss and the gradient of every parameter by torch's autograd, by checkpoint key; zeros where it has none."""
    import torch

    torch.manual_seed(0)
    model = _their_model(case, dropout)
    batch = {key: torch.from_numpy(value) for key, value in case.batch.items()}
    with ExitStack() as stack:
        softmax = torch.nn.functional.softmax
        stack.enter_context(mock.patch("torch.nn.functional.softmax", lambda x, dim, dtype=None: softmax(x, dim=dim)))
        if dropout is not None:
            stack.enter_context(same_masks(case, dropout))
        loss = _their_loss(case, model, batch)
    loss.backward()
    gradients = {
        name: np.zeros(tuple(p.shape)) if p.grad is None else p.grad.numpy() for name, p in model.named_parameters()
    }
    return loss.item(), gradients


def _their_model(case: Case, dropout: Dropout | None) -> Any:
    import torch
    import transformers
    from transformers.models.led.modeling_led import LEDClassificationHead

    values = {
        key: value for key, value in case.config.to_dict().items() if key not in ("model_type", "id2label", "label2id")
    }
    if dropout is not None:
        values |= dataclasses.asdict(dropout.rates)
    config = transformers.LEDConfig(**values)
    if case.head == "label":  # transformers 5 has no such class, but its head
        model = torch.nn.Module()
        model.led = transformers.LEDModel(config)
        labels = len(case.weights["classification_head.out_proj.bias"])
        rate = dropout.rates.classifier_dropout if dropout else 0.0
        model.classification_head = LEDClassificationHead(config.d_model, config.d_model, labels, rate)
    else:
        model = getattr(transformers, CLASSES[case.head].__name__)(config)
    model = model.double().train()
    for side in (model.led.encoder, model.led.decoder):  # untied, transformers has three tables; a checkpoint has one
        side.embed_tokens.weight = model.led.shared.weight
    state = {key: torch.from_numpy(value) for key, value in case.weights.items()}
    for side in ("encoder", "decoder"):
        state[f"led.{side}.embed_tokens.weight"] = state["led.shared.weight"]
    if case.head == "words":
        state.setdefault("lm_head.weight", state["led.shared.weight"])
    model.load_state_dict(state)
    return model


def _their_loss(case: Case, model: Any, batch: dict[str, Any]) -> Any:
    from torch.nn import functional

    if case.head == "span":
        return model(**batch, use_cache=False).loss
    labels = batch.pop("labels")
    if case.head == "words":
        logits = model(**batch, labels=labels, use_cache=False).logits.flatten(0, 1)
        return functional.cross_entropy(logits, labels.flatten(), label_smoothing=case.smoothing)
    ids = batch["input_ids"]
    start = ids.new_full((len(ids), 1), case.config.decoder_start_token_id)
    read = {**batch, "decoder_input_ids": start.new_tensor(np.concatenate([start, ids[:, :-1]], axis=1))}
    states = model.led(**read, use_cache=False).last_hidden_state
    last = [int((row == case.config.eos_token_id).nonzero().max()) for row in ids]
    logits = model.classification_head(states[range(len(ids)), last])
    if labels.dtype.is_floating_point:
        is_regression = case.config.extra["problem_type"] in (None, "regression")
        kind = functional.mse_loss if is_regression else functional.binary_cross_entropy_with_logits
        return kind(logits, labels)
    return functional.cross_entropy(logits, labels)


# ---- dropout: our masks for their calls, in the order in which their modules make them -----------------------------------


@contextmanager
def same_masks(case: Case, dropout: Dropout) -> Iterator[None]:
    """Meanwhile torch's dropout multiplies by our masks, and its draws of layerdrop leave out the layers that ours do."""
    import torch

    masks = _masks_in_order(case, dropout)

    def drop(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        assert training
        site, mask = next(masks)
        mask = mask.reshape(x.shape) if mask.size == x.numel() else _filled_up(mask, x.shape)
        assert (p > 0) == (mask != 1).any() or mask.size < 100, site
        return x * torch.from_numpy(mask)

    skipped = iter(
        [
            dropout.skips(side, i)
            for side in ("encoder", "decoder")
            for i in range(getattr(case.config, f"{side}_layers"))
        ]
    )
    with (
        mock.patch("torch.nn.functional.dropout", drop),
        mock.patch("torch.rand", side_effect=[torch.tensor(0.0 if skips else 1.0) for skips in skipped]),
    ):
        yield
    assert next(masks, None) is None


def _filled_up(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Ones for the positions with which transformers pads a document to a multiple of the window."""
    whole = np.ones(shape)
    whole[tuple(slice(size) for size in mask.shape)] = mask
    return whole


def _masks_in_order(case: Case, dropout: Dropout) -> Iterator[tuple[str, np.ndarray]]:
    config, marks = case.config, case.batch["global_attention_mask"]
    batch, length = marks.shape
    target = case.batch["labels"].shape[1] if case.head == "words" else length
    h_encoder, h_decoder = config.encoder_attention_heads, config.decoder_attention_heads
    globals_ = [row.nonzero()[0] for row in marks]
    most = max(map(len, globals_))

    def hidden(name: str, positions: int, width: int, draw: str = "hidden") -> tuple[str, np.ndarray]:
        return name, getattr(dropout, draw)(name).drop(np.ones((batch, positions, width)), NUMPY)

    def pairs(name: str, heads: int, queries: int, keys: int) -> tuple[str, np.ndarray]:
        """(B, H, Q, S)."""
        site = dropout.attention(name)
        tiles = [Tile(b, slice(0, heads), np.arange(queries), np.arange(keys)) for b in range(batch)]
        return name, np.stack([site.drop_probs(np.ones((heads, queries, keys)), tile, NUMPY) for tile in tiles])

    def local(name: str, radius: int) -> tuple[str, np.ndarray]:
        """transformers' layout: (B, T, H, G + 2R + 1), columns of global tokens first, a token's own at G + R."""
        site, of_pairs = pairs(name, h_encoder, length, length)
        mask = np.ones((batch, length, h_encoder, most + 2 * radius + 1))
        for b in range(batch):
            mask[b, :, :, : len(globals_[b])] = of_pairs[b][:, :, globals_[b]].swapaxes(0, 1)
            for i in range(length):
                low, high = max(0, i - radius), min(length, i + radius + 1)
                mask[b, i, :, most + radius + low - i : most + radius + high - i] = of_pairs[b, :, i, low:high]
        return site, mask

    def of_globals(name: str) -> tuple[str, np.ndarray]:
        """(B * H, G, T)."""
        site, of_pairs = pairs(name, h_encoder, length, length)
        mask = np.ones((batch, h_encoder, most, length))
        for b in range(batch):
            mask[b, :, : len(globals_[b])] = of_pairs[b][:, globals_[b]]
        return site, mask.reshape(batch * h_encoder, most, length)

    yield hidden("led.encoder.layernorm_embedding", length, config.d_model)
    for i, radius in enumerate(config.radii):
        if dropout.skips("encoder", i):
            continue
        layer = f"led.encoder.layers.{i}"
        yield local(f"{layer}.self_attn.probs", radius)
        if most:
            yield of_globals(f"{layer}.self_attn.global_probs")
        yield hidden(f"{layer}.self_attn.output", length, config.d_model)
        yield hidden(f"{layer}.fc1", length, config.encoder_ffn_dim, "activation")
        yield hidden(f"{layer}.fc2", length, config.d_model)
    yield hidden("led.decoder.layernorm_embedding", target, config.d_model)
    for i in range(config.decoder_layers):
        if dropout.skips("decoder", i):
            continue
        layer = f"led.decoder.layers.{i}"
        yield pairs(f"{layer}.self_attn.probs", h_decoder, target, target)
        yield hidden(f"{layer}.self_attn.out_proj", target, config.d_model)
        yield pairs(f"{layer}.encoder_attn.probs", h_decoder, target, length)
        yield hidden(f"{layer}.encoder_attn.out_proj", target, config.d_model)
        yield hidden(f"{layer}.fc1", target, config.decoder_ffn_dim, "activation")
        yield hidden(f"{layer}.fc2", target, config.d_model)
    if case.head == "label":
        for module in ("dense", "out_proj"):
            yield hidden(f"classification_head.{module}", 1, config.d_model, "classifier")
