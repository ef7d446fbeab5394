"""The 573 held-out manual pages as led-ref evaluate reads them, and what it does not count: is the name right?

    python docs/recipes/pages.py lines HELDOUT.jsonl.gz PAGES.jsonl
    led-ref evaluate PAGES.jsonl --model WORK/models/summarizer --truncate --max-new-tokens 64 --out SCORES
    python docs/recipes/pages.py score PAGES.jsonl SCORES

A line of HELDOUT has name, desc and body; a page's one line is `name - desc`. `score` prints the share of pages whose name is
right, and ROUGE of the descriptions alone: a name that stands in both texts would raise it. So the scores of the
model that led_ref was first shipped with were computed (ROUGE-L 0.326, name right in 35%).
"""

import gzip
import json
import sys
from pathlib import Path

from led_ref.tools.evaluation.scores import Bootstrap, rouge


def lines(heldout: Path, out: Path) -> None:
    """Write one line a page: id, text, summary."""
    with gzip.open(heldout, "rt", encoding="utf-8") as pages, open(out, "w", encoding="utf-8") as file:
        for page in map(json.loads, pages):
            record = {"id": page["path"], "text": page["body"], "summary": f"{page['name']} - {page['desc']}"}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def halves(line: str) -> tuple[str, str]:
    """Name and description of a page's one line; without " - " all of it is the description.

    Example:
        >>> halves("ls - list - and more"), halves("list files")
        (('ls', 'list - and more'), ('', 'list files'))
    """
    name, dash, description = line.partition(" - ")
    return (name.strip(), description.strip()) if dash else ("", line.strip())


def score(pages: Path, scores: Path) -> dict[str, object]:
    """Names and descriptions of what `led-ref evaluate --out SCORES` wrote."""
    right = [halves(json.loads(line)["summary"]) for line in pages.read_text(encoding="utf-8").splitlines()]
    written = dict.fromkeys(range(len(right)), ("", ""))
    texts_of_shards = [path.read_text(encoding="utf-8") for path in sorted(scores.glob("written*.jsonl"))]
    for record in map(json.loads, "".join(texts_of_shards).splitlines()):
        written[record["document"]] = halves(record["text"])
    names = [written[i][0].lower() == name.lower() for i, (name, _) in enumerate(right)]
    texts = [written[i][1] for i in range(len(right))]
    found = rouge([[text] for _, text in right], texts, stemmer=False, sentences="split")
    return {
        "pages": len(right),
        "names right, percent": round(100 * sum(names) / len(names), 1),
        **{
            f"{name} of descriptions": str(Bootstrap().mean(values))
            for name, values in found.items()
            if name != "rougeLsum"
        },
    }


if __name__ == "__main__":
    command, first, second = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if command == "lines":
        lines(first, second)
    else:
        print(json.dumps(score(first, second), indent=1))
