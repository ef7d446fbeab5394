"""A stand-in for CuPy where there is no GPU: the module `cupy`, strict, computed by NumPy.

    with installed():               # now `import cupy` finds the stand-in
        backend = CupyBackend()
        with no_sync():             # whatever waits for the device raises
            backend.linear(...)
        with counting() as counts:  # .syncs, .copies, .launches, .uploads
            ...

It answers one question: would this program run on CuPy, unchanged, and would it wait for the device no more often than
it says? It has CuPy's names, signatures and ufunc types as recorded from the real package (cupy_surface.json), and its
array refuses what CuPy's refuses (device_array.py). It says nothing about speed, nor about CuPy's rounding; kernels are
run by twins in NumPy (raw_kernels.py), while the kernels themselves are run in tests/kernels.
"""

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
from stand_in.device_array import PLAIN, ndarray, unwrap, wrap
from stand_in.fake_cuda import cublas_module, cuda_module, get_default_memory_pool
from stand_in.graphs import DEVICE, done, made, new, refuse
from stand_in.ledger import LEDGER, counting, no_sync
from stand_in.raw_kernels import RawKernel, RawModule
from stand_in.surface import FUNCTIONS, RECORDED, UFUNC_KEYWORDS, NotModelledError, check_call, check_ufunc

__all__ = ["counting", "cupy", "function", "installed", "ndarray", "no_sync"]


WRITING = (np.copyto, np.fill_diagonal, np.place, np.putmask)  # into what they are given


@cache
def function(name: str) -> Callable[..., Any]:
    """The stand-in's function of that name ("exp", "linalg.norm"); AttributeError if CuPy has none."""
    if name not in FUNCTIONS:
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    recorded, special = FUNCTIONS[name], SPECIAL.get(name)
    compute = special or _of_numpy(name)
    if "ufunc" in recorded and isinstance(compute, np.ufunc):
        return _ufunc(name, compute)

    def call(*args: Any, **kwargs: Any) -> Any:
        check_call(name, recorded.get("params"), args, kwargs)
        return compute(*args, **kwargs) if special else _computed(compute, args, kwargs)

    call.__name__ = name
    return call


def _of_numpy(name: str) -> Any:
    found: Any = np
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise NotModelledError(f"cupy.{name}: NumPy has no such function, and the stand-in no other; teach it")
    return found


