"""Read the container of a pytorch_model.bin since PyTorch 1.6: a zip archive without compression.

    archive/data.pkl        the pickle: the storage of each tensor (restricted_pickle.py)
    archive/byteorder       "little"
    archive/data/0, 1, ...  the storages, contiguous and at multiples of 64 bytes, so that they can be used by memory map
    archive/version, ...    unused

A zip archive describes each record twice: in a header before the record, and in the directory at the archive's end.
Programs that read different copies see different files, so both must agree here. A record's checksum must be right, too,
except that 0 means "not computed" (an option of PyTorch).

    local header, data | local header, data | ... | directory | [zip64 end and its locator] | end (22 bytes)

Compressed or encrypted records, and names that are paths to other folders, are refused.
Source: PKWARE's APPNOTE, sections 4.3.7 (local header) to 4.3.16 (end), 4.5.3 (zip64); archives of torch.save.
"""

import struct
import zlib
from dataclasses import dataclass

from led_ref.weights.stored_tensor import FileBytes, Refuse
from led_ref.weights.torch_files.restricted_pickle import Pickled, run_pickle

MAX_RECORDS = 100_000  # LED-large has 590

_LOCAL = struct.Struct("<4s5H3I2H")  # signature, needs, flags, method, time, date, crc, packed, size, name, extra
_LISTED = struct.Struct("<4s6H3I5H2I")  # signature, made by, then as above; comment, disk, attributes (2), offset
_END = struct.Struct("<4s4H2IH")  # signature, disk, directory's disk, records here, records, size, offset, comment
# signature, size, made by, needs, disk, its disk, records here, records, size, offset
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")  # signature, disk, offset of _END64, disks

_DESCRIPTOR_FOLLOWS, _NAME_IS_UTF8 = 1 << 3, 1 << 11  # the only flags that PyTorch sets
_IN_ZIP64 = 0xFFFFFFFF  # in a 32-bit field: the value is in the zip64 extra field


@dataclass(frozen=True)
class ZipRecord:
    """A record of the directory; its data are the bytes start ... start + size."""

    name: str
    flags: int
    crc: int
    size: int
    header: int
    start: int


def read_torch_zip(mapped: FileBytes, refuse: Refuse) -> tuple[Pickled, dict[str, int]]:
    """The pickle's value, and the position of each of its storages in the file.

    Raises:
        CheckpointError: made by `refuse`, for every deviation from PyTorch's format.
    """
    records = _read_directory(mapped, refuse)
    root = _only_root(records, refuse)
    if f"{root}/constants.pkl" in records:
        raise refuse("it is a TorchScript program and not only weights")
    order = records.get(f"{root}/byteorder")
    if order is not None and mapped[order.start : order.start + order.size] != b"little":
        raise refuse("its numbers are not little-endian")
    program = records.get(f"{root}/data.pkl")
    if program is None:
        raise refuse(f"its zip archive has no {root[:40]}/data.pkl")
    pickled = run_pickle(mapped, program.start, program.start + program.size, refuse)
    if pickled.stop != program.start + program.size:
        raise refuse(f"its data.pkl goes on for {program.start + program.size - pickled.stop} bytes after its end")
    places = {}
    for key, storage in pickled.storages.items():
        record = records.get(f"{root}/data/{key}")
        if record is None:
            raise refuse(f"its zip archive has no record for the storage {key[:40]!r}")
        if record.size != storage.nbytes:
            raise refuse(
                f"storage {key[:40]!r} should have {storage.numel} numbers of {storage.dtype}, "
                f"{storage.nbytes} bytes, but its record has {record.size}"
            )
        places[key] = record.start
    return pickled, places


