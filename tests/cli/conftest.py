"""The small run on real text, for the tests of this folder."""

from tests.train.small_run import folder  # noqa: F401
