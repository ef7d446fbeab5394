"""How many cells does attention fill in?

An attention map has a row for each query and a column for each key. Full attention fills in all of it. With a window of
radius R a token attends to the tokens at most R positions away, itself included; at both ends of the document these are
fewer. Five tokens, R = 1:

    x x . . .
    x x x . .
    . x x x .          13 of 25 cells
    . . x x x
    . . . x x
"""

from led_ref.tools.exercises.expect import Yours, expect


def full_cells(tokens: int) -> int:
    """Cells of full attention over so many tokens."""
    return tokens**2


def window_cells(tokens: int, radius: int) -> int:
    """Cells of attention through a window. Mind a document that is shorter than the window."""
    reach = min(radius, tokens - 1)
    return tokens * (2 * reach + 1) - reach * (reach + 1)


def check_the_picture_above(yours: Yours) -> None:
    """Five tokens, as drawn."""
    expect(yours.full_cells(5), 25, "full_cells(5)")
    expect(yours.window_cells(5, 1), 13, "window_cells(5, 1)")


def check_a_short_document_gains_nothing(yours: Yours) -> None:
    """A window wider than the document is full attention."""
    for tokens in (1, 2, 7):
        expect(yours.window_cells(tokens, 512), tokens**2, f"window_cells({tokens}, 512)")


def check_it_counts_what_the_definition_sees(yours: Yours) -> None:
    """The attention mask of led_ref/oracle/definition/model.py, on several sizes."""
    import numpy as np

    from led_ref.oracle.definition.model import who_sees_whom

    for tokens, radius in ((2, 1), (11, 0), (13, 3), (29, 7), (31, 30)):
        wanted = int(who_sees_whom(kinds_T=np.ones(tokens, int), radius=radius).sum())
        expect(yours.window_cells(tokens, radius), wanted, f"window_cells({tokens}, {radius})")
