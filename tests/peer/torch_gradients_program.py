"""Level 8 of the conformance vectors by torch's autograd: what torch_led_program.py does forward, and `backward` of it.

Dropout is given in the cases. Meanwhile torch's own dropout multiplies by their masks, in the order in which transformers'
modules call it.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.nn.functional import cross_entropy

MAPS = ("query_global", "key_global", "value_global")


class Gradients:
    """A method for each operation; `program` does the operation itself."""

    def __init__(self, program):
        self.program = program

    def answer(self, case, inputs, arguments):
        """{"outputs": ...}."""
        operation = case["operation"]
        method = getattr(self, f"do_{operation}", None)
        forward = getattr(self.program, f"do_{operation.removesuffix('_backward')}", None)
        inputs = {name: value.clone() for name, value in inputs.items()}
        with torch.enable_grad():
            found = method(case, inputs, arguments) if method else self.through(forward, case, inputs, arguments)
        return {"outputs": {name: value.detach() for name, value in found.items()}}

    def through(self, forward, case, inputs, arguments):
        """Gradients of what the case gives, and of the layer's weights if it names a layer."""
        inputs = dict(inputs)
        given = inputs.pop("y.grad")
        leaves = {name: x.requires_grad_() for name, x in inputs.items() if x.is_floating_point()}
        if "layer" in arguments:
            side = case["operation"].partition("_")[0]
            leaves |= self.weights(self.program.model(case), f"led.{side}.layers.{arguments['layer']}.")
        (y,) = forward(case, inputs, arguments).values()
        return of_leaves(leaves, y, given)

    @staticmethod
    def weights(model, prefix=""):
        return {name: p.requires_grad_() for name, p in model.named_parameters() if name.startswith(prefix)}

    def do_embed_backward(self, _, i, a):
        leaves = {name: x.requires_grad_() for name, x in i.items() if x.is_floating_point() and name != "y.grad"}
        rows = torch.nn.functional.embedding(i["ids"], leaves["table"], padding_idx=a["pad_token_id"])
        x = rows + leaves["positions"][: len(i["ids"])]
        y = torch.nn.functional.layer_norm(x, x.shape[-1:], leaves["weight"], leaves["bias"])
        return of_leaves(leaves, y, i["y.grad"])

    def do_global_rows_backward(self, _, i, a):
        """The whole self-attention; only its global rows have a gradient."""
        window = 4
        length, width = i["x"].shape
        padded = -(-length // window) * window
        module = self.program.self_attention(width, a["heads"], window)
        leaves = {"x": i["x"].requires_grad_()}
        for name in MAPS:
            for part in ("weight", "bias"):
                leaves[f"{name}.{part}"] = getattr(getattr(module, name), part)
                with torch.no_grad():
                    leaves[f"{name}.{part}"].copy_(i[f"{name}.{part}"])
        kinds = (i["attention_mask"] * (i["global_attention_mask"] + 1))[None]
        x = torch.cat([leaves["x"], leaves["x"].new_zeros(padded - length, width)])[None]
        globals_ = (kinds[0] == 2).nonzero()[:, 0]
        masks = [None, i["global_probs.kept"][:, globals_]] if "global_probs.kept" in i else []
        with given_masks(masks, a.get("attention_dropout", 0.0)):
            out = module(x, **self.program.encoder_masks(kinds, padded))[0][0, globals_]
        return of_leaves(leaves, out, i["y.grad"])

    def do_loss_backward(self, _, i, a):
        logits = i["logits"].requires_grad_()
        loss = cross_entropy(logits.flatten(0, 1), i["labels"].flatten(), label_smoothing=a["label_smoothing"])
        return {"loss": loss, **of_leaves({"logits": logits}, loss)}

    def loss_and_weights(self, case, i, a):
        """The loss of a case, and the model's parameters, which have their gradients."""
        i = dict(i)
        kept = {name.removesuffix(".kept"): i.pop(name) for name in list(i) if name.endswith(".kept")}
        model, labels = self.program.model(case), i.pop("labels")
        for side in (model.led.encoder, model.led.decoder):
            side.embed_tokens.weight = model.led.shared.weight
        masks = list(masks_in_order(model.config, kept, i["global_attention_mask"])) if kept else []
        model.zero_grad()
        with given_masks(masks, a.get("dropout", 0.0)):
            logits = model(**i, labels=labels, use_cache=False).logits.flatten(0, 1)
        loss = cross_entropy(logits, labels.flatten(), label_smoothing=a.get("label_smoothing", 0.0))
        loss.backward()
        return loss, self.weights(model)

    def do_gradients(self, case, i, a):
        loss, weights = self.loss_and_weights(case, i, a)
        return {"loss": loss, **{f"{name}.grad": grad_of(p).clone() for name, p in weights.items()}}

    def do_training_step(self, case, i, a):
        loss, parameters = self.loss_and_weights(case, i, a)
        weights = {name: torch.nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
        for name, p in weights.items():
            p.grad = grad_of(parameters[name]).clone()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), a["max_grad_norm"])
        adamw(weights, a).step()
        return {"loss": loss, "grad_norm": norm, **weights}

    def do_adamw(self, _, i, a):
        names = [name.removesuffix(".grad") for name in i if name.endswith(".grad")]
        weights = {name: torch.nn.Parameter(i[name].clone()) for name in names}
        optimizer = adamw(weights, a)
        for name, p in weights.items():
            p.grad = i[f"{name}.grad"]
            optimizer.state[p] = {
                "step": torch.tensor(float(a["step"] - 1)),
                **{moment: i[f"{name}.{moment}"].clone() for moment in ("exp_avg", "exp_avg_sq")},
            }
        optimizer.step()
        moments = {
            f"{name}.{moment}": optimizer.state[p][moment]
            for name, p in weights.items()
            for moment in ("exp_avg", "exp_avg_sq")
        }
        return {**weights, **moments}


