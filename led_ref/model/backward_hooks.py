"""Hooks of the way back: the gradient of every intermediate is recorded without one line in the backward pass.

As hooks.py does forward: the backward pass is handed a backend that computes the same and also hands each gradient to a
`Recorder`, as tensor hooks do in PyTorch. The gradient of an intermediate has its name and `.grad`:

    backend.linear_backward(dy, x, fc1.weight)          dy is recorded as layers.0.fc1.output.grad
    backend.layer_norm_backward(dy, x, ...)             as layers.0.final_layer_norm.output.grad, and .input.grad

What exists in tiles or blocks only is put together; gradients of attention maps, and of keys and values that are folded away,
are computed again as one array. A hidden score has no gradient, and neither has its probability: both are 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from led_backends.contract import Array, Backend, HostArray, Weight
from led_ref.model.attention import merge_heads
from led_ref.model.attention_maps import stacked, window_maps
from led_ref.model.intermediates import Recorder
from led_ref.model.masks import EncoderMasks, document_masks, encoder_masks
from led_ref.model.ops import by_heads

_ATTENTION = "self_attn.longformer_self_attn"
_PROJECTIONS = ("query", "key", "value")
_GLOBAL_ROLES = (
    "query_global.output",
    "global_q",
    "key_global.output",
    "value_global.output",
    "global_scores",
    "global_probs",
)


def recording_backward(
    backend: Backend,
    names: Mapping[int, str],
    seen: tuple[HostArray, HostArray | None],
    radii: Sequence[int],
    target_length: int,
    recorder: Recorder,
) -> Backend:
    """A backend that computes the backward pass of a batch as `backend` does, and records it.

    Args:
        backend: where to compute.
        names: the module of each weight, by the identity of the array: `led.encoder.layers.0.fc1`.
        seen: attention_mask and global_attention_mask of the batch, (B, T).
        radii: of the encoder's layers.
        target_length: U.
        recorder: of full names.
    """
    masks = encoder_masks(document_masks(*seen), radii, backend)
    return cast(Backend, _BackwardHooks(backend, names, masks, (seen[0].shape[1], target_length), recorder))


@dataclass
class _GlobalRows:
    """The gradients of one document's global rows, as far as they are computed."""

    q_HGK: Array | None = None
    dout_HGK: Array | None = None
    dprobs_HGT: Array | None = None
    dscores_HGT: Array | None = None
    dquery_GD: Array | None = None
    dkey_TD: Array | None = None
    dvalue_TD: Array | None = None

    def shown(self, role: str) -> Any:
        """The gradient of an intermediate, in the layout of hooks.py."""
        assert self.dquery_GD is not None
        assert self.q_HGK is not None
        assert self.dprobs_HGT is not None
        assert self.dscores_HGT is not None
        heads, _, width = self.q_HGK.shape
        return {
            "query_global.output": self.dquery_GD,
            "global_q": by_heads(self.dquery_GD[None], heads)[0] * self.dquery_GD.dtype.type(math.sqrt(width)),
            "key_global.output": self.dkey_TD,
            "value_global.output": self.dvalue_TD,
            "global_scores": self.dscores_HGT.swapaxes(-1, -2),
            "global_probs": self.dprobs_HGT.swapaxes(-1, -2),
        }[role]


