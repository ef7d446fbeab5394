"""Prompt lookup: the document proposes the next ids, one pass of the model verifies them, and all ids stay as they are without.

A summary repeats its document. So the ids that followed the same n-gram there are a good guess of what comes next, and a
model reads several ids in one pass in little more time than one. The passes of a text, `|` between them, where the document
proposes up to two ids each time:

    plain        2 | 5 | 6 | 7
    lookup       2 | 5 6 7          after 5 the document goes on with 6 7, and the model agrees

`LookupStep` is a step function (step.py) for a search that asks for one id at a time. It reads ahead: with the id that is
new it reads those that are proposed after it, and keeps the logits after each. As long as the search chooses what was
proposed, its next logits are there already; else the reader forgets the rest. So whatever a search does with logits, rules,
draws and stopping criteria, it does for each id as without lookup.

    >>> propose(np.array([0, 5, 6, 7, 5, 8, 9, 2]), [2, 7, 5], count=2)  # 5 stands there twice, 7 5 once
    [8, 9]

**The same ids.** A pass over several ids multiplies matrices of other shapes, and the last bits of a logit may differ: where
two scores are that close, the best one could be another. The search therefore asks `again` for such rows. Then all that was
not read id by id is read anew, each id by itself as in plain search, and the logits have plain search's bits. No id is read
anew twice, so a text takes at most one more pass for each of its ids. Rounding moved a trained model's logits by 1.2e-6 of
the highest one (float32, 40 documents), and what counts as close is 20 times that (`closeness`). Filters of sampling that cut
at a threshold are the one exception: an id within rounding of it may be cut in one and not in the other (sampling.py).

Every row, that is, each text of each document, is read by itself: rows agree with their documents at different places.
Source: Saxena 2023 (prompt lookup decoding); Leviathan et al. 2023 (arXiv 2211.17192), section 2 for the verification.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from led_ref.generation.step import Ids, Scores

# The longest n-gram that is compared: of the places where the last id stands, those before which more ids agree count.
LONGEST = 6


class Reader(Protocol):
    """Reads ids of one row, after the first `kept` that it has read; the others it forgets."""

    def __call__(self, kept: int, ids: Sequence[int], wanted: int, /) -> Scores:
        """The logits (wanted, V) of the id after each of the last `wanted` of `ids`."""
        ...


def propose(source_T: Ids, ids: Sequence[int], count: int) -> list[int]:
    """At most `count` ids that followed in the document where it has the same n-gram as the end of `ids`; else none.

    Of several places that with the longest n-gram (of at most LONGEST ids), and of those the first. After an n-gram of one id
    one is proposed, of two two, of three four, and so on: an id that is read for nothing costs time, too. Before the document
    stands the start id: a text may begin as its document does. After it come the ids so far: a text also repeats itself.
    """
    text = np.concatenate([ids[:1], source_T, ids])
    ends = np.flatnonzero(text[:-1] == ids[-1])
    ends = ends[ends != len(source_T)]  # what stands behind the document's end did not follow it
    likely = 1
    for before in range(1, min(LONGEST, len(ids))):
        longer = ends[ends >= before]
        longer = longer[text[longer - before] == ids[-1 - before]]
        if not len(longer):
            break
        ends, likely = longer, 2 * likely
    if not len(ends):
        return []
    first = int(ends[0]) + 1
    stop = 1 + len(source_T) if first <= len(source_T) else len(text)
    following: list[int] = text[first : min(first + min(count, likely), stop)].tolist()
    return following


def closeness(eps: float) -> float:
    """How close two scores of a row are, relative to the highest, if rounding could let them change places.

    Far above what it does, and seldom met: eps^(2/3), which is 2.4e-5 for float32 and 0.01 for float16. A search's scores
    are float32 if the model computes in float64.

    Args:
        eps: of the dtype that the model computes in.
    """
    close: float = max(eps, float(np.finfo(np.float32).eps)) ** (2 / 3)
    return close


class LookupStep:
    """A step function that reads ahead what the documents propose.

    Args:
        readers: one for each row.
        sources: of each row the ids of its document, without padding.
        count: how many ids are proposed at most.
        max_length: of a text; nothing is read that would be longer.
        close: how close scores are that the search asks for again (`closeness`).
    """

    def __init__(
        self, readers: Sequence[Reader], sources: Sequence[Ids], count: int, max_length: int, close: float
    ) -> None:
        self.close = close
        self._rows = [_Row(*pair, count, max_length) for pair in zip(readers, sources, strict=True)]

    def __call__(self, token_ids: Ids, parents: Ids | None, /) -> Scores:
        """Logits (N, V) of the next id; row n continues row n."""
        return np.stack([row.read(ids) for row, ids in zip(self._rows, token_ids.tolist(), strict=True)])

    def again(self, rows_N: npt.NDArray[np.bool_]) -> Scores | None:
        """The same logits anew, for these rows in passes of one id; None where they are from such passes already."""
        doubtful = [row for row, is_close in zip(self._rows, rows_N, strict=True) if is_close and not row.is_plain]
        if not doubtful:
            return None
        for row in doubtful:
            row.read_plainly()
        return np.stack([row.logits_V for row in self._rows])

    @property
    def passes(self) -> int:
        """How many passes of the model all rows took."""
        return sum(row.passes for row in self._rows)


class _Row:
    """What one row has read: `ids`, of which the first `plain` one by one; and what it has read ahead, with the logits."""

    def __init__(self, reader: Reader, source_T: Ids, count: int, max_length: int) -> None:
        self._reader, self._source_T, self._count, self._max_length = reader, source_T, count, max_length
        self.ids: list[int] = []
        self._prompt = self._plain = self.passes = 0
        self._ahead: list[int] = []
        self._logits_XV: Scores = np.empty((1, 0))  # after the last of `ids`, then after each of `ahead`

    @property
    def logits_V(self) -> Scores:
        """The logits after `ids`."""
        logits_V: Scores = self._logits_XV[-1 - len(self._ahead)]
        return logits_V

    @property
    def is_plain(self) -> bool:
        """Whether these logits are of plain search to the bit."""
        return self._plain == len(self.ids)

    def read(self, new: list[int]) -> Scores:
        """The logits after the new ids: known, if they were read ahead."""
        if self._ahead[: len(new)] == new:
            self.ids += new
            del self._ahead[: len(new)]
            return self.logits_V
        kept = len(self.ids)
        self.ids += new
        self._prompt = self._prompt or len(new)
        # The last id of a text is chosen and not read.
        room = self._max_length - 1 - len(self.ids)
        self._ahead = propose(self._source_T, self.ids, min(self._count, room)) if room > 0 else []
        if self._plain == kept and not self._ahead:
            self._plain = len(self.ids)
        return self._pass(kept, [*new, *self._ahead])

    def read_plainly(self) -> None:
        """Read the ids anew that were not read one by one; the prompt is one pass, as in plain search."""
        self._ahead = []
        while not self.is_plain:
            kept, self._plain = self._plain, max(self._prompt, self._plain + 1)
            self._pass(kept, self.ids[kept : self._plain])

    def _pass(self, kept: int, ids: Sequence[int]) -> Scores:
        self._logits_XV = self._reader(kept, ids, 1 + len(self._ahead)).astype(np.float32, copy=False)
        self.passes += 1
        return self.logits_V
