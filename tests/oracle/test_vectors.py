"""The conformance vectors: what they hold, that led_ref passes them, and that nobody else passes by mistake.

Three checkers judge a folder of results: led_ref's own, tests/vectors/check.mjs and check.c. They must agree.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from make import search as vectors_search
from make import write as vectors_write
from make.draw import DRAWN_AGAIN, numbers
from make.write import STEP, rounded, safetensors_bytes

from led_ref.cli.main import build_parser
from led_ref.errors import CheckpointError
from led_ref.generation.settings.settings import SAMPLING_ONLY, GenerationSettings
from led_ref.oracle.definition import search as dense_search
from led_ref.oracle.vectors.ask_led_ref import BUNDLED, LedRef
from led_ref.oracle.vectors.ask_program import read_answer, write_answers, write_questions
from led_ref.oracle.vectors.format import LEVELS, Answer, read_suite
from led_ref.oracle.vectors.judge import FAILED, SKIPPED, judge, verdicts
from led_ref.weights.safetensors_file import read_safetensors

HERE = Path(__file__).parent
FOLDER = HERE.parent / "vectors" / "v1"
SCHEMA = HERE.parent / "vectors" / "schema.json"


@pytest.fixture(scope="session")
def suite():
    return read_suite(FOLDER)


# ---- what they hold ------------------------------------------------------------------------------------------------


def test_index_matches_schema(suite):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert list(violations(suite.index, schema, schema)) == []
    broken = {**suite.index, "cases": [{**suite.index["cases"][0], "result": "perhaps"}], "extra": 1}
    assert [where for where, _ in violations(broken, schema, schema)] == ["extra", "cases[0].result"]


def violations(value, schema, root, where=""):
    """(place, what is wrong): the part of JSON Schema that schema.json uses."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "const" in schema and value != schema["const"]:
        yield where, f"{value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield where, f"{value!r} is none of {schema['enum']}"
    kinds = {dict: "object", list: "array", str: "string", int: "integer", bool: "boolean", float: "number"}
    kind, allowed = kinds.get(type(value), "null"), schema.get("type", [])
    allowed = [allowed] if isinstance(allowed, str) else allowed
    if allowed and kind not in allowed and not (kind == "integer" and "number" in allowed):
        yield where, f"a {kind}, not {allowed}"
        return
    if kind == "string" and not re.search(schema.get("pattern", ""), value):
        yield where, f"{value!r} does not match"
    if kind == "integer" and value < schema.get("minimum", value):
        yield where, f"{value} is too small"
    if kind == "array":
        for i, entry in enumerate(value):
            yield from violations(entry, schema.get("items", {}), root, f"{where}[{i}]")
    if kind == "object":
        yield from ((where, f"there is no {name}") for name in schema.get("required", ()) if name not in value)
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, entry in sorted(value.items(), key=lambda item: item[0] in known):
            place = f"{where}.{name}" if where else name
            if name in known:
                yield from violations(entry, known[name], root, place)
            elif rest is False:
                yield place, "is not known"
            elif isinstance(rest, dict):
                yield from violations(entry, rest, root, place)


def test_vectors_cover_levels_results_and_flags(suite):
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5_000_000
    assert {path.name for path in FOLDER.iterdir()} == {"index.json", *suite.index["files"]}
    assert {case.level for case in suite.cases} == set(LEVELS)
    assert {case.result for case in suite.cases} == {"valid", "invalid", "acceptable"}
    assert {flag for case in suite.cases for flag in case.flags} == set(suite.index["flags"])
    assert set(DRAWN_AGAIN) <= {case.id for case in suite.cases}
    for case in suite.cases:
        assert (case.result == "invalid") == (not case.answers), case.id
        assert len(case.answers) < 2 or case.result == "acceptable", case.id


