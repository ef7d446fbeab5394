"""The other side of `led-ref bench --against transformers`: the same cases, the same weights and ids, as many threads.

It is used as its own documentation uses it: from_pretrained, the encoder, generate with its cache. A step is timed by a
logits processor, which generate calls once a step.
"""

import importlib
from pathlib import Path
from time import perf_counter
from typing import Any

from led_backends.numpy_backend import NumpyBackend
from led_ref.tools.bench import cases as bench_cases
from led_ref.tools.bench.cases import WARM_UP_TOKENS, Case, Prepared, Run, prepare_start, prepare_tokenize, timed
from led_ref.tools.bench.machine import MemoryWatch

# `led-ref --help` has no counterpart.
STARTS = {"import": "import transformers", "class": "from transformers import LEDForConditionalGeneration"}


def has_case(case: Case) -> bool:
    """Whether transformers has a counterpart of the case."""
    return case.work != "start" or case.how in STARTS


def prepare(case: Case, folder: Path) -> Prepared:
    """A case of transformers', ready to run."""
    if case.work == "start":
        return prepare_start(STARTS[case.how])
    # By name: type checks also pass where the extra `peer` is not installed.
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    threads = NumpyBackend().threads
    torch.set_num_threads(threads)
    facts = {"threads": threads}
    if case.work == "tokenize":
        vocabulary = bench_cases.tokenizer_folder(folder)
        text = bench_cases.text()
        return prepare_tokenize(text, lambda: transformers.AutoTokenizer.from_pretrained(vocabulary), **facts)

    def load() -> Any:
        return transformers.LEDForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    if case.work == "load":
        memory = MemoryWatch()
        load()
        return Prepared(timed(load), memory, **facts)
    if case.work == "train":
        folder = bench_cases.train_folder(case, folder)
        run, memory = _train(case, load(), torch)
        return Prepared(run, memory, **facts)
    model = load()
    if case.work == "encode":
        run, memory = _encode(case, model, torch)
    else:
        run, memory = _generate(case, model, torch, transformers)
    return Prepared(run, memory, **facts)


def _encode(case: Case, model: Any, torch: Any) -> tuple[Run, MemoryWatch]:
    encoder = model.get_encoder()

    def encode(ids: Any, global_mask: Any) -> None:
        with torch.inference_mode():
            encoder(ids, attention_mask=torch.ones_like(ids), global_attention_mask=global_mask)

    short = torch.full((1, WARM_UP_TOKENS), 5)
    encode(short, torch.zeros_like(short))
    memory = MemoryWatch()
    given = [torch.from_numpy(array) for array in bench_cases.document(case, model.config.vocab_size)]
    return timed(lambda: encode(*given)), memory


def _train(case: Case, model: Any, torch: Any) -> tuple[Run, MemoryWatch]:
    """Steps of a training: loss, gradients, clipping, AdamW, with gradient checkpointing for all but the small model.

    Dropout is off by its rate: checkpointing works in training mode alone.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    if case.how != "small":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0)

    def step(given: dict[str, Any]) -> None:
        model(**given, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    memory = MemoryWatch()
    batch = {name: torch.from_numpy(x) for name, x in bench_cases.train_batch(case, model.config.vocab_size).items()}
    step({name: x[:, :WARM_UP_TOKENS] for name, x in batch.items()})
    return timed(lambda: step(batch)), memory


def _generate(case: Case, model: Any, torch: Any, transformers: Any) -> tuple[Run, MemoryWatch]:
    """A run of a generate case, or of a decode case, which starts from random states and measures the seconds of a step."""
    ticks: list[float] = []

    def clock(ids: Any, scores: Any) -> Any:
        ticks.append(perf_counter())
        return scores

    def generate(new_tokens: int, **given: Any) -> None:
        model.generate(
            **given,
            num_beams=case.beams,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            logits_processor=[clock],
        )

    short = torch.full((1, WARM_UP_TOKENS), 5)
    generate(2, input_ids=short, attention_mask=torch.ones_like(short))
    memory = MemoryWatch()
    ones = torch.ones((1, case.tokens), dtype=torch.int64)
    if case.work == "generate":
        ids, global_mask = (torch.from_numpy(array) for array in bench_cases.document(case, model.config.vocab_size))
        given = {"input_ids": ids, "attention_mask": ones, "global_attention_mask": global_mask}
        return timed(lambda: generate(case.new_tokens, **given)), memory
    states = torch.from_numpy(bench_cases.encoder_states(case, model.config.d_model))

    def decode() -> dict[str, float]:
        ticks.clear()
        # A new object each time: generate repeats the states for every beam, and keeps the result in the object.
        encoded = transformers.modeling_outputs.BaseModelOutput(last_hidden_state=states)
        generate(case.new_tokens, encoder_outputs=encoded, attention_mask=ones)
        return {"seconds": bench_cases.step_seconds(ticks)}

    return decode, memory
