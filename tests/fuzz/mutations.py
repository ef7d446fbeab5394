"""Mutations of files: seeded random damage to bytes, to the values of a JSON text, to lines, and to the parts of containers.

Each function takes a random generator and the content of a sound file, and returns the content of a damaged one.
"""

import json
import random
import struct
from typing import Any

from torch_files import archive, zip_records


class Raw(str):
    """A piece of JSON text that is written as it stands, be it JSON or not."""


class Pairs(list):
    """The names and values of a JSON object; a name may occur twice."""


# What a reader may not expect in the place of a value.
EVIL = tuple(map(Raw, (
    "null", "true", "false", "0", "-1", "1", "2", "3", "1.5", "-0.0", "1e308", "1e400", "-1e400", "NaN", "Infinity",
    "-Infinity", "100000", "1000000", "2147483648", "30000000", "1" + "0" * 18, "1" + "0" * 30, "1" + "0" * 400, "9" * 5000,
    '""', '" "', '"a"', '"\\ud800"', '"\\u0000"', '"\u2028"', '"7"', '"' + "n" * 300 + '"', '"' + "x" * 100_000 + '"',
    "[]", "{}", "[null]", "[[]]", "[0]", "[-1]", "[1, 1]", '["a"]', '{"a": null}', '{"0": "a"}', '{"content": "a"}',
    '{"content": "</s>", "special": 1}', "[" * 700 + "]" * 700, '{"a":' * 700 + "1" + "}" * 700, "[" * 100_000,
    '"../../../etc/passwd"', '"/etc/hostname"', '"model.safetensors"', '"pytorch_model.bin"', '"led"', '"bart"', '"t5"',
)))  # fmt: skip
# The same at a size that takes a moment; drawn seldom.
LARGE = (
    lambda: Raw("[" + "0, " * 100_000 + "0]"),
    lambda: Raw("{" + ", ".join(f'"{i}": {i}' for i in range(100_000)) + "}"),
    lambda: Raw("{" + ", ".join(['"a": 1'] * 100_000) + "}"),
    lambda: Raw('"' + "y" * 3_000_000 + '"'),
)
# Names that mean something in one file or another.
NAMES = (
    "encoder_layers", "decoder_layers", "d_model", "vocab_size", "attention_window", "num_labels", "id2label", "architectures",
    "eos_token_id", "num_beams", "num_return_sequences", "max_length", "min_length", "length_penalty", "diversity_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "suppress_tokens", "bad_words_ids", "sequence_bias", "do_sample",
    "temperature", "hidden_size", "quantization_config", "problem_type", "torch_dtype", "model_max_length", "mask_token",
    "additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "added_tokens", "padding_side", "weight_map",
    "__metadata__", "dtype", "shape", "data_offsets", "content", "forced_bos_token_id", "forced_eos_token_id", "early_stopping",
    "max_time", "stop_strings", "num_beam_groups", "repetition_penalty", "exponential_decay_length_penalty", "top_k", "seed",
)  # fmt: skip


def of_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes changed, inserted, left out, repeated or cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place = rng.randrange(len(data) + 1)
        end = min(len(data), place + rng.choice((1, 2, 8, 100)))
        match rng.randrange(7):
            case 0 if place < len(data):
                data[place] = rng.randrange(256)
            case 1 if place < len(data):
                data[place] ^= 1 << rng.randrange(8)
            case 2:
                data[place:place] = rng.randbytes(rng.choice((1, 4, 30)))
            case 3:
                del data[place:end]
            case 4:
                data[place:place] = data[place:end]
            case 5:
                del data[place:]
            case 6:
                data[place:end] = rng.choice((b"\0", b"\xff", b"\n", b'"', b"{", b"]", b"9")) * (end - place)
    return bytes(data)


def of_json(rng: random.Random, content: bytes) -> bytes:
    """One value, name or entry of a JSON text; one time in four its bytes."""
    if rng.random() < 0.25:
        return of_bytes(rng, content)
    tree = json.loads(content, object_pairs_hook=Pairs)
    holders = [tree, *_holders(tree)]
    for _ in range(rng.choice((1, 1, 1, 2))):
        # Small holders are as likely as large ones: those of three settings among a vocabulary.
        holder = rng.choice(holders)
        _change(rng, holder)
    return _text(tree).encode("utf-8", "surrogatepass")


