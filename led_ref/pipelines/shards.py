"""Parts of many documents: blocks, which are computed together, and shards, which different processes compute.

    documents, sorted by name    0 1 2 ... 15 | 16 ... 31 | 32 ... 47 | 48 ... 63 | ...
    blocks of 16                 block 0      | block 1   | block 2   | block 3   | ...
    shard of 2                   1/2          | 2/2       | 1/2       | 2/2       | ...

Batches are formed within a block. So the batch of a document, on which the last bits of its logits depend, is the same for one
process, for shards and for the workers of a cluster.
"""

import re
from typing import NamedTuple

from led_ref.errors import InputError, quoted

# Batches of a block: the documents of a batch are of like length, chosen among four batches of them.
BATCHES = 4


class Shard(NamedTuple):
    """One part of all documents; 1 of 1 is all of them.

    Args:
        number: counted from 1.
        of: how many shards there are.
        block: documents of a block.
    """

    number: int = 1
    of: int = 1
    block: int = 1

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of}"

    def holds(self, i: int) -> bool:
        """Whether document i, counted from 0, belongs to this shard.

        Example:
            >>> [i for i in range(9) if Shard(2, of=2, block=2).holds(i)]
            [2, 3, 6, 7]
        """
        return i // self.block % self.of == self.number - 1


def shard_of(given: str | None, batch_size: int) -> Shard:
    """The shard that "2/4" names, with blocks for batches of so many documents; None: all documents.

    Raises:
        InputError: if it names none.
    """
    block = 1 if batch_size == 1 else BATCHES * batch_size
    if given is None:
        return Shard(block=block)
    found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", given, flags=re.ASCII)
    if found is None or int(found[1]) > int(found[2]):
        raise InputError(f"The shard is {quoted(given, 40)}; give its number and how many there are, from 1/4 to 4/4.")
    return Shard(int(found[1]), int(found[2]), block)
