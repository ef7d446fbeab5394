"""Numbers for the cases: drawn from their names, the same on every machine, and exact in every floating-point type.

NumPy's generators may change their streams from one version to the next. A hash does not: the bytes of SHAKE-256 of a
name are the source, four bytes to a number, whose sum is nearly normally distributed.

    >>> numbers("a name", (3,), spread=0.5).tolist()
    [0.1875, -0.234375, 0.84375]

Every number is k / 64 (or another power of two) with |k| < 256: eight significant bits, so that float16 and even
bfloat16 hold it exactly and an implementation in any precision begins with the same numbers.
"""

import hashlib
import math

import numpy as np
import numpy.typing as npt

LARGEST = 255

# Cases that are drawn again, and how often: an answer lay too near the middle between two roundings (make/write.py), or
# two candidates of a search too near to each other (make/search.py), or the setting that it is about made no difference.
DRAWN_AGAIN: dict[str, int] = {
    "L2-cross-attention-padded": 1,
    "L2-window-large-scores": 1,
    "L3-decoder-padded": 5,
    "L3-decoder-plain": 1,
    "L3-encoder-many-blocks": 20,
    "L3-encoder-no-global": 1,
    "L3-encoder-odd-windows": 7,
    "L3-encoder-one-token": 1,
    "L4-forward-batch": 1,
    "L4-forward-target-padded": 1,
    "L4-parts-beams": 1,
    "L4-parts-reordered": 1,
    "L5-generate-beams": 4,
    "L5-generate-summary": 10,
    "L5-search-beams-closed": 3,  # tests/mutants: not every draw shows a document that opens again
    "L5-search-beams-everything": 225,
    "L5-search-beams-forced": 1,
    "L5-search-beams-long-never": 56,
    "L5-search-beams-min-new-tokens": 1,
    "L5-search-beams-never-stop-early": 10,
    "L5-search-beams-one-returned": 1,
    "L5-search-beams-prompt": 1,
    "L5-search-beams-short-never": 417,  # tests/mutants: few draws show a hope for the longest text
    "L5-search-beams-stop-early": 7,
    "L5-search-beams-three-ends": 1,
    "L5-search-greedy": 1,
    "L5-search-greedy-forced-end": 1,
    "L5-search-greedy-forced-start": 1,
    "L5-search-greedy-min-length": 1,
    "L5-search-greedy-ngrams": 5,
    "L5-search-greedy-pad": 4,
    "L5-search-greedy-repetition-welcome": 1,
    "L5-search-greedy-source-ngrams": 11,
    "L5-search-greedy-source-unigrams": 1,
    "L5-search-greedy-two-ends": 3,
    "L5-search-greedy-unigrams": 1,
    "L8-gradients-dropout": 3,
    "L8-gradients-smoothing": 2,
    "L8-layer-norm-narrow": 1,
    "L8-step": 1,
    "L8-step-unclipped": 3,
    "L8-window-plain": 1,
}
_SPREAD_OF_FOUR_BYTES = 148  # the standard deviation of their sum is 147.8


def numbers(
    name: str, shape: tuple[int, ...], *, spread: float, centre: float = 0.0, step: float = 1 / 64
) -> npt.NDArray[np.float32]:
    """Bell-shaped numbers, multiples of `step`.

    Args:
        name: what they are drawn from; another name, other numbers.
        shape: of the array.
        spread: their standard deviation, nearly.
        centre: what they spread around.
        step: a power of two. All stay within 255 steps of 0.
    """
    bytes_N4 = _bytes(name, math.prod(shape)).reshape(-1, 4)
    sums_N = bytes_N4.sum(axis=1, dtype=np.int64) - 510
    steps_N = sums_N * round(spread / step) // _SPREAD_OF_FOUR_BYTES + round(centre / step)
    drawn: npt.NDArray[np.float32] = (np.clip(steps_N, -LARGEST, LARGEST) * step).astype(np.float32)
    return drawn.reshape(shape)


def whole(name: str, shape: tuple[int, ...], low: int, high: int) -> npt.NDArray[np.int64]:
    """Whole numbers from low to high - 1, all nearly equally likely."""
    drawn = _bytes(name, math.prod(shape)).view("<u4").astype(np.int64)
    return (low + drawn % (high - low)).reshape(shape)


def _bytes(name: str, count: int) -> npt.NDArray[np.uint8]:
    """Four bytes for each of `count` numbers. A name begins with that of its case, up to the slash."""
    again = DRAWN_AGAIN.get(name.partition("/")[0], 0)
    source = f"{name} {again}" if again else name
    return np.frombuffer(hashlib.shake_256(source.encode()).digest(4 * count), np.uint8)
