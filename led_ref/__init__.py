"""led_ref: LED (Longformer-Encoder-Decoder) spelled out in NumPy, to be read, run and trusted.

    import led_ref
    led_ref.generate("a long document ...")                                    # the small model that is bundled
    led = led_ref.load("allenai/led-large-16384-arxiv")                        # Ai2's, from the Hub or a folder
    led.generate(open("paper.txt").read(), num_beams=4, max_new_tokens=256)

The files in reading order:

    oracle/definition/model.py   all of LED in one file, slowly: begin here; model/ is the same, fast
    config.py                    the sizes of an LED, and the letters that name every axis
    tokenizer/                   text -> ids: bpe.py, tokenizer.py
    model/params.py, ops.py      the weights, one field per tensor; linear maps, heads, norms, the feed-forward
    model/masks.py               padding, window and global tokens as one mask per block of queries
    model/sliding_window.py      attention within a window: the heart of LED
    model/global_attention.py    the few tokens that attend to all tokens; folding.py saves projecting all of them
    model/attention.py           the decoder's attention, on arrays
    model/encoder.py             a layer, and the stack of layers
    model/kv_cache.py            keys and values of the generated prefix and of the document
    model/decoder.py             causal self-attention, cross-attention, the stack of layers, logits
    model/heads.py, losses.py    answer spans and labels; losses
    model/intermediates.py       the recorder of a run; hooks.py feeds it; attention_maps.py: attention as one table
    generation/                  greedy search, beam search and sampling over a step function, without a model
    weights/                     checkpoint files: keys.py (one table), safetensors, pytorch_model.bin, the Hub
    costs/                       operations.py, memory.py: multiplications, bytes and memory of a run, before it
    classes/                     the classes with transformers' names: led.py, conditional_generation.py, heads.py
    training/                    gradients.py, optimizers.py, trainer.py: from documents to a fine-tuned checkpoint
    pipelines/                   text in, text out: summarization.py, question_answering.py, classification.py, batching.py
    api.py                       the one-call functions: load, generate, answer, classify
    oracle/                      traces/ (record a run, compare two) and vectors/ (check a port)
    tools/, cli/                 doctor, bench, evaluation, explorer, exercises; the command line, main.py first

The model, the readable tokenizer, the reader of safetensors and the search need NumPy and nothing else. `import led_ref` itself
imports nothing: each name and package below is imported at its first use (lazy.py), so `led-ref --help` answers at once.
The backends, one for each kind of machine, are in a package of their own, led_backends.
"""

from typing import TYPE_CHECKING

from led_ref.lazy import hand_on

if TYPE_CHECKING:
    from led_ref import classes as classes
    from led_ref import cli as cli
    from led_ref import costs as costs
    from led_ref import generation as generation
    from led_ref import model as model
    from led_ref import oracle as oracle
    from led_ref import pipelines as pipelines
    from led_ref import tokenizer as tokenizer
    from led_ref import tools as tools
    from led_ref import training as training
    from led_ref import weights as weights
    from led_ref.api import answer, classify, generate, load, train
    from led_ref.classes.conditional_generation import LEDForConditionalGeneration
    from led_ref.classes.heads import LEDForQuestionAnswering, LEDForSequenceClassification
    from led_ref.classes.led import LEDModel
    from led_ref.classes.outputs import (
        GenerateBeamEncoderDecoderOutput,
        GenerateEncoderDecoderOutput,
        LEDEncoderBaseModelOutput,
        LEDSeq2SeqLMOutput,
        LEDSeq2SeqModelOutput,
        LEDSeq2SeqQuestionAnsweringModelOutput,
        LEDSeq2SeqSequenceClassifierOutput,
    )
    from led_ref.config import LEDConfig
    from led_ref.errors import (
        ArgumentTypeError,
        BackendError,
        CheckpointError,
        ConfigError,
        InputError,
        LEDError,
        MissingFileError,
        SettingsError,
        WriteError,
    )
    from led_ref.generation.settings.settings import GenerationConfig as GenerationConfig
    from led_ref.generation.settings.settings import GenerationConfig as GenerationSettings
    from led_ref.generation.step import SearchResult
    from led_ref.oracle.traces.trace import trace
    from led_ref.pipelines.by_task import pipeline
    from led_ref.pipelines.classification import Classifier, Label
    from led_ref.pipelines.generate_many import generate_many
    from led_ref.pipelines.loading import bundled_model
    from led_ref.pipelines.question_answering import Answer, QuestionAnswerer
    from led_ref.pipelines.summarization import LED
    from led_ref.tokenizer import LEDTokenizer
    from led_ref.tools.evaluation.evaluate import evaluate

__version__ = "0.1.0"

_NAMES_BY_MODULE = {
    "api": ("answer", "classify", "generate", "load", "train"),
    "pipelines.by_task": ("pipeline",),
    "pipelines.classification": ("Classifier", "Label"),
    "pipelines.generate_many": ("generate_many",),
    "pipelines.loading": ("bundled_model",),
    "pipelines.question_answering": ("Answer", "QuestionAnswerer"),
    "pipelines.summarization": ("LED",),
    "config": ("LEDConfig",),
    "errors": (
        "ArgumentTypeError", "BackendError", "CheckpointError", "ConfigError", "InputError", "LEDError", "MissingFileError",
        "SettingsError", "WriteError",
    ),
    "generation.settings.settings": ("GenerationConfig", "GenerationSettings"),
    "generation.step": ("SearchResult",),
    "classes.conditional_generation": ("LEDForConditionalGeneration",),
    "classes.led": ("LEDModel",),
    "classes.heads": ("LEDForQuestionAnswering", "LEDForSequenceClassification"),
    "classes.outputs": (
        "GenerateBeamEncoderDecoderOutput", "GenerateEncoderDecoderOutput", "LEDEncoderBaseModelOutput",
        "LEDSeq2SeqLMOutput", "LEDSeq2SeqModelOutput", "LEDSeq2SeqQuestionAnsweringModelOutput",
        "LEDSeq2SeqSequenceClassifierOutput",
    ),
    "oracle.traces.trace": ("trace",),
    "tokenizer": ("LEDTokenizer",),
    "tools.evaluation.evaluate": ("evaluate",),
}  # fmt: skip

_PACKAGES = (
    "classes", "cli", "costs", "generation", "model", "oracle", "pipelines", "tokenizer", "tools", "training",
    "weights",
)  # fmt: skip

__getattr__, __dir__ = hand_on(__name__, _NAMES_BY_MODULE, _PACKAGES)

__all__ = [
    "LED", "Answer", "ArgumentTypeError", "BackendError", "CheckpointError", "Classifier", "ConfigError",
    "GenerateBeamEncoderDecoderOutput", "GenerateEncoderDecoderOutput", "GenerationSettings", "InputError",
    "LEDConfig", "LEDEncoderBaseModelOutput", "LEDError", "LEDForConditionalGeneration", "LEDForQuestionAnswering",
    "LEDForSequenceClassification", "LEDModel", "LEDSeq2SeqLMOutput", "LEDSeq2SeqModelOutput",
    "LEDSeq2SeqQuestionAnsweringModelOutput", "LEDSeq2SeqSequenceClassifierOutput", "LEDTokenizer", "Label",
    "MissingFileError", "QuestionAnswerer", "SearchResult", "SettingsError", "WriteError", "answer", "bundled_model",
    "classify", "evaluate", "generate", "generate_many", "load", "pipeline", "trace", "train",
]  # fmt: skip
