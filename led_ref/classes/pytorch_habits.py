"""Habits of PyTorch's users: what can be done is done; for the rest, the error says what to do in place of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

from led_backends.contract import Backend, HostArray
from led_ref.config import LEDConfig
from led_ref.errors import InputError, wrong_type
from led_ref.model.params import LEDParams
from led_ref.weights.keys import arrays_by_key, heads_of

_TRAINING = "led_ref.train fine-tunes a model, and led_ref.training.loss_and_gradients gives one batch's gradients."
_LOADING = "A model stays as it was loaded: give the option to from_pretrained or led_ref.load."

# Methods of torch.nn.Module and of transformers' classes that have no counterpart here.
ELSEWHERE = {
    **dict.fromkeys(("zero_grad", "requires_grad_", "backward", "apply"), _TRAINING),
    "gradient_checkpointing_enable": "led_ref.train computes layers again by default; keep_activations=True does not.",
    "register_forward_hook": "led_ref.trace records every intermediate of a run.",
    "load_state_dict": "Weights do not change: make another model, from_state_dict(config, state_dict).",
    **dict.fromkeys(("half", "double", "float", "bfloat16"), _LOADING.replace("the option", "dtype")),
    "compile": "There is nothing to compile: a backend is chosen when the model is loaded.",
    "push_to_hub": "save_pretrained(folder) writes what the Hub takes; upload it with huggingface_hub.",
    "get_input_embeddings": "The embedding is params.shared, (vocab_size, d_model).",
    "get_output_embeddings": "The output projection is params.lm_head, (vocab_size, d_model).",
    **dict.fromkeys(
        ("modules", "named_modules"), "The weights are params, one field per tensor; state_dict() has them by key."
    ),
}


class PyTorchHabits:
    """What torch.nn.Module has, for a model whose weights do not change."""

    config: LEDConfig
    params: LEDParams
    backend: Backend
    architecture: ClassVar[str]

    @property
    def device(self) -> str:
        """Where the weights lie: "cpu" or, on the first GPU, "cuda"."""
        return "cpu" if self.backend.name == "numpy" else "cuda"

    @property
    def training(self) -> bool:
        """False: a model never drops anything out, except in led_ref.train."""
        return False

    def eval(self) -> Self:
        """The model itself: it never drops anything out, except in led_ref.train."""
        return self

    def train(self, mode: bool = True) -> Self:
        """With False the model itself, as `eval()`.

        Raises:
            InputError: with True; the message names led_ref.train.
        """
        if mode:
            raise InputError(f"A model does not change, so it has no training mode. {_TRAINING}")
        return self

    def cpu(self) -> Self:
        """`to("cpu")`."""
        return self.to("cpu")

    def cuda(self) -> Self:
        """`to("cuda")`."""
        return self.to("cuda")

    def to(self, device: Any = None, dtype: Any = None) -> Self:
        """The model itself, if it is there and computes in that dtype already.

        Raises:
            InputError: if it does not; the message says how to load it so.
        """
        for name, value in (("device", device), ("dtype", dtype)):
            if not (
                value is None or isinstance(value, str | type) or hasattr(value, "type") or hasattr(value, "itemsize")
            ):
                raise wrong_type(name, value, "a text such as 'cpu' or 'float32', or None")
        wanted = (
            None if dtype is None else str(dtype).removeprefix("torch.").removeprefix("<class 'numpy.").rstrip("'>")
        )
        place = None if device is None else str(device).partition(":")[0].removeprefix("torch.")
        if place in ("float16", "float32", "float64", "bfloat16"):
            place, wanted = None, place
        if place not in (None, self.device) or wanted not in (None, self.dtype):
            backend = "cupy" if place == "cuda" else "numpy"
            raise InputError(
                f"The model is on {self.device!r} in {self.dtype}, and stays there. Load it anew: "
                f"from_pretrained(..., backend={backend!r}, dtype={wanted or self.dtype!r})."
            )
        return self

    def state_dict(self) -> dict[str, HostArray]:
        """All weights as NumPy arrays, by checkpoint key: what `from_state_dict` takes. A tied table has both its keys."""
        arrays = arrays_by_key(self.params, self.config, heads_of(self.architecture))
        return {key: self.backend.to_host(self.backend.rows(array)) for key, array in arrays.items()}

    def named_parameters(self) -> Iterator[tuple[str, HostArray]]:
        """Each weight with its checkpoint key, as a NumPy array; a tied table once."""
        given = set[int]()
        for key, array in arrays_by_key(self.params, self.config, heads_of(self.architecture)).items():
            if id(array) not in given:
                given.add(id(array))
                yield key, self.backend.to_host(self.backend.rows(array))

    def parameters(self) -> Iterator[HostArray]:
        """Each weight as a NumPy array; a tied table once."""
        return (array for _, array in self.named_parameters())

    def num_parameters(self) -> int:
        """How many numbers the weights are, a tied table counted once."""
        arrays = arrays_by_key(self.params, self.config, heads_of(self.architecture)).values()
        return sum(array.size for array in {id(array): array for array in arrays}.values())

    if TYPE_CHECKING:
        # To mypy, any name would exist if it saw __getattr__.
        @property
        def dtype(self) -> str:
            """What the model computes in; pretrained.py has it."""

    else:

        def __getattr__(self, name):  # asked only for what is nowhere else
            hint = f" {ELSEWHERE[name]}" if name in ELSEWHERE else ""
            raise AttributeError(f"{type(self).__name__} has no {name!r}.{hint}", name=name, obj=self)
