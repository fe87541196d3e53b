"""Stop requests: the first waits for the iteration, the second does not."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from maskrcnn_benchmark.engine.interrupt import InterruptGuard


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_second_stops(number: signal.Signals) -> None:
    with InterruptGuard() as guard:
        assert not guard.requested
        signal.raise_signal(number)
        assert guard.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="inside"), InterruptGuard():
        raise ValueError("inside")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_at_once_stops_long_work() -> None:
    with InterruptGuard() as guard:
        with pytest.raises(KeyboardInterrupt), guard.at_once():
            signal.raise_signal(signal.SIGINT)
        assert not guard.requested
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), guard.at_once():
            pytest.fail("a pending request must stop before the work begins")


def test_forked_worker_leaves_ctrl_c_to_its_parent_and_can_be_terminated() -> None:
    with InterruptGuard() as guard:
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGINT)
            if guard.requested:
                os._exit(1)
            signal.raise_signal(signal.SIGTERM)
            os._exit(2)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
        assert not guard.requested


def test_other_threads_are_left_alone() -> None:
    seen: list[bool] = []

    def work() -> None:
        with InterruptGuard() as guard:
            seen.append(guard.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
