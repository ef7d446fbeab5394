"""Many documents, a block at a time: their memory does not grow with their number.

    digests     every document is read once, before a model is loaded: what cannot be read shows early
    blocks      they are read again, block by block, and a block goes to the work: a loaded model and what it does
    results     what the work found, document by document, as soon as it is known

The blocks are those of shards.py. The work is a function of a block, so it may run here or elsewhere.
"""

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from led_ref.errors import InputError, LEDError
from led_ref.pipelines.corpus import Corpus
from led_ref.pipelines.shards import Shard

if TYPE_CHECKING:
    from led_ref.pipelines.loading import TextPipeline

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


class Job(Work, Protocol):
    """Work that knows what decides how its results come out."""

    def run(self) -> dict[str, Any]:
        """Everything that decides how a result comes out, by name: JSON-ready."""
        ...


def run_of_model(
    pipeline: "TextPipeline[Any]", model: str | Path | None, *, revision: str | None = None, **settings: Any
) -> dict[str, Any]:
    """What of a loaded model decides how its results come out: JSON-ready.

    Args:
        pipeline: the loaded model.
        model: its folder or name, None: the bundled one.
        revision: of a name on the Hub.
        settings: those of loading it that decide, too.
    """
    from led_ref import __version__
    from led_ref.pipelines.loading import bundled_model
    from led_ref.weights.find_files import model_digest, resolve

    folder = bundled_model(pipeline.task) if model is None else resolve(model, revision=revision)
    return {
        "led_ref": __version__,
        "model": pipeline.name,
        "sha256 of the model": model_digest(folder),
        **settings,
        "backend": pipeline.model.backend.name,
        "dtype": pipeline.model.dtype,
    }


@dataclass
class Block:
    """Documents that are computed together.

    Args:
        documents: names and texts of those that can be read.
        skip: numbers of those whose results exist.
        failed: the errors of those that cannot be read a second time, by name.
        ids: those of records, by name.
    """

    documents: list[tuple[str, str]] = field(default_factory=list)
    skip: set[int] = field(default_factory=set)
    failed: dict[str, LEDError] = field(default_factory=dict)
    ids: dict[str, str | int] = field(default_factory=dict)


def digest_of(text: str) -> str:
    """The sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digests(corpus: Corpus, shard: Shard) -> Iterator[tuple[str, str | LEDError]]:
    """The name of each document of the shard and the sha256 of its text, or its error."""
    for given in corpus.read(shard.holds):
        yield given.name, given.text if isinstance(given.text, LEDError) else digest_of(given.text)


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
    texts = corpus.read(lambda i: i // shard.block in missing)
    for _, group in itertools.groupby(texts, key=lambda given: given.i // shard.block):
        block = Block()
        for given in group:
            name, text = given.name, given.text
            if known.get(name) is None:
                continue
            if not isinstance(text, LEDError) and digest_of(text) != known[name]:
                text = InputError(f"{name} has changed since this run began. Run it again with --resume.")
            if isinstance(text, LEDError):
                block.failed[name] = text
                continue
            if name in done:
                block.skip.add(len(block.documents))
            if given.id is not None:
                block.ids[name] = given.id
            block.documents.append((name, text))
        yield block


def results(given: Iterable[Block], work: Work) -> Iterator[tuple[str, Found | LEDError]]:
    """The name of each document of the blocks, and what was found or the error; each as soon as it is known."""
    for block in given:
        yield from block.failed.items()
        yield from named(block, work(block.documents, block.skip))


def named(block: Block, found: Iterable[tuple[int, Found | LEDError]]) -> Iterator[tuple[str, Found | LEDError]]:
    """What was found in a block by the names of its documents, with their ids."""
    for i, of_one in found:
        name = block.documents[i][0]
        if name in block.ids and not isinstance(of_one, LEDError):
            of_one = {"file": name, "id": block.ids[name], **of_one}
        yield name, of_one
