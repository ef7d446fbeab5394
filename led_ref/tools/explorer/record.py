r"""The content of the explorer's page: the intermediates of one generation, reduced to what a page can hold.

At 16,384 tokens the attention weights of the bundled model are 68 million numbers, and a page of 8 MB holds six million
bytes. Therefore this is kept, layer by layer, for every head h:

    top        of each query i, the n keys with the largest weights within the window: offset j - i, and the weight
    columns    the weight of each global token g for each query i                     both as codes, see below
    rows       the weight of each key j for each global query g
    region     the first N tokens: q (divided by sqrt K), k, the keys k' of the global queries, all float32, and

                   lse_i = log sum_j exp(q_i . k_j)       over all j that i attends to, so that
                   weight_ij = exp(q_i . k_j - lse_i)     for any two tokens i and j of the region

A weight w is kept as a code of two bytes, c = round(-2048 log2 w): 2 ** (-c / 2048) is w within 0.02 %.

    >>> np.exp2(to_codes(np.array([1.0, 0.5, 0.001, 0.0])) / -2048).round(6).tolist()
    [1.0, 0.5, 0.001, 0.0]

n and N are as large as the budget allows; for a page of some hundred tokens N is all of them. Of a model whose layers do not
all fit some are kept, always the last one. The record names what is kept, and the page shows it.

Memory while recording: one layer's weights and scores, (H, T, G + 2R + 1) each.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from led_backends.contract import Array, HostArray
from led_ref.api import LED
from led_ref.errors import InputError
from led_ref.model import intermediates
from led_ref.tokenizer.decoding import readable
from led_ref.tools.explorer.fates import search_record

# Bytes for arrays, before base64 makes four of three: 5.2 MB become 6.9 MB; texts and page need the rest of 8 MB.
BUDGET = 5_200_000
# Of these, the bytes for the top weights, columns and rows of all layers; the region takes the rest.
FOR_EVERY_TOKEN = 3_200_000
# Keys kept for each query: fewer say too little, more are not read.
FEWEST_TOP, MOST_TOP = 2, 12

_UNSEEN = 65_535  # the code of 0
_PER_OCTAVE = 2048

_ATTENTION = re.compile(r"led\.encoder\.layers\.(\d+)\.self_attn\.longformer_self_attn\.(\w+(?:\.output)?)$")
_ROLES = {"q", "k", "scores", "probs", "key_global.output", "global_q", "global_scores", "global_probs"}


@dataclass(frozen=True)
class Record:
    """The content of a page.

    Args:
        words: sizes, tokens, the search: texts and small numbers, ready for JSON.
        arrays: the large numbers by name, `layer.HEADING`; see the top of the file.
    """

    words: dict[str, Any]
    arrays: dict[str, HostArray]


@dataclass(frozen=True)
class Selection:
    """How much of a document of T tokens fits: which layers, n keys of each query, N tokens of the region."""

    layers: tuple[int, ...]
    top: int
    region: int


def record(led: LED, ids: Sequence[int], global_mask: Sequence[int], *, title: str, **settings: Any) -> Record:
    """Run the model on one document, and keep what the page needs.

    Args:
        led: the model and its tokenizer.
        ids: the document.
        global_mask: 1 for each global token.
        title: the page's name for the document.
        settings: of the generation. Fewer than 2 beams make 4 of it: a search with one beam has no branches.

    Raises:
        InputError: if the document has so many global tokens that not one layer fits.
        LEDError: as generate does.
    """
    model = led.model
    if model.effective_settings(**settings).num_beams < 2:
        settings["num_beams"] = 4
    config, globals_G = model.config, np.flatnonzero(global_mask)
    heads, width = config.encoder_attention_heads, config.d_model // config.encoder_attention_heads
    selection = selection_of(len(ids), heads, width, len(globals_G), config.encoder_layers)
    recorder = Recorder(selection, model.backend.to_host, globals_G, heads, config.radii)
    result: Any = model.generate(
        [list(ids)],
        attention_mask=[[1] * len(ids)],
        global_attention_mask=[list(global_mask)],
        recorder=intermediates.Recorder(recorder.keep, recorder.wants),
        **{**settings, "return_dict_in_generate": True},
    )
    effective = model.effective_settings(**settings)
    decode = partial(readable, led.tokenizer)
    words = {
        "title": title,
        "model": led.name,
        "tokens": [decode([token]) for token in ids],
        "heads": heads,
        "width": width,
        "layers": list(selection.layers),
        "allLayers": config.encoder_layers,
        "radii": [config.radii[layer] for layer in selection.layers],
        "globals": globals_G.tolist(),
        "queriesPerBlock": model.backend.queries_per_block,
        "top": selection.top,
        "region": selection.region,
        "text": decode(result.sequences[0].tolist(), True).strip(),
        "search": search_record(recorder.steps, effective, decode),
    }
    return Record(words, recorder.arrays)


def selection_of(length: int, heads: int, width: int, globals_: int, layers: int) -> Selection:
    """Divide the budget: first the fewest top keys for as many layers as fit, then more of them, then the region.

    Raises:
        InputError: if the rows and columns of the global tokens exceed it.

    Example:
        >>> selection_of(16_384, heads=4, width=32, globals_=1, layers=2)
        Selection(layers=(0, 1), top=5, region=661)
    """
    for_globals = 2 * 2 * heads * length * globals_
    for_one_top = 2 * 2 * heads * length
    kept = min(layers, FOR_EVERY_TOKEN // (for_globals + FEWEST_TOP * for_one_top))
    if not kept:
        raise InputError(
            f"{globals_} global tokens of {length} are more than the page can hold: their rows and columns alone are "
            f"{for_globals / 1e6:.1f} MB a layer. Name fewer (--global-attention first), or explore a shorter document."
        )
    top = min(MOST_TOP, (FOR_EVERY_TOKEN // kept - for_globals) // for_one_top)
    left = BUDGET // kept - for_globals - top * for_one_top
    region = min(length, left // (heads * (3 * width + 1) * 4))
    last = layers - 1
    chosen = (last,) if kept == 1 else tuple(round(i * last / (kept - 1)) for i in range(kept))
    return Selection(chosen, top, region)


def to_codes(weights: HostArray) -> npt.NDArray[np.uint16]:
    """Weights as codes: -2048 log2 w, rounded; a weight of 0, or under 2 ** -31.9, is 65535."""
    with np.errstate(divide="ignore"):
        codes = np.rint(-_PER_OCTAVE * np.log2(weights.astype(np.float64)))
    kept: npt.NDArray[np.uint16] = np.clip(codes, 0, _UNSEEN).astype(np.uint16)
    return kept


def log_sum_exp(scores_XS: HostArray) -> npt.NDArray[np.float32]:
    """Log sum exp over the last axis; fully masked rows (all -inf) give -inf."""
    scores = scores_XS.astype(np.float64)
    most = scores.max(axis=-1, keepdims=True)
    safe = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        sums: HostArray = np.log(np.exp(scores - safe).sum(axis=-1)) + safe[..., 0]
    return sums.astype(np.float32)


@dataclass
class Recorder:
    """Keeps the part of each named intermediate that the page shows; the model calls it as it computes them."""

    selection: Selection
    to_host: Callable[[Array], HostArray]
    globals_G: HostArray
    heads: int
    radii: Sequence[int]
    arrays: dict[str, HostArray] = field(default_factory=dict)
    steps: dict[int, dict[str, HostArray]] = field(default_factory=dict)

    def wants(self, name: str) -> bool:
        """Whether any part of this intermediate is kept."""
        if found := _ATTENTION.match(name):
            return found[2] in _ROLES and int(found[1]) in self.selection.layers
        return name.startswith("beam.step.")

    def keep(self, name: str, value: Array) -> None:
        """Keep the selected part of one intermediate."""
        host = self.to_host(value)
        if found := _ATTENTION.match(name):
            layer = int(found[1])
            at = self.selection.layers.index(layer)
            parts = self._parts(found[2], host, self.radii[layer])
            self.arrays |= {f"{at}.{heading}": kept for heading, kept in parts.items()}
        else:
            self._keep_search(name, host)

    def _keep_search(self, name: str, value: HostArray) -> None:
        """Keep the decisions of one step of the search."""
        _, _, number, role = name.split(".", 3)
        step = self.steps.setdefault(int(number), {})
        step[role] = value.copy()
        if role == "candidates.beams":  # of all V log-probabilities, keep those of the candidates
            chosen = (step["candidates.beams"][0], step["candidates.tokens"][0])
            step["logprobs"], step["scores"] = step["logprobs"][chosen], step["scores"][chosen]

    def _parts(self, role: str, value: HostArray, radius: int) -> dict[str, HostArray]:
        """The arrays that are kept of one intermediate, by heading."""
        region, globals_ = self.selection.region, len(self.globals_G)
        if role == "q":
            return {"q": value[0, :, :region].astype(np.float32)}
        if role == "k":
            of_globals = value[0][:, self.globals_G]
            return {"k": value[0, :, :region].astype(np.float32), "globalK": of_globals.astype(np.float32)}
        if role == "scores":
            return {"lse": log_sum_exp(value[0, :, :region])}
        if role == "probs":
            columns, window = value[0, :, :, :globals_], value[0, :, :, globals_:]
            order = np.argsort(-window, axis=-1, kind="stable")[:, :, : self.selection.top]
            top = to_codes(np.take_along_axis(window, order, axis=-1))
            return {"topOffsets": (order - radius).astype(np.int16), "topCodes": top, "columns": to_codes(columns)}
        if role == "key_global.output":
            split = value[0, :region].reshape(region, self.heads, -1).swapaxes(0, 1)
            return {"keyGlobal": split.astype(np.float32)}
        if role == "global_q":
            return {"globalQ": value[0].astype(np.float32)}
        per_global_HGT = value[0].swapaxes(-1, -2)
        if role == "global_scores":
            return {"globalLse": log_sum_exp(per_global_HGT)}
        return {"rows": to_codes(per_global_HGT)}
