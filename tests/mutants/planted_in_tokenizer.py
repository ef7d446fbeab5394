"""Bugs planted in the tokenizer: (name, file, source, planted, what)."""

BPE = "led_ref/tokenizer/bpe.py"
ENGINE = "led_ref/tokenizer/engine.py"
SPECIALS = "led_ref/tokenizer/specials.py"
BATCH = "led_ref/tokenizer/batch.py"
DECODING = "led_ref/tokenizer/decoding.py"
DECODED = 'self.text_bytes(ids).decode("utf-8", errors="replace")'

PLANTED = [
    (
        "merge-rank-reversed", BPE, "_, i = min(found)", "_, i = min(found, key=lambda pair: (-pair[0], pair[1]))",
        "The pair of highest rank is merged first.",
    ),
    (
        "merge-left-to-right", BPE, "_, i = min(found)", "_, i = found[0]",
        "Pairs are merged from left to right, whatever their rank.",
    ),
    (
        "merge-rightmost", BPE, "_, i = min(found)", "_, i = min(found, key=lambda pair: (pair[0], -pair[1]))",
        "Of equal pairs the rightmost is merged first.",
    ),
    (
        "long-words-forget-the-left", BPE, "        push_pair(before[i])\n", "",
        "In long words a merged piece does not meet its left neighbour.",
    ),
    (
        "byte-map-reversed", BPE, "enumerate(hidden)", "enumerate(reversed(hidden))",
        "The bytes that cannot be seen are numbered backwards.",
    ),
    (
        "contraction-missing", BPE, "'(?:[stmd]|re|ve|ll)|", "'(?:[stm]|re|ve|ll)|",
        "'d is no contraction.",
    ),
    (
        "last-space-kept", BPE, "[{_S}]+(?![^{_S}])|", "",
        "Of several spaces the last one does not go to the word behind it.",
    ),
    (
        "words-without-their-space", BPE, "| ?[{_L}]+|", "|[{_L}]+|",
        "The space before a word does not go with it.",
    ),
    (
        "space-before-the-text", ENGINE, "split(text[span.start : span.end])", 'split(" " + text[span.start : span.end])',
        "A space is added before every stretch of text.",
    ),
    (
        "specials-split", SPECIALS, "for pattern in self._patterns:", "for pattern in self._patterns[:0]:",
        "Special tokens in a text are split into pieces like any word.",
    ),
    (
        "mask-leaves-its-space", SPECIALS, "while token.lstrip and", "while False and",
        "<mask> does not take the space before it.",
    ),
    (
        "shortest-added-token", SPECIALS, "key=len, reverse=True)", "key=len)",
        "Of two added tokens that fit the shorter one is taken.",
        "Of LED's own special tokens none is the beginning of another.",
    ),
    (
        "one-separator", "led_ref/tokenizer/specials.py", "[*first, sep, *token_ids_1, sep]",
        "[*first, *token_ids_1, sep]",
        "One </s> between two texts instead of two.",
    ),
    (
        "pieces-decoded-one-by-one", DECODING, DECODED,
        '"".join(self._bytes_of[i].decode("utf-8", errors="replace") for i in ids)',
        "Each piece is read as UTF-8 by itself, which breaks characters of several pieces.",
    ),
    (
        "broken-bytes-dropped", DECODING, DECODED, DECODED.replace("replace", "ignore"),
        "Bytes that are no UTF-8 vanish instead of becoming U+FFFD.",
    ),
    (
        "specials-not-skipped", DECODING,
        "skipped = self._special_ids if skip_special_tokens else ()\n        return self._bytes",
        "skipped = ()\n        return self._bytes",
        "skip_special_tokens skips nothing.",
    ),
    (
        "global-padding-is-local", BATCH, '"global_attention_mask": -1', '"global_attention_mask": 0',
        "The global mask is filled up with 0 instead of -1.",
    ),
    (
        "padding-is-read", BATCH, '"attention_mask": 0', '"attention_mask": 1',
        "The attention mask is filled up with 1.",
    ),
    (
        "padded-on-the-other-side", BATCH, "[*values, *filling] if", "[*filling, *values] if",
        "Rows are filled up on the left when the right is asked for.",
    ),
    (
        "cut-on-the-other-side", BATCH, 'list(sequence[:length]) if side == "right"',
        'list(sequence[len(sequence) - length :]) if side == "right"',
        "Texts are cut on the left when the right is asked for.",
    ),
    (
        "odd-room-to-the-wrong-text", BATCH, "else available - available // 2", "else available // 2",
        "When two texts are cut to a half each, the odd id goes to the wrong one.",
    ),
]  # fmt: skip
