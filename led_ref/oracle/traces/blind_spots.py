"""What a run could not have shown: mistakes that leave all its numbers within the tolerance.

    trace(...).blind_spots()            of one run, at the default tolerances
    diff(ours, theirs).blind_spots      of two equal traces, at the tolerances of the comparison

"Equal" says little where nothing could have differed. A document that is shorter than a window cannot see a wrong window;
with random weights the hidden numbers are small, where the tanh form of GELU is close to GELU; an eps of 1e-12 in a
LayerNorm is no different from 1e-5 where the variance is 1. Each is computed from the numbers of the run itself.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from led_backends.contract import HostArray
from led_backends.numpy_backend import NumpyBackend
from led_ref.oracle.traces.step_names import describe
from led_ref.oracle.traces.tolerances import AT_ONCE

# LED's eps, and one that other programs have.
_EPS, _OTHER_EPS = 1e-5, 1e-12


def blind_spots(
    run: Mapping[str, HostArray],
    radii: Sequence[int],
    compared: Mapping[str, tuple[float, float]],
) -> tuple[str, ...]:
    """A sentence for each mistake that the compared steps would not show.

    Args:
        run: names and values of a run.
        radii: R of each encoder layer; none if not known.
        compared: (rtol, atol) of each step that is compared.
    """
    checks = (_window(run, radii), _global_tokens(run), _causal_mask(run), _gelu(run, compared), _eps(run, compared))
    return tuple(sentence for sentence in checks if sentence)


def _window(run: Mapping[str, HostArray], radii: Sequence[int]) -> str:
    """A document without a token whose window is complete."""
    mask = run.get("led.encoder.attention_mask")
    lengths = [
        value.shape[1]
        for name, value in run.items()
        if name.startswith("led.encoder.") and describe(name).letters.startswith("B T") and value.ndim > 1
    ]
    if not lengths or not radii:
        return ""
    tokens, wide = int(mask.sum(axis=1).max()) if mask is not None else lengths[0], 2 * max(radii) + 1
    if tokens >= wide:
        return ""
    seen = "every token sees every other" if tokens <= max(radii) + 1 else "no token's window is complete"
    return f"a wrong window: {tokens} tokens are fewer than 2R + 1 = {wide}, and {seen}. Take a document of several windows."


def _global_tokens(run: Mapping[str, HostArray]) -> str:
    """No global token, so three linear maps and a softmax that nothing reads."""
    mask = run.get("led.encoder.global_attention_mask")
    if mask is None or (mask == 1).any():
        return ""
    return "the maps of global tokens: there is none. Make the first token global."


def _causal_mask(run: Mapping[str, HostArray]) -> str:
    """One target position, so a decoder without a future."""
    calls = [value.shape[1] for name, value in run.items() if name.endswith("led.decoder.input_ids")]
    if not calls or len(calls) > 1 or calls[0] > 1:
        return ""
    return "the decoder's causal mask and its later positions: it read one id. Trace a generation, or with a target."


def _gelu(run: Mapping[str, HostArray], compared: Mapping[str, tuple[float, float]]) -> str:
    """Whether tanh in place of erf would show at an activation; a model with another activation is not asked."""
    of_activations = [name for name in compared if name.endswith("activation_fn.output")]
    if not of_activations:
        behind = [name for name in compared if name.endswith((".fc2.output", ".final_layer_norm.output"))]
        return (
            behind and "tanh in place of erf in GELU: layer ends can hide it. Compare activation_fn.output, too."
        ) or ""
    backend, largest = NumpyBackend(threads=1), 0.0
    for name in of_activations:
        rtol, atol = compared[name]
        x = run.get(name.replace("activation_fn", "fc1"))
        for piece, y in _pieces(x, run[name]):
            exact, approximate = backend.gelu(piece.copy()), backend.gelu_new(piece.copy())
            if min(np.abs(y - exact).max(), np.abs(y - approximate).max()) > atol + rtol * np.abs(y).max():
                return ""  # relu or silu
            change = np.abs(exact - approximate)
            if (change > atol + rtol * np.abs(y)).any():
                return ""
            largest = max(largest, float(change.max()))
    return (
        (
            f"tanh in place of erf in GELU: these activations are small, and it changes none by more than {largest:.1e}, which "
            "the tolerance lets pass. Compare in float64, or with trained weights."
        )
        if largest
        else ""
    )


def _eps(run: Mapping[str, HostArray], compared: Mapping[str, tuple[float, float]]) -> str:
    """Whether another eps of a LayerNorm would show at its output."""
    norms = [n for n in compared if n.endswith((".layernorm_embedding.output", "layer_norm.output"))]
    smallest = np.inf
    for name in norms:
        x = run.get(name.removesuffix("output") + "input")
        if x is None:
            continue
        rtol, atol = compared[name]
        variance, change = _change_by_eps(x, run[name])
        if (change > atol + rtol * np.abs(run[name])).any():
            return ""
        smallest = min(smallest, variance)
    if not norms:
        return ""
    why = f"the smallest variance is {smallest:.2g}, and no LayerNorm's output shows it by itself"
    why = "the variances that they read are not here" if smallest == np.inf else why
    return f"an eps of {_OTHER_EPS:.0e} in place of {_EPS:.0e} in LayerNorms: {why}. Compare in float64."


def _change_by_eps(x_BTD: HostArray, y_BTD: HostArray) -> tuple[float, HostArray]:
    """The smallest variance that a LayerNorm reads, and by how much another eps would change each of its outputs.

    Its weight is found from the numbers: y = weight n + bias in each column, and n follows from x.
    """
    x, y = (array.reshape(-1, array.shape[-1]).astype(np.float64) for array in (x_BTD, y_BTD))
    variance = x.var(axis=-1, keepdims=True)
    n = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(variance + _EPS)
    spread = n - n.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = (spread * y).sum(axis=0) / np.square(spread).sum(axis=0)
    scaled = np.where(np.isfinite(weight), weight * n, y)  # of a single row the weight is not known
    factor = np.sqrt((variance + _EPS) / (variance + _OTHER_EPS)) - 1
    return float(variance.min()), np.abs(factor * scaled).reshape(y_BTD.shape)


def _pieces(x: HostArray | None, y: HostArray) -> Iterator[tuple[HostArray, HostArray]]:
    """Equal stretches of both, as float64; none if one is missing."""
    if x is None or x.shape != y.shape:
        return
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for start in range(0, flat_x.size, AT_ONCE):
        here = slice(start, start + AT_ONCE)
        yield flat_x[here].astype(np.float64), flat_y[here].astype(np.float64)
