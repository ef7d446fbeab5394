"""Load a checkpoint into LEDParams: every key used once, every shape checked, nothing guessed.

A checkpoint that almost fits loads and computes nonsense. So a file's names are translated to the table of keys.py, and
must then cover it exactly. Files of the same weights can differ in these points:

    file                                        load_params
    LEDModel's names, without `led.`            adds the prefix
    allenai/longformer's names, with `model.`   replaces the prefix by `led.`; drops the first 2 rows of each position
                                                table, BART's for padding, which no position uses (16386 -> 16384)
    any of the four names of the embedding      needs one; the others must be equal to it bit for bit
    lm_head.weight unlike the embedding         keeps it: the checkpoint is untied
    no final_logits_bias                        makes zeros
    float16, bfloat16, float64                  converts to `dtype`: widening is exact, float64 is rounded to float32
    quantized matrices                          keeps them quantized (quantization/file_format.py)
    a head of another LED class                 refuses it; the head's own class requires it

Everything else is an error. float32 tensors are not copied: the arrays are read-only views of the mapped file. With
`keep_stored`, those in half precision are not copied either; the backend widens them at use (led_backends/compact.py).
safetensors_file.py and torch_files/ read the formats; find_files.py finds the files.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping

import numpy as np

from led_backends.compact import CompactWeight, HalfWeight
from led_backends.contract import Array, Backend, HostArray, Weight
from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, InputError, quoted
from led_ref.model.params import LEDParams
from led_ref.weights.find_files import shorten
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
from led_ref.weights.quantization.file_format import CONFIG_KEY, QuantizedTensor, is_matrix, join
from led_ref.weights.quantization.rounding import check_kind, quantized
from led_ref.weights.stored_tensor import FLOAT_NAMES, HALF_NAMES, StoredTensor, let_go

# Tensor names of other models' checkpoints, and the models.
_OTHER_MODELS = (
    (r"encoder\.layers\.\d+\.self_attn\.k_proj\.weight", "BART or one of its kin (mBART, Pegasus, Marian)"),
    (r"encoder\.layers\.\d+\.self_attn\.self\.query\.weight", "BigBird-Pegasus"),
    (r"encoder\.layer\.\d+\.attention\.self\.query_global\.weight", "Longformer (the encoder alone, not LED)"),
    (r"encoder\.layer\.\d+\.attention\.self\.query\.weight", "BERT or RoBERTa"),
    (r"encoder\.block\.\d+\.layer\.0\.", "T5 or LongT5"),
    (r"^(transformer\.)?h\.\d+\.attn\.", "GPT-2"),
    (r"^(model\.)?layers\.\d+\.self_attn\.", "a decoder-only model (Llama, OPT or the like)"),
)
_EXTRA_ROWS = 2  # of allenai/longformer's position tables
# Numbers of a half-precision table that are checked at a time.
_LOOKED_AT = 1 << 20


def load_params(
    tensors: Mapping[str, StoredTensor],
    config: LEDConfig,
    *,
    backend: Backend,
    dtype: str = "float32",
    quantize: str | None = None,
    keep_stored: bool = False,
    heads: Collection[str] = (),
) -> LEDParams:
    """LEDParams on the backend's device; dtype, quantize and keep_stored as in LEDPreTrainedModel.from_pretrained.

    Args:
        tensors: by name, in any spelling of the table above, such as the result of `read_tensors`.
        config: gives the shape of every tensor.
        backend: takes each array by `to_device`.
        heads: the heads (of `HEADS`) that the file must have.

    Returns:
        The parameters. If tied, `params.lm_head is params.shared`.

    Raises:
        CheckpointError: if keys are missing or left over, a shape is wrong, or a number is not finite.
        InputError: if `dtype` or `quantize` is unknown, or the file has another quantization.
    """
    if quantize is not None:
        check_kind(quantize)
    if dtype not in backend.compute_dtypes:
        raise InputError(
            f"dtype is {dtype!r}; the {backend.name} backend computes in {' or '.join(backend.compute_dtypes)}. "
            "A file's own dtype may be any of them, float16 or bfloat16: it is converted."
        )
    tensors = settle_tied_tables(fit_to_config(tensors, config, heads=heads))
    arrays: dict[str, Weight] = {}

    def to_device(array: HostArray) -> Array:
        """Weights are read-only, converted ones too: whoever changes them takes a copy."""
        on_device = backend.to_device(array)
        if isinstance(on_device, np.ndarray):
            on_device = on_device.view()
            on_device.flags.writeable = False
        return on_device

    for entry in entries(config, heads):
        if entry.key in tensors:
            host = _weight(entry, tensors[entry.key], dtype, quantize, keep_stored=keep_stored)
            arrays[entry.field] = host.on(to_device) if isinstance(host, CompactWeight) else to_device(host)
    if LM_HEAD not in tensors:
        arrays["lm_head"] = arrays["shared"]
    if FINAL_LOGITS_BIAS not in tensors:
        arrays["final_logits_bias"] = to_device(np.zeros((1, config.vocab_size), dtype))
    return assemble(arrays, config)


def fit_to_config(
    tensors: Mapping[str, StoredTensor], config: LEDConfig, *, heads: Collection[str] = ()
) -> dict[str, StoredTensor]:
    """The tensors under the table's keys, which they must cover exactly. Reads no numbers.

    Args:
        tensors: by their names in the file; the parts of a quantized matrix are joined (quantization/file_format.py).
        config: gives the keys and shapes.
        heads: the heads (of `HEADS`) that the file must have.

    Returns:
        Tensors by key, in the order of the file; of the names in `TIED` all that the file has.

    Raises:
        CheckpointError: listing every tensor that does not fit.
    """
    _refuse_other_models(tensors)
    check_layers(tensors, config)
    if CONFIG_KEY in config.extra or any(tensor.dtype not in FLOAT_NAMES for tensor in tensors.values()):
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
            rows, width = shapes[key]
            if tensor.shape == (rows + _EXTRA_ROWS, width):
                tensor = dataclasses.replace(tensor, data=tensor.data[_EXTRA_ROWS:])
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
        "duplicated under two names": twice,
        "not floats": not_floats,
    })  # fmt: skip
    return fitted


def check_layers(names: Collection[str], config: LEDConfig) -> None:
    """Refuse more layers than the file has tensors, before a table is made of the keys of all layers."""
    layers = config.encoder_layers + config.decoder_layers
    if layers > len(names):
        raise CheckpointError(
            f"config.json says {config.encoder_layers:,} encoder and {config.decoder_layers:,} decoder layers, but the weights "
            f"are {len(names):,} tensors. Take both files from the same model and revision."
        )


def settle_tied_tables(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Keep one embedding table, `led.shared.weight`, and `lm_head.weight` only if it is another table.

    Args:
        tensors: the result of `fit_to_config`.

    Raises:
        CheckpointError: if the encoder's or decoder's embedding differs from the shared one. transformers can build such
            an LED (tie_word_embeddings false); none was published, and LEDParams has one table for both.
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
    """Whether two tensors have the same dtype, shape and bits: a NaN equals the same NaN, and 0.0 is not -0.0."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if a.data.__array_interface__["data"] == b.data.__array_interface__["data"] and a.data.strides == b.data.strides:
        return True  # two names of one storage, as in every .bin
    bits = f"u{a.data.itemsize}"
    return bool(np.array_equal(a.data.view(bits), b.data.view(bits)))


