"""Added tokens: find `</s>`, `<mask>` and others in raw text, before the split into words.

    >>> mask = AddedToken("<mask>", lstrip=True, special=True)
    >>> finder = AddedTokenFinder([mask])
    >>> text = "a  <mask> b"
    >>> [(text[span.start : span.end], str(span.token)) for span in finder.find(text)]
    [('a', 'None'), ('  <mask>', '<mask>'), (' b', 'None')]

The text is cut at these tokens, and BPE encodes the stretches between them. `<mask>` includes the white space on its left
(`lstrip`), because the model was trained to generate " word" in its place.

Tokens that match whole words only (`single_word`) are refused; LED has none.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from led_ref.errors import InputError
from led_ref.tokenizer.unicode_split import WHITE_SPACE_CHARACTERS


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
            raise InputError(f"An added token's content is {self.content!r}; it must be a text that is not empty.")
        if self.single_word:
            raise InputError(
                f"The added token {self.content!r} has single_word=True, which led_ref does not match. Set it false."
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
        self._patterns = [_any_of([token.content for token in group]) for group in passes if group]

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


def _any_of(contents: list[str]) -> re.Pattern[str]:
    """A pattern for any of these texts, longest first: `re` takes the first alternative that matches."""
    return re.compile("|".join(re.escape(content) for content in sorted(contents, key=len, reverse=True)))
