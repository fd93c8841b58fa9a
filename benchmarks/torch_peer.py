"""The same model in PyTorch, written as one would for speed: eager, fused attention, fused AdamW.

It computes what `pangu_alpha.model` computes, from the same weights under the same names: the peer that
`train_step.py` times, and the independent second opinion of its losses.  Only what a training step needs is here: no
dropout, float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pangu_alpha.config import ModelConfig, OptimizerConfig

# B = batch, S = seq, H = hidden, N = heads, D = head size, V = vocabulary.


class PeerAttention(nn.Module):
    """Causal attention by `scaled_dot_product_attention`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, self.num_heads = config.hidden_size, config.num_heads
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden) for _ in range(4))

    def _heads(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, S, H] -> [B, N, S, D]."""
        return hidden.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, asking: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """[B, S, H] twice; mask bool [B, 1, S, S], or None for the plain causal one -> [B, S, H]."""
        context = functional.scaled_dot_product_attention(
            self._heads(self.query(asking)), self._heads(self.key(hidden)), self._heads(self.value(hidden)),
            attn_mask=mask, is_causal=mask is None,
        )  # fmt: skip
        return self.output(context.transpose(1, 2).flatten(2))


class PeerFeedForward(nn.Module):
    """Two products and the activation of the configuration between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.hidden_size, config.feed_forward_size)
        self.output = nn.Linear(config.feed_forward_size, config.hidden_size)
        self.kind = config.activation

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, S, H] -> [B, S, H]."""
        inner = self.inner(hidden)
        if self.kind == "fast_gelu":
            return self.output(inner * torch.sigmoid(1.702 * inner))
        return self.output(functional.gelu(inner, approximate="tanh" if self.kind == "gelu_tanh" else "none"))


class PeerBlock(nn.Module):
    """One layer; with a query input the attention asks with it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attention = PeerAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.feed_forward = PeerFeedForward(config)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, asking: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[B, S, H] -> [B, S, H]."""
        normed = self.attention_norm(hidden)
        hidden = hidden + self.attention(normed if asking is None else asking, normed, mask)
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))


class PeerModel(nn.Module):
    """PanGu-α; parameters carry the names of `PanguAlphaModel`, with `weight` and `bias` for gamma and beta."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.word_table = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.embedding = nn.ParameterDict({"position_table": torch.empty(config.seq_length, config.hidden_size)})
        self.blocks = nn.ModuleList(PeerBlock(config) for _ in range(config.num_blocks))
        self.final_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        if config.query_layer:
            self.query_layer = nn.ModuleDict({"block": PeerBlock(config)})
            self.query_layer.query_table = nn.Parameter(torch.empty(config.seq_length, config.hidden_size))
        self.register_buffer(
            "causal", torch.ones(config.seq_length, config.seq_length, dtype=torch.bool).tril(), persistent=False
        )

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take weights by the names of `PanguAlphaModel`; [in, out] becomes PyTorch's [out, in]."""
        kept_transposed = ("query.weight", "key.weight", "value.weight")
        state = {}
        for name, array in arrays.items():
            is_product = name.endswith(".weight") and not name.endswith(kept_transposed)
            value = torch.from_numpy(np.ascontiguousarray(array.T if is_product else array))
            state[name.replace(".gamma", ".weight").replace(".beta", ".bias")] = value
        self.load_state_dict(state)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        query_positions: torch.Tensor,
        segments: torch.Tensor | None,
    ) -> torch.Tensor:
        """Integers [B, S]; segments None when documents see each other -> logits [B*S, V]."""
        mask = None
        if segments is not None:
            mask = ((segments[:, :, None] == segments[:, None, :]) & self.causal)[:, None]
        hidden = functional.embedding(tokens, self.word_table)
        hidden = hidden + functional.embedding(positions, self.embedding["position_table"])
        for block in self.blocks:
            hidden = block(hidden, mask)
        if not self.config.query_layer:
            hidden = self.final_norm(hidden)
        else:
            asking = functional.embedding(query_positions, self.query_layer.query_table)
            if self.config.final_norm == "before_query":
                hidden = self.query_layer["block"](self.final_norm(hidden), mask, asking)
            else:
                hidden = self.final_norm(self.query_layer["block"](hidden, mask, asking))
        return functional.linear(hidden, self.word_table).flatten(0, 1)


class PeerStep:
    """One optimizer step: loss, gradients, clipping, fused AdamW.

    AdamW divides the moments by 1 - beta^t, the published AdamWeightDecay does not.  The step's rate and decay are set
    so that both cancel, which costs nothing and makes the update the published one (up to epsilon, which stands beside
    a moment that is smaller by the same factor).
    """

    def __init__(self, model: PeerModel, config: OptimizerConfig, see_documents: bool) -> None:
        self.model, self.config, self.see_documents = model, config, see_documents
        plain = [p for n, p in model.named_parameters() if n.endswith("bias") or "norm" in n]
        decayed = [p for n, p in model.named_parameters() if not (n.endswith("bias") or "norm" in n)]
        self.parameters = decayed + plain
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": plain}],
            betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True,
        )  # fmt: skip
        self.steps = 0

    def __call__(self, batch: tuple[np.ndarray, ...]) -> float:
        """Five int32 [B, S] as `pangu_alpha.data.order.Batch` -> loss."""
        tokens, positions, query_positions, segments, labels = (torch.from_numpy(array) for array in batch)
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(tokens, positions, query_positions, segments if self.see_documents else None)
        loss = functional.cross_entropy(logits, labels.flatten().long())
        loss.backward()
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self._set_rates()
        self.optimizer.step()
        return float(loss.detach())

    def _set_rates(self) -> None:
        self.steps += 1
        config = self.config
        correction = math.sqrt(1.0 - config.beta2**self.steps) / (1.0 - config.beta1**self.steps)
        for group, decay in zip(self.optimizer.param_groups, (config.weight_decay, 0.0), strict=True):
            group["lr"] = config.learning_rate / correction
            group["weight_decay"] = decay * correction
