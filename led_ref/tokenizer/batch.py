"""From texts to a batch: validation of the texts, truncation and padding; and BatchEncoding, the result.

    >>> as_pairs(["a", "b"], ["c", "d"])
    ([('a', 'c'), ('b', 'd')], True)
    >>> rules = length_rules(padding="longest", pad_to_multiple_of=4)
    >>> rules.padded([{"input_ids": [0, 9, 2], "global_attention_mask": [1, 0, 0]}], is_batch=False, pad_token_id=1)
    BatchEncoding({'input_ids': [0, 9, 2, 1], 'global_attention_mask': [1, 0, 0, -1]})

Truncation is never silent: without `truncation` a text keeps all its tokens, and a `max_length` without effect is refused.
(transformers truncates if only max_length is given, with a warning.) overflow.py has what truncation leaves over.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from led_ref.errors import InputError, quoted, wrong_type

# The padding value of each field; that of input_ids is the pad token's id. In the global mask, -1 means masked.
PAD_VALUES: Mapping[str, Any] = {
    "attention_mask": 0,
    "global_attention_mask": -1,
    "token_type_ids": 0,
    "special_tokens_mask": 1,
    "offset_mapping": (0, 0),
}

# What the other fields may hold; ids are compared with the vocabulary.
_ALLOWED = {"attention_mask": (0, 1), "global_attention_mask": (0, 1, -1), "special_tokens_mask": (0, 1)}

# A thousand times what LED reads: longer rows of padding would only fill the memory.
MAX_LENGTH = 1 << 24

_PADDINGS = {
    False: None, None: None, "do_not_pad": None, True: "longest", "longest": "longest", "max_length": "max_length",
}  # fmt: skip
_TRUNCATIONS = {
    False: None, None: None, "do_not_truncate": None, True: "longest_first",
    "longest_first": "longest_first", "only_first": "only_first", "only_second": "only_second",
}  # fmt: skip

Row = dict[str, list[Any]]


class BatchEncoding(Mapping[str, Any]):
    """The tokenizer's result: a read-only dictionary of plain lists, with its fields also as attributes.

    For one text, each field is a list with one element per token; for a list of texts, a list of these lists.
    With return_tensors="np" they are arrays: pass it to a model as `model.generate(**encoding)`.

    Fields: input_ids; attention_mask (1 token, 0 padding); and on request special_tokens_mask (1 for tokens that the
    tokenizer added), token_type_ids (all 0), offset_mapping ((start, end) in characters; (0, 0) for added tokens).

    Example:
        >>> encoding = BatchEncoding({"input_ids": [0, 9, 2]})
        >>> encoding.input_ids is encoding["input_ids"], dict(encoding)
        (True, {'input_ids': [0, 9, 2]})
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.__dict__["data"] = dict(data)

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def __getattr__(self, name: str) -> Any:
        # Python calls this for `data` only if it is missing, as in an unfinished copy; without the check it would recurse.
        if name != "data" and name in self.data:
            return self.data[name]
        raise AttributeError(f"This encoding has no {name!r}; it has {', '.join(self.__dict__.get('data', ()))}.")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"An encoding is not changed: make a dictionary, {{**encoding, {name!r}: ...}}.")

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"BatchEncoding({quoted(self.data, 900)})"


def as_pairs(text: object, text_pair: object) -> tuple[list[tuple[str, ...]], bool]:
    """The texts as a list of (A,) or (A, B), and whether the input was a list. No text is changed.

    Raises:
        InputError: naming the position of what is no text, or not valid in UTF-8.
    """
    is_batch = isinstance(text, list | tuple)
    firsts = _checked_texts("text", text)
    if not firsts:
        raise InputError("The batch of texts is empty. Pass at least one text; an empty text, '', is allowed.")
    if text_pair is None:
        return [(a,) for a in firsts], is_batch
    if isinstance(text_pair, list | tuple) != is_batch:
        raise InputError(
            f"text is a {type(text).__name__}, but text_pair is a {type(text_pair).__name__}. Pass two texts, or two lists."
        )
    seconds = _checked_texts("text_pair", text_pair)
    if len(seconds) != len(firsts):
        raise InputError(f"There are {len(firsts)} texts, but {len(seconds)} in text_pair. Pass as many of both.")
    return list(zip(firsts, seconds, strict=True)), is_batch


