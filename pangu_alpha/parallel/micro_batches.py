"""A batch cut into the micro batches of a pipeline, inside the graph."""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class MicroBatch(nn.Cell):
    """One micro batch of every input of a step: as many tensors [batch, …] -> [batch / micro batches, …].

    Without a loop or a condition: `construct` is compiled as often as there are micro batches.
    """

    def __init__(self, number: int, rows: int, seq_length: int) -> None:
        super().__init__()
        self.cut = ops.StridedSlice()
        self.begin, self.end, self.step = (number * rows, 0), ((number + 1) * rows, seq_length), (1, 1)
        self.first, self.last, self.one = (number,), (number + 1,), (1,)

    def construct(
        self,
        tokens: Tensor,
        positions: Tensor,
        query_positions: Tensor,
        segments: Tensor,
        labels: Tensor,
        micro_steps: Tensor,
    ) -> tuple[Tensor, ...]:
        """Five int32 [B, S], int32 [micro batches] -> five int32 [B / micro batches, S], int32 [1]."""
        return (
            self.cut(tokens, self.begin, self.end, self.step),
            self.cut(positions, self.begin, self.end, self.step),
            self.cut(query_positions, self.begin, self.end, self.step),
            self.cut(segments, self.begin, self.end, self.step),
            self.cut(labels, self.begin, self.end, self.step),
            self.cut(micro_steps, self.first, self.last, self.one),
        )


class MicroBatches(nn.Cell):
    """Sum of a network's losses of all micro batches: what a pipeline's stages work on one after the other.

    `nn.PipelineCell` does the same for any number of inputs of any shape, by loops that MindSpore unrolls: half of what
    it had to infer of the released 200B layout with its 32 micro batches.  MindSpore knows the last operator of a micro
    batch by `pipeline_end`, and the micro batches by the order of their cuts.
    """

    def __init__(self, network: nn.Cell, micro_batches: int, batch_size: int, seq_length: int) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.count = micro_batches
        rows = batch_size // micro_batches
        self.cuts = nn.CellList([MicroBatch(number, rows, seq_length) for number in range(micro_batches)])
        self.sums = [ops.Add().add_prim_attr("pipeline_end", number) for number in range(micro_batches)]

    def construct(
        self,
        tokens: Tensor,
        positions: Tensor,
        query_positions: Tensor,
        segments: Tensor,
        labels: Tensor,
        micro_steps: Tensor,
    ) -> Tensor:
        """Five int32 [B, S], int32 [micro batches] -> float32 []."""
        total = self.network(*self.cuts[0](tokens, positions, query_positions, segments, labels, micro_steps))
        for number in range(1, self.count):
            parts = self.cuts[number](tokens, positions, query_positions, segments, labels, micro_steps)
            total = self.sums[number](total, self.network(*parts))
        return total
