"""Read, validate and write the tokenizer's files. Errors name the position in a damaged file.

A folder holds either

    vocab.json               {"<s>": 0, ..., "Ġthe": 5, ...}: piece -> id
    merges.txt               "#version: 0.2", then one pair a line, in the order of the merges
    special_tokens_map.json  {"mask_token": {"content": "<mask>", "lstrip": true, ...}, ...}, or texts instead of objects
    tokenizer_config.json    {"model_max_length": 16384}; can also hold the special tokens; optional

or tokenizer.json, which holds all but the length. If both exist, tokenizer.json is read, as in transformers.
led_ref.weights.find_files downloads them.
"""

import json
import os.path
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from led_ref.errors import CheckpointError, LEDError, MissingFileError, items_of, quoted, wrong_type
from led_ref.files.json_file import is_whole, read_json_object, read_text, with_line_feeds, write_text
from led_ref.files.staging import to_write
from led_ref.tokenizer.bpe import BYTE_TO_CHARACTER, UTF8_BYTES, Pair
from led_ref.tokenizer.specials import MAX_ID, NAMES, AddedToken

VOCAB, MERGES, SPECIALS, CONFIG = "vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"
ADDED, ALL_IN_ONE = "added_tokens.json", "tokenizer.json"
ALL_FILES = (VOCAB, MERGES, SPECIALS, CONFIG, ADDED, ALL_IN_ONE)
_FURTHER = ("additional_special_tokens", "extra_special_tokens")
_AGAIN = "Fetch the file again."

# Settings of other byte-level tokenizers. LED has these values; another value means other ids or offsets.
_CONFIG_MUST_BE = {"add_prefix_space": False, "trim_offsets": True, "errors": "replace"}
_MODEL_MUST_BE = {
    "type": ("BPE",), "dropout": (None, 0, 0.0), "continuing_subword_prefix": (None, ""), "end_of_word_suffix": (None, ""),
    "ignore_merges": (None, False), "byte_fallback": (None, False),
}  # fmt: skip
# "No limit" in tokenizer_config.json is a number of 20 or 30 digits.
_NO_LIMIT = 10**18
# Files of other tokenizers, for a message that says what a folder holds instead.
_OTHER_TOKENIZERS = {
    "spiece.model": "SentencePiece (T5, LongT5, Pegasus)", "sentencepiece.bpe.model": "SentencePiece (mBART, XLM-R)",
    "tokenizer.model": "SentencePiece (Llama and the like)", "vocab.txt": "WordPiece (BERT)",
}  # fmt: skip


# ---- validation -------------------------------------------------------------------------------------------------------


def check_vocab(values: object, where: str = "vocab") -> dict[str, int]:
    """A validated vocabulary: pieces to ids, unique ids, and a piece for every byte; CheckpointError if it is not."""
    if not isinstance(values, Mapping) or not values:
        found = "an empty object" if isinstance(values, Mapping) else f"a {type(values).__name__}"
        raise CheckpointError(f"{where} holds {found}, not an object of piece -> id. {_AGAIN}")
    piece_of: dict[int, str] = {}
    for piece, i in values.items():
        if not isinstance(piece, str):
            raise CheckpointError(f"{where} has the piece {quoted(piece)}; pieces are texts. {_AGAIN}")
        check_id(i, piece, where)
        if i in piece_of:
            raise CheckpointError(f"{where}: {quoted(piece_of[i])} and {quoted(piece)} have the same id {i}. {_AGAIN}")
        piece_of[i] = piece
    absent = [byte for byte in UTF8_BYTES if BYTE_TO_CHARACTER[byte] not in values]
    if absent:
        shown = ", ".join(f"{byte:#04x} ({BYTE_TO_CHARACTER[byte]})" for byte in absent[:5])
        raise CheckpointError(
            f"{where} has no piece for {len(absent)} of the bytes that a text can hold: {shown}{', ...' * (len(absent) > 5)}. "
            "Texts with them would lose them. Take a complete byte-level vocabulary, such as LED's."
        )
    return dict(values)


def check_id(value: object, token: str, where: object) -> int:
    """A token's id: a whole number from 0 to MAX_ID; CheckpointError if it is none."""
    if not is_whole(value) or not 0 <= value <= MAX_ID:
        raise CheckpointError(
            f"{where}: {quoted(token)} has {quoted(value)} for an id; ids are whole numbers from 0 on, below {MAX_ID + 1:,}. "
            f"{_AGAIN}"
        )
    return value


