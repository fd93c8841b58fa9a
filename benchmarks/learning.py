"""How much a configuration learns in a given number of steps, trained by the PyTorch peer.

    python benchmarks/learning.py [--stop STEP] [--waves SIZE] [key.sub=value ...]
    python benchmarks/learning.py --lookup [--waves SIZE] [key.sub=value ...]

The peer (`torch_peer.py`) computes what the project's model and optimizer compute, on one core faster, so settings can
be compared by it.  Data, order of samples, initial values and schedule are the project's own.  Prints for the
quickstart with the given settings: held-out loss, perplexity and bits per character in sequential order, what fills of
`infilling.py` are right, and for every layer the root mean square of its output, the share of it that is the same at
every position, and the mean entropy of its attention.

With --waves the query layer starts as one that finds positions: the position table holds waves of that root mean
square, so that neighbours are alike, row p of the query table is row p + 1 of the same waves at root mean square 1, and
query and key weight of the query layer are equal and large (s^2 sqrt(head size) hidden_size = 16: the score of a state
that holds nothing but the position asked for).  What came of it stands in docs/random-order.md.

With --lookup the text is made up: of 80 tokens, each is to four fifths a fixed permutation of its right neighbour, and
all samples enter in random order.  It shows in a minute whether the query layer learns to look at the neighbours of the
position that it is asked for: the loss starts at ln 80 = 4.38.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from infilling import ask, held_out_sentences
from torch.nn import functional
from torch_peer import PeerModel, PeerStep

from pangu_alpha.config import Config, OptimizerConfig
from pangu_alpha.config_file import load_config
from pangu_alpha.data.dataset import read_records
from pangu_alpha.data.order import Batch, arrange_samples, arrange_sequentially
from pangu_alpha.data.prepare import prepare
from pangu_alpha.data.sample_order import visited_samples
from pangu_alpha.data.tokenizer import PAD, Tokenizer
from pangu_alpha.model.initial_values import initial_value

LOOKUP = (
    "model.vocab_size=100", "model.hidden_size=128", "model.num_layers=3", "model.num_heads=4", "model.seq_length=64",
    "data.order=permuted", "data.span_length=16", "train.batch_size=16", "train.steps=700",
    "optimizer.learning_rate=3e-3", "optimizer.warmup_steps=50", "optimizer.decay_steps=700",
)  # fmt: skip
"""Settings of the made-up task."""

Integers = np.ndarray


def waves(first: int, rows: int, width: int) -> Integers:
    """Rows first, first + 1 … of a table of sines and cosines over positions, root mean square 1: float32."""
    frequencies = np.geomspace(0.5, math.pi / 512, width // 2)
    angles = np.arange(first, first + rows)[:, None] * frequencies
    table = math.sqrt(2.0) * np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return table[:, np.random.RandomState(5).permutation(width)].astype(np.float32)  # every head gets all of them


def set_waves(arrays: dict[str, Integers], config: Config, size: float) -> None:
    """The initial values of --waves, in place of the project's."""
    model = config.model
    arrays["embedding.position_table"] = waves(0, model.seq_length, model.hidden_size) * np.float32(size)
    arrays["query_layer.query_table"] = waves(1, model.seq_length, model.hidden_size)
    key = arrays["query_layer.block.attention.key.weight"]
    key = key / key.std() * np.float32(math.sqrt(16.0 / (math.sqrt(model.head_size) * model.hidden_size)))
    arrays["query_layer.block.attention.key.weight"] = arrays["query_layer.block.attention.query.weight"] = key


def build_peer(config: Config, wave_size: float) -> PeerModel:
    """The peer with the project's initial values, or with those of --waves where `wave_size` is not 0."""
    peer = PeerModel(config.model)
    arrays = {}
    for key, value in peer.state_dict().items():
        name = key.replace("norm.weight", "norm.gamma").replace("norm.bias", "norm.beta")
        shape = tuple(value.shape)
        if name.endswith(".weight") and not name.endswith(("query.weight", "key.weight", "value.weight")):
            shape = shape[::-1]
        arrays[name] = initial_value(name, shape, config.model, config.train.seed)
    if wave_size:
        set_waves(arrays, config, wave_size)
    peer.load(arrays)
    return peer


