"""The folders whose files are damaged: one sound folder for each kind of file, and what is done with it."""

import json
import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import mutations
from torch_files import View, archive, legacy, of_trainer, state_dict, zip_records

import led_ref
from led_ref.classes.heads import LEDForSequenceClassification
from led_ref.config import LEDConfig
from led_ref.tokenizer import LEDTokenizer
from led_ref.tokenizer.bpe import BYTE_TO_CHARACTER
from led_ref.tools.random_weights import random_weights
from led_ref.weights.convert import convert
from led_ref.weights.from_bart import bart_key, convert_bart
from led_ref.weights.keys import entries
from led_ref.weights.safetensors_file import write_safetensors
from led_ref.weights.stored_tensor import StoredTensor
from led_ref.weights.summary import summarize_checkpoint

CONFIG = LEDConfig(
    vocab_size=264,
    d_model=6,
    max_encoder_position_embeddings=23,
    max_decoder_position_embeddings=11,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=3,
    encoder_ffn_dim=5,
    decoder_ffn_dim=7,
    attention_window=4,
)
TEXT = "low lower <mask> tide"
PIECES = ["<s>", "<pad>", "</s>", "<unk>", *BYTE_TO_CHARACTER.values(), "lo", "low", "er", "<mask>"]
VOCAB = {piece: i for i, piece in enumerate(PIECES)}
MERGES = ["l o", "lo w", "e r"]
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
            "cls_token": "<s>", "mask_token": {"content": "<mask>", "lstrip": True, "normalized": False}}  # fmt: skip

Use = Callable[[Path], object]


@dataclass(frozen=True)
class Scene:
    """One kind of file.

    Args:
        file: the name of the file that is damaged.
        files: the content of every file of the sound folder.
        mutate: makes a damaged content of the file's.
        uses: what is done with the folder, by name.
    """

    file: str
    files: Mapping[str, bytes]
    mutate: Callable[[random.Random, bytes], bytes]
    uses: Mapping[str, Use]


def _generate(folder: Path, **settings: Any) -> object:
    return led_ref.load(folder, backend="numpy", notice=lambda _: None).generate(TEXT, **settings)


def _adapt(folder: Path) -> object:
    return led_ref.load(folder, backend="numpy", adapter=folder)


def _classify(folder: Path) -> object:
    model = LEDForSequenceClassification.from_pretrained(folder, backend="numpy")
    return model.forward([[0, 5, 7, 2]]), model.config.id2label, model.config.problem_type


def _tokenize(folder: Path, *, engine: str) -> object:
    tokenizer = LEDTokenizer.from_pretrained(folder, engine=engine)
    batch = tokenizer([TEXT, "é"], padding=True, return_offsets_mapping=True)
    return [tokenizer.decode(ids) for ids in batch.input_ids]


def _convert(folder: Path) -> object:
    return convert(folder, folder / "new")


def _convert_bart(folder: Path) -> object:
    return convert_bart(folder, folder / "new", max_positions=30, attention_window=4)


MODEL: Mapping[str, Use] = {"generate": _generate, "convert": _convert, "inspect": summarize_checkpoint}
TOKENIZER: Mapping[str, Use] = {
    "python": partial(_tokenize, engine="python"),
    "rust": partial(_tokenize, engine="rust"),
}


def _json(values: object) -> bytes:
    return json.dumps(values).encode()


def _safetensors(folder: Path, tensors: Mapping[str, np.ndarray]) -> bytes:
    stored = {key: StoredTensor("F32", np.ascontiguousarray(array)) for key, array in tensors.items()}
    return write_safetensors(folder / "made.safetensors", stored, {"format": "pt"}).read_bytes()


def _index(tensors: Mapping[str, Any], shards: list[str]) -> bytes:
    return _json({"metadata": {"total_size": 5}, "weight_map": {key: shards[i % 2] for i, key in enumerate(tensors)}})


def _shards(tensors: Mapping[str, np.ndarray], shards: list[str], write: Callable[[Any], bytes]) -> dict[str, bytes]:
    dealt = {shard: {key: tensors[key] for key in list(tensors)[i::2]} for i, shard in enumerate(shards)}
    return {shard: write(part) for shard, part in dealt.items()}


