r"""A restricted unpickler for pytorch_model.bin: it builds lists, dictionaries and tensor records, and runs no code.

A pickle is a program for a small stack machine: `]` pushes an empty list, `K\x07` pushes the number 7, `a` appends the one
to the other. Two instructions are dangerous. `c` (GLOBAL) imports any Python object by its name, and `R` (REDUCE) calls it.
This is a whole pickle, and anybody can put it into a .bin:

    c os\n system\n      push the function os.system
    ( X rm -rf ~  t       push the tuple ("rm -rf ~",)
    R .                   call the one with the other; done

Python's own unpickler obeys, so opening a stranger's .bin with it runs a stranger's program. PyTorch needs the two
instructions for a harmless reason: it writes a tensor as a call,

    torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)

So this file has its own machine. It knows the instructions that PyTorch writes and refuses every other one by name. GLOBAL
imports nothing: it looks the name up in a short list. REDUCE calls nothing: it makes a `TensorRecord`, which describes the
tensor's numbers in a storage. Trainers keep their options beside the weights, in objects such as argparse.Namespace: NEWOBJ
makes an empty dictionary in place of one, and BUILD puts its attributes into it. So the file can run no code, and its memory
is proportional to the pickle's length, which is limited.

    >>> run_pickle(b"\x80\x02}X\x01\x00\x00\x00aK\x07s.", 0, 13, ValueError).value
    {'a': 7}

torch_zip.py and torch_bin.py find the storages' bytes.
Source: Python's pickletools for the instructions, and its disassembly of torch.save's files for the needed ones.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from led_ref.weights.stored_tensor import MAX_DIMENSIONS, NUMPY_DTYPES, Refuse

# Each byte of a pickle can become an object of some 70 bytes; this limits both.
MAX_PICKLE_BYTES = 1 << 20  # LED-large's has a tenth of that

# torch's names of storages, and safetensors' names of their dtypes.
STORAGE_DTYPES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "LongStorage": "I64",
    "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip

Memory: TypeAlias = Any  # bytes, or a memory map: slices of it are bytes


@dataclass(frozen=True)
class StorageRecord:
    """A storage, a flat array of numbers in the file: its dtype name, the key of its bytes, and its number of elements."""

    dtype: str
    key: str
    numel: int

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.numel * NUMPY_DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as a view: its element (i, j, ...) is number offset + i * stride[0] + j * stride[1] ... of a storage."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Pickled:
    """A pickle's value, its storages by key, and the position after its last byte."""

    value: object
    storages: dict[str, StorageRecord]
    stop: int


@dataclass(frozen=True)
class _Global:
    """A name from the list of `_ALLOWED`, in place of the object of that name."""

    name: str


def run_pickle(memory: Memory, start: int, limit: int, refuse: Refuse) -> Pickled:
    """Build the value that the pickle at `start` of the file's bytes describes; it ends before `limit`.

    Raises:
        CheckpointError: made by `refuse`, for an instruction or a global that is not on the list, and for a malformed pickle.
    """
    return _Machine(memory, start, min(limit, start + MAX_PICKLE_BYTES), refuse).run()


class _Attributes(dict[str, Any]):
    """The attributes of an object, in place of the object: nothing of its class is known here."""


