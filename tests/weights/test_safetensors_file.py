"""The safetensors reader: what it accepts it reads as the library does, and what is not sound it refuses by name."""

import json
import os
import stat
import struct

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.tools.bench.machine import MemoryWatch
from led_ref.weights.safetensors_file import read_header, read_safetensors, write_safetensors
from led_ref.weights.stored_tensor import StoredTensor, file_bytes, narrow

DATA = np.arange(2 * 3 + 5, dtype="<f4")  # eleven floats: a (2, 3) and a (5,)
SOUND = {
    "__metadata__": {"format": "pt"},
    "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F32", "shape": [5], "data_offsets": [24, 44]},
}

LARGE_BUT_FOR_A_0 = {"dtype": "F32", "shape": [0, 2**40, 2**40], "data_offsets": [44, 44]}


def built(header, data=None, length=None):
    """A file's bytes from a header (an object, or raw bytes) and the length that it claims."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (
        (len(text) if length is None else length).to_bytes(8, "little")
        + text
        + (DATA.tobytes() if data is None else data)
    )


def with_entry(name, **changes):
    return {**SOUND, name: {**SOUND[name], **changes}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_read_files_of_the_library(path):
    rng = np.random.default_rng(0)
    kinds = {
        "F64": "f8",
        "F32": "f4",
        "F16": "f2",
        "I64": "i8",
        "I32": "i4",
        "I16": "i2",
        "I8": "i1",
        "U8": "u1",
        "BOOL": "?",
    }
    arrays = {name: rng.integers(0, 2, (3, 5, 7)).astype(kind) for name, kind in kinds.items()}
    arrays |= {"scalar": np.array(2.5), "nothing": np.zeros((3, 0, 7), np.float32)}
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})

    tensors = read_safetensors(path)

    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].data, array, strict=True)
        assert not tensors[name].data.flags.writeable
    assert {name: tensors[name].dtype for name in kinds} == {name: name for name in kinds}
    assert read_header(path).metadata == {"format": "pt"}
    assert read_header(path).tensors["F16"].shape == (3, 5, 7)


def test_no_needless_copies(path):
    safetensors.numpy.save_file({"w": np.arange(6, dtype="<f4").reshape(2, 3)}, path)
    tensor = read_safetensors(path)["w"]
    assert tensor.data.base is not None
    assert np.shares_memory(tensor.to_numpy("float32"), tensor.data)
    np.testing.assert_array_equal(tensor.to_numpy("float64"), np.arange(6.0).reshape(2, 3), strict=True)

    path.write_bytes(built(SOUND))  # this header is not padded: its numbers begin in the middle of a float
    tensor = read_safetensors(path)["w"]
    assert not tensor.data.flags.aligned
    assert tensor.to_numpy("float32").flags.aligned
    np.testing.assert_array_equal(tensor.to_numpy("float32"), np.arange(6, dtype="f4").reshape(2, 3), strict=True)


BAD = {
    "shorter than its first field": (b"\x07\0\0", "3 bytes"),
    "cut off in the header": (built(SOUND)[:50], "claims"),
    "cut off in the data": (built(SOUND)[:-1], "cut off"),
    "grown": (built(SOUND) + b"\0", "added"),
    "header length beyond the file": (built(SOUND, length=5000), "claims 5000 bytes"),
    "header length of 2**64 - 1": (built(SOUND, length=2**64 - 1), "claims 18446744073709551615"),
    "header length into the data": (built(SOUND, length=len(json.dumps(SOUND)) + 4), "not JSON"),
    "header length too small": (built(SOUND, length=20), "not JSON"),
    "a Git LFS pointer": (b"version https://git-lfs and an oid", "git lfs pull"),
    "a web page": (b"<!DOCTYPE html><html></html>", "web page"),
    "not UTF-8": (built(b'{"\xff": 1}'), "UTF-8"),
    "not JSON": (built(b"{hello}"), "not JSON"),
    "not an object": (built(b"[1, 2]"), "brace"),
    "white space first": (built(b" {}", b""), "brace"),
    "nested 100,000 deep": (built(b'{"a":' + b"[" * 100_000), "not JSON"),
    "nested more than counted": (built(b'{"a":' + b"[" * 2_000_000), "lists and commas"),
    "half a surrogate pair": (built(b'{"\\ud800": {"dtype": "F32", "shape": [11], "data_offsets": [0, 44]}}'), "UTF-8"),
    "a name twice": (built(b'{"w": {"dtype":"U8","shape":[44],"data_offsets":[0,44]}, "w": {}}'), "'w' twice"),
    "a key of an entry twice": (built(b'{"w": {"dtype":"U8","dtype":"U8","shape":[]}}'), "'dtype' twice"),
    "a negative size": (built(with_entry("b", shape=[-5])), "-5"),
    "a broken size": (built(with_entry("b", shape=[5.0])), "5.0"),
    "a size that is no number": (built(with_entry("b", shape=[5, True])), "shape"),
    "a size of 5000 digits": (built(b'{"w": {"shape": [' + b"9" * 5000 + b"]}}"), "999"),
    "NaN as a size": (built(with_entry("b", shape=[float("nan")])), "NaN"),
    "a shape that is no list": (built(with_entry("b", shape=5)), "shape 5"),
    "65 dimensions": (built(with_entry("b", shape=[1] * 64 + [5])), "at most 64"),
    "a shape larger than its bytes": (built(with_entry("b", shape=[6])), "24 bytes"),
    "a shape whose product overflows": (built(with_entry("b", shape=[2**33, 2**31])), "span 20"),
    "a shape that is large but for a 0": (built({**SOUND, "n": LARGE_BUT_FOR_A_0}), "too large for an array"),
    "one offset": (built(with_entry("b", data_offsets=[24])), "two whole numbers"),
    "offsets swapped": (built(with_entry("b", data_offsets=[44, 24])), "span -20"),
    "an overlap": (built(with_entry("b", data_offsets=[20, 40])), "overlaps 'w'"),
    "a hole": (built(with_entry("b", data_offsets=[28, 48]), DATA.tobytes() + bytes(4)), "hole after 'w'"),
    "offsets outside": (built(with_entry("b", shape=[6], data_offsets=[24, 48])), "cut off"),
    "a dtype unknown here": (built(with_entry("b", dtype="F8_E4M3")), "F8_E4M3"),
    "a dtype that is no text": (built(with_entry("b", dtype=["F32"])), "dtype"),
    "an entry that is a number": (built({**SOUND, "b": 3}), "'b'"),
    "an entry without a dtype": (built({**SOUND, "b": {"shape": [5], "data_offsets": [24, 44]}}), "'b'"),
    "metadata that is not text": (built({**SOUND, "__metadata__": {"step": 3}}), "__metadata__"),
}  # fmt: skip


@pytest.mark.parametrize(
    "metadata",
    [
        "null", "{}", '{"format": "pt", "format": "np"}', '{"": "", "\\u00e9": "\\n"}', '{"dtype": "F32"}', '{"a": null}',
        '{"a": 1}', "[]", '"pt"', "3", '{"a": {"b": "c"}}', '{"a": "\\ud800"}', '{"a": "b"}, "__metadata__": {"a": "b"}',
        '{"a": "b",}',
    ],
)  # fmt: skip
def test_metadata_is_read_as_by_the_library(path, metadata):
    header = f'{{"__metadata__": {metadata}, "w": {{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    try:
        with safetensors.safe_open(path, "np") as file:
            expected = file.metadata()
    except safetensors.SafetensorError:
        with pytest.raises(CheckpointError, match="not a sound safetensors file"):
            read_header(path)
        return
    assert read_header(path).metadata == (expected or {})


@pytest.mark.parametrize("case", BAD)
def test_refuses_by_name(path, case):
    content, found = BAD[case]
    path.write_bytes(content)
    for read in (read_header, read_safetensors):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        message = str(caught.value)
        assert found in message
        assert str(path) in message
        assert "again" in message  # the remedy
        assert len(message) < 2500


def test_too_many_tensors_are_refused(path, monkeypatch):
    monkeypatch.setattr("led_ref.weights.safetensors_file.MAX_TENSORS", 1)
    path.write_bytes(built({name: SOUND[name] for name in "wb"}))
    with pytest.raises(CheckpointError, match="2 tensors, more than the limit 1"):
        read_safetensors(path)


def test_invalid_files(tmp_path, path):
    with pytest.raises(MissingFileError, match=r"no file .*model\.safetensors"):
        read_safetensors(path)
    with pytest.raises(CheckpointError, match="not a plain file"):
        read_safetensors(tmp_path)
    path.touch()
    with pytest.raises(CheckpointError, match="empty"):
        read_safetensors(path)


SOUND_FILE = built(SOUND)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SOUND_FILE) - 1), st.integers(0, 255)), min_size=1, max_size=3), st.data())
def test_damaged_file_is_refused_or_read_alike(tmp_path_factory, changes, data):
    """Any other exception, or a tensor that the library would not have read from these bytes, fails."""
    content = bytearray(SOUND_FILE)
    for place, value in changes:
        content[place] = (
            value if data.draw(st.booleans()) else ord(data.draw(st.sampled_from('0123456789-,:[]{}" eFI')))
        )
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    try:
        ours = read_safetensors(path)
    except CheckpointError:
        return
    theirs = dict(safetensors.deserialize(bytes(content)))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert (tensor.dtype, list(tensor.shape)) == (theirs[name]["dtype"], theirs[name]["shape"])
        assert tensor.data.tobytes() == bytes(theirs[name]["data"])


# ---- writing


def test_library_reads_our_files(path):
    rng = np.random.default_rng(1)
    wide = rng.standard_normal((7, 11))
    tensors = {
        "half": StoredTensor("F16", narrow(wide, "F16")),
        "brain": StoredTensor("BF16", narrow(wide, "BF16")),
        "transposed": StoredTensor("F64", wide.T),
        "whole": StoredTensor("I16", np.array([1, 2], "<i2")),
        "scalar": StoredTensor("F32", np.array(2.5, "<f4")),
        "nothing": StoredTensor("F32", np.zeros((0, 3), "<f4")),
    }
    assert write_safetensors(path, tensors, {"format": "pt"}) == path

    theirs = dict(safetensors.deserialize(path.read_bytes()))
    assert {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in theirs.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()
    }
    assert bytes(theirs["brain"]["data"]) == narrow(wide, "BF16").tobytes()
    assert bytes(theirs["transposed"]["data"]) == wide.T.tobytes()
    assert bytes(theirs["whole"]["data"]) == b"\x01\x00\x02\x00"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_written_file_is_compared_in_little_memory(path):
    tensors = {"w": StoredTensor("F32", np.ones((1 << 13, 1 << 10), "<f4"))}
    watch = MemoryWatch()
    write_safetensors(path, tensors)
    assert (watch.above() or 0) < tensors["w"].data.nbytes / 2


def half_written(specs, filename, metadata=None):
    with open(filename, "wb") as file:
        file.write(b"half")
    raise safetensors.SafetensorError("No space left on device")


def other_than_asked(specs, filename, metadata=None):
    safetensors.numpy.save_file({"w": np.full((2,), 3, np.float32)}, filename)


@pytest.mark.parametrize(
    ("target", "replacement", "error", "found"),
    [
        ("safetensors.serialize_file", half_written, CheckpointError, "No space left on device"),
        ("safetensors.serialize_file", other_than_asked, CheckpointError, "does not give back w"),
        ("led_ref.weights.safetensors_file._compare", KeyboardInterrupt, KeyboardInterrupt, "Ctrl-C"),
        ("os.replace", KeyboardInterrupt, KeyboardInterrupt, "Ctrl-C"),
    ],
)
def test_failed_write_keeps_the_old_file(path, monkeypatch, target, replacement, error, found):
    path.write_bytes(b"the old file")

    def fail(*args, **kwargs):
        raise replacement("Ctrl-C")

    monkeypatch.setattr(target, fail if isinstance(replacement, type) else replacement)
    with pytest.raises(error, match=found):
        write_safetensors(path, {"w": StoredTensor("F32", np.ones(2, "<f4"))})
    assert path.read_bytes() == b"the old file"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("dtype", "array", "found"),
    [("F32", np.ones(2), "float64"), ("F31", np.ones(2, "<f4"), "F31"), ("BF16", np.ones(2, "<f4"), "narrow")],
)
def test_unwritable_tensors_are_refused_first(path, dtype, array, found):
    with pytest.raises(InputError, match=found):
        write_safetensors(path, {"w": StoredTensor(dtype, array)})
    assert list(path.parent.iterdir()) == []


def test_writing_into_no_folder(tmp_path):
    with pytest.raises(MissingFileError, match="Make it first"):
        write_safetensors(tmp_path / "absent" / "model.safetensors", {})


# ---- from bytes to numbers and back


def test_float64_is_rounded_to_float16_once():
    above_tie = np.array([1 + 2.0**-11 + 2.0**-30])  # in float32 it is the tie itself, which rounds down
    assert StoredTensor("F64", above_tie).to_numpy("float16").tolist() == [1 + 2.0**-10]


def test_bfloat16_widening_and_narrowing():
    bits = np.arange(2**16, dtype=np.uint32).astype("<u2")  # every bfloat16 there is
    wide = StoredTensor("BF16", bits).to_numpy()
    assert (wide.view(np.uint32) == bits.astype(np.uint32) << 16).all()
    is_nan = np.isnan(wide)
    np.testing.assert_array_equal(narrow(wide, "BF16")[~is_nan], bits[~is_nan], strict=True)
    assert ((narrow(wide, "BF16")[is_nan] & 0x7FFF) > 0x7F80).all()

    one, step = 0x3F80, 2.0**-7  # 1, and the distance to the next bfloat16
    near = {
        1 + step / 2: 0,
        1 + step * 3 / 2: 2,
        1 + step / 2 + 2**-40: 1,
        1 + step * 3 / 2 - 2**-40: 1,
        1 + step / 2 - 2**-23: 0,
    }
    for dtype in (np.float64, np.float32):
        for number, steps in near.items():
            if float(dtype(number)) == number:
                assert narrow(np.array(number, dtype), "BF16") == one + steps


@pytest.mark.parametrize(
    ("dtype", "largest"), [("F16", 65504.0), ("BF16", 3.3895313892515355e38), ("F32", 3.4028234663852886e38)]
)
def test_narrowing_overflow_is_named(dtype, largest):
    kept = np.array([largest, -largest, np.inf, np.nan])
    widened = StoredTensor(dtype, narrow(kept, dtype)).to_numpy("float64")
    np.testing.assert_array_equal(widened, kept, strict=True)
    with pytest.raises(InputError, match=rf"fc1 holds .*too large for {dtype}"):
        narrow(np.array([1.0, largest * 1.01]), dtype, name="fc1")


def test_to_numpy_refuses_unsupported_dtypes():
    whole = StoredTensor("I64", np.arange(3))
    assert whole.to_numpy("int64").tolist() == [0, 1, 2]
    with pytest.raises(CheckpointError, match=r"int64.*\.float\(\)"):
        whole.to_numpy()
    with pytest.raises(InputError, match="bfloat16"):
        StoredTensor("F32", np.ones(3, "<f4")).to_numpy("bfloat16")


def test_float16_conversion():
    """What a GPU computes in. A file's own float16 is not copied; a number that is too large is named."""
    kept = np.array([1.5, 65504], "<f2")
    assert np.shares_memory(StoredTensor("F16", kept).to_numpy("float16"), kept)
    bits = np.array([0x3F80, 0x3FC0], np.uint16)
    for tensor in (StoredTensor("F32", np.array([1 + 2**-12, 1.5], "<f4")), StoredTensor("BF16", bits)):
        found = tensor.to_numpy("float16")
        assert (found.dtype, found.tolist()) == (np.float16, [1.0, 1.5])
    with pytest.raises(InputError, match="too large for"):
        StoredTensor("F32", np.array([7e4], "<f4")).to_numpy("float16")


def test_scalar_stays_zero_dimensional():
    for dtype in ("F64", "F32", "F16", "BF16"):
        array = StoredTensor(dtype, narrow(np.array(1.5), dtype)).to_numpy()
        assert (type(array), array.shape, array.dtype) == (np.ndarray, (), np.float32)


def test_the_map_is_read_only(path):
    path.write_bytes(b"abc")
    with pytest.raises(TypeError):
        file_bytes(path)[0] = 0