def _views(tensors: Mapping[str, np.ndarray]) -> dict[str, View]:
    return {
        key: View("FloatStorage", str(i), array.size, 0, array.shape, tuple(step // 4 for step in array.strides))
        for i, (key, array) in enumerate(tensors.items())
    }


def _zip(tensors: Mapping[str, np.ndarray]) -> bytes:
    return archive(zip_records(_views(tensors), {str(i): a.tobytes() for i, a in enumerate(tensors.values())}))


def _legacy(tensors: Mapping[str, np.ndarray], **options: bytes) -> bytes:
    storages = {str(i): (a.size, a.tobytes()) for i, a in enumerate(tensors.values())}
    return legacy(_views(tensors), storages, **options)


def _fairseq(bart: Mapping[str, np.ndarray]) -> bytes:
    """What fairseq writes of a BART: its names, the output projection a second time, options, an optimizer."""
    named = {key.removeprefix("model."): array for key, array in bart.items() if key != "final_logits_bias"}
    table = named.pop("shared.weight")
    named |= dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), table)
    named |= {"decoder.output_projection.weight": table, "encoder.version": np.ones(1, np.float32)}
    return _legacy(named, pickle=of_trainer("model", _views(named)))


def _tokenizer_json() -> bytes:
    added = [
        {"id": VOCAB[name], "content": name, "single_word": False, "lstrip": name == "<mask>", "rstrip": False,
         "normalized": False, "special": True}
        for name in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    ]  # fmt: skip
    splitter = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "vocab": VOCAB, "merges": [merge.split() for merge in MERGES]}
    return _json(
        {"version": "1.0", "added_tokens": added, "normalizer": None, "pre_tokenizer": splitter, "model": model}
    )