class _Machine:
    """The stack machine. `stack` is the innermost of `stacks`: MARK opens a new one, TUPLE and its like close it."""

    def __init__(self, memory: Memory, start: int, limit: int, refuse: Refuse) -> None:
        self.memory, self.position, self.limit, self.refuse = memory, start, limit, refuse
        self.stacks: list[list[Any]] = [[]]
        self.memo: dict[int, Any] = {}  # PUT stores into it, GET loads; a dict has no negative indices
        self.storages: dict[str, StorageRecord] = {}

    @property
    def stack(self) -> list[Any]:
        return self.stacks[-1]

    def run(self) -> Pickled:
        while (opcode := self.take(1)) != b".":
            step = _STEPS.get(opcode)
            if step is None:
                names = {known.code: known.name for known in pickletools.opcodes}
                name = names.get(opcode.decode("latin-1"), repr(opcode))
                raise self.refuse(f"its pickle has the instruction {name}, which no tensor needs")
            step(self)
        return Pickled(self.pop(), self.storages, self.position)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        """The next bytes of the program."""
        if count > self.limit - self.position:
            raise self.refuse(f"its pickle is cut off, or longer than the {MAX_PICKLE_BYTES} bytes of the limit")
        self.position += count
        return bytes(self.memory[self.position - count : self.position])

    def number(self, layout: str) -> Any:
        """The next number of the program, in one of struct's layouts."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, count: int) -> str:
        """The next `count` bytes as UTF-8."""
        raw = self.take(count)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.refuse(f"its pickle holds text that is not UTF-8: {raw[:40]!r}") from error

    def line(self) -> str:
        """The text up to the next line feed."""
        end = self.memory.find(b"\n", self.position, self.limit)
        text = self.text((self.limit if end < 0 else end) - self.position)
        self.take(1)
        return text

    # ---- the stack --------------------------------------------------------------------------------------------------

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise self.refuse("its pickle takes from an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Remove the values above the last MARK."""
        if len(self.stacks) == 1:
            raise self.refuse("its pickle closes what it never opened")
        return self.stacks.pop()

    def top(self, expected: type) -> Any:
        """The top value, of the expected type; it stays on the stack."""
        if not self.stack or not isinstance(self.stack[-1], expected):
            raise self.refuse(f"its pickle fills {_describe(self.stack[-1:])} as if it were a {expected.__name__}")
        return self.stack[-1]

    def put(self, index: int) -> None:
        """Store the top value in the memo; it stays on the stack."""
        if not self.stack:
            raise self.refuse("its pickle remembers the top of an empty stack")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise self.refuse(f"its pickle recalls number {index}, which it never stored")
        self.push(self.memo[index])

    def push_tuple(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Put pairs into the dictionary on top. Names are text or small numbers: hashing other objects can take forever."""
        if len(items) % 2 or not all(type(name) is str or _is_number_of_parameter(name) for name in items[::2]):
            raise self.refuse(f"its pickle has a dictionary whose names are not text: {_describe(items[::2])}")
        self.top(dict).update(zip(items[::2], items[1::2], strict=True))

    # ---- the dangerous instructions, made harmless ------------------------------------------------------------------

    def push_global(self, module: str, name: str) -> None:
        """GLOBAL: push the name, if it is on the list. Nothing is imported."""
        if (module, name) not in _ALLOWED:
            raise self.refuse(
                f"its pickle asks for {f'{module}.{name}'[:200]!r}, which no tensor needs and which unpickling would "
                "import and could run (here it was not run)"
            )
        self.push(_Global(name))

    def push_named_global(self) -> None:
        """STACK_GLOBAL: the same with names from the stack."""
        name, module = self.pop(), self.pop()
        if not (type(module) is type(name) is str):
            raise self.refuse(f"its pickle asks for a global by {_describe([module, name])}")
        self.push_global(module, name)

    def reduce(self) -> None:
        """REDUCE: push the result of one of three known calls. Nothing of the file is called."""
        arguments, function = self.pop(), self.pop()
        make = _CALLS.get(function.name) if isinstance(function, _Global) else None
        if make is None or type(arguments) is not tuple:
            raise self.refuse(f"its pickle calls {_describe([function])} with {_describe([arguments])}")
        value = make(arguments)
        if value is None:
            raise self.refuse(f"its pickle calls {function.name} with {_describe(list(arguments))}")
        self.push(value)

    def new_object(self) -> None:
        """NEWOBJ: push an empty dictionary in place of an object of a known class."""
        arguments, of_class = self.pop(), self.pop()
        if not isinstance(of_class, _Global) or of_class.name not in _WITH_ATTRIBUTES or arguments != ():
            raise self.refuse(f"its pickle makes an object of {_describe([of_class])} with {_describe([arguments])}")
        self.push(_Attributes())

    def build(self) -> None:
        """BUILD: set attributes of the top value. A state_dict has one, `_metadata` (module versions), unused here."""
        attributes = self.pop()
        if isinstance(attributes, dict) and self.stack and type(self.stack[-1]) is _Attributes:
            self.stack[-1].update(attributes)
            return
        if not isinstance(attributes, dict) or attributes.keys() != {"_metadata"}:
            raise self.refuse(f"its pickle sets the attributes {_describe([attributes])}; only _metadata is known")
        self.top(dict)

    def push_storage(self) -> None:
        """BINPERSID: push a storage, which lies outside the pickle, by its identification."""
        match self.pop():
            case ("storage", _Global(name), str(key), str(), int(numel), *view) if (
                name in STORAGE_DTYPES and type(numel) is int and numel >= 0 and view in ([], [None])
            ):
                record = StorageRecord(STORAGE_DTYPES[name], key, numel)
            case other:
                parts = list(other) if isinstance(other, tuple) else [other]
                raise self.refuse(f"its pickle names a storage by {_describe(parts)}")
        if self.storages.setdefault(key, record) != record:
            raise self.refuse(f"its pickle describes the storage {key[:40]!r} twice, differently")
        self.push(record)


def _is_number_of_parameter(name: object) -> bool:
    """Whether an optimizer can have its state of a parameter under this name. Large numbers can all have one hash."""
    return type(name) is int and 0 <= name < 1 << 31


def _describe(values: list[Any]) -> str:
    """Values of an untrusted file for an error: numbers and texts shortened, the type of other values."""
    shown = [
        value.name if isinstance(value, _Global)
        else repr(value[:40]) if isinstance(value, str)
        else str(value)[:40] if isinstance(value, int | float | None)
        else type(value).__name__
        for value in values[:8]
    ]  # fmt: skip
    return f"({', '.join(shown)}{', ...' if len(values) > 8 else ''})"


# ---- the three calls that a tensor needs; None for arguments that torch does not write ------------------------------


def _rebuild_tensor(arguments: tuple[Any, ...]) -> TensorRecord | None:
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])."""
    match arguments:
        case StorageRecord() as storage, int(offset), tuple(size), tuple(stride), bool(), dict() as hooks, *more if (
            not hooks
            and more in ([], [None], [{}])  # metadata
            and len(size) == len(stride) <= MAX_DIMENSIONS
            and all(type(number) is int and number >= 0 for number in (offset, *size, *stride))
        ):
            return TensorRecord(storage, offset, size, stride)
    return None


def _rebuild_parameter(arguments: tuple[Any, ...]) -> TensorRecord | None:
    """torch._utils._rebuild_parameter(tensor, requires_grad, hooks): a parameter is its tensor."""
    match arguments:
        case (TensorRecord() as tensor, bool(), dict() as hooks) if not hooks:
            return tensor
    return None


_CALLS: Mapping[str, Callable[[tuple[Any, ...]], object]] = {
    "OrderedDict": lambda arguments: {} if arguments == () else None,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": _rebuild_parameter,
}

# Objects that are nothing but their attributes: options beside the weights of Lightning and fairseq.
_WITH_ATTRIBUTES = frozenset({"Namespace", "AttributeDict"})
_ALLOWED = frozenset({
    ("argparse", "Namespace"),
    *((f"{module}.parsing", "AttributeDict") for module in ("pytorch_lightning.utilities", "lightning.pytorch.utilities")),
    *((f"{module}.utilities.data", "AttributeDict") for module in ("lightning_fabric", "lightning.fabric")),
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    *(("torch", name) for name in STORAGE_DTYPES),
})  # fmt: skip

# The whole instruction set. Protocol 2 is what torch.save writes; FRAME and the four after it come with protocol 4.
_STEPS: Mapping[bytes, Callable[[_Machine], object]] = {
    b"\x80": lambda m: m.take(1),  # PROTO: the version, unused
    b"N": lambda m: m.push(None),  # NONE
    b"\x88": lambda m: m.push(True),  # NEWTRUE
    b"\x89": lambda m: m.push(False),  # NEWFALSE
    b"K": lambda m: m.push(m.number("<B")),  # BININT1
    b"M": lambda m: m.push(m.number("<H")),  # BININT2
    b"J": lambda m: m.push(m.number("<i")),  # BININT
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),  # LONG1
    b"G": lambda m: m.push(m.number(">d")),  # BINFLOAT
    b"X": lambda m: m.push(m.text(m.number("<I"))),  # BINUNICODE
    b")": lambda m: m.push(()),  # EMPTY_TUPLE
    b"\x85": lambda m: m.push_tuple(1),  # TUPLE1
    b"\x86": lambda m: m.push_tuple(2),  # TUPLE2
    b"\x87": lambda m: m.push_tuple(3),  # TUPLE3
    b"(": lambda m: m.stacks.append([]),  # MARK
    b"t": lambda m: m.push(tuple(m.pop_to_mark())),  # TUPLE
    b"]": lambda m: m.push([]),  # EMPTY_LIST
    b"a": lambda m: m.extend([m.pop()]),  # APPEND
    b"e": lambda m: m.extend(m.pop_to_mark()),  # APPENDS
    b"}": lambda m: m.push({}),  # EMPTY_DICT
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),  # SETITEM
    b"u": lambda m: m.set_items(m.pop_to_mark()),  # SETITEMS
    b"q": lambda m: m.put(m.number("<B")),  # BINPUT
    b"r": lambda m: m.put(m.number("<I")),  # LONG_BINPUT
    b"h": lambda m: m.get(m.number("<B")),  # BINGET
    b"j": lambda m: m.get(m.number("<I")),  # LONG_BINGET
    b"c": lambda m: m.push_global(m.line(), m.line()),  # GLOBAL
    b"R": lambda m: m.reduce(),  # REDUCE
    b"b": lambda m: m.build(),  # BUILD
    b"\x81": lambda m: m.new_object(),  # NEWOBJ
    b"Q": lambda m: m.push_storage(),  # BINPERSID
    b"\x95": lambda m: m.take(8),  # FRAME: a length, unused
    b"\x8c": lambda m: m.push(m.text(m.number("<B"))),  # SHORT_BINUNICODE
    b"\x94": lambda m: m.put(len(m.memo)),  # MEMOIZE
    b"\x93": lambda m: m.push_named_global(),  # STACK_GLOBAL
}
