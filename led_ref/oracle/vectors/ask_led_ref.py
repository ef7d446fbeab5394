"""Compute led_ref's answers to the conformance vectors, each operation with the function of the model itself.

Any LEDError is a refusal; another exception is a failure, as for any other program.
"""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.config import LEDConfig
from led_ref.errors import InputError, LEDError
from led_ref.generation.search import search
from led_ref.generation.settings.resolve import look_up
from led_ref.model.decoder import cross_attention, decoder_layer, decoder_masks, self_attention, source_memory
from led_ref.model.encoder import encoder_layer, longformer_self_attention
from led_ref.model.kv_cache import CachePlan
from led_ref.model.losses import cross_entropy, shift_tokens_right
from led_ref.model.masks import document_masks, encoder_masks, window_blocks
from led_ref.model.ops import add_positions, embed_tokens, linear
from led_ref.model.params import LayerNorm
from led_ref.model.sliding_window import sliding_window_attention
from led_ref.oracle.vectors.ask_gradients import GRADIENT_OPERATIONS
from led_ref.oracle.vectors.format import CONFIG_CHANGES, Answer, Array, Case, Suite, Tensors
from led_ref.tokenizer import LEDTokenizer
from led_ref.tokenizer.files import read_vocab_and_merges

BUNDLED = Path(__file__).parents[2] / "bundled"
MOST_POSITIONS = 1024  # of the searches without a model
BACKEND_INPUTS = {
    **dict.fromkeys(("linear", "layer_norm"), ("x", "weight", "bias")),
    **dict.fromkeys(("gelu", "relu", "silu", "gelu_new"), ("x",)),
}


