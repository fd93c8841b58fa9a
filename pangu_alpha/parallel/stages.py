"""Which layer sits in which pipeline stage, what is computed again, and which gradients travel together."""

from __future__ import annotations

from typing import Any

from pangu_alpha.config import ModelConfig
from pangu_alpha.parallel.layout import Layout


def stages_of_layers(model: ModelConfig, layout: Layout) -> tuple[int, ...]:
    """The stage of each layer, the query layer being the last.

    Published (official `pangu_alpha.py`): layer * stages // layers.  Balanced: consecutive layers too, so that the most
    costly stage is as cheap as can be; the head counts as V H / (12 H^2 + 2 S H) of a layer, by its multiplications.
    """
    layers = model.num_layers
    if not layout.balanced_stages:
        return tuple(layer * layout.pipeline_stages // layers for layer in range(layers))
    head = model.vocab_size / (12 * model.hidden_size + 2 * model.seq_length)
    return _balanced([1.0] * (layers - 1) + [1.0 + head], layout.pipeline_stages)


def _balanced(costs: list[float], stages: int) -> tuple[int, ...]:
    """Cut `costs` into `stages` non-empty runs whose largest sum is least (dynamic programming over cuts)."""
    count = len(costs)
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    best = [[0.0] * (count + 1) for _ in range(stages + 1)]
    cut = [[0] * (count + 1) for _ in range(stages + 1)]
    best[1] = list(sums)
    for parts in range(2, stages + 1):
        for end in range(parts, count + 1):
            options = [(max(best[parts - 1][k], sums[end] - sums[k]), k) for k in range(parts - 1, end)]
            best[parts][end], cut[parts][end] = min(options)
    result, end = [0] * count, count
    for parts in range(stages, 0, -1):
        begin = cut[parts][end] if parts > 1 else 0
        result[begin:end] = [parts - 1] * (end - begin)
        end = begin
    return tuple(result)


def stages_of_parameter(name: str, model: ModelConfig, layout: Layout) -> tuple[int, ...]:
    """The stages that have a parameter of the model: one, or the first and the last for the tied word table."""
    last = layout.pipeline_stages - 1
    if name.endswith("word_table"):
        return (0, last) if last else (0,)
    if name.endswith("position_table"):
        return (0,)
    if "blocks." in name:
        return (stages_of_layers(model, layout)[int(name.partition("blocks.")[2].partition(".")[0])],)
    return (last,)


def is_optimizer_divided(name: str, layout: Layout) -> bool:
    """Whether optimizer parallelism divides the parameter: not norms, tables and output biases, as published.

    In a pipeline the tied word table is divided, too: MindSpore cannot compile one that is not (2.10: "Illegal AnfNode
    for evaluating").
    """
    if not layout.divides_optimizer:
        return False
    if name.endswith(("gamma", "beta", "position_table", "query_table", "output.bias")):
        return False
    return layout.in_pipeline or not name.endswith("word_table")


def lay_out(network: Any, layout: Layout) -> None:
    """Mark the cells of a PanguAlphaLoss with stages, recomputation, optimizer sharding and gradient fusion.

    Args:
        network: a `pangu_alpha.model.pangu_alpha.PanguAlphaLoss`.
        layout: more than one device.
    """
    model = network.model
    _assign_stages(network, layout)
    if layout.recompute == "full":
        for block in _layers(model):
            _recompute_block(block)
    elif layout.recompute == "selective":
        for block in _layers(model):
            _recompute_operators(block, layout.recompute_operators)
    for parameter in network.trainable_params():
        parameter.parallel_optimizer = is_optimizer_divided(parameter.name, layout)
    _fuse_gradients(model, layout)


def _layers(model: Any) -> list[Any]:
    """All layers as blocks, the query layer's last."""
    return [*model.blocks, *([model.query_layer.block] if model.has_query_layer else [])]


def _assign_stages(network: Any, layout: Layout) -> None:
    model, last = network.model, layout.pipeline_stages - 1
    if not layout.in_pipeline:
        return
    model.embedding.pipeline_stage = 0
    for stage, cell in enumerate(model.masks):
        cell.pipeline_stage = stage
    for stage, cell in enumerate(model.dropout_keys):
        cell.pipeline_stage = stage
    for layer, block in enumerate(model.blocks):
        block.pipeline_stage = model.sharding.stage_of_layer(layer)
    for cell in (model.query_layer, model.final_norm, model.head, network.loss):
        cell.pipeline_stage = last


def _recompute_block(block: Any) -> None:
    """The whole layer again but what official code keeps: dropout masks, the last residual, sums over devices."""
    block.recompute()
    for dropout in (block.attention.dropout, block.attention_dropout, block.feed_forward_dropout):
        dropout.framework_dropout.recompute(False)
    block.add_feed_forward.recompute(False)
    for linear in (block.attention.output, block.feed_forward.output):
        linear.matmul.add_prim_attr("recompute_comm_op", False)


def _recompute_operators(block: Any, names: tuple[str, ...]) -> None:
    attention = block.attention
    parts = {
        "attention": (attention.query_key, attention.cast_scores, attention.add_mask, attention.softmax),
        "activation": (block.feed_forward.activation,),
        "norm": (block.attention_norm, block.feed_forward_norm),
    }
    for name in names:
        for part in parts[name]:
            part.recompute()


def _fuse_gradients(model: Any, layout: Layout) -> None:
    """Group 1 for the tables, 2 and on for runs of layers, 2 for all in a pipeline (official `set_comm_fusion`)."""
    model.embedding.set_comm_fusion(1)
    layers = _layers(model)
    for number, block in enumerate(layers):
        group = 0 if layout.in_pipeline else number * layout.gradient_fusion_groups // len(layers)
        block.set_comm_fusion(group + 2)
