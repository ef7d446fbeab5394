"""generate for prompts that are padded: each row is continued as it would be alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.classes import input_checks as inputs
from led_ref.classes.generate import prepare, resolve, run
from led_ref.classes.led import LEDModel, Progress
from led_ref.classes.outputs import GenerateOutput, LEDEncoderBaseModelOutput
from led_ref.errors import InputError
from led_ref.generation.settings.resolve import look_up
from led_ref.generation.settings.settings import SETTINGS
from led_ref.model.intermediates import Recorder

Allowed = Callable[[int, HostArray], Iterable[int]]


def generate_by_prompt_length(
    led: LEDModel,
    generation_config: Mapping[str, Any] | None,
    input_ids: Any = None,
    *,
    decoder_attention_mask: Any,
    decoder_input_ids: Any = None,
    attention_mask: Any = None,
    global_attention_mask: Any = None,
    encoder_outputs: Any = None,
    prefix_allowed_tokens_fn: Allowed | None = None,
    progress: Progress | None = None,
    recorder: Recorder | None = None,
    **rest: Any,
) -> HostArray | GenerateOutput:
    """`generate` with padded prompts: the documents are encoded together, and searched in groups of one prompt length.

    So each row is continued as if it were alone. A row of the result is its prompt as given, without padding on the right,
    and the new ids; of an output with return_dict_in_generate, without padding at all. The caller's own rules see the rows
    of a group; prefix_allowed_tokens_fn gets the document's number.

    Raises:
        InputError: if the mask does not fit, has gaps, or return_dict_in_generate asks for one output of several searches.
    """
    if decoder_input_ids is None:
        raise InputError("There is a decoder_attention_mask, but no decoder_input_ids that it speaks of. Give both.")
    prompt_BP = inputs.checked_ids("decoder_input_ids", decoder_input_ids, led.config.vocab_size)
    _check_count(len(prompt_BP), input_ids, encoder_outputs, led)
    first_B, lengths_B = _extents(decoder_attention_mask, prompt_BP)
    groups = [np.flatnonzero(lengths_B == length) for length in np.unique(lengths_B)]
    if len(groups) > 1 and (rest.get("return_dict_in_generate") or recorder is not None):
        raise InputError(
            f"The prompts have {len(groups)} different lengths, so there are {len(groups)} searches, and no single output of "
            "all their steps. Call generate for prompts of one length at a time."
        )
    if encoder_outputs is None and input_ids is not None:
        encoder_outputs = led.encoder(
            input_ids, attention_mask, global_attention_mask, recorder=recorder, progress=progress
        )
        global_attention_mask = None
    rows: dict[int, HostArray] = {}
    for group_X in groups:
        length = int(lengths_B[group_X[0]])
        prompts_XP = np.stack([prompt_BP[b, first_B[b] : first_B[b] + length] for b in group_X])

        found = run(
            prepare(
                led,
                generation_config,
                None if input_ids is None else np.asarray(input_ids)[group_X],
                attention_mask=None if attention_mask is None else np.asarray(attention_mask)[group_X],
                global_attention_mask=global_attention_mask,
                encoder_outputs=_of_documents(encoder_outputs, group_X, led),
                decoder_input_ids=prompts_XP,
                prefix_allowed_tokens_fn=_numbered(prefix_allowed_tokens_fn, group_X),
                progress=progress,
                recorder=recorder,
                **_with_seeds_of(group_X, len(prompt_BP), rest),
            )
        )
        if not isinstance(found, np.ndarray):
            return found
        sequences = found
        returned = len(sequences) // len(group_X)
        for x, b in enumerate(group_X.tolist()):
            for r in range(returned):
                rows[b * returned + r] = np.concatenate([prompt_BP[b, : first_B[b]], sequences[x * returned + r]])
    given = look_up({k: v for k, v in rest.items() if k in SETTINGS}, generation_config, led.config.to_dict())
    return _filled_up([rows[n] for n in sorted(rows)], resolve(given, led, 1).fill_token_id)


def _extents(decoder_attention_mask: Any, prompt_BP: HostArray) -> tuple[HostArray, HostArray]:
    """Where each prompt begins, and how long it is: (B,) each."""
    mask_BP = inputs.checked_mask("decoder_attention_mask", decoder_attention_mask, prompt_BP.shape) == 1
    first_B, lengths_B = mask_BP.argmax(axis=1), mask_BP.sum(axis=1)
    for b, (first, length) in enumerate(zip(first_B, lengths_B, strict=True)):
        if not length or not mask_BP[b, first : first + length].all():
            raise InputError(
                f"Row {b} of decoder_attention_mask is {mask_BP[b].astype(int).tolist()}: a prompt is at least one id, and all "
                "its padding stands on one side of it."
            )
    return first_B, lengths_B


def _check_count(prompts: int, input_ids: Any, encoder_outputs: Any, led: LEDModel) -> None:
    given = input_ids
    if encoder_outputs is not None:
        given = inputs.checked_encoder_outputs(encoder_outputs, led.config).last_hidden_state
    if given is not None and len(given) != prompts:
        raise InputError(f"There are {prompts} prompts for {len(given)} documents. Give one for each.")


def _with_seeds_of(group_X: HostArray, prompts: int, rest: dict[str, Any]) -> dict[str, Any]:
    """The settings with the seeds of a group's documents, where each document has one."""
    seeds = rest.get("seed")
    if not isinstance(seeds, list | tuple | np.ndarray) or len(seeds) != prompts:
        return rest
    return {**rest, "seed": [seeds[b] for b in group_X]}


def _numbered(allowed: Allowed | None, group_X: HostArray) -> Allowed | None:
    """The caller's function, which knows a document by its number in the batch and not in its group."""
    return None if allowed is None else lambda x, ids: allowed(int(group_X[x]), ids)


def _of_documents(encoder_outputs: Any, rows_X: HostArray, led: LEDModel) -> LEDEncoderBaseModelOutput | None:
    if encoder_outputs is None:
        return None
    states = inputs.checked_encoder_outputs(encoder_outputs, led.config).last_hidden_state
    return LEDEncoderBaseModelOutput(states[led.backend.to_device(rows_X)])


def _filled_up(rows: Sequence[HostArray], fill_token_id: int) -> HostArray:
    filled = np.full((len(rows), max(map(len, rows))), fill_token_id, np.int64)
    for n, row in enumerate(rows):
        filled[n, : len(row)] = row
    return filled
