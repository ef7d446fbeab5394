"""LEDTokenizer: texts to the model's inputs, and ids to text, with the names and results of transformers' LEDTokenizer.

    >>> from led_ref.tokenizer.bpe import BYTE_TO_CHARACTER
    >>> vocab = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    >>> vocab |= {character: 4 + byte for byte, character in BYTE_TO_CHARACTER.items()} | {"hi": 260, "<mask>": 261}
    >>> tokenizer = LEDTokenizer(vocab, ["h i"])
    >>> batch = tokenizer(["hi", "hi <mask>!"], padding=True)
    >>> batch.input_ids
    [[0, 260, 2, 1, 1], [0, 260, 261, 37, 2]]
    >>> batch.attention_mask
    [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    >>> tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True)
    ['hi', 'hi!']

A text A becomes `<s> A </s>`, a pair A, B becomes `<s> A </s></s> B </s>`. Special tokens in the text have the same ids;
`<|endoftext|>` and madeupword0000 are ordinary text, as in every LED.

Intended differences from transformers 5.23 (tests/peer/test_tokenizer_peer.py tests each):
    - max_length alone is refused (there: cuts, with a warning); so is a row longer than the max_length to pad to;
    - only_first and only_second never change the other text (there: both are emptied if max_length is 4);
    - an empty text_pair is a pair, for one text as for many (there: for many only);
    - `tokenize` gives `<mask>`, the vocabulary's name (there: the matched text with its space);
    - without special_tokens_map.json `<mask>` still includes the space before it, as in training (there: not);
    - `pad` pads global_attention_mask (there: unchanged), and unknown ids are refused (there: dropped).

Not supported: training a vocabulary, a space before a text (`add_prefix_space`), and tensors of other libraries.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import chain
from os import PathLike
from os.path import exists
from pathlib import Path
from typing import Any

from led_ref.errors import InputError, quoted, wrong_type
from led_ref.files.hub import named
from led_ref.files.staging import naming, to_write, write_into
from led_ref.tokenizer import files
from led_ref.tokenizer.batch import (
    BatchEncoding,
    LengthRules,
    Row,
    as_arrays,
    as_pairs,
    check_booleans,
    check_side,
    cut,
    length_rules,
    rows_of,
)
from led_ref.tokenizer.bpe import Pair
from led_ref.tokenizer.decoding import ByteTable, FromIds, known_arguments
from led_ref.tokenizer.engine import ENGINES, Engine, Offsets
from led_ref.tokenizer.overflow import check_overflow, rows_with_overflow, with_mapping
from led_ref.tokenizer.specials import (
    NAMES,
    AddedToken,
    SpecialTokens,
    as_special,
    check_further_tokens,
    number_tokens,
)

_MASK = AddedToken("<mask>", lstrip=True, normalized=False, special=True)


class LEDTokenizer(SpecialTokens, FromIds):
    """LED's tokenizer, usually from `LEDTokenizer.from_pretrained(folder)`; only `add_tokens` changes it.

    Args:
        vocab: piece -> id.
        merges: the merges in their order, as pairs or as texts "a b".
        bos_token: special tokens are texts, or AddedToken for other flags.
        eos_token: `</s>`.
        sep_token: ends each text.
        cls_token: begins the first text.
        unk_token: replaces tokens that `convert_tokens_to_ids` does not know.
        pad_token: pads a batch.
        mask_token: includes the space before it unless it is a str.
        added_tokens: id -> token, for further tokens that are matched in raw text.
        extra_special_tokens: further special tokens; those outside the vocabulary get the ids after it.
        model_max_length: the default of max_length.
        padding_side: the side of the padding, "right" or "left".
        truncation_side: the side where texts are cut, "right" or "left".
        split_special_tokens: whether special tokens in a text are letters as any others: the default of the calls.
        engine: "python", the readable one, or "rust", the `tokenizers` library, with the same results.

    Raises:
        CheckpointError: for an invalid vocabulary or invalid merges.
        InputError: for an unknown engine or side.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Iterable[str | Pair],
        *,
        bos_token: str | AddedToken = "<s>",
        eos_token: str | AddedToken = "</s>",
        sep_token: str | AddedToken = "</s>",
        cls_token: str | AddedToken = "<s>",
        unk_token: str | AddedToken = "<unk>",
        pad_token: str | AddedToken = "<pad>",
        mask_token: str | AddedToken = _MASK,
        added_tokens: Mapping[int, AddedToken] | None = None,
        extra_special_tokens: Sequence[str | AddedToken] = (),
        model_max_length: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        split_special_tokens: bool = False,
        engine: str = "python",
    ) -> None:
        if not isinstance(engine, str) or engine not in ENGINES:
            raise InputError(f"There is no engine {quoted(engine)}. Use {' or '.join(map(repr, ENGINES))}.")
        given = (bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token)
        self._named = {name: as_special(token, name) for name, token in zip(NAMES, given, strict=True)}
        check_further_tokens(added_tokens, extra_special_tokens)
        self._vocab = files.check_vocab(vocab)
        self._ranks = files.check_merges(merges, self._vocab)
        special = [*self._named.values(), *map(as_special, extra_special_tokens)]
        self._added = number_tokens(self._vocab, special, added_tokens or {})
        self._id_of = self._vocab | {token.content: i for token, i in self._added.items()}
        self._piece_of = {i: piece for piece, i in self._id_of.items()}
        self._special_ids = frozenset(i for token, i in self._added.items() if token.special)
        self._bytes = ByteTable(self._vocab, {token.content: i for token, i in self._added.items()})
        self._engine = ENGINES[engine](self._vocab, self._ranks, self._added)
        self.engine = engine
        if not isinstance(model_max_length, int | None) or isinstance(model_max_length, bool):
            raise wrong_type("model_max_length", model_max_length, "a whole number, or None for no limit")
        self.model_max_length = model_max_length
        self.padding_side = check_side("padding_side", padding_side)
        self.truncation_side = check_side("truncation_side", truncation_side)
        check_booleans(split_special_tokens=split_special_tokens)
        self.split_special_tokens = split_special_tokens

    @classmethod
    @known_arguments
    def from_pretrained(
        cls, folder: str | Path, *, engine: str = "python", revision: str | None = None
    ) -> "LEDTokenizer":
        """Read the tokenizer of a folder: vocab.json, merges.txt and special_tokens_map.json, or tokenizer.json.

        Args:
            folder: a folder, or `organisation/model` on the Hub; weights are not downloaded.
            engine: as in the class.
            revision: branch, tag or commit on the Hub.

        Raises:
            ArgumentTypeError: for what is no path.
            MissingFileError: naming a file that does not exist.
            CheckpointError: naming the position in a damaged file.
        """
        if not isinstance(folder, str | PathLike):
            raise wrong_type("folder", folder, "a folder, or a model's name on the Hub")
        if revision is not None and not isinstance(revision, str):
            raise wrong_type("revision", revision, "a branch, tag or commit on the Hub")
        if revision is not None or not exists(folder):
            folder = named(folder, files.ALL_FILES, revision)
        return cls(**files.read_folder(folder), engine=engine)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: all but the engine, which has caches."""
        return {name: value for name, value in vars(self).items() if name not in ("_engine", "_letters")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the engine anew."""
        vars(self).update(state)
        self._engine = ENGINES[self.engine](self._vocab, self._ranks, self._added)

    @cached_property
    def _letters(self) -> Engine:
        """An engine for which special tokens in a text are letters; other added tokens are found as ever."""
        others = {token: i for token, i in self._added.items() if not token.special}
        return ENGINES[self.engine](self._vocab, self._ranks, others)

    # ---- text -> ids ------------------------------------------------------------------------------------------------

    @known_arguments
    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool = True,
        return_token_type_ids: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_tensors: str | None = None,
        split_special_tokens: bool | None = None,
        return_overflowing_tokens: bool = False,
        stride: int = 0,
    ) -> BatchEncoding:
        """Encode one text or pair, or a list of them.

        Args:
            text: a text, or a list of texts.
            text_pair: the second text, or a list of as many second texts.
            add_special_tokens: whether to add `<s>` and `</s>`.
            padding: False; True or "longest": pad to the longest row; "max_length": to max_length.
            truncation: False; True or "longest_first": cut to max_length, the longer text of a pair first; "only_first",
                "only_second": cut only this text.
            max_length: maximum tokens of a row, special tokens included; model_max_length by default.
            pad_to_multiple_of: pad further, to a multiple of this.
            padding_side: "right" or "left"; None: the tokenizer's.
            return_attention_mask: return 1 for tokens and 0 for padding.
            return_token_type_ids: return zeros, LED's only token type.
            return_special_tokens_mask: return 1 for the added tokens `<s>`, `</s>` and padding.
            return_offsets_mapping: return (start, end) in characters of the text; (0, 0) for added tokens.
            return_tensors: "np": arrays, int64 (B, T), with B = 1 for one text; None: lists.
            split_special_tokens: whether `</s>` and the like in a text are letters as any others; None: the tokenizer's.
            return_overflowing_tokens: return what truncation cuts off as further rows (overflow.py), and the field
                overflow_to_sample_mapping: for each row the number of its text.
            stride: how many tokens such a row repeats of the one before it.

        Returns:
            input_ids and the requested fields: lists for one text, lists of lists for a list of texts and for overflow.

        Raises:
            InputError: for an input that is no text, an empty batch, lone surrogates, or invalid lengths.
        """
        rules = length_rules(
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            model_max_length=self.model_max_length,
            padding_side=self.padding_side if padding_side is None else padding_side,
        )
        pairs, is_batch = as_pairs(text, text_pair)
        wanted = {
            "input_ids": True,
            "token_type_ids": return_token_type_ids,
            "attention_mask": return_attention_mask,
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
        }
        check_booleans(
            add_special_tokens=add_special_tokens,
            return_offsets_mapping=return_offsets_mapping,
            **{f"return_{name}": value for name, value in wanted.items() if name != "offset_mapping"},
        )
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        check_booleans(split_special_tokens=split, return_overflowing_tokens=return_overflowing_tokens)
        if return_overflowing_tokens or stride:
            stride = check_overflow(return_overflowing_tokens, stride, rules, is_pair=len(pairs[0]) == 2)
        engine = self._letters if split else self._engine
        rows, of_text = [], []
        for i, texts in enumerate(pairs):
            if return_offsets_mapping:
                encoded = [engine.encode_with_offsets(text) for text in texts]
            else:
                encoded = [(ids, [(0, 0)] * len(ids)) for ids in map(engine.encode, texts)]
            kept, side = self._kept(encoded, rules, add_special_tokens=add_special_tokens), self.truncation_side
            for part in rows_with_overflow(encoded, kept, stride, side) if return_overflowing_tokens else [encoded]:
                row = self._row(part, rules, add_special_tokens=add_special_tokens)
                rows.append({name: row[name] for name, is_wanted in wanted.items() if is_wanted})
                of_text.append(i)
        is_batch = is_batch or return_overflowing_tokens
        found = as_arrays(rules.padded(rows, is_batch=is_batch, pad_token_id=self.pad_token_id), return_tensors)
        return with_mapping(found, of_text) if return_overflowing_tokens else found

    def encode(self, text: str, text_pair: str | None = None, **settings: Any) -> list[int]:
        """The ids of one text or pair; settings and errors as in `__call__`, and InputError for a list of texts."""
        if not isinstance(text, str):
            raise InputError(f"encode takes one text, not a {type(text).__name__}. Call the tokenizer itself for many.")
        ids: list[int] = self(text, text_pair, **settings).input_ids
        return ids

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The pieces of one text or pair in the vocabulary's spelling: Ġ is a space."""
        return self.convert_ids_to_tokens(self.encode(text, pair, add_special_tokens=add_special_tokens))

    def _row(
        self, encoded: Sequence[tuple[list[int], list[Offsets]]], rules: LengthRules, *, add_special_tokens: bool
    ) -> Row:
        """One text or pair with all fields, truncated but not padded."""
        is_pair = len(encoded) == 2
        kept = self._kept(encoded, rules, add_special_tokens=add_special_tokens)
        side = self.truncation_side
        ids = [cut(ids, length, side) for (ids, _), length in zip(encoded, kept, strict=False)]
        offsets = [cut(offsets, length, side) for (_, offsets), length in zip(encoded, kept, strict=False)]
        if add_special_tokens:
            sequences = ids[0], ids[1] if is_pair else None
            all_ids = self.build_inputs_with_special_tokens(*sequences)
            is_added = self.get_special_tokens_mask(*sequences)
        else:
            all_ids = [*chain.from_iterable(ids)]
            is_added = [0] * len(all_ids)
        given = chain.from_iterable(offsets)
        return {
            "input_ids": all_ids,
            "attention_mask": [1] * len(all_ids),
            "token_type_ids": [0] * len(all_ids),
            "special_tokens_mask": is_added,
            "offset_mapping": [(0, 0) if is_special else next(given) for is_special in is_added],
        }

    def _kept(
        self, encoded: Sequence[tuple[list[int], list[Offsets]]], rules: LengthRules, *, add_special_tokens: bool
    ) -> tuple[int, int]:
        """How many tokens of each text a row holds."""
        first, *second = (len(ids) for ids, _ in encoded)
        added = self.num_special_tokens_to_add(bool(second)) if add_special_tokens else 0
        return rules.kept(first, second[0] if second else None, added)

    # ---- padding ------------------------------------------------------------------------------------------------------

    @known_arguments
    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool = True,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Pad encodings to one length: ids with the pad token, attention_mask with 0, global_attention_mask with -1.

        Args:
            encoded_inputs: one encoding (of a text, or of a batch), or a list of encodings of one text each.
            padding: as in `__call__`; by default to the longest row.
            max_length: for padding="max_length"; model_max_length by default.
            pad_to_multiple_of: as in `__call__`.
            padding_side: as in `__call__`.
            return_attention_mask: add an attention_mask of ones to rows without one, before the padding.
            return_tensors: as in `__call__`.

        Raises:
            InputError: for an empty batch, unknown fields or fields of unequal length, rows that are too long, ids that the
                vocabulary does not have, and masks of other numbers than 0 and 1 (of global attention -1, too).
        """
        rules = length_rules(
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            model_max_length=self.model_max_length,
            padding_side=self.padding_side if padding_side is None else padding_side,
        )
        check_booleans(return_attention_mask=return_attention_mask)
        rows, is_batch = rows_of(encoded_inputs)
        rows = [{**row, "input_ids": self._checked_ids(row["input_ids"])} for row in rows]
        if return_attention_mask:
            rows = [{**row, "attention_mask": row.get("attention_mask", [1] * len(row["input_ids"]))} for row in rows]
        return as_arrays(rules.padded(rows, is_batch=is_batch, pad_token_id=self.pad_token_id), return_tensors)

    # ---- the vocabulary -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """The number of ids, added tokens included."""
        return len(self._piece_of)

    @property
    def vocab_size(self) -> int:
        """The number of ids, without added tokens."""
        return len(self._vocab)

    def get_vocab(self) -> dict[str, int]:
        """Every piece and its id, added tokens included; a copy."""
        return dict(self._id_of)

    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str, str]:
        """Write vocab.json and merges.txt into a folder, created if needed. Returns their paths; errors as LEDConfig.save."""
        vocab, merges = files.write_vocabulary(save_directory, self._vocab, self._ranks, filename_prefix or "")
        return str(vocab), str(merges)

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write the files for `from_pretrained`, ours or transformers': vocabulary, specials, settings. As LEDConfig.save."""
        folder = to_write("save_directory", save_directory)
        config: dict[str, Any] = {"tokenizer_class": "LEDTokenizer", **self.special_tokens_map}
        config["extra_special_tokens"] = [t.content for t in self._added if t.special and t not in self._named.values()]
        config["padding_side"], config["truncation_side"] = self.padding_side, self.truncation_side
        config["split_special_tokens"] = self.split_special_tokens
        if self.model_max_length is not None:
            config["model_max_length"] = self.model_max_length
        config["added_tokens_decoder"] = {str(i): asdict(token) for token, i in self._added.items()}
        with naming(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)

        def write(new: Path) -> None:
            files.write_vocabulary(new, self._vocab, self._ranks)
            files.write_specials(new, self._named, config)

        # With its tokenizer.json, another program's tokenizer would be read in place of this one.
        write_into(folder.resolve(), write, owned=lambda written: files.ALL_FILES)
        return tuple(str(folder / name) for name in (files.VOCAB, files.MERGES, files.SPECIALS, files.CONFIG))

    def __repr__(self) -> str:
        return f"LEDTokenizer(engine={self.engine!r}, {len(self)} tokens, model_max_length={self.model_max_length})"
