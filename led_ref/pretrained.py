"""What the LED classes share: a configuration, weights and a backend held together, and the ways to get them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import led_backends
from led_backends.contract import Backend, HostArray
from led_ref.config import LEDConfig
from led_ref.device import device_errors
from led_ref.errors import BackendError
from led_ref.json_file import read_json_object
from led_ref.model.params import LEDParams


def get_backend(backend: str | Backend | None) -> Backend:
    """The backend of that name ("auto", "numpy", "cupy"), or the object itself. None is "auto": a GPU if one answers.

    Raises:
        BackendError: if there is none of that name or it cannot run here.
    """
    if backend is not None and not isinstance(backend, str):
        return backend
    try:
        return led_backends.get(backend or "auto")
    except led_backends.BackendUnavailableError as error:
        raise BackendError(str(error)) from error


class LEDPreTrainedModel:
    """What the LED classes share: a configuration, weights and a backend, and the ways to get them.

    Args:
        config: sizes and special ids.
        params: the weights, on the backend's device.
        backend: a name or a backend; None: "auto".
        generation_config: what generation_config.json says, for classes that generate.
    """

    def __init__(
        self,
        config: LEDConfig,
        params: LEDParams,
        *,
        backend: str | Backend | None = None,
        generation_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.params = params
        self.backend = get_backend(backend)
        self.generation_config = dict(generation_config or {})

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        dtype: str = "float32",
        backend: str | Backend = "auto",
        notice: Callable[[str], None] | None = None,
    ) -> Self:
        """Load a checkpoint.

        Args:
            name_or_folder: a folder with config.json and weights, or a name on the Hugging Face Hub.
            revision: branch, tag or commit on the Hub.
            dtype: what to compute in, "float32" or "float64", on a GPU also "float16"; the file's own dtype may be another.
            backend: "auto" (a GPU if CuPy is installed and one answers, else the CPU), "numpy", "cupy", or a backend object.
            notice: told in a sentence what a person may want to know (such as that a .bin is being read).

        Raises:
            MissingFileError: if there is no such model, or a file of it is missing.
            ConfigError: if config.json is not an LED's.
            CheckpointError: if the weights do not cover the model exactly, or are damaged.
            BackendError: if the backend cannot run here.
        """
        from led_ref.weights.hub import resolve
        from led_ref.weights.load import load_params

        device = get_backend(backend)
        folder = resolve(name_or_folder, revision=revision, notice=notice)
        config = LEDConfig.from_pretrained(folder)
        with device_errors(device):
            params = load_params(folder, config, backend=device, dtype=dtype, notice=notice)
        return cls(config, params, backend=device, generation_config=read_generation_config(folder))

    @classmethod
    def from_state_dict(
        cls,
        config: LEDConfig,
        state_dict: Mapping[str, HostArray],
        *,
        dtype: str = "float32",
        backend: str | Backend | None = None,
    ) -> Self:
        """A model from arrays in memory, by checkpoint key (`led.encoder.layers.0.fc1.weight`, ...).

        Raises:
            CheckpointError: if the arrays do not cover the model exactly.
        """
        from led_ref.weights.load import params_from_tensors
        from led_ref.weights.stored import from_numpy

        device = get_backend(backend)
        tensors = {key: from_numpy(key, array) for key, array in state_dict.items()}
        with device_errors(device):
            params = params_from_tensors(tensors, config, backend=device, dtype=dtype)
        return cls(config, params, backend=device)

    @property
    def dtype(self) -> str:
        """What the model computes in: "float32", "float64" or, on a GPU, "float16"."""
        return self.params.shared.dtype.name


def read_generation_config(folder: Path) -> dict[str, Any]:
    """What a folder's generation_config.json says; empty if there is none.

    Raises:
        ConfigError: if the file is not a JSON object.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return {}
    return read_json_object(path)
