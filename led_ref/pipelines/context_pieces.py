"""Answers in a context that is longer than the model reads: in pieces that overlap, as transformers' pipeline does it.

A QuestionAnswerer's decoder reads the document, too, and has fewer positions than its encoder. So the context is cut into
pieces of max_seq_len tokens with the question; each begins doc_stride tokens before the end of the one before. The answers of
all pieces are compared by their scores, each a probability among the tokens of its own piece. "There is no answer" has the
least score that a piece gives it: one piece that holds the answer is enough.

    >>> list(windows(10, room=4, overlap=1))
    [(0, 4), (3, 7), (6, 10)]
"""

from collections.abc import Iterator

from led_ref.classes.input_checks import check_types
from led_ref.classes.led import Progress
from led_ref.errors import CheckpointError, SettingsError, quoted
from led_ref.pipelines.loading import shown_progress
from led_ref.pipelines.question_answering import Answer, PreparedQuestion, QuestionAnswerer, Scored, with_no_answer
from led_ref.tokenizer.bpe import split

_PARTS = 8  # tokens of a word
OVERLAP = 128  # transformers' doc_stride, of pieces that are at least twice as long


@check_types
def answer_in_pieces(
    answerer: QuestionAnswerer,
    question: str,
    context: str,
    *,
    max_seq_len: int | None = None,
    doc_stride: int | None = None,
    max_question_len: int | None = None,
    align_to_words: bool = True,
    top_k: int = 1,
    max_answer_len: int | None = None,
    handle_impossible_answer: bool | None = None,
    truncation: bool = False,
    padding: bool | str = False,
    progress: Progress | bool | None = None,
) -> list[Answer]:
    """The best answers, best first.

    Args:
        answerer: the model and its tokenizer.
        question: a text.
        context: the text that holds the answer.
        max_seq_len: tokens of question and piece together; None: the model's own (max_seq_len among its
            task_specific_params in config.json, for a model that was trained on short contexts), or what it reads.
        doc_stride: tokens of a piece that the next one has, too; None: 128, or half of a short piece.
        max_question_len: the most tokens of the question, whose end is cut off; None: all.
        align_to_words: whether an answer begins and ends where a word does.
        top_k: the number of answers; fewer, if there are fewer spans.
        max_answer_len: the most tokens of an answer, before it is aligned; None: the model's own, as for QuestionAnswerer.
        handle_impossible_answer: whether "there is no answer" is one of them; None: the model's own.
        truncation: search the first piece alone.
        padding: True, False or a kind of transformers'; pieces are read one by one, so that it changes nothing.
        progress: called after each encoder layer of each piece; True: bars on standard error.

    Raises:
        SettingsError: for a number that is too small, a piece longer than the model reads, or one that its question and the
            overlap fill.
        CheckpointError: if the model's own max_seq_len is no number of tokens that it reads.
        InputError: as QuestionAnswerer.prepare.
    """
    numbers = {"top_k": top_k, "max_answer_len": max_answer_len, "max_seq_len": max_seq_len}
    for name, number in {**numbers, "max_question_len": max_question_len}.items():
        if number is not None and number < 1:
            raise SettingsError(f"{name} is {number}; it must be a whole number of at least 1.")
    if doc_stride is not None and doc_stride < 0:
        raise SettingsError(f"doc_stride is {doc_stride}; it must be a whole number of at least 0.")
    if padding not in (True, False, "longest", "max_length", "do_not_pad"):
        raise SettingsError(f"padding is {quoted(padding)}; it changes nothing here. Leave it out.")
    longest, may_be_none = answerer.answer_settings(max_answer_len, handle_impossible_answer)
    if max_question_len is not None:
        question = _beginning(answerer, question, max_question_len)
    pieces = prepare_pieces(answerer, question, context, max_seq_len, doc_stride)
    words = _word_bounds(context) if align_to_words else None
    # Several spans may be parts of one word: with so many more, a word of this length still counts once.
    count = top_k if words is None else top_k * _PARTS**2
    scored: list[Scored] = []
    nothing = 0.0
    with shown_progress(progress, 1 if truncation else len(pieces)) as (shown, one_more):
        for piece in pieces[:1] if truncation else pieces:
            found, of_none = answerer.scored_spans(context, piece, shown, count, longest)
            scored += found
            nothing = min(nothing, of_none)
            one_more()
    best: dict[tuple[int, int], Scored] = {}
    for worth, answer in sorted(scored, key=lambda one: -one[0]):
        start, end = answer.start, answer.end
        if words is not None:
            start, end = words[start][0], words[end - 1][1]
        best.setdefault((start, end), (worth, Answer(context[start:end], answer.score, start, end)))
    ordered = list(best.values())
    if may_be_none:
        ordered = with_no_answer(ordered, nothing)
    return [answer for _, answer in ordered[:top_k]]


def prepare_pieces(
    answerer: QuestionAnswerer, question: str, context: str, max_seq_len: int | None, doc_stride: int | None
) -> list[PreparedQuestion]:
    """The pieces as the model reads them; one, if it reads all at once. Arguments and errors as in `answer_in_pieces`."""
    limit = answerer.model.longest_document
    most = _own_length(answerer) if max_seq_len is None else max_seq_len
    if most > limit:
        raise SettingsError(f"max_seq_len is {most}, but {answerer.name} reads at most {limit} tokens. Give fewer.")
    whole = answerer.prepare_whole(question, context)
    room = most - whole.first - 1  # tokens of the context beside </s>
    overlap = min(OVERLAP, most // 2, room // 2) if doc_stride is None else doc_stride
    if room < 1 or (overlap >= room and len(whole.offsets) > room):
        raise SettingsError(
            f"A piece of max_seq_len {most} tokens has {max(room, 0)} beside its question of {whole.first - 3}, and doc_stride "
            f"is {overlap}: each piece must have more tokens than it shares. Give more tokens, or a shorter question or stride."
        )
    return [whole.piece(*bounds) for bounds in windows(len(whole.offsets), room=room, overlap=overlap)]


def windows(length: int, *, room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the pieces of so many tokens."""
    start = 0
    while start + room < length:
        yield start, start + room
        start += room - overlap
    yield start, length


def _own_length(answerer: QuestionAnswerer) -> int:
    limit = answerer.model.longest_document
    own = answerer.model.config.settings_of_task("question-answering").get("max_seq_len", limit)
    if type(own) is not int or not 1 <= own <= limit:
        raise CheckpointError(
            f"task_specific_params of {answerer.name}'s config.json has max_seq_len {quoted(own)}; it is a whole number from 1 "
            f"to {limit}, the tokens that the model reads."
        )
    return own


def _beginning(answerer: QuestionAnswerer, question: str, most: int) -> str:
    """A question cut behind its `most`-th token."""
    encoding = answerer.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoding["offset_mapping"]
    return question if len(offsets) <= most else question[: offsets[most - 1][1]]


def _word_bounds(context: str) -> dict[int, tuple[int, int]]:
    """For each character of a word: the word's first character, and the one after its last; without the blank before it."""
    bounds, at = dict[int, tuple[int, int]](), 0
    for word in split(context):
        end = at + len(word)
        start = at + len(word) - len(word.lstrip()) if word.strip() else at
        bounds |= dict.fromkeys(range(at, end), (start, end))
        at = end
    return bounds
