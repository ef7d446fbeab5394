"""What the classifier is compared with: the most frequent label, and a logistic regression on bags of words.

    pip install scikit-learn
    python docs/recipes/bag_of_words.py WORK       after questions.py

Words and pairs of words of the training descriptions that at least three have, weighted by tf-idf; the strength of the
regularization is the one of four that is best on the held-out descriptions. Printed: accuracy and macro F1 (the mean of all
labels' F1) on the test descriptions.
"""

import sys
from collections import Counter
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from splits import read_lines

STRENGTHS = (1.0, 3.0, 10.0, 30.0)


def main(work: Path) -> None:
    """Train and score both."""
    files = {"train": "stages/labels", "held-out": "stages/labels-heldout", "test": "test/labels"}
    texts, labels = {}, {}
    for split, name in files.items():
        records = list(read_lines(work / f"{name}.jsonl.gz"))
        texts[split] = [record["text"] for record in records]
        labels[split] = [record["label"] for record in records]
    ((most, _),) = Counter(labels["train"]).most_common(1)
    report(f"always {most}", labels["test"], [most] * len(labels["test"]))
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True)
    seen = {"train": words.fit_transform(texts["train"])} | {
        split: words.transform(texts[split]) for split in ("held-out", "test")
    }
    models = [
        LogisticRegression(C=strength, max_iter=200).fit(seen["train"], labels["train"]) for strength in STRENGTHS
    ]
    best = max(models, key=lambda model: model.score(seen["held-out"], labels["held-out"]))
    report(f"bag of words, C = {best.C:g}", labels["test"], best.predict(seen["test"]))


def report(name: str, right: list[str], given: object) -> None:
    """Print one row."""
    f1 = f1_score(right, given, average="macro", zero_division=0)
    print(f"{name}: accuracy {100 * accuracy_score(right, given):.1f}, macro F1 {100 * f1:.1f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