def _missing(fitted: Mapping[str, StoredTensor], config: LEDConfig, heads: Collection[str]) -> list[str]:
    """The required keys that the file lacks. It needs one name of the embedding, and no final_logits_bias."""
    may_be_absent = {*TIED, FINAL_LOGITS_BIAS}
    missing = [e.key for e in entries(config, heads) if e.key not in fitted and e.key not in may_be_absent]
    tied = config.tie_word_embeddings
    if not any(key in fitted for key in (TIED if tied else (SHARED, *EMBED_TOKENS))):
        missing.insert(0, f"{SHARED} (or another name of the embedding: {', '.join(EMBED_TOKENS)})")
    # A file with final_logits_bias is LEDForConditionalGeneration's. LEDModel's files have no output projection.
    if not tied and FINAL_LOGITS_BIAS in fitted and LM_HEAD not in fitted:
        missing.append(f"{LM_HEAD} (tie_word_embeddings is false in config.json)")
    return missing


def complain(problems: Mapping[str, list[str]]) -> None:
    """Raise one CheckpointError for all problems, with the number and the first names of the tensors of each; if any."""
    lines = [f"    {len(names)} {problem}: {shorten(names)}" for problem, names in problems.items() if names]
    if lines:
        raise CheckpointError(
            "The weights do not fit config.json:\n" + "\n".join(lines) + "\n"
            "Take both files from the same model and revision; if the sizes differ throughout, config.json is another "
            "model's. A head can be loaded by its own class alone."
        )


