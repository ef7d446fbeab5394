"""The attention mask, with global tokens.

Global tokens attend to every token, and every token attends to them. The others attend to tokens at most R positions away.
Padding attends to nothing and nothing attends to it, wherever it stands and even if it was marked global. Five tokens,
R = 1, token 0 global, the last one padding; row i is the mask of query i:

    1 1 1 1 0
    1 1 1 0 0
    1 1 1 1 0
    1 0 1 1 0
    0 0 0 0 0
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from led_ref.tools.exercises.expect import Yours, expect


def seen(attention_mask: Sequence[int], global_attention_mask: Sequence[int], radius: int) -> npt.NDArray[np.bool_]:
    """(T, T), True where token i may attend to token j. attention_mask: 1 a token, 0 padding; global: 1 or 0."""
    real = np.asarray(attention_mask) == 1
    marked = real & (np.asarray(global_attention_mask) == 1)
    places = np.arange(len(real))
    near = abs(places[:, None] - places) <= radius
    table: npt.NDArray[np.bool_] = (near | marked | marked[:, None]) & real & real[:, None]
    return table


def check_the_picture_above(yours: Yours) -> None:
    """Five tokens, as drawn."""
    rows = ["11110", "11100", "11110", "10110", "00000"]
    found = yours.seen([1, 1, 1, 1, 0], [1, 0, 0, 0, 0], 1)
    expect(np.asarray(found).astype(int), [[int(c) for c in row] for row in rows], "seen(...)")


def check_padding_that_is_marked_global(yours: Yours) -> None:
    """Padding that is marked global stays padding."""
    found = np.asarray(yours.seen([1, 1, 0], [0, 0, 1], 1)).astype(int)
    expect(found, [[1, 1, 0], [1, 1, 0], [0, 0, 0]], "seen([1, 1, 0], [0, 0, 1], 1)")


def check_the_definition_agrees(yours: Yours) -> None:
    """led_ref/oracle/definition/model.py on drawn masks."""
    from led_ref.oracle.definition.model import who_sees_whom

    rng = np.random.default_rng(5)
    for tokens, radius in ((7, 2), (13, 1), (17, 5)):
        real, marked = rng.integers(0, 2, size=(2, tokens))
        wanted = who_sees_whom(kinds_T=real * (marked + 1), radius=radius)
        found = yours.seen(real.tolist(), marked.tolist(), radius)
        expect(np.asarray(found).astype(int), wanted.astype(int), f"seen of {tokens} drawn tokens, radius {radius}")
