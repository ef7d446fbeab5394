"""The base class of the LED classes: a configuration, weights and a backend, from_pretrained and save_pretrained."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

import led_backends
from led_backends.contract import Array, Backend, DeviceMemoryError, HostArray, Weight
from led_ref.classes.input_checks import as_array, check_types
from led_ref.classes.pickling import SOURCE, Source
from led_ref.classes.pytorch_habits import PyTorchHabits
from led_ref.config import LEDConfig
from led_ref.costs.memory import plan
from led_ref.costs.operations import Workload, on_gpu
from led_ref.errors import BackendError, InputError, quoted
from led_ref.files.json_file import read_json_object
from led_ref.model.params import LEDParams

MAX_IDS = 1 << 26  # a thousand times the vocabulary of LED

# The memory plan may be wrong by this part: it must not refuse a run that fits.
DOUBT = 0.1


def get_backend(backend: str | Backend | None, *, notice: Callable[[str], None] | None = None) -> Backend:
    """The backend of that name ("auto", "numpy", "cupy"), or the object itself. None is "auto": a GPU if one answers.

    Args:
        backend: name or object.
        notice: called if there is a GPU that cannot be used; None: it is a warning.

    Raises:
        BackendError: if there is none of that name or it cannot run here.
    """
    if backend is not None and not isinstance(backend, str):
        return backend
    try:
        return led_backends.get("auto" if backend is None else backend, notice=notice)
    except led_backends.BackendUnavailableError as error:
        raise BackendError(str(error)) from error


@contextmanager
def device_errors(backend: Backend) -> Iterator[None]:
    """Within this context, an out-of-memory error of device or host becomes a BackendError that says what to lower.

    Underflow is no error here, whatever the caller's np.seterr says: exp(-200) is 0 in float32, and that is right.
    """
    try:
        with np.errstate(under="ignore"), backend.at_work():
            yield
    except DeviceMemoryError as error:
        raise BackendError(str(error)) from error
    except MemoryError as error:
        raise BackendError(
            f"The memory of this machine does not suffice ({quoted(str(error) or 'MemoryError')}). Give fewer tokens, beams or "
            "documents at a time, or smaller weights (quantize, keep_stored). `led-ref estimate` says what a run needs."
        ) from error


def check_free_memory(backend: Backend, config: LEDConfig, *, is_read: bool = False, **sizes: Any) -> None:
    """Refuse a run that needs more than the device's free memory, before it begins. The host's memory is not checked.

    Args:
        backend: the device of the run.
        config: sizes of the model.
        is_read: whether the encoder has run already.
        sizes: those of the run: the fields of costs.Workload.

    Raises:
        BackendError: naming the bytes needed beside the weights, and the free bytes.
    """
    free = backend.free_memory()
    if free is None:
        return
    load = on_gpu(config, Workload(**sizes))
    planned = plan(config, load)
    needed = planned.writing if is_read else max(planned.encoding, planned.writing)
    if needed * (1 - DOUBT) > free:
        raise BackendError(
            f"Reading {load.batch} x {load.tokens:,} tokens and writing {load.new_tokens:,} with {load.beams} beams needs "
            f"about {needed:,} bytes beside the weights, and {backend.describe()} has {free:,} left. "
            "Give fewer tokens, beams or documents at a time, dtype='float16', or cross_attention='folded', which keeps no "
            "keys and values of the document. `led-ref estimate` says what a run needs."
        )


def load_weights(
    name_or_folder: str | Path,
    *,
    config: LEDConfig,
    heads: Collection[str],
    adapter: Path | None,
    mmap: bool = True,
    revision: str | None = None,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> LEDParams:
    """The weights of a folder or of a name on the Hub; arguments and errors as in LEDPreTrainedModel.from_pretrained.

    Args:
        config: sizes of the model.
        heads: the heads that the file must have.
        options: backend, dtype, quantize, keep_stored.
    """
    from led_ref.weights.adapter import read_adapter, with_adapter
    from led_ref.weights.find_files import read_tensors, resolve
    from led_ref.weights.load import load_params

    folder = resolve(name_or_folder, revision=revision)
    with device_errors(options["backend"]):
        tensors = read_tensors(folder, mmap=mmap, notice=notice)
        if adapter is not None:
            computed_in = "float64" if options["dtype"] == "float64" else "float32"
            tensors = with_adapter(tensors, read_adapter(adapter, mmap=mmap), computed_in)
        return load_params(tensors, config, heads=heads, **options)


class LEDPreTrainedModel(PyTorchHabits):
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
    @check_types
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        dtype: str = "float32",
        quantize: str | None = None,
        keep_stored: bool = False,
        adapter: str | Path | None = None,
        mmap: bool = True,
        backend: str | Backend = "auto",
        notice: Callable[[str], None] | None = None,
    ) -> Self:
        """Load a checkpoint; the other arguments and the errors are those of led_ref.load.

        Args:
            name_or_folder: a folder with config.json and weights, or a name on the Hugging Face Hub.
            notice: called with a sentence for the user (such as that a .bin is being read).
        """
        from led_ref.weights.find_files import resolve
        from led_ref.weights.keys import heads_of

        device = get_backend(backend, notice=notice)
        folder = resolve(name_or_folder, revision=revision, notice=notice)
        config = LEDConfig.from_pretrained(folder)
        load = partial(
            load_weights,
            config=config,
            heads=heads_of(cls.architecture),
            mmap=mmap,
            adapter=None if adapter is None else Path(adapter).absolute(),
            backend=device,
            dtype=dtype,
            quantize=quantize,
            keep_stored=keep_stored,
        )
        params = load(folder, notice=notice)
        hub = None if Path(name_or_folder).expanduser().is_dir() else (str(name_or_folder), folder.name)
        object.__setattr__(params, SOURCE, Source(load, str(folder.absolute()), hub))
        file = folder / "generation_config.json"
        return cls(config, params, backend=device, generation_config=read_json_object(file) if file.is_file() else None)

    @classmethod
    @check_types
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
        options: Any = {"backend": device, "dtype": dtype, "quantize": quantize, "keep_stored": keep_stored}
        tensors = {str(key): from_numpy(str(key), as_array(str(key), array)) for key, array in state_dict.items()}
        with device_errors(device):
            params = load_params(tensors, config, **options, heads=heads_of(cls.architecture))
        return cls(config, params, backend=device)

    @check_types
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

    @check_types
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
            (6144, (8200, 192))
        """
        if not 1 <= new_num_tokens <= MAX_IDS:
            raise InputError(
                f"new_num_tokens is {new_num_tokens!r}; give the new number of ids, from 1 to {MAX_IDS:,}."
            )
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
    def longest_document(self) -> int:
        """How many tokens a document may have."""
        return self.config.max_encoder_position_embeddings

    @property
    def dtype(self) -> str:
        """What the model computes in: "float32", "float64" or, on a GPU, "float16"."""
        return self.params.shared.dtype.name

    def __repr__(self) -> str:
        config = self.config
        return (
            f"{type(self).__name__}({config.encoder_layers} + {config.decoder_layers} layers, d_model {config.d_model}, "
            f"{config.vocab_size:,} ids, {self.num_parameters():,} parameters, {self.dtype}, {self.backend.describe()})"
        )
