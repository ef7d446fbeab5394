"""From a folder to LEDParams: every key used once, every shape checked, nothing guessed.

A checkpoint that almost fits is the worst kind: it loads, and computes nonsense. So a file's names are brought to the
table's (keys.py), and then must cover it exactly. What may differ between files of the same weights is this list:

    file                                        what is done
    LEDModel's names, without `led.`            the prefix is added
    allenai/longformer's own, with `model.`     the prefix becomes `led.`; 2 leading rows of each position table, which
                                                BART kept for padding and no position uses, are dropped (16386 -> 16384)
    any of the four names of the embedding      one is enough; the others, where given, must be equal to it bit for bit
    lm_head.weight unlike the embedding         kept as it is: the checkpoint is untied
    no final_logits_bias                        zeros
    float16, bfloat16, float64                  widened exactly to the dtype asked for; float64 is rounded to float32
    quantized matrices                          kept so, as config.json says (quantized.py); what disagrees with it is refused
    a head of another LED class                 refused; by its own class it is demanded

Nothing else is put up with. float32 tensors are not copied: the arrays are read-only views of the mapped file. With
`keep_stored` those in half precision are not either, and become numbers where they are used (led_backends/compact.py).
This file does not read formats (safetensors_file.py, torch_bin.py) and does not know where folders come from (hub.py).
"""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from led_backends.compact import CompactWeight, HalfWeight
from led_backends.contract import Backend, HostArray, Weight
from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, InputError
from led_ref.model.params import LEDParams
from led_ref.weights.find_files import Notice, find_weights, read_tensors, shorten
from led_ref.weights.keys import (
    EMBED_TOKENS,
    FINAL_LOGITS_BIAS,
    HEADS,
    LM_HEAD,
    POSITION_TABLES,
    SHARED,
    TIED,
    Entry,
    assemble,
    canonical_key,
    checkpoint_entries,
    entries,
    heads_in,
)
from led_ref.weights.quantization.file_format import QuantizedTensor, is_matrix, join
from led_ref.weights.quantization.rounding import check_kind, quantized
from led_ref.weights.stored_tensor import FLOAT_NAMES, HALF_NAMES, StoredTensor

__all__ = [
    "complain",
    "find_weights",
    "fit_to_config",
    "load_params",
    "params_from_tensors",
    "read_tensors",
    "same_bits",
    "settle_tied_tables",
]

# Names by which other models' checkpoints give themselves away, and what to say of them.
_OTHER_MODELS = (
    (r"encoder\.layers\.\d+\.self_attn\.k_proj\.weight", "BART or one of its kin (mBART, Pegasus, Marian)"),
    (r"encoder\.layers\.\d+\.self_attn\.self\.query\.weight", "BigBird-Pegasus"),
    (r"encoder\.layer\.\d+\.attention\.self\.query_global\.weight", "Longformer (the encoder alone, not LED)"),
    (r"encoder\.layer\.\d+\.attention\.self\.query\.weight", "BERT or RoBERTa"),
    (r"encoder\.block\.\d+\.layer\.0\.", "T5 or LongT5"),
    (r"^(transformer\.)?h\.\d+\.attn\.", "GPT-2"),
    (r"^(model\.)?layers\.\d+\.self_attn\.", "a decoder-only model (Llama, OPT or the like)"),
)
_EXTRA_POSITION_ROWS = 2
# Numbers of a table in half precision that are looked at together, to see whether all are finite.
_LOOKED_AT = 1 << 20


def load_params(
    folder: str | Path,
    config: LEDConfig,
    *,
    backend: Backend,
    dtype: str = "float32",
    quantize: str | None = None,
    keep_stored: bool = False,
    heads: Collection[str] = (),
    notice: Notice | None = None,
) -> LEDParams:
    """Read a folder's weights into LEDParams on the backend's device.

    Args:
        folder: holds the weights in one of the layouts of folder.py.
        config: gives the shape that every tensor must have.
        backend: takes each array by `to_device`.
        dtype: one of the backend's `compute_dtypes`, whatever the file's dtype.
        quantize: see params_from_tensors.
        keep_stored: see params_from_tensors.
        heads: modules (of `HEADS`) that must be there beside the LED itself.
        notice: is told in a sentence what a person may want to know.

    Returns:
        The parameters. Tied, `params.lm_head is params.shared`.

    Raises:
        MissingFileError: if there are no weights.
        CheckpointError: if keys are missing or left over, a shape is another, a number is not finite.
        InputError: if `dtype` is another.
    """
    tensors = read_tensors(folder, notice=notice)
    return params_from_tensors(
        tensors, config, backend=backend, dtype=dtype, quantize=quantize, keep_stored=keep_stored, heads=heads
    )


