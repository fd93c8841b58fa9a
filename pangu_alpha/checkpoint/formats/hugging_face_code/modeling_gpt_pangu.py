"""PanGu-α in PyTorch: a GPT whose last layer is told which position to predict (the query layer, paper 2.2.2)."""

# B = batch, S = tokens of this call, T = tokens that keys are known of, H = hidden, N = heads, D = H / N.

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_gpt_pangu import GPTPanguConfig

_HIDDEN_SCORE = -10000.0
"""Added to the scores of what a token may not see, as published."""


def activation(name: str, value: Tensor) -> Tensor:
    """The activation of the feed-forward part by its name in the configuration."""
    if name == "gelu_new":
        return functional.gelu(value, approximate="tanh")
    if name == "gelu":
        return functional.gelu(value)
    return value * torch.sigmoid(1.702 * value)


class GPTPanguAttention(nn.Module):
    """Attention with separate projections, and a query that may come from elsewhere."""

    def __init__(self, config: GPTPanguConfig, layer: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.layer, self.heads = layer, config.num_heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.c_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, hidden: Tensor, bias: Tensor, asking: Tensor, cache: Cache | None) -> Tensor:
        """hidden [B, S, H], bias [B, 1, S, T], asking [B, S, H] -> [B, S, H]."""

        def split(value: Tensor) -> Tensor:
            return value.view(*value.shape[:2], self.heads, -1).transpose(1, 2)

        query, key, value = split(self.q_proj(asking)), split(self.k_proj(hidden)), split(self.v_proj(hidden))
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        scores = (query @ key.transpose(-1, -2)).float() / math.sqrt(query.shape[-1]) + bias
        mixed = scores.softmax(-1).to(value.dtype) @ value
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class GPTPanguMLP(nn.Module):
    """The feed-forward part."""

    def __init__(self, config: GPTPanguConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, config.intermediate_size)
        self.c_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = config.activation_function

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, S, H] -> [B, S, H]."""
        return self.c_proj(activation(self.activation, self.c_fc(hidden)))


class GPTPanguBlock(nn.Module):
    """A pre-norm block; with `asking` it is the query layer, whose query is a row of the query table, not normed."""

    def __init__(self, config: GPTPanguConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = GPTPanguAttention(config, layer)
        self.ln_2 = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = GPTPanguMLP(config)

    def forward(self, hidden: Tensor, bias: Tensor, cache: Cache | None, asking: Tensor | None = None) -> Tensor:
        """[B, S, H] -> [B, S, H]."""
        normed = self.ln_1(hidden)
        hidden = hidden + self.attn(normed, bias, normed if asking is None else asking, cache)
        return hidden + self.mlp(self.ln_2(hidden))


class GPTPanguPreTrainedModel(PreTrainedModel):
    """What transformers wants to know of the model."""

    config_class = GPTPanguConfig
    base_model_prefix = "transformer"
    _no_split_modules = ["GPTPanguBlock"]
    _supports_cache_class = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(0.0, 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()
        if isinstance(module, nn.LayerNorm):
            module.weight.data.fill_(1.0)
            module.bias.data.zero_()


class GPTPanguModel(GPTPanguPreTrainedModel):
    """Tables, blocks and the query layer, which is the last of `h`."""

    def __init__(self, config: GPTPanguConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.wqe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.h = nn.ModuleList([GPTPanguBlock(config, layer) for layer in range(config.num_layers)])
        self.ln_f = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word table."""
        return self.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another word table."""
        self.wte = value

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """Tokens [B, S], mask of all known tokens [B, T], positions [B, S] -> [B, S, H]."""
        before = cache.get_seq_length() if cache is not None else 0
        count = input_ids.shape[1]
        if attention_mask is None:
            attention_mask = input_ids.new_ones((input_ids.shape[0], before + count))
        if position_ids is None:  # padding on the left takes no position
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        position_ids = position_ids[:, -count:]
        places = torch.arange(before + count, device=input_ids.device)
        seen = (places[None, :] <= places[before:, None])[None, None] & attention_mask.bool()[:, None, None, :]
        bias = torch.where(seen, 0.0, _HIDDEN_SCORE)
        hidden = self.wte(input_ids) + self.wpe(position_ids)
        for block in self.h[:-1]:
            hidden = block(hidden, bias, cache)
        if self.config.final_norm == "before_query":
            return self.h[-1](self.ln_f(hidden), bias, cache, self.wqe(position_ids))
        return self.ln_f(self.h[-1](hidden, bias, cache, self.wqe(position_ids)))


class GPTPanguForCausalLM(GPTPanguPreTrainedModel, GenerationMixin):
    """With the head, which is the word table once more."""

    def __init__(self, config: GPTPanguConfig) -> None:
        super().__init__(config)
        self.transformer = GPTPanguModel(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word table."""
        return self.transformer.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another word table."""
        self.transformer.wte = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Tokens [B, S] -> logits [B, S, vocabulary], float32; with labels the mean loss of the token after each.

        Keys and values of earlier tokens come as `past_key_values`, which later versions of transformers call `cache`.
        """
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache()
        hidden = self.transformer(input_ids, attention_mask, position_ids, cache)
        logits = functional.linear(hidden[:, -logits_to_keep:], self.transformer.wte.weight).float()
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)
