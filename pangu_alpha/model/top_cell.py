"""The outermost cell of a graph, called from the host."""

from __future__ import annotations

from mindspore import nn


class TopCell(nn.Cell):
    """A cell that Python calls again and again, with all of a model's cells below it.

    MindSpore writes the name of the graph at hand into each of them before every call, in Python: 2 ms for the five
    hundred cells of the quickstart's training step, which takes 170.  Here it does so when the name changes.
    """

    @property
    def compile_phase(self) -> str | None:
        """MindSpore's name of the graph that was compiled last."""
        phase: str | None = self._compile_phase
        return phase

    @compile_phase.setter
    def compile_phase(self, value: str) -> None:
        if value != self._compile_phase:
            nn.Cell.compile_phase.fset(self, value)
