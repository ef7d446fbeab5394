"""led_ref: LED (Longformer-Encoder-Decoder) spelled out in NumPy, to be read, run and trusted.

    import led_ref
    led_ref.generate("a long document ...")                                    # the small model that is bundled
    led = led_ref.load("allenai/led-large-16384-arxiv")                        # Ai2's, from the Hub or a folder
    led.generate(open("paper.txt").read(), num_beams=4, max_new_tokens=256)

The files in reading order:

    oracle/definition/model.py   all of LED in one file, slowly: begin here. model/ is the same, fast
    config.py                    the sizes of an LED, and the letters that name every axis
    tokenizer/                   text -> ids: unicode_split.py, bpe.py, tokenizer.py
    model/params.py              the weights, one field per tensor
    model/ops.py                 linear maps, heads, residual and LayerNorm, feed-forward
    model/masks.py               the encoder's attention mask, as blocks of queries
    model/sliding_window.py      attention through a window: the heart of LED
    model/global_attention.py    global tokens; folding.py: how that saves projecting all tokens
    model/encoder.py             an encoder layer, and the stack of layers
    model/decoder_masks.py       causal mask and padding mask; attention.py: the decoder's attention on arrays
    model/kv_cache.py            the KV cache; decoder.py: a decoder layer with self-attention and cross-attention
    model/heads.py, losses.py    logits and loss
    model/intermediates.py       the recorder of intermediates; attention_maps.py: attention maps
    generation/                  step.py, greedy_search.py, beam_search.py, sampling.py: a search over a step function
    weights/                     checkpoint files: keys.py (one table), load.py
    classes/                     transformers' names: led.py, conditional_generation.py; generate.py: model and search
    classes/input_checks.py      validation; outputs.py: what is returned; pretrained.py: from_pretrained
    pipelines/                   text in: summarization.py, question_answering.py, classification.py
    api.py                       the same as one-call functions
    oracle/traces/               trace.py: record a run; diff.py: compare two
    cli/                         the command line: main.py, and one file a command

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
