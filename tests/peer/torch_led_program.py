"""transformers' LED as a program that the conformance vectors can ask.

    led-ref vectors check tests/vectors/v1 --dtype float32 --cmd 'python tests/peer/torch_led_program.py {in} {out}'

It knows nothing of led_ref. With a third word, `lift`, the one softmax that transformers computes in float32 whatever the
model's type (the encoder's) is computed in the model's type; without it nothing behind that softmax can be right in float64.
An exception counts as a refusal, as a user of transformers would take it.
"""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, gelu, layer_norm, linear, relu, silu
from torch_gradients_program import Gradients
from transformers import LEDConfig, LEDForConditionalGeneration, LEDTokenizer
from transformers.activations import ACT2FN
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.led.modeling_led import (
    LEDDecoderAttention,
    LEDEncoderSelfAttention,
    _prepare_4d_attention_mask_inverted,
    shift_tokens_right,
)


class Given(torch.nn.Module):
    """Stands in for a projection: it gives what it was given."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, _):
        return self.value.clone()


class Table(LEDForConditionalGeneration):
    """A model whose logits are a table's row: what follows id v in document b, table[b, v].

    The number of the document travels through generate as the encoder's state, which is repeated for the beams.
    """

    def forward(self, decoder_input_ids=None, encoder_outputs=None, **_):
        documents = encoder_outputs[0][:, 0, 0].long()
        return Seq2SeqLMOutput(logits=self.table[documents, decoder_input_ids[:, -1]][:, None])


class Program:
    """Answers cases: a method for each operation."""

    def __init__(self, folder, index):
        self.folder, self.models, self.dtype = folder, index["models"], getattr(torch, index["dtype"])

    def answer(self, case, inputs):
        inputs = {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        if case["id"].startswith("L8"):
            return Gradients(self).answer(case, inputs, case["arguments"])
        method = getattr(self, f"do_{case['operation']}", None)
        if method is None:
            return {"unsupported": f"there is no {case['operation']} in transformers"}
        with torch.no_grad():
            return {"outputs": method(case, inputs, case["arguments"])}

    # ---- models ---------------------------------------------------------------------------------------------------

    def model(self, case):
        names = ("attention_window", "activation_function")
        changes = {name: case["arguments"][name] for name in names if name in case["arguments"]}
        return self.load(case["model"], json.dumps(changes))

    @functools.cache  # noqa: B019
    def load(self, name, changes):
        if name in ("bundled", "led-base-16384"):
            return LEDForConditionalGeneration.from_pretrained(self.models[name]["folder"]).to(self.dtype).eval()
        values = {**self.models[name]["config"], **json.loads(changes)}
        model = LEDForConditionalGeneration(LEDConfig(**{k: v for k, v in values.items() if k != "model_type"}))
        prefix = f"{name}/"
        weights = load_file(self.folder / self.models[name]["weights"])
        weights = {k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}
        for key in ("lm_head.weight", "led.encoder.embed_tokens.weight", "led.decoder.embed_tokens.weight"):
            weights.setdefault(key, weights["led.shared.weight"])
        model.load_state_dict(weights)
        return model.to(self.dtype).eval()

    @functools.cache  # noqa: B019
    def tokenizer(self, name):
        folder = self.folder if name == "tokenizer" else Path(self.models[name]["folder"])
        mask = transformers.AddedToken("<mask>", lstrip=True, special=True, normalized=False)
        merges = [line for line in (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:] if line]
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        return LEDTokenizer(vocab=vocab, merges=[tuple(pair.split(" ")) for pair in merges], mask_token=mask)

    # ---- L0 -------------------------------------------------------------------------------------------------------

    def do_tokenize(self, case, _, a):
        specials = a.get("add_special_tokens", True)
        return {
            "ids": whole(self.tokenizer(case["model"]).encode(a["text"], a.get("pair"), add_special_tokens=specials))
        }

    def do_detokenize(self, case, inputs, a):
        ids, skip = inputs["ids"].tolist(), a["skip_special_tokens"]
        text = self.tokenizer(case["model"]).decode(ids, skip_special_tokens=skip)
        return {"text": torch.tensor(list(text.encode("utf-8")), dtype=torch.uint8)}

    def do_tokenize_batch(self, case, _, a):
        settings = {"padding": True, **a}
        batch = self.tokenizer(case["model"])(settings.pop("texts"), **settings)
        return {name: whole(batch[name]) for name in ("input_ids", "attention_mask")}

    def do_pad(self, case, _, a):
        return {name: whole(rows) for name, rows in self.tokenizer(case["model"]).pad(dict(a)).items()}

    # ---- L1 -------------------------------------------------------------------------------------------------------

    def do_linear(self, _, i, __):
        return {"y": linear(i["x"], i["weight"], i["bias"])}

    def do_layer_norm(self, _, i, __):
        return {"y": layer_norm(i["x"], i["x"].shape[-1:], i["weight"], i["bias"])}

    def do_gelu(self, _, i, __):
        return {"y": gelu(i["x"])}

    def do_relu(self, _, i, __):
        return {"y": relu(i["x"])}

    def do_silu(self, _, i, __):
        return {"y": silu(i["x"])}

    def do_gelu_new(self, _, i, __):
        return {"y": ACT2FN["gelu_new"](i["x"])}

    def do_softmax(self, _, i, __):
        lowest = torch.finfo(self.dtype).min
        return {"y": torch.softmax(i["scores"].masked_fill(i["may_look"] == 0, lowest), dim=-1)}

    def do_embed(self, _, i, __):
        x = i["table"][i["ids"]] + i["positions"][: len(i["ids"])]
        return {"y": layer_norm(x, x.shape[-1:], i["weight"], i["bias"])}

    def do_shift(self, _, i, a):
        return {"decoder_input_ids": shift_tokens_right(i["labels"], a["pad_token_id"], a["decoder_start_token_id"])}

    # ---- L2 and L3 ------------------------------------------------------------------------------------------------

    def do_window(self, _, i, a):
        """The self-attention with q, k and v in place of its projections, global rows blanked afterwards."""
        heads, length, width = i["q"].shape
        module = self.self_attention(heads * width, heads, 2 * a["radius"])
        padded = -(-length // (2 * a["radius"])) * 2 * a["radius"]
        for name, part in (("query", "q"), ("key", "k"), ("value", "v")):
            x = i[part].transpose(0, 1).reshape(length, 1, heads * width)
            setattr(module, name, Given(torch.cat([x, x.new_zeros(padded - length, 1, heads * width)])))
        kinds = (i["attention_mask"] * (i["global_attention_mask"] + 1))[None]
        hidden = torch.zeros(1, padded, heads * width, dtype=self.dtype)
        out = module(hidden, **self.encoder_masks(kinds, padded))[0][0, :length].clone()
        out[kinds[0] != 1] = 0
        return {"out": out}

    def self_attention(self, width, heads, window):
        config = LEDConfig(d_model=width, encoder_attention_heads=heads, attention_window=[window])
        return LEDEncoderSelfAttention(config, 0).to(self.dtype).eval()

    def encoder_masks(self, kinds, padded):
        """0, 1, 2 as the encoder's layers take them: lowest, 0, highest; padding is masked."""
        kinds = torch.cat([kinds, kinds.new_zeros(len(kinds), padded - kinds.shape[1])], dim=1)
        mask = _prepare_4d_attention_mask_inverted(kinds, self.dtype)[:, 0, 0]
        is_global = mask > 0
        return {
            "attention_mask": mask,
            "is_index_masked": mask < 0,
            "is_index_global_attn": is_global,
            "is_global_attn": is_global.any().item(),
        }

    def do_full(self, _, i, __):
        heads, queries, width = i["q"].shape
        module = LEDDecoderAttention(heads * width, heads, layer_idx=0).to(self.dtype).eval()
        for name, part in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v")):
            setattr(module, name, Given(i[part].transpose(0, 1).reshape(1, -1, heads * width)))
        module.out_proj = torch.nn.Identity()
        x = torch.zeros(1, queries, heads * width, dtype=self.dtype)
        states = torch.zeros(1, i["k"].shape[1], heads * width, dtype=self.dtype)
        return {"out": module(x, key_value_states=states, attention_mask=self.hiding(i["may_look"][None, None]))[0][0]}

    def hiding(self, may_look):
        """1 and 0 as what is added to scores."""
        return torch.zeros(may_look.shape, dtype=self.dtype).masked_fill(may_look == 0, torch.finfo(self.dtype).min)

    def encoder_module(self, case, i, pick):
        model, layer = self.model(case), case["arguments"]["layer"]
        batch, length, _ = i["x"].shape
        window = model.config.attention_window[layer]
        padded = -(-length // window) * window
        seen = i.get("attention_mask", torch.ones(batch, length, dtype=torch.long))
        kinds = seen * (i.get("global_attention_mask", torch.zeros_like(seen)) + 1)
        x = torch.cat([i["x"], i["x"].new_zeros(batch, padded - length, i["x"].shape[2])], dim=1)
        module = pick(model.led.encoder.layers[layer])
        return {"y": module(x, **self.encoder_masks(kinds, padded))[0][:, :length]}

    def do_encoder_attention(self, case, i, _):
        return self.encoder_module(case, i, lambda layer: layer.self_attn)

    def do_encoder_layer(self, case, i, _):
        return self.encoder_module(case, i, lambda layer: layer)

    def causal(self, i):
        batch, length, _ = i["x"].shape
        may_look = torch.ones(length, length).tril()[None, None].expand(batch, 1, -1, -1)
        seen = i.get("decoder_attention_mask")
        return self.hiding(may_look if seen is None else may_look * seen[:, None, None])

    def across(self, i):
        return self.hiding(i["attention_mask"][:, None, None].expand(-1, 1, i["x"].shape[1], -1))

    def do_decoder_attention(self, case, i, a):
        module = self.model(case).led.decoder.layers[a["layer"]].self_attn
        return {"y": module(i["x"], attention_mask=self.causal(i))[0]}

    def do_cross_attention(self, case, i, a):
        module = self.model(case).led.decoder.layers[a["layer"]].encoder_attn
        return {"y": module(i["x"], key_value_states=i["states"], attention_mask=self.across(i))[0]}

    def do_decoder_layer(self, case, i, a):
        layer = self.model(case).led.decoder.layers[a["layer"]]
        masks = {"attention_mask": self.causal(i), "encoder_attention_mask": self.across(i)}
        return {"y": layer(i["x"], encoder_hidden_states=i["states"], use_cache=False, **masks)[0]}

    def do_encoder(self, case, i, _):
        out = self.model(case).led.encoder(**i, output_hidden_states=True)
        return {f"hidden_states_{n}": state for n, state in enumerate(out.hidden_states)}

    def do_encoder_attentions(self, case, i, _):
        out = self.model(case).led.encoder(**i, output_attentions=True)
        length = i["input_ids"].shape[1]
        found = {f"attentions_{n}": table for n, table in enumerate(out.attentions)}
        return found | {f"global_attentions_{n}": t[:, :, :length] for n, t in enumerate(out.global_attentions)}

    def do_decoder(self, case, i, _):
        states = BaseModelOutput(last_hidden_state=i.pop("states"))
        out = self.model(case)(encoder_outputs=states, output_hidden_states=True, use_cache=False, **i)
        return {f"hidden_states_{n}": state for n, state in enumerate(out.decoder_hidden_states)}

    # ---- L4 to L7 -------------------------------------------------------------------------------------------------

    def do_loss(self, _, i, __):
        return {"loss": cross_entropy(i["logits"].flatten(0, 1), i["labels"].flatten())}

    def do_forward(self, case, i, _):
        out = self.model(case)(**i, use_cache=False)
        return {"logits": out.logits} if out.loss is None else {"logits": out.logits, "loss": out.loss}

    def do_decode_in_parts(self, case, i, a):
        model, rows, ids = self.model(case), a["rows_per_document"], i.pop("decoder_input_ids")
        states = model.led.encoder(**i)[0].repeat_interleave(rows, dim=0)
        mask = i["attention_mask"].repeat_interleave(rows, dim=0)
        past, start, logits = EncoderDecoderCache(DynamicCache(), DynamicCache()), 0, []
        for part, parents in zip(a["parts"], a["parents"], strict=True):
            if parents is not None:
                past.reorder_cache(torch.tensor(parents))
            new = ids[:, start : start + part]
            out = model(
                encoder_outputs=(states,),
                attention_mask=mask,
                decoder_input_ids=new,
                past_key_values=past,
                use_cache=True,
            )
            past, start = out.past_key_values, start + part
            logits.append(out.logits)
        return {"logits": torch.cat(logits, dim=1)}

    def do_search(self, _, i, a):
        sizes = {"d_model": 4, "encoder_layers": 1, "decoder_layers": 1, "attention_window": [4]}
        heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "encoder_ffn_dim": 4, "decoder_ffn_dim": 4}
        ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        model = Table(LEDConfig(vocab_size=i["table"].shape[-1], **sizes, **heads, **ids)).eval()
        model.table = i["table"]
        documents = torch.arange(len(i["table"]), dtype=torch.float32)[:, None, None]
        return self.written(
            model, a["settings"], encoder_outputs=BaseModelOutput(last_hidden_state=documents),
            input_ids=i["source_ids"], decoder_input_ids=i["prompt_ids"], use_cache=False,
        )  # fmt: skip

    def do_generate(self, case, i, a):
        return self.written(self.model(case), a["settings"], **i)

    def written(self, model, settings, **given):
        settings = {**settings, "return_dict_in_generate": True, "output_scores": settings.get("num_beams", 1) > 1}
        out = model.generate(**{**given, **settings})
        found = {"sequences": out.sequences}
        if settings["output_scores"]:
            found["sequences_scores"] = out.sequences_scores
        return found

    def do_corner(self, case, i, a):
        out = self.model(case)(**i, output_hidden_states=True, use_cache=False)
        rows, columns = a["rows"], a["columns"]
        return {
            "encoder_last_hidden_state": out.encoder_last_hidden_state[0, a["encoder_rows"], :columns],
            "last_hidden_state": out.decoder_hidden_states[-1][0, rows, :columns],
            "logits": out.logits[0, rows, :columns],
        }


