"""Small models of random weights for the tests of training, with the bundled vocabulary."""

import functools

import led_ref
from led_ref.config import LEDConfig
from led_ref.tools.random_weights import random_weights
from led_ref.weights.keys import LM_HEAD, entries, heads_of

SIZES = {
    "vocab_size": 6144,
    "d_model": 6,
    "max_encoder_position_embeddings": 61,
    "max_decoder_position_embeddings": 23,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 5,
    "decoder_ffn_dim": 7,
    "attention_window": 4,
}
CLASSES = {
    "summarization": led_ref.LEDForConditionalGeneration,
    "classification": led_ref.LEDForSequenceClassification,
    "question-answering": led_ref.LEDForQuestionAnswering,
}


def small_model(task="summarization", extra=None, backend=None, **sizes):
    model_class = CLASSES[task]
    config = LEDConfig(**SIZES | sizes, extra=extra or {})
    weights = random_weights(config)
    for entry in entries(config, heads_of(model_class.architecture)):
        if entry.key not in weights and entry.key != LM_HEAD:
            weights[entry.key] = weights["led.shared.weight"][: entry.shape[0]].ravel()[:1].repeat(
                functools.reduce(int.__mul__, entry.shape)
            ).reshape(entry.shape)  # fmt: skip
    heads = heads_of(model_class.architecture)
    weights = {key: array for key, array in weights.items() if not heads or key != "final_logits_bias"}
    return model_class.from_state_dict(config, weights, backend=backend)
