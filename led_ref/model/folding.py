r"""Attention without keys and values: the projections are moved to the other side of the product.

Attention over T tokens x_j with keys Wk x_j + bk and values Wv x_j + bv usually projects every token first: 2 T D^2
multiplications a layer, and 2 T D numbers to keep. For few queries the matrices can be applied to the queries instead:

    q . (Wk x_j + bk)         = (q Wk) . x_j + q . bk      the last term is the same for every j: softmax does not see it
    sum_j p_j (Wv x_j + bv)   = Wv (sum_j p_j x_j) + bv    because the p_j add up to one

where Wk and Wv (K, D) are one head's rows of the matrices. For Q queries of H heads that costs 2 Q H T D. Two places use
it: global attention, where it is less work as long as there are fewer queries than a head is wide, and the decoder's
cross-attention if asked, where it is more work, but the encoder's states are all the memory it takes.

With one head of width 1 over tokens of width 2, Wk = [1, 3], bk = 5:

    >>> import numpy as np
    >>> x_TD, w_KD, q = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 3.0]]), 0.5
    >>> (q * (x_TD @ w_KD.T + 5)).ravel().tolist(), ((q * w_KD) @ x_TD.T).ravel().tolist()  # differ by q bk = 2.5
    ([3.0, 5.5], [0.5, 3.0])
"""

from led_backends.contract import Array, Backend
from led_ref.model.params import Linear


def folded_scores(q_HQK: Array, x_TD: Array, key: Linear, backend: Backend) -> Array:
    """`q . (Wk x_j)` for every query and token, (H, Q, T), without the term that softmax does not see."""
    heads, queries, width = q_HQK.shape
    length, d_model = x_TD.shape
    folded_HQD = q_HQK @ backend.rows(key.weight).reshape(heads, width, d_model)
    scores_HQT: Array = (folded_HQD.reshape(heads * queries, d_model) @ x_TD.T).reshape(heads, queries, length)
    return scores_HQT


def folded_values(probs_HQT: Array, x_TD: Array, value: Linear, backend: Backend) -> Array:
    """`Wv (sum_j p_j x_j) + bv`: (H, Q, K)."""
    heads, queries, length = probs_HQT.shape
    d_model = x_TD.shape[-1]
    width = len(value.bias) // heads
    mixed_HQD = (probs_HQT.reshape(heads * queries, length) @ x_TD).reshape(heads, queries, d_model)
    value_HDK = backend.rows(value.weight).reshape(heads, width, d_model).swapaxes(-1, -2)
    out_HQK: Array = mixed_HQD @ value_HDK + value.bias.reshape(heads, 1, width)
    return out_HQK


def folded_attention(
    q_BHQK: Array, x_BTD: Array, key: Linear, value: Linear, may_look_BQT: Array | None, backend: Backend
) -> Array:
    """What `backend.attend` gives for keys `key(x)` and values `value(x)`, with neither ever made: (B, H, Q, K)."""
    out_BHQK: Array = backend.xp.empty(q_BHQK.shape, dtype=q_BHQK.dtype)
    for b, x_TD in enumerate(x_BTD):
        scores_HQT = folded_scores(q_BHQK[b], x_TD, key, backend)
        if may_look_BQT is not None:
            backend.hide(scores_HQT, may_look_BQT[b if len(may_look_BQT) > 1 else 0])
        out_BHQK[b] = folded_values(backend.softmax(scores_HQT), x_TD, value, backend)
    return out_BHQK


# ---- backward ------------------------------------------------------------------------------------------------------------


def folded_scores_backward(
    dscores_HQT: Array, q_HQK: Array, x_TD: Array, key: Linear, backend: Backend
) -> tuple[Array, Array, Array]:
    """Of `(q Wk) . x`: the gradients of q, of x, and of Wk.

    With f = q Wk: `df = ds x`, `dx = ds.T f`, `dq = df Wk.T`, `dWk = q.T df`. The key's bias has none: softmax does not see it.
    """
    heads, queries, width = q_HQK.shape
    length, d_model = x_TD.shape
    key_HKD = backend.rows(key.weight).reshape(heads, width, d_model)
    dscores_XT = dscores_HQT.reshape(heads * queries, length)
    dfolded_HQD = (dscores_XT @ x_TD).reshape(heads, queries, d_model)
    dx_TD = dscores_XT.T @ (q_HQK @ key_HKD).reshape(heads * queries, d_model)
    dkey_HKD = q_HQK.swapaxes(1, 2) @ dfolded_HQD
    return dfolded_HQD @ key_HKD.swapaxes(1, 2), dx_TD, dkey_HKD.reshape(heads * width, d_model)


def folded_values_backward(
    dout_HQK: Array, probs_HQT: Array, x_TD: Array, value: Linear, backend: Backend
) -> tuple[Array, Array, Linear]:
    """Of `Wv (sum_j p_j x_j) + sum_j p_j bv`: the gradients of the probabilities, of x, and of the map.

    With m = sum_j p_j x_j: `dm = dout Wv`, `dp = dm x + dout bv`, `dx = p.T dm`, `dWv = dout.T m`. The p_j add up to one
    unless some are dropped.
    """
    heads, queries, width = dout_HQK.shape
    length, d_model = x_TD.shape
    value_HKD = backend.rows(value.weight).reshape(heads, width, d_model)
    probs_XT = probs_HQT.reshape(heads * queries, length)
    dmixed_XD = (dout_HQK @ value_HKD).reshape(heads * queries, d_model)
    dprobs_HQT = (dmixed_XD @ x_TD.T).reshape(heads, queries, length)
    dprobs_HQT += dout_HQK @ value.bias.reshape(heads, width, 1)
    mixed_HQD = (probs_XT @ x_TD).reshape(heads, queries, d_model)
    dvalue_HKD = dout_HQK.swapaxes(1, 2) @ mixed_HQD
    dbias_HK = (dout_HQK * probs_HQT.sum(-1)[:, :, None]).sum(1)
    return dprobs_HQT, probs_XT.T @ dmixed_XD, Linear(dvalue_HKD.reshape(heads * width, d_model), dbias_HK.reshape(-1))
