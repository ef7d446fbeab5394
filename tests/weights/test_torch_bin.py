"""pytorch_model.bin without torch: what torch would read is read; what is more than tensors is refused, and never run."""

import io
import os
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_files import (
    LITTLE_ENDIAN,
    MAGIC,
    ORDERED_DICT,
    VERSION,
    Record,
    View,
    archive,
    legacy,
    of_trainer,
    state_dict,
    tensor,
    text,
    zip_records,
)  # fmt: skip

from led_ref.errors import CheckpointError, MissingFileError
from led_ref.weights.stored_tensor import NUMPY_DTYPES
from led_ref.weights.torch_files.restricted_pickle import MAX_PICKLE_BYTES, STORAGE_DTYPES
from led_ref.weights.torch_files.torch_bin import read_torch_bin

FLOATS = np.arange(11, dtype="<f4") - 4  # the storage "0"
WHOLE = np.array([3, -1, 2**40], "<i8")  # the storage "1"
STORAGES = {"0": FLOATS.tobytes(), "1": WHOLE.tobytes()}
ENTRIES = {
    "plain": View("FloatStorage", "0", 11, 0, (2, 5), (5, 1)),
    "tied": View("FloatStorage", "0", 11, 0, (2, 5), (5, 1)),
    "transposed": View("FloatStorage", "0", 11, 1, (2, 3), (1, 2)),
    "parameter": View("FloatStorage", "0", 11, 8, (3,), (1,), is_parameter=True),
    "scalar": View("LongStorage", "1", 3, 2, (), ()),
    "whole": View("LongStorage", "1", 3, 0, (3,), (1,)),
    "one row of any stride": View("FloatStorage", "0", 11, 0, (1, 3), (2**70, 1)),
    "nothing": View("FloatStorage", "0", 11, 0, (0, 7), (7, 1)),
}
EXPECTED = {
    "plain": FLOATS[:10].reshape(2, 5),
    "tied": FLOATS[:10].reshape(2, 5),
    "transposed": FLOATS[1:7].reshape(3, 2).T,
    "parameter": FLOATS[8:],
    "scalar": WHOLE[2].reshape(()),
    "whole": WHOLE,
    "one row of any stride": FLOATS[None, :3],
    "nothing": np.zeros((0, 7), "<f4"),
}
NUMEL = {"0": 11, "1": 3}


def zipped(entries=ENTRIES, storages=STORAGES, *, pickle=None, records=(), without=(), **options):
    """The bytes of a .bin in zip format; `records` are replaced or added by name."""
    by_name = {record.name: record for record in zip_records(entries, storages, pickle=pickle)}
    by_name |= {record.name: record for record in records}
    return archive([record for name, record in by_name.items() if name not in without], **options)


def old(entries=ENTRIES, **options):
    """The bytes of a .bin of the time before zip."""
    return legacy(entries, {key: (NUMEL[key], data) for key, data in STORAGES.items()}, **options)


