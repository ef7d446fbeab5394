"""Optimizers, clipping and schedules against torch and transformers: the same gradients, many steps, in float64."""

import numpy as np
import pytest

from led_backends.numpy_backend import NumpyBackend
from led_ref.training.clipping import clip_factor, global_norm
from led_ref.training.optimizers import Adafactor, AdamW, decays, initial_state
from led_ref.training.schedules import Schedule

pytestmark = pytest.mark.peer
BACKEND = NumpyBackend(2)
# Two arrays larger than a piece, one whose last piece is cut; a bias and a norm, which do not decay.
SHAPES = {
    "led.shared.weight": (331, 211),
    "fc1.weight": (37, 29),
    "fc1.bias": (37,),
    "final_layer_norm.weight": (29,),
    "query_global.weight": (13, 11),  # has a gradient in every third step only
}


def start(rng, dtype="float64"):
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def gradients_of(rng, step, parameters):
    scale = 10.0 ** rng.uniform(-6, 2)  # from far below eps to far above
    gradients = {
        name: scale * rng.standard_normal(value.shape).astype(value.dtype)
        for name, value in parameters.items()
        if name != "query_global.weight" or step % 3 == 0
    }
    gradients["led.shared.weight"][1] = 0  # the pad token's row never has any
    gradients["fc1.bias"][5] = 0
    return gradients


def torch_side(make, parameters, weight_decay):
    import torch

    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in parameters.items()}
    groups = [
        {
            "params": [p for name, p in theirs.items() if ("bias" in name or "norm" in name) == plain],
            "weight_decay": decay,
        }
        for plain, decay in ((False, weight_decay), (True, 0.0))
    ]
    return theirs, make(groups)


def run(ours, make, steps, worst, line, rate=1e-2, clip=None):
    """The same gradients to both; compares all weights at the end, and the norms meanwhile."""
    import torch

    rng = np.random.default_rng(7)
    parameters = start(rng)
    theirs, optimizer = torch_side(make, parameters, ours.weight_decay)
    state = initial_state(ours, parameters, BACKEND)
    for step in range(steps):
        gradients = gradients_of(rng, step, parameters)
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(gradients[name]) if name in gradients else None
        factor = 1.0
        if clip is not None:
            norm = global_norm(gradients, BACKEND)
            factor = clip_factor(norm, clip)
            their_norm = torch.nn.utils.clip_grad_norm_(theirs.values(), clip).item()
            assert norm == pytest.approx(their_norm, rel=1e-12)
        now = rate * (1 + step % 5) / 5
        for group in optimizer.param_groups:
            group["lr"] = now
        optimizer.step()
        state = ours.update(parameters, gradients, state, now, BACKEND, scale=factor)
    assert state.steps["query_global.weight"] == -(-steps // 3)
    for name, parameter in theirs.items():
        worst.compare(line, parameters[name], parameter.detach().numpy(), 1e-13, name)


@pytest.mark.parametrize(("weight_decay", "clip"), [(0.0, None), (0.1, 1.0)])
def test_thousand_adamw_steps_are_torchs(worst, weight_decay, clip):
    import torch

    ours = AdamW(weight_decay=weight_decay)
    run(ours, lambda groups: torch.optim.AdamW(groups, lr=1.0), 1000, worst, "AdamW, 1,000 steps", clip=clip)


@pytest.mark.parametrize(("weight_decay", "clip"), [(0.0, None), (0.1, 1e-3)])
def test_thousand_adafactor_steps_are_transformers(worst, weight_decay, clip):
    from transformers.optimization import Adafactor as Theirs

    ours = Adafactor(weight_decay=weight_decay)
    make = lambda groups: Theirs(groups, lr=1.0, relative_step=False, scale_parameter=False, clip_threshold=1.0)  # noqa: E731
    run(ours, make, 1000, worst, "Adafactor, 1,000 steps", clip=clip)


def test_decay_is_trainers():
    import transformers

    config = transformers.LEDConfig(
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=8, decoder_ffn_dim=8, vocab_size=11, attention_window=[4],
        max_encoder_position_embeddings=8, max_decoder_position_embeddings=8,
    )  # fmt: skip
    model = transformers.LEDForQuestionAnswering(config)
    theirs = set(transformers.Trainer.get_decay_parameter_names(None, model))
    names = [name for name, _ in model.named_parameters()]
    assert {name for name in names if decays(name)} == theirs & set(names)
    assert "led.decoder.embed_positions.weight" in theirs


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize(
    ("settings", "name", "arguments"),
    [
        ({"name": "linear"}, "linear", {}),
        ({"name": "cosine"}, "cosine", {}),
        ({"name": "cosine", "cycles": 1.5}, "cosine", {"num_cycles": 1.5}),
        ({"name": "constant"}, "constant_with_warmup", {}),
        ({"name": "inverse_sqrt"}, "inverse_sqrt", {}),
        ({"name": "inverse_sqrt", "timescale": 5}, "inverse_sqrt", {"timescale": 5}),
        ({"name": "polynomial"}, "polynomial", {}),
        ({"name": "polynomial", "power": 2.5, "lr_end": 1e-5}, "polynomial", {"power": 2.5, "lr_end": 1e-5}),
    ],
)
def test_schedules_are_transformers(settings, name, arguments, warmup):
    import torch
    import transformers

    ours = Schedule(**settings, warmup_steps=warmup, total_steps=31)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-5)
    theirs = transformers.get_scheduler(name, optimizer, warmup, 31, scheduler_specific_kwargs=arguments)
    for step in range(41):
        assert ours.rate(step, 3e-5) == pytest.approx(theirs.get_last_lr()[0], rel=1e-13, abs=1e-21), step
        optimizer.step()
        theirs.step()
