"""Hooks: every intermediate of a run is recorded without one line in the arithmetic.

The model computes with a backend. To record, it is handed a backend that does the same and also hands each result to a
`Recorder` (intermediates.py), as forward hooks do in PyTorch. A weight has a name in the checkpoint, and so has an operation
on it:

    backend.linear(x, fc1.weight, fc1.bias)     recorded as layers.0.fc1.output
    backend.layer_norm(x, ...)                  recorded as layers.0.final_layer_norm.input and .output

So there is one forward pass, and it is the one that is read in encoder.py and decoder.py. Scores and probabilities of a
document exist in tiles only; they are computed again as one array, an attention map (attention_maps.py), where wanted.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, cast

from led_backends.contract import Array, Backend, HostArray, Weight
from led_ref.model.attention import split_queries
from led_ref.model.attention_maps import attention_map, own_positions, rows_of, stacked, window_maps
from led_ref.model.decoder import DecoderMasks
from led_ref.model.intermediates import Recorder
from led_ref.model.kv_cache import DecoderCache, LayerCache
from led_ref.model.masks import EncoderMasks
from led_ref.model.ops import by_heads, scale_and_split
from led_ref.model.params import DecoderParams, EncoderParams, LayerNorm, Linear

# The cache before a call of the decoder, and the call's masks: the hooks show each row of the decoder by itself.
Attended: TypeAlias = tuple[DecoderCache, DecoderMasks]


def recording_encoder(
    backend: Backend,
    params: EncoderParams,
    heads: int,
    recorder: Recorder,
    masks: Sequence[EncoderMasks],
) -> Backend:
    """A backend that computes the encoder as `backend` does and records it.

    Args:
        backend: where to compute.
        params: the encoder's weights, whose names the intermediates get.
        heads: H.
        recorder: at `led.encoder`.
        masks: each layer's (masks.encoder_masks).
    """
    return cast(Backend, _EncoderHooks(backend, params, heads, recorder, masks))


def recording_decoder(
    backend: Backend,
    params: DecoderParams,
    heads: int,
    recorder: Recorder,
    attended: Attended | None = None,
) -> Backend:
    """The same for the decoder, and for the keys and values of the document (decoder.source_memory).

    Args:
        backend: where to compute.
        params: the decoder's weights.
        heads: H.
        recorder: at `led.decoder`.
        attended: the cache before this call, and the masks; None in source_memory, where nothing attends yet.
    """
    return cast(Backend, _DecoderHooks(backend, params, heads, recorder, attended))


class _Hooks:
    """A backend that records what modules of weights give. All else is the inner backend's."""

    def __init__(self, backend: Backend, params: EncoderParams | DecoderParams, heads: int, recorder: Recorder) -> None:
        self.inner = backend
        self.heads = heads
        self.recorder = recorder
        self.params = params
        self.layer = 0
        self._modules = [_modules(layer) for layer in params.layers]
        self._embedding_norm = params.layernorm_embedding
        self._here = threading.local()  # the block of rows that this thread computes
        self._blocks: dict[str, dict[int, Array]] = {}
        self._shape: tuple[int, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def module(self, weight: Weight, bias: Array) -> str:
        """The name of the module of the present layer with these weights; "" if it has none."""
        if self.layer >= len(self._modules):
            return ""
        return self._modules[self.layer].get((id(weight), id(bias)), "")

    def record(self, name: str, value: Array) -> None:
        """Record an intermediate of the present layer."""
        self.recorder(f"layers.{self.layer}.{name}", value)

    def wants(self, *names: str) -> bool:
        """Whether one of these intermediates of the present layer is to be recorded."""
        return any(self.recorder.wants(f"layers.{self.layer}.{name}") for name in names)

    # ---- LayerNorm: input and output; the embedding's, and at the end of a layer the next one begins ----

    def layer_norm(self, x: Array, weight: Array, bias: Array, update: Array | None = None) -> Array:
        is_embedding = weight is self._embedding_norm.weight
        name = "layernorm_embedding" if is_embedding else f"layers.{self.layer}.{self.module(weight, bias)}"
        if is_embedding and update is not None:
            self.recorder("embed_positions.output", update)
        if self.recorder.wants(f"{name}.input"):
            self.recorder(f"{name}.input", x if update is None else x + update)
        y = self.inner.layer_norm(x, weight, bias, update)
        self.recorder(f"{name}.output", y)
        self._shape = y.shape
        if name.endswith("final_layer_norm"):
            self.layer += 1
        return y

    # ---- the feed-forward: blocks of rows, put together again ----

    def for_each_block(self, work: Callable[[slice], None], rows: int) -> None:
        self._blocks = {name: {} for name in ("fc1.output", "activation_fn.output", "fc2.output") if self.wants(name)}

        def in_block(block: slice) -> None:
            self._here.start = block.start
            work(block)

        self.inner.for_each_block(in_block, rows)
        for name, blocks in self._blocks.items():
            whole_XF = self.inner.xp.concatenate([blocks[start] for start in sorted(blocks)])
            self.record(name, whole_XF.reshape(*self._shape[:-1], whole_XF.shape[-1]))

    def keep_blocks(self, module: str, x_XF: Array, y_XF: Array) -> None:
        """Keep copies of what this thread computed of its block; what fc2 reads is what the activation gave."""
        shown = {f"{module}.output": y_XF} | ({"activation_fn.output": x_XF} if module == "fc2" else {})
        for name, value_XF in shown.items():
            if name in self._blocks:
                self._blocks[name][self._here.start] = value_XF.copy()


class _EncoderHooks(_Hooks):
    """Records an encoder layer: projections, attention maps, the rows of global tokens."""

    def __init__(
        self,
        backend: Backend,
        params: EncoderParams,
        heads: int,
        recorder: Recorder,
        masks: Sequence[EncoderMasks],
    ) -> None:
        super().__init__(backend, params, heads, recorder)
        self.layers = params.layers
        self.masks = masks
        self.x_BTD: Array | None = None  # the layer's input
        self.q_BHTK: Array | None = None
        self.k_BHTK: Array | None = None
        self.global_rows: list[_GlobalRows] = []  # of the layer, document by document

    def linear(self, x: Array, weight: Weight, bias: Array) -> Array:
        name = self.module(weight, bias)
        if name == "output":
            self.record(f"{_ATTENTION}.output", x)
        y = self.inner.linear(x, weight, bias)
        if name in ("fc1", "fc2"):
            self.keep_blocks(name, x, y)
        elif (
            x.ndim == 2
        ):  # global_attention.py: one document; its queries first, then, if it does not fold, keys and values
            if not self.global_rows or self.global_rows[-1].probs_HGT is not None:
                self.global_rows.append(_GlobalRows(y.copy()))
        elif name == "output":
            self.record("self_attn.output.output", y)
        elif name in ("query", "key", "value"):
            self._record_projection(name, x, y)
        return y

    def _record_projection(self, name: str, x_BTD: Array, y_BTD: Array) -> None:
        self.record(f"{_ATTENTION}.{name}.output", y_BTD)
        maps = [f"{_ATTENTION}.{role}" for role in (name[0], "scores", "probs")]
        if name == "query":
            self.x_BTD = x_BTD
            self.q_BHTK = scale_and_split(y_BTD.copy(), self.heads, self.inner) if self.wants(*maps) else None
            heads = self.q_BHTK
        else:
            heads = self.inner.split_heads(y_BTD, self.heads) if self.wants(*maps) else None
        if name == "key":
            self.k_BHTK = heads
        if heads is not None:
            self.record(f"{_ATTENTION}.{name[0]}", heads)

    def for_each_tile(self, tile: Callable[[slice], None], heads: int) -> None:
        if self.q_BHTK is not None and self.k_BHTK is not None:  # once a layer, of all documents together
            q_BHTK, k_BHTK, masks = self.q_BHTK, self.k_BHTK, self.masks[self.layer]
            self.q_BHTK = self.k_BHTK = None
            for role in ("scores", "probs"):
                if self.wants(f"{_ATTENTION}.{role}"):
                    maps_BHTZ = window_maps(q_BHTK, k_BHTK, masks, self.inner, softmaxed=role == "probs")
                    self.record(f"{_ATTENTION}.{role}", maps_BHTZ)
        self.inner.for_each_tile(tile, heads)

    # ---- the rows of global tokens: the arrays of each document as they are computed, recorded when all are there ----

    @property
    def open_rows(self) -> "_GlobalRows | None":
        """The document whose global rows are being computed, if any."""
        return self.global_rows[-1] if self.global_rows and self.global_rows[-1].probs_HGT is None else None

    def split_heads(self, x_BTD: Array, heads: int, queries: int = 0) -> Array:
        x_BHTK = self.inner.split_heads(x_BTD, heads, queries)
        if (rows := self.open_rows) is not None:
            if rows.q_HGK is None:
                rows.q_HGK = x_BHTK[0]
            elif rows.k_HTK is None:
                rows.k_HTK = x_BHTK[0]
        return x_BHTK

    def softmax(self, scores: Array) -> Array:
        rows = self.open_rows
        if rows is None:
            return self.inner.softmax(scores)
        rows.scores_HGT = scores.copy()
        rows.probs_HGT = self.inner.softmax(scores)
        self._record_global_rows()
        return rows.probs_HGT

    def attend(self, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, may_look_BQS: Array | None) -> Array:
        if (rows := self.open_rows) is not None:
            rows.scores_HGT = q_BHQK[0] @ k_BHSK[0].swapaxes(-1, -2)
            if may_look_BQS is not None:
                self.inner.hide(rows.scores_HGT, may_look_BQS[0])
            rows.probs_HGT = self.inner.softmax(rows.scores_HGT.copy())
            self._record_global_rows()
        return self.inner.attend(q_BHQK, k_BHSK, v_BHSK, may_look_BQS)

    def _record_global_rows(self) -> None:
        """Record them as arrays of the batch, once the last document that has global tokens is computed."""
        documents, params = self.masks[self.layer].documents, self.layers[self.layer]
        with_globals = [b for b, mask in enumerate(documents) if len(mask.global_positions_G)]
        if len(self.global_rows) < len(with_globals):
            return
        assert self.x_BTD is not None
        for name in ("key_global", "value_global"):  # to be shown: few global tokens do without them
            if self.wants(f"{_ATTENTION}.{name}.output"):
                projection = getattr(params, name)
                y_BTD = self.inner.linear(self.x_BTD, projection.weight, projection.bias)
                self.record(f"{_ATTENTION}.{name}.output", y_BTD)
        of_documents = dict(zip(with_globals, self.global_rows, strict=True))
        self.global_rows = []
        # Where a document has fewer global tokens: scores of nothing, and queries that zeros project to.
        fillers = {"query_global.output": params.query_global.bias, "global_scores": -self.inner.xp.inf}
        for role in ("query_global.output", "global_q", "global_scores", "global_probs"):
            if self.wants(f"{_ATTENTION}.{role}"):
                parts = {b: rows.shown(role, params.key_global.bias) for b, rows in of_documents.items()}
                filler = fillers.get(role, 0.0)
                self.record(f"{_ATTENTION}.{role}", stacked(parts, len(documents), filler, self.inner))


@dataclass
class _GlobalRows:
    """The arrays of one document's global attention, in the order in which they are computed."""

    query_GD: Array
    q_HGK: Array | None = None
    k_HTK: Array | None = None  # None: folded
    scores_HGT: Array | None = None
    probs_HGT: Array | None = None

    def shown(self, role: str, key_bias: Array) -> Array:
        """An intermediate in transformers' layout; scores with q . bk, which folding leaves out: softmax does not see it."""
        assert self.q_HGK is not None
        assert self.scores_HGT is not None
        assert self.probs_HGT is not None
        scores_HGT = self.scores_HGT
        if self.k_HTK is None:
            heads, _, width = self.q_HGK.shape
            scores_HGT = scores_HGT + self.q_HGK @ key_bias.reshape(heads, width, 1)
        return {
            "query_global.output": self.query_GD,
            "global_q": self.q_HGK,
            "global_scores": scores_HGT.swapaxes(-1, -2),
            "global_probs": self.probs_HGT.swapaxes(-1, -2),
        }[role]


_ATTENTION = "self_attn.longformer_self_attn"


class _DecoderHooks(_Hooks):
    """Records a decoder layer: both attentions, row by row."""

    def __init__(
        self,
        backend: Backend,
        params: DecoderParams,
        heads: int,
        recorder: Recorder,
        attended: Attended | None,
    ) -> None:
        super().__init__(backend, params, heads, recorder)
        self._attended = attended
        self.q_NUD: Array | None = None  # of self-attention, before the scale

    @property
    def memory(self) -> LayerCache:
        """The present layer's cache before this call."""
        assert self._attended is not None
        return self._attended[0].layers[self.layer]

    @property
    def masks(self) -> DecoderMasks:
        """The masks of this call."""
        assert self._attended is not None
        return self._attended[1]

    def linears(self, x: Array, maps: Sequence[tuple[Weight, Array]]) -> list[Array]:
        q_NUD, k_NUD, v_NUD = self.inner.linears(x, maps)
        self.record("self_attn.k_proj.output", k_NUD)
        self.record("self_attn.v_proj.output", v_NUD)
        self.q_NUD = q_NUD.copy()
        return [q_NUD, k_NUD, v_NUD]

    def attend(self, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, may_look_BQS: Array | None) -> Array:
        if self.q_NUD is not None:  # else it is cross-attention, recorded with its queries
            slots_NS = self.masks.slots_NS
            for role, array_BHEK in (("k", k_BHSK), ("v", v_BHSK)):
                if self.wants(f"self_attn.{role}"):
                    self.record(f"self_attn.{role}", own_positions(array_BHEK, slots_NS, self.inner))
            self.record("self_attn.q_proj.output", self.q_NUD)
            self.q_NUD = None
            self._record_maps("self_attn", q_BHQK, k_BHSK, may_look_BQS, slots_NS)
        return self.inner.attend(q_BHQK, k_BHSK, v_BHSK, may_look_BQS)

    def linear(self, x: Array, weight: Weight, bias: Array) -> Array:
        name = self.module(weight, bias)
        if name.endswith("out_proj"):
            self.record(f"{name}.input", x)
        y = self.inner.linear(x, weight, bias)
        if name in ("fc1", "fc2"):
            self.keep_blocks(name, x, y)
        elif name:
            self.record(f"{name}.output", y)
        if name in ("encoder_attn.k_proj", "encoder_attn.v_proj"):  # decoder.source_memory: once for a document
            self.record(f"encoder_attn.{name.split('.')[1][0]}", by_heads(y, self.heads))
            self.layer += name.endswith("v_proj")
            self.layer %= len(self._modules)
        if name == "encoder_attn.q_proj" and self.wants(*(f"encoder_attn.{role}" for role in ("q", "scores", "probs"))):
            q_BHQK = split_queries(y.copy(), self.memory.documents, self.heads, self.inner)
            self._record_maps("encoder_attn", q_BHQK, self._document_keys(), self.masks.source_B1T, None)
        return y

    def _document_keys(self) -> Array:
        """Keys of the documents; where cross-attention is folded there are none, and they are projected here."""
        memory = self.memory
        if memory.cross_k_BHTK is not None:
            return memory.cross_k_BHTK
        assert memory.states_BTD is not None
        key = cast(DecoderParams, self.params).layers[self.layer].encoder_attn.k_proj
        return self.inner.split_heads(self.inner.linear(memory.states_BTD, key.weight, key.bias), self.heads)

    def _record_maps(
        self, attention: str, q_BHQK: Array, k_BHSK: Array, may_look_BQS: Array | None, slots_NS: HostArray | None
    ) -> None:
        rows = len(self.masks.slots_NS)
        if self.wants(f"{attention}.q"):
            self.record(f"{attention}.q", rows_of(q_BHQK, rows, self.inner))
        if self.wants(f"{attention}.scores", f"{attention}.probs"):
            scores_NHUS = attention_map(q_BHQK, k_BHSK, may_look_BQS, rows, slots_NS, self.inner)
            self.record(f"{attention}.scores", scores_NHUS)
            if self.wants(f"{attention}.probs"):
                self.record(f"{attention}.probs", self.inner.softmax(scores_NHUS.copy()))


def _modules(params: Any) -> Mapping[tuple[int, int], str]:
    """The names of a layer's modules by the identity of their weights: `fc1`, `encoder_attn.q_proj`."""
    names: dict[tuple[int, int], str] = {}
    for field in fields(params):
        value = getattr(params, field.name)
        if isinstance(value, Linear | LayerNorm):
            names[id(value.weight), id(value.bias)] = field.name
        elif hasattr(value, "q_proj"):
            names |= {key: f"{field.name}.{name}" for key, name in _modules(value).items()}
    return names
