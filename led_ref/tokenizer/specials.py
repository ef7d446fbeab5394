"""The special tokens: their seven names, their ids, their positions in the model's input, and how a text is cut at them.

LED has five special tokens for seven names: `<s>` is bos and cls, `</s>` is eos and sep. No text gives unk, because every
byte is in the vocabulary.

    A          <s> A </s>
    A and B    <s> A </s></s> B </s>

A text is cut at its special and other added tokens, and BPE encodes the stretches between them:

    >>> mask = AddedToken("<mask>", lstrip=True, special=True)
    >>> text = "a  <mask> b"
    >>> [(text[span.start : span.end], str(span.token)) for span in AddedTokenFinder([mask]).find(text)]
    [('a', 'None'), ('  <mask>', '<mask>'), (' b', 'None')]

`<mask>` includes the white space on its left (`lstrip`), because the model was trained to generate " word" in its place.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from led_ref.errors import InputError, quoted, wrong_type
from led_ref.tokenizer.batch import check_booleans
from led_ref.tokenizer.bpe import WHITE_SPACE_CHARACTERS

# The other arguments of a tokenizer, kept when tokens are added.
_KEPT = ("padding_side", "truncation_side", "model_max_length", "engine", "split_special_tokens")
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_ID = (1 << 31) - 1  # the tokenizers library keeps an id in 32 bits
# Of all added tokens together; an LED has five, of 31 letters. Beyond, the pattern that finds them takes seconds and gigabytes.
MAX_ADDED, MAX_LETTERS = 10_000, 1_000_000


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched in raw text, with the fields of `tokenizers.AddedToken`.

    Args:
        content: the text to match.
        single_word: match whole words only; True is refused.
        lstrip: include the white space before it.
        rstrip: include the white space after it.
        normalized: match in a second pass, after the tokens for which this is False.
        special: left out by `decode(..., skip_special_tokens=True)`.

    Raises:
        InputError: if content is empty or no text, or single_word is True.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False

    def __post_init__(self) -> None:
        """Validate the fields."""
        if not isinstance(self.content, str) or not self.content:
            raise InputError(
                f"An added token's content is {quoted(self.content)}; it must be a text that is not empty."
            )
        if any("\ud800" <= letter <= "\udfff" for letter in self.content):
            raise InputError(f"An added token's content is {quoted(self.content)}, half a character: a lone surrogate.")
        if self.single_word:
            raise InputError(
                f"The added token {quoted(self.content)} has single_word=True, which LED never has. Set it false."
            )

    def __str__(self) -> str:
        return self.content


@dataclass(frozen=True)
class Span:
    """A stretch of a text, text[start:end]: plain text if token is None, else the token and its white space."""

    start: int
    end: int
    token: AddedToken | None = None


class AddedTokenFinder:
    """Cuts a text at its added tokens.

    Of two matches the first wins, and at the same position the longest. Tokens that are not `normalized` are matched in a
    first pass, the others in the remaining text, as in the `tokenizers` library.

    Args:
        tokens: all added tokens, with different contents.

    Raises:
        InputError: if one token includes the white space after it and another begins with white space: the result would
            be ambiguous. (The `tokenizers` library crashes on some of these texts.)
    """

    def __init__(self, tokens: Sequence[AddedToken]) -> None:
        greedy = [token.content for token in tokens if token.rstrip]
        spaced = [token.content for token in tokens if token.content[0] in WHITE_SPACE_CHARACTERS]
        if greedy and spaced:
            raise InputError(
                f"The added token {greedy[0]!r} takes the white space after it (rstrip), but {spaced[0]!r} begins with "
                "white space. Set rstrip false, or lstrip true on a token without the white space."
            )
        self._by_content = {token.content: token for token in tokens}
        passes = ([t for t in tokens if not t.normalized], [t for t in tokens if t.normalized])
        # Longest first: `re` takes the first alternative that matches.
        contents = [sorted((token.content for token in group), key=len, reverse=True) for group in passes if group]
        self._patterns = [re.compile("|".join(map(re.escape, group))) for group in contents]

    def find(self, text: str) -> list[Span]:
        """The stretches of a text, in order and not empty; their concatenation is the text."""
        spans = [Span(0, len(text))] if text else []
        for pattern in self._patterns:
            spans = [
                part
                for span in spans
                for part in ([span] if span.token else self._cut(pattern, text, span.start, span.end))
            ]
        return spans

    def _cut(self, pattern: re.Pattern[str], text: str, begin: int, stop: int) -> Iterator[Span]:
        done = begin
        for match in pattern.finditer(text, begin, stop):
            token, (start, end) = self._by_content[match.group()], match.span()
            while token.lstrip and start > done and text[start - 1] in WHITE_SPACE_CHARACTERS:
                start -= 1
            while token.rstrip and end < stop and text[end] in WHITE_SPACE_CHARACTERS:
                end += 1
            if done < start:
                yield Span(done, start)
            yield Span(start, end, token)
            done = end
        if done < stop:
            yield Span(done, stop)


# The type checker sees the property's value.
def _text(name: str, doc: str) -> str:
    return property(lambda tokenizer: tokenizer._named[name].content, doc=doc)  # type: ignore[return-value]


def _id(name: str) -> int:
    doc = f"The id of `{name}`."
    return property(lambda tokenizer: tokenizer._id_of[getattr(tokenizer, name)], doc=doc)  # type: ignore[return-value]


class SpecialTokens:
    """The special tokens of a tokenizer; the subclass LEDTokenizer fills the four tables."""

    _named: Mapping[str, AddedToken]  # name -> token
    _id_of: Mapping[str, int]  # piece -> id
    _piece_of: Mapping[int, str]  # id -> piece
    _special_ids: frozenset[int]
    _vocab: Mapping[str, int]
    _added: Mapping[AddedToken, int]
    _checked_ids: Callable[..., list[int]]

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

    # ---- further tokens ---------------------------------------------------------------------------------------------

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens that are found in raw text, with the ids after the last one: the tokenizer itself changes.

        Then give the model rows for them: `model = model.resize_token_embeddings(len(tokenizer))`.

        Args:
            new_tokens: one or several; a text is matched exactly. One that the vocabulary has keeps its id.
            special_tokens: whether `skip_special_tokens` leaves them out.

        Returns:
            How many of them were no added tokens before.

        Raises:
            InputError: for what is no text, an empty one, or more tokens than specials.py allows.
        """
        check_booleans(special_tokens=special_tokens)
        given = [new_tokens] if isinstance(new_tokens, str | AddedToken) else new_tokens
        if not isinstance(given, list | tuple) or not all(isinstance(token, str | AddedToken) for token in given):
            raise wrong_type("new_tokens", new_tokens, "a text, an AddedToken, or a list of them")
        known = {token.content for token in self._added}
        made = [AddedToken(t, normalized=not special_tokens) if isinstance(t, str) else t for t in given]
        new = {t.content: replace(t, special=t.special or special_tokens) for t in made if t.content not in known}
        numbers = count(max(self._piece_of) + 1)
        ids = {
            self._vocab[content] if content in self._vocab else next(numbers): token for content, token in new.items()
        }
        if ids:
            self._rebuild(added_tokens={i: token for token, i in self._added.items()} | ids)
        return len(new)

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """Name special tokens anew, or add further ones; as `add_tokens`.

        Args:
            special_tokens_dict: name -> token for the seven names ("pad_token", ...), "additional_special_tokens" or
                "extra_special_tokens" -> a list of tokens.

        Returns:
            How many tokens were no added tokens before.

        Raises:
            InputError: for another name; and as `add_tokens`.
        """
        if not isinstance(special_tokens_dict, Mapping):
            raise wrong_type("special_tokens_dict", special_tokens_dict, "names with their tokens")
        further = ("additional_special_tokens", "extra_special_tokens")
        unknown = [name for name in special_tokens_dict if name not in (*NAMES, *further)]
        if unknown:
            raise InputError(
                f"There is no special token {quoted(unknown[0])}; there are {', '.join((*NAMES, *further))}."
            )
        before = len(self._added)
        for name, tokens in special_tokens_dict.items():
            self.add_tokens(tokens, special_tokens=True)
            if name in NAMES:
                self._rebuild(**{name: tokens})
        return len(self._added) - before

    def _rebuild(self, **changed: Any) -> None:
        """Become the tokenizer that has some other arguments."""
        given: dict[str, Any] = {name: getattr(self, name) for name in _KEPT}
        given |= self._named
        given |= {"added_tokens": {i: token for token, i in self._added.items()}, **changed}
        ranks = vars(self)["_ranks"]
        new = vars(type(self)(self._vocab, sorted(ranks, key=ranks.__getitem__), **given))  # type: ignore[call-arg]
        vars(self).clear()
        vars(self).update(new)

    # ---- positions --------------------------------------------------------------------------------------------------

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """`<s> A </s>`, or `<s> A </s></s> B </s>`, of ids without special tokens."""
        cls, sep = self.cls_token_id, self.sep_token_id
        first = [cls, *self._checked_ids(token_ids_0, "token_ids_0"), sep]
        if token_ids_1 is not None:
            token_ids_1 = self._checked_ids(token_ids_1, "token_ids_1")
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
        check_booleans(already_has_special_tokens=already_has_special_tokens)
        token_ids_0 = self._checked_ids(token_ids_0, "token_ids_0")
        token_ids_1 = None if token_ids_1 is None else self._checked_ids(token_ids_1, "token_ids_1")
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