def _computed(compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """NumPy's result as device arrays; `out`, where it was given, is the result."""
    host = {name: unwrap(value) for name, value in kwargs.items()}
    out = kwargs.get("out")
    with np.errstate(all="ignore"):
        if out is not None or compute in WRITING:
            done(compute, *unwrap(args), **host)
            return out
        found = made(compute, *unwrap(args), **host)
    for arg in args:
        if isinstance(arg, ndarray) and found is arg._host:
            return arg
    return wrap(found)


def _ufunc(name: str, ufunc: np.ufunc) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if unknown := set(kwargs) - UFUNC_KEYWORDS:
            raise TypeError(f"cupy's ufunc {name}: wrong arguments {sorted(unknown)}")
        if len(args) not in (ufunc.nin, ufunc.nin + ufunc.nout):
            raise TypeError(f"cupy's ufunc {name} takes {ufunc.nin} operands, not {len(args)}")
        for operand in args:
            if not isinstance(operand, (ndarray, *PLAIN)):
                raise TypeError(f"Unsupported type {type(operand)}")
        if len(args) > ufunc.nin:
            args, kwargs["out"] = args[: ufunc.nin], args[ufunc.nin]
        check_ufunc(name, ufunc, list(args), kwargs.get("dtype"))
        return _computed(_flushing(ufunc), args, kwargs)

    call.__name__ = name
    return call


@cache
def _flushing(ufunc: np.ufunc) -> Callable[..., Any]:
    """CuPy compiles its kernels with -ftz=true: to them a float32 below its normal numbers is 0."""

    def compute(*operands: Any, **options: Any) -> Any:
        return ufunc(*map(_normal, operands), **options)

    return compute


def _normal(operand: Any) -> Any:
    if not isinstance(operand, np.ndarray) or operand.dtype != np.float32:
        return operand
    below = (np.abs(operand) < np.finfo(np.float32).tiny) & (operand != 0)
    return np.where(below, np.float32(0), operand) if below.any() else operand


# ---- functions that are not NumPy's with arrays unwrapped --------------------------------------------------------------


def _from_host(compute: Callable[..., Any]) -> Callable[..., Any]:
    """array, asarray and their kin: the door through which numbers come onto the device."""

    def make(a: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("blocking", None)
        if isinstance(a, ndarray):
            host = made(compute, a._host, dtype, *args, **kwargs)
            return a if host is a._host else wrap(host)
        host = np.array(_lists(a), dtype)
        if host.dtype.kind in "OSUMm":
            raise ValueError(f"Unsupported dtype {host.dtype}")
        LEDGER.upload()
        return wrap(np.ascontiguousarray(host) if host.ndim else host)

    return make


def _lists(value: Any) -> Any:
    return [_lists(entry) for entry in value] if isinstance(value, list | tuple) else getattr(value, "_host", value)


def _asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a, order=order)


def _dirty(compute: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: wrap(new(compute(*unwrap(args), **kwargs)))


def _waiting(name: str) -> Callable[..., Any]:
    """Functions whose result's shape depends on the numbers, so that they wait for them."""

    def compute(*args: Any, **kwargs: Any) -> Any:
        LEDGER.sync(name)
        return _computed(_of_numpy(name), args, kwargs)

    return compute


def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    return condition.nonzero() if x is None else _computed(np.where, (condition, x, y), {})


def _matmul(a: Any, b: Any, out: Any = None, **options: Any) -> Any:
    """The product, and a note of what CuPy copies for it: cuBLAS is given dense matrices only.

    Of more than two axes every operand must be C-contiguous: even a transposed view is copied first. Matrices may also
    lie the other way round. A result that is to go into a view is made elsewhere and copied into it.
    """
    if any(options.get(name) is not None for name in ("axes", "axis", "signature")) or options.get("keepdims"):
        raise NotModelledError(f"matmul with {sorted(options)}")
    if not isinstance(a, ndarray) or not isinstance(b, ndarray):
        raise TypeError(f"Unsupported types for matmul: {type(a)}, {type(b)}")
    if 0 in (a.ndim, b.ndim):
        raise ValueError("Scalar operands are not allowed, use '*' instead")
    refuse("calling cuBLAS API during stream capture is currently unsupported", NotImplementedError)
    batched = max(a.ndim, b.ndim) > 2
    for operand in (a, b):
        dense = operand.flags.c_contiguous or (not batched and operand.flags.f_contiguous)
        if not dense:
            LEDGER.copy("matmul operand", operand._host)
    if out is not None and not out.flags.c_contiguous:
        LEDGER.copy("matmul result", out._host)
    return _computed(np.matmul, (a, b), {"out": out} if out is not None else {})


def _dot(a: Any, b: Any, out: Any = None) -> Any:
    if out is not None and (not out.flags.c_contiguous or out.dtype != np.result_type(a._host, b._host)):
        raise ValueError("Output array must be C-contiguous and of the operands' dtype")
    if max(a.ndim, b.ndim) > 2:
        raise NotModelledError("dot of more than two axes; use matmul")
    return _matmul(a, b, out) if min(a.ndim, b.ndim) else a * b


def _sorted(compute: Callable[..., Any]) -> Callable[..., Any]:
    def call(a: Any, axis: Any = -1, kind: Any = None) -> Any:
        if kind not in (None, "stable"):
            raise ValueError(f"kind can only be None or 'stable' in CuPy, not {kind!r}")
        return _computed(compute, (a, axis), {"kind": "stable"})

    return call


def _take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
    return a.take(indices, axis, out)


def _take_along_axis(a: Any, indices: Any, axis: Any) -> Any:
    host, places = (a._host.ravel(), indices._host.ravel()) if axis is None else (a._host, indices._host)
    axis = 0 if axis is None else axis
    return wrap(np.take_along_axis(host, places % host.shape[axis], axis))


def _put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    host, places = arr._host, indices._host % arr.shape[axis]
    in_order = np.sort(places, axis)
    if np.size(unwrap(values)) > 1 and (np.diff(in_order, axis=axis) == 0).any():
        raise RuntimeError("duplicate indices in put_along_axis: which value stays is undefined on a GPU")
    np.put_along_axis(host, places, unwrap(values), axis)


def _rsqrt(x: Any) -> Any:
    return 1 / function("sqrt")(x)


SPECIAL: dict[str, Callable[..., Any]] = {
    **{
        name: _from_host(getattr(np, name)) for name in ("asarray", "asanyarray", "ascontiguousarray", "asfortranarray")
    },
    **{name: _waiting(name) for name in ("flatnonzero", "argwhere", "unique", "extract", "compress", "bincount")},
    **{name: _dirty(getattr(np, name)) for name in ("empty", "empty_like")},
    "array": _from_host(lambda a, dtype=None, copy=True, **k: np.array(a, dtype, copy=copy or None, **k)),
    "nonzero": lambda a: a.nonzero(),
    "where": _where,
    "asnumpy": _asnumpy,
    "matmul": _matmul,
    "dot": _dot,
    "sort": _sorted(np.sort),
    "argsort": _sorted(np.argsort),
    "take": _take,
    "take_along_axis": _take_along_axis,
    "put_along_axis": _put_along_axis,
    "cupyx.rsqrt": _rsqrt,
    "cupyx.scatter_add": lambda a, slices, value: a.scatter_add(slices, value),
    "get_default_memory_pool": get_default_memory_pool,
}


# ---- the modules -----------------------------------------------------------------------------------------------------


class StandIn(types.ModuleType):
    """A module that has what CuPy's module of that name has, and nothing more."""

    def __init__(self, name: str, prefix: str = "") -> None:
        super().__init__(name)
        self.__dict__["_prefix"] = prefix

    def __getattr__(self, name: str) -> Any:
        full = self._prefix + name
        if full in FUNCTIONS:
            return function(full)
        if any(known.startswith(full + ".") for known in FUNCTIONS):
            return StandIn(f"{self.__name__}.{name}", full + ".")
        if not self._prefix and name in RECORDED["numpy_types"] and hasattr(np, name):
            return getattr(np, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


cupy = StandIn("cupy")
cupy.__dict__.update(
    {name: float(value) for name, value in RECORDED["constants"].items()},
    newaxis=None,
    ndarray=ndarray,
    RawModule=RawModule,
    RawKernel=RawKernel,
    cuda=cuda_module(),
    __version__=RECORDED["cupy"],
    __path__=[],
)
cupyx = StandIn("cupyx", "cupyx.")


@contextmanager
def installed() -> Iterator[StandIn]:
    """Meanwhile, `import cupy` finds the stand-in."""
    modules = {"cupy": cupy, "cupyx": cupyx, "cupy.cuda": cupy.cuda, "cupy.cuda.runtime": cupy.cuda.runtime}
    for package in ("cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.libs"):
        modules[package] = types.ModuleType(package)
    modules["cupy_backends.cuda.libs"].cublas = modules["cupy_backends.cuda.libs.cublas"] = cublas_module()
    DEVICE.queued = None  # what was queued before is done
    with mock.patch.dict(sys.modules, modules):
        yield cupy