def check_merges(
    pairs: Iterable[Any], vocab: Mapping[str, int], where: str = "merges, entry", first: int = 0
) -> dict[Pair, int]:
    """The rank of each pair, from 0, after a check that its pieces and their concatenation are in the vocabulary.

    Args:
        pairs: the merges in their order, each a pair of pieces or a text "a b".
        vocab: piece -> id.
        where: the file and the unit of its numbers, for errors.
        first: the number of the first pair in the file.

    Raises:
        CheckpointError: naming the line of an invalid pair.
    """
    ranks: dict[Pair, int] = {}
    if not isinstance(pairs, list | tuple | Mapping | Iterator):
        pairs = items_of("merges", pairs, "a list of pairs of pieces")
    for rank, entry in enumerate(pairs):
        place = f"{where} {rank + first}"
        pair = tuple(entry.split(" ") if isinstance(entry, str) else entry if isinstance(entry, Sequence) else ())
        if len(pair) != 2 or not all(isinstance(piece, str) and piece for piece in pair):
            raise CheckpointError(f"{place}: {quoted(entry)} is not two pieces with one space between. {_AGAIN}")
        for piece in (*pair, "".join(pair)):
            if piece not in vocab:
                raise CheckpointError(
                    f"{place}: {quoted(entry)} needs the piece {quoted(piece)}, which is not in the vocabulary. "
                    "Take the merges and the vocabulary from the same model."
                )
        if pair in ranks:
            raise CheckpointError(f"{place}: {quoted(entry)} is listed before, at {ranks[pair] + first}. {_AGAIN}")
        ranks[pair[0], pair[1]] = rank
    return ranks


# ---- reading -----------------------------------------------------------------------------------------------------------


