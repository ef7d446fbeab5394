"""The results of a folder, put together: that of every document, in the order of the documents, whoever made it.

    summaries/led-ref.shard-1-of-2.json   00 ... 15, 32 ... 47     blocks of 16 documents (shards.py)
    summaries/led-ref.shard-2-of-2.json   16 ... 31, 48 ... 50
    gathered                              00 ... 50

The fingerprint of a result is the sha256 of all that decides how it comes out: the document's text, the model's files,
settings and version. Equal fingerprints: equal results.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from led_ref.errors import InputError, MissingFileError, printable
from led_ref.files.lines import parse_line
from led_ref.pipelines.result_folder import lines_of, manifests, names_digest, read_manifest, refuse_other_run

_MOST_NAMED = 5


@dataclass(frozen=True)
class Gathered:
    """What the manifests of a folder list.

    Args:
        folder: of the results.
        run: what decided how they came out.
        documents: the digest of each document's text by the name of its result, in the order of the documents.
        places: of each result its file, and of those that are lines the byte where it begins.
        missing: the names of the results that are not there.
    """

    folder: Path
    run: dict[str, Any]
    documents: dict[str, str | None]
    places: dict[str, tuple[Path, int | None]]
    missing: list[str]

    def results(self) -> Iterator[dict[str, Any]]:
        """Each result that is there: the name of its file, if it has one of its own, its fingerprint, and what it holds.

        Raises:
            InputError: if one cannot be read.
        """
        left_out = set(self.missing)
        for name, digest in self.documents.items():
            if name not in left_out:
                path, start = self.places[name]
                held = _line(path, start) if start is not None else {"result": name, **_file(path)}
                yield {**held, "fingerprint": fingerprint(self.run, digest)}


def _line(path: Path, start: int) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(start)
        return dict(parse_line(file.readline()))


def _file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
        return dict(parse_line(text.encode())) if path.name.endswith(".json") else {"text": text}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is no result of led-ref ({error}). Remove it, and make it anew with --resume."
        ) from error


def fingerprint(run: dict[str, Any], digest: str | None) -> str:
    """The sha256 of what decides how a result comes out.

    Args:
        run: version, model and settings, by name.
        digest: the sha256 of the document's text.
    """
    return hashlib.sha256(json.dumps([run, digest], sort_keys=True).encode()).hexdigest()


def gather(folder: Path, *, partial: bool = False) -> Gathered:
    """Check that a folder holds the result of every document.

    Args:
        folder: that --out named.
        partial: take what is there.

    Raises:
        MissingFileError: if there is no such folder, or no manifest in it.
        InputError: if a shard or a result is missing, or the shards are of different runs; the message names them.
    """
    paths = manifests(folder) if folder.is_dir() else []
    if not paths:
        raise MissingFileError(
            f"{folder} holds no results of led-ref: there is no led-ref.json in it. Name another folder."
        )
    found = [read_manifest(path) for path in paths]
    part = found[0]["shard"]
    if part is None and len(paths) == 1:
        documents = found[0]["documents"]
    else:
        documents = _of_shards(folder, [(path, manifest) for path, manifest in zip(paths, found, strict=True)])
    places: dict[str, tuple[Path, int | None]] = {
        name: (path, start)
        for path in (folder.glob("results*.jsonl") if found[0]["lines"] else ())
        for name, start in lines_of(path)
    }
    if not found[0]["lines"]:  # by the names that a manifest can hold
        places = {printable(path.name): (path, None) for path in folder.iterdir()}
    missing = [name for name in documents if name not in places]
    if missing and not partial:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise InputError(
            f"{len(missing)} of {len(documents)} results are missing in {folder}: {', '.join(missing[:_MOST_NAMED])}{more}. "
            "Run it again with --resume, which makes them or says what is wrong; or take what is there with --partial."
        )
    return Gathered(folder, found[0]["run"], documents, places, missing)


def _of_shards(folder: Path, found: list[tuple[Path, dict[str, Any]]]) -> dict[str, str | None]:
    """The documents of all shards, in their order."""
    path, first = found[0]
    part = first["shard"]
    for other, manifest in found[1:]:
        refuse_other_run(path, first["run"], manifest["run"])
        if not part or not manifest["shard"] or {**part, "number": 0} != {**manifest["shard"], "number": 0}:
            raise InputError(f"{path} and {other} are of runs with different documents or shards. Name another folder.")
    by_number = {manifest["shard"]["number"]: iter(manifest["documents"].items()) for _, manifest in found}
    if absent := [f"{i} of {part['of']}" for i in range(1, part["of"] + 1) if i not in by_number]:
        raise InputError(
            f"{folder} holds nothing of shard {', '.join(absent):.200}. Run them first (--shard I/{part['of']})."
        )
    blocks = -(-part["documents"] // part["block"])
    documents = {
        name: digest
        for k in range(blocks)
        for name, digest in itertools.islice(by_number[k % part["of"] + 1], part["block"])
    }
    if len(documents) != part["documents"] or names_digest(documents) != part["sha256 of the names"]:
        raise InputError(f"The manifests in {folder} do not fit together. Run all shards again with --resume.")
    return documents


def write_parquet(results: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write results as rows of text: what is no text is written as JSON. The columns are those of the first.

    Raises:
        InputError: where pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"{path} is to be Parquet, which needs pyarrow: pip install 'led-ref[parquet]'.") from error
    rows = iter(results)
    first = next(rows, {"result": None})
    schema = arrow.schema([(name, arrow.string()) for name in first])
    with parquet.ParquetWriter(path, schema) as file:
        rest = itertools.chain([first], rows)
        while some := list(itertools.islice(rest, 1000)):
            texts = [{name: _as_text(row.get(name)) for name in schema.names} for row in some]
            file.write_table(arrow.Table.from_pylist(texts, schema))


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
