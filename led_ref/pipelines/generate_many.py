"""`led_ref.generate_many`: texts for many documents, in this process or on a cluster, yielded or written as they come.

    for name, text in led_ref.generate_many([Path("papers"), Path("more.jsonl")], model, workers=4, out="summaries"):
        ...

The rules of --out hold (result_folder.py), and the bits of one process (shards.py).
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from led_backends.notices import inform
from led_ref.classes.input_checks import check_types
from led_ref.errors import InputError, LEDError, SettingsError, printable, wrong_type
from led_ref.pipelines.batching import check_document_list
from led_ref.pipelines.corpus import Corpus, expand
from led_ref.pipelines.loading import GlobalAttention, holds_globals_of_each
from led_ref.pipelines.many import Block, Found, Job, blocks, digests, results, run_of_model
from led_ref.pipelines.progress import DocumentCount
from led_ref.pipelines.result_folder import ResultFolder
from led_ref.pipelines.shards import Shard, shard_of
from led_ref.pipelines.summarization import LED, TextOptions

_TOKENS = "tokens"  # that were read of a document; counted, and not written


@dataclass(frozen=True)
class _Generate:
    """The work: a loaded model, and the options of a call."""

    led: LED
    loading: Mapping[str, Any]
    options: TextOptions
    settings: Mapping[str, Any]

    def __call__(
        self, documents: Sequence[tuple[str, str]], skip: Collection[int]
    ) -> Iterator[tuple[int, Found | LEDError]]:
        """What is written for each document of a block."""
        prepared, numbers = [], []
        for i, (_, document) in enumerate(documents):
            try:
                prepared.append(self.led.pieces_of(document, self.options))
                numbers.append(i)
            except LEDError as error:
                yield i, error
        left_out = {k for k, i in enumerate(numbers) if i in skip}
        for k, text in self.led.generate_prepared(prepared, self.options, self.settings, skip=left_out):
            i = numbers[k]
            if isinstance(text, LEDError):
                yield i, text
            else:
                read = sum(len(piece.ids) for piece in prepared[k])
                yield i, {"file": documents[i][0], "text": text, _TOKENS: read}

    def run(self) -> dict[str, Any]:
        """What decides how the texts come out."""
        options = self.options
        return {
            **run_of_model(self.led, **self.loading),
            "cross_attention": options.cross_attention,
            "global_attention": global_names(options.global_attention),
            "truncate": options.truncation,
            **({} if options.split is None else {"split": options.split, "overlap": options.overlap}),
            **self.led.model.effective_settings(**self.settings).to_dict(),
        }


def _load(
    model: str | Path | None, loading: Mapping[str, Any], options: TextOptions, settings: Mapping[str, Any],
    notice: Callable[[str], None] | None = None,
) -> _Generate:  # fmt: skip
    led = LED.load(model, notice=notice or inform, **loading)
    return _Generate(led, {"model": model, **loading}, options, settings)


@check_types
def generate_many(
    documents: Iterable[str | Path],
    model: str | Path | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    redo: bool = False,
    shard: str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    text_field: str = "text",
    id_field: str | None = None,
    revision: str | None = None,
    backend: str = "auto",
    dtype: str = "float32",
    quantize: str | None = None,
    keep_stored: bool = False,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> Iterator[tuple[str, str | list[str] | LEDError]]:
    """Generate a text for each of many documents; of files, a block is in memory at a time.

    A program that uses `workers` needs `if __name__ == "__main__":`, since processes that are started import it.

    Args:
        documents: texts (str), a column of a frame too; files, folders and files of many documents (pathlib.Path), as for
            `led-ref summarize`.
        model: a folder, or a name on the Hub, which every worker must find; None: the bundled model.
        out: a folder for the results; those of texts and records are lines of JSON.
        resume: keep the results that `out` holds, and make the others.
        redo: of these, make anew those of another text, model or settings.
        shard: "2/4": part 2 of 4 of the documents.
        scheduler: the address of a Dask scheduler.
        workers: the number of worker processes on this machine, with Dask. Without both, this process computes.
        text_field: of records, the field of the text.
        id_field: that of an id, which lines of results keep; None: "id", where there is one.
        revision: as in `load`; and so are backend, dtype, quantize, keep_stored and notice.
        backend: by its name.
        dtype: what to compute in.
        quantize: "int8", "nf4" or "nf4-double".
        keep_stored: keep float16 and bfloat16 weights so.
        notice: called with a sentence that the user may want to read.
        options: as in LED.generate. progress=True shows documents and tokens a second, of all workers.

    Yields:
        The name of each document that is made now and its text, or the LEDError that refuses it, as soon as it is known. A
        text is named by its number.

    Raises:
        InputError: for documents of an invalid kind, for an `out` that holds other results, or where Dask is not installed.
        SettingsError: for a setting that does not exist, or a function `progress`, which workers cannot call.
        BackendError: if a scheduler is not there, or has ended.
        LEDError: as `load`.
    """
    chosen, settings = TextOptions.separate(options)
    if holds_globals_of_each(chosen.global_attention):
        raise InputError("global_attention holds a list for each document; of many documents all have the same.")
    if callable(chosen.progress) and (scheduler is not None or workers is not None):
        raise SettingsError("progress is a function, which workers cannot call. Pass progress=True, or None.")
    named = check_document_list(documents, "documents")
    for one in named:
        if not isinstance(one, str | os.PathLike):
            raise wrong_type("documents", one, "texts (str), or files (pathlib.Path)")
    texts = [str(text) for text in named if isinstance(text, str)]
    given = [str(path) for path in named if not isinstance(path, str)]
    if texts and given:
        raise InputError("documents must be texts (str), or files (pathlib.Path), and at least one. Give one kind.")
    files, _ = expand(given, out=None if out is None else Path(out))
    corpus = Corpus(sorted(files), text_field, id_field, texts)
    part = shard_of(shard, chosen.batch_size)
    loading = {
        "revision": revision, "backend": backend, "dtype": dtype, "quantize": quantize, "keep_stored": keep_stored,
    }  # fmt: skip
    folder = None
    if out is not None:
        ending = None if corpus.has_records else "summary.txt"
        folder = ResultFolder(Path(out), corpus.names, ending=ending, shard=part, resume=resume, redo=redo)
    shows = chosen.progress is True
    load = partial(_load, model, loading, replace(chosen, progress=None) if shows else chosen, settings)
    return _run(corpus, part, folder, load, notice, scheduler, workers, shows=shows)


def _run(
    corpus: Corpus, part: Shard, folder: ResultFolder | None, load: Callable[..., _Generate],
    notice: Callable[[str], None] | None, scheduler: str | None, workers: int | None, *, shows: bool,
) -> Iterator[tuple[str, str | list[str] | LEDError]]:  # fmt: skip
    """The texts as they come."""
    known: dict[str, str | None] = {}
    for name, digest in digests(corpus, part):
        refused = digest if folder is None else folder.refused.get(name, digest)
        known[name] = None if isinstance(refused, LEDError) else refused
        if isinstance(refused, LEDError):
            yield name, refused
    job = load(notice=notice)
    run = job.run()
    with contextlib.ExitStack() as stack:
        done = set[str]() if folder is None else stack.enter_context(folder.begun(run, known))
        todo = blocks(corpus, part, known, done)
        if scheduler is None and workers is None:
            found = results(todo, job)
        else:
            found = stack.enter_context(on_workers(todo, load, run, scheduler=scheduler, workers=workers))
        count = stack.enter_context(DocumentCount(len(known), len(done), enabled=shows))
        for name, one in found:
            count(0 if isinstance(one, LEDError) else one.pop(_TOKENS))
            yield name, _written(folder, name, one)


def _written(folder: ResultFolder | None, name: str, found: Found | LEDError) -> str | list[str] | LEDError:
    """A text, or its error, when it is on the disk."""
    if isinstance(found, LEDError):
        return found
    text: str | list[str] = found["text"]
    if folder is not None:
        try:
            lines = text if isinstance(text, str) else "\n".join(text)
            folder.write(name, found if folder.has_lines else printable(lines))
        except LEDError as error:
            return error
    return text


@contextlib.contextmanager
def on_workers(
    given: Iterable[Block],
    load: Callable[[], Job],
    run: Mapping[str, Any],
    *,
    scheduler: str | None,
    workers: int | None,
) -> Iterator[Iterator[tuple[str, Found | LEDError]]]:
    """As `results`, on a Dask cluster (cluster.py), which is imported here.

    Args:
        given: the blocks.
        load: loads the model on a worker.
        run: what decides how results come out: that of every worker must be equal.
        scheduler: the address of the cluster; None: one of `workers` processes on this machine is made.
        workers: see `scheduler`.

    Raises:
        InputError: where Dask is not installed, and for a number of workers that is none.
        BackendError: as cluster.py.
    """
    if (scheduler is None) == (workers is None) or (workers is not None and workers < 1):
        raise InputError(
            f"scheduler is {scheduler!r} and workers is {workers!r}; give the address of a scheduler, or a number of workers."
        )
    try:
        from led_ref.pipelines.cluster import cluster_client, results_on
    except ImportError as error:
        raise InputError("A cluster needs Dask: pip install 'led-ref[cluster]'.") from error
    with cluster_client(scheduler, workers) as client:
        yield results_on(client, given, load, run)


def global_names(global_attention: GlobalAttention) -> Any:
    """A global_attention, JSON-ready: a text, or a list of Python's numbers and texts."""
    if isinstance(global_attention, str | np.ndarray):
        return str(global_attention) if isinstance(global_attention, str) else global_attention.tolist()
    return [str(one) if isinstance(one, str) else np.asarray(one).tolist() for one in global_attention]