def test_format_page_operations_and_counts(suite):
    page = (SCHEMA.parent / "README.md").read_text(encoding="utf-8")
    table = page.partition("## Operations")[2].partition("## Testing")[0]
    named = {name for row in re.findall(r"^\| ([a-z_, ]+) \|", table, re.MULTILINE) for name in row.split(", ")}
    assert named - {"operation"} == {case.operation for case in suite.cases}
    size = sum(path.stat().st_size for path in FOLDER.iterdir()) / 1e6
    assert f"{len(suite.cases)} cases in {size:.1f} MB" in page
    for line in re.findall(r"^(led-ref .*)$", page, re.MULTILINE):
        assert build_parser().parse_args(shlex.split(line, comments=True)[1:]).run


def test_inputs_are_exact_in_every_type(suite):
    """Eight significant bits: float16 and bfloat16 hold them. bfloat16 is the upper half of a float32."""
    arrays = [array for case in suite.cases for array in case.inputs.values() if array.dtype == np.float32]
    arrays += [w for model in ("tiny", "untied", "writer", "learner") for w in suite.weights(model).values()]
    for array in arrays:
        assert not (np.ascontiguousarray(array).view(np.uint32) & 0xFFFF).any()
        assert np.array_equal(array.astype(np.float16), array)


def test_rewritten_vectors_are_byte_equal(tmp_path):
    """What `make check` does by the command line. The definition, the numbers drawn and the rounding all stand still."""
    vectors_write.write_suite(tmp_path, BUNDLED)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in FOLDER.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name


def test_rounding_tie_is_refused():
    near = np.array([1.0, (7 + 0.5 + 1e-5) * STEP])
    with pytest.raises(ValueError, match=r"L2-x: .*Draw it again"):
        rounded("L2-x", near)
    assert rounded("L2-x", np.array([(7 + 0.49) * STEP]))[0] == 7 * STEP
    assert not np.array_equal(numbers("a", (3,), spread=1.0), numbers("b", (3,), spread=1.0))


def test_every_search_setting_matters_in_a_case(suite):
    """Without it the same search comes to something else; otherwise the case would not test it."""
    neutral = {"num_beams", "num_return_sequences", "eos_token_id", "pad_token_id", "max_length"}
    # "never" is False where the length penalty is not above 0; a prompt is there, so that no id is the first.
    idle = {("L5-search-beams-short-never", "early_stopping"), ("L5-search-beams-prompt", "forced_bos_token_id")}
    counted = set()
    for case in suite.cases:
        if case.operation != "search" or case.result != "valid" or "enumerable" in case.flags:
            continue
        settings = case.arguments["settings"]
        for name in settings.keys() - neutral:
            rest = {other: value for other, value in settings.items() if other != name}
            try:
                found = dense_search.search(
                    vectors_search._logits_of(case.inputs["table"]), case.inputs["prompt_ids"].tolist(), rest,
                    case.inputs["source_ids"].tolist(),
                ).sequences  # fmt: skip
            except AssertionError:  # the definition does not go on where a text is left unfinished
                found = None
            assert (found == case.answers[0]["sequences"].tolist()) == ((case.id, name) in idle), (case.id, name)
            counted.add(name)
    with_a_model = {"use_cache", "cache_implementation", "decoder_start_token_id"}
    not_for_vectors = {"output_scores", "return_dict_in_generate", "bos_token_id"}  # nothing that a case could show
    not_for_vectors |= {
        "output_logits",
        "output_attentions",
        "output_hidden_states",
        "max_time",
        "prompt_lookup_num_tokens",
    }
    # Version 1 of the vectors was drawn before these; they are held to transformers (tests/peer, tests/generation).
    after_version_1 = {
        "num_beam_groups", "diversity_penalty", "do_sample", "seed", *SAMPLING_ONLY, "sequence_bias", "bad_words_ids",
        "suppress_tokens", "begin_suppress_tokens", "exponential_decay_length_penalty", "remove_invalid_values",
        "renormalize_logits", "stop_strings", "bad_words",
    }  # fmt: skip
    every = counted | neutral | with_a_model | not_for_vectors | after_version_1
    assert set(GenerationSettings().to_dict()) == every