def params_from_tensors(
    tensors: Mapping[str, StoredTensor],
    config: LEDConfig,
    *,
    backend: Backend,
    dtype: str = "float32",
    quantize: str | None = None,
    keep_stored: bool = False,
    heads: Collection[str] = (),
) -> LEDParams:
    """LEDParams from tensors that are in memory already, by the same rules as `load_params`.

    Args:
        tensors: by checkpoint key, in any of the spellings that the table above names.
        config: gives the shape that every tensor must have.
        backend: takes each array by `to_device`.
        dtype: one of the backend's `compute_dtypes`.
        quantize: round the linear maps' matrices to "int8", "nf4" or "nf4-double"; None: as they are. What is quantized in the
            file stays so.
        keep_stored: leave matrices and tables in float16 or bfloat16 as the file has them; False: widen them now.
        heads: modules (of `HEADS`) that must be there beside the LED itself.

    Raises:
        CheckpointError: if keys are missing or left over, a shape is another, a number is not finite.
        InputError: if `dtype` or `quantize` is another, or the file is quantized otherwise.
    """
    check_kind(quantize)
    if dtype not in backend.compute_dtypes:
        raise InputError(
            f"dtype is {dtype!r}; the {backend.name} backend computes in {' or '.join(backend.compute_dtypes)}. "
            "A file's own dtype may be any of them, float16 or bfloat16: it is converted."
        )
    tensors = settle_tied_tables(fit_to_config(tensors, config, heads=heads), config)
    arrays: dict[str, Weight] = {}
    for entry in entries(config, heads):
        if entry.key in tensors:
            host = _weight(entry, tensors[entry.key], dtype, quantize, keep_stored=keep_stored)
            arrays[entry.field] = (
                host.on(backend.to_device) if isinstance(host, CompactWeight) else backend.to_device(host)
            )
    if LM_HEAD not in tensors:
        arrays["lm_head"] = arrays["shared"]
    if FINAL_LOGITS_BIAS not in tensors:
        arrays["final_logits_bias"] = backend.to_device(np.zeros((1, config.vocab_size), dtype))
    return assemble(arrays, config)


def fit_to_config(
    tensors: Mapping[str, StoredTensor], config: LEDConfig, *, heads: Collection[str] = ()
) -> dict[str, StoredTensor]:
    """The tensors by the table's keys, if they are exactly those of this configuration. Reads no numbers.

    Args:
        tensors: by their names in the file; the parts of quantized matrices are put together (quantized.py).
        config: gives the keys and shapes.
        heads: modules (of `HEADS`) that must be there beside the LED itself.

    Returns:
        Tensors by key, in the order of the file; of each group of equal names (`TIED`) all that are given.

    Raises:
        CheckpointError: listing all that does not fit.
    """
    _refuse_other_models(tensors)
    tensors = join(tensors, config)
    _refuse_headless(tensors, config, heads)
    shapes = {entry.key: entry.shape for entry in checkpoint_entries(config, heads)}
    fitted: dict[str, StoredTensor] = {}
    twice, left_over, misshapen, not_floats = [], [], [], []
    for name, tensor in tensors.items():
        key = canonical_key(name)
        head = key.split(".")[0]
        if key not in shapes:
            left_over.append(f"{name} (a head of {HEADS[head]})" if head in HEADS and head not in heads else name)
            continue
        if name.startswith("model.") and key in POSITION_TABLES:
            tensor = _without_extra_rows(tensor, shapes[key])
        if key in fitted:
            twice.append(f"{name} ({key})")
        if tensor.dtype not in FLOAT_NAMES and not isinstance(tensor, QuantizedTensor):
            not_floats.append(f"{name} ({tensor.dtype})")
        if tensor.shape != shapes[key]:
            misshapen.append(f"{name} is {tensor.shape} in the file, {shapes[key]} by config.json")
        fitted[key] = tensor
    complain({
        "missing": _missing(fitted, config, heads),
        "left over": left_over,
        "of another shape": misshapen,
        "there twice, under two names": twice,
        "not floats": not_floats,
    })  # fmt: skip
    return fitted


