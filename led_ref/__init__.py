"""led_ref: LED (Longformer-Encoder-Decoder) spelled out in NumPy, to be read, run and trusted.

    import led_ref
    led_ref.generate("a long document ...")                                    # the small model that is bundled
    led = led_ref.load("allenai/led-large-16384-arxiv")                        # Ai2's, from the Hub or a folder
    led.generate(open("paper.txt").read(), num_beams=4, max_new_tokens=256)

The files in reading order:

    config.py                    the sizes of an LED, and the letters that name every axis
    tokenizer/                   text -> ids: unicode_split.py, bpe.py, tokenizer.py
    model/params.py              the weights, one field per tensor
    model/ops.py                 linear maps, heads, norms, the feed-forward
    model/masks.py               who may look at whom
    model/sliding_window.py      attention through a window: the heart of LED
    model/global_attention.py    the few tokens that see everything
    model/encoder.py             a layer, and the stack of them
    model/cache.py, decoder.py   what is written so far, looking back and across
    model/heads.py               logits and loss
    generation/                  greedy and beam search over a step function; knows no model
    writing.py                   where model and search meet
    led.py, pretrained.py        the classes with transformers' names; inputs.py checks what they are given
    weights/                     checkpoint files: keys.py (one table), safetensors, pytorch_model.bin, the Hub
    api.py, documents.py, cli.py text in, text out
    oracle/dense.py              LED by definition in float64, which judges all of the above

`import led_ref` imports NumPy and nothing else. The machines it runs on are in a package of their own, led_backends.
"""

from led_ref.api import LED, bundled_model, generate, load
from led_ref.config import LEDConfig
from led_ref.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    InputError,
    LEDError,
    MissingFileError,
    SettingsError,
)
from led_ref.generation.step import SearchResult
from led_ref.led import LEDForConditionalGeneration, LEDModel
from led_ref.model.outputs import LEDEncoderBaseModelOutput, LEDSeq2SeqLMOutput, LEDSeq2SeqModelOutput
from led_ref.tokenizer.tokenizer import LEDTokenizer

__version__ = "0.1.0"

__all__ = [
    "LED",
    "BackendError",
    "CheckpointError",
    "ConfigError",
    "InputError",
    "LEDConfig",
    "LEDEncoderBaseModelOutput",
    "LEDError",
    "LEDForConditionalGeneration",
    "LEDModel",
    "LEDSeq2SeqLMOutput",
    "LEDSeq2SeqModelOutput",
    "LEDTokenizer",
    "MissingFileError",
    "SearchResult",
    "SettingsError",
    "bundled_model",
    "generate",
    "load",
]
