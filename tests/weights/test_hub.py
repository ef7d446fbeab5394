"""Names to folders. There is no network in a test: the Hub is a stand-in, or the real library told to stay offline."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

import led_ref
from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.tokenizer import LEDTokenizer
from led_ref.weights.find_files import resolve

NAME = "some-org/led-small.16384"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}})


class StandInHub:
    """One repository: file name -> content. Remembers what was asked of it."""

    def __init__(self, folder: Path, files: dict[str, str], failure: Exception | None = None) -> None:
        self.snapshot = folder / "snapshots" / "c0ffee"
        self.snapshot.mkdir(parents=True)
        self.files, self.failure = files, failure
        self.asked: list[tuple[str, str | None]] = []

    def model_info(self, name: str, *, revision: str | None) -> SimpleNamespace:
        if self.failure is not None:
            raise self.failure
        assert name == NAME
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in self.files])

    def download(self, name: str, file: str, *, revision: str | None, local_files_only: bool = False) -> str:
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not in the cache")
        self.asked.append((file, revision))
        if self.files[file] == "breaks off":
            raise ConnectionError("reset by peer")
        (self.snapshot / file).write_text(self.files[file], encoding="utf-8")
        return str(self.snapshot / file)


@pytest.fixture
def make_hub(tmp_path, monkeypatch):
    def make(*names: str, failure: Exception | None = None, **contents: str) -> StandInHub:
        hub = StandInHub(tmp_path, {**dict.fromkeys(names, ""), **contents}, failure)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
        return hub

    return make


OTHERS = ("README.md", "tf_model.h5", "flax_model.msgpack", "training_args.bin", "vocab.json", "generation_config.json")


@pytest.mark.parametrize(
    ("weights", "fetched", "says"),
    [
        ({"model.safetensors": "", "pytorch_model.bin": ""}, ["model.safetensors"], 0),
        (
            {"pytorch_model.bin": "", "model.safetensors.index.json": INDEX, **dict.fromkeys(SHARDS, "")},
            ["model.safetensors.index.json", *SHARDS],
            0,
        ),
        ({"pytorch_model.bin": ""}, ["pytorch_model.bin"], 1),
    ],
)
def test_download_selection_from_one_commit(make_hub, weights, fetched, says):
    hub = make_hub("config.json", *OTHERS, **weights)
    notices = []
    assert resolve(NAME, revision="refs/pr/4", notice=notices.append) == hub.snapshot
    # config.json by the name of the revision, and the rest by the commit that this turned out to be.
    expected = [(file, "c0ffee") for file in (*fetched, "generation_config.json", "vocab.json")]
    assert hub.asked == [("config.json", "refs/pr/4"), *expected]
    assert len(notices) == says
    assert all("pytorch_model.bin" in notice and "led-ref convert" in notice for notice in notices)


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({"model.safetensors": ""}, MissingFileError, r"has no config\.json; it holds model\.safetensors"),
        ({"config.json": "", "tf_model.h5": ""}, MissingFileError, r"no weights that led_ref reads .*tf_model\.h5"),
        ({"config.json": "", "model.safetensors.index.json": INDEX}, CheckpointError, rf"do not exist: {SHARDS[0]}"),
        (
            {"config.json": "", "model.safetensors": "breaks off"},
            MissingFileError,
            r"^model\.safetensors of .* could not be fetched \(ConnectionError: reset by peer\)\. Try again",
        ),
    ],
)
def test_unusable_repository_messages(make_hub, files, kind, message):
    make_hub(**files)
    with pytest.raises(kind, match=message):
        resolve(NAME)


def failure(kind):
    return kind.__new__(kind)  # their constructors want an HTTP response


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.RepositoryNotFoundError, "no model of this name on the Hub .*hf auth login"),
        (errors.GatedRepoError, "Accept its terms"),
        (errors.RevisionNotFoundError, "has no revision 'v7'"),
        (errors.HFValidationError, "cannot be the name of a Hub model"),
        (
            ConnectionError,
            r"(?s)cannot be reached \(ConnectionError\).*v7.*config\.json.*model\.safetensors.*merges\.txt",
        ),
    ],
)
def test_hub_error_messages(make_hub, kind, message):
    make_hub(failure=failure(kind))
    with pytest.raises(MissingFileError, match=message):
        resolve(NAME, revision="v7")


def test_folder_has_no_revisions(tmp_path, monkeypatch):
    folder = tmp_path / "some-org" / "model"
    folder.mkdir(parents=True)
    assert resolve(folder) == folder
    monkeypatch.chdir(tmp_path)
    assert resolve("some-org/model") == Path("some-org/model")  # before the Hub's model of that name
    with pytest.raises(InputError, match=r"revision 'v7' .*leave it out"):
        resolve(folder, revision="v7")


@pytest.mark.parametrize("name", ["./model", "/no/such/model", "a/b/c", "led-base", "", "~/no-such-model", "a/../b"])
def test_folder_like_names_stay_local(make_hub, name):
    make_hub(failure=AssertionError("the Hub was asked"))
    with pytest.raises(MissingFileError, match=r"(?s)no folder .*no Hub name .*allenai/led-base-16384.*config\.json"):
        resolve(name)
    with pytest.raises(MissingFileError, match="no folder"):
        resolve(Path("some-org/model"))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(MissingFileError, match=r"is a file.*folder that holds it"):
        resolve(tmp_path / "model.safetensors")


def resolve_offline(cache: Path) -> subprocess.CompletedProcess[str]:
    """The real library in a process of its own, which reads HF_HUB_OFFLINE and HF_HUB_CACHE when it is imported."""
    program = f"from led_ref.weights.find_files import resolve; print(resolve({NAME!r}))"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(cache),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_offline_cache_and_missing_files(tmp_path):
    empty = resolve_offline(tmp_path)
    assert empty.returncode == 1
    last = empty.stderr.rsplit("MissingFileError: ", 1)[1]
    for part in (
        "cannot be reached (OfflineModeIsEnabled)",
        NAME,
        "HF_HUB_OFFLINE",
        "config.json",
        "model.safetensors",
    ):
        assert part in last

    repository = tmp_path / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    (snapshot / "config.json").write_text("{}")
    unfinished = resolve_offline(tmp_path)
    assert "does not hold " + NAME in unfinished.stderr
    (snapshot / "model.safetensors").touch()
    whole = resolve_offline(tmp_path)
    assert (whole.stdout.strip(), whole.returncode) == (str(snapshot), 0), whole.stderr


def test_config_and_tokenizer_by_hub_name(make_hub):
    """Their files alone are downloaded, of one commit; what is not on the Hub is named."""
    folder = led_ref.bundled_model()
    contents = {
        file: (folder / file).read_text(encoding="utf-8")
        for file in ("config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
    }
    hub = make_hub("model.safetensors", **contents)
    assert LEDConfig.from_pretrained(NAME) == LEDConfig.from_pretrained(folder)
    assert hub.asked == [("config.json", None)]
    assert LEDTokenizer.from_pretrained(NAME, revision="v1").get_vocab() == led_ref.load().tokenizer.get_vocab()
    assert {file for file, _ in hub.asked} == set(contents)
    assert hub.asked[1] == ("config.json", "v1")
    assert {revision for _, revision in hub.asked[2:]} == {"c0ffee"}
    hub.failure = ConnectionError()
    for read in (LEDConfig.from_pretrained, LEDTokenizer.from_pretrained):
        with pytest.raises(MissingFileError, match=r"no folder some-org/.*Hub cannot be reached \(ConnectionError\)"):
            read(NAME)
        with pytest.raises(InputError, match="is for names on the Hub"):
            read(folder, revision="v1")
