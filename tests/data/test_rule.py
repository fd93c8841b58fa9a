from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.data.document import SCHEMA, Document, to_batch, with_text
from pangu_alpha.data.rule import DROPPED, REMOVED, keep_where


def _batch() -> pa.RecordBatch:
    return to_batch([Document("书", "长" * 10, "书/甲#000000000"), Document("书", "短", "书/甲#000000001")])


def test_rows_kept_and_dropped_with_value_and_threshold():
    batch = _batch()
    lengths = pc.cast(pc.utf8_length(batch["text"]), pa.float64())
    outcome = keep_where("length", batch, pc.greater_equal(lengths, 5), lengths, 5)
    assert outcome.kept.schema == SCHEMA and outcome.dropped.schema == DROPPED and outcome.removed.schema == REMOVED
    assert outcome.kept["id"].to_pylist() == ["书/甲#000000000"]
    assert outcome.dropped.to_pylist() == [
        {"id": "书/甲#000000001", "source": "书", "rule": "length", "value": 1.0, "threshold": 5.0, "text": "短"}
    ]
    assert outcome.values.to_pylist() == [10.0, 1.0]


def test_threshold_of_each_row():
    batch = _batch()
    values = pa.array([3.0, 4.0])
    outcome = keep_where("any", batch, pa.array([False, False]), values, pa.array([1.0, 2.0]))
    assert outcome.dropped["threshold"].to_pylist() == [1.0, 2.0]
    assert outcome.kept.num_rows == 0


def test_other_texts():
    changed = with_text(_batch(), pa.array(["一", "二"]))
    assert changed.schema == SCHEMA and changed["text"].to_pylist() == ["一", "二"]
    assert changed["id"].to_pylist() == _batch()["id"].to_pylist()
