r"""Dropout: in training, each number of an update is set to zero with probability p, and the others grow by 1 / (1 - p).

The mask is not drawn from a stream of random numbers. It is a hash of where a number stands, so that a layer that is
computed a second time (backward passes do) drops the same numbers, and needs no memory of the first time:

    state(t)    = mix(mix(t ^ key_0) ^ key_1)       keys: from (seed, step, site, document); t: the position
    kept(t, d)  = mix(state(t) + d * 0x9e3779b9) >= p * 2**32                              d: the column

A site is a place of the model, named by the checkpoint's module: `led.encoder.layers.0.fc2`. A document is known by its
number in the whole training set, or in the step. So its masks depend neither on the documents beside it, nor on padding,
nor on threads; and integer arithmetic gives the same bits on NumPy and CuPy.

Sites, and the config.json rate of each (transformers drops at the same ones):

    layernorm_embedding                                     dropout               of encoder and decoder
    layers.i.self_attn.output, layers.i.self_attn.out_proj  dropout               the update, before the residual is added
    layers.i.encoder_attn.out_proj, layers.i.fc2            dropout
    layers.i.fc1                                            activation_dropout    what the activation gave
    layers.i.self_attn.probs, layers.i.encoder_attn.probs   attention_dropout     attention probabilities, by pairs of positions
    layers.i.self_attn.global_probs                         attention_dropout     those of the encoder's global rows
    classification_head.dense, classification_head.out_proj classifier_dropout    what the two maps read
    layers.i                                                encoder_layerdrop, decoder_layerdrop: the layer as a whole

    >>> import numpy as np
    >>> from led_backends.numpy_backend import NumpyBackend
    >>> site = Dropout(DropoutRates(dropout=0.5), seed=0, step=0, documents=(7,)).hidden("led.encoder.layers.0.fc2")
    >>> site.drop(np.ones((1, 2, 8)), NumpyBackend()).astype(int).tolist()
    [[[2, 0, 0, 2, 0, 0, 0, 2], [0, 0, 0, 2, 2, 2, 2, 0]]]
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np

from led_backends.contract import Array, Backend
from led_ref.config import LEDConfig
from led_ref.errors import InputError

# The finalizer of MurmurHash3 (public domain): a bijection of 32 bits in which every bit of x decides about every bit.
_FACTORS = (np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35))
_SHIFTS = (np.uint32(16), np.uint32(13), np.uint32(16))
_GOLDEN = np.uint32(0x9E3779B9)  # 2**32 divided by the golden ratio, odd: columns are far apart
_HEAD = 1 << 20  # more than there are positions: row `head * _HEAD + position` of attention probabilities


@dataclass(frozen=True)
class DropoutRates:
    """The probabilities p with which numbers are dropped, by their names in config.json. Each is in 0 <= p < 1."""

    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    classifier_dropout: float = 0.0
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0

    def __post_init__(self) -> None:
        for rate in fields(self):
            value = getattr(self, rate.name)
            if not 0 <= value < 1:
                raise InputError(f"{rate.name} is {value!r}; it is a probability: give a number from 0 to below 1.")

    @classmethod
    def of(cls, config: LEDConfig) -> Self:
        """Those of config.json."""
        return cls(**{rate.name: getattr(config, rate.name) for rate in fields(cls)})


@dataclass(frozen=True)
class Tile:
    """Which attention probabilities, (h, Q, S): of which document of the batch, which heads, queries and keys."""

    document: int  # its place in the batch
    heads: slice
    queries: Array  # (Q,) positions, on the device
    keys: Array  # (S,) positions, on the device


@dataclass(frozen=True)
class Site:
    """One place of the model where numbers are dropped, with its masks for the documents of a batch."""

    rate: float
    keys: tuple[tuple[int, int], ...] = ()  # of each document
    given: Array | None = None  # bool, True: kept; in place of the hash

    def drop(self, x_BTD: Array, backend: Backend) -> Array:
        """`x * kept / (1 - p)`: (B, T, D), a new array; x itself if nothing is dropped here. Also the gradient's way back."""
        if not self.rate:
            return x_BTD
        x_XD = x_BTD.reshape(-1, x_BTD.shape[-1])
        states_X = self.states(len(x_BTD), x_BTD.shape[1], backend)
        out_BTD: Array = self.drop_rows(x_XD, states_X, slice(0, len(x_XD)), backend).reshape(x_BTD.shape)
        return out_BTD

    def states(self, documents: int, length: int, backend: Backend) -> Array:
        """What `drop_rows` needs of all rows of (B, T): the hash of each, (B * T,) uint32; or the given masks' rows."""
        if not self.rate:
            nothing: Array = backend.xp.zeros(0, dtype="uint32")
            return nothing
        if self.given is not None:
            kept_BTF = self.given[:, :length]
            return kept_BTF.reshape(documents * length, -1)
        if len(self.keys) != documents:
            raise InputError(
                f"Dropout knows the numbers of {len(self.keys)} documents, but the batch has {documents}. Give "
                "Dropout(documents=...) one number for each document of the batch."
            )
        keys_B2 = backend.to_device(np.array(self.keys, np.uint32))
        positions_T = backend.xp.arange(length, dtype="uint32")
        states_BT = _row_states(positions_T, keys_B2[:, :1], keys_B2[:, 1:])
        states_X: Array = states_BT.reshape(-1)
        return states_X

    def drop_rows(self, x_XF: Array, states_X: Array, block: slice, backend: Backend) -> Array:
        """`drop` of some rows of (B * T, F), for a loop over blocks of rows.

        Args:
            x_XF: the rows.
            states_X: `states` of all rows.
            block: which rows these are.
            backend: where to compute.
        """
        if not self.rate:
            return x_XF
        out_XF: Array = backend.xp.empty(x_XF.shape, dtype=x_XF.dtype)
        columns_F, states_X = backend.xp.arange(x_XF.shape[-1], dtype="uint32"), states_X[block]

        def compute(rows: slice) -> None:
            kept_XF = self._kept(states_X[rows], columns_F) if self.given is None else states_X[rows]
            out_XF[rows] = self._scaled(x_XF[rows], kept_XF)

        backend.for_each_block(compute, len(x_XF))
        return out_XF

    def drop_probs(self, probs_hQS: Array, tile: Tile, backend: Backend) -> Array:
        """`drop` of attention probabilities: each pair of a query and a key has its own draw, whichever tile it is in."""
        if not self.rate:
            return probs_hQS
        if self.given is not None:
            kept_hQT: Array = self.given[tile.document][tile.heads][:, tile.queries]
            return self._scaled(probs_hQS, kept_hQT[:, :, tile.keys])
        heads_h = backend.xp.arange(tile.heads.start, tile.heads.stop) * _HEAD
        rows_hQ = (heads_h[:, None] + tile.queries).astype("uint32")
        states_hQ = _row_states(rows_hQ, *(np.uint32(key) for key in self.keys[tile.document]))
        return self._scaled(probs_hQS, self._kept(states_hQ, tile.keys.astype("uint32")))

    def _kept(self, states_X: Array, columns_F: Array) -> Array:
        """(..., F) bool: which numbers of the rows with these states stay."""
        hashes_XF = _mixed(states_X[..., None] + columns_F * _GOLDEN)
        kept_XF: Array = hashes_XF >= np.uint32(min(round(self.rate * 2**32), 2**32 - 1))
        return kept_XF

    def _scaled(self, x: Array, kept: Array) -> Array:
        dropped: Array = x * kept
        dropped *= x.dtype.type(1 / (1 - self.rate))
        return dropped


