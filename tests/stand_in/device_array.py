"""The array of the stand-in: numbers that live on a device which is not there.

It holds a NumPy array and computes with it, but offers only what cupy.ndarray offers, and refuses what that refuses:
becoming a NumPy array unasked, meeting one in an operation or as an index. It is stricter than CuPy where CuPy would do
something costly or undefined without a word: lists and NumPy arrays as indices (an upload), scattering several values to
one place (which one stays is undefined). It is as lax as CuPy where that hides mistakes: an integer index out of range
wraps around, new memory is dirty, a 0-d result is an array still.

What is not here: streams, several devices, and every method that led_ref has no use for (NotModelledError).
"""

import types
from collections.abc import Iterator
from typing import Any

import numpy as np
from stand_in.graphs import done, made, new
from stand_in.ledger import LEDGER
from stand_in.surface import METHODS, RECORDED, NotModelledError, check_call

PLAIN = (int, float, bool, complex, np.generic)  # what may meet a device array in an operation
# Methods whose result is the same function's of NumPy, once arguments are checked.
SAME = {
    "all", "any", "argmax", "argmin", "astype", "clip", "conj", "cumprod", "cumsum", "diagonal", "flatten", "max",
    "mean", "min", "prod", "ptp", "ravel", "repeat", "reshape", "round", "searchsorted", "squeeze", "std", "sum",
    "swapaxes", "trace", "transpose", "var",
}  # fmt: skip


def unwrap(value: Any) -> Any:
    """The NumPy array behind a device array, in whatever nest of tuples; refuses arrays of the host."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: it lives on the host; bring it over with cupy.asarray")
    if isinstance(value, list | tuple):
        return type(value)(unwrap(entry) for entry in value)
    return value


def wrap(value: Any) -> Any:
    """NumPy's arrays and scalars become device arrays, in whatever nest of tuples."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        LEDGER.hold(array)
        return ndarray._of(array)
    if isinstance(value, list | tuple):
        return type(value)(wrap(entry) for entry in value)
    return value


class Flags:
    """How an array lies in memory."""

    def __init__(self, flags: Any) -> None:
        for name in RECORDED["flags"]:
            setattr(self, name, getattr(flags, name))

    def __getitem__(self, name: str) -> bool:
        found: bool = getattr(self, name.lower())
        return found