def read_folder(folder: str | Path) -> dict[str, Any]:
    """The arguments of LEDTokenizer from the files of a folder.

    Raises:
        MissingFileError: if the folder or required files do not exist, naming all of them.
        CheckpointError: if a file is damaged or describes another tokenizer.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):  # False, too, for a name that no folder can have
        raise MissingFileError(f"There is no folder {folder}. Name one that holds {VOCAB}, {MERGES} and {SPECIALS}.")
    config = _read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    for name, value in _CONFIG_MUST_BE.items():
        if config.get(name, value) != value:
            raise CheckpointError(
                f"{folder / CONFIG} says {name} {quoted(config[name])}; LED's is {value!r}, the only one that led_ref "
                "supports. Remove the entry if the model was not trained with it."
            )
    read = _read_all_in_one if (folder / ALL_IN_ONE).is_file() else read_vocab_and_merges
    vocab, merges, added = read(folder)
    named = {name: config[name] for name in (*NAMES, *_FURTHER) if name in config}
    if "added_tokens_decoder" in config:
        added = _added_tokens_decoder(config["added_tokens_decoder"], folder / CONFIG)
    elif (folder / SPECIALS).is_file():
        named |= _read_object(folder / SPECIALS)
    elif not added and not named:
        raise MissingFileError(
            f"{folder} has no {SPECIALS}, and no special tokens in {CONFIG} or {ALL_IN_ONE}. {_what_it_is_instead(folder)}"
            f"Copy the checkpoint's {SPECIALS} there: it names the special tokens, and says that <mask> includes the space "
            "before it."
        )
    # added_tokens.json has only ids; the other sources have flags, which apply to the named token of the same text.
    have_flags = read is _read_all_in_one or "added_tokens_decoder" in config
    own = {token.content: token for token in added.values()} if have_flags else {}

    def token(value: object) -> AddedToken:
        given = token_of(value, folder / SPECIALS)
        return own.get(given.content, given)

    tokens = {name: token(value) for name, value in named.items() if name in NAMES}
    if "mask_token" not in tokens and "<mask>" in own:
        tokens["mask_token"] = own["<mask>"]
    extra = [value for name in _FURTHER for value in _further(named.get(name), name, folder)]
    return {
        "vocab": vocab,
        "merges": merges,
        **tokens,
        "added_tokens": added,
        "extra_special_tokens": [token(value) for value in extra],
        **_settings(config, folder / CONFIG),
    }


def _further(values: object, name: str, folder: Path) -> list[Any]:
    """The further special tokens: a list of them, or name -> token as newer versions of transformers write it, or null."""
    if isinstance(values, Mapping):
        return list(values.values())
    return [] if values is None else _list(values, name, f"{folder}, {SPECIALS} or {CONFIG}")


def _list(values: object, name: str, where: object) -> list[Any]:
    """A list of a file; CheckpointError if something else is in its place."""
    if not isinstance(values, list):
        raise CheckpointError(f"{where}: {name} is {quoted(values)}; it must be a list. {_AGAIN}")
    return values


def _settings(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    names = ("padding_side", "truncation_side", "split_special_tokens")
    settings = {name: config[name] for name in names if name in config}
    longest = config.get("model_max_length")
    if longest is not None:
        if not isinstance(longest, int | float) or isinstance(longest, bool) or longest < 1 or longest != int(longest):
            raise CheckpointError(
                f"{path} says model_max_length {quoted(longest)}; it must be a whole number of at least 1."
            )
        settings["model_max_length"] = None if longest > _NO_LIMIT else int(longest)
    return settings


def read_vocab_and_merges(folder: Path) -> tuple[dict[str, int], dict[Pair, int], dict[int, AddedToken]]:
    """The vocabulary, the rank of each merge, and id -> token for added_tokens.json; errors as in `read_folder`."""
    absent = [name for name in (VOCAB, MERGES) if not (folder / name).is_file()]
    if absent:
        raise MissingFileError(
            f"{folder} has no {' and no '.join(absent)} (and no {ALL_IN_ONE}). {_what_it_is_instead(folder)}A tokenizer is "
            f"{VOCAB}, {MERGES} and {SPECIALS}, best with {CONFIG}, or {ALL_IN_ONE}; copy the checkpoint's there."
        )
    vocab = check_vocab(_read_object(folder / VOCAB), str(folder / VOCAB))
    # Not `splitlines`, which splits at a dozen characters.
    lines = with_line_feeds(read_text(folder / MERGES, error_class=CheckpointError)).split("\n")
    first = 2 if lines[0].startswith("#version") else 1
    lines = lines[first - 1 :]
    while lines and not lines[-1]:
        lines.pop()
    ranks = check_merges(lines, vocab, f"{folder / MERGES}, line", first)
    given = _read_object(folder / ADDED) if (folder / ADDED).is_file() else {}
    added = {check_id(i, content, folder / ADDED): AddedToken(content) for content, i in given.items()}
    if len(added) != len(given):
        raise CheckpointError(f"{folder / ADDED}: two of its {len(given)} tokens have the same id. {_AGAIN}")
    return vocab, ranks, added


def _what_it_is_instead(folder: Path) -> str:
    """A sentence on a folder of another model or another type of tokenizer; "" if nothing says so."""
    try:
        model_type = read_json_object(folder / "config.json").get("model_type", "led")
    except LEDError:
        model_type = "led"
    if model_type not in ("led", "bart"):
        return f"Its config.json is of a {quoted(model_type, 40)}, and led_ref runs 'led' only. "
    kind = next((kind for name, kind in _OTHER_TOKENIZERS.items() if (folder / name).is_file()), None)
    return f"It holds a tokenizer of another type: {kind}. LED's is byte-level BPE. " if kind else ""


def _read_all_in_one(folder: Path) -> tuple[dict[str, int], dict[Pair, int], dict[int, AddedToken]]:
    path = folder / ALL_IN_ONE
    values = _read_object(path)
    model, splitter = (values[key] if isinstance(values.get(key), dict) else {} for key in ("model", "pre_tokenizer"))
    wrong = [
        f"model.{name} {quoted(model.get(name))}"
        for name, good in _MODEL_MUST_BE.items()
        if model.get(name, good[0]) not in good
    ]
    if splitter.get("type") != "ByteLevel" or splitter.get("add_prefix_space") or splitter.get("use_regex") is False:
        wrong.append(f"pre_tokenizer {quoted(values.get('pre_tokenizer'))}")
    if values.get("normalizer") is not None:
        wrong.append(f"normalizer {quoted(values['normalizer'])}")
    if wrong:
        raise CheckpointError(
            f"{path} is not a tokenizer of LED's type: {'; '.join(wrong)}. LED's is byte-level BPE without a normalizer and "
            "without a prefix space. Take the tokenizer.json of an LED or a BART."
        )
    vocab = check_vocab(model.get("vocab"), f"{path}, model.vocab")
    merges = _list(model.get("merges"), "model.merges", path)
    ranks = check_merges(merges, vocab, f"{path}, model.merges, entry")
    added: dict[int, AddedToken] = {}
    for value in _list(values.get("added_tokens", []), "added_tokens", path):
        token = token_of(value, path)
        i = check_id(value.get("id") if isinstance(value, Mapping) else None, token.content, path)
        if i in added:
            raise CheckpointError(f"{path}: {token} and {added[i]} have the same id {i}. {_AGAIN}")
        added[i] = token
    return vocab, ranks, added


def _added_tokens_decoder(values: object, path: Path) -> dict[int, AddedToken]:
    """{"2": {"content": "</s>", ...}} as {2: AddedToken("</s>", ...)}."""
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{path}: added_tokens_decoder is {quoted(values)}; it must be an object. {_AGAIN}")
    tokens: dict[int, AddedToken] = {}
    for digits, value in values.items():
        token = token_of(value, path)
        is_id = digits.isascii() and digits.isdecimal() and len(digits) <= len(str(MAX_ID))
        if not is_id:
            raise CheckpointError(
                f"{path}: the added token {quoted(value)} has the id {quoted(digits)}; ids are whole numbers. {_AGAIN}"
            )
        tokens[check_id(int(digits), token.content, path)] = token
    return tokens


def token_of(value: object, where: object) -> AddedToken:
    """A special token from special_tokens_map.json: a text, or an object with its flags; CheckpointError if neither."""
    if isinstance(value, str):
        return AddedToken(value, normalized=False, special=True)
    if not isinstance(value, Mapping) or not isinstance(value.get("content"), str):
        raise CheckpointError(
            f"{where}: {quoted(value)} is no token; write a text, or an object with 'content'. {_AGAIN}"
        )
    flags = {
        name: value[name] for name in ("single_word", "lstrip", "rstrip", "normalized", "special") if name in value
    }
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise CheckpointError(f"{where}: {quoted(value)} has a flag that is neither true nor false. {_AGAIN}")
    return AddedToken(value["content"], **{"special": True, **flags})


def _read_object(path: Path) -> dict[str, Any]:
    return read_json_object(path, error_class=CheckpointError, unique_names=True)


# ---- writing -----------------------------------------------------------------------------------------------------------


def write_vocabulary(
    folder: str | Path, vocab: Mapping[str, int], ranks: Mapping[Pair, int], prefix: str = ""
) -> tuple[Path, Path]:
    """Write vocab.json and merges.txt, in the order of ids and of ranks; a `prefix` makes the names "prefix-vocab.json", ..."""
    folder = to_write("save_directory", folder)
    if not isinstance(prefix, str) or Path(prefix).name != prefix:
        raise wrong_type("filename_prefix", prefix, "the beginning of a file's name")
    start = f"{prefix}-" if prefix else ""
    to_write("filename_prefix", folder / f"{start}{MERGES}")
    in_order = dict(sorted(vocab.items(), key=lambda entry: entry[1]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in sorted(ranks, key=ranks.__getitem__))]
    return (
        write_text(folder / f"{start}{VOCAB}", json.dumps(in_order, ensure_ascii=False)),
        write_text(folder / f"{start}{MERGES}", "\n".join(lines) + "\n"),
    )


def write_specials(folder: Path, named: Mapping[str, AddedToken], config: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write special_tokens_map.json (with every flag) and tokenizer_config.json."""
    objects = {name: {k: v for k, v in asdict(token).items() if k != "special"} for name, token in named.items()}
    return (
        write_text(folder / SPECIALS, json.dumps(objects, indent=2, ensure_ascii=False) + "\n"),
        write_text(folder / CONFIG, json.dumps(dict(config), indent=2, ensure_ascii=False) + "\n"),
    )


# ---- the model and its tokenizer -------------------------------------------------------------------------------------


def vocabularies_that_differ(vocabulary: Mapping[str, int], vocab_size: int, *, writes: bool) -> str | None:
    """A sentence for the user where a model and its tokenizer have not the same ids; None where they have.

    Args:
        vocabulary: the tokenizer's pieces and their ids.
        vocab_size: ids of the model.
        writes: whether the model's ids become text: else only the tokenizer's ids count.
    """
    ids = set(vocabulary.values())
    last = max(ids)
    if last >= vocab_size:
        return (
            f"the tokenizer has ids up to {last}, and the model {vocab_size} ids: a document with an id from {vocab_size} on "
            "is refused. Resize the model: resize_token_embeddings."
        )
    without = sorted(set(range(vocab_size)) - ids) if writes else []
    if without:
        return (
            f"the model has {vocab_size} ids, and the tokenizer none of {quoted(without, 40)}: a text in which such an id "
            "comes to stand fails. suppress_tokens=[...] forbids ids."
        )
    return None
