"""The stand-in for CuPy refuses what CuPy refuses, is as lax as it where that hides mistakes, and counts what is costly."""

import copy
import gc

import numpy as np
import pytest
from stand_in.cupy_stand_in import LEDGER, counting, installed, no_sync
from stand_in.ledger import ForbiddenSynchronisationError, OutOfMemoryError
from stand_in.surface import FUNCTIONS, METHODS, RECORDED, NotModelledError


@pytest.fixture
def cp():
    with installed() as module:
        yield module


@pytest.fixture
def x(cp):
    return cp.asarray(np.arange(15, dtype=np.float32).reshape(5, 3))


# ---- what is refused -------------------------------------------------------------------------------------------------

HOST = np.ones((5, 3), np.float32)
MIXED = {
    "array on the right": lambda cp, x: x + HOST,
    "array on the left": lambda cp, x: HOST * x,
    "0-d array": lambda cp, x: x + np.array(2.0),
    "in place": lambda cp, x: x.__iadd__(HOST),
    "comparison": lambda cp, x: x == HOST,
    "matmul": lambda cp, x: x @ HOST.T,
    "function": lambda cp, x: cp.concatenate([x, HOST]),
    "keyword": lambda cp, x: x.sum(0, out=np.zeros(3, np.float32)),
    "set from the host": lambda cp, x: x.__setitem__(slice(None), HOST),
    "set from a list": lambda cp, x: x.__setitem__(0, [1, 2, 3]),
    "index": lambda cp, x: x[np.array([1, 2])],
    "mask": lambda cp, x: x[HOST[:, 0] > 0],
    "list as an index": lambda cp, x: x[[1, 2]],
    "assigned through an index": lambda cp, x: x.__setitem__(np.array([1]), 0),
    "NumPy's concatenate": lambda cp, x: np.concatenate([x, HOST]),
    "NumPy's where": lambda cp, x: np.where(HOST > 0, x, 0),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED)
def test_host_and_device_arrays_do_not_mix(cp, x, mix):
    with pytest.raises(TypeError, match=r"Unsupported type|lives on the host"):
        mix(cp, x)


@pytest.mark.parametrize("convert", [np.asarray, np.array, np.float32, np.testing.assert_array_equal, memoryview])
def test_no_implicit_numpy_conversion(x, convert):
    with pytest.raises((TypeError, AssertionError)) as error:
        convert(x, HOST) if convert is np.testing.assert_array_equal else convert(x)
    assert "Implicit conversion" in str(error.value) or convert is memoryview
    assert not hasattr(x, "__array_interface__")


UNKNOWN = {
    "name": lambda cp, x: cp.errstate,
    "NumPy's newer name": lambda cp, x: cp.vecdot,
    "submodule's name": lambda cp, x: cp.linalg.multi_dot,
    "CUDA's name": lambda cp, x: cp.cuda.runtime.getDeviceNames,
    "method": lambda cp, x: x.setflags(write=False),
}
BAD_CALLS = {
    "initial": lambda cp, x: x.max(-1, initial=0),
    "where": lambda cp, x: x.sum(where=True),
    "ufunc's where": lambda cp, x: cp.exp(x, where=x > 0),
    "order of empty": lambda cp, x: cp.zeros(3, like=x),
    "einsum's": lambda cp, x: cp.einsum("ij->i", x, order="C"),
    "pad's": lambda cp, x: cp.pad(x, 1, mode="constant", fill=0),
    "too many": lambda cp, x: cp.concatenate([x, x], 0, None, 1, 2, 3, 4),
    "too few": lambda cp, x: cp.swapaxes(x, 0),
    "too many operands": lambda cp, x: cp.exp(x, x, x),
    "no loop": lambda cp, x: cp.sqrt(x > 0) & 1.5,
    "no loop for bool": lambda cp, x: -(x > 0),
    "no loop for complex": lambda cp, x: cp.logical_not(x.astype("complex64")),
}


@pytest.mark.parametrize("use", UNKNOWN.values(), ids=UNKNOWN)
def test_name_missing_in_cupy_is_refused(cp, x, use):
    with pytest.raises(AttributeError, match="has no attribute"):
        use(cp, x)


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_call_must_match_recorded_signature(cp, x, call):
    with pytest.raises(TypeError, match=r"cupy's|not supported"):
        call(cp, x)