def _checked_texts(name: str, given: object) -> list[str]:
    """One text, or those of a list."""
    places = {f"{name}[{i}]": t for i, t in enumerate(given)} if isinstance(given, list | tuple) else {name: given}
    for place, text in places.items():
        if not isinstance(text, str):
            raise InputError(
                f"{place} is a {type(text).__name__}, not a text: {quoted(text, 60)}. Pass a str or a list of str; decode "
                "bytes first; pass pairs as text=[...], text_pair=[...]."
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"{place} holds the lone surrogate U+{ord(text[error.start]):04X} at position {error.start}, which is no "
                "character and not valid in UTF-8. Read the file with errors='replace', or drop such characters with "
                "text.encode('utf-8', 'ignore').decode('utf-8')."
            ) from error
    return list(places.values())


@dataclass(frozen=True)
class LengthRules:
    """The rules of truncation and padding, validated by `length_rules`."""

    padding: str | None
    truncation: str | None
    max_length: int | None
    pad_to_multiple_of: int | None
    padding_side: str

    def padded(self, rows: Sequence[Row], *, is_batch: bool, pad_token_id: int) -> BatchEncoding:
        """The rows padded to one length, field by field; one row without the list around it.

        Raises:
            InputError: if a row is longer than the max_length to pad to.
        """
        length = self._padded_length([len(row["input_ids"]) for row in rows])
        padded: list[Row] = [{} for _ in rows]
        for row, new in zip(rows, padded, strict=True):
            for name, values in row.items():
                value = pad_token_id if name == "input_ids" else PAD_VALUES[name]
                filling = [value] * (length - len(values))
                new[name] = [*values, *filling] if self.padding_side == "right" else [*filling, *values]
        return BatchEncoding({name: [row[name] for row in padded] for name in padded[0]} if is_batch else padded[0])

    def _padded_length(self, lengths: Sequence[int]) -> int:
        """The length to which rows of these lengths are padded; 0 without padding."""
        if self.padding is None:
            return 0
        length = max(lengths)
        if self.padding == "max_length" and self.max_length is not None:
            if length > self.max_length:
                raise InputError(
                    f"Row {list(lengths).index(length)} has {length} tokens, which is more than the max_length "
                    f"{self.max_length} to pad to. Pass truncation=True, or a larger max_length."
                )
            length = self.max_length
        multiple = self.pad_to_multiple_of or 1
        return -(-length // multiple) * multiple

    def kept(self, first: int, second: int | None, added: int) -> tuple[int, int]:
        """The numbers of tokens to keep of the first and the second text, if `added` special tokens are added.

        longest_first cuts the longer text down to the shorter, then both to a half each. `second` is None for one text.

        Raises:
            InputError: if max_length is less than the special tokens, if the second text to cut does not exist, or if no
                token of the text to cut would remain.

        Example:
            >>> length_rules(truncation=True, max_length=11).kept(9, 3, added=4)
            (4, 3)
            >>> length_rules(truncation="only_second", max_length=11).kept(4, 9, added=4)
            (4, 3)
        """
        other = second or 0
        if self.truncation is None or self.max_length is None or first + other + added <= self.max_length:
            return first, other
        available = self.max_length - added
        if available < 0:
            raise InputError(
                f"max_length is {self.max_length}, but the special tokens alone are {added}. "
                f"Give a max_length of at least {added}, or add_special_tokens=False."
            )
        if self.truncation == "longest_first":
            if second is None:
                return available, 0
            shorter = min(first, other)
            longer = available - shorter if 2 * shorter <= available else available - available // 2
            return (available - longer, longer) if first <= other else (longer, available - longer)
        return self._kept_of_one(first, second, available)

    def _kept_of_one(self, first: int, second: int | None, available: int) -> tuple[int, int]:
        """`kept` for only_first and only_second, which cut one of the two texts."""
        if self.truncation == "only_second" and second is None:
            raise InputError("truncation='only_second' needs a second text. Use 'only_first', or give text_pair.")
        cut, fixed = (first, second or 0) if self.truncation == "only_first" else (second or 0, first)
        if fixed >= available and not (fixed == available == 0):
            raise InputError(
                f"truncation={self.truncation!r} can cut only a text of {cut} tokens, but the other has {fixed} of the "
                f"{available} available. Use truncation='longest_first', or a larger max_length."
            )
        return (available - fixed, fixed) if self.truncation == "only_first" else (fixed, available - fixed)


def length_rules(
    *,
    padding: bool | str | None = False,
    truncation: bool | str | None = False,
    max_length: int | None = None,
    pad_to_multiple_of: int | None = None,
    model_max_length: int | None = None,
    padding_side: str = "right",
) -> LengthRules:
    """Validate the tokenizer's arguments of these names; model_max_length is the default of max_length.

    Raises:
        InputError: for an unknown value, for contradictory settings, or for a setting without effect.
    """
    check_side("padding_side", padding_side)
    pad_how = _PADDINGS[_known("padding", padding, _PADDINGS)]
    cut_how = _TRUNCATIONS[_known("truncation", truncation, _TRUNCATIONS)]
    max_length, pad_to_multiple_of = (
        _length("max_length", max_length),
        _length("pad_to_multiple_of", pad_to_multiple_of),
    )
    if max_length is not None and cut_how is None and pad_how != "max_length":
        raise InputError(
            f"max_length={max_length} alone does nothing: add truncation=True to cut, or padding='max_length' to pad."
        )
    if pad_to_multiple_of is not None and pad_how is None:
        raise InputError(f"pad_to_multiple_of={pad_to_multiple_of} does nothing without padding. Add padding=True.")
    if max_length is None and (cut_how or pad_how == "max_length"):
        if model_max_length is None:
            raise InputError(
                f"padding={padding!r}, truncation={truncation!r} need a length, but max_length is None and this tokenizer "
                "has no model_max_length. Give max_length."
            )
        max_length = model_max_length
    if cut_how and pad_how and max_length is not None and pad_to_multiple_of and max_length % pad_to_multiple_of:
        raise InputError(
            f"max_length {max_length} is no multiple of {pad_to_multiple_of}, to which texts are padded. Give one that is."
        )
    return LengthRules(pad_how, cut_how, max_length, pad_to_multiple_of, padding_side)


def _length(name: str, value: Any) -> int | None:
    """A number of tokens, or None; NumPy's whole numbers are taken."""
    if value is None:
        return None
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_number or not 1 <= value <= MAX_LENGTH:
        raise InputError(f"{name} is {quoted(value, 60)}; it must be a whole number from 1 to {MAX_LENGTH:,}.")
    return int(value)


def check_booleans(**values: object) -> None:
    """ArgumentTypeError for a switch that is neither True nor False: every text counts as true, "no" as well."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise wrong_type(name, value, "True or False")


def check_side(name: str, side: str) -> str:
    """The side, "right" or "left"; InputError for another."""
    return str(_known(name, side, ("right", "left")))


def _known(name: str, value: object, table: Iterable[Any]) -> Any:
    # Not `value in table`: 1 equals True, and an unhashable value would raise TypeError.
    if any(type(value) is type(known) and value == known for known in table):
        return value
    raise InputError(f"{name} is {quoted(value, 60)}; it can be {', '.join(repr(k) for k in table if k is not None)}.")


def cut(sequence: Sequence[Any], length: int, side: str) -> list[Any]:
    """The first `length` entries; the last ones if the left side is cut."""
    return list(sequence[:length]) if side == "right" else list(sequence[len(sequence) - length :])


def rows_of(inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[list[Row], bool]:
    """The inputs of `pad` as validated rows, and whether they are a batch.

    Args:
        inputs: an encoding of one text, an encoding of a batch, or a list of encodings of one text each. The fields are
            lists or NumPy arrays, of one row or of rows.

    Raises:
        InputError: for an empty batch, no input_ids, an unknown field, or fields of unequal length.
    """
    if isinstance(inputs, Mapping):
        fields = {name: _plain(values) for name, values in inputs.items()}
        ids = fields.get("input_ids")
        if not isinstance(ids, list):
            raise InputError(f"The encoding has no input_ids, only {_names(fields)}. Pass an encoding.")
        if ids and not isinstance(ids[0], list):
            return [_checked_row(fields, 0)], False
        for name, values in fields.items():
            if not isinstance(values, list) or len(values) != len(ids):
                raise InputError(f"{name} has not {len(ids)} rows, as input_ids has. Pass as many of each field.")
        rows = [{name: values[i] for name, values in fields.items()} for i in range(len(ids))]
    elif isinstance(inputs, list | tuple) and all(isinstance(row, Mapping) for row in inputs):
        rows = [{name: _plain(values) for name, values in row.items()} for row in inputs]
    else:
        raise InputError(f"A {type(inputs).__name__} cannot be padded. Pass an encoding, or a list of encodings.")
    if not rows:
        raise InputError("The batch to pad is empty. Pass at least one encoding.")
    if len({frozenset(row) for row in rows}) > 1:
        raise InputError(f"The rows have different fields: {[sorted(row) for row in rows]}. Give each row the same.")
    return [_checked_row(row, i) for i, row in enumerate(rows)], True


def _plain(values: Any) -> Any:
    """Arrays and tuples, and arrays in a list, as lists; pairs of offsets stay pairs."""
    if hasattr(values, "tolist"):
        return values.tolist()
    if isinstance(values, list | tuple):
        return [row.tolist() if hasattr(row, "tolist") else row for row in values]
    return values


def _names(fields: Iterable[object]) -> str:
    return ", ".join(quoted(name, 60).strip("'") for name in fields) or "nothing"


def _checked_row(row: Mapping[str, Any], i: int) -> Row:
    if "input_ids" not in row:
        raise InputError(f"Row {i} has no input_ids, only {_names(row)}. Pass an encoding.")
    for name, values in row.items():
        if name != "input_ids" and name not in PAD_VALUES:
            raise InputError(f"{name!r} cannot be padded; known are input_ids, {', '.join(PAD_VALUES)}. Leave it out.")
        if not isinstance(values, list) or len(values) != len(row["input_ids"]):
            found = len(values) if isinstance(values, list) else quoted(values, 60)
            raise InputError(f"Row {i}: {name} has {found} entries, not {len(row['input_ids'])} as input_ids has.")
    return {name: _whole(values, name, i) if name in _ALLOWED else values for name, values in row.items()}


def _whole(values: Sequence[Any], name: str, i: int) -> list[int]:
    """The values of a mask as whole numbers; True and False are 1 and 0."""
    for place, value in enumerate(values):
        if not hasattr(value, "__index__") or value not in _ALLOWED[name]:
            raise InputError(
                f"Row {i}: {name} holds {quoted(value, 60)} at position {place}; it may hold "
                f"{' and '.join(map(str, _ALLOWED[name]))} alone. Pass what the tokenizer returned."
            )
    return [int(value) for value in values]


# ---- arrays ---------------------------------------------------------------------------------------------------------------


def as_arrays(encoding: BatchEncoding, return_tensors: str | None) -> BatchEncoding:
    """The encoding as NumPy arrays, int64 (B, T), of offsets (B, T, 2); B is 1 for one text. Without "np" as it is.

    Raises:
        InputError: for another kind of tensor, or rows of unequal length.
    """
    if return_tensors is None:
        return encoding
    if not isinstance(return_tensors, str):
        raise wrong_type("return_tensors", return_tensors, "'np' or None")
    if return_tensors != "np":
        remedy = "numpy's are torch's by torch.from_numpy" if return_tensors == "pt" else "other libraries take NumPy's"
        raise InputError(
            f"return_tensors is {quoted(return_tensors, 60)}; led_ref makes NumPy's arrays, 'np', or lists, None ({remedy})."
        )
    ids = encoding["input_ids"]
    is_batch = bool(ids) and isinstance(ids[0], list)
    lengths = sorted({len(row) for row in ids}) if is_batch else [len(ids)]
    if len(lengths) > 1:
        raise InputError(f"The rows have {lengths[0]} to {lengths[-1]} tokens, so they are no array. Add padding=True.")
    return BatchEncoding({
        name: np.array(values if is_batch else [values], np.int64).reshape(-1, lengths[0], *(2,) * (name == "offset_mapping"))
        for name, values in encoding.items()
    })  # fmt: skip