class ndarray:
    """An array on the device: cupy.ndarray's surface over a NumPy array."""

    __slots__ = ("__weakref__", "_host")
    _host: np.ndarray
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __new__(cls, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C") -> Any:
        """New memory, dirty."""
        if memptr is not None or strides is not None:
            raise NotModelledError("ndarray of given memory")
        return wrap(new(np.empty(unwrap(shape), dtype, order)))

    @classmethod
    def _of(cls, host: np.ndarray) -> "ndarray":
        made = object.__new__(cls)
        object.__setattr__(made, "_host", host)
        return made

    # ---- what is refused ---------------------------------------------------------------------------------------------

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion of a device array to a NumPy array is not allowed: call .get() for it.")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """NumPy's own functions given device arrays: CuPy runs its own of that name."""
        from stand_in.cupy_stand_in import function

        if method != "__call__":
            raise TypeError(f"cupy has no {ufunc.__name__}.{method} through NumPy")
        outs = kwargs.pop("out", ())
        return function(ufunc.__name__)(*inputs, **kwargs, **({"out": outs[0]} if outs else {}))

    def __array_function__(self, called: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from stand_in.cupy_stand_in import function

        module = called.__module__.removeprefix("numpy").lstrip(".")
        return function(f"{module}.{called.__name__}" if module else called.__name__)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in SAME:
            return lambda *args, **kwargs: self._same(name, args, kwargs)
        if name in METHODS or name in RECORDED["properties"]:
            raise NotModelledError(f"cupy.ndarray.{name}: the stand-in does not model it yet (device_array.py)")
        raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "shape":
            raise AttributeError(f"cupy.ndarray.{name} cannot be set")
        self._host.shape = value

    def _same(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        check_call(f"ndarray.{name}", METHODS[name], args, kwargs)
        out, given = kwargs.get("out"), {k: unwrap(v) for k, v in kwargs.items() if v is not None}
        with np.errstate(all="ignore"):
            if out is not None:
                done(getattr(np.ndarray, name), self._host, *unwrap(args), **given)
                return out
            found = made(getattr(np.ndarray, name), self._host, *unwrap(args), **given)
        return self if found is self._host else wrap(found)

    # ---- what waits for the device -------------------------------------------------------------------------------------

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        LEDGER.sync("get")
        if out is not None:
            np.copyto(out, self._host)
            return out
        return self._host.copy(order)

    def item(self) -> Any:
        LEDGER.sync("item")
        return self._host.item()

    def tolist(self) -> Any:
        LEDGER.sync("tolist")
        return self._host.tolist()

    def tobytes(self, order: str = "C") -> bytes:
        LEDGER.sync("tobytes")
        return self._host.tobytes(order)

    def __bool__(self) -> bool:
        LEDGER.sync("bool")
        return bool(self._host)

    def __float__(self) -> float:
        LEDGER.sync("float")
        return float(self._host)

    def __int__(self) -> int:
        LEDGER.sync("int")
        return int(self._host)

    def __index__(self) -> int:
        LEDGER.sync("index")
        return self._host.__index__()

    def __complex__(self) -> complex:
        LEDGER.sync("complex")
        return complex(self._host)

    def __reduce__(self) -> Any:
        LEDGER.sync("pickle")
        raise NotModelledError("pickling a device array")

    def __repr__(self) -> str:
        LEDGER.sync("repr")
        return f"device {self._host!r}"

    __str__ = __repr__

    def nonzero(self) -> tuple["ndarray", ...]:
        LEDGER.sync("nonzero")  # the result's length must be known
        found: tuple[ndarray, ...] = wrap(self._host.nonzero())
        return found

    # ---- what only makes views -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator["ndarray"]:
        """Rows are views, and cost nothing. Numbers one by one are fetched one by one, as a rule: that is counted."""
        if self._host.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        if self._host.ndim == 1:
            LEDGER.sync("iter")
        return (self[i] for i in range(len(self._host)))

    def __copy__(self) -> "ndarray":
        return self.copy()

    def __deepcopy__(self, memo: Any) -> "ndarray":
        return self.copy()

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    data = property(lambda self: types.SimpleNamespace(ptr=self._host.ctypes.data))
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: Flags(self._host.flags))
    T = property(lambda self: wrap(self._host.T))
    mT = property(lambda self: wrap(self._host.mT))
    real = property(lambda self: wrap(self._host.real))

    def view(self, dtype: Any = None, type: Any = None) -> "ndarray":  # noqa: A002 - CuPy's name
        found: ndarray = wrap(self._host.view() if dtype is None else self._host.view(dtype))
        return found

    # ---- methods that differ from NumPy's ------------------------------------------------------------------------------

    def copy(self, order: str = "C") -> "ndarray":
        found: ndarray = wrap(made(np.ndarray.copy, self._host, order))
        return found

    def fill(self, value: Any) -> None:
        done(np.ndarray.fill, self._host, unwrap(value))

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Upload into memory that is there already."""
        if not isinstance(arr, np.ndarray) or arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError(f"set() takes a NumPy array of {self.shape}, {self.dtype}")
        LEDGER.upload()
        done(np.ndarray.__setitem__, self._host, ..., arr)

    def argsort(self, axis: Any = -1, kind: Any = None) -> "ndarray":
        _check_sort(kind)
        found: ndarray = wrap(made(np.ndarray.argsort, self._host, axis, kind="stable"))
        return found

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        _check_sort(kind)
        done(np.ndarray.sort, self._host, axis, kind="stable")

    def take(self, indices: Any, axis: Any = None, out: Any = None) -> "ndarray":
        if out is not None:
            raise NotModelledError("take(out=)")
        found: ndarray = wrap(made(np.ndarray.take, self._host, unwrap(indices), axis, mode="wrap"))
        return found

    def dot(self, b: "ndarray", out: Any = None) -> Any:
        from stand_in.cupy_stand_in import function

        return function("dot")(self, b, out)

    def scatter_add(self, slices: Any, value: Any) -> None:
        """`a[slices] += value` where several values for one place all count."""
        done(_add_at, self._host, self._key(slices), unwrap(value))

    # ---- indexing ----------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> "ndarray":
        found: ndarray = wrap(made(_taken, self._host, self._key(key)))
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(value, (ndarray, *PLAIN)):
            raise TypeError(f"Unsupported type {type(value)}: a device array is set from device arrays or scalars")
        with np.errstate(all="ignore"):
            done(_set, self._host, self._key(key), unwrap(value))

    def _key(self, key: Any) -> Any:
        """The key for NumPy: arrays unwrapped; masks are counted as a wait."""
        found = []
        for part in _tuple(key):
            if isinstance(part, np.ndarray | list):
                raise TypeError(f"{type(part)} as an index: it lives on the host; bring it over with cupy.asarray")
            if isinstance(part, ndarray) and part.dtype == bool:
                LEDGER.sync("mask as an index")  # CuPy must know how many are True, for reading and for writing
            elif isinstance(part, ndarray) and part.dtype.kind not in "iu":
                raise IndexError(f"arrays used as indices must be of integer or boolean type (actual: {part.dtype})")
            found.append(unwrap(part) if isinstance(part, ndarray) else part)
        return tuple(found) if isinstance(key, tuple) else found[0]


def _taken(host: np.ndarray, key: Any) -> Any:
    """`host[key]`; of one number a view, not a copy, unless an array says which."""
    found = host[_wrapped(host, key)]
    if isinstance(found, np.generic) and not any(isinstance(part, np.ndarray) for part in _tuple(key)):
        return host[(*_tuple(key), ...)]
    return found


def _set(host: np.ndarray, key: Any, value: Any) -> None:
    """`host[key] = value`, unless it is undefined which of several values stays."""
    key = _wrapped(host, key)
    if np.size(value) > 1:
        _refuse_duplicates(key)
    host[key] = value


def _wrapped(host: np.ndarray, key: Any) -> Any:
    """The key whose integers in arrays are wrapped around where they are out of range."""
    parts = _tuple(key)
    covered = sum(_axes_of(part) for part in parts)
    axis, found = 0, []
    for part in parts:
        if part is Ellipsis:
            axis += host.ndim - covered
        elif isinstance(part, np.ndarray) and part.dtype != bool:
            part = part % max(host.shape[axis], 1)
        if part is not Ellipsis:
            axis += _axes_of(part)
        found.append(part)
    return tuple(found) if isinstance(key, tuple) else found[0]


def _tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _axes_of(part: Any) -> int:
    """How many axes a part of a key takes up."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, ndarray | np.ndarray) and part.dtype == bool else 1


def _refuse_duplicates(key: Any) -> None:
    """Several values for one place: on a GPU any of them may stay."""
    indices = [part for part in _tuple(key) if isinstance(part, np.ndarray) and part.dtype != bool]
    if not indices:
        return
    places = np.stack([part.ravel() for part in np.broadcast_arrays(*indices)], axis=1)
    if len(np.unique(places, axis=0)) != len(places):
        raise RuntimeError("duplicate indices in __setitem__: which value stays is undefined on a GPU")


def _add_at(host: np.ndarray, key: Any, value: Any) -> None:
    np.add.at(host, _wrapped(host, key), value)


def _check_sort(kind: Any) -> None:
    if kind not in (None, "stable"):
        raise ValueError(f"kind can only be None or 'stable' in CuPy, not {kind!r}")


def _operator(ufunc: str, *, reflected: bool = False, in_place: bool = False) -> Any:
    def operate(self: ndarray, other: Any = None) -> Any:
        from stand_in.cupy_stand_in import function

        if not isinstance(other, (ndarray, np.ndarray, *PLAIN)):
            return NotImplemented
        operands = (other, self) if reflected else (self, other)
        return function(ufunc)(*operands, **({"out": self} if in_place else {}))

    return operate


def _unary(ufunc: str) -> Any:
    def operate(self: ndarray) -> Any:
        from stand_in.cupy_stand_in import function

        return function(ufunc)(self)

    return operate


_BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift",
}  # fmt: skip
for _name, _ufunc in _BINARY.items():
    setattr(ndarray, f"__{_name}__", _operator(_ufunc))
    setattr(ndarray, f"__r{_name}__", _operator(_ufunc, reflected=True))
    setattr(ndarray, f"__i{_name}__", _operator(_ufunc, in_place=True))
for _name, _ufunc in {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", _operator(_ufunc))
for _name, _ufunc in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
    setattr(ndarray, f"__{_name}__", _unary(_ufunc))
