"""Bugs planted in the model: (name, file, source, planted, what)."""

MASKS = "led_ref/model/masks.py"
WINDOW = "led_ref/model/sliding_window.py"
GLOBAL = "led_ref/model/global_attention.py"
ENCODER = "led_ref/model/encoder.py"
DECODER = "led_ref/model/decoder.py"
OPS = "led_ref/model/ops.py"
LOSSES = "led_ref/model/losses.py"
ATTENTION = "led_ref/model/attention.py"
FOLDING = "led_ref/model/folding.py"
CACHE = "led_ref/model/kv_cache.py"
BACKEND = "backends/led_backends/numpy_backend.py"
PIECES = "backends/led_backends/numpy_pieces.py"

# In longformer_self_attention; the layer in training, below it, has the same line.
FIRST_PROJECTION = "when the next is computed.\n    q_BHTK = scale_and_split("

PLANTED = [
    # ---- the band ----
    (
        "band-left-short", PIECES, "abs(rows - np.arange(columns.start, columns.stop)) <= radius",
        "(rows - np.arange(columns.start, columns.stop) < radius) & (np.arange(columns.start, columns.stop) - rows <= radius)",
        "The band ends one key early on the left.",
    ),
    (
        "band-right-short", PIECES, "abs(rows - np.arange(columns.start, columns.stop)) <= radius",
        "(rows - np.arange(columns.start, columns.stop) <= radius) & (np.arange(columns.start, columns.stop) - rows < radius)",
        "The band ends one key early on the right.",
    ),
    (
        "band-left-long", PIECES, "first + queries - 1 - radius))", "first + queries - 2 - radius))",
        "The last query of a block sees one key too many on the left.",
    ),
    (
        "band-right-long", PIECES, "right_start = max(first + radius + 1,", "right_start = max(first + radius + 2,",
        "The first query of a block sees one key too many on the right.",
    ),
    (
        "corners-narrow", PIECES, "abs(rows - np.arange(columns.start, columns.stop)) <= radius",
        "abs(rows - np.arange(columns.start, columns.stop)) < radius",
        "In the corners of a tile the band is one key narrower on either side.",
    ),
    (
        "band-begins-elsewhere", MASKS, "Band(start - low, radius, local_S)", "Band(radius, radius, local_S)",
        "A tile at the document's start takes the band of one further in.",
    ),
    (
        "tile-sees-all-kinds", BACKEND, "if band.local_S is not None:", "if False:",
        "The band sees padding, and global tokens a second time.",
    ),
    (
        "total-for-radius", "led_ref/config.py", "tuple(window // 2 for window in self.windows)", "self.windows",
        "config.json's attention_window, the total width, is taken for the radius.",
    ),
    (
        "one-window-for-all-layers", ENCODER, "zip(params.layers, masks, strict=True)",
        "zip(params.layers, masks[:1] * len(params.layers), strict=True)",
        "Every layer has the first layer's window.",
    ),
    # ---- kinds of tokens ----
    (
        "minus-one-ignored", MASKS, "unmasked_BT & (global_attention_mask_BT != -1)", "unmasked_BT",
        "A -1 in the global mask does not mask its token.",
    ),
    (
        "minus-one-is-global", MASKS, "unmasked_BT & (global_attention_mask_BT == 1)",
        "(attention_mask_BT == 1) & (global_attention_mask_BT != 0)",
        "A -1 in the global mask marks a global token.",
    ),
    (
        "global-mark-on-padding", MASKS, "global_BT = unmasked_BT & (global_attention_mask_BT == 1)",
        "global_BT = global_attention_mask_BT == 1",
        "A global mark on a masked token makes it global.",
    ),
    (
        "padding-seen", MASKS, "unmasked_BT = attention_mask_BT == 1", "unmasked_BT = attention_mask_BT >= 0",
        "The encoder does not look at the attention mask.",
    ),
    (
        "global-counted-twice", MASKS, "unmasked_T & ~global_T, np", "unmasked_T, np",
        "A global token inside the window is seen twice: in its own column and in the band.",
    ),
    (
        "global-column-dropped", WINDOW, "globals_G = backend.to_device(mask.global_positions_G)",
        "globals_G = backend.to_device(mask.global_positions_G[:0])",
        "Local tokens do not see the global ones.",
    ),
    (
        "global-weighed-not-added", WINDOW, "v_hZK = with_globals(v_HGK[h], v_HTK[h], block, backend)",
        "v_hZK = with_globals(0 * v_HGK[h], v_HTK[h], block, backend)",
        "The global columns take their share of the softmax, but their values are not added.",
    ),
    (
        "masked-row-not-zeroed", WINDOW, "out_THK[backend.to_device((~mask.local_T).nonzero()[0])] = 0", "pass",
        "The rows of masked tokens hold attention instead of zeros.",
    ),
    (
        "hidden-by-a-large-number", BACKEND, "np.copyto(scores, -np.inf, where=~may_look)",
        "np.copyto(scores, -1e4, where=~may_look)",
        "Hidden scores are -10,000, not minus infinity: a row that may look at nothing looks at everything.",
        "What comes of a row that may look at nothing is left open: nothing that counts reads it.",
    ),
    # ---- the scale ----
    (
        "scaled-twice", OPS, "1 / math.sqrt(q_BTD.shape[-1] // heads)", "1 / (q_BTD.shape[-1] // heads)",
        "Queries are divided by the square root of K twice.",
    ),
    (
        "scaled-by-the-model-width", OPS, "math.sqrt(q_BTD.shape[-1] // heads)", "math.sqrt(q_BTD.shape[-1])",
        "Queries are divided by the square root of D instead of K.",
    ),
    (
        "scaled-before-the-bias", ENCODER, f"{FIRST_PROJECTION}linear(x_BTD, params.query, backend), heads, backend)",
        f"{FIRST_PROJECTION}linear(x_BTD, params.query, backend) - params.query.bias, heads, backend)"
        " + backend.split_heads(params.query.bias[None, None], heads)",
        "The encoder's queries are scaled before their bias is added.",
    ),
    (
        "global-query-not-scaled", GLOBAL, "q_HGK = scale_and_split(q_GD[None], heads, backend)[0]",
        "q_HGK = backend.split_heads(q_GD[None], heads)[0]",
        "Global queries are not scaled.",
    ),
    (
        "decoder-not-scaled", ATTENTION, "scale_and_split(q_NUD.reshape(documents, -1, q_NUD.shape[-1]), heads, backend)",
        "backend.split_heads(q_NUD.reshape(documents, -1, q_NUD.shape[-1]), heads)",
        "The decoder's queries are not scaled.",
    ),
    # ---- global attention ----
    (
        "global-query-local-weights", GLOBAL, "linear(x_TD[positions_G], params.query_global, backend)",
        "linear(x_TD[positions_G], params.query, backend)",
        "Global queries come from the local projection.",
    ),
    (
        "local-query-global-weights", ENCODER, f"{FIRST_PROJECTION}linear(x_BTD, params.query, backend)",
        f"{FIRST_PROJECTION}linear(x_BTD, params.query_global, backend)",
        "Local queries come from the global projection.",
    ),
    (
        "global-key-local-weights", GLOBAL, "folded_scores(q_HGK, x_TD, params.key_global, backend)\n    if may_look_T",
        "folded_scores(q_HGK, x_TD, params.key, backend)\n    if may_look_T",
        "Few global queries meet the local keys.",
    ),
    (
        "many-globals-local-values", GLOBAL, "v_HTK = backend.split_heads(linear(x_TD, params.value_global, backend)",
        "v_HTK = backend.split_heads(linear(x_TD, params.value, backend)",
        "Many global queries take the local values.",
    ),
    (
        "folded-bias-missing", FOLDING, "mixed_HQD @ value_HDK + value.bias.reshape(heads, 1, width)",
        "mixed_HQD @ value_HDK",
        "The values' bias is lost when the projection is folded.",
    ),
    (
        "folded-key-bias", GLOBAL, "x_TD, params.value_global, backend)\n\n\ndef",
        "x_TD, type(params.key)(params.value_global.weight, params.key_global.bias), backend)\n\n\ndef",
        "The folded values get the keys' bias.",
    ),
    (
        "global-sees-padding", GLOBAL,
        "may_look_T = None if mask.unmasked_T.all() else backend.to_device(mask.unmasked_T)",
        "may_look_T = None",
        "Global tokens see padding.",
    ),
    (
        "global-sees-local-only", GLOBAL,
        "may_look_T = None if mask.unmasked_T.all() else backend.to_device(mask.unmasked_T)",
        "may_look_T = backend.to_device(mask.local_T)",
        "Global tokens see neither themselves nor each other.",
    ),
    (
        "global-heads-mixed", GLOBAL, "out_HGK.swapaxes(0, 1).reshape(len(positions_G)",
        "out_HGK.reshape(len(positions_G)",
        "Heads and global tokens are laid out the wrong way round.",
    ),
    (
        "first-document-only", ENCODER, "if len(mask.global_positions_G):  # their rows",
        "if len(mask.global_positions_G) and b == 0:  # their rows",
        "Only the first document of a batch has its global rows computed.",
    ),
    # ---- embeddings, blocks ----
    (
        "positions-plus-two", OPS, "slice(first, first + x_BTD.shape[1])",
        "slice(first + 2, first + 2 + x_BTD.shape[1])",
        "Positions begin at 2, as in BART.",
    ),
    (
        "embeddings-scaled", OPS, "add_and_norm(x_BTD, positions_TD,",
        "add_and_norm(x_BTD * math.sqrt(x_BTD.shape[-1]), positions_TD,",
        "Token embeddings are multiplied by the square root of D.",
    ),
    (
        "pre-norm", OPS, "return backend.layer_norm(x, params.weight, params.bias, update)",
        "return backend.layer_norm(update, params.weight, params.bias) + x",
        "The residual is added after the LayerNorm instead of before it.",
    ),
    (
        "heads-cut-across-positions", BACKEND, "x_BTD.reshape(batch, length, heads, d_model // heads).swapaxes(1, 2)",
        "x_BTD.reshape(batch, heads, length, d_model // heads)",
        "A row-major reshape cuts heads across positions.",
    ),
    (
        "unbiased-variance", BACKEND, "[:, None] / width", "[:, None] / (width - 1)",
        "LayerNorm takes the sample's variance instead of the population's.",
    ),
    (
        "eps-of-another-model", BACKEND, "LAYER_NORM_EPS = 1e-5", "LAYER_NORM_EPS = 1e-12",
        "LayerNorm's eps is BERT's 1e-12.",
    ),
    (
        "eps-outside-the-root", BACKEND, "np.sqrt(variance + LAYER_NORM_EPS)", "(np.sqrt(variance) + LAYER_NORM_EPS)",
        "LayerNorm's eps is added to the standard deviation.",
    ),
    (
        "tanh-gelu", BACKEND, "self._in_place(gelu_in_place, x)", "self._in_place(gelu_new_in_place, x)",
        "GELU is the approximation with tanh.",
    ),
    (
        "relu-for-gelu", PIECES, "    x -= tail\n", "    pass\n",
        "GELU's tail is missing: what is left is ReLU.",
    ),
    # ---- the decoder ----
    (
        "causal-sees-one-ahead", DECODER, "(np.arange(positions) <= positions - new + u)",
        "(np.arange(positions) <= positions - new + u + 1)",
        "The causal mask comes one late: each position sees the next.",
    ),
    (
        "causal-hides-itself", DECODER, "(np.arange(positions) <= positions - new + u)",
        "(np.arange(positions) < positions - new + u)",
        "The causal mask comes one early: no position sees itself.",
    ),
    (
        "causal-forgets-the-cache", DECODER, "(np.arange(positions) <= positions - new + u)",
        "(np.arange(positions) <= u)",
        "With a cache, several new positions are masked as if they were the first ones.",
    ),
    (
        "target-padding-seen", DECODER, "real_BWS[:, :, None] & (np", "np.ones_like(real_BWS)[:, :, None] & (np",
        "The decoder does not look at its attention mask.",
    ),
    (
        "beams-see-each-other", DECODER, "new > 1 or slots_BWS.shape[1] > 1 or", "new > 1 or",
        "A text sees what the other beams of its document wrote.",
    ),
    (
        "cross-attention-sees-padding", DECODER, "return backend.to_device(attention_mask_BT == 1)[:, None]",
        "return None",
        "Cross-attention sees the document's padding.",
    ),
    (
        "cache-positions-from-zero", DECODER, "first=cache.length)", "first=0)",
        "With a cache, every new id is at position 0.",
    ),
    (
        "cache-positions-late", DECODER, "first=cache.length)", "first=max(cache.length - 1, 0))",
        "With a cache, positions are one too low.",
    ),
    (
        "new-keys-backwards", DECODER, "new_NUD.reshape(memory.documents, -1, new_NUD.shape[-1])",
        "new_NUD.reshape(memory.documents, -1, new_NUD.shape[-1])[:, :: (-1 if new_NUD is k_NUD else 1)]",
        "Several new keys are stored last one first, their values in order.",
    ),
    (
        "beams-and-documents-mixed", ATTENTION,
        "scale_and_split(q_NUD.reshape(documents, -1, q_NUD.shape[-1]), heads, backend)",
        "scale_and_split(q_NUD.reshape(-1, documents, q_NUD.shape[-1]).swapaxes(0, 1), heads, backend)",
        "Rows are read as beam by document, so beams read other documents.",
    ),
    (
        "cache-reordered-by-half", CACHE, "self.slots_BWS[document_B1, parents_BW % beams]",
        "np.concatenate([self.slots_BWS[document_B1, parents_BW % beams][:, :, :-1], self.slots_BWS[:, :, -1:]], 2)",
        "A beam takes over the past of the one that it goes on from, but for the last position.",
    ),
    (
        "continuations-share-a-place", CACHE, "claims.setdefault(self.length, claim) is not claim", "False",
        "Two continuations of one past write their keys to the same place.",
        "Each case goes on from a past once.",
    ),
    (
        "cache-reorder-forgotten", "led_ref/classes/generate.py", "self.cache = self.cache.reorder(parents_N)", "pass",
        "The cache stays where it was when beams change places.",
    ),
    # ---- logits and loss ----
    (
        "logits-bias-missing", DECODER, "params.final_logits_bias[0])", "0 * params.final_logits_bias[0])",
        "final_logits_bias is not added.",
    ),
    (
        "output-table-always-tied", DECODER, "params.lm_head,", "params.shared,",
        "An output table of the checkpoint's own is not used.",
    ),
    (
        "loss-over-ignored-labels", LOSSES, "dtype.type(len(labels))", "dtype.type(labels_BU.size)",
        "The loss is divided by all labels, those of -100 included.",
    ),
    (
        "labels-not-shifted", LOSSES, "shifted[:, 1:] = labels_BU[:, :-1]", "shifted[:, 1:] = labels_BU[:, 1:]",
        "The decoder reads the very label that it is to predict.",
    ),
]  # fmt: skip
