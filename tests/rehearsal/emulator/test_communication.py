from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pangu_alpha.rehearsal.emulator.communication import Call, Mismatch, Network
from pangu_alpha.rehearsal.emulator.traffic import Traffic, traffic_of


def _call(rank: int, operator: str = "AllReduce", ranks=(0, 1), shape=(2,), **more) -> Call:
    more = {"reduction": "sum" if "Reduce" in operator else "", "number": 0, "scope": f"Default/{operator}-op0"} | more
    return Call(
        rank, operator=operator, group="group", ranks=ranks, shape=shape, dtype="float32", bytes=8, instance="", **more
    )


def _exchange(operator: str, *inputs, **more) -> list[np.ndarray]:
    network = Network()
    ranks = tuple(range(len(inputs)))
    arrays = [np.asarray(value, np.float32) for value in inputs]
    futures = [
        network.issue(_call(rank, operator, ranks, arrays[rank].shape, **more), arrays[rank])
        for rank in reversed(ranks)  # whoever comes first
    ]
    assert all(future.done for future in futures)
    return [future.value for future in reversed(futures)]


def test_results_of_collectives():
    np.testing.assert_array_equal(_exchange("AllReduce", [1, 2], [10, 20]), [[11, 22]] * 2)
    np.testing.assert_array_equal(_exchange("AllReduce", [1, 20], [10, 2], reduction="max"), [[10, 20]] * 2)
    np.testing.assert_array_equal(_exchange("AllReduce", [1, 20], [10, 2], reduction="min"), [[1, 2]] * 2)
    np.testing.assert_array_equal(_exchange("AllGather", [[1], [2]], [[3], [4]]), [[[1], [2], [3], [4]]] * 2)
    np.testing.assert_array_equal(_exchange("ReduceScatter", [1, 2, 3, 4], [10, 20, 30, 40]), [[11, 22], [33, 44]])
    rows = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    np.testing.assert_array_equal(
        _exchange("AlltoAll", *rows, axes=(1, 0)), [[[1], [3], [5], [7]], [[2], [4], [6], [8]]]
    )


def test_sums_are_made_in_the_element_type():
    network = Network()
    big = np.array([60000.0], np.float16)
    first = network.issue(dataclasses.replace(_call(0, shape=(1,)), dtype="float16"), big)
    network.issue(dataclasses.replace(_call(1, shape=(1,)), dtype="float16"), big)
    assert np.isinf(first.value[0])


def test_nobody_goes_on_before_all_have_come():
    network = Network()
    first = network.issue(_call(0), np.zeros(2, np.float32))
    assert not first.done
    network.issue(_call(1), np.zeros(2, np.float32))
    assert first.done


def test_calls_of_a_group_meet_in_their_order():
    network = Network()
    first = [network.issue(_call(0), np.full(2, value, np.float32)) for value in (1.0, 2.0)]
    for value in (10.0, 20.0):
        network.issue(_call(1), np.full(2, value, np.float32))
    assert [future.value.tolist() for future in first] == [[11, 11], [22, 22]]


@pytest.mark.parametrize(
    "other", [{"reduction": "max"}, {"shape": (1, 2)}, {"dtype": "float16"}, {"operator": "ReduceScatter"}]
)
def test_what_does_not_agree_names_both(other):
    network = Network()
    network.issue(_call(0), np.zeros(2, np.float32))
    with pytest.raises(Mismatch, match=r"group group \(ranks \[0, 1\]\): rank 0 at AllReduce.*, but rank 1 at "):
        network.issue(dataclasses.replace(_call(1), **other), np.zeros(2, np.float32))


def test_another_order_is_seen_where_shapes_agree():
    scopes = frozenset(("Default/first", "Default/second"))
    network = Network({("group", 0): scopes, ("group", 1): scopes})
    network.issue(_call(0, scope="Default/first"), np.zeros(2, np.float32))
    with pytest.raises(Mismatch, match=r"in another order.*\(Default/first\), but rank 1.*\(Default/second\)"):
        network.issue(_call(1, scope="Default/second"), np.zeros(2, np.float32))


def test_another_name_of_the_same_place_is_no_other_order():
    """Stages number their operators for themselves."""
    network = Network({("group", 0): frozenset(("Default/a-op0",)), ("group", 1): frozenset(("Default/a-op1",))})
    first = network.issue(_call(0, scope="Default/a-op0"), np.zeros(2, np.float32))
    network.issue(_call(1, scope="Default/a-op1"), np.zeros(2, np.float32))
    assert first.done


def test_sends_meet_receivers():
    network = Network()
    sent = network.issue(_call(0, "Send", peer=1, tag=7), np.array([3, 4], np.float32))
    assert not sent.done, "rendezvous"
    received = network.issue(_call(1, "Receive", peer=0, tag=7), None)
    assert sent.done and received.value.tolist() == [3, 4]


def test_what_is_sent_must_be_what_is_received():
    network = Network()
    network.issue(_call(0, "Send", peer=1), np.zeros(2, np.float32))
    with pytest.raises(Mismatch, match="what is sent is not what is received: rank 0 at Send to rank 1"):
        network.issue(_call(1, "Receive", shape=(3,), peer=0), None)


def test_one_stream_a_group_and_buffers():
    """Rank 1 receives in another order than rank 0 sends: the first of each stands in the way of the second."""
    network = Network()
    sent = [network.issue(_call(0, "Send", peer=1, tag=tag), np.full(2, tag, np.float32)) for tag in (1, 2)]
    received = [network.issue(_call(1, "Receive", peer=0, tag=tag), None) for tag in (2, 1)]
    assert not any(future.done for future in (*sent, *received))
    assert network.relax()
    assert [future.value.tolist() for future in received] == [[2, 2], [1, 1]]
    late = network.issue(_call(0, "Send", peer=1, tag=3), np.zeros(2, np.float32))
    assert late.done, "a buffered send needs no receiver"
    assert [call.tag for call in network.unfinished(0)] == [3], "but it is remembered"


def test_traffic():
    calls = [_call(0), _call(0), _call(0, "Send", peer=1), _call(0, "Receive", peer=1)]
    assert traffic_of(calls) == {
        ("AllReduce", (0, 1)): Traffic(2, 16),
        ("Send", (0, 1)): Traffic(1, 8),
        ("Receive", (1, 0)): Traffic(1, 8),
    }
