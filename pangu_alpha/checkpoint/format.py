"""What a checkpoint is on disk, on one page.

    checkpoints/step_00000200/
        rank_0000.safetensors     what rank 0 owns: weights, moments (adam_m.<name>, adam_v.<name>), counters
        manifest.json             everything else, written last: a directory without it is no checkpoint

`manifest.json` holds its format number, the layout, an entry a file (bytes, checksum), an entry a tensor (file, full
shape, type, which slice of the full tensor the file holds, checksum of its bytes), the configuration with its hash, the
tokenizer's hash, the state of the training loop, library versions, and a SHA-256 of itself.  Format 1 had SHA-256 for
checksums.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pangu_alpha.errors import PanguError

FORMAT = 2
"""Number of this form; a reader refuses higher ones and keeps reading lower ones."""

MANIFEST = "manifest.json"
_STEP_NAME = re.compile(r"step_(\d{8,})")
_OWN_DIGEST = "manifest_sha256"


class DamagedCheckpointError(PanguError):
    """A checkpoint that is incomplete or whose bytes changed; the message names the file and, if known, the tensor."""


def step_name(step: int) -> str:
    """Directory name of the checkpoint after `step` optimizer steps: step_00000200."""
    return f"step_{step:08d}"


def step_of(name: str) -> int | None:
    """The step that a directory name stands for, None if it names no checkpoint."""
    match = _STEP_NAME.fullmatch(name)
    return int(match[1]) if match else None


def rank_file(rank: int) -> str:
    """File name of a rank's tensors: rank_0000.safetensors."""
    return f"rank_{rank:04d}.safetensors"


@dataclass(frozen=True)
class FileEntry:
    """One file of tensors."""

    name: str
    """File name within the checkpoint's directory."""
    bytes: int
    """Its size."""
    checksum: str
    """Of the whole file: see `checksum.py`."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor, or the part of it that one file holds."""

    name: str
    """Parameter name."""
    file: str
    """Name of the file that holds it."""
    shape: tuple[int, ...]
    """Shape of the full tensor."""
    dtype: str
    """NumPy's name of its type: float32, float16, int32 …"""
    slice: tuple[tuple[int, int], ...]
    """[start, stop) along each axis of the full tensor that the file holds; all of it in a single-rank checkpoint."""
    checksum: str
    """Of the stored bytes (little-endian, row after row): see `checksum.py`."""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of what the file holds."""
        return tuple(stop - start for start, stop in self.slice)


@dataclass(frozen=True)
class Manifest:
    """Everything about a checkpoint but the tensors' values."""

    step: int
    """Optimizer steps done."""
    created: float
    """Seconds since 1970, when it was written."""
    layout: Mapping[str, int]
    """How the tensors are spread over ranks; {"ranks": 1} on a single device."""
    files: tuple[FileEntry, ...]
    """In order of rank."""
    tensors: tuple[TensorEntry, ...]
    """In order of file and place in it."""
    config: Mapping[str, Any]
    """The run's configuration (`config.to_dict`)."""
    config_sha256: str
    """Of the configuration in canonical JSON."""
    tokenizer_sha256: str
    """Of the vocabulary file that the ids belong to."""
    train_state: Mapping[str, Any]
    """Where the training loop stands: whatever the trainer needs to go on at the exact next sample."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of Python and the libraries that wrote it."""

    def to_json(self) -> str:
        """Text of `manifest.json`, one tensor a line, with the digest of all the rest at its end."""
        content = json.loads(json.dumps({"format": FORMAT, **dataclasses.asdict(self)}))  # as a reader will have it
        content[_OWN_DIGEST] = canonical_sha256(content)
        lines = [f'  "{key}": {_pretty(value)}' for key, value in content.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @staticmethod
    def read(path: Path) -> Manifest:
        """The manifest in the file `path`.

        Raises:
            DamagedCheckpointError: it is missing, unreadable, no JSON, or not what was written.
            PanguError: a later version of this program wrote it.
        """
        try:
            content = json.loads(path.read_bytes())
            number, digest = content.pop("format"), content.pop(_OWN_DIGEST, None)
            if isinstance(number, int) and number > FORMAT:
                raise PanguError(
                    f"{path}: checkpoint format {number}; this version reads up to {FORMAT}: update pangu-alpha"
                )
            if digest != canonical_sha256({"format": number, **content}):
                raise DamagedCheckpointError(f"{path} is damaged: its content does not match its own checksum")
            if number == 1:
                for entry in (*content["files"], *content["tensors"]):
                    entry["checksum"] = f"sha256:{entry.pop('sha256')}"
            content["files"] = tuple(FileEntry(**entry) for entry in content["files"])
            content["tensors"] = tuple(tensor_entry(entry) for entry in content["tensors"])
            return Manifest(**content)
        except FileNotFoundError:
            raise DamagedCheckpointError(f"{path} is missing: the checkpoint was never completed") from None
        except OSError as error:
            raise DamagedCheckpointError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedCheckpointError(f"{path} is damaged: it is not the JSON of a manifest ({error})") from None


def tensor_entry(entry: Mapping[str, Any]) -> TensorEntry:
    """An entry from its JSON."""
    cut = tuple((int(start), int(stop)) for start, stop in entry["slice"])
    return TensorEntry(**{**entry, "shape": tuple(entry["shape"]), "slice": cut})


def _pretty(value: Any) -> str:
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return "[\n    " + ",\n    ".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n  ]"
    return json.dumps(value, ensure_ascii=False, allow_nan=True)


def canonical_sha256(content: Any) -> str:
    """SHA-256 of `content` as JSON with sorted keys and no spaces: equal content, equal hash."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
