"""The small run on real text, and a configuration for small texts, for the tests of this folder."""

from tests.data.conftest import make_config, text_file, vocabulary_file  # noqa: F401
from tests.train.small_run import folder  # noqa: F401
