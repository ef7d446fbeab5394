"""`led-ref estimate`: the plan in numbers that a person reads, and times that follow from the machine's speeds."""

import json

import numpy as np
import pytest

from led_ref.config import LEDConfig
from led_ref.costs import memory as memory_plan
from led_ref.costs import operations as planning
from led_ref.costs.operations import Workload
from led_ref.tools import estimate
from led_ref.tools.random_weights import write_random_checkpoint
from led_ref.training.room import Memory
from led_ref.weights.keys import parameter_count

# A machine on which everything takes a second for a round number of things.
SPEEDS = {
    "operations of a product": 1e6,
    "scores of a tile": 1e4,
    "GELU": 1e5,
    "LayerNorm": 1e5,
    "operations of a step": 1e6,
    "scores of a step": 1e5,
    "scores of a search": 1e5,
    "bytes from memory": 1e6,
    "steps of Python alone": 1e3,
}
SMALL = LEDConfig(
    vocab_size=101,
    d_model=6,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=3,
    decoder_attention_heads=2,
    encoder_ffn_dim=5,
    decoder_ffn_dim=7,
    attention_window=4,
    max_encoder_position_embeddings=600,
    max_decoder_position_embeddings=30,
)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(estimate, "measure_speeds", lambda *_: SPEEDS)


