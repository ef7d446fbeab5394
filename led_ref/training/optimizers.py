"""Optimizers: AdamW and Adafactor.

Of one parameter w, with gradient g, in its n-th step at learning rate a:

    AdamW       m = b1 m + (1 - b1) g                                    first moment:  "{key}.exp_avg"
                v = b2 v + (1 - b2) g^2                                  second moment: "{key}.exp_avg_sq"
                w = w - a decay w - a m' / (sqrt(v') + eps)              m' = m / (1 - b1^n),  v' = v / (1 - b2^n)

    Adafactor   b2 = 1 - n^-0.8,  s = g^2 + eps
                r = b2 r + (1 - b2) (means of the rows of s)             "{key}.exp_avg_sq_row"
                c = b2 c + (1 - b2) (means of the columns of s)          "{key}.exp_avg_sq_col"
                u = g / sqrt(r c / mean(r))                              of a bias: g / sqrt(v), "{key}.exp_avg_sq"
                w = w - a decay w - a u / max(1, rms(u) / clip_threshold)

An optimizer is a frozen object of settings. Its state is named arrays, which go into a safetensors file as they are. `update`
changes parameters and moments in place, piece by piece: the temporaries have the size of a piece, and pieces are shared among
threads. No bit of a result depends on the number of threads.

Sources: Loshchilov and Hutter 2019 (AdamW), Shazeer and Stern 2018 (Adafactor). AdamW equals torch.optim.AdamW. Adafactor
equals transformers.optimization.Adafactor with relative_step, scale_parameter and warmup_init off and without beta1, which is
what transformers' Trainer makes of `--optim adafactor`; torch.optim.Adafactor is another variant.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_ref.errors import CheckpointError, InputError
from led_ref.training.clipping import sum_in_order

Shape = tuple[int, ...]
STEP = "step"  # "{key}.step": how many steps a parameter has made


@dataclass(frozen=True)
class OptimizerState:
    """What an optimizer remembers between steps.

    Args:
        steps: by parameter: the number of its steps. A parameter without a gradient makes none, as in torch.
        moments: by "{parameter}.{moment}": arrays on the backend's device, which `update` changes in place.
    """

    steps: Mapping[str, int]
    moments: Mapping[str, Array]

    def to_host(self, backend: Backend) -> dict[str, HostArray]:
        """All of it as named arrays for a safetensors file: the moments, and "{parameter}.step" (int64, no axes)."""
        arrays = {name: backend.to_host(moment) for name, moment in self.moments.items()}
        return arrays | {f"{name}.{STEP}": np.array(count, np.int64) for name, count in self.steps.items()}


class Optimizer(Protocol):
    """Settings of an optimizer, with its arithmetic."""

    name: ClassVar[str]

    def moment_shapes(self, shape: Shape) -> dict[str, Shape]:
        """The moments of a parameter of that shape, and theirs."""
        ...

    def update(
        self,
        parameters: Mapping[str, Array],
        gradients: Mapping[str, Array],
        state: OptimizerState,
        rate: float,
        backend: Backend,
        *,
        scale: float = 1.0,
    ) -> OptimizerState:
        """One step: change parameters and moments in place, and return the state after it.

        An interruption leaves some parameters changed and some not: go back to the last checkpoint then.

        Args:
            parameters: float32 or float64, contiguous and writable, by checkpoint key.
            gradients: of some or all of them. They stay as they are.
            state: before this step.
            rate: the learning rate of this step.
            backend: where the arrays live.
            scale: what every gradient is multiplied by first: `clip_factor`'s result (clipping.py).
        """
        ...


# ---- state -----------------------------------------------------------------------------------------------------------


def initial_state(optimizer: Optimizer, parameters: Mapping[str, Array], backend: Backend) -> OptimizerState:
    """The state before the first step: zeros.

    Raises:
        InputError: if a parameter cannot be changed in place (weights as loaded are read-only views of their file).
    """
    moments: dict[str, Array] = {}
    for name, parameter in parameters.items():
        if not (parameter.flags.c_contiguous and getattr(parameter.flags, "writeable", True)):
            raise InputError(
                f"{name} cannot be changed in place: it is a view of a file or of another array. Train copies of the "
                "weights: led_ref.training.parameters.own_copies makes them."
            )
        for moment, shape in optimizer.moment_shapes(parameter.shape).items():
            moments[f"{name}.{moment}"] = backend.xp.zeros(shape, dtype=parameter.dtype)
    return OptimizerState(dict.fromkeys(parameters, 0), moments)


def restored_state(
    optimizer: Optimizer, arrays: Mapping[str, HostArray], parameters: Mapping[str, Array], backend: Backend
) -> OptimizerState:
    """The state that `OptimizerState.to_host` wrote, for the same optimizer and parameters.

    Raises:
        CheckpointError: naming the first array that is missing, left over, or of another shape or dtype.
    """
    expected = {
        f"{name}.{moment}": (shape, parameter.dtype)
        for name, parameter in parameters.items()
        for moment, shape in optimizer.moment_shapes(parameter.shape).items()
    }
    whole = expected | {f"{name}.{STEP}": ((), np.dtype(np.int64)) for name in parameters}
    for name, (shape, dtype) in whole.items():
        if name not in arrays:
            raise CheckpointError(f"The optimizer's state lacks {name}. Resume with the settings that wrote it.")
        if (arrays[name].shape, arrays[name].dtype) != (shape, dtype):
            raise CheckpointError(
                f"The optimizer's state holds {name} as {arrays[name].dtype} {arrays[name].shape}; {optimizer.name} needs "
                f"{dtype} {shape}. Resume with the settings that wrote it."
            )
    if left_over := sorted(arrays.keys() - whole.keys()):
        raise CheckpointError(
            f"The optimizer's state holds {left_over[0]}, which {optimizer.name} does not have here. Resume with the "
            "settings that wrote it."
        )
    # A file's arrays are read-only views of it.
    moments = {name: backend.to_device(np.array(arrays[name])) for name in expected}
    return OptimizerState({name: int(arrays[f"{name}.{STEP}"]) for name in parameters}, moments)


def decays(name: str) -> bool:
    """Whether weight decay applies to a parameter: to matrices and tables, never to biases and LayerNorm.

    Example:
        >>> [decays(f"led.encoder.{name}") for name in ("embed_positions.weight", "layernorm_embedding.weight")]
        [True, False]
    """
    return not (name.endswith(".bias") or "norm" in name)


# ---- AdamW -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay.

    Args:
        beta1: how much of the first moment stays, 0 <= b1 < 1.
        beta2: how much of the second moment stays, 0 <= b2 < 1.
        eps: added to the root of the unbiased second moment.
        weight_decay: pulls matrices and tables towards 0 (`decays`), by rate * weight_decay a step.

    Raises:
        InputError: for a number out of its range.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    name: ClassVar[str] = "adamw"

    def __post_init__(self) -> None:
        _check("beta1", self.beta1, 0 <= self.beta1 < 1, "from 0 to below 1")
        _check("beta2", self.beta2, 0 <= self.beta2 < 1, "from 0 to below 1")
        _check("eps", self.eps, self.eps > 0, "above 0")
        _check("weight_decay", self.weight_decay, self.weight_decay >= 0, "of at least 0")

    def moment_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Two moments of the parameter's shape."""
        return {"exp_avg": shape, "exp_avg_sq": shape}

    def update(
        self,
        parameters: Mapping[str, Array],
        gradients: Mapping[str, Array],
        state: OptimizerState,
        rate: float,
        backend: Backend,
        *,
        scale: float = 1.0,
    ) -> OptimizerState:
        """One step; arguments as in Optimizer.update."""
        steps = _counted(state.steps, gradients)
        for name, gradient in gradients.items():
            moments = [state.moments[f"{name}.{moment}"] for moment in ("exp_avg", "exp_avg_sq")]
            arrays = [array.reshape(-1) for array in (parameters[name], gradient, *moments)]
            work = self._work(
                arrays, steps[name], rate, rate * self.weight_decay if decays(name) else 0.0, scale, backend
            )
            backend.for_each_piece(work, gradient.size)
        return OptimizerState(steps, state.moments)

    def _work(
        self, arrays: list[Array], step: int, rate: float, decay: float, scale: float, backend: Backend
    ) -> Callable[[slice], None]:
        """The step of a piece of one parameter: the equation, line by line, in two temporaries."""
        xp = backend.xp
        step_size = rate / (1 - self.beta1**step)
        root_of_bias = math.sqrt(1 - self.beta2**step)

        def work(piece: slice) -> None:
            w, g, m, v = (array[piece] for array in arrays)
            g = g * scale
            m *= self.beta1
            m += g * (1 - self.beta1)
            g *= g
            g *= 1 - self.beta2
            v *= self.beta2
            v += g
            root = xp.sqrt(v, out=g)
            root /= root_of_bias
            root += self.eps
            change = xp.divide(m, root, out=root)
            change *= step_size
            if decay:
                w *= 1 - decay
            w -= change

        return work