def settle_tied_tables(tensors: Mapping[str, StoredTensor], config: LEDConfig) -> dict[str, StoredTensor]:
    """Leave one embedding table under `led.shared.weight`, and `lm_head.weight` only where it is another one.

    Args:
        tensors: what `fit_to_config` returns.
        config: says whether a lone `lm_head.weight` may stand for the embedding.

    Raises:
        CheckpointError: if encoder or decoder has an embedding of its own, unlike the shared one. transformers can
            build such an LED (tie_word_embeddings false); none was published, and LEDParams has one table for both.
    """
    rest = {key: tensor for key, tensor in tensors.items() if key not in TIED}
    given = [key for key in (SHARED, *EMBED_TOKENS) if key in tensors] or [LM_HEAD]
    table = tensors[given[0]]
    different = [key for key in given[1:] if not same_bits(table, tensors[key])]
    if different:
        raise CheckpointError(
            f"{' and '.join(different)} differ from {given[0]}. led_ref has one embedding table for encoder and "
            "decoder, as every published LED does. Load a checkpoint whose embeddings are tied."
        )
    settled = {SHARED: table, **rest}
    if LM_HEAD in tensors and not same_bits(table, tensors[LM_HEAD]):
        settled[LM_HEAD] = tensors[LM_HEAD]
    return settled


