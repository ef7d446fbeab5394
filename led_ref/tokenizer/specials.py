"""The special tokens: the seven names that they go by, where they stand in what the model reads, and their ids.

LED has five such tokens for seven names, because `<s>` begins (bos) and classifies (cls), `</s>` ends (eos) and
separates (sep). unk is never produced here: every byte is in the vocabulary.

    A          <s> A </s>
    A and B    <s> A </s></s> B </s>

What this does not do: it finds no special token in a text; that is added_tokens.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from led_ref.errors import InputError
from led_ref.tokenizer.added_tokens import AddedToken

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class SpecialTokens:
    """What a tokenizer knows of its special tokens; LEDTokenizer inherits this and fills the four tables."""

    _named: Mapping[str, AddedToken]  # name -> token
    _id_of: Mapping[str, int]  # piece -> id
    _piece_of: Mapping[int, str]  # id -> piece
    _special_ids: frozenset[int]

    @property
    def bos_token(self) -> str:
        """The token with which a text begins, `<s>`."""
        return self._named["bos_token"].content

    @property
    def bos_token_id(self) -> int:
        """The id of `bos_token`."""
        return self._id_of[self.bos_token]

    @property
    def eos_token(self) -> str:
        """The token with which a text ends, `</s>`; also what the decoder starts from."""
        return self._named["eos_token"].content

    @property
    def eos_token_id(self) -> int:
        """The id of `eos_token`."""
        return self._id_of[self.eos_token]

    @property
    def unk_token(self) -> str:
        """The token for what is not known, `<unk>`; no text gives it."""
        return self._named["unk_token"].content

    @property
    def unk_token_id(self) -> int:
        """The id of `unk_token`."""
        return self._id_of[self.unk_token]

    @property
    def sep_token(self) -> str:
        """The token between two texts and at their end, `</s>`."""
        return self._named["sep_token"].content

    @property
    def sep_token_id(self) -> int:
        """The id of `sep_token`."""
        return self._id_of[self.sep_token]

    @property
    def pad_token(self) -> str:
        """The token that fills up a batch, `<pad>`."""
        return self._named["pad_token"].content

    @property
    def pad_token_id(self) -> int:
        """The id of `pad_token`."""
        return self._id_of[self.pad_token]

    @property
    def cls_token(self) -> str:
        """The token that the tokenizer puts first, `<s>`."""
        return self._named["cls_token"].content

    @property
    def cls_token_id(self) -> int:
        """The id of `cls_token`."""
        return self._id_of[self.cls_token]

    @property
    def mask_token(self) -> str:
        """The token in whose place the model was trained to write, `<mask>`."""
        return self._named["mask_token"].content

    @property
    def mask_token_id(self) -> int:
        """The id of `mask_token`."""
        return self._id_of[self.mask_token]

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """All seven, name -> text."""
        return {name: self._named[name].content for name in NAMES}

    # ---- where they stand -------------------------------------------------------------------------------------------

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
        """1 where `build_inputs_with_special_tokens` puts a special token, or, of ids that have them already, where one is.

        Raises:
            InputError: for a second sequence of ids that have special tokens already.
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
        """Zeros, as many as `build_inputs_with_special_tokens` gives ids: LED does not tell two texts apart by type."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens one text gets (2), or a pair (4)."""
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
    """A token that is special; a plain text is matched as it stands, and takes no space with it."""
    if isinstance(token, str):
        return AddedToken(token, normalized=False, special=True)
    return replace(token, special=True)


def number_tokens(
    vocab: Mapping[str, int], special: Sequence[AddedToken], added: Mapping[int, AddedToken]
) -> dict[AddedToken, int]:
    """Every token that is matched in raw text, with its id: the vocabulary's, the one it was added with, or the next.

    Args:
        vocab: piece -> id.
        special: the special tokens; of two with the same text the first holds.
        added: id -> token; where a special token has the same text, that one's flags hold.

    Raises:
        InputError: if a token was added with an id that is not its own.
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
