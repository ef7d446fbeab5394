r"""What the explorer's page is made of: one generation, listened to, and cut down to what a page has room for.

At 16,384 tokens the attention weights of the bundled model are 68 million numbers, and a page of 8 MB holds six million
bytes. So this is kept, layer by layer, for every head h:

    top        of each query i, the n keys with the largest weights within the window: offset j - i, and the weight
    columns    what each i gives each global token g                                  both as codes, see below
    rows       what each global token g gives each j
    region     the first N tokens: q (already over sqrt K), k, the k' that global queries meet, all float32, and

                   lse_i = log sum_j exp(q_i . k_j)       over all j that i sees, so that
                   weight_ij = exp(q_i . k_j - lse_i)     whichever two tokens of the region i and j are

A weight w is kept as a code of two bytes, c = round(-2048 log2 w): 2 ** (-c / 2048) is w within 0.02 %.

    >>> from_codes(to_codes(np.array([1.0, 0.5, 0.001, 0.0]))).round(6).tolist()
    [1.0, 0.5, 0.001, 0.0]

n and N are as large as the budget lets them be; for a page of some hundred tokens N is all of them. A model whose layers do
not all fit keeps some of them, the last one always. What is kept is said in the record, and the page says it.

Memory while recording: one layer's weights and scores, (H, T, G + 2R + 1) each.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from led_backends.contract import Array, HostArray
from led_ref.api import LED
from led_ref.errors import InputError
from led_ref.model.intermediates import ListeningTap
from led_ref.tools.explorer.fates import search_record

# Bytes for arrays, before base64 makes four of three: 5.2 MB become 6.9 MB, and the words and the page need the rest of 8.
BUDGET = 5_200_000
# Of these, what the top weights, columns and rows of all layers may take; the region takes what is left.
FOR_EVERY_TOKEN = 3_200_000
# Below this many keys a query the list says too little; above the second number nobody reads on.
FEWEST_TOP, MOST_TOP = 2, 12

_UNSEEN = 65_535  # the code of 0
_PER_OCTAVE = 2048

_ATTENTION = re.compile(r"led\.encoder\.layers\.(\d+)\.self_attn\.longformer_self_attn\.(\w+(?:\.output)?)$")
_ROLES = {"q", "k", "scores", "probs", "key_global.output", "global_q", "global_scores", "global_probs"}


@dataclass(frozen=True)
class Record:
    """What a page shows.

    Args:
        words: sizes, tokens, the search: all that is text and small numbers, ready for JSON.
        arrays: the large numbers by name, `layer.HEADING`; see the top of the file.
    """

    words: dict[str, Any]
    arrays: dict[str, HostArray]


@dataclass(frozen=True)
class Plan:
    """How much of a document of T tokens fits: which layers, n of each query, N tokens of the region."""

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
    plan = plan_of(len(ids), heads, width, len(globals_G), config.encoder_layers)
    listener = Listener(plan, model.backend.to_host, globals_G, heads, config.radii)
    result: Any = model.generate(
        [list(ids)],
        attention_mask=[[1] * len(ids)],
        global_attention_mask=[list(global_mask)],
        tap=ListeningTap(listener.hear, listener.wants),
        **{**settings, "return_dict_in_generate": True},
    )
    effective = model.effective_settings(**settings)
    words = {
        "title": title,
        "model": led.name,
        "tokens": [led.tokenizer.decode([token]) for token in ids],
        "heads": heads,
        "width": width,
        "layers": list(plan.layers),
        "allLayers": config.encoder_layers,
        "radii": [config.radii[layer] for layer in plan.layers],
        "globals": globals_G.tolist(),
        "queriesPerBlock": model.backend.queries_per_block,
        "top": plan.top,
        "region": plan.region,
        "text": led.tokenizer.decode(result.sequences[0].tolist(), skip_special_tokens=True).strip(),
        "search": search_record(listener.steps, effective, led.tokenizer.decode),
    }
    return Record(words, listener.arrays)


def plan_of(length: int, heads: int, width: int, globals_: int, layers: int) -> Plan:
    """Share the budget out: first the fewest top keys for as many layers as fit, then more of them, then the region.

    Raises:
        InputError: if the rows and columns of the global tokens leave no room.

    Example:
        >>> plan_of(16_384, heads=4, width=32, globals_=1, layers=2)
        Plan(layers=(0, 1), top=5, region=661)
    """
    for_globals = 2 * 2 * heads * length * globals_
    for_one_top = 2 * 2 * heads * length
    kept = min(layers, FOR_EVERY_TOKEN // (for_globals + FEWEST_TOP * for_one_top))
    if not kept:
        raise InputError(
            f"{globals_} global tokens of {length} are more than the page has room for: their rows and columns alone are "
            f"{for_globals / 1e6:.1f} MB a layer. Name fewer (--global-attention first), or explore a shorter document."
        )
    top = min(MOST_TOP, (FOR_EVERY_TOKEN // kept - for_globals) // for_one_top)
    left = BUDGET // kept - for_globals - top * for_one_top
    region = min(length, left // (heads * (3 * width + 1) * 4))
    last = layers - 1
    chosen = (last,) if kept == 1 else tuple(round(i * last / (kept - 1)) for i in range(kept))
    return Plan(chosen, top, region)


def to_codes(weights: HostArray) -> npt.NDArray[np.uint16]:
    """Weights as codes: -2048 log2 w, rounded; a weight of 0, or under 2 ** -31.9, is 65535."""
    with np.errstate(divide="ignore"):
        codes = np.rint(-_PER_OCTAVE * np.log2(weights.astype(np.float64)))
    kept: npt.NDArray[np.uint16] = np.clip(codes, 0, _UNSEEN).astype(np.uint16)
    return kept


def from_codes(codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """The weights that codes stand for; the page has the same line in JavaScript."""
    weights: npt.NDArray[np.float64] = np.exp2(-codes.astype(np.float64) / _PER_OCTAVE)
    return np.where(codes == _UNSEEN, 0.0, weights)


def log_sum_exp(scores_XS: HostArray) -> npt.NDArray[np.float32]:
    """Log sum exp over the last axis; rows that see nothing (all -inf) give -inf."""
    scores = scores_XS.astype(np.float64)
    most = scores.max(axis=-1, keepdims=True)
    safe = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        sums: HostArray = np.log(np.exp(scores - safe).sum(axis=-1)) + safe[..., 0]
    return sums.astype(np.float32)


@dataclass
class Listener:
    """Takes from each named intermediate what the page keeps of it, at the moment it is told."""

    plan: Plan
    to_host: Callable[[Array], HostArray]
    globals_G: HostArray
    heads: int
    radii: Sequence[int]
    arrays: dict[str, HostArray] = field(default_factory=dict)
    steps: dict[int, dict[str, HostArray]] = field(default_factory=dict)

    def wants(self, name: str) -> bool:
        """Whether anything of it is kept."""
        found = _ATTENTION.match(name)
        if found:
            return found[2] in _ROLES and int(found[1]) in self.plan.layers
        return name.startswith("beam.step.")

    def hear(self, name: str, value: Array) -> None:
        """Keep the part that the plan has room for."""
        host = self.to_host(value)
        found = _ATTENTION.match(name)
        if found:
            at = self.plan.layers.index(int(found[1]))
            for heading, kept in self._parts(found[2], host, self.radii[int(found[1])]):
                self.arrays[f"{at}.{heading}"] = kept
            return
        self.hear_search(name, host)

    def hear_search(self, name: str, value: HostArray) -> None:
        """Keep what a step of the search decided."""
        if not name.startswith("beam.step."):
            return
        _, _, number, role = name.split(".", 3)
        step = self.steps.setdefault(int(number), {})
        step[role] = value.copy()
        if role == "candidates.beams":  # of all V log-probabilities, those of the candidates
            chosen = (step["candidates.beams"][0], step["candidates.tokens"][0])
            step["logprobs"], step["scores"] = step["logprobs"][chosen], step["scores"][chosen]

    def _parts(self, role: str, value: HostArray, radius: int) -> list[tuple[str, HostArray]]:
        """The arrays that one intermediate leaves."""
        region, globals_ = self.plan.region, len(self.globals_G)
        if role == "q":
            return [("q", value[0, :, :region].astype(np.float32))]
        if role == "k":
            return [
                ("k", value[0, :, :region].astype(np.float32)),
                ("globalK", value[0][:, self.globals_G].astype(np.float32)),
            ]
        if role == "scores":
            return [("lse", log_sum_exp(value[0, :, :region]))]
        if role == "probs":
            order = np.argsort(-value[0, :, :, globals_:], axis=-1, kind="stable")[:, :, : self.plan.top]
            best = np.take_along_axis(value[0, :, :, globals_:], order, axis=-1)
            return [
                ("topOffsets", (order - radius).astype(np.int16)),
                ("topCodes", to_codes(best)),
                ("columns", to_codes(value[0, :, :, :globals_])),
            ]
        if role == "key_global.output":
            split = value[0, :region].reshape(region, self.heads, -1).swapaxes(0, 1)
            return [("keyGlobal", split.astype(np.float32))]
        if role == "global_q":
            return [("globalQ", value[0].astype(np.float32))]
        per_global_HGT = value[0].swapaxes(-1, -2)
        return [
            ("globalLse", log_sum_exp(per_global_HGT))
            if role == "global_scores"
            else ("rows", to_codes(per_global_HGT))
        ]
