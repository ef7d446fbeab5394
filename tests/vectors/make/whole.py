"""Levels 6 and 7 of the vectors: a whole trained model. The bundled one, and one that everyone fetches for themselves.

Level 6 takes the weights that led_ref ships (6 million parameters, named by their sha256) from a text to ids, states,
logits and the ids that it writes. Level 7 is Ai2's led-base-16384: nothing of it is among the files, and its answers are
not the definition's but the numbers that transformers' own slow tests have held its model to.

`corner`: input_ids, masks and decoder_input_ids -> of each named output the rows `rows` and the first `columns` columns of
the first document: `encoder_last_hidden_state`, `last_hidden_state` (the decoder's) and `logits`.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from led_ref.config import LEDConfig
from led_ref.oracle.definition import model as dense
from led_ref.oracle.definition import search as dense_search
from led_ref.oracle.definition import tokenizer as dense_tokenizer
from led_ref.oracle.vectors.format import Array, Case
from led_ref.weights.safetensors_file import read_safetensors
from make.layers import DECODER_LAYER_DEPTH, EMBED_DEPTH, ENCODER_LAYER_DEPTH, FULL_TYPES
from make.text import read_vocabulary

BUNDLED_FILES = ("config.json", "merges.txt", "model*.safetensors", "vocab.json")
CHARACTERS = 640  # of the manual page: enough for its windows of 128 not to reach from end to end
CLOSEST = 1e-3

LED_BASE = "allenai/led-base-16384"
# transformers' tests/models/led, tolerance 1e-4 there, which four decimals are written for.
KNOWN_IDS = (0, 31414, 232, 328, 740, 1140, 12695, 69)
KNOWN_STATES = ((2.3050, 2.8279, 0.6531), (-1.8457, -0.1455, -3.5661), (-1.0186, 0.4586, -2.2043))
KNOWN_LOGITS = ((33.6507, 6.4572, 16.8089), (5.8739, -2.4238, 11.2902), (-3.2139, -4.3149, 4.2783))
KNOWN_TOLERANCE = 1e-3  # a thousandth: float32 sums over 4,096 tokens, on another machine


class BundledByDefinition:
    """The bundled model, run by dense.py; what was read once is kept.

    Args:
        folder: with the model's files.
    """

    def __init__(self, folder: Path) -> None:
        self.config = LEDConfig.from_pretrained(folder)
        files = sorted(folder.glob("model*.safetensors"))
        self.weights = {
            key: tensor.data.astype(np.float64) for file in files for key, tensor in read_safetensors(file).items()
        }
        self.vocabulary = read_vocabulary(folder)
        self.text = (folder / "led-ref.1.txt").read_text(encoding="utf-8")[:CHARACTERS]
        self.ids = np.array([dense_tokenizer.encode(self.text, self.vocabulary)])
        self.marks = np.zeros_like(self.ids)
        self.marks[0, 0] = 1

    @functools.cached_property
    def states_1TD(self) -> Array:
        """The encoder's last states of the text."""
        return dense.encode(self.weights, self.config, self.ids, None, self.marks).hidden_states[-1]

    def decode(self, ids: Sequence[int]) -> dense.Decoded:
        """The decoder on one target."""
        return dense.decode(self.weights, self.config, [list(ids)], self.states_1TD)

    def logits_of(self, document: int, ids: list[int]) -> Sequence[float]:
        """What dense_search asks."""
        last: list[float] = self.decode(ids).logits[0, -1].tolist()
        return last


def bundled(folder: Path) -> Iterator[Case]:
    """The cases of level 6."""
    model = BundledByDefinition(folder)
    answer: dict[str, Array] = {"ids": model.ids[0]}
    yield Case("L6-ids", "tokenize", model="bundled", arguments={"text": model.text}, answers=(answer,))

    config, length = model.config, model.ids.shape[1]
    inputs = {"input_ids": model.ids, "attention_mask": np.ones_like(model.ids), "global_attention_mask": model.marks}
    target = [2, 0, *model.ids[0, 5:10].tolist()]
    rows, columns = [0, 1, 2, 5, -1], 5
    encoder_rows = [0, 1, 2, length // 2, -1]
    decoded = model.decode(target)
    arguments: dict[str, Any] = {"rows": rows, "encoder_rows": encoder_rows, "columns": columns}
    answer = {
        "encoder_last_hidden_state": model.states_1TD[0, encoder_rows, :columns],
        "last_hidden_state": decoded.hidden_states[-1][0, rows, :columns],
        "logits": decoded.logits[0, rows, :columns],
    }
    layers = ENCODER_LAYER_DEPTH * config.encoder_layers + DECODER_LAYER_DEPTH * config.decoder_layers
    depth = 2 * EMBED_DEPTH + layers + 1
    yield Case(
        "L6-corner", "corner", model="bundled", inputs={**inputs, "decoder_input_ids": np.array([target])},
        arguments=arguments, answers=(answer,), depth=depth, flags=("n_not_multiple",),
    )  # fmt: skip
    for name, lengths, settings in (
        ("greedy", (12, 11, 10, 9, 8), {"num_beams": 1, "no_repeat_ngram_size": 0}),
        ("beams", (14, 13, 12, 11, 10, 9, 8), {"num_beams": 3, "num_return_sequences": 2, "no_repeat_ngram_size": 3,
                                               "early_stopping": True, "length_penalty": 1.0}),
    ):  # fmt: skip
        settings, found = far_apart(name, model, lengths, settings)
        answer = {"sequences": np.array(found.sequences)}
        if found.scores is not None:
            answer["sequences_scores"] = np.array(found.scores)
        flags = ("beams", "ngrams") if found.scores is not None else ()
        yield Case(
            f"L6-generate-{name}", "generate", model="bundled", inputs=inputs, arguments={"settings": settings},
            answers=(answer,), depth=depth + 12, types=FULL_TYPES, flags=flags,
        )  # fmt: skip


def far_apart(
    name: str, model: BundledByDefinition, lengths: Sequence[int], settings: dict[str, Any]
) -> tuple[dict[str, Any], dense_search.Found]:
    """The search of the first length whose scores all differ by more than CLOSEST, and its settings.

    Raises:
        ValueError: if there is none.
    """
    for length in lengths:
        asked = {"eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 2, "max_length": length, **settings}
        found = dense_search.search(model.logits_of, [[2]], asked)
        if found.smallest_gap >= CLOSEST:
            return asked, found
    raise ValueError(f"L6-generate-{name}: scores differ by less than {CLOSEST} at each length of {lengths}.")


def real() -> Iterator[Case]:
    """The case of level 7."""
    target = np.array([128 * KNOWN_IDS])
    inputs = {"input_ids": np.array([512 * KNOWN_IDS]), "decoder_input_ids": target}
    answer = {"last_hidden_state": np.array(KNOWN_STATES), "logits": np.array(KNOWN_LOGITS)}
    tolerance = dict.fromkeys(FULL_TYPES, KNOWN_TOLERANCE)
    yield Case(
        "L7-led-base", "corner", model="led-base-16384", inputs=inputs,
        arguments={"rows": [0, 1, 2], "encoder_rows": [0, 1, 2], "columns": 3}, answers=(answer,),
        tolerance=dict.fromkeys(answer, tolerance), needs=LED_BASE, types=FULL_TYPES, flags=("global_none", "full_length"),
        comment="The numbers of transformers' slow tests, not of dense.py; four decimals.",
    )  # fmt: skip