def _refuse_other_models(names: Collection[str]) -> None:
    """Name the model of another model's checkpoint, instead of hundreds of keys that do not fit."""
    if any(".longformer_self_attn." in name and "encoder.layers." in name for name in names):
        return
    for pattern, model in _OTHER_MODELS:
        found = next((name for name in names if re.search(pattern, name)), None)
        if found is not None:
            raise CheckpointError(
                f"This is a checkpoint of {model}, not of LED: it has {quoted(found)}. Name an LED checkpoint, for example "
                "allenai/led-base-16384."
            )


def _refuse_headless(names: Collection[str], config: LEDConfig, heads: Collection[str]) -> None:
    """Name the class of LED that the checkpoint must have, if it lacks a required head."""
    for head in heads:
        if head not in heads_in(names):
            architecture = quoted(", ".join(config.architectures) or "nothing").strip("'")
            raise CheckpointError(
                f"This checkpoint has no {head}.*, the head of {HEADS[head]}: config.json names {architecture} as its "
                f"architecture. Give one that was fine-tuned as {HEADS[head]}."
            )


def _weight(
    entry: Entry, tensor: StoredTensor, dtype: str, quantize: str | None, *, keep_stored: bool
) -> HostArray | CompactWeight:
    """The tensor's weight on the host: an array, half precision as stored, or quantized."""
    if isinstance(tensor, QuantizedTensor):
        if quantize not in (None, tensor.dtype):
            raise InputError(
                f"quantize is {quantize!r}, but this checkpoint's matrices are {tensor.dtype} already ({entry.key}). Leave "
                "quantize out, or take a checkpoint of floats."
            )
        return dataclasses.replace(tensor.weight, dtype=np.dtype(dtype))
    if quantize is not None and is_matrix(entry):
        matrix = quantized(finite_array(entry.key, tensor, "float32"), quantize)
        let_go(tensor.data)  # else the file's numbers would count as memory, beside those made of them
        return dataclasses.replace(matrix, dtype=np.dtype(dtype))
    is_table = len(entry.shape) == 2 and entry.key != FINAL_LOGITS_BIAS
    if keep_stored and is_table and HALF_NAMES.get(tensor.dtype, dtype) != dtype:
        return _half_weight(entry.key, tensor, dtype)
    array = finite_array(entry.key, tensor, dtype)
    if not np.may_share_memory(array, tensor.data):
        let_go(tensor.data)
    return array


def _half_weight(key: str, tensor: StoredTensor, dtype: str) -> HalfWeight:
    """A half-precision table without a copy, after a check in pieces that all numbers are finite."""
    step = max(1, _LOOKED_AT // tensor.shape[1])
    for start in range(0, tensor.shape[0], step):
        finite_array(key, StoredTensor(tensor.dtype, tensor.data[start : start + step]), "float32", first_row=start)
    bits = np.require(tensor.data, requirements=["C", "A"]).view(np.uint16)
    return HalfWeight((tensor.shape[0], tensor.shape[1]), np.dtype(dtype), bits, HALF_NAMES[tensor.dtype])


def finite_array(key: str, tensor: StoredTensor, dtype: str, *, first_row: int = 0) -> HostArray:
    """The tensor's numbers in the dtype; CheckpointError if one is not finite.

    A check of each number costs a pass and an array of booleans. A sum costs a fraction of it, and is not finite if one of
    its terms is not. So the numbers are checked only if the sum is not finite (it can also overflow).
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
