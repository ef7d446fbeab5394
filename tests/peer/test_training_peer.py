"""A thousand steps of a training beside torch: the same weights, batches, clipping, decay and schedule, in float64."""

from unittest import mock

import numpy as np
import pytest
from gradient_cases import Case, _their_model
from small_led import draw_weights

from led_ref.config import LEDConfig
from led_ref.training import accumulate_gradients
from led_ref.training.clipping import clip_factor, global_norm
from led_ref.training.optimizers import AdamW, decays, initial_state
from led_ref.training.parameters import trainable_copy, trained_parameters
from led_ref.training.schedules import Schedule

pytestmark = pytest.mark.peer
STEPS, RATE, DECAY = 1000, 3e-3, 0.01
CONFIG = LEDConfig(
    vocab_size=29, d_model=6, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=3,
    encoder_ffn_dim=5, decoder_ffn_dim=7, attention_window=(4,), max_encoder_position_embeddings=12,
    max_decoder_position_embeddings=5, dropout=0.0,
)  # fmt: skip


def batches():
    """A document of another length in each step, with padding; what is to be written follows from what was read."""
    rng = np.random.default_rng(17)
    for _ in range(STEPS):
        ids = rng.integers(3, CONFIG.vocab_size, (1, 11))
        mask, marks = np.ones_like(ids), np.zeros_like(ids)
        mask[0, rng.integers(5, 12) :] = 0
        ids[mask == 0] = CONFIG.pad_token_id
        marks[0, : rng.integers(3)] = 1
        labels = ids[:, 1:5].copy()
        labels[0, rng.integers(4)] = -100
        yield {"input_ids": ids, "attention_mask": mask, "global_attention_mask": marks, "labels": labels}


def our_losses(case):
    model = trainable_copy(case.ours())
    weights, backend = trained_parameters(model), model.backend
    optimizer, schedule = AdamW(weight_decay=DECAY), Schedule("linear", 50, STEPS)
    state = initial_state(optimizer, weights, backend)
    for step, batch in enumerate(batches()):
        gradients = {}

        def add(key, array, gradients=gradients):
            gradients[key] = gradients[key] + array if key in gradients else array

        yield accumulate_gradients(model, batch, add).mean
        scale = clip_factor(global_norm(gradients, backend), 1.0)
        state = optimizer.update(weights, gradients, state, schedule.rate(step, RATE), backend, scale=scale)


def their_losses(case):
    import torch
    import transformers

    model = _their_model(case, None)
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if decays(name) == is_matrix], "weight_decay": decay}
        for is_matrix, decay in ((True, DECAY), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 50, STEPS)
    softmax = torch.nn.functional.softmax
    with mock.patch("torch.nn.functional.softmax", lambda x, dim, dtype=None: softmax(x, dim=dim)):
        for batch in batches():
            loss = model(**{key: torch.from_numpy(array) for key, array in batch.items()}, use_cache=False).loss
            yield loss.item()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def test_thousand_steps_are_torchs(worst):
    """Some 30 s: transformers takes most of them."""
    case = Case("words", CONFIG, draw_weights(CONFIG), {}, 0.0)
    ours, theirs = np.array(list(our_losses(case))), np.array(list(their_losses(case)))
    assert theirs[-50:].mean() < theirs[:50].mean() * 0.9  # something is learned
    worst.compare("1,000 steps of training: losses", ours / theirs, np.ones(STEPS), 1e-9, ours)