class LedRef:
    """Answers the cases of a suite.

    Args:
        suite: the cases and the models' weights.
        dtype: "float32" or "float64"; InputError for another.
        checkpoints: model name -> folder, for models that are not among the files.
        threads: of the CPU; no bit of an answer depends on them.
    """

    def __init__(
        self,
        suite: Suite,
        dtype: str = "float64",
        checkpoints: Mapping[str, str | Path] | None = None,
        *,
        threads: int = 1,
    ) -> None:
        if dtype not in ("float32", "float64"):
            raise InputError(f"dtype is {dtype!r}; led_ref computes in float32 or float64.")
        self.suite = suite
        self.dtype = np.dtype(dtype)
        self.checkpoints: dict[str, str | Path] = {"bundled": BUNDLED, **(checkpoints or {})}
        self.backend = NumpyBackend(threads=threads)

    def answer(self, case: Case) -> Answer:
        """led_ref's answer to a case; an exception becomes a refusal or a failure."""
        if case.needs is not None and case.model not in self.checkpoints:
            return Answer(unsupported=f"needs the checkpoint {case.needs}: name its folder with --checkpoint")
        operation = self.operation(case.operation)
        if operation is None:
            return Answer(unsupported=f"led_ref has no operation {case.operation!r}")
        try:
            return Answer(outputs={name: np.asarray(array) for name, array in operation(case).items()})
        except LEDError as error:
            return Answer(refused=str(error))
        except Exception as error:
            return Answer(failed=f"{type(error).__name__}: {error}")

    def operation(self, name: str) -> Callable[[Case], Tensors] | None:
        """The function that computes an operation of the vectors; None: led_ref does not have it."""
        if name in GRADIENT_OPERATIONS:
            return functools.partial(GRADIENT_OPERATIONS[name], self)
        compute: Callable[[Case], Tensors] | None = getattr(self, f"_{name}", None)
        return compute

    # ---- inputs, models, tokenizers ---------------------------------------------------------------------------------

    def floats(self, case: Case, name: str) -> Array:
        """An input in the dtype of the computation; a copy, because some operations overwrite their inputs."""
        return case.inputs[name].astype(self.dtype)

    def model(self, case: Case) -> LEDForConditionalGeneration:
        """The case's model, loaded once."""
        assert case.model is not None
        changes = {name: case.arguments[name] for name in CONFIG_CHANGES if name in case.arguments}
        return self._loaded(case.model, json.dumps(changes))

    @functools.cache  # noqa: B019 - a suite has few models
    def _loaded(self, name: str, changes: str) -> LEDForConditionalGeneration:
        if name in self.checkpoints:
            return LEDForConditionalGeneration.from_pretrained(
                self.checkpoints[name], dtype=self.dtype.name, backend=self.backend
            )
        values = {**self.suite.index["models"][name]["config"], **json.loads(changes)}
        return LEDForConditionalGeneration.from_state_dict(
            LEDConfig.from_dict(values), self.suite.weights(name), dtype=self.dtype.name, backend=self.backend
        )

    @functools.cache  # noqa: B019
    def _tokenizer(self, name: str) -> LEDTokenizer:
        folder = self.suite.folder if name == "tokenizer" else self.checkpoints[name]
        vocab, merges, _ = read_vocab_and_merges(Path(folder))
        return LEDTokenizer(vocab, merges)

    # ---- L0 -----------------------------------------------------------------------------------------------------------

    def _tokenize(self, case: Case) -> Tensors:
        text, pair = case.arguments["text"], case.arguments.get("pair")
        specials = case.arguments.get("add_special_tokens", True)
        ids = self._tokenizer(str(case.model)).encode(text, pair, add_special_tokens=specials)
        return {"ids": np.array(ids, np.int64)}

    def _detokenize(self, case: Case) -> Tensors:
        skip = case.arguments["skip_special_tokens"]
        text = self._tokenizer(str(case.model)).decode(case.inputs["ids"].tolist(), skip_special_tokens=skip)
        return {"text": np.frombuffer(text.encode("utf-8"), np.uint8)}

    def _tokenize_batch(self, case: Case) -> Tensors:
        settings = {"padding": True, **case.arguments}
        batch = self._tokenizer(str(case.model))(settings.pop("texts"), **settings)
        return {name: np.array(rows) for name, rows in batch.items()}

    def _pad(self, case: Case) -> Tensors:
        batch = self._tokenizer(str(case.model)).pad(dict(case.arguments))
        return {name: np.array(rows) for name, rows in batch.items()}

    # ---- L1 -----------------------------------------------------------------------------------------------------------

    def _of_backend(self, case: Case) -> Tensors:
        inputs = [self.floats(case, name) for name in BACKEND_INPUTS[case.operation]]
        return {"y": getattr(self.backend, case.operation)(*inputs)}

    _linear = _layer_norm = _gelu = _relu = _silu = _gelu_new = _of_backend

    def _softmax(self, case: Case) -> Tensors:
        scores = self.floats(case, "scores")
        self.backend.hide(scores, case.inputs["may_look"] == 1)
        return {"y": self.backend.softmax(scores)}

    def _embed(self, case: Case) -> Tensors:
        x_1TD = embed_tokens(case.inputs["ids"][None], self.floats(case, "table"), self.backend)
        norm = LayerNorm(self.floats(case, "weight"), self.floats(case, "bias"))
        return {"y": add_positions(x_1TD, self.floats(case, "positions"), norm, self.backend)[0]}

    def _shift(self, case: Case) -> Tensors:
        start, pad = case.arguments["decoder_start_token_id"], case.arguments["pad_token_id"]
        return {"decoder_input_ids": shift_tokens_right(case.inputs["labels"], start, pad)}

    # ---- L2 -----------------------------------------------------------------------------------------------------------

    def _window(self, case: Case) -> Tensors:
        q_HTK, k_HTK, v_HTK = (self.floats(case, name) for name in "qkv")
        q_HTK *= self.dtype.type(q_HTK.shape[-1] ** -0.5)
        (mask,) = document_masks(case.inputs["attention_mask"][None], case.inputs["global_attention_mask"][None])
        blocks = window_blocks(mask, case.arguments["radius"], self.backend)
        return {"out": sliding_window_attention(q_HTK, k_HTK, v_HTK, mask, blocks, self.backend)}

    def _full(self, case: Case) -> Tensors:
        q_HUK, k_HSK, v_HSK = (self.floats(case, name) for name in "qkv")
        q_HUK *= self.dtype.type(q_HUK.shape[-1] ** -0.5)
        out_1HUK = self.backend.attend(q_HUK[None], k_HSK[None], v_HSK[None], case.inputs["may_look"][None] == 1)
        return {"out": out_1HUK[0].swapaxes(0, 1).reshape(q_HUK.shape[1], -1)}

    def _encoder_attention(self, case: Case) -> Tensors:
        params, heads, masks = self._encoder_parts(case)
        out = longformer_self_attention(self.floats(case, "x"), params, heads, masks, self.backend)
        return {"y": linear(out, params.output, self.backend)}

    def _encoder_parts(self, case: Case) -> tuple[Any, ...]:
        """A layer's parameters, its heads, and its masks."""
        model, layer = self.model(case), case.arguments["layer"]
        length = case.inputs["x"].shape[:2]
        seen = case.inputs.get("attention_mask", np.ones(length, np.int64))
        documents = document_masks(seen, case.inputs.get("global_attention_mask"))
        (masks,) = encoder_masks(documents, model.config.radii[layer : layer + 1], self.backend)
        return model.params.encoder.layers[layer], model.config.encoder_attention_heads, masks

    def _decoder_attention(self, case: Case) -> Tensors:
        x_BUD, memory, params, *rest = self._decoder_parts(case, "x")  # the cross-attention's memory is unused
        return {"y": self_attention(x_BUD, memory, params.self_attn, *rest)[0]}

    def _cross_attention(self, case: Case) -> Tensors:
        x_BUD, memory, params, *rest = self._decoder_parts(case, "states")
        return {"y": cross_attention(x_BUD, memory, params.encoder_attn, *rest)}

    def _decoder_parts(self, case: Case, read: str) -> tuple[Any, ...]:
        """x, a layer's memory of the input `read`, its parameters, its heads, the masks, and the backend."""
        model, x_BUD = self.model(case), self.floats(case, "x")
        heads, layer = model.config.decoder_attention_heads, case.arguments["layer"]
        cache = source_memory(self.floats(case, read), model.params.decoder, heads, CachePlan(len(x_BUD)), self.backend)
        seen = case.inputs.get("decoder_attention_mask"), case.inputs.get("attention_mask")
        masks = decoder_masks(x_BUD.shape[1], cache, *seen, self.backend)
        return x_BUD, cache.layers[layer], model.params.decoder.layers[layer], heads, masks, self.backend

    # ---- L3 -----------------------------------------------------------------------------------------------------------

    def _encoder_layer(self, case: Case) -> Tensors:
        params, heads, masks = self._encoder_parts(case)
        return {"y": encoder_layer(self.floats(case, "x"), params, heads, masks, self.backend)}

    def _decoder_layer(self, case: Case) -> Tensors:
        return {"y": decoder_layer(*self._decoder_parts(case, "states"))[0]}

    def _encoder(self, case: Case) -> Tensors:
        out = self.model(case).encoder(**self._source(case), output_hidden_states=True)
        return _numbered(hidden_states=out.hidden_states)

    def _encoder_attentions(self, case: Case) -> Tensors:
        out = self.model(case).encoder(**self._source(case), output_attentions=True)
        return _numbered(attentions=out.attentions, global_attentions=out.global_attentions)

    def _source(self, case: Case) -> dict[str, Any]:
        names = ("input_ids", "inputs_embeds", "attention_mask", "global_attention_mask")
        return {name: case.inputs[name] for name in names if name in case.inputs}

    def _decoder(self, case: Case) -> Tensors:
        given: dict[str, Any] = {name: array for name, array in case.inputs.items() if name != "states"}
        out = self.model(case)(encoder_outputs=self.floats(case, "states"), output_hidden_states=True, **given)
        return _numbered(hidden_states=out.decoder_hidden_states)

    # ---- L4 to L7; L8 is in ask_gradients.py ----------------------------------------------------------------------------

    def _loss(self, case: Case) -> Tensors:
        return {"loss": cross_entropy(self.floats(case, "logits"), case.inputs["labels"], self.backend)}

    def _forward(self, case: Case) -> Tensors:
        given: dict[str, Any] = dict(case.inputs)
        out = self.model(case)(**given)
        return {"logits": out.logits} if out.loss is None else {"logits": out.logits, "loss": out.loss}

    def _decode_in_parts(self, case: Case) -> Tensors:
        model, arguments = self.model(case), case.arguments
        encoded, ids = model.encoder(**self._source(case)), case.inputs["decoder_input_ids"]
        past, start, logits = None, 0, []
        for part, parents in zip(arguments["parts"], arguments["parents"], strict=True):
            if past is not None and parents is not None:
                past = past.reorder(np.array(parents))
            out = model(
                encoder_outputs=encoded, past_key_values=past,
                attention_mask=case.inputs["attention_mask"], decoder_input_ids=ids[:, start : start + part],
            )  # fmt: skip
            past, start = out.past_key_values, start + part
            logits.append(out.logits)
        return {"logits": np.concatenate(logits, axis=1)}

    def _search(self, case: Case) -> Tensors:
        table_BVV, prompt_BP = self.floats(case, "table"), case.inputs["prompt_ids"]
        settings = look_up(case.arguments["settings"], None, {"decoder_start_token_id": 2}).resolve(
            prompt_length=prompt_BP.shape[1], max_positions=MOST_POSITIONS, vocab_size=table_BVV.shape[-1]
        )

        def step(token_ids: Array, parents: Array | None) -> Array:
            documents = np.arange(len(token_ids)) // settings.num_beams
            return table_BVV[documents, token_ids[:, -1]]

        return _found(search(step, prompt_BP, settings, source_ids=case.inputs["source_ids"]))

    def _generate(self, case: Case) -> Tensors:
        asked: dict[str, Any] = {**case.inputs, **case.arguments["settings"], "return_dict_in_generate": True}
        return _found(self.model(case).generate(**asked))

    def _corner(self, case: Case) -> Tensors:
        arguments, given = case.arguments, dict[str, Any](case.inputs)
        rows, columns = arguments["rows"], arguments["columns"]
        out = self.model(case)(**given, output_hidden_states=True)
        assert out.encoder_last_hidden_state is not None
        assert out.decoder_hidden_states is not None
        return {
            "encoder_last_hidden_state": out.encoder_last_hidden_state[0, arguments["encoder_rows"], :columns],
            "last_hidden_state": out.decoder_hidden_states[-1][0, rows, :columns],
            "logits": out.logits[0, rows, :columns],
        }


def _numbered(**lists: tuple[Array, ...] | None) -> dict[str, Array]:
    """hidden_states=(a, b) -> {"hidden_states_0": a, "hidden_states_1": b}."""
    return {f"{name}_{i}": array for name, arrays in lists.items() for i, array in enumerate(arrays or ())}


def _found(result: Any) -> dict[str, Array]:
    """The outputs of a case from a SearchResult."""
    found = {"sequences": result.sequences}
    if getattr(result, "sequences_scores", None) is not None:  # with beams
        found["sequences_scores"] = result.sequences_scores
    return found