# ---- led_ref passes them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_led_ref_passes(suite, dtype):
    found = list(verdicts(suite.cases, LedRef(suite, dtype).answer, dtype))
    assert [(v.case.id, v.reason) for v in found if v.status == FAILED] == []
    assert [v.case.id for v in found if v.status == SKIPPED] == ["L7-led-base"]
    # The tolerances are neither nearly used up (another order of summing would fail) nor so wide that all would pass.
    if dtype == "float32":
        for level in ("L1", "L2", "L3", "L4", "L8"):
            assert 0.01 < max(v.used for v in found if v.case.level == level) < 0.25


def test_unstated_dtype_is_skipped(suite):
    """In half precision: ids that a model writes, and where roundings would be as large as the answer."""
    answers = {case.id: Answer(outputs=case.answers[0]) for case in suite.cases if case.answers}
    for dtype, least in (("float16", 4), ("bfloat16", 30)):
        found = [judge(case, answers[case.id], dtype) for case in suite.cases if case.id in answers]
        skipped = {v.case.id for v in found if v.status == SKIPPED}
        assert {case.id for case in suite.cases if case.types} <= skipped
        assert len(skipped) > least
        assert not [v for v in found if v.status == FAILED]


# ---- three checkers on a folder of results -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def results(tmp_path_factory, suite):
    """led_ref's answers in float64, as a program writes them."""
    questions, answers = tmp_path_factory.mktemp("questions"), tmp_path_factory.mktemp("answers")
    write_questions(questions, suite, suite.cases, "float64", {"bundled": BUNDLED})
    write_answers(questions, answers)
    return answers


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """check.c, compiled; None without a compiler."""
    if shutil.which("gcc") is None:
        return None
    program = tmp_path_factory.mktemp("compiled") / "check"
    flags = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["gcc", *flags, "-o", program, SCHEMA.parent / "check.c", "-lm"], check=True)
    return program


