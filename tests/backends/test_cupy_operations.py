"""CupyBackend, operation by operation: CuPy is the strict stand-in, and its kernels are those of kernels.cu, run on the CPU.

Each operation is compared with its twin in array notation over NumPy (cupy_plain.py), and that in float64 with the NumPy
backend, which has tests of its own. So a wrong grid, a missing stride or a method without `return` shows here.
"""

import inspect

import numpy as np
import pytest
from kernels.cuda_on_cpu import KERNELS_CU, Kernels
from stand_in import raw_kernels
from stand_in.cupy_stand_in import counting, cupy, installed, no_sync

from led_backends import Backend, DeviceMemoryError
from led_backends.contract import Band
from led_backends.cupy_backend import BLOCK_ROWS, CupyBackend
from led_backends.cupy_plain import PlainOperations
from led_backends.numpy_backend import NumpyBackend
from led_ref.model.masks import DocumentMask, window_blocks
from led_ref.model.sliding_window import sliding_window_attention

# A few roundings of numbers of about 1, and one more to what is stored.
CLOSE = {"float64": 1e-13, "float32": 4e-6, "float16": 4e-3}
# Of these the kernel gets the strides.
STRIDED = {"attend_chunk": {"keys", "values"}, "window_attend": {"q", "k", "v"}}
QUERIES = 3


class KernelOnTheCpu(raw_kernels.RawKernel):
    """A launch is checked as the stand-in does, then the kernel itself runs."""

    def __call__(self, grid, block, args):
        self._check_size(grid, block, 0)
        arrays = [
            raw_kernels._argument(self.name, *declared, given, dense=declared[0] not in STRIDED.get(self.plain, ()))
            for declared, given in zip(self.parameters, args, strict=True)
        ]
        self.compiled.get_function(self.name)(grid, block, arrays)
        raw_kernels.LEDGER.launch(self.name)


@pytest.fixture(scope="module")
def backend():
    names = [f"{k}<{t}>" for t in ("float", "__half") for k in ("band_softmax", "gelu", "layer_norm", "attend_combine")]
    names += [f"{k}<{t}, {n}>" for t in ("float", "__half") for k, n in (("attend_chunk", QUERIES), ("linear_few", 16))]
    names += [f"window_attend<{t}, 16>" for t in ("float", "__half")]
    KernelOnTheCpu.compiled = Kernels(KERNELS_CU.read_text("utf-8"), names)

    class Module(raw_kernels.RawModule):
        def get_function(self, name):
            assert name in self.name_expressions
            return KernelOnTheCpu(self.code, name)

    with pytest.MonkeyPatch.context() as patch, installed():
        patch.setitem(cupy.__dict__, "RawModule", Module)
        yield CupyBackend()


@pytest.fixture(params=CLOSE)
def dtype(request):
    return request.param


@pytest.fixture
def check(backend, dtype):
    """The same operation on CuPy and, as it is written, on NumPy; and there in float64 against the NumPy backend."""

    def compare(operation, *arguments, cut=lambda x: x, launches=None):
        stored = [x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x for x in arguments]

        def ready(move, wanted=dtype):
            """The arguments where `move` takes them, what is stored as `dtype` in another one."""
            for x in stored:
                if isinstance(x, Band):
                    yield Band(x.first, x.radius, None if x.local_S is None else move(x.local_S))
                elif isinstance(x, np.ndarray):
                    yield cut(move(x.astype(wanted) if x.dtype == dtype else x))
                else:
                    yield x

        with no_sync(), counting() as counts:
            on_device = getattr(backend, operation)(*ready(backend.to_device))
        found = backend.to_host(on_device)
        plain = getattr(PlainOperations(np), operation)(*ready(np.copy))
        exact = getattr(PlainOperations(np), operation)(*ready(np.copy, "float64"))
        judge = getattr(NumpyBackend(1), operation)(*ready(np.copy, "float64"))
        np.testing.assert_allclose(exact, judge, rtol=0, atol=CLOSE["float64"])
        for each in (found, plain):
            assert each.dtype == dtype
            np.testing.assert_allclose(each.astype("float64"), exact, rtol=CLOSE[dtype], atol=CLOSE[dtype])
        if launches is not None:
            ours = launches if dtype != "float64" else []  # which has no kernels
            assert [name.split("<")[0] for name in counts.launches] == ours

    return compare


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_operation_signatures_match_contract(backend):
    for name, method in inspect.getmembers(Backend, inspect.isfunction):
        if not name.startswith("_"):
            wanted = list(inspect.signature(method).parameters)[1:]
            assert list(inspect.signature(getattr(backend, name)).parameters) == wanted, name
    assert backend.name == "cupy"
    assert backend.describe() == "CuPy 14.2.0 on stand-in (24 GiB)"


