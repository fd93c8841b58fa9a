"""How a table of names is built, and which variant a set of names is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class NameTable:
    """Our names and those of one variant."""

    variant: str
    """What the variant is called in messages."""
    whole: Mapping[str, str]
    """Ours -> theirs, for the tensors outside the layers."""
    layer: Mapping[str, str]
    """Ours -> theirs, within a layer."""
    block: str
    """What stands before the names of an ordinary block, with {layer} for its number."""
    query_layer: str
    """The same for the query layer; {layer} is then the number of ordinary blocks."""
    transposed: Collection[str] = ()
    """Weights (our names, within a layer) that are stored the other way round."""
    ignored: str = r"(?!)"
    """Pattern of names that may be there and are no weights."""
    final_norm: str = ""
    """The place of the final norm, if the variant has only one: before_query or after_query."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Theirs -> theirs: a tied tensor that may stand for another one where that is missing."""

    def names(self, num_layers: int) -> dict[str, str]:
        """Ours -> theirs, all tensors of a model of `num_layers` layers, the query layer among them."""
        result = dict(self.whole)
        for number in range(num_layers - 1):
            for ours, theirs in self.layer.items():
                result[f"blocks.{number}.{ours}"] = self.block.format(layer=number) + theirs
        for ours, theirs in self.layer.items():
            result[f"query_layer.block.{ours}"] = self.query_layer.format(layer=num_layers - 1) + theirs
        return result

    def is_transposed(self, ours: str) -> bool:
        """Whether a tensor is stored the other way round."""
        return any(ours.endswith(f".{name}") for name in self.transposed)

    def count_layers(self, names: Collection[str]) -> int:
        """Layers of the model that has these names, the query layer among them."""
        pattern = re.compile(re.escape(self.block).replace(r"\{layer\}", r"(\d+)"))
        found = [int(match[1]) for name in names if (match := pattern.match(name))]
        own = "{layer}" not in self.query_layer and any(name.startswith(self.query_layer) for name in names)
        return max(found, default=-1) + 1 + own

    def weights_among(self, names: Collection[str]) -> set[str]:
        """The names without those that are no weights (the optimizer's moments, buffers, counters)."""
        pattern = re.compile(self.ignored)
        return {name for name in names if not pattern.match(name)}

    def mismatch(self, names: Collection[str]) -> tuple[list[str], list[str]]:
        """Names of this variant that are missing among `names`, and names that the variant does not have."""
        found = self.weights_among(names)
        wanted = set(self.names(max(2, self.count_layers(found))).values())
        for tied, name in self.aliases.items():
            if name not in found and tied in found:
                found.add(name)
            found.discard(tied)
        return sorted(wanted - found), sorted(found - wanted)


def nearest_table(tables: Collection[NameTable], names: Collection[str]) -> NameTable:
    """The variant with the fewest names that are missing or too many."""
    return min(tables, key=lambda table: sum(map(len, table.mismatch(names))))
