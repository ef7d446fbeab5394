"""The memory of a training, as it is predicted, beside what a step really holds; and what is said where it does not fit."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import led_ref
from led_backends.numpy_backend import NumpyBackend
from led_ref.config import LEDConfig
from led_ref.costs.operations import LED_BASE, Workload
from led_ref.errors import InputError
from led_ref.training.accumulator import GradientAccumulator
from led_ref.training.gradients import GradientOptions, accumulate_gradients
from led_ref.training.lora import lora_weights
from led_ref.training.optimizers import Adafactor, AdamW, initial_state
from led_ref.training.room import Memory, check_room, machine_memory, room, what_to_lower
from led_ref.training.settings import TrainingArguments
from led_ref.training.trained import whole_weights
from led_ref.weights.keys import LM_HEAD, entries

CONFIG = LEDConfig(
    vocab_size=101,
    d_model=192,
    encoder_layers=3,
    decoder_layers=2,
    encoder_attention_heads=3,
    decoder_attention_heads=3,
    encoder_ffn_dim=251,
    decoder_ffn_dim=257,
    attention_window=64,
    max_encoder_position_embeddings=4100,
    max_decoder_position_embeddings=130,
)
LONG = Workload(tokens=4093, new_tokens=127, tiles_at_once=2)


def begun(config, args):
    """What is trained, as a training begins with it, and its optimizer's moments."""
    rng = np.random.default_rng(0)
    weights = {e.key: 0.02 * rng.standard_normal(e.shape) for e in entries(config) if e.key != LM_HEAD}
    model = led_ref.LEDForConditionalGeneration.from_state_dict(config, weights, backend=NumpyBackend(threads=2))
    trained = lora_weights(model, config, args) if args.lora_rank else whole_weights(model, args.freeze)
    optimizer = Adafactor() if args.optim == "adafactor" else AdamW()
    return trained, initial_state(optimizer, trained.parameters, model.backend)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, {}),
        ({}, {"encoder_ffn_dim": 5003}),
        ({"keep_activations": True}, {"encoder_ffn_dim": 509}),
        ({"freeze": ("encoder", "embeddings", "positions")}, {}),
        ({"lora_rank": 5}, {}),
    ],
)
def test_gradients_take_what_was_predicted(settings, changes):
    config, args = replace(CONFIG, **changes), TrainingArguments(**settings)
    trained, _ = begun(config, args)
    rng = np.random.default_rng(1)
    batch = {
        "input_ids": rng.integers(3, config.vocab_size, (1, LONG.tokens)),
        "labels": rng.integers(3, config.vocab_size, (1, LONG.new_tokens)),
        "global_attention_mask": (np.arange(LONG.tokens) == 0)[None].astype(int),
    }
    accumulator = GradientAccumulator(trained.parameters, trained.model.backend)

    def add(key, gradient):
        for name, part in trained.gradients(key, gradient).items():
            accumulator.add(name, part)

    options = GradientOptions(keep_activations=args.keep_activations, needs=trained.needs.__contains__)
    tracemalloc.start()
    accumulate_gradients(trained.model, batch, add, options)
    measured = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    plan = room(config, args, LONG)
    predicted = plan.peak - plan.parts["weights"] - plan.parts["moments of adamw"]
    assert 0.92 * measured <= predicted <= 1.2 * measured


@pytest.mark.parametrize("settings", [{}, {"optim": "adafactor"}, {"freeze": ("encoder",)}, {"lora_rank": 5}])
def test_weights_and_moments_are_counted(settings):
    args = TrainingArguments(**settings)
    trained, state = begun(CONFIG, args)
    parts = room(CONFIG, args, LONG).parts
    assert parts["gradients"] == sum(array.nbytes for array in trained.parameters.values())
    (moments,) = [size for name, size in parts.items() if "moments" in name]
    assert moments == sum(array.nbytes for array in state.moments.values())


def test_what_does_not_fit_says_what_to_lower():
    args, sizes, said = (
        TrainingArguments(documents_at_once=2),
        Workload(tokens=16384, new_tokens=512, tiles_at_once=2),
        [],
    )
    check_room(LED_BASE, args, sizes, said.append, Memory(total=32 * 10**9, free=16 * 10**9))
    assert said == []
    check_room(LED_BASE, args, sizes, said.append, Memory(total=32 * 10**9, free=29 * 10**8))
    (sentence,) = said
    assert "takes about 4.3 GB, and 2.9 GB are free now; lower: --lora-rank 8 (2.7 GB)" in sentence
    with pytest.raises(
        InputError, match=r"does not fit: .* this machine has 2\.0 GB. Lower: --documents-at-once 1 \(3\.3 GB\)"
    ):
        check_room(LED_BASE, args, sizes, said.append, Memory(total=2 * 10**9, free=10**9))
    assert what_to_lower(LED_BASE, TrainingArguments(lora_rank=8), Workload(tokens=2), 1) == [
        "--max-source-length 1 --truncate (0.8 GB)"
    ]


def test_other_processes_are_counted():
    """Each has weights, gradients and activations of its own, and two slots of gradients; the moments are the first one's alone."""
    one, two, three = (room(CONFIG, TrainingArguments(processes=count), LONG) for count in (1, 2, 3))
    assert three.peak - two.peak == one.peak - one.parts["moments of adamw"] + 2 * one.parts["gradients"]
    assert two.peak - one.peak == two.parts["other processes"] == three.peak - two.peak + 2 * one.parts["gradients"]
    assert any(
        advice.startswith("--processes 1")
        for advice in what_to_lower(CONFIG, TrainingArguments(processes=3), LONG, one.peak)
    )


def test_memory_of_this_machine():
    memory = machine_memory()
    assert memory is None or 10**7 < memory.free <= memory.total < 10**14