def test_memory_is_plan_and_process(command, quick, tmp_path):
    SMALL.save(tmp_path)
    code, out, err = command("estimate", tmp_path, "--tokens", 599, "--beams", 3, "--new-tokens", 9, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    memory = found["memory"]
    load = Workload(tokens=599, beams=3, new_tokens=9)
    assert memory["cross-attention keys and values"] == 2 * 1 * 599 * 6 * 4
    assert memory["weights"] == 4 * (parameter_count(SMALL) + SMALL.vocab_size)
    assert memory["peak"] == max(memory["most while reading"], memory["most while writing"])
    assert 10e6 < memory["Python, NumPy and BLAS"] < 4e9
    assert memory["decoder cache"] == memory_plan.plan(SMALL, load).parts["decoder cache"]
    assert found["speeds"] == SPEEDS
    assert found["assumes"]


def test_folded_has_no_keys_and_values(command, quick, tmp_path):
    SMALL.save(tmp_path)
    arguments = ("estimate", tmp_path / "config.json", "--tokens", 500, "--new-tokens", 20, "--json")
    kept = json.loads(command(*arguments)[1])
    folded = json.loads(command(*arguments, "--cross-attention", "folded")[1])
    assert folded["memory"]["cross-attention keys and values"] == 0
    own = [
        found["memory"]["most while writing"] - found["memory"]["Python, NumPy and BLAS"] for found in (folded, kept)
    ]
    assert own[0] < own[1]
    assert folded["seconds"]["keys and values"] == 0
    assert folded["seconds"]["a step"] > kept["seconds"]["a step"]


def test_time_is_work_over_speed():
    load = Workload(tokens=50, beams=2, new_tokens=8)
    found = estimate.seconds(SMALL, load, SPEEDS)
    twice = estimate.seconds(SMALL, load, {name: 2 * speed for name, speed in SPEEDS.items()})
    assert twice == pytest.approx({name: value / 2 for name, value in found.items()})
    scores = 3 * sum(queries * (keys + 1) for queries, keys in planning.tiles(50, 2, 128))
    products = sum(work.operations for work in planning.encode_work(SMALL, load) if work.name != "window")
    by_hand = 2 * scores / 1e4 + products / 1e6 + 2 * 50 * 5 / 1e5 + 5 * 50 * 6 / 1e5
    assert found["encoder"] == pytest.approx(by_hand)
    assert found["together"] == pytest.approx(found["encoder"] + found["keys and values"] + 8 * found["a step"])


def test_training_step_is_estimated(command, quick, tmp_path, monkeypatch):
    """AdamW remembers two numbers for each weight; what does not fit says what to lower."""
    SMALL.save(tmp_path)
    arguments = ("estimate", tmp_path, "--tokens", 599, "--new-tokens", 9, "--training")
    found = {name: json.loads(command(*arguments, name, "--json")[1]) for name in ("adamw", "adafactor")}
    adamw, adafactor = (found[name]["memory"] for name in ("adamw", "adafactor"))
    assert adamw["moments of adamw"] == 2 * adamw["gradients"] == 2 * 4 * parameter_count(SMALL)
    assert adafactor["moments of adafactor"] < adamw["gradients"]
    times = found["adamw"]["seconds"]
    assert times["a step"] == pytest.approx(times["loss and gradients"] + times["optimizer"], abs=0.01)
    twice = json.loads(command(*arguments, "adamw", "--json", "--batch", 2)[1])["seconds"]
    assert twice["loss and gradients"] == pytest.approx(2 * times["loss and gradients"], rel=1e-3)
    assert "lower" not in found["adamw"]
    monkeypatch.setattr(estimate, "machine_memory", lambda: Memory(8 * 10**9, 1_000_000))
    code, out, _ = command(*arguments, "adamw")
    assert (code, "1.0 MB that are free; each of these lowers it:\n  --optimizer adafactor (" in out) == (0, True)
    lora = json.loads(command(*arguments, "adamw", "--lora-rank", 1, "--keep-activations", "--json")[1])
    assert lora["memory"]["gradients"] < adamw["gradients"]
    assert lora["seconds"]["loss and gradients"] == pytest.approx(0.75 * times["loss and gradients"], rel=1e-3)
    assert [option.partition(" (")[0] for option in lora["lower"]] == [
        "no --keep-activations", "--max-source-length 299 --truncate",
    ]  # fmt: skip
    assert "add --training" in command("estimate", tmp_path, "--tokens", 9, "--lora-rank", 8)[2]
    code, _, err = command(*arguments, "adamw", "--beams", 2)
    assert (code, "without --beams" in err) == (2, True)


def test_quantized_folder_is_seen(command, quick, tmp_path):
    write_random_checkpoint(tmp_path / "floats", SMALL)
    assert command("convert", tmp_path / "floats", tmp_path / "int8", "--quantize", "int8")[0] == 0
    sizes = ("--tokens", 599, "--new-tokens", 9, "--json")

    def weights(folder, *more):
        return json.loads(command("estimate", tmp_path / folder, *sizes, *more)[1])["memory"]["weights"]

    assert weights("int8") == weights("floats", "--weights", "int8") < weights("floats")
    code, _, err = command("estimate", tmp_path / "int8", *sizes, "--weights", "nf4")
    assert (code, "are int8 already" in err) == (1, True)


def test_a_step_of_many_rows_searches_and_attends():
    """What grows with the rows counts as often as they are, even where their weights are read once."""
    load = Workload(tokens=50, batch=8, beams=4, new_tokens=8)
    fast = dict.fromkeys(SPEEDS, 1e30)
    for name, expected in (
        ("scores of a search", 32 * 101 / 1e5), ("scores of a step", 32 * 2 * 50 * 1 / 1e5),
        ("operations of a step", 2 * 32 * (6 * 36 + 2 * 6 * 7 + 6 * 101) / 1e6),
        ("GELU", 32 * 7 / 1e5), ("LayerNorm", 32 * (3 + 1) * 6 / 1e5), ("steps of Python alone", 1e-3),
    ):  # fmt: skip
        assert estimate.step_seconds(SMALL, load, {**fast, name: SPEEDS[name]}) == pytest.approx(expected)


def test_a_step_as_estimated_is_the_one_that_is_taken():
    """Not a time: which of the model's and the search's functions run, of how many rows, documents and layers."""
    backend, seen = estimate.NumpyBackend(2), []
    attend = backend.attend
    backend.attend = lambda *arrays: (seen.append(arrays[0].shape), attend(*arrays))[1]
    load = Workload(tokens=50, batch=3, beams=4, new_tokens=8)
    assert estimate.python_seconds(SMALL, load, backend) > 0
    assert seen == [(3, 2, 4, 1)] * (2 * SMALL.decoder_layers * 6)
    many = Workload(tokens=50, batch=64, beams=1, new_tokens=8)
    seen.clear()
    assert estimate.python_seconds(SMALL, many, backend) > 0
    assert {shape[0] for shape in seen} == {32}
    scores, search = estimate._search_of(SMALL, load, np.random.default_rng(0))
    search()
    assert scores == 12 * 101


def test_tries_go_in_turns(monkeypatch):
    """A burst of other work slows one try of each, and no median."""
    clock = iter([9.0, 9.0, 1.0, 2.0, 9.0, 9.0, 1.2, 2.2])
    order = []
    monkeypatch.setattr(estimate, "seconds_of", lambda work: (work(), next(clock))[1])
    found = estimate.in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, at_least=40)
    assert order == list("ab" * 5)
    assert found == {"a": (1.2 + 9) / 2, "b": (2.2 + 9) / 2}


