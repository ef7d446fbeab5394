"""Bugs planted in the search and in its rules about the next id: (name, file, source, planted, what)."""

BEAM = "led_ref/generation/beam_search.py"
GREEDY = "led_ref/generation/greedy_search.py"
RULES = "led_ref/generation/processors.py"
NEVER = 'settings.early_stopping == "never" and settings.length_penalty > 0'

TIES = "LED leaves the order of equal scores open; the vectors take either."

PLANTED = [
    # ---- beams ----
    (
        "beam-ties-to-the-higher", BEAM, 'return np.argsort(-scores_BX, axis=1, kind="stable")[:, :count]',
        'return np.argsort(scores_BX, axis=1, kind="stable")[:, ::-1][:, :count]',
        "Of equal texts the later one wins.", TIES,
    ),
    (
        "candidate-ties-to-the-higher", BEAM, 'np.argsort(-scores_X[reaching], kind="stable")[:count]',
        'np.argsort(scores_X[reaching], kind="stable")[::-1][:count]',
        "Of equal candidates the higher beam and id win.", TIES,
    ),
    (
        "all-beams-begin", BEAM, "first_only_BW[:, 0] = 0", "first_only_BW[:] = 0",
        "All beams begin with a score of 0, and so write the same text.",
    ),
    (
        "too-few-candidates", BEAM, "kept = settings.candidates_per_beam * W", "kept = W",
        "Only W candidates are looked at: those that end leave nothing to go on with.",
    ),
    (
        "any-candidate-finishes", BEAM, "(np.arange(candidates.stops_BC.shape[1]) < settings.num_beams)",
        "(np.arange(candidates.stops_BC.shape[1]) >= 0)",
        "A candidate finishes though W others are better.",
    ),
    (
        "ended-goes-on", BEAM, "np.where(candidates.stops_BC, NO_SCORE, np.float32(0))", "np.float32(0)",
        "A text that has ended goes on.",
    ),
    (
        "length-penalty-sign", BEAM, "np.float32(generated**settings.length_penalty)",
        "np.float32(generated**-settings.length_penalty)",
        "A positive length penalty favours short texts.",
    ),
    (
        "length-counts-the-prompt", BEAM, "generated = beams.length + 1 - beams.prompt_length", "generated = beams.length + 1",
        "The length penalty counts the start id and the prompt.",
    ),
    (
        "early-stopping-takes-more", BEAM, "keepdims=True) & (settings.early_stopping is True)",
        "keepdims=True) & False",
        "early_stopping=True takes better texts though it has enough.",
    ),
    (
        "early-stopping-at-the-first-document", BEAM, "bool(beams.is_finished_BW.all())",
        "bool(beams.is_finished_BW.all(axis=1).any())",
        "early_stopping=True stops the whole batch when its first document has enough.",
    ),
    (
        "early-stopping-always", BEAM, "keepdims=True) & (settings.early_stopping is True)", "keepdims=True)",
        "Every search takes no more texts once it has W.",
    ),
    (
        "never-is-false", BEAM, NEVER, "False",
        'early_stopping="never" is treated as False.',
    ),
    (
        "never-hopes-against-the-penalty", BEAM, NEVER, 'settings.early_stopping == "never"',
        '"never" hopes for the longest text where short ones are favoured.',
    ),
    (
        "hope-against-the-best", BEAM, "beams.finished.scores_BX.min(axis=1, keepdims=True)",
        "beams.finished.scores_BX.max(axis=1, keepdims=True)",
        "A document is closed when its best finished text, not its worst, cannot be beaten.",
    ),
    (
        "closed-takes-more", BEAM, "(is_full_B1, ~beams.is_open_B[:, None], ~finishes_BC)", "(is_full_B1, ~finishes_BC)",
        "A closed document takes more texts while others of its batch go on.",
    ),
    (
        "closed-opens-again", BEAM, "is_open_B=beams.is_open_B & can_improve(after", "is_open_B=can_improve(after",
        "A document that was closed can open again.",
    ),
    (
        "no-log-softmax", BEAM, "logprobs_NV = log_softmax(logits_NV)", "logprobs_NV = logits_NV",
        "Beams add up logits instead of log-probabilities.",
    ),
    (
        "renormalised", BEAM, "scores_NV = hooks.process(prefix_NU, logprobs_NV)",
        "scores_NV = log_softmax(hooks.process(prefix_NU, logprobs_NV))",
        "What the processors leave is normalised again.",
    ),
    (
        "parents-forgotten", BEAM,
        "parents = _as_rows(beams.running.rows_BXL[:, :, beams.length - 1 - beams.prompt_length]).astype(np.int64)",
        "parents = np.arange(len(new_ids))",
        "The model ignores that beams have changed places.",
    ),
    (
        # Another document's beams would be refused by the cache: a crash, which does not count.
        "parents-of-the-first-beam", BEAM, "beam_BC + W * np.arange(B)[:, None]", "0 * beam_BC + W * np.arange(B)[:, None]",
        "The model goes on from each document's first beam, whichever was chosen.",
    ),
    # ---- greedy search ----
    (
        "greedy-ties-to-the-higher", GREEDY, "scores_NV.argmax(axis=-1)",
        "scores_NV.shape[1] - 1 - scores_NV[:, ::-1].argmax(axis=-1)",
        "Of equal ids the higher one is written.", TIES,
    ),
    (
        "greedy-one-too-long", GREEDY, "ids_NU.shape[1] < settings.max_length", "ids_NU.shape[1] <= settings.max_length",
        "Greedy search writes one id more than max_length.",
    ),
    (
        "written-after-the-end", GREEDY, "np.where(running_N, picked_N, fill)", "picked_N",
        "A row that has ended goes on with words instead of pad.",
    ),
    # ---- rules about the next id ----
    (
        "repetition-penalty-negative", RULES, "np.where(scores < 0, scores * penalty, scores / penalty)",
        "scores / penalty",
        "A repetition penalty raises negative scores.",
    ),
    (
        "source-penalty-reversed", RULES, "_rescale(row[distinct], 1 / penalty)", "_rescale(row[distinct], penalty)",
        "encoder_repetition_penalty lowers the source's ids.",
    ),
    (
        "ngram-one-too-long", RULES, "partial(forbid_repeated_ngrams, size=settings.no_repeat_ngram_size)",
        "partial(forbid_repeated_ngrams, size=settings.no_repeat_ngram_size + 1)",
        "One n-gram length too late: n ids may come twice, n + 1 not.",
    ),
    (
        "source-ngrams-of-another-document", RULES, "tables[n // beams]", "tables[n % len(tables)]",
        "Rows look up the n-grams of another document.",
    ),
    (
        "min-length-one-late", RULES, "ids_NU.shape[1] >= least_length", "ids_NU.shape[1] > least_length",
        "The end is held back for one id too long.",
    ),
    (
        "forced-bos-one-late", RULES, "at_length=1)", "at_length=2)",
        "The forced first id comes second.",
    ),
    (
        "forced-eos-one-late", RULES, "at_length=settings.max_length - 1", "at_length=settings.max_length",
        "The forced end would come one step after the last.",
    ),
]  # fmt: skip
