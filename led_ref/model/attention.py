"""The decoder's attention on arrays: every query sees every key that its mask lets through. No cache.

    q = (Wq x + bq) / sqrt(K)      k = Wk y + bk      v = Wv y + bv
    attention(x, y) = out_proj(softmax(q k.T) v)      for each head of width K (checkpoint `led.decoder.layers.i.*_attn`)

Self-attention has y = x and a causal mask, cross-attention has y = the encoder's states and their padding mask. decoder.py
uses the same pieces with a KV cache between them: keys and values of earlier positions are kept, and not computed again.

N = B W rows: the W rows of a document (its beams) are W times as many queries to the same keys.
"""

from led_backends.contract import Array, Backend
from led_ref.model.ops import linear, scale_and_split
from led_ref.model.params import AttentionParams, Linear


def attention(
    x_NUD: Array, y_BSD: Array, params: AttentionParams, heads: int, mask_BQS: Array | None, backend: Backend
) -> Array:
    """Attention from x to y: (N, U, D).

    Args:
        x_NUD: the queries' sequence.
        y_BSD: the sequence of keys and values; document b is that of rows b W to (b + 1) W.
        params: the four projections.
        heads: H.
        mask_BQS: bool, True: this query sees this key; Q = W U. Broadcasts over B and Q; None: every query sees every key.
        backend: where to compute.
    """
    q_BHQK = split_queries(linear(x_NUD, params.q_proj, backend), len(y_BSD), heads, backend)
    k_BHSK = backend.split_heads(linear(y_BSD, params.k_proj, backend), heads)
    v_BHSK = backend.split_heads(linear(y_BSD, params.v_proj, backend), heads)
    out_BHQK = backend.attend(q_BHQK, k_BHSK, v_BHSK, mask_BQS)
    return merge_and_project(out_BHQK, x_NUD.shape, params.out_proj, backend)


def split_queries(q_NUD: Array, documents: int, heads: int, backend: Backend) -> Array:
    """`q / sqrt(K)` as (B, H, Q, K): all queries to a document's keys as the rows of one matrix, Q = W U. Overwrites q."""
    return scale_and_split(q_NUD.reshape(documents, -1, q_NUD.shape[-1]), heads, backend)


def merge_and_project(out_BHQK: Array, shape: tuple[int, ...], out_proj: Linear, backend: Backend) -> Array:
    """Heads side by side again, rows as they were, and the output projection: (B, H, Q, K) -> (N, U, D)."""
    attended_NUD = out_BHQK.swapaxes(1, 2).reshape(shape)
    return linear(attended_NUD, out_proj, backend)
