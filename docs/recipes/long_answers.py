"""Scores of an answerer on long documents, which it searches in pieces; and on those alone whose answer stands far behind.

    python docs/recipes/long_answers.py WORK/data/test/questions-long.jsonl.gz [MODEL]        default: the bundled answerer

`led-ref evaluate` gives a model each document as a whole; here it reads 384 tokens at a time, as for `led-ref answer`. Exact
match and F1 are counted by the same functions. A document's tokens are those of the model's tokenizer, without the question's.
"""

import sys
from pathlib import Path

from splits import read_lines

from led_ref import QuestionAnswerer
from led_ref.pipelines.context_pieces import answer_in_pieces
from led_ref.pipelines.progress import bar
from led_ref.tools.evaluation.scores import Bootstrap, answer_scores

FAR = 2_000  # tokens


def main(path: Path, model: str | None = None) -> None:
    """Answer all of them, and print the scores."""
    answerer = QuestionAnswerer.load(model)
    right, written, positions = [], [], []
    for record in bar(iterable=read_lines(path), unit=" questions"):
        context, answers = record["context"], record["answers"]
        found = answer_in_pieces(answerer, record["question"], context, align_to_words=False)
        written.append(found[0].answer if found else "")
        right.append(answers["text"])
        before = [context[:start] for start in answers["answer_start"]]
        positions.append(
            max((len(answerer.tokenizer(text, add_special_tokens=False).input_ids) for text in before), default=0)
        )
    groups = {"all": range(len(written)), f"from token {FAR:,} on": [i for i, at in enumerate(positions) if at >= FAR]}
    for name, group in groups.items():
        scores = answer_scores([right[i] for i in group], [written[i] for i in group], Bootstrap())
        print(f"{name}: {len(group)} questions", *(f"  {key}: {score}" for key, score in scores.items()), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
