"""The weights of an LED as frozen dataclasses, one field per tensor, in the order in which a token meets them.

Beside its tensors a layer says which activation function its feed-forward has.

A linear map's weight is (out, in), as in the checkpoint, and acts as `y = x @ weight.T + bias`.
A Weight is opaque: the backend may keep it smaller than it computes with, and only the backend reads its numbers.
The fields are named after the checkpoint's modules; `led_ref/weights/keys.py` holds the one table between the two.
"""

from dataclasses import dataclass

from led_backends.contract import Array, Weight
from led_ref.model.brief_repr import BriefRepr


@dataclass(frozen=True, repr=False)
class Linear(BriefRepr):
    """`y = x @ weight.T + bias`."""

    weight: Weight  # (out, in)
    bias: Array  # (out,)


@dataclass(frozen=True, repr=False)
class LayerNorm(BriefRepr):
    """`y = (x - mean) / sqrt(variance + 1e-5) * weight + bias`, over the last axis."""

    weight: Array  # (D,)
    bias: Array  # (D,)


@dataclass(frozen=True, repr=False)
class EncoderLayerParams(BriefRepr):
    """One encoder layer: local and global projections, the output projection they share, and the feed-forward."""

    query: Linear  # D -> D
    key: Linear  # D -> D
    value: Linear  # D -> D
    query_global: Linear  # D -> D
    key_global: Linear  # D -> D
    value_global: Linear  # D -> D
    output: Linear  # D -> D
    self_attn_layer_norm: LayerNorm
    fc1: Linear  # D -> F
    activation: str  # between the two: one of config.ACTIVATIONS, the same in every layer
    fc2: Linear  # F -> D
    final_layer_norm: LayerNorm


@dataclass(frozen=True, repr=False)
class AttentionParams(BriefRepr):
    """The four projections of a full attention, as the decoder has them."""

    q_proj: Linear  # D -> D
    k_proj: Linear  # D -> D
    v_proj: Linear  # D -> D
    out_proj: Linear  # D -> D


@dataclass(frozen=True, repr=False)
class DecoderLayerParams(BriefRepr):
    """One decoder layer: causal self-attention, attention to the encoder's states, and the feed-forward."""

    self_attn: AttentionParams
    self_attn_layer_norm: LayerNorm
    encoder_attn: AttentionParams
    encoder_attn_layer_norm: LayerNorm
    fc1: Linear  # D -> F
    activation: str  # between the two
    fc2: Linear  # F -> D
    final_layer_norm: LayerNorm


@dataclass(frozen=True, repr=False)
class EncoderParams(BriefRepr):
    """The encoder's own position table and embedding norm, and its layers."""

    embed_positions: Weight  # (max_encoder_position_embeddings, D)
    layernorm_embedding: LayerNorm
    layers: tuple[EncoderLayerParams, ...]


@dataclass(frozen=True, repr=False)
class DecoderParams(BriefRepr):
    """The decoder's own position table and embedding norm, and its layers."""

    embed_positions: Weight  # (max_decoder_position_embeddings, D)
    layernorm_embedding: LayerNorm
    layers: tuple[DecoderLayerParams, ...]


@dataclass(frozen=True, repr=False)
class ClassificationHeadParams(BriefRepr):
    """What makes the scores of labels of one state: a layer of its own, then one number for each label."""

    dense: Linear  # D -> D
    out_proj: Linear  # D -> Y


@dataclass(frozen=True, repr=False)
class LEDParams(BriefRepr):
    """Every tensor of an LED. `lm_head` is `shared` itself (the same object) unless the checkpoint has one of its own.

    The last two are the heads of two other classes (classes/heads.py), None in all but their own.
    """

    shared: Weight  # (V, D)
    encoder: EncoderParams
    decoder: DecoderParams
    lm_head: Weight  # (V, D)
    final_logits_bias: Array  # (1, V)
    qa_outputs: Linear | None = None  # D -> 2: is it the start of an answer, is it the end
    classification_head: ClassificationHeadParams | None = None
