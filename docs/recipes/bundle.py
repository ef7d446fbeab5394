"""Put the trained models into the package: float16, and the matrices of answerer and classifier in fewer bits.

    led-ref convert WORK/models/summarizer half --dtype float16
    python docs/recipes/bundle.py half led_ref/bundled
    led-ref convert WORK/models/answerer small --dtype float16 --quantize int8
    python docs/recipes/bundle.py small led_ref/bundled/answerer

Tensors of more than 8 MB together become several files, since led_ref's repository has no file over 10 MB. SHA256SUMS is
what `led-ref doctor` compares with. An answerer gets the settings that its training asks for: an answer may be a sentence, and
may be missing; long documents are searched in pieces as short as its contexts were. MODEL_CARD.md is written by hand.
"""

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from led_ref.config import LEDConfig
from led_ref.weights.find_files import read_tensors
from led_ref.weights.save import write_folder

LARGEST = "8MB"
TOKENIZER = "tokenizer_config.json"
ANSWERS = {"question-answering": {"max_answer_len": 80, "handle_impossible_answer": True, "max_seq_len": 384}}


def bundle(source: Path, out: Path) -> None:
    """Write the model, its tokenizer and its settings, and the sums of all of them."""
    others = [path for path in source.iterdir() if path.suffix in (".json", ".txt") and path.name != "config.json"]

    def copy(new: Path) -> None:
        for path in others:
            shutil.copyfile(path, new / path.name)
        settings = json.loads((new / TOKENIZER).read_text(encoding="utf-8"))
        settings["model_max_length"] = config.max_encoder_position_embeddings
        (new / TOKENIZER).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    tensors, config = read_tensors(source), LEDConfig.from_pretrained(source)
    if "LEDForQuestionAnswering" in config.extra.get("architectures", ()):
        config = replace(config, extra={**config.extra, "task_specific_params": ANSWERS})
    out.mkdir(exist_ok=True)
    weights = write_folder(out.resolve(), tensors, config, others=copy, overwrite=True, max_shard_size=LARGEST)
    files = sorted({*(path.name for path in (*weights, *others, *out.glob("*.index.json"))), "config.json"})
    sums = [f"{hashlib.sha256((out / file).read_bytes()).hexdigest()}  {file}\n" for file in files]
    (out / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


if __name__ == "__main__":
    bundle(Path(sys.argv[1]), Path(sys.argv[2]))
