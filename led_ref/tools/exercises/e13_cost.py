"""What does a token cost?

To generate one token the decoder reads its weights and the keys and values of the document, each number once: on a CPU this
takes the time, not the arithmetic. A layer has these matrices (D is the width of the model, F that of the feed-forward):

    q, k, v, out of self-attention   4 of D x D
    q and out of cross-attention     2 of D x D    (keys and values of the document were computed before the first token)
    fc1, fc2                         2 of D x F

and of the document T keys and T values of width D. At the end the logits read a table of V x D. Biases and norms are
small and are not counted here; a number takes 4 bytes.
"""

from led_ref.tools.exercises.expect import Yours, expect


def weight_bytes(layers: int, d: int, f: int, v: int) -> int:
    """Bytes of weights that one step reads."""
    return 4 * (layers * (6 * d * d + 2 * d * f) + v * d)


def document_bytes(layers: int, d: int, tokens: int, documents: int, beams: int) -> int:
    """Bytes of keys and values of the documents. The beams of a document share one copy, and all of it is read once."""
    del beams  # they all attend to the same keys
    return 4 * layers * documents * tokens * 2 * d


def check_a_model_by_hand(yours: Yours) -> None:
    """One layer of width 2."""
    expect(yours.weight_bytes(1, 2, 3, 5), 4 * (6 * 4 + 12 + 10), "weight_bytes(1, 2, 3, 5)")
    expect(yours.document_bytes(1, 2, 7, 1, 1), 4 * 28, "document_bytes(1, 2, 7, 1, 1)")


def check_beams_cost_nothing_here(yours: Yours) -> None:
    """One copy for all beams of a document; two documents are two copies."""
    one = yours.document_bytes(6, 768, 16384, 1, 1)
    expect(yours.document_bytes(6, 768, 16384, 1, 4), one, "document_bytes with 4 beams")
    expect(yours.document_bytes(6, 768, 16384, 2, 1), 2 * one, "document_bytes of 2 documents")


def check_the_cost_model_agrees(yours: Yours) -> None:
    """led_ref/costs/operations.py counts the same for led-base."""
    from led_ref.costs.operations import LED_BASE, Workload, cross_work

    wanted = cross_work(LED_BASE, Workload(tokens=4096, batch=2, beams=4)).bytes
    expect(yours.document_bytes(6, 768, 4096, 2, 4), wanted, "document_bytes(6, 768, 4096, 2, 4)")
