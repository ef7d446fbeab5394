"""A model that fits on a page: the next id's logits depend on the two ids before it, by a seeded random table."""

from itertools import product

import numpy as np

EOS, PAD, START = 2, 1, 2


class MarkovModel:
    """Its step function keeps the last two ids of each row, and so has a state that `parents` must reorder."""

    def __init__(self, seed: int, vocabulary: int = 7, eos_bias: float = 0.0) -> None:
        self.table = np.random.default_rng(seed).normal(scale=2.0, size=(vocabulary, vocabulary, vocabulary))
        self.table[:, :, EOS] += eos_bias
        self.vocabulary = vocabulary
        self.calls: list[tuple[np.ndarray, np.ndarray | None]] = []

    def __call__(self, token_ids: np.ndarray, parents: np.ndarray | None) -> np.ndarray:
        self.calls.append((token_ids, parents))
        if parents is None:
            before = np.zeros_like(token_ids[:, :1])
        else:
            before = self.last_two[parents]
        self.last_two = np.concatenate([before, token_ids], axis=1)[:, -2:]
        logits = self.table[tuple(self.last_two.T)]
        logits.flags.writeable = False  # a search that writes into the model's own array is caught
        return logits

    def log_probabilities(self, text: tuple[int, ...], prompt_length: int = 1) -> list[float]:
        """log P of each id after the prompt, the whole text read anew."""
        history = (0, *text)
        values = []
        for position in range(prompt_length + 1, len(history)):
            logits = self.table[history[position - 2], history[position - 1]]
            values.append(float(logits[history[position]] - np.log(np.exp(logits).sum())))
        return values

    def every_text(self, max_length: int, ends: tuple[int, ...] = (EOS,)) -> list[tuple[int, ...]]:
        """All that can be written after the start id: up to an end, or max_length ids."""
        going_on = [token for token in range(self.vocabulary) if token not in ends]
        texts = []
        for written in range(1, max_length):
            last = range(self.vocabulary) if written == max_length - 1 else ends
            texts += [(START, *begun, end) for begun in product(going_on, repeat=written - 1) for end in last]
        return texts