def rezipped():
    """The same records, stored by Python's zipfile: no descriptors, no zip64, nothing aligned."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target, zipfile.ZipFile(io.BytesIO(zipped())) as source:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return buffer.getvalue()


SOUND = {
    "zip": zipped(),
    "zip64": archive([Record(r.name, r.data, is_zip64=True, is_streamed=False) for r in zip_records(ENTRIES, STORAGES)]),
    "zip64 streamed": archive([Record(r.name, r.data, is_zip64=True) for r in zip_records(ENTRIES, STORAGES)]),
    "zip by Python": rezipped(),
    "zip without checksums": archive(
        [Record(r.name, r.data, {"crc": 0}, {"crc": 0}, is_streamed=False) for r in zip_records(ENTRIES, STORAGES)]
    ),
    "zip without byteorder": zipped(without=["archive/byteorder"]),
    "zip, wrapped": zipped(pickle=b"\x80\x02}" + text("state_dict") + state_dict(ENTRIES)[2:-1] + b"s."),
    "zip, protocol 4": zipped(pickle=b"\x80\x04\x95" + bytes(8) + state_dict(ENTRIES)[2:]),
    "zip of a trainer": zipped(pickle=of_trainer("state_dict", ENTRIES)),
    "legacy of fairseq": old(pickle=of_trainer("model", ENTRIES)),
    "legacy": old(),
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


@pytest.mark.parametrize("case", SOUND)
def test_reads_every_container(path, case):
    path.write_bytes(SOUND[case])
    tensors = read_torch_bin(path)
    assert list(tensors) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        np.testing.assert_array_equal(tensors[name].data, expected, strict=True)
        assert not tensors[name].data.flags.owndata
        assert not tensors[name].data.flags.writeable
    assert np.shares_memory(tensors["plain"].data, tensors["tied"].data)
    assert tensors["scalar"].dtype == "I64"


def test_archive_helper_is_valid():
    with zipfile.ZipFile(io.BytesIO(SOUND["zip"])) as archive_of_ours:
        assert archive_of_ours.testzip() is None
        assert archive_of_ours.read("archive/data/0") == FLOATS.tobytes()


@pytest.mark.parametrize("kind", STORAGE_DTYPES)
def test_every_kind_of_storage(path, kind):
    dtype = NUMPY_DTYPES[STORAGE_DTYPES[kind]]
    numbers = np.array([0, 1, 1, 0, 1], dtype)
    path.write_bytes(zipped({"w": View(kind, "0", 5, 1, (4,), (1,))}, {"0": numbers.tobytes()}))
    tensor_of_kind = read_torch_bin(path)["w"]
    assert tensor_of_kind.dtype == STORAGE_DTYPES[kind]
    np.testing.assert_array_equal(tensor_of_kind.data, numbers[1:], strict=True)


# ---- programs


def touching(path, how):
    """A pickle that, if it is run, makes the file at `path`."""
    command = text(f'"{sys.executable}" -c "open({str(path)!r}, \'w\')"')
    return {
        "GLOBAL": b"\x80\x02cos\nsystem\n(" + command + b"tR.",
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + command + b"\x85R.",
        "INST": b"(" + command + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + command + b"o.",
        "eval": b"\x80\x02cbuiltins\neval\n(" + text(f"open({str(path)!r}, 'w')") + b"tR.",
        "a dotted name": b"\x80\x04" + text("torch") + text("os.system") + b"\x93" + command + b"\x85R.",
    }[how]


@pytest.mark.parametrize("how", ["GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "eval", "a dotted name"])
def test_a_program_is_not_run(path, tmp_path, how):
    trace = tmp_path / "it-ran"
    program = touching(trace, how)
    if how != "a dotted name":  # that one would need torch
        result = pickle.loads(program)
        if hasattr(result, "close"):
            result.close()
        assert trace.exists(), "the program is harmless: this test would show nothing"
        trace.unlink()
    inside = state_dict({"w": program.removeprefix(b"\x80\x02").removeprefix(b"\x80\x04").removesuffix(b".")})
    for content in (zipped(pickle=program), zipped(pickle=inside), old(pickle=program), old(magic=program), program):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"os\.system|builtins\.eval|INST|OBJ|magic|begins with"):
            read_torch_bin(path)
    assert not trace.exists()


def test_forbidden_global_is_named_not_imported(path, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("open('it-was-imported', 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for content in (b"\x80\x02cstranger\nthing\n.", b"\x80\x04" + text("stranger") + text("thing") + b"\x93."):
        path.write_bytes(zipped(pickle=content))
        with pytest.raises(CheckpointError, match=r"'stranger\.thing'.*save its state_dict as safetensors"):
            read_torch_bin(path)
    assert not (tmp_path / "it-was-imported").exists()
    with pytest.raises(AttributeError):
        pickle.loads(b"\x80\x02cstranger\nthing\n.")
    assert (tmp_path / "it-was-imported").exists(), "Python's unpickler would have imported it"


@pytest.mark.parametrize("name", ["torch.nn.modules.linear.Linear", "torch._utils._rebuild_tensor_v3", "torch.load"])
def test_unsupported_torch_object_is_named(path, name):
    module, _, attribute = name.rpartition(".")
    path.write_bytes(zipped(pickle=b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"."))
    with pytest.raises(CheckpointError, match=f"'{name}'.*save its state_dict as safetensors"):
        read_torch_bin(path)


PLAIN = ENTRIES["plain"]


def one(**changes):
    """A .bin whose only tensor is `plain`, changed."""
    return zipped({"w": PLAIN._replace(**changes)})


def in_data_pkl(code):
    return zipped(pickle=b"\x80\x02" + code)


def changed_0(**changes):
    """A .bin whose record of storage 0 is told about otherwise, in one of its headers or both."""
    return zipped(records=[Record("archive/data/0", STORAGES["0"], **changes)])


BAD = {
    # not such a file at all
    "a tar archive": (None, "PyTorch 0.1"),
    "a Git LFS pointer": (b"version https://git-lfs and an oid", "git lfs pull"),
    "a web page": (b"<!DOCTYPE html>", "web page"),
    "text": (b"hello, world", "begins with b'hello, w'"),
    "one byte": (b"P", "begins with"),
    # the zip archive
    "zip cut off": (SOUND["zip"][:-1], "cut off"),
    "zip cut off early": (SOUND["zip"][:40], "cut off"),
    "zip grown": (SOUND["zip"] + b"\0", "added"),
    "a comment": (zipped(comment=b"hello"), "something was added"),
    "an end within a comment": (zipped(comment=b"PK\x05\x06" + bytes(18)), "does not end at byte"),
    "several disks": (zipped(end={"disk": 1}, has_zip64_end=False), "several disks"),
    "a wrong number of records": (zipped(end={"here": 3, "count": 3}), "contradict"),
    "a wrong number of records, no zip64": (
        zipped(end={"here": 3, "count": 3}, has_zip64_end=False), "bytes more than its 3 records"),
    "more records than there are": (zipped(end={"here": 9, "count": 9}, has_zip64_end=False), "no entry at byte"),
    "a directory somewhere else": (zipped(end={"start": 64}, has_zip64_end=False), "does not end at byte"),
    "a compressed record": (
        zipped(records=[Record("archive/data/0", bytes(20), {"method": 8}, {"method": 8, "size": 44})]), "compressed"),
    "an encrypted record": (
        changed_0(local={"flags": 0x809}, listed={"flags": 0x809}), "encrypted"),
    "a compressed local header": (changed_0(local={"method": 8}), "contradicts"),
    "a lying local size": (
        changed_0(local={"size": 40}, is_streamed=False), "contradicts"),
    "a lying listed size": (
        changed_0(listed={"size": 40, "packed": 40}), "descriptor"),
    "a lying size, unchecked": (
        zipped(records=[Record("archive/data/0", STORAGES["0"][:40], {"crc": 0}, {"crc": 0}, is_streamed=False)]),
        "44 bytes, but its record has 40"),
    "a lying local name": (changed_0(local={"name": "archive/data/1"}), "contradicts"),
    "a size beyond the file": (
        changed_0(listed={"size": 2**31, "packed": 2**31}), "beyond the directory"),
    "a header beyond the file": (changed_0(listed={"header": 2**31}), "should be at byte"),
    "two records in one place": (
        zipped(records=[Record("archive/data/1", STORAGES["1"], {}, {"header": 0})]), "overlaps"),
    "a size in no zip64 field": (
        changed_0(listed={"size": 2**32 - 1}), "zip64 field, which is missing"),
    "damaged numbers": (SOUND["zip"].replace(STORAGES["0"], STORAGES["0"][::-1]), "another checksum"),
    "a record twice": (archive([*zip_records(ENTRIES, STORAGES), Record("archive/byteorder", b"little")]), "twice"),
    "two top folders": (zipped(records=[Record("other/data/0", b"")]), "2 top folders"),
    "an absolute path": (archive(zip_records(ENTRIES, STORAGES, root="/etc")), "lead elsewhere"),
    "a path upwards": (zipped(records=[Record("archive/../../x", b"")]), "lead elsewhere"),
    "a root upwards": (archive(zip_records(ENTRIES, STORAGES, root="..")), "lead elsewhere"),
    "backslashes": (zipped(records=[Record("archive\\..\\x", b"")]), "lead elsewhere"),
    "a drive": (zipped(records=[Record("archive/C:/x", b"")]), "lead elsewhere"),
    "big-endian": (zipped(records=[Record("archive/byteorder", b"big")]), "little-endian"),
    "a TorchScript program": (zipped(records=[Record("archive/constants.pkl", b"")]), "TorchScript"),
    "no pickle": (zipped(without=["archive/data.pkl"]), "no archive/data.pkl"),
    "no storage": (zipped(without=["archive/data/1"]), "no record for the storage '1'"),
    "more after the pickle": (zipped(pickle=state_dict(ENTRIES) + b"\0"), "goes on for 1 bytes"),
    "a pickle longer than its record": (
        zipped(pickle=state_dict(ENTRIES)[:-1]), "cut off"),
    "a pickle too long": (in_data_pkl(b"K\0" * (MAX_PICKLE_BYTES // 2) + b"."), "longer than the"),
    # the tensors
    "numbers that are not there": (one(numel=12), "48 bytes, but its record has 44"),
    "a storage described twice": (zipped({"v": PLAIN, "w": PLAIN._replace(kind="IntStorage")}), "twice, differently"),
    "a view beyond its storage": (one(offset=2), "reaches number 11 of a storage that has 11"),
    "a view far beyond its storage": (one(stride=(2**40, 1)), "reaches number"),
    "a view that repeats": (one(size=(2**40,), stride=(0,)), "repeats"),
    "a negative offset": (one(offset=-1), "_rebuild_tensor_v2"),
    "a negative size": (one(size=(-2, -5)), "_rebuild_tensor_v2"),
    "a negative stride": (one(offset=10, stride=(-5, -1)), "_rebuild_tensor_v2"),
    "a negative numel": (one(numel=-11), "names a storage by"),
    "fewer strides than sizes": (one(stride=(1,)), "_rebuild_tensor_v2"),
    "65 dimensions": (one(size=(1,) * 65, stride=(1,) * 65), "_rebuild_tensor_v2"),
    "a shape that is large but for a 0": (one(size=(0, 2**40, 2**40), stride=(1, 1, 1)), "too large for an array"),
    "a storage view": (one(storage_view=((),)).replace(b"NtQ", b"\x89tQ"), "checksum|names a storage by"),
    # the pickle
    "a list": (in_data_pkl(b"]."), "a list, not"),
    "a number among the tensors": (zipped({**ENTRIES, "epoch": b"K\x03"}), r"1 entries .* 'epoch' \(int\)"),
    "what a trainer keeps": (in_data_pkl(b"}(" + text("epochs") + b"}" + text("epoch") + b"K\x03u."), "'epoch'"),
    "names that are no text": (in_data_pkl(b"}G" + bytes(8) + b"K\x02s."), "not text"),
    "names of one hash": (in_data_pkl(b"}\x8a\x08" + ((1 << 61) - 1).to_bytes(8, "little") + b"K\x02s."), "not text"),
    "a tensor without a name": (in_data_pkl(b"}K\x07" + tensor(PLAIN) + b"s."), r"no tensors: 7 \(TensorRecord\)"),
    "an object of another class": (in_data_pkl(b"ccollections\nOrderedDict\n)\x81."), "makes an object of .OrderedDict"),
    "an object made of something": (in_data_pkl(b"cargparse\nNamespace\nK\x01\x85\x81."), "makes an object of .Namespace"),
    "a call of a class": (in_data_pkl(b"cargparse\nNamespace\n)R."), "calls"),
    "attributes of a list": (in_data_pkl(b"]}" + text("a") + b"K\x01sb."), "attributes"),
    "attributes": (in_data_pkl(ORDERED_DICT + b"}" + text("__class__") + b"K\x01sb."), "attributes"),
    "attributes of a tensor": (in_data_pkl(tensor(PLAIN) + b"}" + text("_metadata") + b"}sb."), "TensorRecord"),
    "hooks": (in_data_pkl(tensor(PLAIN).replace(ORDERED_DICT, b"}" + text("h") + b"K\x01s") + b"."), "_rebuild_tensor_v2"),
    "a tensor to be conjugated": (
        in_data_pkl(tensor(PLAIN).replace(b")RtR", b")R}" + text("conj") + b"\x88stR") + b"."), "_rebuild_tensor_v2"),
    "a call of a storage": (in_data_pkl(b"ctorch\nFloatStorage\n)R."), "calls"),
    "a call of a number": (in_data_pkl(b"K\x01)R."), "calls"),
    "an empty stack": (in_data_pkl(b"s."), "empty stack"),
    "no mark": (in_data_pkl(b"t."), "never opened"),
    "nothing remembered": (in_data_pkl(b"h\x07."), "number 7"),
    "an instruction that no tensor needs": (in_data_pkl(b"\x8f."), "EMPTY_SET"),
    "an instruction that there is not": (in_data_pkl(b"\xff."), "xff"),
    "text that is not UTF-8": (in_data_pkl(b"X\x01\0\0\0\xff."), "UTF-8"),
    "text of four gigabytes": (in_data_pkl(b"X\xff\xff\xff\xff."), "cut off"),
    "a global without an end": (in_data_pkl(b"cos"), "cut off"),
    # the format before zip
    "legacy: no magic": (old(magic=VERSION), "magic"),
    "legacy: another version": (old(version=b"\x80\x02M\xea\x03."), "version"),
    "legacy: big-endian": (old(system=LITTLE_ENDIAN.replace(b"\x88", b"\x89")), "little-endian"),
    "legacy: no byte order": (old(system=b"\x80\x02]."), "little-endian"),
    "legacy: fewer numbers": (old(numels={"0": 10}), "should have 11 numbers, but has 10"),
    "legacy: a negative number": (old(numels={"0": -1}), "has -1"),
    "legacy: cut off": (SOUND["legacy"][:-1], "cut off"),
    "legacy: cut off in the pickle": (SOUND["legacy"][:200], "cut off"),
    "legacy: grown": (SOUND["legacy"] + b"\0", "added"),
    "legacy: a key too few": (old(keys=["0"]), "1 keys, which are not the 2"),
    "legacy: a key twice": (old(keys=["0", "1", "1"]), "has 3 keys"),
    "legacy: a storage view": (old({"w": PLAIN._replace(storage_view=(None, None))}), "names a storage by"),
    "legacy: only the magic": (MAGIC, "cut off"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_refuses_by_name(path, case):
    content, found = BAD[case]
    if content is None:
        with tarfile.open(path, "w") as tar:
            tar.addfile(tarfile.TarInfo("storages"))
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=found) as caught:
        read_torch_bin(path)
    message = str(caught.value)
    assert str(path) in message
    assert "Fetch it again" in message
    assert len(message) < 1500


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ("torch_zip.MAX_RECORDS", "directory of 5 records"),
        ("torch_bin.MAX_TENSORS", "8 tensors, more than the limit 4"),
    ],
)
def test_oversized_files_are_refused(path, monkeypatch, limit, found):
    monkeypatch.setattr(f"led_ref.weights.torch_files.{limit}", 4)
    path.write_bytes(SOUND["zip"])
    with pytest.raises(CheckpointError, match=found):
        read_torch_bin(path)


def test_invalid_files(tmp_path, path):
    with pytest.raises(MissingFileError, match=r"no file .*pytorch_model\.bin"):
        read_torch_bin(path)
    with pytest.raises(CheckpointError, match="not a plain file"):
        read_torch_bin(tmp_path)
    path.touch()
    with pytest.raises(CheckpointError, match="empty"):
        read_torch_bin(path)


# ---- damage

changed = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3)


def damaged(content, changes):
    result = bytearray(content)
    for place, change in changes:
        result[int(place * len(result))] ^= change
    return bytes(result)


@settings(max_examples=400, deadline=None)
@given(changed, st.sampled_from(["zip", "zip64 streamed", "zip by Python"]))
def test_damaged_zip(tmp_path_factory, changes, case):
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(damaged(SOUND[case], changes))
    try:
        tensors = read_torch_bin(path)
    except CheckpointError:
        return
    assert list(tensors) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        np.testing.assert_array_equal(tensors[name].data, expected, strict=True)


@settings(max_examples=300, deadline=None)
@given(changed)
def test_damaged_legacy_file(tmp_path_factory, changes):
    """There are no checksums in it: other numbers cannot be noticed, but anything that is no LEDError fails here."""
    path = tmp_path_factory.getbasetemp() / "damaged-legacy.bin"
    path.write_bytes(damaged(SOUND["legacy"], changes))
    try:
        tensors = read_torch_bin(path)
    except CheckpointError:
        return
    for stored in tensors.values():
        stored.data.sum()  # touches every number
        assert stored.data.nbytes <= os.path.getsize(path)
