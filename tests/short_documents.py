"""Text files of a few words each, for the tests of many documents."""

import random

WORDS = ["pack", "files", "into", "an", "archive", "and", "list", "what", "it", "holds", "before", "sending"]


def write_documents(folder, count):
    """Files 00.txt, 01.txt, ... of 3 to 29 words; their paths in order."""
    for i in range(count):
        draw = random.Random(i)
        text = " ".join(draw.choice(WORDS) for _ in range(draw.randrange(3, 30)))
        (folder / f"{i:02}.txt").write_text(f"{text}.\n", encoding="utf-8")
    return sorted(folder.iterdir())
