"""Blocks of documents on the workers of a Dask cluster, on this machine or on many.

    client       reads the documents, sends blocks, and writes the results as they come
    scheduler    Dask's; it hands blocks to workers, and once more where a worker has died
    worker       loads the model at its first block, by name or folder, and keeps it: weights are mapped, and several workers
                 of one machine share them

A block is computed as one process would compute it (shards.py), so the results are the same. Where the client or the scheduler
ends, what is written stays, and --resume goes on.
Source: https://distributed.dask.org, of the classes Client, LocalCluster, WorkerPlugin and as_completed.
"""

import contextlib
import json
import tempfile
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any

from distributed import Client, Future, LocalCluster, WorkerPlugin, as_completed, get_worker

from led_backends.processors import VARIABLES, find_threads
from led_ref.errors import BackendError, LEDError, quoted
from led_ref.pipelines.many import Block, Found, Job, named
from led_ref.pipelines.result_folder import settings_that_differ

_RETRIES = 2  # of a block whose computation failed; Dask itself sends one again whose worker died
_PATIENCE = 60  # seconds to wait for a scheduler, and for its first worker


class LoadingError(BackendError):
    """A worker cannot load the model, or has another: no block would fare better."""


class _Model(WorkerPlugin):  # type: ignore[misc]
    """What a worker keeps: the model, loaded at its first block.

    Args:
        load: loads it.
        run: what decides how results come out, of the client's: the worker's must be equal.
    """

    def __init__(self, load: Callable[[], Job], run: Mapping[str, Any]) -> None:
        self._load, self._run = load, dict(run)
        self._job: Job | None = None

    def setup(self, worker: Any) -> None:
        """Called when the worker begins; loading would keep it from answering the scheduler."""
        self._lock = threading.Lock()

    def compute(
        self, documents: Sequence[tuple[str, str]], skip: Collection[int]
    ) -> list[tuple[int, Found | LEDError]]:
        """The results of a block."""
        with self._lock:  # a model computes one block at a time, whatever the worker's threads
            if self._job is None:
                self._job = self._loaded()
            return list(self._job(documents, skip))

    def _loaded(self) -> Job:
        try:
            job = self._load()
        except LEDError as error:
            raise LoadingError(f"{get_worker().address}: {error}") from error
        run = json.loads(json.dumps(job.run()))
        if other := settings_that_differ(self._run, run):
            found = ", ".join(f"{name} {quoted(run.get(name), 80)}" for name in other)
            raise LoadingError(
                f"The worker {get_worker().address} has {found}, which the client has otherwise. Give all workers the same "
                "version of led_ref, and the same model by its folder or name."
            )
        return job


def _compute(
    name: str, documents: Sequence[tuple[str, str]], skip: Collection[int]
) -> list[tuple[int, Found | LEDError]]:
    """What a worker runs."""
    model: _Model = get_worker().plugins[name]
    return model.compute(documents, skip)


@contextlib.contextmanager
def cluster_client(scheduler: str | None, workers: int | None) -> Iterator[Client]:
    """A connection to a scheduler, or to a cluster of so many workers on this machine, which ends with the context.

    Raises:
        BackendError: if there is no scheduler at that address, or no worker comes.
    """
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            place = stack.enter_context(tempfile.TemporaryDirectory())
            # Mapped weights count for each worker that maps them: a limit would end workers that share a model.
            threads = max(1, find_threads().number // (workers or 1))
            local = LocalCluster(
                n_workers=workers, threads_per_worker=1, memory_limit=0, local_directory=place, dashboard_address=":0",
                env=dict.fromkeys(VARIABLES, str(threads)),
            )  # fmt: skip
            scheduler = stack.enter_context(local)
        try:
            client = stack.enter_context(Client(scheduler, timeout=_PATIENCE, set_as_default=False))
            client.wait_for_workers(1, timeout=_PATIENCE)
        except (OSError, ValueError) as error:
            raise BackendError(
                f"There is no Dask scheduler with a worker at {scheduler} ({error!s:.200}). Start both: dask scheduler; "
                "dask worker ADDRESS."
            ) from error
        yield client


def results_on(
    client: Client, given: Iterable[Block], load: Callable[[], Job], run: Mapping[str, Any]
) -> Iterator[tuple[str, Found | LEDError]]:
    """As many.results, on the workers of a cluster.

    Args:
        client: is connected to it.
        given: the blocks; two for each worker are under way.
        load: loads model and settings on a worker.
        run: what decides how results come out.

    Raises:
        BackendError: if the scheduler ends, or a worker has another model.
    """
    name = f"led_ref-{uuid.uuid4().hex}"
    run = json.loads(json.dumps(run))
    try:
        client.register_plugin(_Model(load, run), name=name)
        yield from _results(client, iter(given), name)
    except (OSError, CancelledError) as error:
        raise BackendError(
            f"The Dask scheduler has ended ({error!s:.200}). What is written stays; start it again, and go on with --resume."
        ) from error
    finally:
        with contextlib.suppress(Exception):
            client.unregister_worker_plugin(name)


def _results(client: Client, given: Iterator[Block], name: str) -> Iterator[tuple[str, Found | LEDError]]:
    waiting, sent = as_completed(loop=client.loop), dict[str, Block]()
    block: Block | None = Block()
    while block is not None or sent:
        most = 2 * max(1, len(client.nthreads()))
        while block is not None and len(sent) < most:
            block = next(given, None)
            if block is None:
                break
            yield from block.failed.items()
            if block.documents:
                future = client.submit(_compute, name, block.documents, block.skip, pure=False, retries=_RETRIES)
                sent[future.key] = block
                waiting.add(future)
        if sent:
            future = next(waiting)
            done = sent.pop(future.key)
            yield from named(done, _outcome(future, done))


def _outcome(future: Future, block: Block) -> list[tuple[int, Found | LEDError]]:
    """What became of a block."""
    try:
        found: list[tuple[int, Found | LEDError]] = future.result()  # one that its worker took along is computed again
    except Exception as error:
        if future.status != "error" or isinstance(error, LoadingError):
            raise
        failed = BackendError(
            f"its block of {len(block.documents)} failed on the workers ({error!r:.200}). --resume tries it again; if workers "
            "have too little memory, take fewer or a smaller --batch-size."
        )
        return [(i, failed) for i in range(len(block.documents)) if i not in block.skip]
    return found
