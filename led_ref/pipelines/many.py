"""Many documents, a block at a time: their memory does not grow with their number.

    digests     every document is read once, before a model is loaded: what cannot be read shows early
    blocks      they are read again, block by block, and a block goes to the work: a loaded model and what it does
    results     what the work found, document by document, as soon as it is known

The blocks are those of shards.py. The work is a function of a block, so it may run here or elsewhere.
"""

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from led_ref.errors import InputError, LEDError
from led_ref.pipelines.shards import Shard
from led_ref.pipelines.text_files import read_document

Found = dict[str, Any]  # what is known of a document in the end, JSON-ready


class Work(Protocol):
    """A loaded model and what it does with documents."""

    def __call__(
        self, documents: Sequence[tuple[str, str]], skip: Collection[int]
    ) -> Iterator[tuple[int, Found | LEDError]]:
        """What is found in each document of a block, by its number, or its error; those of `skip` are only read.

        Args:
            documents: names and texts.
            skip: numbers of the documents whose results exist.
        """
        ...


@dataclass(frozen=True)
class Corpus:
    """All documents of a run, in their order.

    Args:
        names: paths, or "-" for standard input, which is held: it can be read once.
    """

    names: list[str]
    _held: dict[str, str | LEDError] = field(default_factory=dict)

    def read(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, str | LEDError]]:
        """The texts of the documents whose numbers are wanted, one after the other, or the errors that refuse them."""
        for i, name in enumerate(self.names):
            if wanted(i):
                text = self._held.get(name) or _read(name)
                if name == "-":
                    self._held[name] = text
                yield i, text


def _read(name: str) -> str | LEDError:
    try:
        return read_document(name)
    except LEDError as error:
        return error


@dataclass
class Block:
    """Documents that are computed together.

    Args:
        documents: names and texts of those that can be read.
        skip: numbers of those whose results exist.
        failed: the errors of those that cannot be read a second time, by name.
    """

    documents: list[tuple[str, str]] = field(default_factory=list)
    skip: set[int] = field(default_factory=set)
    failed: dict[str, LEDError] = field(default_factory=dict)


def digest_of(text: str) -> str:
    """The sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digests(corpus: Corpus, shard: Shard) -> Iterator[tuple[str, str | LEDError]]:
    """The name of each document of the shard and the sha256 of its text, or its error."""
    for i, text in corpus.read(shard.holds):
        yield corpus.names[i], text if isinstance(text, LEDError) else digest_of(text)


def blocks(corpus: Corpus, shard: Shard, known: Mapping[str, str | None], done: Collection[str]) -> Iterator[Block]:
    """The blocks of the shard in which a result is missing.

    Args:
        corpus: the documents.
        shard: the part that is computed.
        known: the digest of each document, None of one that could not be read: it is left out.
        done: the documents whose results exist.
    """
    missing = {
        i // shard.block for i, name in enumerate(corpus.names) if known.get(name) is not None and name not in done
    }
    texts = corpus.read(lambda i: i // shard.block in missing and known.get(corpus.names[i]) is not None)
    for _, group in itertools.groupby(texts, key=lambda numbered: numbered[0] // shard.block):
        block = Block()
        for i, text in group:
            name = corpus.names[i]
            if not isinstance(text, LEDError) and digest_of(text) != known[name]:
                text = InputError(f"{name} has changed since this run began. Run it again with --resume.")
            if isinstance(text, LEDError):
                block.failed[name] = text
                continue
            if name in done:
                block.skip.add(len(block.documents))
            block.documents.append((name, text))
        yield block


def results(given: Iterable[Block], work: Work) -> Iterator[tuple[str, Found | LEDError]]:
    """The name of each document of the blocks, and what was found or the error; each as soon as it is known."""
    for block in given:
        yield from block.failed.items()
        for i, found in work(block.documents, block.skip):
            yield block.documents[i][0], found