class _BackwardHooks:
    """A backend that records gradients. All else is the inner backend's."""

    def __init__(
        self,
        backend: Backend,
        names: Mapping[int, str],
        masks: Sequence[EncoderMasks],
        lengths: tuple[int, int],
        recorder: Recorder,
    ) -> None:
        self.inner = backend
        self.names = names
        self.masks = masks
        self.lengths = dict(zip(("encoder", "decoder"), lengths, strict=True))
        self.recorder = recorder
        self.documents = len(masks[0].documents)
        self._parts: dict[str, list[Array]] = {}  # of an array that comes in blocks or document by document
        self._split: dict[str, Array] = {}  # q, k and v of the present encoder layer
        self._douts: list[Array] = []  # (H, T, K), of each document's window
        self._last = ""  # the module whose map was the last one to be computed
        self._rows: _GlobalRows | None = None  # of the document whose global rows go back now
        self._all_rows: dict[int, _GlobalRows] = {}
        self._goes_back = False  # the encoder layer is computed again, and its attention goes back

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def record(self, name: str, gradient: Array) -> None:
        """Record the gradient of an intermediate."""
        self.recorder(f"{name}.grad", gradient)

    def record_rows(self, name: str, gradient: Array) -> None:
        """Record an array (B, T, ...), or rows of it, (B * T, ...), which come some at a time."""
        if gradient.ndim > 2:
            self.record(name, gradient)
            return
        parts = self._parts.setdefault(name, [])
        parts.append(gradient.copy())
        length = self.lengths[name.split(".")[1]]
        if sum(map(len, parts)) == self.documents * length:
            whole_XD = self.inner.xp.concatenate(self._parts.pop(name))
            whole_BTD = whole_XD.reshape(self.documents, length, -1)
            self.record(name, whole_BTD)
            path, _, module = name.removesuffix(".output").rpartition(".")
            if path.endswith(_ATTENTION):
                self._record_heads(f"{path}.{module[0]}", whole_BTD)

    def _record_heads(self, name: str, gradient_BTD: Array) -> None:
        """q, k or v cut into heads; q is the query over sqrt(K), and its gradient that much larger."""
        heads, width = self._split["query"].shape[1], self._split["query"].shape[3]
        factor = math.sqrt(width) if name.endswith(".q") else 1.0
        self.record(name, by_heads(gradient_BTD, heads) * gradient_BTD.dtype.type(factor))

    # ---- LayerNorm and linear maps ----

    def layer_norm_backward(
        self, dy: Array, x: Array, weight: Array, update: Array | None = None
    ) -> tuple[Array, Array, Array]:
        found = self.inner.layer_norm_backward(dy, x, weight, update)
        name = self.names[id(weight)]
        self.record_rows(f"{name}.output", dy)
        self.record_rows(f"{name}.input", found[0])
        if name.endswith("layernorm_embedding"):
            stack = name.rpartition(".")[0]
            self.record(f"{stack}.embed_tokens.output", found[0])
            self.record(f"{stack}.embed_positions.output", found[0].sum(0))
        return found

    def linear(self, x: Array, weight: Weight, bias: Array) -> Array:
        self._last = self.names.get(id(weight), "")
        if self._last.endswith(f"{_ATTENTION}.query"):
            self._goes_back = False
        if self._last.endswith(".query_global") and self._goes_back:
            self._rows = _GlobalRows()
        return self.inner.linear(x, weight, bias)

    def linear_backward(
        self,
        dy: Array,
        x: Array,
        weight: Weight,
        into: tuple[Array, Array] | None = None,
        dx: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        name = self.names[id(weight)]
        dy = dy.copy() if name == "lm_head" else dy
        found = self.inner.linear_backward(dy, x, weight, into, dx)
        path, _, module = name.rpartition(".")
        if name == "lm_head":
            self._parts.setdefault("logits", []).append(dy)
        elif path.endswith(_ATTENTION):
            self._of_document(path, module, dy)
        else:
            self.record_rows(f"{name}.output", dy)
        if module == "fc2":
            self.record_rows(f"{path}.activation_fn.output", found[0])
        elif module == "out_proj" and path.endswith("_attn"):
            self._last = path
            self.record(f"{name}.input", found[0])
        elif name.endswith("self_attn.output"):
            self._goes_back, self._douts = True, []
            self.record(f"{path}.longformer_self_attn.output", found[0])
        return found

    def logits(self) -> Array | None:
        """The gradients of the rows of logits that count, (X, V), when all is done; None: there was no such head."""
        rows = self._parts.pop("logits", [])
        return self.inner.xp.concatenate(rows) if rows else None

    # ---- the encoder's attention, document by document ----

    def split_heads(self, x_BTD: Array, heads: int, queries: int = 0) -> Array:
        x_BHTK = self.inner.split_heads(x_BTD, heads, queries)
        module = self._last.rpartition(".")[2]
        if not self._goes_back:
            if module in _PROJECTIONS:
                self._split[module] = x_BHTK
        elif self._rows is None:
            self._douts.append(x_BHTK[0])
        elif self._rows.q_HGK is None:
            self._rows.q_HGK = x_BHTK[0]
        elif self._rows.dout_HGK is None:
            self._rows.dout_HGK = x_BHTK[0]
        return x_BHTK

    def _of_document(self, path: str, module: str, dy_TD: Array) -> None:
        """A projection of one document."""
        if self._rows is not None:
            at = {"query_global": "dquery_GD", "key_global": "dkey_TD", "value_global": "dvalue_TD"}[module]
            setattr(self._rows, at, dy_TD.copy())
            if module == "query_global":
                self._all_rows[len(self._douts) - 1] = self._rows
                self._rows = None
                with_globals = [b for b, mask in enumerate(self._masks(path).documents) if len(mask.global_positions_G)]
                if len(self._all_rows) == len(with_globals):
                    self._record_global_rows(path)
            return
        self.record_rows(f"{path}.{module}.output", dy_TD)
        if module == "value" and len(self._douts) == self.documents:
            self._record_window(path)

    def _masks(self, path: str) -> EncoderMasks:
        return self.masks[int(path.split(".")[3])]

    def _record_window(self, path: str) -> None:
        """The gradients of the window's attention maps; those of q, k and v come from linear_backward."""
        q_BHTK, k_BHTK, v_BHTK = (self._split[name] for name in _PROJECTIONS)
        dout_BHTK, masks = self.inner.xp.stack(self._douts), self._masks(path)
        dprobs_BHTZ = window_maps(dout_BHTK, v_BHTK, masks, self.inner, softmaxed=False)
        dprobs_BHTZ[dprobs_BHTZ == -self.inner.xp.inf] = 0
        self.record(f"{path}.probs", dprobs_BHTZ)
        probs_BHTZ = window_maps(q_BHTK, k_BHTK, masks, self.inner, softmaxed=True)
        self.record(f"{path}.scores", self.inner.softmax_backward(dprobs_BHTZ, probs_BHTZ))

    def _record_global_rows(self, path: str) -> None:
        """As arrays of the batch; zeros where a document has fewer global tokens than another."""
        all_rows, self._all_rows = self._all_rows, {}
        for role in _GLOBAL_ROLES:
            parts = {b: rows.shown(role) for b, rows in all_rows.items()}
            self.record(f"{path}.{role}", stacked(parts, self.documents, 0.0, self.inner))

    def softmax_backward(self, dprobs: Array, probs: Array) -> Array:
        """Of a tile of the window; or, where keys and values are folded away, of a document's global rows."""
        rows = self._rows
        if rows is None:
            return self.inner.softmax_backward(dprobs, probs)
        rows.dprobs_HGT = dprobs * (probs > 0)
        dscores_HGT = self.inner.softmax_backward(dprobs, probs)
        rows.dscores_HGT = dscores_HGT.copy()
        assert rows.q_HGK is not None
        assert rows.dout_HGK is not None
        rows.dkey_TD = merge_heads((dscores_HGT.swapaxes(1, 2) @ rows.q_HGK)[None])[0]
        rows.dvalue_TD = merge_heads((probs.swapaxes(1, 2) @ rows.dout_HGK)[None])[0]
        return dscores_HGT

    # ---- attention over all keys: the decoder's, and that of many global tokens ----

    def attend_backward(
        self, dout_BHQK: Array, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, may_look_BQS: Array | None
    ) -> tuple[Array, Array, Array]:
        found = self.inner.attend_backward(dout_BHQK, q_BHQK, k_BHSK, v_BHSK, may_look_BQS)
        scores_BHQS = q_BHQK @ k_BHSK.swapaxes(-1, -2)
        dprobs_BHQS = dout_BHQK @ v_BHSK.swapaxes(-1, -2)
        if may_look_BQS is not None:
            self.inner.hide(scores_BHQS, may_look_BQS[:, None])
            dprobs_BHQS *= may_look_BQS[:, None]
        probs_BHQS = self.inner.softmax(scores_BHQS)
        dscores_BHQS = self.inner.softmax_backward(dprobs_BHQS.copy(), probs_BHQS)
        if self._rows is not None:
            self._rows.dprobs_HGT, self._rows.dscores_HGT = dprobs_BHQS[0], dscores_BHQS[0]
            return found
        gradients = dict(zip("qkv", found, strict=True)) | {"probs": dprobs_BHQS, "scores": dscores_BHQS}
        for role, gradient in gradients.items():
            self.record(f"{self._last}.{role}", gradient)
        return found
