"""A small LED with drawn weights for the tests of this folder: every size a prime of its own, or a product of them.

D = 30 = 3 heads of 10 in the encoder and 5 heads of 6 in the decoder, so that mixed-up heads cannot pass.
"""

import dataclasses
import math

import numpy as np

from led_ref.config import LEDConfig

CONFIG = LEDConfig(
    vocab_size=37,
    d_model=30,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=3,
    decoder_attention_heads=5,
    encoder_ffn_dim=11,
    decoder_ffn_dim=13,
    attention_window=(4, 10),
    max_encoder_position_embeddings=311,
    max_decoder_position_embeddings=17,
)


def small_config(**changes: object) -> LEDConfig:
    return dataclasses.replace(CONFIG, **changes)


def shapes(config: LEDConfig) -> dict[str, tuple[int, ...]]:
    """Every key of a file of transformers 5 and its shape (docs/semantics.md, Checkpoints)."""
    d, found = config.d_model, {}

    def linear(name: str, out: int, into: int) -> None:
        found[f"{name}.weight"] = (out, into)
        found[f"{name}.bias"] = (out,)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (d,)

    found["led.shared.weight"] = (config.vocab_size, d)
    found["final_logits_bias"] = (1, config.vocab_size)
    for side, layers, positions, ffn in (
        ("encoder", config.encoder_layers, config.max_encoder_position_embeddings, config.encoder_ffn_dim),
        ("decoder", config.decoder_layers, config.max_decoder_position_embeddings, config.decoder_ffn_dim),
    ):
        found[f"led.{side}.embed_positions.weight"] = (positions, d)
        norm(f"led.{side}.layernorm_embedding")
        for name in (f"led.{side}.layers.{i}" for i in range(layers)):
            if side == "encoder":
                for part in ("query", "key", "value", "query_global", "key_global", "value_global"):
                    linear(f"{name}.self_attn.longformer_self_attn.{part}", d, d)
                linear(f"{name}.self_attn.output", d, d)
            for part in () if side == "encoder" else ("self_attn", "encoder_attn"):
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    linear(f"{name}.{part}.{projection}", d, d)
            if side == "decoder":
                norm(f"{name}.encoder_attn_layer_norm")
            norm(f"{name}.self_attn_layer_norm")
            linear(f"{name}.fc1", ffn, d)
            linear(f"{name}.fc2", d, ffn)
            norm(f"{name}.final_layer_norm")
    return found


def draw_weights(config: LEDConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights with which attention is neither flat nor a single peak, and every bias counts."""
    rng, weights = np.random.default_rng(seed), {}
    for key, shape in shapes(config).items():
        drawn = rng.normal(size=shape)
        if "norm" in key and key.endswith("weight"):
            weights[key] = 1 + 0.2 * drawn
        elif len(shape) == 1 or shape[0] == 1:
            weights[key] = 0.3 * drawn
        else:
            weights[key] = drawn * 1.3 / math.sqrt(shape[1])
    return weights
