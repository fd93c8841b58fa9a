"""PanGu-α, the Chinese language model of up to 200 billion parameters, on MindSpore.

    from pangu_alpha import PanguAlpha
    model = PanguAlpha.load("runs/quickstart-…")
    print(model.generate("今天"))

MindSpore is imported when a name that needs it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pangu_alpha.config import Config
from pangu_alpha.interrupts import unbroken_import

if TYPE_CHECKING:
    from pangu_alpha.inference.language_model import PanguAlpha, load

__all__ = ["Config", "PanguAlpha", "load"]


def __getattr__(name: str) -> Any:
    if name in ("PanguAlpha", "load"):
        with unbroken_import():
            from pangu_alpha.inference import language_model

        return getattr(language_model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