def _holders(value: Any) -> list[Any]:
    parts = [part for _, part in value] if isinstance(value, Pairs) else value if isinstance(value, list) else ()
    return [holder for part in parts if isinstance(part, list) for holder in (part, *_holders(part))]


def _change(rng: random.Random, holder: Any) -> None:
    value = rng.choice(LARGE)() if rng.random() < 0.01 else rng.choice(EVIL)
    is_object = isinstance(holder, Pairs)
    if not holder:
        holder.append((rng.choice(NAMES), value) if is_object else value)
        return
    i = rng.randrange(len(holder))
    match rng.randrange(8):
        case 0 | 1 | 2:
            holder[i] = (holder[i][0], value) if is_object else value
        case 3:
            del holder[i]
        case 4:
            holder.insert(i, (rng.choice(NAMES), value) if is_object else value)
        case 5:
            holder.append((holder[i][0], value) if is_object else holder[i])  # a name that occurs twice
        case 6:
            j = rng.randrange(len(holder))  # two values in each other's place
            if is_object:
                (a, x), (b, y) = holder[i], holder[j]
                holder[i], holder[j] = (a, y), (b, x)
            else:
                holder[i], holder[j] = holder[j], holder[i]
        case 7 if is_object:
            holder[i] = (rng.choice((holder[i][0] + "x", "", "1" + "0" * 5000, "9" * 30, "²", *NAMES)), holder[i][1])


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(name)}: {_text(part)}" for name, part in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value)


def of_lines(rng: random.Random, content: bytes) -> bytes:
    """Lines repeated, left out, exchanged or replaced; one time in two the bytes."""
    if rng.random() < 0.5:
        return of_bytes(rng, content)
    lines = content.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines.insert(j, lines[i])
        case 1:
            del lines[i]
        case 2:
            lines[i], lines[j] = lines[j], lines[i]
        case 3:
            lines[i] = rng.choice(
                (b"", b" ", b"a", b"a  b", b"a b c", b"\xff \xff", b"x" * 100_000, b"a b\n" * 100_000)
            )
    return b"\n".join(lines)


def of_safetensors(rng: random.Random, content: bytes) -> bytes:
    """The header's JSON, its length, or any byte."""
    if rng.random() < 0.3:
        return of_bytes(rng, content)
    size = struct.unpack("<Q", content[:8])[0]
    header = of_json(rng, content[8 : 8 + size])
    length = rng.choice((0, 1, 1 << 27, 1 << 40, (1 << 64) - 1)) if rng.random() < 0.05 else len(header)
    return struct.pack("<Q", length) + header + content[8 + size :]


# Instructions of a pickle, dangerous ones among them.
_INSTRUCTIONS = (
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"R", b"(", b"t", b"\x85", b"]", b"}", b"e", b"u", b"s", b"a", b"N", b"\x88",
    b"K\x07", b"J\xff\xff\xff\x7f", b"\x8a\xff" + b"\x7f" * 255, b"X\xff\xff\xff\xff", b"X\x02\0\0\0ok", b"q\x01", b"h\x01",
    b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"Q", b"b", b"\x81", b"i", b"o", b"0", b"2", b".",
    b"ccollections\nOrderedDict\n)R",
)  # fmt: skip


def of_pickle(rng: random.Random, program: bytes) -> bytes:
    """The bytes of a pickle, or instructions put into it."""
    if rng.random() < 0.5:
        return of_bytes(rng, program)
    place = rng.randrange(len(program))
    return (
        program[:place]
        + rng.choice(_INSTRUCTIONS) * rng.choice((1, 1, 2, 1000))
        + program[place + rng.choice((0, 1)) :]
    )


def of_zip(rng: random.Random, content: bytes, *, storages: dict[str, bytes], program: bytes) -> bytes:
    """The archive's bytes, or the pickle in an archive whose checksums are right."""
    if rng.random() < 0.4:
        return of_bytes(rng, content)
    return archive(zip_records({}, storages, pickle=of_pickle(rng, program)))
