"""The base class of the LED classes: a configuration, weights and a backend, from_pretrained and save_pretrained."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

import led_backends
from led_backends.contract import Array, Backend, HostArray, Weight
from led_ref.config import LEDConfig
from led_ref.costs.memory import device_errors
from led_ref.errors import BackendError, InputError
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
    """The base class of the LED classes: a configuration, weights and a backend.

    Args:
        config: sizes and special ids.
        params: the weights, on the backend's device.
        backend: a name or a backend; None: "auto".
        generation_config: what generation_config.json says, for classes that generate; None: there is no such file, and
            config.json's own generation keys count.
    """

    # What config.json's `architectures` calls the class; weights/keys.py says which tensors it has beside the LED itself.
    architecture: ClassVar[str] = "LEDModel"

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
        self.generation_config = None if generation_config is None else dict(generation_config)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        dtype: str = "float32",
        quantize: str | None = None,
        keep_stored: bool = False,
        backend: str | Backend = "auto",
        notice: Callable[[str], None] | None = None,
    ) -> Self:
        """Load a checkpoint.

        Args:
            name_or_folder: a folder with config.json and weights, or a name on the Hugging Face Hub.
            revision: branch, tag or commit on the Hub.
            dtype: what to compute in, "float32" or "float64", on a GPU also "float16"; the file's own dtype may be another.
            quantize: round the matrices of all linear maps to "int8" (a scale for each output), "nf4" (4 bits, in blocks of 64)
                or "nf4-double" (the blocks' scales in 8 bits too), and keep them so: they become numbers a tile at a time. What
                `led-ref convert --quantize` wrote is loaded as it is, without this.
            keep_stored: leave tables and matrices that the file has in float16 or bfloat16 as they lie there, mapped, half as
                large; they become numbers a tile at a time, with the same result to the last bits. False: widen them now.
            backend: "auto" (a GPU if CuPy is installed and one answers, else the CPU), "numpy", "cupy", or a backend object.
            notice: called with a sentence for the user (such as that a .bin is being read).

        Raises:
            MissingFileError: if there is no such model, or a file of it is missing.
            ConfigError: if config.json is not an LED's.
            CheckpointError: if the weights do not cover the model exactly, or are damaged.
            InputError: for another dtype or quantization.
            BackendError: if the backend cannot run here.
        """
        from led_ref.weights.find_files import read_tensors, resolve
        from led_ref.weights.keys import heads_of
        from led_ref.weights.load import load_params

        device = get_backend(backend)
        folder = resolve(name_or_folder, revision=revision, notice=notice)
        config = LEDConfig.from_pretrained(folder)
        with device_errors(device):
            params = load_params(
                read_tensors(folder, notice=notice),
                config,
                backend=device,
                dtype=dtype,
                quantize=quantize,
                keep_stored=keep_stored,
                heads=heads_of(cls.architecture),
            )
        return cls(config, params, backend=device, generation_config=read_generation_config(folder))

    @classmethod
    def from_state_dict(
        cls,
        config: LEDConfig,
        state_dict: Mapping[str, HostArray],
        *,
        dtype: str = "float32",
        quantize: str | None = None,
        keep_stored: bool = False,
        backend: str | Backend | None = None,
    ) -> Self:
        """A model from arrays in memory, by checkpoint key (`led.encoder.layers.0.fc1.weight`, ...).

        The other arguments are as in from_pretrained.

        Raises:
            CheckpointError: if the arrays do not cover the model exactly.
        """
        from led_ref.weights.keys import heads_of
        from led_ref.weights.load import load_params
        from led_ref.weights.stored_tensor import from_numpy

        device = get_backend(backend)
        tensors = {key: from_numpy(key, array) for key, array in state_dict.items()}
        with device_errors(device):
            params = load_params(
                tensors,
                config,
                backend=device,
                dtype=dtype,
                quantize=quantize,
                keep_stored=keep_stored,
                heads=heads_of(cls.architecture),
            )
        return cls(config, params, backend=device)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        max_shard_size: int | str = "50GB",
        overwrite: bool = False,
        others: Callable[[Path], object] = lambda folder: None,
    ) -> tuple[Path, ...]:
        """Write weights, config.json and generation_config.json, which transformers and `from_pretrained` read.

        All of it is written, read back and compared, before any file takes its name; else nothing is changed.

        Args:
            save_directory: a folder, made if it is not there; its parent must be.
            max_shard_size: the most bytes of tensors in one file, or a text such as "5GB"; what is more becomes several
                files and an index.
            overwrite: whether weights that are there already may be replaced; False: they are refused.
            others: writes what else belongs there into the folder that it is given, such as `tokenizer.save_pretrained`.

        Returns:
            The files of weights.

        Raises:
            InputError: if there are weights already, or `max_shard_size` is no size.
            MissingFileError: if the folder's parent is not there.
            CheckpointError: if the disk does not take the files, or does not give them back as they were written.
        """
        from led_ref.weights.save import save_model

        return save_model(
            save_directory,
            self.params,
            self.config,
            self.architecture,
            backend=self.backend,
            generation_config=self.generation_config,
            others=others,
            max_shard_size=max_shard_size,
            overwrite=overwrite,
        )

    def resize_token_embeddings(self, new_num_tokens: int) -> Self:
        """A model with another number of ids: the first ones as they were, new ones the mean of them. This one stays as it is.

        A new row of the embedding (and of an untied output projection) is the mean of the old rows, so that a new id is
        neither likely nor unlikely before it is trained, and `final_logits_bias` is 0 for it. The rest is shared with
        this model, not copied.

        Args:
            new_num_tokens: the new vocab_size; fewer cut the last ids off.

        Raises:
            InputError: if it is not a whole number of at least 1.
            ConfigError: if a special id would be cut off.

        Example:
            >>> import led_ref
            >>> model = led_ref.load().model
            >>> model.config.vocab_size, model.resize_token_embeddings(8200).params.shared.shape
            (8192, (8200, 128))
        """
        if not isinstance(new_num_tokens, int) or isinstance(new_num_tokens, bool) or new_num_tokens < 1:
            raise InputError(f"new_num_tokens is {new_num_tokens!r}; give the new number of ids, at least 1.")
        config = replace(self.config, vocab_size=new_num_tokens)
        params = self.params

        def resized(table_VD: Weight) -> Array:
            old_VD = self.backend.to_host(self.backend.rows(table_VD))
            mean_1D = old_VD.mean(axis=0, keepdims=True, dtype=np.float64).astype(old_VD.dtype)
            new_XD = np.repeat(mean_1D, max(0, new_num_tokens - len(old_VD)), axis=0)
            return self.backend.to_device(np.concatenate([old_VD[:new_num_tokens], new_XD]))

        shared = resized(params.shared)
        old_1V = self.backend.to_host(params.final_logits_bias)[:, :new_num_tokens]
        bias_1V = np.pad(old_1V, ((0, 0), (0, new_num_tokens - old_1V.shape[1])))
        params = replace(
            params,
            shared=shared,
            lm_head=shared if params.lm_head is params.shared else resized(params.lm_head),
            final_logits_bias=self.backend.to_device(bias_1V),
        )
        return type(self)(config, params, backend=self.backend, generation_config=self.generation_config)

    @property
    def dtype(self) -> str:
        """What the model computes in: "float32", "float64" or, on a GPU, "float16"."""
        return self.params.shared.dtype.name


def read_generation_config(folder: Path) -> dict[str, Any] | None:
    """What a folder's generation_config.json says; None if there is none.

    Raises:
        ConfigError: if the file is not a JSON object.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return None
    return read_json_object(path)
