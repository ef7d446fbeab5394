"""What each kernel of kernels.cu computes, said in NumPy: the stand-in's launches run these.

A twin believes its arguments as a kernel does: sizes and strides, not shapes, say where things are. It also sees to it
that the launch has threads for all there is to do, which a kernel cannot know. Whether the kernels compute the same is
shown elsewhere, on the kernels themselves (tests/kernels).
"""

import math
from typing import Any

import numpy as np
from stand_in.raw_kernels import Launch, register_twin

CHUNK = 256  # positions to a block of attend_chunk
WARP = 32
LOWEST = np.float32(-3.402823466e38)
_erfc = np.vectorize(math.erfc, otypes=[np.float32])


def register() -> None:
    """Give the stand-in all twins."""
    register_twin("band_softmax", band_softmax)
    register_twin("gelu", gelu)
    register_twin("layer_norm", layer_norm)
    register_twin("linear_few", linear_few)
    register_twin("attend_chunk", attend_chunk, strided=("keys", "values"))
    register_twin("attend_combine", attend_combine)
    register_twin("window_attend", window_attend, strided=("q", "k", "v"))


def enough(launch: Launch, found: int, needed: int, what: str) -> None:
    """The launch is just as large as it has to be: no more than a block too many."""
    of_block = found // launch.grid[0]
    if not needed <= found < needed + of_block:
        raise AssertionError(f"{launch} has {what} for {found}, and {needed} are needed")


def band_softmax(
    launch: Launch, scores: Any, is_local: Any, some_are_not: Any, queries: Any, globals_: Any, keys: Any, first: Any,
    radius: Any,
) -> None:  # fmt: skip
    """A block for each row; rows of queries repeat for every head."""
    rows = scores.reshape(-1, globals_ + keys)
    enough(launch, launch.grid[0], len(rows), "blocks")
    assert launch.block[0] % WARP == 0
    assert not some_are_not or is_local.size >= keys
    assert len(rows) % queries == 0
    own_key = first + np.arange(len(rows))[:, None] % queries
    sees = np.ones(rows.shape, bool)
    sees[:, globals_:] = abs(own_key - np.arange(keys)) <= radius
    if some_are_not:
        sees[:, globals_:] &= is_local.reshape(-1)[:keys]
    rows[...] = softmax(np.where(sees, rows.astype(np.float32), LOWEST))[0]