# ---- Adafactor -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adafactor:
    """Adam's second moment, of a matrix by its rows and its columns only: n + m numbers in place of 2 n m.

    Args:
        clip_threshold: the most that the root mean square of a parameter's update may be, before the learning rate.
        decay_rate: the second moment keeps 1 - n^decay_rate in the n-th step; below 0.
        eps: added to the squares of the gradient.
        weight_decay: as in AdamW.

    Raises:
        InputError: for a number out of its range.
    """

    clip_threshold: float = 1.0
    decay_rate: float = -0.8
    eps: float = 1e-30
    weight_decay: float = 0.0

    name: ClassVar[str] = "adafactor"

    def __post_init__(self) -> None:
        _check("clip_threshold", self.clip_threshold, self.clip_threshold > 0, "above 0")
        _check("decay_rate", self.decay_rate, self.decay_rate < 0, "below 0")
        _check("eps", self.eps, self.eps > 0, "above 0")
        _check("weight_decay", self.weight_decay, self.weight_decay >= 0, "of at least 0")

    def moment_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Of a matrix, means of rows and of columns; of a vector, all."""
        if len(shape) == 2:
            return {"exp_avg_sq_row": shape[:1], "exp_avg_sq_col": shape[1:]}
        return {"exp_avg_sq": shape}

    def update(
        self,
        parameters: Mapping[str, Array],
        gradients: Mapping[str, Array],
        state: OptimizerState,
        rate: float,
        backend: Backend,
        *,
        scale: float = 1.0,
    ) -> OptimizerState:
        """One step; arguments as in Optimizer.update. transformers advises not to clip gradients too: leave scale at 1."""
        steps = _counted(state.steps, gradients)
        for name, gradient in gradients.items():
            kept = 1 - steps[name] ** self.decay_rate
            moments = [state.moments[f"{name}.{moment}"] for moment in self.moment_shapes(gradient.shape)]
            second_moment = self._matrix_moment if len(moments) == 2 else self._vector_moment
            divided = second_moment(gradient, moments, kept, scale, backend)
            self._apply(parameters[name], divided, rate, rate * self.weight_decay if decays(name) else 0.0, backend)
        return OptimizerState(steps, state.moments)

    def _matrix_moment(
        self, gradient: Array, moments: list[Array], kept: float, scale: float, backend: Backend
    ) -> Callable[[slice], Array]:
        """Take the gradient into the means of rows and columns. Returns what gives u for some rows."""
        xp, (rows, width) = backend.xp, gradient.shape
        row_means, column_sums = xp.empty(rows, dtype=gradient.dtype), {}

        def square(piece: slice) -> None:
            s = gradient[piece] * scale
            s *= s
            s += self.eps
            row_means[piece] = s.mean(-1)
            column_sums[piece.start] = s.sum(0)

        backend.for_each_piece(square, rows, width)
        for moment, mean in zip(moments, (row_means, sum_in_order(column_sums) / rows), strict=True):
            moment *= kept
            moment += mean * (1 - kept)
        by_row = 1 / xp.sqrt(moments[0] / moments[0].mean())
        by_column = 1 / xp.sqrt(moments[1])

        def divided(piece: slice) -> Array:
            u = gradient[piece] * scale
            u *= by_row[piece, None]
            u *= by_column
            return u

        return divided

    def _vector_moment(
        self, gradient: Array, moments: list[Array], kept: float, scale: float, backend: Backend
    ) -> Callable[[slice], Array]:
        """The same for a bias: a number of the second moment for each of it."""
        (moment,) = moments
        g = gradient * scale
        moment *= kept
        moment += (g * g + self.eps) * (1 - kept)
        u = g / backend.xp.sqrt(moment)
        return lambda piece: u[piece].copy()

    def _apply(
        self, weight: Array, divided: Callable[[slice], Array], rate: float, decay: float, backend: Backend
    ) -> None:
        """Two more passes: the root mean square of u, then the change by it."""
        width = weight.size // len(weight)
        sums: dict[int, Array] = {}

        def square(piece: slice) -> None:
            u = divided(piece)
            sums[piece.start] = (u * u).sum(dtype="float64")

        backend.for_each_piece(square, len(weight), width)
        rms = backend.xp.sqrt(sum_in_order(sums) / weight.size)
        step_size = (rate / backend.xp.maximum(rms / self.clip_threshold, 1)).astype(
            weight.dtype
        )  # stays on the device

        def work(piece: slice) -> None:
            change = divided(piece)
            change *= step_size
            w = weight[piece]
            if decay:
                w *= 1 - decay
            w -= change

        backend.for_each_piece(work, len(weight), width)


def _counted(steps: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    """The numbers of steps after one more of these parameters."""
    return {**steps, **{name: steps[name] + 1 for name in names}}


def _check(name: str, value: float, is_right: bool, wanted: str) -> None:
    if not is_right:
        raise InputError(f"{name} is {value!r}; give a number {wanted}.")


# By the names that a command line takes.
OPTIMIZERS: Mapping[str, type[AdamW] | type[Adafactor]] = {"adamw": AdamW, "adafactor": Adafactor}
