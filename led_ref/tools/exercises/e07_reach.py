"""How large is a token's receptive field?

In a layer of radius R a token depends on those at most R positions away; in the layer before, these depended on tokens at
most R' positions further. With a global token, two layers are enough for any distance: in the first the global token
attends to every token, in the second every token attends to the global token.
"""

from collections.abc import Sequence

import numpy as np

from led_ref.tools.exercises.expect import Yours, expect


def receptive_field(i: int, tokens: int, radii: Sequence[int], *, has_global: bool = False) -> tuple[int, int]:
    """The first and the last token that the final state of local token i depends on. `radii`: one for each layer.

    `has_global`: whether the document's first token, 0, is global. (Then i is not 0.)
    """
    if has_global and len(radii) >= 2:
        return 0, tokens - 1
    first, last = max(0, i - sum(radii)), min(tokens - 1, i + sum(radii))
    return (0 if has_global and radii else first), last


def check_one_layer_and_two(yours: Yours) -> None:
    """Radii add up."""
    expect(yours.receptive_field(50, 101, [3]), (47, 53), "receptive_field(50, 101, [3])")
    expect(yours.receptive_field(50, 101, [3, 7]), (40, 60), "receptive_field(50, 101, [3, 7])")


def check_no_layer_at_all(yours: Yours) -> None:
    """Nothing was mixed yet."""
    expect(yours.receptive_field(5, 11, []), (5, 5), "receptive_field(5, 11, [])")


def check_the_document_ends(yours: Yours) -> None:
    """A receptive field ends with the document."""
    expect(yours.receptive_field(2, 11, [3, 3]), (0, 8), "receptive_field(2, 11, [3, 3])")


def check_by_multiplying_tables(yours: Yours) -> None:
    """The attention masks, multiplied layer by layer."""
    from led_ref.oracle.definition.model import who_sees_whom

    for tokens, radii, marked in ((29, [2, 1, 3], False), (29, [2, 1], True), (29, [2], True), (13, [5, 5, 5], False)):
        kinds = np.ones(tokens, int)
        kinds[0] += marked
        reached = np.eye(tokens, dtype=bool)
        for radius in radii:
            reached = (who_sees_whom(kinds_T=kinds, radius=radius).astype(int) @ reached) > 0
        for i in (1, 11, tokens - 1):
            found, places = yours.receptive_field(i, tokens, radii, has_global=marked), np.flatnonzero(reached[i])
            what = f"receptive_field({i}, {tokens}, {radii}, has_global={marked})"
            expect(found, (int(places[0]), int(places[-1])), what)
