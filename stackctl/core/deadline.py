"""Runs a function in a separate thread, so that the caller can stop waiting after a deadline."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NoReturn, TypeVar

T = TypeVar("T")


def begin(act: Callable[[], T]) -> Callable[[float], T]:
    """Start `act` in the background, and return a function that waits for the result.

    The returned function takes a number of seconds to wait. If `act` ends in time, the returned function returns the
    result of `act` or raises its exception. If `act` takes longer, the returned function raises TimeoutError. The
    timeout of a socket is not enough, because such a timeout applies to each read, so a peer that sends a byte now and
    then is never cut off. The look-up of a host name has no timeout at all.
    """
    ended: SimpleQueue[Callable[[], T]] = SimpleQueue()

    def run() -> None:
        try:
            result = act()
        except BaseException as error:  # `wait` raises the exception where the caller can catch it
            failure = error
            ended.put(lambda: _raise(failure))
        else:
            ended.put(lambda: result)

    def wait(seconds: float) -> T:
        try:
            return ended.get(timeout=max(0.0, seconds))()
        except Empty:
            raise TimeoutError(f"no answer within {seconds:.0f} s") from None

    threading.Thread(target=run, daemon=True).start()
    return wait


def _raise(error: BaseException) -> NoReturn:
    raise error