def of_leaves(leaves, y, given=None):
    """NAME.grad of each; zeros where none comes back."""
    found = torch.autograd.grad(y, list(leaves.values()), given, allow_unused=True)
    return {
        f"{name}.grad": torch.zeros_like(x) if grad is None else grad
        for (name, x), grad in zip(leaves.items(), found, strict=True)
    }


def grad_of(parameter):
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def adamw(weights, a):
    """As transformers' Trainer groups them: biases and LayerNorms do not decay."""
    groups = [
        {"params": [p for name, p in weights.items() if is_exempt(name) == exempt], "weight_decay": decay}
        for exempt, decay in ((True, 0.0), (False, a["weight_decay"]))
    ]
    betas = a["adam_beta1"], a["adam_beta2"]
    return torch.optim.AdamW(groups, a["learning_rate"], betas, a["adam_epsilon"], foreach=False)


def is_exempt(name):
    return name.endswith(".bias") or "norm" in name


# ---- dropout ----------------------------------------------------------------------------------------------------------


@contextmanager
def given_masks(masks, p):
    """Meanwhile torch's dropout takes these masks, one a call; without masks nothing is dropped."""
    waiting = iter(masks)

    def drop(x, **_):
        kept = next(waiting) if masks else None
        if kept is None:
            return x
        kept = kept.reshape(x.shape) if kept.numel() == x.numel() else kept
        factors = torch.ones_like(x)  # of the positions with which transformers pads a document
        factors[tuple(slice(size) for size in kept.shape)] = kept.to(x.dtype) / (1 - p)
        return x * factors

    with mock.patch("torch.nn.functional.dropout", drop):
        yield


def masks_in_order(config, kept, marks):
    """As encoder and decoder call dropout."""
    yield kept["led.encoder.layernorm_embedding"]
    globals_ = [row.nonzero()[:, 0] for row in marks > 0]
    for n, window in enumerate(config.attention_window):
        layer = f"led.encoder.layers.{n}"
        yield in_columns(kept[f"{layer}.self_attn.probs"], globals_, window // 2)
        yield of_globals(kept[f"{layer}.self_attn.global_probs"], globals_)
        yield from (kept[f"{layer}.{site}"] for site in ("self_attn.output", "fc1", "fc2"))
    yield kept["led.decoder.layernorm_embedding"]
    sites = ("self_attn.probs", "self_attn.out_proj", "encoder_attn.probs", "encoder_attn.out_proj", "fc1", "fc2")
    for n in range(config.decoder_layers):
        yield from (kept[f"led.decoder.layers.{n}.{site}"] for site in sites)


def in_columns(kept, globals_, radius):
    """(B, H, T, T) -> (B, T, H, G + 2R + 1): columns of global tokens first, a token's own at G + R."""
    batch, heads, length, _ = kept.shape
    most = max(map(len, globals_))
    found = kept.new_ones(batch, length, heads, most + 2 * radius + 1)
    for b in range(batch):
        found[b, :, :, : len(globals_[b])] = kept[b][:, :, globals_[b]].transpose(0, 1)
        for i in range(length):
            for j in range(max(0, i - radius), min(length, i + radius + 1)):
                found[b, i, :, most + radius + j - i] = kept[b, :, i, j]
    return found


def of_globals(kept, globals_):
    """(B, H, T, T) -> (B H, G, T)."""
    batch, heads, length, _ = kept.shape
    found = kept.new_ones(batch, heads, max(map(len, globals_)), length)
    for b in range(batch):
        found[b, :, : len(globals_[b])] = kept[b][:, globals_[b]]
    return found.flatten(0, 1)