def rate(settings: OptimizerConfig, step: int) -> float:
    """The published schedule (`train/schedule.py`) in plain numbers."""
    peak, floor = settings.learning_rate, settings.end_learning_rate
    if step < settings.warmup_steps:
        return peak * step / settings.warmup_steps
    done = min(step, settings.decay_steps) / settings.decay_steps
    if settings.schedule == "cosine":
        return floor + (peak - floor) / 2 * (1 + math.cos(math.pi * done))
    return floor + (peak - floor) * (1 - done) if settings.schedule == "polynomial" else peak


def train(config: Config, batch_of: Callable[[int], Batch], steps: int, every: int, wave_size: float) -> PeerModel:
    """Trains the peer; prints the mean loss of every `every` steps."""
    peer = build_peer(config, wave_size)
    step = PeerStep(peer, config.optimizer, see_documents=config.data.reset_attention)
    losses, start = [], time.perf_counter()
    for number in range(steps):
        now = max(rate(config.optimizer, number), 1e-12)
        step.config = replace(config.optimizer, learning_rate=now, end_learning_rate=0.0)
        losses.append(step(batch_of(number)))
        if (number + 1) % every == 0:
            speed = (number + 1) * config.train.batch_size * config.model.seq_length / (time.perf_counter() - start)
            print(f"step {number + 1}: loss {np.mean(losses[-every:]):.3f}, {speed:,.0f} tokens/s", flush=True)
    return peer


@torch.no_grad()
def held_out(peer: PeerModel, valid: Integers, config: Config) -> tuple[float, int]:
    """Nats of the held-out tokens, summed, and how many they are; in sequential order."""
    nats, tokens = 0.0, 0
    for start in range(0, len(valid), 16):
        batch = arrange_sequentially(
            valid[start : start + 16], config.data.reset_positions, config.data.reset_attention
        )
        arrays = [torch.from_numpy(array) for array in batch]
        logits = peer(*arrays[:3], arrays[3] if config.data.reset_attention else None)
        losses = functional.cross_entropy(logits, arrays[4].flatten().long(), reduction="none")
        counted = arrays[0].flatten() != PAD
        nats, tokens = nats + float(losses[counted].sum()), tokens + int(counted.sum())
    return nats, tokens


class Asked:
    """The peer as `infilling.ask` wants a model: logits of NumPy arrays."""

    def __init__(self, peer: PeerModel) -> None:
        self.peer = peer

    @torch.no_grad()
    def logits(self, *arrays: Integers) -> Integers:
        """Four integers [B, T] -> [B, T, V]."""
        whole = self.peer.causal
        width = arrays[0].shape[1]
        self.peer.causal = whole[:width, :width]
        try:
            found = self.peer(*(torch.from_numpy(array) for array in arrays))
        finally:
            self.peer.causal = whole
        return found.view(*arrays[0].shape, -1).numpy()