@pytest.fixture(params=["python", "node", "c"])
def checker(request, suite, compiled, capsys):
    """`checker(folder)`: exit code and output of one of the three; None where it cannot be run here."""

    def by_led_ref(folder):
        found = [judge(case, answer, "float64") for case in suite.cases if (answer := read_answer(folder, case))]
        lost = [case.id for case in suite.cases if read_answer(folder, case) is None]
        lines = [f"{v.case.id}: {v.status}: {v.reason}" for v in found] + [
            f"{case}: failed: no result" for case in lost
        ]
        return int(bool(lost) or any(v.status == FAILED for v in found)), "\n".join(lines)

    if request.param == "python":
        return by_led_ref
    program = {"node": shutil.which("node"), "c": compiled}[request.param]
    if program is None:
        missing = {"node": "Node (check.mjs)", "c": "gcc (check.c)"}[request.param]
        assert os.environ.get("CI") != "true", f"{missing} is not on this machine; CI must have it."
        with capsys.disabled():
            print(f"\nNot run: the checker of the vectors that needs {missing}, which is not on this machine.")
        return None
    words = [program, SCHEMA.parent / "check.mjs"] if request.param == "node" else [program]

    def by_program(*arguments):
        done = subprocess.run([*words, FOLDER, *arguments], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return by_program


def test_checkers_accept_correct_answers(checker, results):
    if checker is None:
        return
    code, said = checker(results)
    assert code == 0, said
    assert "L7-led-base: skipped" in said
    assert said.count(": failed") == 0
    assert len(re.findall(r"^L\S+-\S+: passed", said, re.MULTILINE)) == len(read_suite(FOLDER).cases) - 1


CORRUPTIONS = {
    "a value beyond tolerance": ("L3-encoder-short", "hidden_states_1[0, 2, 3]"),
    "a swapped axis": ("L2-encoder-attention-mixed-globals", "y"),
    "a missing case": ("L0-tokenize-emoji", "result"),
    "a NaN": ("L1-linear-rows", "y[3, 1]"),
    "a gradient beyond tolerance": ("L8-gradients-dropout", "led.encoder.layers.0.fc1.weight.grad"),
    "a truncated file": ("L4-parts-reordered", "cut off"),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_checkers_reject_wrong_answers(checker, results, tmp_path, corruption):
    if checker is None:
        return
    case, named = CORRUPTIONS[corruption]
    shutil.copytree(results, tmp_path / "results")
    corrupt(tmp_path / "results" / f"{case}.safetensors", corruption)
    code, said = checker(tmp_path / "results")
    assert code == 1
    failed = re.findall(r"^(\S+): failed: (.*)$", said, re.MULTILINE)
    assert [name for name, _ in failed] == [case], said
    assert named.partition("[")[0] in failed[0][1]
    assert all(line.count("[") == line.count("]") and "[]" not in line for line in said.splitlines())


def corrupt(path, how):
    """Damage one file of results."""
    if how == "a missing case":
        path.unlink()
        return
    if how == "a truncated file":
        path.write_bytes(path.read_bytes()[:-5])
        return
    tensors = {name: np.array(tensor.data) for name, tensor in read_safetensors(path).items()}
    if how == "a value beyond tolerance":
        tensors["hidden_states_1"][0, 2, 3] += 3e-9  # 1.9e-9 is allowed
    elif how == "a gradient beyond tolerance":
        tensors["led.encoder.layers.0.fc1.weight.grad"][2, 3] += 3e-9
    elif how == "a swapped axis":  # heads and their width: the shape stays
        batch, length, _ = tensors["y"].shape
        tensors["y"] = tensors["y"].reshape(batch, length, 3, 10).swapaxes(2, 3).reshape(batch, length, 30)
    else:
        tensors["y"][3, 1] = np.nan
    path.write_bytes(safetensors_bytes(tensors))


def test_refusal_and_answer_are_distinct(checker, results, tmp_path):
    """An invalid case that is answered fails, a valid one that is refused too; either answer of an open one passes."""
    if checker is None:
        return
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    (folder / "L4-refused-id-too-large.json").write_text('{"outputs": {"logits": [[[0.5]]]}}')
    (folder / "L1-gelu-far.safetensors").unlink()
    (folder / "L1-gelu-far.json").write_text('{"refused": "too far"}')
    (folder / "L1-shift-2-1.safetensors").unlink()
    rows = read_suite(FOLDER, levels=["L1"]).cases[-2].answers[0]["decoder_input_ids"].tolist()
    (folder / "L1-shift-2-1.json").write_text(json.dumps({"outputs": {"decoder_input_ids": rows}}))
    for case, name in (("L1-softmax-hidden-row", "y"), ("L5-search-tie-greedy", "sequences")):
        other = read_safetensors(FOLDER / f"{case[:2]}.outputs.safetensors")[f"{case}/2/{name}"].data
        (folder / f"{case}.safetensors").write_bytes(safetensors_bytes({name: np.array(other)}))
    (folder / "L4-forward-pad-without-mask.json").unlink(missing_ok=True)
    (folder / "L4-forward-pad-without-mask.json").write_text('{"refused": "where is the mask?"}')
    code, said = checker(folder)
    failed = re.findall(r"^(\S+): failed", said, re.MULTILINE)
    assert (code, sorted(failed)) == (1, ["L1-gelu-far", "L4-refused-id-too-large"])


def test_checkers_recompute_first_levels(checker, request):
    if checker is None or checker.__name__ == "by_led_ref":
        return
    code, said = checker()
    assert code == 0, said
    assert re.findall(r"^L\d: (\d+) passed, 0 failed", said, re.MULTILINE) == ["19", "18", "22"]


def test_checkers_reject_bad_input(checker, tmp_path, compiled):
    if checker is None or checker.__name__ == "by_led_ref":
        return
    assert checker("results", "float", "more")[0] == 2
    broken = tmp_path / "vectors"
    shutil.copytree(FOLDER, broken)
    (broken / "L2.inputs.safetensors").write_bytes((FOLDER / "L2.inputs.safetensors").read_bytes()[:-8])
    for words in ([compiled], ["node", SCHEMA.parent / "check.mjs"]):
        if words[0] is not None and shutil.which(words[0]):
            done = subprocess.run([*words, broken], capture_output=True, text=True, check=False)
            assert done.returncode == 2
            assert "L2.inputs.safetensors" in done.stderr
    with pytest.raises(CheckpointError, match=r"L2\.inputs\.safetensors.*sha256"):
        read_suite(broken)
