"""Transition scores: the score of each generated id, whose sum is the score of a text."""

import numpy as np
import numpy.typing as npt

from led_ref.errors import InputError
from led_ref.generation.step import Ids, Scores, log_softmax


def compute_transition_scores(
    sequences: Ids, scores: tuple[Scores, ...], beam_indices: npt.NDArray[np.integer] | None = None, *, normalize: bool
) -> npt.NDArray[np.float32]:
    """For each id of each text, its score in the step that chose it: `scores[step][row, id]`.

    `row` is the same in every step without beams. With beams a hypothesis changes rows, and beam_indices has its row.
    Source: transformers 5.23, GenerationMixin.compute_transition_scores.

    Args:
        sequences: (N, P + U) ids, prompt first, as a search returned them.
        scores: its scores, (rows, V) for each step.
        beam_indices: (N, U), with beams; None: without.
        normalize: take the log-softmax of the scores first. Without beams they are logits, which are no measure by themselves.

    Returns:
        (N, U) float32; 0 where beam_indices is -1, after a text's end.

    Raises:
        InputError: if the scores are of fewer steps than ids, or of other rows.

    Example:
        >>> steps = (np.log([[0.5, 0.3, 0.2]]), np.log([[0.1, 0.1, 0.8]]))
        >>> np.exp(compute_transition_scores(np.array([[2, 0, 2]]), steps, normalize=False)).round(2).tolist()
        [[0.5, 0.800000011920929]]
    """
    if beam_indices is None:
        generated = len(scores)
        rows_NU = np.repeat(np.arange(len(sequences))[:, None], generated, axis=1)
    else:
        generated = int((beam_indices >= 0).sum(axis=1).max())
        rows_NU = np.asarray(beam_indices)[:, :generated]
    if generated > len(scores) or generated >= sequences.shape[1] or rows_NU.shape != (len(sequences), generated):
        shape = None if beam_indices is None else beam_indices.shape
        raise InputError(
            f"sequences has shape {sequences.shape}, there are scores of {len(scores)} steps, and beam_indices is of shape "
            f"{shape}: these are not of one search. Pass result.sequences, result.scores and result.beam_indices together."
        )
    ids_NU = sequences[:, sequences.shape[1] - generated :]
    result_NU = np.zeros(ids_NU.shape, dtype=np.float32)
    for step in range(generated):
        step_scores = log_softmax(scores[step]) if normalize else scores[step]
        real_N = rows_NU[:, step] >= 0
        result_NU[real_N, step] = step_scores[rows_NU[real_N, step], ids_NU[real_N, step]]
    return result_NU