def same_bits(a: StoredTensor, b: StoredTensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits; so NaN equals the same NaN, and 0.0 is not -0.0."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if a.data.__array_interface__["data"] == b.data.__array_interface__["data"] and a.data.strides == b.data.strides:
        return True  # two names of one storage, as in every .bin: nothing to compare
    bits = f"u{a.data.itemsize}"
    return bool(np.array_equal(a.data.view(bits), b.data.view(bits)))


def _missing(fitted: Mapping[str, StoredTensor], config: LEDConfig, heads: Collection[str]) -> list[str]:
    """The keys that are needed and not there. One name of the embedding is enough, final_logits_bias may be absent."""
    may_be_absent = {*TIED, FINAL_LOGITS_BIAS}
    missing = [e.key for e in entries(config, heads) if e.key not in fitted and e.key not in may_be_absent]
    tied = config.tie_word_embeddings
    if not any(key in fitted for key in (TIED if tied else (SHARED, *EMBED_TOKENS))):
        missing.insert(0, f"{SHARED} (or another name of the embedding: {', '.join(EMBED_TOKENS)})")
    # A file with final_logits_bias is one of LEDForConditionalGeneration. LEDModel's files have no output projection.
    if not tied and FINAL_LOGITS_BIAS in fitted and LM_HEAD not in fitted:
        missing.append(f"{LM_HEAD} (tie_word_embeddings is false in config.json)")
    return missing


def complain(problems: Mapping[str, list[str]]) -> None:
    """Raise one error for all problems: for each kind how many tensors it concerns, the first few, and what to do.

    Raises:
        CheckpointError: if there is a problem.
    """
    lines = [f"    {len(names)} {kind}: {shorten(names)}" for kind, names in problems.items() if names]
    if lines:
        raise CheckpointError(
            "The weights do not fit config.json:\n" + "\n".join(lines) + "\n"
            "Take both files from the same model and revision; if the sizes differ throughout, config.json is another "
            "model's. A head can be loaded by its own class alone."
        )


def _refuse_other_models(names: Collection[str]) -> None:
    """Say at once whose checkpoint it is, instead of listing hundreds of keys that do not fit."""
    if any(".longformer_self_attn." in name and "encoder.layers." in name for name in names):
        return
    for pattern, model in _OTHER_MODELS:
        found = next((name for name in names if re.search(pattern, name)), None)
        if found is not None:
            raise CheckpointError(
                f"This is a checkpoint of {model}, not of LED: it has {found!r}. Name an LED checkpoint, for example "
                "allenai/led-base-16384."
            )


def _refuse_headless(names: Collection[str], config: LEDConfig, heads: Collection[str]) -> None:
    """Say what kind of checkpoint is needed, where one of another class of LED is given."""
    for head in heads:
        if head not in heads_in(names):
            found = config.extra.get("architectures")
            of_whom = ", ".join(map(str, found)) if isinstance(found, list) and found else "nothing"
            raise CheckpointError(
                f"This checkpoint has no {head}.*, the head of {HEADS[head]}: config.json names {of_whom} as its "
                f"architecture. Give one that was fine-tuned as {HEADS[head]}; another has nothing to do it with."
            )


def _without_extra_rows(tensor: StoredTensor, shape: tuple[int, ...]) -> StoredTensor:
    """A position table of allenai/longformer's without its first two rows; any other tensor as it is."""
    if tensor.shape == (shape[0] + _EXTRA_POSITION_ROWS, *shape[1:]):
        return dataclasses.replace(tensor, data=tensor.data[_EXTRA_POSITION_ROWS:])
    return tensor


def _weight(
    entry: Entry, tensor: StoredTensor, dtype: str, quantize: str | None, *, keep_stored: bool
) -> HostArray | CompactWeight:
    """The tensor on the host, in the form in which it is kept."""
    if isinstance(tensor, QuantizedTensor):
        if quantize not in (None, tensor.dtype):
            raise InputError(
                f"quantize is {quantize!r}, but this checkpoint's matrices are {tensor.dtype} already ({entry.key}). Leave "
                "quantize out, or take a checkpoint of floats."
            )
        return dataclasses.replace(tensor.weight, dtype=np.dtype(dtype))
    if quantize is not None and is_matrix(entry):
        matrix = quantized(finite_array(entry.key, tensor, "float32"), quantize)
        return dataclasses.replace(matrix, dtype=np.dtype(dtype))
    is_table = len(entry.shape) == 2 and entry.key != FINAL_LOGITS_BIAS
    if keep_stored and is_table and HALF_NAMES.get(tensor.dtype, dtype) != dtype:
        return _half_weight(entry.key, tensor, dtype)
    return finite_array(entry.key, tensor, dtype)


def _half_weight(key: str, tensor: StoredTensor, dtype: str) -> HalfWeight:
    """A table in half precision as it lies in the file, all of it finite; it is looked at in pieces."""
    step = max(1, _LOOKED_AT // tensor.shape[1])
    for start in range(0, tensor.shape[0], step):
        finite_array(key, StoredTensor(tensor.dtype, tensor.data[start : start + step]), "float32", first_row=start)
    bits = np.require(tensor.data, requirements=["C", "A"]).view(np.uint16)
    return HalfWeight((tensor.shape[0], tensor.shape[1]), np.dtype(dtype), bits, HALF_NAMES[tensor.dtype])


def finite_array(key: str, tensor: StoredTensor, dtype: str, *, first_row: int = 0) -> HostArray:
    """The tensor's numbers in the dtype, all finite.

    Looking at each number costs a pass and an array of booleans. A sum takes a fraction of that, and is not finite if
    one of its terms is not. Only if it is not (large terms may overflow it, too) are the numbers looked at.
    """
    try:
        array = tensor.to_numpy(dtype)
    except (CheckpointError, InputError) as error:
        raise CheckpointError(f"{key}: {error}") from error
    with np.errstate(all="ignore"):
        total = float(array.sum())
    if not math.isfinite(total):
        is_bad = ~np.isfinite(array)
        if is_bad.any():
            first = tuple(int(i) for i in np.argwhere(is_bad)[0])
            place = (first[0] + first_row, *first[1:]) if first_row else first
            raise CheckpointError(
                f"{key} holds {array[first]} at {place} (numbers that are not finite in all: {int(is_bad.sum())}). "
                "Such a model computes nothing but NaN: its training diverged, or the file is damaged. Fetch it again."
            )
    return array