def as_special(token: str | AddedToken, name: str = "extra_special_tokens") -> AddedToken:
    """The token as a special one; a text is matched exactly, without white space. `name` is that of the argument."""
    if isinstance(token, str):
        return AddedToken(token, normalized=False, special=True)
    if not isinstance(token, AddedToken):
        raise wrong_type(name, token, "a text or an AddedToken")
    return replace(token, special=True)


def check_further_tokens(added: Any, extra: Any) -> None:
    """Refuse what are no added tokens by id, and what is no list of special ones."""
    if added is not None and not isinstance(added, Mapping):
        raise wrong_type("added_tokens", added, "a dict of id -> AddedToken")
    for i, token in (added or {}).items():
        if not isinstance(i, int) or isinstance(i, bool) or not isinstance(token, AddedToken):
            raise wrong_type("added_tokens", added, "a dict of id -> AddedToken")
    if not isinstance(extra, list | tuple):
        raise wrong_type("extra_special_tokens", extra, "a list of texts or AddedTokens")


def number_tokens(
    vocab: Mapping[str, int], special: Sequence[AddedToken], added: Mapping[int, AddedToken]
) -> dict[AddedToken, int]:
    """Every token that is matched in raw text, in the order of ids: from the vocabulary, from `added`, or the next free one.

    Args:
        vocab: piece -> id.
        special: the special tokens; the first of two with the same text counts.
        added: id -> token; a special token of the same text replaces its flags.

    Raises:
        InputError: if an added token's id contradicts the vocabulary, or is none; or for more tokens than the limits above.
    """
    number, letters = len(special) + len(added), sum(len(token.content) for token in (*special, *added.values()))
    if number > MAX_ADDED or letters > MAX_LETTERS:
        raise InputError(
            f"There are {number:,} special and added tokens of {letters:,} letters; the limits are {MAX_ADDED:,} and "
            f"{MAX_LETTERS:,}. Leave out those that the model does not know."
        )
    by_content = {token.content: token for token in reversed(special)}
    pieces = {i: piece for piece, i in vocab.items()}
    ids: dict[AddedToken, int] = {}
    for i, token in sorted(added.items()):
        if not 0 <= i <= MAX_ID:
            raise InputError(f"The added token {quoted(token.content)} has id {i}; ids are from 0 to {MAX_ID:,}.")
        if vocab.get(token.content, i) != i or pieces.get(i, token.content) != token.content:
            raise InputError(
                f"The added token {quoted(token.content)} has id {i}, but the vocabulary says {quoted(pieces.get(i))} for {i} "
                f"and {vocab.get(token.content)} for {quoted(token.content)}. Take both from the same model."
            )
        ids[by_content.pop(token.content, token)] = i
    following = max(*vocab.values(), *ids.values(), 0) + 1
    for content in dict.fromkeys(token.content for token in special):
        if content in by_content:
            ids[by_content[content]] = vocab.get(content, following)
            following += content not in vocab
    return dict(sorted(ids.items(), key=lambda entry: entry[1]))
