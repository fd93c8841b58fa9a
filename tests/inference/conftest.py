"""The tiny random model, for the tests of this folder."""

from tests.tiny_model import model, run_directory, tiny, tokenizer, vocabulary  # noqa: F401
