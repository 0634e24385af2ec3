"""The ledger: whatever the order of finishing, outputs come out in order and no offset runs ahead of its work."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from monitor.broker.offsets import Ledger, Work
from monitor.broker.writer import Output, squash


class LedgerMachine(RuleBasedStateMachine):
    """Against a model that remembers every record by its offset."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger[int] = Ledger(100)
        self.open: list[tuple[Work[int], range]] = []
        self.finished: set[int] = set()
        self.written: list[int] = []
        self.committed = 100

    @rule(size=st.integers(1, 5), gap=st.integers(0, 3))
    def begin(self, size: int, gap: int) -> None:
        start = self.ledger.end + gap  # transaction markers and compaction leave gaps
        self.open.append((self.ledger.begin(start + size, size), range(start, start + size)))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        work, offsets = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.ledger.finish(work, list(offsets))
        self.finished.update(offsets)

    @rule()
    def take(self) -> None:
        outputs, offset = self.ledger.take()
        self.written.extend(outputs)
        assert offset >= self.committed
        self.committed = offset

    @invariant()
    def written_in_order_and_once(self) -> None:
        assert self.written == sorted(set(self.written))

    @invariant()
    def committed_only_what_is_written(self) -> None:
        unfinished = {offset for _, offsets in self.open for offset in offsets}
        assert all(offset >= self.committed for offset in unfinished)
        assert {offset for offset in self.finished if offset < self.committed} == set(self.written)

    @invariant()
    def counts_what_it_holds(self) -> None:
        assert self.ledger.records == sum(map(len, (o for _, o in self.open))) + len(self.finished) - len(self.written)


TestLedger = LedgerMachine.TestCase


def test_an_offset_cannot_be_begun_twice() -> None:
    ledger: Ledger[int] = Ledger(5)
    ledger.begin(7, 2)
    with pytest.raises(ValueError, match="begun already"):
        ledger.begin(7, 1)


def test_only_the_last_of_what_replaces_itself_is_written() -> None:
    outputs = [
        Output("state", b"a", b"1", partition=0, latest=True),
        Output("opinions", b"a", b"first"),
        Output("state", b"a", b"2", partition=1, latest=True),
        Output("state", b"a", b"3", partition=0, latest=True),
        Output("opinions", b"a", b"first"),
    ]
    assert [output.value for output in squash(outputs)] == [b"first", b"2", b"3", b"first"]