def scenes(folder: Path) -> dict[str, Scene]:
    """All scenes by name; `folder` is for files that are made on the way."""
    tensors = {key: np.asarray(array) for key, array in random_weights(CONFIG).items()}
    tokenizer = {
        "vocab.json": _json(VOCAB),
        "merges.txt": "\n".join(["#version: 0.2", *MERGES, ""]).encode(),
        "special_tokens_map.json": _json(SPECIALS),
        "tokenizer_config.json": _json(
            {
                "model_max_length": 23,
                "padding_side": "right",
                "add_prefix_space": False,
                "additional_special_tokens": ["low"],
                "extra_special_tokens": {"a_token": "er"},
            }
        ),
    }
    weights = {"model.safetensors": _safetensors(folder, tensors)}
    settings = {
        "architectures": ["LEDForConditionalGeneration"],
        "num_beams": 1,
        "length_penalty": 1.0,
        "suppress_tokens": [5],
    }
    config = {
        "config.json": _json(
            {**CONFIG.to_dict(), **settings, "keys_to_ignore": ["a"], "id2label": {"0": "x", "1": "y"}}
        )
    }
    led = {**config, **weights, **tokenizer}
    generation = _json({
        "num_beams": 2, "max_length": 8, "eos_token_id": 2, "suppress_tokens": [5], "length_penalty": 1.0, "num_beam_groups": 2,
        "diversity_penalty": 0.5, "encoder_no_repeat_ngram_size": 3, "no_repeat_ngram_size": 2, "bad_words_ids": [[7, 8]],
        "num_return_sequences": 1, "repetition_penalty": 1.1, "sequence_bias": [[[9], -1.5]], "temperature": 0.7,
    })  # fmt: skip
    found: dict[str, Scene] = {}

    def add(name: str, file: str, files: Mapping[str, bytes], mutate: Any, uses: Mapping[str, Use]) -> None:
        found[name] = Scene(file, files, mutate, uses)

    add("config.json", "config.json", led, mutations.of_json, MODEL)
    allenai = {
        **CONFIG.to_dict(),
        "attention_window": [2, 2],
        "attention_mode": "sliding_chunks",
        "attention_dilation": [1, 1],
    }
    add("allenai's config.json", "config.json", {**led, "config.json": _json(allenai)}, mutations.of_json, MODEL)
    greedy = {"as it is": _generate, "greedy": partial(_generate, num_beams=1, num_beam_groups=1),
              "sampled": partial(_generate, num_beam_groups=1, do_sample=True)}  # fmt: skip
    with_settings = {**led, "generation_config.json": generation}
    add("generation_config.json", "generation_config.json", with_settings, mutations.of_json, greedy)

    labels = {
        "id2label": {"0": "a", "1": "b", "2": "c"},
        "num_labels": 3,
        "problem_type": "single_label_classification",
    }
    head_config = replace(CONFIG, extra=labels)
    head = {row.key: np.ones(row.shape, np.float32) for row in entries(head_config, ("classification_head",))
            if row.key.startswith("classification_head")}  # fmt: skip
    classifier = {
        "config.json": _json(head_config.to_dict()),
        "model.safetensors": _safetensors(folder, {k: a for k, a in tensors.items() if k.startswith("led.")} | head),
    }
    uses = {"classify": _classify, "convert": _convert, "inspect": summarize_checkpoint}
    add("a classifier's config.json", "config.json", classifier, mutations.of_json, uses)

    bart = {bart_key(key): array for key, array in tensors.items()}
    for key in ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"):
        bart[key] = np.ones((13, 6), np.float32)
    values = {key: value for key, value in CONFIG.to_dict().items() if "window" not in key and "_position_" not in key}
    bart_config = _json({**values, "model_type": "bart", "max_position_embeddings": 11, "normalize_before": False})
    bart_files = {"config.json": bart_config, "model.safetensors": _safetensors(folder, bart), **tokenizer}
    add("BART's config.json", "config.json", bart_files, mutations.of_json, {"convert": _convert_bart})

    fairseq = {"config.json": bart_config, "model.pt": _fairseq(bart), **tokenizer}
    add("fairseq's model.pt", "model.pt", fairseq, mutations.of_pickle, {"convert": _convert_bart})

    for file in tokenizer:
        mutate = mutations.of_lines if file == "merges.txt" else mutations.of_json
        add(file, file, tokenizer, mutate, TOKENIZER)
    added = {**tokenizer, "added_tokens.json": _json({"<mask>": 263, "<new>": 264, "<far>": 300})}
    add("added_tokens.json", "added_tokens.json", added, mutations.of_json, TOKENIZER)
    decoder = {
        str(VOCAB[name]): {"content": name, "lstrip": name == "<mask>", "special": True} for name in ("</s>", "<mask>")
    }
    new = {**tokenizer, "tokenizer_config.json": _json({"added_tokens_decoder": decoder, "mask_token": "<mask>"})}
    add("added_tokens_decoder", "tokenizer_config.json", new, mutations.of_json, TOKENIZER)
    add("tokenizer.json", "tokenizer.json", {"tokenizer.json": _tokenizer_json()}, mutations.of_json, TOKENIZER)

    add("model.safetensors", "model.safetensors", led, mutations.of_safetensors, MODEL)
    names = ["model-1.safetensors", "model-2.safetensors"]
    sharded = {**config, **tokenizer, **_shards(tensors, names, partial(_safetensors, folder))}
    sharded["model.safetensors.index.json"] = _index(tensors, names)
    add("an index", "model.safetensors.index.json", sharded, mutations.of_json, MODEL)
    add("a shard", names[0], sharded, mutations.of_safetensors, MODEL)

    storages = {str(i): array.tobytes() for i, array in enumerate(tensors.values())}
    of_zip = partial(mutations.of_zip, storages=storages, program=state_dict(_views(tensors)))
    add(
        "pytorch_model.bin",
        "pytorch_model.bin",
        {**config, **tokenizer, "pytorch_model.bin": _zip(tensors)},
        of_zip,
        MODEL,
    )
    old = {**config, **tokenizer, "pytorch_model.bin": _legacy(tensors)}
    add("a .bin before 1.6", "pytorch_model.bin", old, mutations.of_pickle, MODEL)
    names = ["pytorch_model-1.bin", "pytorch_model-2.bin"]
    sharded = {
        **config,
        **tokenizer,
        **_shards(tensors, names, _zip),
        "pytorch_model.bin.index.json": _index(tensors, names),
    }
    add("an index of .bin", "pytorch_model.bin.index.json", sharded, mutations.of_json, MODEL)

    module = "led.encoder.layers.0.fc1"
    pair = {f"base_model.model.{module}.lora_A.weight": (2, 6), f"base_model.model.{module}.lora_B.weight": (5, 2)}
    adapter = {
        "adapter_model.safetensors": _safetensors(
            folder, {key: np.ones(shape, np.float32) for key, shape in pair.items()}
        )
    }
    adapter["adapter_config.json"] = _json(
        {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [module], "bias": "none"}
    )
    for file, mutate in (
        ("adapter_config.json", mutations.of_json),
        ("adapter_model.safetensors", mutations.of_safetensors),
    ):
        add(file, file, {**led, **adapter}, mutate, {"load": _adapt})

    for kind in ("int8", "nf4-double"):
        source = folder / "source"
        write(source, led)
        convert(source, folder / kind, quantize=kind)
        quantized = {path.name: path.read_bytes() for path in sorted((folder / kind).iterdir())}
        add(f"weights in {kind}", "model.safetensors", quantized, mutations.of_safetensors, MODEL)
    add("config.json of nf4", "config.json", quantized, mutations.of_json, MODEL)
    return found


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a scene's files into a folder."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def header_size(content: bytes) -> int:
    """The length of a safetensors header."""
    return int(struct.unpack("<Q", content[:8])[0])
