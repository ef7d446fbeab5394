"""Overwriting a folder: nothing of what was read before stays beside the new files, and one rename decides."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.scenes import VOCAB, scenes, write

import led_ref
from led_ref.errors import InputError
from led_ref.files import staging
from led_ref.tokenizer import LEDTokenizer
from led_ref.weights.convert import convert
from led_ref.weights.from_bart import convert_bart
from led_ref.weights.save import MODEL_FILES

TEXT = "lo low lower tide"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp("made"))


@pytest.fixture
def led(made, tmp_path):
    """A sound model."""
    write(tmp_path / "led", made["config.json"].files)
    return tmp_path / "led"


@pytest.fixture
def foreign(made, tmp_path):
    """What another program wrote for another model, each file with an effect of its own; and somebody's notes."""
    folder = tmp_path / "foreign"
    values = json.loads(made["tokenizer.json"].files["tokenizer.json"])
    values["model"]["merges"] = []  # other ids
    write(
        folder,
        {
            "tokenizer.json": json.dumps(values).encode(),
            "added_tokens.json": json.dumps({"tide": len(VOCAB)}).encode(),
            "special_tokens_map.json": b'{"additional_special_tokens": ["low"]}',
            "generation_config.json": b'{"max_length": 3, "forced_bos_token_id": 9}',
            "model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}',
            "model-00001-of-00001.safetensors": b"old",
            "pytorch_model.bin": b"old",
            "config.json": b"{}",
            "adapter_config.json": b'{"peft_type": "LORA"}',  # transformers merges it
            "adapter_model.safetensors": b"old",
            "notes.txt": b"mine",
        },
    )
    (folder / "runs").mkdir()
    (folder / "runs" / "log").write_bytes(b"mine, too")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(folder: Path) -> object:
    """What the files of a folder say, together."""
    model = led_ref.load(folder, backend="numpy")
    return model.tokenizer(TEXT, return_offsets_mapping=True), model.tokenizer.get_vocab(), model.generate(TEXT)


@pytest.mark.parametrize("way", ["convert", "save", "from BART"])
def test_nothing_of_the_old_folder_is_read(made, led, foreign, tmp_path, way):
    if way == "from BART":
        write(tmp_path / "bart", made["BART's config.json"].files)

    def go(destination: Path) -> None:
        if way == "convert":
            convert(led, destination, overwrite=True)
        elif way == "save":
            led_ref.load(led, backend="numpy").save_pretrained(destination, overwrite=True)
        else:
            convert_bart(tmp_path / "bart", destination, max_positions=30, attention_window=4, overwrite=True)

    go(tmp_path / "new")
    go(foreign)
    assert read(foreign) == read(tmp_path / "new")
    assert tree(foreign) == {**tree(tmp_path / "new"), "notes.txt": b"mine", "runs/log": b"mine, too"}


def test_links_beside_the_files_stay_links(led, foreign, tmp_path):
    """Even where they lead nowhere, or to a file that could be linked itself."""
    (tmp_path / "elsewhere").write_bytes(b"of somebody")
    for name, leads_to in (("draft", "../elsewhere"), ("gone", "nothing"), ("runs/latest", "log")):
        (foreign / name).symlink_to(leads_to)
    led_ref.load(led, backend="numpy").save_pretrained(foreign, overwrite=True)
    assert [os.readlink(foreign / name) for name in ("draft", "gone", "runs/latest")] == [
        "../elsewhere",
        "nothing",
        "log",
    ]


def test_a_model_alone_leaves_the_tokenizer(led, foreign):
    """LEDForConditionalGeneration knows no tokenizer: the files stay, and generation_config.json goes."""
    before = tree(foreign)
    led_ref.load(led, backend="numpy").model.save_pretrained(foreign, overwrite=True)
    after = tree(foreign)
    assert {name for name in before if name not in after} == {
        "generation_config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors", "pytorch_model.bin",
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    kept = ("tokenizer.json", "added_tokens.json", "special_tokens_map.json", "notes.txt", "runs/log")
    assert all(after[name] == before[name] for name in kept)


def test_a_tokenizer_replaces_a_tokenizer(led, foreign):
    tokenizer = LEDTokenizer.from_pretrained(led)
    before = tree(foreign)
    tokenizer.save_pretrained(foreign)
    assert LEDTokenizer.from_pretrained(foreign)(TEXT) == tokenizer(TEXT)
    assert all(tree(foreign)[name] == before[name] for name in (*MODEL_FILES, "notes.txt") if name in before)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "vocab.json"])
def test_no_file_is_replaced_without_permission(led, tmp_path, name):
    write(tmp_path / "there", {name: b"mine"})
    for go in (convert, lambda source, there: led_ref.load(source, backend="numpy").save_pretrained(there)):
        with pytest.raises(InputError, match=rf"holds {name} already.*--overwrite"):
            go(led, tmp_path / "there")
        assert tree(tmp_path / "there") == {name: b"mine"}


