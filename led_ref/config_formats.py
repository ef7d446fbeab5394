"""Forms of config.json that are not transformers' LEDConfig: allenai's original file, second names of keys, BART's keys."""

from collections.abc import Mapping
from typing import Any

from led_ref.errors import ConfigError, quoted
from led_ref.files.json_file import is_whole

# Keys that only allenai/longformer's own config.json has; there the window is one-sided.
_ALLENAI_KEYS = ("attention_mode", "attention_dilation")

# Keys of BART's config.json, and the values that LED was built with: with another one the layers are put together differently.
BART_RELEASED: dict[str, tuple[Any, ...]] = {
    "scale_embedding": (False,),
    "normalize_before": (False,),
    "normalize_embedding": (True,),
    "add_final_layer_norm": (False,),
    "static_position_embeddings": (False,),
}
# What else allenai's file may say, and the values with which it is the LED that was released.
_ALLENAI_RELEASED: dict[str, tuple[Any, ...]] = {
    "attention_mode": ("sliding_chunks", "tvm"),  # two programs for one attention; "n2" has no window
    "attention_dilation": (1,),
    "autoregressive": (False,),
    **BART_RELEASED,
}

# Second names that transformers gives to some keys, in a file too.
_ALIASES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads",
    "attention_probs_dropout_prob": "attention_dropout",
    "initializer_range": "init_std",
}

# A config.json without these keys has the form of LEDConfig already.
OTHER_KEYS = {*_ALLENAI_KEYS, *_ALIASES}


def in_led_form(values: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a config.json that has some of `OTHER_KEYS`, in the form of LEDConfig. Another model's is unchanged."""
    values = dict(values)
    if any(key in values for key in _ALLENAI_KEYS):
        values = from_allenai(values)
    if values.get("model_type", "led") == "led":
        rename_aliases(values)
    return values


def rename_aliases(values: dict[str, Any]) -> None:
    """Put what stands under a key's second name under its first, in place."""
    for alias, name in _ALIASES.items():
        if alias not in values:
            continue
        given = values.pop(alias)
        if name in values and values[name] != given:
            raise ConfigError(
                f"{name} is {quoted(values[name])} and {alias} is {quoted(given)}, two names of one thing. "
                f"Remove the wrong one (transformers would take {alias})."
            )
        values[name] = given


def from_allenai(values: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with transformers' meaning of attention_window; the keys of the old meaning are dropped."""
    for name, released in _ALLENAI_RELEASED.items():
        found = values.get(name, released[0])
        if any(entry not in released for entry in (found if isinstance(found, list) else [found])):
            raise ConfigError(
                f"{name} is {quoted(found)} in this config.json of allenai's original code; led_ref knows LED as released, "
                f"where it is {' or '.join(map(repr, released))}. Name a released checkpoint."
            )
    given = values.get("attention_window", 256)  # half of LEDConfig's own default
    radii = given if isinstance(given, list) else [given]
    for radius in radii:
        if not is_whole(radius) or radius < 1:
            raise ConfigError(
                f"attention_window holds {quoted(radius)}; in allenai's original code it is the radius R, at least 1."
            )
    values["attention_window"] = [2 * radius for radius in radii] if isinstance(given, list) else 2 * given
    values["model_type"] = "led"
    for name in (*_ALLENAI_KEYS, "autoregressive"):
        values.pop(name, None)
    return values