@pytest.mark.parametrize(("shape", "launches"), [((2, 5, 7), ["linear_few"]), ((17, 7), []), ((0, 7), [])])
def test_linear(check, rng, shape, launches):
    check("linear", rng.normal(size=shape), rng.normal(size=(11, 7)), rng.normal(size=11), launches=launches)


@pytest.mark.parametrize(
    ("shape", "update", "launches"),
    [
        ((2, 5, 37), None, ["layer_norm"]),
        ((2, 5, 37), (2, 5, 37), ["layer_norm"]),
        ((2, 5, 37), (5, 37), ["layer_norm"]),
        ((2, 5, 37), (1, 1, 37), ["layer_norm"]),
        ((2, 5, 37), (2, 1, 37), ["layer_norm"]),
        ((2, 3, 1031), (3, 1031), []),  # wider than a warp's registers
    ],
)
def test_layer_norm(check, rng, shape, update, launches):
    arguments = [rng.normal(size=shape), *rng.normal(size=(2, shape[-1]))]
    check("layer_norm", *arguments, *([] if update is None else [rng.normal(size=update)]), launches=launches)


def test_gelu(check, backend, rng):
    check("gelu", rng.normal(size=(3, 101)) * 3, launches=["gelu"])
    with pytest.raises(ValueError, match="contiguous"):
        backend.gelu(backend.to_device(np.ones((3, 5), "float32")).T)


@pytest.mark.parametrize("name", ["relu", "silu", "gelu_new"])
def test_another_activation(check, backend, rng, name):
    check(name, np.concatenate([rng.normal(size=(3, 101)) * 3, [[-200.0] * 101, [200.0] * 101]]), launches=[])
    x = backend.to_device(np.full((2, 3), np.nan, "float16"))
    assert getattr(backend, name)(x) is x
    assert np.isnan(backend.to_host(x)).all()


def test_hide_and_softmax(check, backend, dtype, rng):
    scores, may_look = rng.normal(size=(2, 3, 300)), rng.random((3, 300)) < 0.5
    may_look[1] = False
    on_device = backend.to_device(scores.astype(dtype))
    assert backend.hide(on_device, backend.to_device(may_look)) is None
    np.testing.assert_array_equal(np.isneginf(backend.to_host(on_device)), np.broadcast_to(~may_look, scores.shape))
    check("softmax", backend.to_host(on_device), launches=["band_softmax"])
    check("softmax", np.zeros((3, 0)), launches=[])


@pytest.mark.parametrize("globals_", [0, 3])
@pytest.mark.parametrize("all_local", [True, False])
def test_band_softmax(check, rng, globals_, all_local):
    local_S = None if all_local else rng.random(23) < 0.6
    scores, values = rng.normal(size=(2, 5, globals_ + 23)), rng.normal(size=(2, globals_ + 23, 13)) / 2
    check("band_softmax", scores, globals_, Band(4, 6, local_S), launches=["band_softmax"])
    check("band_attend", scores, values, globals_, Band(4, 6, local_S), launches=["band_softmax"])


