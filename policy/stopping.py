"""A loop that is asked to stop by a signal, and stops where it can go on later."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopsOnRequest:
    """A context in which SIGTERM and SIGINT set should_stop; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.should_stop = False
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous_handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.should_stop:
            raise KeyboardInterrupt
        self.should_stop = True
