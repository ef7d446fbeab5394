"""What a training is for: pages learned by heart, though dropout is on; and a rule, which then holds for other pages."""

import json

import pytest

import led_ref
from led_ref.training.batches import global_mask
from led_ref.training.data import read_dataset
from led_ref.training.settings import DataArguments, RunArguments
from led_ref.training.trainer import run_training
from led_ref.training.validation import validate

WORDS = [
    "cat", "mat", "dog", "home", "green", "ink", "house", "name", "file", "list", "time", "user", "text", "line", "tree", "sun",
]  # fmt: skip


@pytest.fixture
def read(bundled, tmp_path):
    def read_lines(name, lines, model):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)))
        return read_dataset([path], DataArguments(), bundled.tokenizer, model)

    return read_lines


def page(i):
    """Every pair of words has a page; what is to be written is in it, in other words around it."""
    a, b = WORDS[i % 16], WORDS[(i * 5 + i // 16 + 1) % 16]
    return {"text": f"The {a} of the {b} is here", "summary": f"{b}: {a}"}


def test_eight_pages_by_heart(bundled, read, tmp_path):
    """The summaries have nothing to do with the pages. Afterwards greedy search writes each page's own."""
    pages = [{"text": page(i)["text"], "summary": page(3 * i + 50)["summary"]} for i in range(8)]
    run = RunArguments.of(
        max_steps=40, learning_rate=2e-3, lr_scheduler_type="constant", dropout=0.1, attention_dropout=0.1,
        documents_at_once=8, keep_activations=True,
    )  # fmt: skip
    run_training(bundled.model, bundled.tokenizer, read("train", pages, bundled.model), tmp_path / "out", run)
    written = led_ref.load(tmp_path / "out")
    assert [written.generate(one["text"], max_new_tokens=8) for one in pages] == [one["summary"] for one in pages]
    assert len({one["summary"] for one in pages}) == 8


def test_other_pages_of_the_same_kind(bundled, read, tmp_path):
    """The bundled model, fine-tuned on 16 pages: its loss on eight others, whose pairs it has not read, falls to under half."""
    model = bundled.model
    train, held_out = (
        read(name, [*map(page, numbers)], model) for name, numbers in (("a", range(16)), ("b", range(30, 38)))
    )
    assert not {example.ids_T.tobytes() for example in train.examples} & {
        example.ids_T.tobytes() for example in held_out.examples
    }
    before = validate(
        model, held_out, bundled.tokenizer, global_mask("first", bundled.tokenizer), "loss", pad_token_id=1
    )["eval_loss"]
    run = RunArguments.of(num_train_epochs=3, learning_rate=1e-3, documents_at_once=8)
    found = run_training(model, bundled.tokenizer, train, tmp_path / "out", run, held_out=held_out)
    assert found.best < before / 2