def test_threads_are_those_of_the_run(command, monkeypatch, tmp_path):
    SMALL.save(tmp_path)
    seen = []
    monkeypatch.setattr(estimate, "measure_speeds", lambda config, load: (seen.append(load), SPEEDS)[1])
    arguments = ("estimate", tmp_path, "--tokens", 599, "--new-tokens", 9, "--threads")
    assert command(*arguments, 3)[0] == command(*arguments, 1, "--training", "adamw")[0] == 0
    assert [(load.blocks_at_once, load.tiles_at_once) for load in seen] == [(3, 3), (1, 1)]
    code, _, err = command(*arguments, 3, "--backend", "cupy")
    assert (code, "--threads 3 is for a CPU" in err) == (2, True)


def test_hours_of_many_documents(command, quick, tmp_path):
    SMALL.save(tmp_path)
    run = ("estimate", tmp_path, "--tokens", 599, "--batch", 4, "--new-tokens", 9, "--threads", 3, "--documents", 1001)
    found = json.loads(command(*run, "--json")[1])
    hours = 251 * found["seconds"]["together"] / 3600  # 250 batches of 4, and one more
    assert found["hours"] == pytest.approx({"this machine": hours, "one processor": 3 * hours}, abs=0.06)
    assert estimate.ASSUMES_MANY in found["assumes"]
    assert "of 1,001 documents\n" in command(*run)[1]
    for wrong in (("--training", "adamw"), ("--backend", "cupy"), ("--documents", 0)):
        assert command(*run, *wrong)[0] == 2


def test_a_gpu_gets_memory_and_no_time(command, monkeypatch):
    monkeypatch.setattr(estimate, "measure_speeds", lambda *_: pytest.fail("the CPU was measured"))
    code, out, _ = command(
        "estimate", "led-large", "--tokens", 16384, "--backend", "cupy", "--dtype", "float16", "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert "seconds" not in found
    assert found["memory"]["cross-attention keys and values"] == 2 * 12 * 16384 * 1024 * 2
    assert "not estimated for a GPU" in command("estimate", "led-base", "--tokens", 99, "--backend", "cupy")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("led-base", "--tokens", 16385), "16385 tokens are too many: the model has 16384 positions"),
        (("led-base", "--tokens", 9, "--beams", 0), "beams is 0; give at least 1"),
        (
            ("led-base", "--tokens", 9, "--dtype", "float16"),
            "dtype is 'float16'; the CPU computes in float32 or float64",
        ),
        (("./nowhere", "--tokens", 9), "There is no file nowhere/config.json"),
    ],
)
def test_invalid_arguments_are_refused(command, arguments, message):
    code, out, err = command("estimate", *arguments)
    assert (code, out) == (1, "")
    assert message in err


def test_the_speeds_of_this_machine_are_measured():
    """Not how fast it is: that each is a speed, and taken at the sizes that were asked for."""
    speeds = estimate.measure_speeds(SMALL, Workload(tokens=599))
    assert set(speeds) == set(SPEEDS)
    assert all(1 < speed < 1e15 for speed in speeds.values())
