"""The special tokens: their seven names, their positions in the model's input, and their ids.

LED has five special tokens for seven names: `<s>` is bos and cls, `</s>` is eos and sep. No text gives unk, because every
byte is in the vocabulary.

    A          <s> A </s>
    A and B    <s> A </s></s> B </s>

added_tokens.py finds special tokens in a text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from led_ref.errors import InputError
from led_ref.tokenizer.added_tokens import AddedToken

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

T = TypeVar("T")


class _Property(property, Generic[T]):
    """A `property` whose value has the type T for the type checker."""

    if TYPE_CHECKING:

        def __init__(self, fget: Callable[[Any], T], *, doc: str) -> None: ...
        def __get__(self, instance: Any, owner: type | None = None, /) -> T: ...  # type: ignore[override]


def _text(name: str, doc: str) -> _Property[str]:
    return _Property(lambda tokenizer: tokenizer._named[name].content, doc=doc)


def _id(name: str) -> _Property[int]:
    return _Property(lambda tokenizer: tokenizer._id_of[getattr(tokenizer, name)], doc=f"The id of `{name}`.")


class SpecialTokens:
    """The special tokens of a tokenizer; the subclass LEDTokenizer fills the four tables."""

    _named: Mapping[str, AddedToken]  # name -> token
    _id_of: Mapping[str, int]  # piece -> id
    _piece_of: Mapping[int, str]  # id -> piece
    _special_ids: frozenset[int]

    bos_token = _text("bos_token", "The begin-of-sequence token, `<s>`.")
    eos_token = _text("eos_token", "The end-of-sequence token, `</s>`; also the decoder's start token.")
    unk_token = _text("unk_token", "The unknown token, `<unk>`; no text gives it.")
    sep_token = _text("sep_token", "The separator between two texts and at their end, `</s>`.")
    pad_token = _text("pad_token", "The padding token, `<pad>`.")
    cls_token = _text("cls_token", "The classification token at the beginning, `<s>`.")
    mask_token = _text("mask_token", "The mask token `<mask>`, which the model was trained to replace by text.")

    bos_token_id = _id("bos_token")
    eos_token_id = _id("eos_token")
    unk_token_id = _id("unk_token")
    sep_token_id = _id("sep_token")
    pad_token_id = _id("pad_token")
    cls_token_id = _id("cls_token")
    mask_token_id = _id("mask_token")

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The seven names, name -> text."""
        return {name: self._named[name].content for name in NAMES}

    # ---- positions --------------------------------------------------------------------------------------------------

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """`<s> A </s>`, or `<s> A </s></s> B </s>`, of ids without special tokens."""
        cls, sep = self.cls_token_id, self.sep_token_id
        first = [cls, *token_ids_0, sep]
        return first if token_ids_1 is None else [*first, sep, *token_ids_1, sep]

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 at the special tokens of `build_inputs_with_special_tokens`, or of ids that already have them; 0 elsewhere.

        Raises:
            InputError: for a second sequence of ids that already have special tokens.
        """
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise InputError("Ids that have special tokens already are one sequence: leave token_ids_1 out.")
            return [int(i in self._special_ids) for i in token_ids_0]
        first = [1, *[0] * len(token_ids_0), 1]
        return first if token_ids_1 is None else [*first, 1, *[0] * len(token_ids_1), 1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Zeros, one for each id of `build_inputs_with_special_tokens`: LED has no token types."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """The number of special tokens of one text (2) or a pair (4)."""
        return len(self.build_inputs_with_special_tokens([], [] if pair else None))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of all special tokens, in order."""
        return sorted(self._special_ids)

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of all special tokens, in the order of their ids."""
        return [self._piece_of[i] for i in self.all_special_ids]


def as_special(token: str | AddedToken) -> AddedToken:
    """The token as a special one; a text is matched exactly, without white space."""
    if isinstance(token, str):
        return AddedToken(token, normalized=False, special=True)
    return replace(token, special=True)


def number_tokens(
    vocab: Mapping[str, int], special: Sequence[AddedToken], added: Mapping[int, AddedToken]
) -> dict[AddedToken, int]:
    """Every token that is matched in raw text, with its id: from the vocabulary, from `added`, or the next free one.

    Args:
        vocab: piece -> id.
        special: the special tokens; the first of two with the same text counts.
        added: id -> token; a special token of the same text replaces its flags.

    Raises:
        InputError: if an added token's id contradicts the vocabulary.
    """
    by_content = {token.content: token for token in reversed(special)}
    pieces = {i: piece for piece, i in vocab.items()}
    ids: dict[AddedToken, int] = {}
    for i, token in sorted(added.items()):
        if vocab.get(token.content, i) != i or pieces.get(i, token.content) != token.content:
            raise InputError(
                f"The added token {token.content!r} has id {i}, but the vocabulary says {pieces.get(i)!r} for {i} and "
                f"{vocab.get(token.content)} for {token.content!r}. Take both from the same model."
            )
        ids[by_content.pop(token.content, token)] = i
    following = max(*vocab.values(), *ids.values(), 0) + 1
    for content in dict.fromkeys(token.content for token in special):
        if content in by_content:
            ids[by_content[content]] = vocab.get(content, following)
            following += content not in vocab
    return ids
