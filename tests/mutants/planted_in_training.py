"""Bugs planted in the backward pass, in dropout, and in what a step makes of gradients: (name, file, source, planted, what)."""

WINDOW = "led_ref/model/sliding_window.py"
GLOBAL = "led_ref/model/global_attention.py"
FOLDING = "led_ref/model/folding.py"
ATTENTION = "led_ref/model/attention.py"
ENCODER = "led_ref/model/encoder.py"
DECODER = "led_ref/model/decoder.py"
OPS = "led_ref/model/ops.py"
LOSSES = "led_ref/model/losses.py"
HEADS = "led_ref/model/heads.py"
DROPOUT = "led_ref/model/dropout.py"
GRADIENTS = "led_ref/training/gradients.py"
TARGETS = "led_ref/training/targets.py"
ACCUMULATOR = "led_ref/training/accumulator.py"
CLIPPING = "led_ref/training/clipping.py"
OPTIMIZERS = "led_ref/training/optimizers.py"
SCHEDULES = "led_ref/training/schedules.py"
LORA = "led_ref/training/lora.py"
TRAINER = "led_ref/training/trainer.py"
STEP = "led_ref/training/step.py"
BACKWARD = "backends/led_backends/numpy_backward.py"

PLANTED = [
    # ---- the window ----
    (
        "key-gradient-of-the-last-block", WINDOW, "total_hTK[:, keys] += d_hZK[:, count:]",
        "total_hTK[:, keys] = d_hZK[:, count:]",
        "A key that several blocks see has the gradient of the last one.",
    ),
    (
        "global-columns-forgotten", WINDOW, "d_hTK[:, globals_G] += d_hGK", "pass",
        "Keys and values of global tokens learn nothing from the local tokens that see them.",
    ),
    (
        "global-columns-of-the-last-block", WINDOW, "total_hGK += d_hZK[:, :count]", "total_hGK[...] = d_hZK[:, :count]",
        "Keys and values of global tokens learn from the last block alone.",
    ),
    (
        "zeroed-rows-go-back", WINDOW, "dout_TD[backend.to_device((~window.mask.local_T).nonzero()[0])] = 0", "pass",
        "Rows of global and masked tokens, which were set to zero, have gradients.",
    ),
    (
        "window-values-undropped", WINDOW, "dv_hZK = _drop(probs_hQZ, window, block, h, backend).swapaxes(1, 2)",
        "dv_hZK = probs_hQZ.swapaxes(1, 2)",
        "The gradient of the window's values knows nothing of attention dropout.",
    ),
    (
        "window-probabilities-undropped", WINDOW, "dprobs_hQZ = _drop(dprobs_hQZ, window, block, h, backend)", "pass",
        "Dropped probabilities of the window have a gradient.",
    ),
    (
        "tile-dropout-by-place-in-the-tile", WINDOW, "xp.arange(block.start, block.stop), keys_Z)",
        "xp.arange(block.stop - block.start), keys_Z)",
        "Each block of queries draws the first block's attention dropout.",
    ),
    (
        "window-scale-forgotten", ENCODER, "dq_TD *= dq_TD.dtype.type(1 / math.sqrt(of.q_BHTK.shape[-1]))", "pass",
        "The gradient of the window's queries is not divided by the square root of K.",
    ),
    # ---- global rows ----
    (
        "global-scale-forgotten", GLOBAL, "dq_HGK *= dq_HGK.dtype.type(1 / math.sqrt(q_HGK.shape[-1]))", "pass",
        "The gradient of global queries is not divided by the square root of K.",
    ),
    (
        "global-query-does-not-reach-x", GLOBAL, "dx_TD[positions_G] += dx_GD", "pass",
        "Global tokens learn nothing as queries.",
    ),
    (
        "folded-keys-do-not-reach-x", GLOBAL,
        "folded_scores_backward(dscores_HGT, q_HGK, x_TD, params.key_global, backend)\n        dx_TD += more_TD",
        "folded_scores_backward(dscores_HGT, q_HGK, x_TD, params.key_global, backend)",
        "Tokens learn nothing as keys of few global queries.",
    ),
    (
        "folded-bias-does-not-reach-probabilities", FOLDING, "dprobs_HQT += dout_HQK @ value.bias.reshape(heads, width, 1)",
        "pass",
        "The value's bias plays no part in the gradient of global probabilities: seen only if some are dropped.",
    ),
    (
        "folded-bias-once", FOLDING, "(dout_HQK * probs_HQT.sum(-1)[:, :, None]).sum(1)", "dout_HQK.sum(1)",
        "The value's bias learns as if no global probability was dropped.",
    ),
    # ---- attention of the decoder, softmax ----
    (
        "decoder-scale-forgotten", ATTENTION, "dq_BHQK *= dq_BHQK.dtype.type(1 / math.sqrt(width))", "pass",
        "The gradient of the decoder's queries is not divided by the square root of K.",
    ),
    (
        "dropped-keys-of-the-last-block", ATTENTION, "dk_BHSK[b, h] += dscores_hQS", "dk_BHSK[b, h] = dscores_hQS",
        "With attention dropout, the decoder's keys learn from the last block of queries alone.",
    ),
    (
        "keys-of-the-last-block", BACKWARD, "dk_BHSK[head] += dscores_QS.T @ q_QK", "dk_BHSK[head] = dscores_QS.T @ q_QK",
        "The decoder's keys learn from the last block of queries alone.",
    ),
    (
        "values-of-the-last-block", BACKWARD, "dv_BHSK[head] += probs_QS.T @ dout_QK", "dv_BHSK[head] = probs_QS.T @ dout_QK",
        "The decoder's values learn from the last block of queries alone.",
    ),
    (
        "softmax-without-its-sum", BACKWARD, 'dprobs -= np.einsum("...s,...s->...", dprobs, probs)[..., None]', "pass",
        "A probability grows, and the others of its row do not shrink.",
    ),
    (
        "softmax-without-its-shift", BACKWARD, "probs_QS /= exponentials(probs_QS)",
        "probs_QS[...] = np.exp(probs_QS.astype(np.float32)); probs_QS /= probs_QS.sum(-1, keepdims=True)",
        "The softmax that is computed again does not take the highest score out, and overflows above 88.",
    ),
    # ---- residuals ----
    (
        "encoder-residual-forgotten", ENCODER, "dattended_BTD, dx_BTD, of, params, seeing, backend\n    )",
        "dattended_BTD, (dx_BTD := 0 * dx_BTD), of, params, seeing, backend\n    )",
        "The encoder's residual connection around attention hands nothing back.",
    ),
    (
        "decoder-residual-forgotten", DECODER, "dmiddle_BUD += dx_BUD", "dmiddle_BUD = dx_BUD",
        "The decoder's residual connection around cross-attention hands nothing back.",
    ),
    (
        "feed-forward-residual-forgotten", OPS, "dx=dsum_XD, dparams=dfc1", "dx=0 * dsum_XD, dparams=dfc1",
        "The residual connection around the feed-forward hands nothing back.",
    ),
    (
        "self-attention-as-queries-only", DECODER, "dinput_BUD += dy_BUD", "pass",
        "The decoder's positions learn nothing as keys and values of their own self-attention.",
    ),
    (
        "encoder-read-by-one-layer", GRADIENTS, "dread_BTD if dstates_BTD is None else dstates_BTD + dread_BTD", "dread_BTD",
        "The encoder learns from one layer of the decoder alone.",
    ),
    # ---- norms, maps, activations ----
    (
        "norm-without-eps", BACKWARD, "np.sqrt(variance_R1 + eps)", "np.sqrt(variance_R1)",
        "LayerNorm's backward has no eps.",
    ),
    (
        "norm-without-its-mean", BACKWARD, "dn_RD -= mean_R1", "pass",
        "A LayerNorm's gradient keeps the direction of the mean.",
    ),
    (
        "norm-without-its-length", BACKWARD, "dn_RD -= normal_RD", "pass",
        "A LayerNorm's gradient keeps the direction of the row itself.",
    ),
    (
        "norm-weight-forgotten", BACKWARD, "dn_RD *= weight_D", "pass",
        "LayerNorm's weight plays no part in the gradient of its input.",
    ),
    (
        "norm-of-the-last-block", OPS, "add_gradients(dnorm, more)", "dnorm = more",
        "The feed-forward's LayerNorm learns from the last block of positions alone.",
    ),
    (
        "weight-gradient-overwritten", BACKWARD, "dweight_FD[part] += dy_XP.T @ x_XD", "dweight_FD[part] = dy_XP.T @ x_XD",
        "A weight has the gradient of the last rows that went through it.",
    ),
    (
        "bias-gradient-overwritten", BACKWARD, "dbias_F[part] += ones_X @ dy_XP", "dbias_F[part] = ones_X @ dy_XP",
        "A bias has the gradient of the last rows that went through it.",
    ),
    (
        "input-gradient-overwritten", BACKWARD, "dx_XD[part] += dy_XF[part] @ weight_FD",
        "dx_XD[part] = dy_XF[part] @ weight_FD",
        "What goes through several maps learns from the last one.",
    ),
    (
        "gelu-without-its-density", BACKWARD, "slope += power  # Phi(x) + x phi(x)", "pass",
        "GELU's slope is Phi(x).",
    ),
    (
        "silu-without-its-own-slope", BACKWARD, "share * (1 + x * (1 - share))", "share",
        "SiLU's slope is sigmoid(x).",
    ),
    # ---- embeddings ----
    (
        "repeated-word-learns-once", BACKWARD,
        "table_VD[sorted_X[starts_U]] += np.add.reduceat(rows_XD[order_X], starts_U, axis=0)", "table_VD[ids_X] += rows_XD",
        "A word that occurs twice learns from one place.",
    ),
    (
        "pad-row-learns", OPS, "(ids_X != pad_token_id).nonzero()", "(ids_X >= 0).nonzero()",
        "The pad id's embedding learns from being looked up.",
    ),
    (
        "positions-of-one-document", OPS, "dx_BTD.sum(0)", "dx_BTD[0]",
        "A position learns from the first of the documents that are computed together.",
    ),
    (
        "tie-forgotten", GRADIENTS, "                dshared_VD = gradient\n", "                dshared_VD = 0 * gradient\n",
        "The tied table learns nothing as output projection.",
    ),
    (
        "look-ups-of-the-decoder-forgotten", GRADIENTS,
        'self._embed_backward(dx_BUD, batch.decoder_ids_BU, "decoder", dshared_VD, dropout)',
        'self._embed_backward(dx_BUD, batch.decoder_ids_BU, "decoder", None, dropout)',
        "The table learns nothing from what the decoder looks up.",
    ),
    (
        "decoder-frozen-too-high", GRADIENTS, "lowest = 0  # every layer hands", "pass  # every layer hands",
        "With a decoder trained in part, its lower layers hand nothing on to the encoder.",
    ),
    # ---- losses ----
    (
        "ignored-labels-divide", TARGETS, "return (int((self.labels_BU != IGNORED_LABEL).sum()),)",
        "return (self.labels_BU.size,)",
        "Labels of -100 count in what the loss is divided by.",
    ),
    (
        "ignored-label-is-the-first-word", LOSSES,
        "counted = (labels_U != IGNORED_LABEL).nonzero()[0]\n    total: Array",
        "counted, labels_U = np.arange(len(labels_U)), np.maximum(labels_U, 0)\n    total: Array",
        "A label of -100 is learned as the id 0.",
    ),
    (
        "smoothing-on-ignored-rows", LOSSES, "return total, dx_UD, dtable_VD",
        "return total, dx_UD - smoothing / divide_by * (labels_U == IGNORED_LABEL)[:, None], dtable_VD",
        "Positions whose label is -100 have a share of the label smoothing.",
    ),
    (
        "smoothing-not-in-the-gradient", LOSSES, "s_XV -= as_number(smoothing / vocabulary / divide_by)", "pass",
        "Label smoothing is in the loss, but half of it not in the gradient.",
    ),
    (
        "labels-of-the-first-block", LOSSES, "cross_entropy_backward(logits_XV, labels_U[rows],",
        "cross_entropy_backward(logits_XV, labels_U[counted[: len(rows)]],",
        "Later blocks of logits are compared with the labels of the first.",
    ),
    (
        "table-of-the-last-block", LOSSES,
        "dx_UD[at], _, _ = backend.linear_backward(dlogits_XV, x_XD, params.lm_head, into=(dtable_VD, dbias_V))",
        "dx_UD[at], dtable_VD, _ = backend.linear_backward(dlogits_XV, x_XD, params.lm_head)",
        "The output table learns from the last block of logits alone.",
    ),
    (
        "divided-by-the-block", LOSSES, "as_number(1 / divide_by) / total_X1", "as_number(1 / rows) / total_X1",
        "The probabilities' part of the gradient is divided by the block's labels, not by the step's.",
    ),
    (
        "span-loss-is-a-sum", LOSSES, "2 * divide_by[i]", "divide_by[i]",
        "The gradient of an answer is that of the sum of its two losses, not of their mean.",
    ),
    (
        "regression-without-its-two", LOSSES, "type(2 / divide_by)", "type(1 / divide_by)",
        "The gradient of a squared error is half of it.",
    ),
    (
        "tanh-slope", HEADS, "dtanh_BD * (1 - tanh_BD * tanh_BD)", "dtanh_BD * (1 - tanh_BD)",
        "The slope of tanh is 1 - tanh.",
    ),
    # ---- dropout ----
    (
        "dropout-drawn-anew", ENCODER, "EncoderLayerForward) else _forward(x_BTD, params, seeing, backend)",
        "EncoderLayerForward) else _forward(x_BTD, params, LayerSeeing(seeing.heads, seeing.masks,"
        ' type(seeing.dropout)(seeing.dropout.rates, 7, 0, seeing.dropout.documents)), backend)',
        "A layer that is computed again draws other dropout masks.",
    ),
    (
        "update-undropped", ENCODER, 'dupdate_BTD = dropout.hidden("self_attn.output").drop(dx_BTD, backend)',
        "dupdate_BTD = dx_BTD",
        "Dropped numbers of the encoder's attention update have a gradient.",
    ),
    (
        "mask-of-another-site", DECODER, 'dropout.hidden("encoder_attn.out_proj").drop(dmiddle_BUD, backend)',
        'dropout.hidden("self_attn.out_proj").drop(dmiddle_BUD, backend)',
        "Cross-attention's update goes back through the mask of self-attention.",
    ),
    (
        "activation-undropped", OPS, "dhidden_XF = fed_forward.drop_fc1(dhidden_XF, block)", "pass",
        "Dropped activations have a gradient.",
    ),
    (
        "first-mask-in-every-block", DROPOUT, "states_X = backend.xp.arange(x_XF.shape[-1], dtype=\"uint32\"), states_X[block]",
        "states_X = backend.xp.arange(x_XF.shape[-1], dtype=\"uint32\"), states_X[: len(x_XF)]",
        "Every block of rows draws the first block's dropout.",
    ),
    (
        "dropout-does-not-scale", DROPOUT, "dropped *= x.dtype.type(1 / (1 - self.rate))", "pass",
        "What dropout keeps does not grow.",
    ),
    (
        "dropout-keeps-p", DROPOUT, "hashes_XF >= np.uint32(", "hashes_XF < np.uint32(",
        "Dropout keeps a share p in place of 1 - p.",
    ),
    (
        "dropout-by-place-in-the-batch", DROPOUT, "documents=self.documents[documents]",
        "documents=range(len(self.documents[documents]))",
        "A document's dropout depends on its place in the batch.",
    ),
    (
        "same-dropout-in-every-step", DROPOUT, 'f"{self.seed} {self.step} {site} {document}"',
        'f"{self.seed} {site} {document}"',
        "Every step drops the same numbers.",
    ),
    # ---- what a step does with gradients ----
    (
        "accumulated-last-batch", ACCUMULATOR, "total[rows] += gradient[rows]", "total[rows] = gradient[rows]",
        "A step has the gradients of its last document.",
    ),
    (
        "gradients-not-cleared", ACCUMULATOR, "this one.\"\"\"\n        self._sums = {}", "this one.\"\"\"",
        "A step has the gradients of all steps before it, too.",
    ),
    (
        "batches-summed-not-averaged", ACCUMULATOR, "tuple(count * len(counts) for count in row)", "tuple(row)",
        "The transformers' way of accumulating sums the batches' means.",
    ),
    (
        "largest-norm-for-all", CLIPPING, "backend.xp.stack(squares).sum()", "backend.xp.stack(squares).max()",
        "Gradients are clipped by the norm of the largest of them.",
    ),
    (
        "clipped-by-the-square", TRAINER, "losses, math.sqrt(squared) / loss_scale", "losses, squared / loss_scale",
        "Gradients are clipped by the square of their norm.",
    ),
    (
        "short-gradients-grow", CLIPPING, "min(1.0, max_norm / (norm + 1e-6))", "max_norm / (norm + 1e-6)",
        "Gradients shorter than the limit are stretched to it.",
    ),
    (
        "first-moment-correction-late", OPTIMIZERS, "rate / (1 - self.beta1**step)", "rate / (1 - self.beta1 ** (step + 1))",
        "The bias correction of AdamW's first moment is one step ahead.",
    ),
    (
        "second-moment-correction-late", OPTIMIZERS, "math.sqrt(1 - self.beta2**step)",
        "math.sqrt(1 - self.beta2 ** (step + 1))",
        "The bias correction of AdamW's second moment is one step ahead.",
    ),
    (
        "eps-before-the-correction", OPTIMIZERS, "root /= root_of_bias\n            root += self.eps",
        "root += self.eps\n            root /= root_of_bias",
        "AdamW's eps is added to the root before it is corrected.",
    ),
    (
        "decay-on-biases", OPTIMIZERS, 'return not (name.endswith(".bias") or "norm" in name)', 'return "norm" not in name',
        "Biases decay.",
    ),
    (
        "decay-on-norms", OPTIMIZERS, 'return not (name.endswith(".bias") or "norm" in name)',
        'return not name.endswith(".bias")',
        "LayerNorm's weights decay.",
    ),
    (
        "decay-without-the-rate", OPTIMIZERS, "rate * self.weight_decay if decays(name) else 0.0, scale, backend",
        "self.weight_decay if decays(name) else 0.0, scale, backend",
        "AdamW's decay does not follow the learning rate.",
    ),
    (
        "adafactor-columns-by-the-width", OPTIMIZERS, "sum_in_order(column_sums) / rows", "sum_in_order(column_sums) / width",
        "Adafactor's means of columns are divided by the length of a row.",
    ),
    (
        "adafactor-rows-not-normalised", OPTIMIZERS, "xp.sqrt(moments[0] / moments[0].mean())", "xp.sqrt(moments[0])",
        "Adafactor's two factors both carry the size of the gradient.",
    ),
    (
        "adafactor-one-step-ahead", OPTIMIZERS, "kept = 1 - steps[name] ** self.decay_rate",
        "kept = 1 - (steps[name] + 1) ** self.decay_rate",
        "Adafactor's second moment keeps zeros of before the first step.",
    ),
    (
        "adafactor-always-clips", OPTIMIZERS, "backend.xp.maximum(rms / self.clip_threshold, 1)", "(rms / self.clip_threshold)",
        "Adafactor stretches small updates to its threshold.",
    ),
    (
        "warm-up-one-early", SCHEDULES, "return highest * step / self.warmup_steps",
        "return highest * (step + 1) / self.warmup_steps",
        "The warm-up is one step ahead.",
    ),
    (
        "linear-ends-one-early", SCHEDULES, "(self.total_steps - step) / falling", "(self.total_steps - step - 1) / falling",
        "The learning rate is 0 a step too early.",
    ),
    (
        "lora-scale-forgotten", LORA, "(b.T @ gradient) * scale", "(b.T @ gradient)",
        "The gradient of LoRA's A lacks alpha / rank.",
    ),
    (
        "lora-merged-without-scale", LORA, "adapted(weight, a, b, self.alpha / self.rank)", "adapted(weight, a, b, 1.0)",
        "The model computes with W + B A.",
    ),
    (
        "documents-numbered-by-the-batch", STEP, "Dropout(self.rates, self.args.seed, number, part.documents)",
        "Dropout(self.rates, self.args.seed, number, range(len(part.documents)))",
        "The documents of every batch of a step have the same dropout.",
    ),
]  # fmt: skip
