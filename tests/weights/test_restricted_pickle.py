"""The pickle machine: what Python's unpickler makes of plain values it makes too; nothing makes it fail, hang or swell."""

import contextlib
import pickle
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_files import ORDERED_DICT, View, tensor, text

from led_ref.errors import CheckpointError
from led_ref.weights.torch_files.restricted_pickle import MAX_PICKLE_BYTES, run_pickle

VIEW = View("FloatStorage", "0", 11, 0, (2, 5), (5, 1))

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**500), 2**500) | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple) | st.dictionaries(st.text(), inner)
    ),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(values, st.integers(2, 5))
def test_plain_values_match_pickle(value, protocol):
    code = b"before" + pickle.dumps(value, protocol) + b"after"
    result = run_pickle(code, 6, len(code), ValueError)
    assert result.value == value
    assert result.stop == len(code) - 5


INSTRUCTIONS = st.sampled_from(
    [bytes([i]) for i in b"\x80N\x88\x89KMJ\x8aGX)\x85\x86\x87(t]ae}suqrhjcRbQ\x95\x8c\x94\x93."]
)
PIECES = st.sampled_from(
    [
        ORDERED_DICT,
        tensor(VIEW),
        text("storage"),
        b"ctorch\nFloatStorage\n",
        b"K\x01",
        b"X\x01\0\0\0a",
    ]
)


@settings(max_examples=800, deadline=None)
@given(st.lists(INSTRUCTIONS | PIECES | st.binary(max_size=2), max_size=40))
def test_random_pickles_never_crash(pieces):
    program = b"".join(pieces)
    try:
        result = run_pickle(program, 0, len(program), CheckpointError)
    except CheckpointError:
        return  # any other exception fails
    assert program[result.stop - 1 : result.stop] == b"."


LENGTH = 100_000
BOMBS = {
    "a memo of four billion": b"\x80\x02K\x01r\xff\xff\xff\xff.",
    "tuples in tuples": b"\x80\x02)" + b"\x85" * LENGTH + b".",
    "tuples that double": b"\x80\x02)q\0" + b"h\0h\0\x86q\0" * (LENGTH // 7) + b".",
    "dictionaries": b"\x80\x02(" + b"}" * LENGTH + b"t.",
    "marks": b"\x80\x02" + b"(" * LENGTH + b".",
    "a name that doubles": b"\x80\x02}" + b")q\0" + b"h\0h\0\x86q\0" * 200 + b"K\x01s.",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_small_pickle_memory(bomb):
    """64 bytes for an empty dictionary, 8 for its place on a stack, and that stack's room for growth, per instruction."""
    tracemalloc.start()
    try:
        with contextlib.suppress(CheckpointError):
            run_pickle(BOMBS[bomb], 0, len(BOMBS[bomb]), CheckpointError)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 120 * LENGTH


def test_pickle_length_limit():
    program = b"N" * MAX_PICKLE_BYTES + b"."
    with pytest.raises(CheckpointError, match=f"longer than the {MAX_PICKLE_BYTES} bytes"):
        run_pickle(program, 0, len(program), CheckpointError)