@torch.no_grad()
def layers(peer: PeerModel, batch: Batch) -> Iterator[str]:
    """One line a layer: size of its output, share of it that no position differs in, entropy of its attention."""
    tokens, positions, queries, segments, _ = (torch.from_numpy(array) for array in batch)
    mask = ((segments[:, :, None] == segments[:, None, :]) & peer.causal)[:, None]
    seen = mask.sum(-1).float()

    def line(name: str, hidden: torch.Tensor, entropy: str = "") -> str:
        size = hidden.pow(2).mean().sqrt()
        return f"{name}: {size:.2f}, same everywhere {hidden.mean((0, 1)).pow(2).mean().sqrt() / size:.2f}{entropy}"

    def entropy(attention: torch.nn.Module, asking: torch.Tensor, keys: torch.Tensor) -> str:
        query, key = attention._heads(attention.query(asking)), attention._heads(attention.key(keys))
        scores = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).masked_fill(~mask, -1e4)
        weights = scores.softmax(-1)
        found = -(weights * (weights + 1e-12).log()).sum(-1) / seen.clamp(min=2).log()
        means = [float(found[:, head][(seen > 1)[:, 0]].mean()) for head in range(found.shape[1])]
        return ", entropy " + " ".join(f"{value:.2f}" for value in means)

    hidden = functional.embedding(tokens, peer.word_table)
    hidden = hidden + functional.embedding(positions, peer.embedding["position_table"])
    yield line("embedding", hidden)
    for number, block in enumerate(peer.blocks):
        normed = block.attention_norm(hidden)
        told = entropy(block.attention, normed, normed)
        hidden = block(hidden, mask)
        yield line(f"block {number}", hidden, told)
    if peer.config.query_layer and peer.config.final_norm == "before_query":
        block, state = peer.query_layer["block"], peer.final_norm(hidden)
        asking = functional.embedding(queries, peer.query_layer.query_table)
        told = entropy(block.attention, asking, block.attention_norm(state))
        yield line("query layer", block(state, mask, asking), told)


def lookup_batches(config: Config) -> Callable[[int], Batch]:
    """Batches of the made-up task."""
    random = np.random.RandomState(1)
    partner = random.permutation(80) + 12  # ids below 12 are control tokens

    def batch_of(number: int) -> Batch:
        size = config.train.batch_size
        ids = random.randint(12, 92, (size, config.model.seq_length + 1))
        for place in range(config.model.seq_length - 1, -1, -1):
            tied = random.rand(size) < 0.8
            ids[tied, place] = partner[ids[tied, place + 1] - 12]
        return arrange_samples(ids, [0] * size, range(number * size, (number + 1) * size), 1, config.data)

    return batch_of


def main() -> None:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="key.sub=value")
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--stop", type=int, default=0, help="end after so many steps; the schedule stays")
    parser.add_argument("--waves", type=float, default=0.0, metavar="SIZE", help="other initial values, see above")
    parser.add_argument("--lookup", action="store_true", help="the made-up task")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    config = load_config(arguments.config, [*(LOOKUP if arguments.lookup else ()), *arguments.settings]).config
    steps = arguments.stop or config.train.steps
    size, seed = config.train.batch_size, config.train.seed
    if arguments.lookup:
        batch_of = lookup_batches(config)
        peer = train(config, batch_of, steps, 100, arguments.waves)
        print("\n".join(layers(peer, batch_of(steps))))
        return
    prepared = prepare(config, arguments.runs / "prepared")
    samples = np.concatenate(list(read_records(prepared.train_files, 512)))
    valid = np.concatenate(list(read_records(prepared.valid_files, 512)))

    def batch_of_text(number: int) -> Batch:
        places = np.arange(number * size, (number + 1) * size)
        epochs, chosen = visited_samples(places, len(samples), seed, config.data.shuffle)
        return arrange_samples(samples[chosen], epochs, chosen, seed, config.data)

    peer = train(config, batch_of_text, steps, max(1, steps // 4), arguments.waves)
    print("\n".join(layers(peer, batch_of_text(steps))))
    if config.model.query_layer:
        tokenizer = Tokenizer.load(prepared.tokenizer_path)
        ends = {token for mark in "。!?;" for token in tokenizer.encode(mark)[-1:]}
        sentences = held_out_sentences(prepared, ends, 500)
        for both in (False, True):
            nats, right = ask(Asked(peer), sentences, both)
            print(f"fills from {'both sides' if both else 'the left'}: {nats:.3f} nats, {right:.1%} right")
    nats, tokens = held_out(peer, valid, config)
    characters = prepared.valid_characters
    trained = steps * size * config.model.seq_length
    print(
        f"held out: {nats / tokens:.4f} nats, perplexity {math.exp(nats / tokens):.1f}, "
        f"{nats / math.log(2) / characters:.4f} bits per character after {trained:,} tokens"
    )


if __name__ == "__main__":
    main()