@pytest.mark.parametrize("name", ["tokenizer.json", "added_tokens.json", "generation_config.json"])
def test_links_are_not_followed_out_of_the_folder(led, tmp_path, name):
    (tmp_path / "secret").write_text('{"key": "of somebody"}')
    (led / name).unlink(missing_ok=True)
    (led / name).symlink_to("../secret")
    with pytest.raises(InputError, match=rf"{name} is a symbolic link to .*secret, outside the folder. Put a copy"):
        convert(led, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    # The Hub's cache is a folder of links to its blobs.
    snapshot = tmp_path / "models--a--b" / "snapshots" / "5f"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    (led / name).unlink()
    for path in led.iterdir():
        path.rename(tmp_path / "models--a--b" / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    convert(snapshot, tmp_path / "new")
    assert read(tmp_path / "new") == read(snapshot)
    assert not any(path.is_symlink() for path in (tmp_path / "new").iterdir())
    (snapshot / name).symlink_to("nothing")
    with pytest.raises(InputError, match=rf"{name} is no plain file"):
        convert(snapshot, tmp_path / "newer")


# ---- killed processes ------------------------------------------------------------------------------------------------

# A process for each event that changes files: it is killed just before. Written in one process, which imports once.
KILLER = """
import json, os, signal, sys
from pathlib import Path
import led_ref, safetensors
from led_ref.files import staging
from led_ref.weights.convert import convert
source, there, has_exchange = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "True"
if not has_exchange:
    staging._exchange = lambda a, b: False
led_ref.load(source, backend="numpy")
old = {path.name: path.read_bytes() for path in there.iterdir()}
CHANGES = ("os.rename", "os.link", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "ctypes.dlsym")

def kill_at(event_number):
    count = 0
    def hook(event, arguments):
        nonlocal count
        if event in CHANGES or (event == "open" and arguments[1] not in ("r", "rb", None)):
            count += 1
            if count == event_number:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

found, event_number, killed = [], 0, True
while killed:
    event_number += 1
    child = os.fork()
    if child == 0:
        kill_at(event_number)
        convert(source, there, overwrite=True)
        os._exit(0)
    killed = os.waitpid(child, 0)[1] != 0
    now = {path.name: path.read_bytes() for path in there.iterdir()} if there.is_dir() else None
    left = sorted(path.name for path in there.parent.iterdir() if path.name.startswith(".there"))
    assert killed or now != old
    found.append("none" if now is None else "old" if now == old else json.dumps(sorted(now)))
    assert len(left) <= 1, left
    with staging.staging(there):  # what the next writer does first
        assert sum(path.name.startswith(".there") for path in there.parent.iterdir()) == 1
    if now is None:
        assert {path.name: path.read_bytes() for path in there.iterdir()} == old
    elif now != old:  # as it was, for the next
        for name in now.keys() - old.keys():
            (there / name).unlink()
        for name, content in old.items():
            (there / name).write_bytes(content)
print(json.dumps({"found": found, "left": sorted(path.name for path in there.parent.iterdir())}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is what ends a process at a chosen moment")
@pytest.mark.parametrize("has_exchange", [True, False])
def test_a_killed_process_leaves_old_or_new(led, tmp_path, has_exchange):
    convert(led, tmp_path / "new")
    expected = json.dumps(sorted([*(path.name for path in (tmp_path / "new").iterdir()), "notes.txt"]))
    home = tmp_path / "home"
    home.mkdir()
    files = {"tokenizer.json": b"{}", "model.safetensors": b"old", "config.json": b"{}", "notes.txt": b"mine"}
    write(home / "there", files)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLER, str(led), str(home / "there"), str(has_exchange)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said["found"]) <= {"old", expected} | ({"none"} if not has_exchange else set())
    assert said["found"].count("old") > 15
    assert said["found"].count(expected) > 1
    assert said["found"].count("none") <= 1
    assert said["left"] == ["there"]


def test_leftovers_are_recognised(tmp_path):
    target = tmp_path / "a[b]*"
    for name in (".a[b]*.abcdefgh.unfinished", ".a[b]*.12345678.unfinished"):
        (tmp_path / name).mkdir()
    for name in (".a[b]*.unfinished", ".a[b]*.4711.unfinished"):  # files of an older led_ref
        (tmp_path / name).touch()
    others = [".abc.abcdefgh.unfinished", ".a[b]*.notes.unfinished", "a[b]*.abcdefgh.unfinished"]
    for name in others:
        (tmp_path / name).mkdir()
    with staging.staging(target) as mine, staging.staging(target) as another:  # of a living process each
        assert mine.exists()
        assert another.exists()
        (another / "new").mkdir()
        staging._take_its_place(another / "new", target)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "a[b]*"])


def test_the_working_directory_stays_one(tmp_path, monkeypatch):
    """A folder that is replaced while a process works in it: the process works in the new one, by the same path."""
    (tmp_path / "model" / "notes").mkdir(parents=True)
    for place in ("model", "model/notes"):
        monkeypatch.chdir(tmp_path / place)
        led_ref.load().save_pretrained(tmp_path / "model", overwrite=True)
        assert os.path.samefile(".", tmp_path / place)
    monkeypatch.chdir(tmp_path / "model")
    led_ref.load().save_pretrained(".", overwrite=True)
    assert (os.path.samefile(".", tmp_path / "model"), Path("config.json").exists()) == (True, True)
