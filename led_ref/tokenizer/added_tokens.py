"""Tokens that are found in raw text before anything else is done with it: `</s>`, `<mask>` and whatever was added.

    >>> mask = AddedToken("<mask>", lstrip=True, special=True)
    >>> finder = AddedTokenFinder([mask])
    >>> text = "a  <mask> b"
    >>> [(text[span.start : span.end], str(span.token)) for span in finder.find(text)]
    [('a', 'None'), ('  <mask>', '<mask>'), (' b', 'None')]

The text is cut at these tokens and BPE sees only what lies between. `<mask>` takes the white space on its left with it
(`lstrip`), because the model was trained to write " word" in its place.

What this does not do: tokens that match whole words only (`single_word`) are refused; LED has none.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from led_ref.errors import InputError
from led_ref.tokenizer.unicode_split import WHITE_SPACE_CHARACTERS


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched in raw text. The fields are those of the class of the same name in `tokenizers`.

    Args:
        content: the text that is matched.
        single_word: match whole words only; True is refused.
        lstrip: take the white space before it, too.
        rstrip: take the white space behind it, too.
        normalized: matched in a second pass, after the tokens for which this is False.
        special: left out by `decode(..., skip_special_tokens=True)`.

    Raises:
        InputError: if content is empty or no text, or single_word is asked for.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be matched."""
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
    """A stretch of a text, text[start:end]: plain text if token is None, else that token with the space it takes."""

    start: int
    end: int
    token: AddedToken | None = None


class AddedTokenFinder:
    """Cuts a text at its added tokens.

    Where two could match, the one that begins first wins, and of those the longest. Tokens that are not `normalized` are
    looked for first, the others in what is left, as in the `tokenizers` library.

    Args:
        tokens: all added tokens; no two of the same content.

    Raises:
        InputError: if one token takes the white space behind it and another begins with white space: whose is it?
            (The `tokenizers` library crashes on some texts then.)
    """

    def __init__(self, tokens: Sequence[AddedToken]) -> None:
        greedy = [token.content for token in tokens if token.rstrip]
        spaced = [token.content for token in tokens if token.content[0] in WHITE_SPACE_CHARACTERS]
        if greedy and spaced:
            raise InputError(
                f"The added token {greedy[0]!r} takes the white space behind it (rstrip), but {spaced[0]!r} begins with "
                "white space. Set rstrip false, or lstrip true on a token without the white space."
            )
        self._by_content = {token.content: token for token in tokens}
        passes = ([t for t in tokens if not t.normalized], [t for t in tokens if t.normalized])
        self._patterns = [_any_of([token.content for token in group]) for group in passes if group]

    def find(self, text: str) -> list[Span]:
        """The stretches of a text, in order, none of them empty; joined they are the text."""
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
    """A pattern that matches any of these texts, the longest that fits (`re` takes the first that fits)."""
    return re.compile("|".join(re.escape(content) for content in sorted(contents, key=len, reverse=True)))