NOTHING_DROPPED = Site(0.0)


@dataclass(frozen=True)
class Dropout:
    """The dropout of one training step: a pure function of what stands here. `Dropout()` drops nothing.

    Args:
        rates: the probabilities.
        seed: of the training run.
        step: the number of the step.
        documents: the number in the run of each document of the batch.
        given: masks in place of the drawn ones, by site: bool arrays on the device, True: kept. (B, T, D); of probabilities
            (B, H, T, S), with a row and a column for each position; of a layer one bool. Without one nothing is dropped.
        stack: the part of the model that names of sites are relative to.
    """

    rates: DropoutRates = DropoutRates()
    seed: int = 0
    step: int = 0
    documents: Sequence[int] = ()
    given: Mapping[str, Array] | None = field(default=None, hash=False)
    stack: str = ""

    def at(self, module: str) -> "Dropout":
        """The same dropout for the sites inside a module: `dropout.at("led.encoder.layers.0").hidden("fc2")`."""
        return replace(self, stack=f"{self.stack}{module}.")

    def of(self, documents: slice) -> "Dropout":
        """The same dropout for some documents of the batch."""
        given = self.given
        if given is not None:
            given = {site: mask[documents] if getattr(mask, "ndim", 0) else mask for site, mask in given.items()}
        return replace(self, documents=self.documents[documents], given=given)

    def hidden(self, site: str) -> Site:
        """A site of states or updates, (B, T, D)."""
        return self._site(site, self.rates.dropout)

    def activation(self, site: str) -> Site:
        """The site behind an activation function, (B, T, F)."""
        return self._site(site, self.rates.activation_dropout)

    def attention(self, site: str) -> Site:
        """A site of attention probabilities."""
        return self._site(site, self.rates.attention_dropout)

    def classifier(self, site: str) -> Site:
        """A site of the classification head: (B, 1, D)."""
        return self._site(site, self.rates.classifier_dropout)

    def skips(self, stack: str, layer: int) -> bool:
        """Layerdrop: whether this step leaves out a layer of "encoder" or "decoder", for all documents alike."""
        rate: float = getattr(self.rates, f"{stack}_layerdrop")
        name = f"led.{stack}.layers.{layer}"
        if self.given is not None:
            return rate > 0 and name in self.given and not self.given[name]
        return rate > 0 and self._keys(name, "every document")[0] < rate * 2**32

    def _site(self, site: str, rate: float) -> Site:
        name = self.stack + site
        if not rate:
            return NOTHING_DROPPED
        if self.given is not None:
            return Site(rate, given=self.given[name]) if name in self.given else NOTHING_DROPPED
        return Site(rate, tuple(self._keys(name, document) for document in self.documents))

    def _keys(self, site: str, document: Any) -> tuple[int, int]:
        """Two keys of 32 bits. Every part of the text decides about every bit of them."""
        text = f"{self.seed} {self.step} {site} {document}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


NO_DROPOUT = Dropout()


def _row_states(rows: Array, key_0: Any, key_1: Any) -> Array:
    """`mix(mix(row ^ key_0) ^ key_1)`: rows of one document and site differ for certain, others almost always."""
    return _mixed(_mixed(rows ^ key_0) ^ key_1)


def _mixed(x: Array) -> Array:
    """A bijection of 32 bits. Overwrites x."""
    x ^= x >> _SHIFTS[0]
    x *= _FACTORS[0]
    x ^= x >> _SHIFTS[1]
    x *= _FACTORS[1]
    x ^= x >> _SHIFTS[2]
    return x
