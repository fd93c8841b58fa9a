"""Parquet files: one document a row, its text in the column `data.text_key`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pangu_alpha.config import DataConfig
from pangu_alpha.data.readers.json_lines import AUTO, USUAL_KEYS
from pangu_alpha.data.readers.streams import open_bytes, readable
from pangu_alpha.errors import PanguError

_ROWS_AT_ONCE = 4096


def read(path: Path, data: DataConfig) -> Iterator[str]:
    """Documents of a Parquet file; rows without text are passed over.

    Raises:
        PanguError: the file is damaged, or has no such column of strings.
    """
    import pyarrow
    import pyarrow.parquet

    with contextlib.ExitStack() as stack:
        stack.enter_context(readable(path))
        if path.suffix.lower() == ".parquet":
            whole = stack.enter_context(path.open("rb"))
        else:
            # Parquet is read from its end, so a compressed one has to be unpacked first.
            whole = pyarrow.BufferReader(stack.enter_context(open_bytes(path)).read())
        try:
            file = pyarrow.parquet.ParquetFile(whole)
            names, column = file.schema_arrow.names, data.text_key
            if column == AUTO:
                column = next((key for key in USUAL_KEYS if key in names), USUAL_KEYS[0])
            if column not in names:
                raise PanguError(
                    f"{path} has no column {column!r}; its columns: {', '.join(names) or 'none'}; "
                    f"choose one with data.text_key=…"
                )
            if (twins := names.count(column)) > 1:
                raise PanguError(
                    f"{path} has {twins} columns named {column!r}; rename all but one, or choose another with "
                    "data.text_key=…"
                )
            kind = file.schema_arrow.field(column).type
            held = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
            if held not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
                mend = "; write the column as strings" if "binary" in str(held) else ""
                raise PanguError(f"{path}: column {column!r} holds {kind}, not strings{mend}")
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                for text in batch.column(0).cast(pyarrow.large_string()).to_pylist():
                    if text is not None:
                        yield text
        except pyarrow.ArrowException as error:
            raise PanguError(f"{path} is not a readable Parquet file ({error})") from error
