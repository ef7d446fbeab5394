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
    model/masks.py               who may look at whom: begin here
    model/sliding_window.py      attention through a window: the heart of LED
    model/global_attention.py    the few tokens that see everything; folding.py: how that saves projecting all tokens
    model/encoder.py             a layer, and the stack of them
    model/cache.py, decoder.py   what is written so far, looking back and across
    model/heads.py               logits and loss
    model/tap.py, outputs.py     how one listens in, and what is returned; pictures.py: made only to be looked at
    generation/                  greedy search, beams and sampling over a step function; knows no model
    reading.py, writing.py       the encoder behind its checks; where model and search meet
    led.py, pretrained.py        the classes with transformers' names; inputs.py checks what they are given
    led_heads.py, labels.py      two more classes: one points at an answer, one gives labels
    weights/                     checkpoint files: keys.py (one table), safetensors, pytorch_model.bin, the Hub
    api.py, documents.py, cli.py text in, text out; commands/ does what cli.py reads
    answering.py, classifying.py the same for answers and labels; spans.py: the best piece of a text
    oracle/                      dense.py: LED by definition, the judge of all of the above; trace, diff, vectors

The model, the readable tokenizer, the reader of safetensors and the search need NumPy and nothing else. `import led_ref` itself
imports nothing: each name below is fetched from its file when it is first used, so that `led-ref --help` answers at once.
The machines it runs on are in a package of their own, led_backends.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from led_ref.api import LED, bundled_model, generate, load
    from led_ref.classes.generate_outputs import GenerateBeamEncoderDecoderOutput, GenerateEncoderDecoderOutput
    from led_ref.classes.heads import LEDForQuestionAnswering, LEDForSequenceClassification
    from led_ref.classes.led import LEDForConditionalGeneration, LEDModel
    from led_ref.classes.outputs import (
        LEDEncoderBaseModelOutput,
        LEDSeq2SeqLMOutput,
        LEDSeq2SeqModelOutput,
        LEDSeq2SeqQuestionAnsweringModelOutput,
        LEDSeq2SeqSequenceClassifierOutput,
    )
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
    from led_ref.generation.settings.settings import GenerationSettings
    from led_ref.generation.step import SearchResult
    from led_ref.oracle.traces.trace import trace
    from led_ref.pipelines.classification import Classifier, Label, classify
    from led_ref.pipelines.question_answering import Answer, QuestionAnswerer, answer
    from led_ref.tokenizer import LEDTokenizer

__version__ = "0.1.0"

_WHERE = {
    "pipelines.question_answering": ("Answer", "QuestionAnswerer", "answer"),
    "api": ("LED", "bundled_model", "generate", "load"),
    "pipelines.classification": ("Classifier", "Label", "classify"),
    "config": ("LEDConfig",),
    "errors": (
        "BackendError",
        "CheckpointError",
        "ConfigError",
        "InputError",
        "LEDError",
        "MissingFileError",
        "SettingsError",
    ),
    "generation.settings.settings": ("GenerationSettings",),
    "generation.step": ("SearchResult",),
    "classes.generate_outputs": ("GenerateBeamEncoderDecoderOutput", "GenerateEncoderDecoderOutput"),
    "classes.led": ("LEDForConditionalGeneration", "LEDModel"),
    "classes.heads": ("LEDForQuestionAnswering", "LEDForSequenceClassification"),
    "classes.outputs": (
        "LEDEncoderBaseModelOutput",
        "LEDSeq2SeqLMOutput",
        "LEDSeq2SeqModelOutput",
        "LEDSeq2SeqQuestionAnsweringModelOutput",
        "LEDSeq2SeqSequenceClassifierOutput",
    ),
    "oracle.traces.trace": ("trace",),
    "tokenizer": ("LEDTokenizer",),
}

__all__ = [
    "LED",
    "Answer",
    "BackendError",
    "CheckpointError",
    "Classifier",
    "ConfigError",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateEncoderDecoderOutput",
    "GenerationSettings",
    "InputError",
    "LEDConfig",
    "LEDEncoderBaseModelOutput",
    "LEDError",
    "LEDForConditionalGeneration",
    "LEDForQuestionAnswering",
    "LEDForSequenceClassification",
    "LEDModel",
    "LEDSeq2SeqLMOutput",
    "LEDSeq2SeqModelOutput",
    "LEDSeq2SeqQuestionAnsweringModelOutput",
    "LEDSeq2SeqSequenceClassifierOutput",
    "LEDTokenizer",
    "Label",
    "MissingFileError",
    "QuestionAnswerer",
    "SearchResult",
    "SettingsError",
    "answer",
    "bundled_model",
    "classify",
    "generate",
    "load",
    "trace",
]


def __getattr__(name: str) -> Any:
    """Fetch a public name from its file at its first use."""
    for module, names in _WHERE.items():
        if name in names:
            value = getattr(importlib.import_module(f"led_ref.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"led_ref has no {name!r}; its public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
