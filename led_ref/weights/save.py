"""Save a model as a folder that led_ref and transformers load: the inverse of load.py.

    save_model("my-led", model.params, model.config, "LEDForConditionalGeneration", backend=model.backend)

The table in keys.py names the tensors. Each class has those that transformers writes for it:

    LEDForConditionalGeneration     led.*, final_logits_bias; lm_head.weight only if it is not the embedding table
    LEDModel                        the same names without `led.`, and no output projection
    LEDForQuestionAnswering         led.*, qa_outputs.*
    LEDForSequenceClassification    led.*, classification_head.*

Numbers keep their dtype, quantized matrices their codes; `led-ref convert --dtype` changes the dtype.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from led_backends.compact import CompactWeight
from led_backends.contract import Backend
from led_ref.config import LEDConfig
from led_ref.model.params import LEDParams
from led_ref.weights.find_files import GENERATION_CONFIG
from led_ref.weights.keys import FINAL_LOGITS_BIAS, LM_HEAD, arrays_by_key, heads_of
from led_ref.weights.quantization.file_format import tensor_of
from led_ref.weights.stored_tensor import StoredTensor, from_numpy
from led_ref.weights.write_folder import check_destination, config_to_write, lay_out, write_folder


def save_model(
    folder: str | Path,
    params: LEDParams,
    config: LEDConfig,
    architecture: str,
    *,
    backend: Backend,
    generation_config: Mapping[str, Any] | None,
    others: Callable[[Path], object],
    max_shard_size: int | str,
    overwrite: bool,
) -> tuple[Path, ...]:
    """Write a model's weights, config.json and generation_config.json; all of them, or none.

    Args:
        folder: created if needed, in an existing folder.
        params: the weights, on the backend's device.
        config: the model's configuration.
        architecture: transformers' name of the class.
        backend: copies the weights to the host.
        generation_config: the content of generation_config.json; None writes none.
        others: see write_folder.
        max_shard_size: the maximum bytes of a file, such as "5GB".
        overwrite: allow to replace existing weights.

    Returns:
        The weight files.

    Raises:
        InputError: if the folder has weights already, or `max_shard_size` is no size.
        MissingFileError: if the folder's parent does not exist.
        CheckpointError: if the files cannot be written, or read back unchanged.
    """
    destination = Path(folder).resolve()
    check_destination(destination, overwrite=overwrite)
    tensors = _tensors(params, config, architecture, backend)
    config = config_to_write(config, tensors, architecture)

    def write_others(new: Path) -> None:
        if generation_config is not None:
            text = json.dumps(dict(generation_config), indent=2, sort_keys=True) + "\n"
            (new / GENERATION_CONFIG).write_text(text, encoding="utf-8")
        others(new)

    return write_folder(destination, tensors, config, others=write_others, max_shard_size=max_shard_size)


def _tensors(params: LEDParams, config: LEDConfig, architecture: str, backend: Backend) -> dict[str, StoredTensor]:
    """The model's tensors on the host, by the names in its class's files."""
    heads = heads_of(architecture)
    arrays = arrays_by_key(params, config, heads)
    if heads or params.lm_head is params.shared:
        del arrays[LM_HEAD]
    if heads:
        del arrays[FINAL_LOGITS_BIAS]
    stored = {
        key: tensor_of(weight.on(backend.to_host))
        if isinstance(weight, CompactWeight)
        else from_numpy(key, backend.to_host(backend.rows(weight)))
        for key, weight in arrays.items()
    }
    tensors = lay_out(stored, config)
    if architecture == "LEDModel":
        return {key.removeprefix("led."): tensor for key, tensor in tensors.items() if key.startswith("led.")}
    return tensors
