"""A launch that CuPy would let through to give rubbish is refused, and so is one that has too few threads."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import stand_in.raw_kernels as raw
from stand_in.cupy_stand_in import counting, installed
from stand_in.kernel_twins import attend_chunk, enough, gelu

import led_backends

SOURCE = """
// __global__ void commented_out(int n) {}
template <typename T>
__global__ void __launch_bounds__(256) scale(T* out, const float* in, int n, long long m, bool flag, float factor) {
    out[0] = in[0];
}
#define THREADS 64
extern "C" __global__ void __launch_bounds__(THREADS, 2)  // two blocks
plain(const bool* mask) { }
"""


@pytest.fixture
def cp():
    with installed() as module:
        yield module


@pytest.fixture
def scale(cp):
    """The kernel `scale<float>`; its twin writes down what it gets."""
    got = []
    with mock.patch.dict(raw.TWINS, {"scale": (lambda launch, *arguments: got.append(arguments), frozenset({"in"}))}):
        kernel = cp.RawModule(code=SOURCE, name_expressions=("scale<float>",)).get_function("scale<float>")
        kernel.got = got
        yield kernel


def arguments(cp, **changes):
    given = {
        "out": cp.zeros((5, 3), "float32"), "in": cp.ones((3, 5), "float32").T, "n": np.int32(15), "m": np.int64(15),
        "flag": True, "factor": np.float32(2),
    }  # fmt: skip
    return tuple({**given, **changes}.values())


def test_valid_launch_runs_the_twin(cp, scale):
    with counting() as counts:
        scale((1,), (256,), arguments(cp, m=15))  # Python's int is 8 bytes, and so is m
    assert counts.launches == ["scale<float>"]
    assert [type(argument).__name__ for argument in scale.got[0]] == [
        "ndarray", "ndarray", "int32", "int64", "bool", "float32",
    ]  # fmt: skip


BAD_ARGUMENTS = {
    "int for int32": (TypeError, "int32", lambda cp: {"n": 15}),
    "int32 for long long": (TypeError, "int64", lambda cp: {"m": np.int32(15)}),
    "float for float32": (TypeError, "float32", lambda cp: {"factor": 2.0}),
    "int for bool": (TypeError, "bool", lambda cp: {"flag": 1}),
    "host array": (TypeError, "pointer", lambda cp: {"out": np.zeros((5, 3), np.float32)}),
    "null pointer": (TypeError, "pointer", lambda cp: {"out": None}),
    "array for a number": (TypeError, "is int", lambda cp: {"n": cp.zeros((), "int32")}),
    "another dtype": (TypeError, "float64", lambda cp: {"out": cp.zeros((5, 3))}),
    "a view": (ValueError, "strides", lambda cp: {"out": cp.zeros((3, 5), "float32").T}),
}


@pytest.mark.parametrize(("kind", "words", "change"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_misread_arguments_are_refused(cp, scale, kind, words, change):
    with pytest.raises(kind, match=words):
        scale((1,), (256,), arguments(cp, **change(cp)))
    assert not scale.got


@pytest.mark.parametrize(
    ("grid", "block", "kind"),
    [
        ((0,), (256,), ValueError), ((1,), (0,), ValueError), ((1.0,), (256,), ValueError), (1, (256,), TypeError),
        ((1,), (257,), raw.CUDADriverError), ((2**31,), (256,), raw.CUDADriverError), ((1, 65536), (1,), raw.CUDADriverError),
    ],
)  # fmt: skip
def test_invalid_launch_sizes_are_refused(cp, scale, grid, block, kind):
    with pytest.raises(kind, match="scale"):
        scale(grid, block, arguments(cp))


def test_kernel_lookup_in_source(cp, scale):
    module = cp.RawModule(code=SOURCE, name_expressions=("scale<float>",))
    for name in ("absent", "commented_out", "scale<__half>", "scale"):
        with pytest.raises(raw.CUDADriverError):
            module.get_function(name)
    assert module.get_function("plain").most_threads == 64
    with pytest.raises(TypeError, match="takes 6 arguments, not 5"):
        scale((1,), (256,), arguments(cp)[:-1])
    with pytest.raises(NotImplementedError, match="no twin"):
        module.get_function("plain")((1,), (64,), (cp.ones(3, bool),))


def test_every_kernel_has_a_matching_twin():
    source = Path(led_backends.__file__).with_name("kernels.cu").read_text(encoding="utf-8")
    from stand_in import kernel_twins

    kernel_twins.register()
    names = {
        line.split("(")[0].split()[-1] for line in source.split("__global__")[1:] for line in [_after_bounds(line)]
    }
    assert names == set(raw.TWINS)
    for name, (twin, strided) in raw.TWINS.items():
        of = ("float", "4") if name in ("attend_chunk", "linear_few", "window_attend") else ("float",)
        declared = [parameter for parameter, _, _ in raw.kernel_parameters(source, name, of)]
        written = list(twin.__code__.co_varnames[1 : twin.__code__.co_argcount])
        assert [parameter.rstrip("_") for parameter in written] == declared
        assert strided <= set(declared)


def _after_bounds(text):
    """What follows `__launch_bounds__(...)`."""
    return text.partition(")")[2].lstrip()


def test_wrong_launch_size_is_refused():
    x = np.ones(300, np.float32)
    gelu(raw.Launch("gelu", ("float",), (2,), (256,)), x, np.int64(300))
    assert x[0] == pytest.approx(0.8413447)
    for blocks in (1, 3):
        with pytest.raises(AssertionError, match="300 are needed"):
            gelu(raw.Launch("gelu", ("float",), (blocks,), (256,)), x, np.int64(300))
    enough(raw.Launch("any", (), (3,), (1,)), 3, 3, "blocks")


def test_out_of_bounds_stride_is_refused():
    q, store = np.ones((2, 1, 4), np.float32), np.ones((2, 9, 4), np.float32)
    parts = [np.empty(2, np.float32), np.empty(2, np.float32), np.empty(8, np.float32)]
    launch = raw.Launch("attend_chunk", ("float", "1"), (2,), (256,))
    mask = np.ones(1, bool)
    attend_chunk(launch, q, store[:, :7], store[:, :7], mask, *parts, 0, 2, 7, 4, 36, 36, 0, 0)
    np.testing.assert_allclose(parts[2], 7)
    with pytest.raises(AssertionError, match="out of the memory"):
        attend_chunk(launch, q, store[:, :7], store[:, :7], mask, *parts, 0, 2, 7, 4, 45, 36, 0, 0)
