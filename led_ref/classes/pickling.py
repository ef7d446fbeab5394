"""Pickling a model: by the folder that its weights are mapped from, so that no weight is copied; else by its arrays.

Pools of processes that spawn, joblib, Ray and Dask send objects as pickles. The other process maps the same files, and the
operating system keeps them in memory once for both.

    loaded from a folder, all arrays read-only      by folder; for a name on the Hub also by name and commit
    loaded onto a GPU                               the same
    everything else                                 by arrays: converted to another dtype while loading, quantized, merged with
                                                    an adapter, trained, resized, made by from_state_dict

A pickle by folder holds a checksum of the weights: other weights in that folder are refused. Like every pickle, read one only
if you trust its writer.
"""

import copyreg
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

import led_backends
from led_ref.errors import CheckpointError
from led_ref.model.params import LEDParams

# The attribute of LEDParams that holds a Source. It is no field: a copy with other tensors does not have it.
SOURCE = "_source"
LOOKED_AT = 4096  # numbers of each tensor that count for the checksum


@dataclass(frozen=True)
class Source:
    """Where weights were loaded from.

    Args:
        load: loads them again, from the folder or Hub name that it is given, and with `revision`.
        folder: an absolute path.
        hub: the name on the Hub and its commit; None: it was a folder.
    """

    load: Callable[..., LEDParams]
    folder: str
    hub: tuple[str, str] | None


def checksum(params: LEDParams) -> int:
    """CRC-32 of the first numbers of each tensor: any training changes it, and few pages of a mapped file are read."""
    crc = 0
    for array in _arrays(params):
        crc = zlib.crc32(np.ascontiguousarray(led_backends.to_host(array.reshape(-1)[:LOOKED_AT])).data, crc)
    return crc


def _arrays(value: Any) -> Iterator[Any]:
    """All arrays in dataclasses and tuples of them."""
    if hasattr(value, "dtype") and hasattr(value, "reshape"):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _arrays(getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _arrays(part)


def _take_apart(params: LEDParams) -> tuple[Any, ...]:
    """What pickle calls: the function that makes the parameters again, and its arguments."""
    source: Source | None = getattr(params, SOURCE, None)
    if source is not None and not any(
        isinstance(array, np.ndarray) and array.flags.writeable for array in _arrays(params)
    ):
        return _load_again, (source, checksum(params))
    return LEDParams, tuple(getattr(params, field.name) for field in fields(params))


def _load_again(source: Source, expected: int) -> LEDParams:
    """The weights of a pickle by folder.

    Raises:
        MissingFileError: if there is no such folder or Hub name.
        CheckpointError: if the weights in it are others.
    """
    if source.hub is None or Path(source.folder).is_dir():
        params = source.load(source.folder)
    else:
        params = source.load(source.hub[0], revision=source.hub[1])
    if checksum(params) != expected:
        raise CheckpointError(
            f"{source.folder} holds other weights than those that the pickled model was loaded from. Load the model from there "
            "and pickle it anew."
        )
    object.__setattr__(params, SOURCE, source)
    return params


copyreg.pickle(LEDParams, _take_apart)