def test_scatter_to_duplicate_index_is_refused(cp, x):
    twice = cp.asarray(np.array([1, 3, 1]))
    with pytest.raises(RuntimeError, match="duplicate"):
        x[twice] = x[:3]
    with pytest.raises(RuntimeError, match="duplicate"):
        x[cp.asarray(np.array([1, 3, -4]))] = x[:3]  # -4 is 1 again
    x[twice] = 7  # all write the same number
    x[cp.asarray(np.array([1, 3])), twice[:2]] = x[0, :2]


def test_unsupported_dtypes_and_sorts_are_refused(cp, x):
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cp.asarray(np.array(["a"]))
    with pytest.raises(ValueError, match="stable"):
        x.argsort(kind="heapsort")
    with pytest.raises(IndexError, match="integer or boolean"):
        x[x[:, 0]]


def test_unmodelled_calls_are_refused(cp, x):
    for use in (lambda: x.toDlpack(), lambda: cp.fuse, lambda: cp.cuda.runtime.malloc, lambda: cp.cuda.Stream().record):
        with pytest.raises(NotModelledError):
            use()


# ---- where it is as lax as CuPy ----------------------------------------------------------------------------------------


def test_out_of_range_index_wraps_silently(cp, x):
    far = cp.asarray(np.array([6, -6, 4]))
    np.testing.assert_array_equal(x[far].get(), HOST[:3] * 0 + np.arange(15).reshape(5, 3)[[1, 4, 4]])
    np.testing.assert_array_equal(cp.take(x, far, 0).get(), x[far].get())
    x[far[:2], 0] = cp.asarray(np.array([50, 60], np.float32))
    assert x[:, 0].tolist() == [0, 50, 6, 9, 60]
    with pytest.raises(IndexError):
        x[5]  # a Python int is checked


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "bool"])
def test_new_memory_is_dirty(cp, dtype):
    for made in (cp.empty((2, 3), dtype), cp.empty_like(cp.zeros((2, 3), dtype)), cp.ndarray((2, 3), dtype)):
        host = made.get()
        assert (np.isnan(host) if host.dtype.kind == "f" else host != 0).all()
        assert host.dtype == dtype


def test_scalars_stay_on_the_device(cp, x):
    for single in (x.sum(), x.max(), x[2, 1], x[2][1], cp.argmax(x), cp.any(x > 3), cp.linalg.norm(x)):
        assert type(single) is cp.ndarray
        assert single.shape == ()
    x[2, 1].fill(100)  # a view of the one number
    assert x[2].tolist() == [6, 100, 8]


def test_numpy_2_type_promotion(cp, x):
    assert (x * 2.5).dtype == (2.5 * x).dtype == "float32"
    assert (x * np.float64(2.5)).dtype == (np.float64(2.5) * x).dtype == "float64"
    half = x.astype("float16")
    assert (half @ half.T).dtype == (half * 2).dtype == cp.exp(half).dtype == "float16"
    assert cp.zeros(3).dtype == "float64"
    assert (cp.arange(3, dtype="int32") == cp.arange(3, dtype="int16")).dtype == bool  # by CuPy's one loop, of int64


def test_numpy_functions_dispatch_to_device(cp, x):
    for made in (np.exp(x), np.concatenate([x, x]), np.linalg.norm(x)):
        assert type(made) is cp.ndarray
    assert cp.float32 is np.float32


def test_no_warnings_on_device(cp, x):
    assert np.isinf((x / 0).get()[0, 1])
    assert np.isnan(cp.log(-x - 1).get()).all()


# ---- what is counted -------------------------------------------------------------------------------------------------