@pytest.mark.parametrize("globals_", [[], [0], [3, 77]])
@pytest.mark.parametrize("room", [0, 8, 5])  # 5: heads that do not begin at 16 bytes
def test_window_of_a_document_in_one_launch(backend, dtype, rng, monkeypatch, globals_, room):
    q, k, v = (rng.normal(size=(3, 150 + room, 16)).reshape(3, -1)[:, : 150 * 16 + room] for _ in range(3))
    q, k, v = (x.astype(dtype) for x in (q / 4, k, v))
    local_T = rng.random(150) < 0.9
    local_T[globals_] = False
    views = [backend.to_device(x)[:, : 150 * 16].reshape(3, 150, 16) for x in (q, k, v)]
    globals_G = backend.to_device(np.array(globals_, int))
    assert backend.window_attend(*views, globals_G, local_T, 21) is None
    monkeypatch.setattr(backend, "fused", True)
    with counting() as counts:
        found = backend.window_attend(*views, globals_G, local_T, 21)
    if dtype == "float64":
        assert found is None
        return
    assert [name.split("<")[0] for name in counts.launches] == ["window_attend"]
    assert backend._window.trusted[np.dtype(dtype).char]
    exact = [x[:, : 150 * 16].reshape(3, 150, 16).astype("float64") for x in (q, k, v)]
    mask = DocumentMask(local_T, local_T, np.array(globals_, int))
    judge = NumpyBackend(1)
    expected = sliding_window_attention(*exact, mask, window_blocks(mask, 21, judge), judge)
    np.testing.assert_allclose(backend.to_host(found).reshape(150, -1), expected, rtol=CLOSE[dtype], atol=CLOSE[dtype])
    with no_sync():  # it is compared once
        backend.window_attend(*views, globals_G, local_T, 21)


@pytest.mark.parametrize("room", [0, 11])
@pytest.mark.parametrize("mask", [None, (1, 1), (2, 1), (1, 3), (2, 3)])
def test_attend_of_few_queries_splits_over_positions(check, rng, room, mask):
    q, k, v = (rng.normal(size=(2, 5, n, 13)) / 2 for n in (QUERIES, 300 + room, 300 + room))
    may_look = None if mask is None else rng.random((*mask, 300)) < 0.5
    if mask is not None:
        may_look[0, 0] = False  # these see nothing
    launches = ["attend_chunk", "attend_combine"]
    check("attend", q, k, v, may_look, cut=lambda x: x[:, :, :300] if x.ndim == 4 else x, launches=launches)


@pytest.mark.parametrize(("queries", "width"), [(17, 7), (3, 131)])
def test_attend_of_many_queries_uses_matrix_products(check, monkeypatch, rng, queries, width):
    monkeypatch.setattr("led_backends.cupy_plain.SCORES_AT_A_TIME", 2 * 5 * 19 * 4)  # four queries at a time
    q, k, v = (rng.normal(size=(2, 5, n, width)) / 4 for n in (queries, 19, 19))
    for mask in ((2, queries), (2, 1)):
        check("attend", q, k, v, rng.random((*mask, 19)) < 0.5)


def test_what_lies_on_the_host_already_is_returned_as_it_is(backend):
    host = np.arange(3.0)
    assert backend.to_host(host) is host
    assert NumpyBackend().to_host(host) is host


def test_tiles_cover_all_heads_and_rows(backend):
    seen = []
    assert backend.for_each_tile(seen.append, 13) is None
    assert backend.for_each_block(seen.append, BLOCK_ROWS + 3) is None
    assert seen == [slice(0, 13), slice(0, BLOCK_ROWS), slice(BLOCK_ROWS, BLOCK_ROWS + 3)]


def test_out_of_memory_message(backend):
    pool = cupy.get_default_memory_pool()
    pool.set_limit(1000)
    try:
        with pytest.raises(DeviceMemoryError, match=r"80,000 bytes.*limit: 1,000 bytes.*fewer tokens.*folded"):
            backend.to_device(np.zeros(10_000))
        with pytest.raises(DeviceMemoryError, match="beams"):
            backend.for_each_tile(lambda h: backend.xp.zeros((999, 999)), 1)
    finally:
        pool.set_limit(0)
