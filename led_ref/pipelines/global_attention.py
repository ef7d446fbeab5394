"""Which tokens of a document are global, as a caller says it: by name, by position, or by a mask."""

from collections.abc import Iterable, Sequence

import numpy as np

from led_backends.contract import HostArray
from led_ref.errors import InputError

# Which tokens see all and are seen by all: a name, a 0/1 array (a mask), or a list of positions.
GlobalAttention = str | HostArray | Sequence[int]
_GLOBAL_FORMS = "give 'first', 'none', 'all', a list of positions, or a 0/1 array"


def global_mask(global_attention: GlobalAttention, length: int) -> list[int]:
    """The global mask of one document of `length` tokens.

    Args:
        global_attention: "first", "none", "all", positions (a list of ints), or a mask (an array of 0 and 1).
        length: T.

    Raises:
        InputError: for another name, a position outside the document or given twice, or a mask of another length.

    Example:
        >>> global_mask("first", 4), global_mask([0, 3], 4)
        ([1, 0, 0, 0], [1, 0, 0, 1])
    """
    if isinstance(global_attention, str):
        named = {"first": [0], "none": [], "all": range(length)}
        if global_attention not in named:
            raise InputError(f"global_attention is {global_attention!r}; {_GLOBAL_FORMS}.")
        return _marked(named[global_attention], length)
    if isinstance(global_attention, np.ndarray):
        if global_attention.shape != (length,) or not np.isin(global_attention, (0, 1)).all():
            raise InputError(
                f"global_attention is an array of shape {global_attention.shape}; as a mask it must hold {length} values "
                "of 0 and 1, one for each token. (A list is taken as positions.)"
            )
        return _marked(np.flatnonzero(global_attention).tolist(), length)
    try:
        positions = list(global_attention)
    except TypeError:
        raise InputError(f"global_attention is {global_attention!r}; {_GLOBAL_FORMS}.") from None
    seen: set[int] = set()
    for position in positions:
        if isinstance(position, bool) or not isinstance(position, int | np.integer) or not 0 <= position < length:
            raise InputError(
                f"global_attention holds the position {position!r}; positions are whole numbers from 0 to {length - 1} "
                "(the document's last token)."
            )
        if position in seen:
            raise InputError(
                f"global_attention holds the position {position} twice. A list is taken as positions; "
                "if a mask is meant, give it as an array: numpy.array([1, 0, 0, ...])."
            )
        seen.add(position)
    return _marked(positions, length)


def _marked(positions: Iterable[int], length: int) -> list[int]:
    """A mask with 1 at the positions."""
    mask = [0] * length
    for position in positions:
        mask[position] = 1
    return mask