def softmax(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over the last axis, and the highest score and the total; what is LOWEST or less is hidden and becomes 0."""
    hidden = scores <= LOWEST
    highest = np.maximum(scores.max(-1, keepdims=True), LOWEST)
    weights = np.where(hidden, np.float32(0), np.exp(scores - highest))
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total == 0, 1, total), highest[..., 0], total[..., 0]


def gelu(launch: Launch, numbers: Any, count: Any) -> None:
    """A thread for each number."""
    enough(launch, launch.grid[0] * launch.block[0], count, "threads")
    flat = numbers.reshape(-1)[:count]
    x = flat.astype(np.float32)
    flat[...] = np.float32(0.5) * x * _erfc(x * np.float32(-0.70710678))


def layer_norm(
    launch: Launch, x: Any, update: Any, weight: Any, bias: Any, out: Any, rows: Any, width: Any, update_rows: Any
) -> None:
    """A warp for each row."""
    enough(launch, launch.grid[0] * launch.block[0] // WARP, rows, "warps")
    assert weight.size == bias.size == width <= 1024
    y = x.reshape(-1)[: rows * width].reshape(rows, width).astype(np.float32)
    if update_rows:
        assert update.size >= min(rows, update_rows) * width
        y += update.reshape(-1)[: update_rows * width].reshape(update_rows, width)[np.arange(rows) % update_rows]
    y -= y.mean(-1, keepdims=True)
    y /= np.sqrt((y * y).mean(-1, keepdims=True) + np.float32(1e-5))
    out.reshape(rows, width)[...] = y * weight.reshape(-1) + bias.reshape(-1)


def linear_few(launch: Launch, x: Any, weight: Any, bias: Any, out: Any, rows: Any, width: Any, outputs: Any) -> None:
    """A warp for each output."""
    enough(launch, launch.grid[0] * launch.block[0] // WARP, outputs, "warps")
    assert 0 < rows <= int(launch.of[1])
    assert (x.size, weight.size, bias.size, out.size) == (rows * width, outputs * width, outputs, rows * outputs)
    product = x.reshape(rows, width).astype(np.float32) @ weight.reshape(outputs, width).astype(np.float32).T
    out.reshape(rows, outputs)[...] = product + bias.reshape(-1).astype(np.float32)


def attend_chunk(
    launch: Launch, q: Any, keys: Any, values: Any, may_look: Any, highest: Any, total: Any, sums: Any, masked: Any,
    heads_each: Any, positions: Any, width: Any, key_stride: Any, value_stride: Any, look_document: Any, look_query: Any,
) -> None:  # fmt: skip
    """A block for each chunk of each head."""
    queries = int(launch.of[1])
    heads, chunks = q.size // (queries * width), math.ceil(positions / CHUNK)
    enough(launch, launch.grid[0], heads * chunks, "blocks")
    assert launch.block == (CHUNK,)
    assert sums.size == heads * chunks * queries * width
    assert highest.size == total.size == heads * chunks * queries
    q_hQK = q.reshape(heads, queries, width).astype(np.float32)
    k_hSK = _of_heads(keys, heads, positions, width, key_stride).astype(np.float32)
    v_hSK = _of_heads(values, heads, positions, width, value_stride).astype(np.float32)
    scores_hQS = q_hQK @ k_hSK.swapaxes(1, 2)
    if masked:
        flat, h, i, s = may_look.reshape(-1), *np.ogrid[:heads, :queries, :positions]
        scores_hQS[~flat[h // heads_each * look_document + i * look_query + s]] = LOWEST
    for chunk in range(chunks):
        these = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        probs, peak, sum_ = softmax(scores_hQS[:, :, these])
        highest.reshape(heads, chunks, queries)[:, chunk] = peak
        total.reshape(heads, chunks, queries)[:, chunk] = sum_
        sums.reshape(heads, chunks, queries, width)[:, chunk] = (probs * sum_[..., None]) @ v_hSK[:, these]


def _of_heads(store: np.ndarray, heads: int, positions: int, width: int, stride: int) -> np.ndarray:
    """(heads, positions, width) from a pointer and the numbers between two heads' beginnings, within what is allocated."""
    owner = store
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    room = (owner.ctypes.data + owner.nbytes - store.ctypes.data) // store.itemsize
    assert (heads - 1) * stride + positions * width <= room, "the stride leads out of the memory"
    size = store.itemsize
    return np.lib.stride_tricks.as_strided(store, (heads, positions, width), (stride * size, width * size, size))


def attend_combine(
    launch: Launch, highest: Any, total: Any, sums: Any, out: Any, rows: Any, chunks: Any, queries: Any, heads_each: Any,
    width: Any,
) -> None:  # fmt: skip
    """A thread for each number of the result."""
    enough(launch, launch.grid[0] * launch.block[0], rows * width, "threads")
    heads = rows // queries
    highest_hCQ, total_hCQ = (part.reshape(heads, chunks, queries) for part in (highest, total))
    scale_hCQ = np.exp(highest_hCQ - highest_hCQ.max(1, keepdims=True))
    all_hQ = (total_hCQ * scale_hCQ).sum(1)
    sum_hQK = (sums.reshape(heads, chunks, queries, width) * scale_hCQ[..., None]).sum(1)
    out_hQK = sum_hQK / np.where(all_hQ == 0, 1, all_hQ)[..., None]
    out.reshape(-1, queries, heads_each, width)[...] = out_hQK.reshape(-1, heads_each, queries, width).swapaxes(1, 2)


def window_attend(
    launch: Launch, q: Any, k: Any, v: Any, global_k: Any, global_v: Any, is_local: Any, out: Any, heads: Any, tokens: Any,
    globals_: Any, radius: Any, q_stride: Any, k_stride: Any, v_stride: Any,
) -> None:  # fmt: skip
    """A block for each 64 tokens of each head."""
    width = int(launch.of[1])
    enough(launch, launch.grid[0], heads * math.ceil(tokens / 64), "blocks")
    assert launch.block == (128,)
    assert (out.size, is_local.size) == (tokens * heads * width, tokens)
    for pointer, stride in ((q, q_stride), (k, k_stride), (v, v_stride)):
        assert pointer.ctypes.data % 16 == stride * pointer.itemsize % 16 == 0, "rows do not begin at 16 bytes"
    q_hTK, k_hTK, v_hTK = (
        _of_heads(x, heads, tokens, width, stride).astype(np.float32)
        for x, stride in ((q, q_stride), (k, k_stride), (v, v_stride))
    )
    if globals_:
        of_globals = (x.reshape(heads, globals_, width).astype(np.float32) for x in (global_k, global_v))
        k_hTK, v_hTK = (np.concatenate(pair, 1) for pair in zip(of_globals, (k_hTK, v_hTK), strict=True))
    local = is_local.reshape(-1)
    distance = abs(np.arange(tokens)[:, None] - np.arange(tokens))
    sees = np.concatenate([np.ones((tokens, globals_), bool), (distance <= radius) & local], 1) & local[:, None]
    probs = softmax(np.where(sees, q_hTK @ k_hTK.swapaxes(1, 2), LOWEST))[0]
    out.reshape(tokens, heads, width)[...] = (probs @ v_hTK).swapaxes(0, 1)