def _only_root(records: dict[str, ZipRecord], refuse: Refuse) -> str:
    """The folder of all records. Their names never become paths, but names of other folders are refused anyway."""
    for name in records:
        if "\\" in name or ":" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise refuse(f"its zip archive has a record named {name[:80]!r}, which tries to lead elsewhere")
    roots = sorted({name.split("/")[0] for name in records})
    if len(roots) != 1:
        raise refuse(f"its zip archive has {len(roots)} top folders {str(roots)[:80]}, not one")
    return roots[0]


# ---- the directory --------------------------------------------------------------------------------------------------


def _read_directory(mapped: FileBytes, refuse: Refuse) -> dict[str, ZipRecord]:
    """All records by name, each checked against its header and its bytes."""
    position, stop, count = _find_directory(mapped, refuse)
    directory, records = position, {}
    for _ in range(count):
        record, position = _listed_record(mapped, position, stop, refuse)
        if record.name in records:
            raise refuse(f"its zip archive has the record {record.name[:80]!r} twice")
        records[record.name] = record
    if position != stop:
        raise refuse(f"its zip directory has {stop - position} bytes more than its {count} records")
    free = 0
    for record in sorted(records.values(), key=lambda record: record.header):
        if record.header < free:
            raise refuse(f"its zip record {record.name[:80]!r} overlaps another")
        free = _check_against_local(mapped, record, directory, refuse)
    return records


def _find_directory(mapped: FileBytes, refuse: Refuse) -> tuple[int, int, int]:
    """The directory's first byte, the byte after its last, and its number of records, from the archive's end."""
    end = len(mapped) - _END.size
    if end < 0 or mapped[end : end + 4] != b"PK\x05\x06":
        raise refuse("it does not end as a zip archive does: it was cut off, or something was added to it")
    _, *disks, here, count, size, offset, comment = _END.unpack_from(mapped, end)
    locator = end - _LOCATOR64.size
    if locator >= 0 and mapped[locator : locator + 4] == b"PK\x06\x07":
        _, disk, end, many = _LOCATOR64.unpack_from(mapped, locator)
        if disk or many != 1 or end != locator - _END64.size or mapped[end : end + 4] != b"PK\x06\x06":
            raise refuse("its zip64 locator points at nothing")
        small, most = (here, count, size, offset), (0xFFFF, 0xFFFF, _IN_ZIP64, _IN_ZIP64)
        _, length, _, _, *disks, here, count, size, offset = _END64.unpack_from(mapped, end)
        wide = (here, count, size, offset)
        agree = all(short in (true, top) for short, true, top in zip(small, wide, most, strict=True))
        if not agree or length != _END64.size - 12:
            raise refuse("its two zip directory ends contradict each other")
    if any(disks) or here != count or comment:
        raise refuse("its zip archive has several disks or a comment")
    if offset + size != end or count > MAX_RECORDS:
        raise refuse(f"its zip directory of {count} records and {size} bytes at {offset} does not end at byte {end}")
    return offset, end, count


def _listed_record(mapped: FileBytes, position: int, stop: int, refuse: Refuse) -> tuple[ZipRecord, int]:
    """The directory's entry at that position, and the position after it."""
    if stop - position < _LISTED.size or mapped[position : position + 4] != b"PK\x01\x02":
        raise refuse(f"its zip directory has no entry at byte {position}")
    (_, _, _, flags, method, _, _, crc, packed, size, of_name, of_extra, of_comment, disk, _, _, header) = (
        _LISTED.unpack_from(mapped, position)
    )
    start = position + _LISTED.size
    after = start + of_name + of_extra + of_comment
    if after > stop:
        raise refuse(f"its zip directory's entry at byte {position} reaches beyond it")
    raw = mapped[start : start + of_name]
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse(f"its zip archive has a record whose name is not UTF-8: {raw[:40]!r}") from error
    extra = mapped[start + of_name : start + of_name + of_extra]
    size, packed, header = _widened(extra, (size, packed, header), refuse)
    if flags & 1:
        raise refuse(f"its zip record {name[:80]!r} is encrypted")
    if method != 0 or packed != size:
        raise refuse(f"its zip record {name[:80]!r} is compressed (method {method}); PyTorch compresses nothing")
    if flags & ~(_DESCRIPTOR_FOLLOWS | _NAME_IS_UTF8) or disk:
        raise refuse(f"its zip record {name[:80]!r} has the flags {flags:#x} and disk {disk}, which PyTorch never sets")
    # The data begin after the local header, whose extra field has a length of its own.
    if header + _LOCAL.size > len(mapped):
        raise refuse(f"its zip record {name[:80]!r} should be at byte {header} of {len(mapped)}")
    local_lengths = struct.unpack_from("<2H", mapped, header + _LOCAL.size - 4)
    return ZipRecord(name, flags, crc, size, header, header + _LOCAL.size + sum(local_lengths)), after