WAITS = {
    "get": lambda cp, x: x.get(), "asnumpy": lambda cp, x: cp.asnumpy(x), "item": lambda cp, x: x.sum().item(),
    "bool": lambda cp, x: bool(x.any()), "if": lambda cp, x: 1 if (x > 3).any() else 2, "float": lambda cp, x: float(x[0, 0]),
    "int": lambda cp, x: int(x.sum()), "index": lambda cp, x: range(cp.asarray(np.array(3)))[0],
    "tolist": lambda cp, x: x.tolist(), "iter": lambda cp, x: list(x[0]), "max": lambda cp, x: max(x[0, 0], x[0, 1]),
    "in": lambda cp, x: 3 in x[0], "nonzero": lambda cp, x: x.nonzero(), "flatnonzero": lambda cp, x: cp.flatnonzero(x),
    "where": lambda cp, x: cp.where(x > 3), "unique": lambda cp, x: cp.unique(x), "mask": lambda cp, x: x[x > 3],
    "set by a mask": lambda cp, x: x.__setitem__(x > 3, 0), "rows by a mask": lambda cp, x: x[:, x[0] > 1],
    "print": lambda cp, x: f"{x}", "synchronize": lambda cp, x: cp.cuda.Device().synchronize(),
    "stream": lambda cp, x: cp.cuda.get_current_stream().synchronize(),
}  # fmt: skip
FREE = {
    "views": lambda cp, x: x[1:3].T.reshape(-1)[None], "rows": lambda cp, x: [row + 1 for row in x],
    "len": lambda cp, x: len(x), "gather": lambda cp, x: x[cp.asarray(np.array([2, 2]))], "set": lambda cp, x: x.fill(2),
    "where of three": lambda cp, x: cp.where(x > 3, x, 0), "copyto": lambda cp, x: cp.copyto(x, 0, where=x > 3),
    "sums": lambda cp, x: x.sum(-1, keepdims=True) / x.max(), "sort": lambda cp, x: x.argsort(-1),
    "upload": lambda cp, x: cp.asarray(HOST), "copy": lambda cp, x: copy.deepcopy(x),
}  # fmt: skip


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_synchronizations_are_counted_or_forbidden(cp, x, wait):
    with counting() as counts:
        wait(cp, x)
    assert counts.syncs
    with no_sync(), pytest.raises(ForbiddenSynchronisationError):
        wait(cp, x)


@pytest.mark.parametrize("work", FREE.values(), ids=FREE)
def test_asynchronous_calls_are_not_counted(cp, x, work):
    with no_sync(), counting() as counts:
        work(cp, x)
    assert counts.syncs == []


def test_copies_before_a_product_are_counted(cp):
    a, b = cp.ones((2, 3, 5)), cp.ones((2, 5, 7))
    tall = cp.ones((3, 5, 2))
    cases = [
        (lambda: a @ b, 0), (lambda: a @ tall.swapaxes(0, 2), 1), (lambda: a @ cp.ones((2, 7, 5)).swapaxes(1, 2), 1),
        (lambda: a[0] @ a[1].T, 0), (lambda: a[:, :, :4] @ b[:, :4], 2), (lambda: a[0][:, :4] @ b[0, :4], 1),
        (lambda: cp.matmul(a, b, out=cp.empty((2, 3, 7))), 0), (lambda: cp.matmul(a, b, out=cp.empty((2, 3, 8))[:, :, :7]), 1),
    ]  # fmt: skip
    for product, expected in cases:
        with counting() as counts:
            product()
        assert len(counts.copies) == expected
    with counting() as counts:
        cp.asarray(HOST)
        cp.asarray(a)
    assert counts.uploads == 1


def test_memory_count_and_limit(cp):
    pool = cp.get_default_memory_pool()
    gc.collect()
    before = pool.used_bytes()
    block = cp.zeros((1000, 10), "float64")
    view = block[5:].T
    assert pool.used_bytes() == before + 80_000
    del block
    assert pool.used_bytes() == before + 80_000  # the view holds it
    pool.set_limit(before + 100_000)
    try:
        with pytest.raises(OutOfMemoryError, match="80,000"):
            cp.zeros(10_000)
    finally:
        pool.set_limit(0)
    del view
    assert pool.used_bytes() == before
    assert LEDGER.peak_bytes >= before + 80_000


# ---- the record ------------------------------------------------------------------------------------------------------


def test_cupy_14_record_is_complete():
    assert RECORDED["cupy"].split(".")[0] == "14"
    for name, entry in FUNCTIONS.items():
        assert entry.get("ufunc") or entry.get("params") is not None, name
    assert all(parameters is not None for parameters in METHODS.values())
    assert ["where", 1, True] not in METHODS["sum"]
    assert METHODS["sum"] == [["axis", 1, True], ["dtype", 1, True], ["out", 1, True], ["keepdims", 1, True]]
