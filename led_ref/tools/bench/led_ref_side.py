"""led_ref's side of a bench: each case, ready to run."""

from pathlib import Path
from time import perf_counter
from typing import Any

from led_ref.tools.bench import cases as bench_cases
from led_ref.tools.bench.cases import WARM_UP_TOKENS, Case, Prepared, prepare_start, prepare_tokenize, timed
from led_ref.tools.bench.machine import MemoryWatch

# The programs of the start cases. The start of Python itself is part of each.
STARTS = {
    "help": "from led_ref.cli.main import main; main(['--help'])",
    "import": "import led_ref",
    "class": "from led_ref import LEDForConditionalGeneration",
}


def prepare(case: Case, folder: Path) -> Prepared:
    """A case of led_ref's, ready to run."""
    if case.work == "start":
        return prepare_start(STARTS[case.how])
    if case.work == "tokenize":
        from led_ref.tokenizer import LEDTokenizer

        vocabulary = bench_cases.tokenizer_folder(folder)
        return prepare_tokenize(bench_cases.text(), lambda: LEDTokenizer.from_pretrained(vocabulary, engine=case.how))
    from led_ref.classes.conditional_generation import LEDForConditionalGeneration

    if case.work == "load":
        memory = MemoryWatch()
        LEDForConditionalGeneration.from_pretrained(folder)  # its files are in the system's cache after this
        return Prepared(timed(lambda: LEDForConditionalGeneration.from_pretrained(folder)), memory)

    if case.work == "train":
        return _train(case, bench_cases.train_folder(case, folder))
    model, short = LEDForConditionalGeneration.from_pretrained(folder), [[5] * WARM_UP_TOKENS]
    if case.work == "encode":
        model.encoder(short)
        memory = MemoryWatch()
        ids_1T, global_1T = bench_cases.document(case, model.config.vocab_size)
        return Prepared(timed(lambda: model.encoder(ids_1T, global_attention_mask=global_1T)), memory)
    model.generate(short, num_beams=case.beams, max_new_tokens=2, min_new_tokens=2)
    memory = MemoryWatch()
    settings: dict[str, Any] = {
        "num_beams": case.beams,
        "max_new_tokens": case.new_tokens,
        "min_new_tokens": case.new_tokens,
        "cross_attention": "folded" if case.how == "folded" else "cached",
    }
    if case.work == "generate":
        ids_1T, global_1T = bench_cases.document(case, model.config.vocab_size)
        return Prepared(timed(lambda: model.generate(ids_1T, global_attention_mask=global_1T, **settings)), memory)
    from led_ref.classes.outputs import LEDEncoderBaseModelOutput

    encoded = LEDEncoderBaseModelOutput(bench_cases.encoder_states(case, model.config.d_model))

    def decode() -> dict[str, float]:
        ticks: list[float] = []
        model.generate(encoder_outputs=encoded, progress=lambda *_: ticks.append(perf_counter()), **settings)
        return {"seconds": bench_cases.step_seconds(ticks)}

    return Prepared(decode, memory)


def _train(case: Case, folder: Path) -> Prepared:
    """Steps of a training: loss, gradients, clipping, AdamW. Dropout is off, as on the other side.

    Layers are computed again on both sides (gradient checkpointing), and those of the small model kept on both.
    """
    from led_ref.classes.conditional_generation import LEDForConditionalGeneration
    from led_ref.training.clipping import clip_factor, global_norm
    from led_ref.training.gradients import GradientOptions, accumulate_gradients
    from led_ref.training.optimizers import AdamW, initial_state
    from led_ref.training.parameters import trainable_copy, trained_parameters

    model = trainable_copy(LEDForConditionalGeneration.from_pretrained(folder))
    weights = trained_parameters(model)
    optimizer = AdamW()
    state = initial_state(optimizer, weights, model.backend)
    memory = MemoryWatch()
    batch = bench_cases.train_batch(case, model.config.vocab_size)
    short = {name: array[:, :WARM_UP_TOKENS] for name, array in batch.items()}

    def step(given: dict[str, Any]) -> None:
        nonlocal state
        gradients: dict[str, Any] = {}

        def add(key: str, gradient: Any) -> None:
            if key in gradients:
                gradients[key] += gradient
            else:
                gradients[key] = gradient

        accumulate_gradients(model, given, add, GradientOptions(keep_activations=case.how == "small"))
        scale = clip_factor(global_norm(gradients, model.backend), 1.0)
        state = optimizer.update(weights, gradients, state, 1e-5, model.backend, scale=scale)

    step(short)
    return Prepared(timed(lambda: step(batch)), memory)