def _check_against_local(mapped: FileBytes, record: ZipRecord, directory: int, refuse: Refuse) -> int:
    """Compare a record with its header, its descriptor and its checksum. Returns the position after it."""
    shown = repr(record.name[:80])
    stop = record.start + record.size
    if stop > directory:
        raise refuse(f"its zip record {shown} claims bytes up to {stop}, beyond the directory at {directory}")
    signature, _, flags, method, _, _, crc, packed, size, of_name, _ = _LOCAL.unpack_from(mapped, record.header)
    start = record.header + _LOCAL.size
    extra = mapped[start + of_name : record.start]
    found = (flags, method, crc, *_widened(extra, (size, packed), refuse))
    true = (record.flags, 0, record.crc, record.size, record.size)
    # A writer that does not yet know sizes and checksum writes zeros here, and a descriptor after the data.
    announced = (record.flags, 0, 0, 0, 0) if record.flags & _DESCRIPTOR_FOLLOWS else true
    if (
        signature != b"PK\x03\x04"
        or found not in (true, announced)
        or mapped[start : start + of_name] != record.name.encode()
    ):
        raise refuse(f"the header of its zip record {shown} contradicts the directory")
    if record.flags & _DESCRIPTOR_FOLLOWS:
        sizes = "2Q" if mapped[stop : stop + 24] == _descriptor(record, "2Q") else "2I"
        descriptor = _descriptor(record, sizes)
        if mapped[stop : stop + len(descriptor)] != descriptor:
            raise refuse(f"the descriptor of its zip record {shown} contradicts the directory")
        stop += len(descriptor)
    if record.crc and zlib.crc32(memoryview(mapped)[record.start : record.start + record.size]) != record.crc:
        raise refuse(f"the bytes of its zip record {shown} have another checksum than it says: the file is damaged")
    return stop


def _descriptor(record: ZipRecord, sizes: str) -> bytes:
    """The descriptor after a record's data: its checksum and, twice, its size."""
    known = (record.size, record.size) if sizes == "2Q" else (record.size & 0xFFFFFFFF,) * 2
    return struct.pack("<4sI" + sizes, b"PK\x07\x08", record.crc, *known)


def _widened(extra: bytes, fields: tuple[int, ...], refuse: Refuse) -> tuple[int, ...]:
    """The fields; those that do not fit into 32 bits are read from the extra field number 1 (zip64), in order."""
    position, wide = 0, b""
    while position < len(extra):
        number, length = struct.unpack_from("<2H", extra.ljust(position + 4, b"\0"), position)
        if position + 4 + length > len(extra):
            raise refuse("an extra field of its zip archive reaches beyond its end")
        wide = extra[position + 4 : position + 4 + length] if number == 1 else wide
        position += 4 + length
    needed = fields.count(_IN_ZIP64)
    if needed and len(wide) < 8 * needed:
        raise refuse("a size in its zip archive refers to a zip64 field, which is missing")
    values = iter(struct.unpack_from(f"<{needed}Q", wide))
    return tuple(next(values) if field == _IN_ZIP64 else field for field in fields)