def whole(rows):
    return torch.tensor(np.array(rows), dtype=torch.int64)


def lift_softmax():
    """The encoder's `softmax(..., dtype=torch.float32)`, in the type of its scores."""
    softmax = torch.nn.functional.softmax
    torch.nn.functional.softmax = lambda x, dim=-1, dtype=None, **more: softmax(x, dim=dim, **more)


def main(questions, results, how=""):
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if how == "lift":
        lift_softmax()
    index = json.loads((questions / "index.json").read_text(encoding="utf-8"))
    tensors = {}
    for file in sorted(questions.glob("*.inputs.safetensors")):
        tensors |= load_file(file)
    program = Program(questions, index)
    for case in index["cases"]:
        inputs = {name: tensors[f"{case['id']}/{name}"] for name in case["inputs"]}
        try:
            answer = program.answer(case, inputs)
        except Exception as error:
            answer = {"refused": f"{type(error).__name__}: {error}"}
        if "outputs" in answer:
            made = {name: answer["outputs"][name].float() if answer["outputs"][name].dtype in (torch.float16, torch.bfloat16)
                    else answer["outputs"][name] for name in case["outputs"]}  # fmt: skip
            save_file(
                {name: tensor.contiguous() for name, tensor in made.items()}, results / f"{case['id']}.safetensors"
            )
        else:
            (results / f"{case['id']}.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
