"""Validation of the tokenizer's input: one text or many, alone or in pairs, each valid in UTF-8.

    >>> as_pairs(["a", "b"], ["c", "d"])
    ([('a', 'c'), ('b', 'd')], True)

No text is changed. Errors name the position of an invalid text and the remedy.
"""

from led_ref.errors import InputError


def as_pairs(text: object, text_pair: object) -> tuple[list[tuple[str, ...]], bool]:
    """The texts as a list of (A,) or (A, B), and whether the input was a list."""
    is_batch = isinstance(text, list | tuple)
    firsts = list(text) if isinstance(text, list | tuple) else [text]
    if not firsts:
        raise InputError("The batch of texts is empty. Pass at least one text; an empty text, '', is allowed.")
    checked = [_checked_text(entry, i, "text", is_batch) for i, entry in enumerate(firsts)]
    if text_pair is None:
        return [(a,) for a in checked], is_batch
    if isinstance(text_pair, list | tuple) != is_batch:
        raise InputError(
            f"text is a {type(text).__name__}, but text_pair is a {type(text_pair).__name__}. Pass two texts, or two lists."
        )
    seconds = list(text_pair) if isinstance(text_pair, list | tuple) else [text_pair]
    if len(seconds) != len(firsts):
        raise InputError(f"There are {len(firsts)} texts, but {len(seconds)} in text_pair. Pass as many of both.")
    return [
        (a, _checked_text(b, i, "text_pair", is_batch)) for i, (a, b) in enumerate(zip(checked, seconds, strict=True))
    ], is_batch


def _checked_text(text: object, i: int, name: str, is_batch: bool) -> str:
    """The text; InputError if it is no str or not valid in UTF-8."""
    place = f"{name}[{i}]" if is_batch else name
    if not isinstance(text, str):
        raise InputError(
            f"{place} is a {type(text).__name__}, not a text: {text!r:.60}. Pass a str or a list of str; decode bytes "
            "first; pass pairs as text=[...], text_pair=[...]."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place} holds the lone surrogate U+{ord(text[error.start]):04X} at position {error.start}, which is no "
            "character and not valid in UTF-8. Read the file with errors='replace', or drop such characters with "
            "text.encode('utf-8', 'ignore').decode('utf-8')."
        ) from error
    return text
