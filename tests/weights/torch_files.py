"""Files as torch.save writes them, assembled by hand: the tests that use them run without torch, and can lie at will."""

import struct
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
VERSION = b"\x80\x02M\xe9\x03."
LITTLE_ENDIAN = b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."


class View(NamedTuple):
    """A tensor, as torch pickles it."""

    kind: str
    key: str
    numel: int
    offset: int
    size: tuple
    stride: tuple
    is_parameter: bool = False
    storage_view: tuple = ()  # (None,) in the legacy format


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + raw


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def tensor(view):
    storage_view = b"N" * len(view.storage_view)
    storage = b"(" + text("storage") + b"ctorch\n" + view.kind.encode() + b"\n" + text(view.key) + text("cpu")
    storage += number(view.numel) + storage_view + b"tQ"
    code = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(view.offset)
    code += numbers(view.size) + numbers(view.stride) + b"\x89" + ORDERED_DICT + b"tR"
    if view.is_parameter:
        code = b"ctorch._utils\n_rebuild_parameter\n" + code + b"\x88" + ORDERED_DICT + b"\x87R"
    return code


def state_dict(entries):
    """The pickle of an OrderedDict of tensors with its _metadata. Values that are bytes are instructions already."""
    items = b"".join(
        text(name) + (entry if isinstance(entry, bytes) else tensor(entry)) for name, entry in entries.items()
    )
    return b"\x80\x02" + ORDERED_DICT + b"(" + items + b"u}" + text("_metadata") + ORDERED_DICT + b"sb."


def of_trainer(name, entries):
    """A trainer's pickle: options as an object, an optimizer's state by the numbers of parameters, and the state_dict."""
    options = b"cargparse\nNamespace\n)\x81}" + text("lr") + b"K\x01sb"
    optimizer = b"}K\x00" + tensor(next(iter(entries.values()))) + b"s"
    values = {"args": options, "optimizer": optimizer, "epoch": b"K\x03", name: state_dict(entries)[2:-1]}
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in values.items()) + b"u."


@dataclass
class Record:
    """A record of a zip archive; `local` and `listed` replace fields of its two headers."""

    name: str
    data: bytes
    local: dict = field(default_factory=dict)
    listed: dict = field(default_factory=dict)
    is_streamed: bool = (
        True  # torch does not know sizes beforehand: zeros in the local header, a descriptor after the data
    )
    is_zip64: bool = False


def archive(records, *, has_zip64_end=True, listed_records=None, end=None, comment=b""):
    """A zip archive such as torch's own writer makes it: data at multiples of 64 bytes, zip64 end."""
    out, directory = b"", b""
    for record in records:
        size, crc = len(record.data), zlib.crc32(record.data)
        flags = 0x808 if record.is_streamed else 0x800
        known = (0, 0, 0) if record.is_streamed else (crc, size, size)
        fields = dict(zip(("crc", "packed", "size"), known, strict=True)) | {
            "flags": flags,
            "method": 0,
            "name": record.name,
        }
        fields |= record.local
        name = fields["name"].encode()
        wide = b""
        if record.is_zip64 and not record.is_streamed:
            wide = struct.pack("<2H2Q", 1, 16, size, size)
            fields |= {"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF} | record.local
        padding = -(len(out) + 30 + len(name) + len(wide) + 4) % 64
        header = len(out)
        out += struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", 0, fields["flags"], fields["method"], 0, 0,
            fields["crc"], fields["packed"], fields["size"], len(name), len(wide) + 4 + padding,
        )  # fmt: skip
        out += name + wide + struct.pack("<2s H", b"FB", padding) + b"Z" * padding + record.data
        if record.is_streamed:
            out += struct.pack("<4sI2Q" if record.is_zip64 else "<4s3I", b"PK\x07\x08", crc, size, size)
        listed = {
            "crc": crc,
            "packed": size,
            "size": size,
            "flags": flags,
            "method": 0,
            "name": record.name,
            "header": header,
        }
        wide = b""
        if record.is_zip64:
            wide = struct.pack("<2H3Q", 1, 24, size, size, header)
            listed |= {"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF, "header": 0xFFFFFFFF}
        listed |= record.listed
        name = listed["name"].encode()
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 0, 0, listed["flags"], listed["method"], 0, 0,
            listed["crc"], listed["packed"], listed["size"], len(name), len(wide), 0, 0, 0, 0, listed["header"],
        ) + name + wide  # fmt: skip
    count, start = len(records), len(out)
    out += directory
    if has_zip64_end:
        offset = len(out)
        out += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), start)
        out += struct.pack("<4sIQI", b"PK\x06\x07", 0, offset, 1)
    values = {"disk": 0, "here": count, "count": count, "size": len(directory), "start": start} | (end or {})
    return out + struct.pack(
        "<4s4H2IH", b"PK\x05\x06", values["disk"], 0, values["here"], values["count"], values["size"], values["start"],
        len(comment),
    ) + comment  # fmt: skip


def zip_records(entries, storages, *, root="archive", pickle=None):
    """The records of a .bin: entries are names -> View, storages keys -> bytes."""
    records = [Record(f"{root}/data.pkl", state_dict(entries) if pickle is None else pickle)]
    records.append(Record(f"{root}/byteorder", b"little"))
    records += [Record(f"{root}/data/{key}", data) for key, data in storages.items()]
    return [*records, Record(f"{root}/version", b"3\n")]


def legacy(
    entries, storages, *, magic=MAGIC, version=VERSION, system=LITTLE_ENDIAN, pickle=None, keys=None, numels=None
):
    """A .bin of the time before zip. storages: keys -> (numel, bytes)."""
    in_legacy = {
        name: view._replace(storage_view=view.storage_view or (None,)) if isinstance(view, View) else view
        for name, view in entries.items()
    }
    out = magic + version + system + (state_dict(in_legacy) if pickle is None else pickle)
    out += b"\x80\x02](" + b"".join(map(text, keys or storages)) + b"e."
    for key, (numel, data) in storages.items():
        out += struct.pack("<q", (numels or {}).get(key, numel)) + data
    return out
