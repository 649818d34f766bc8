"""How far a download is: one line that changes on a terminal, a line every tenth elsewhere."""

from __future__ import annotations

import sys
import time

MEGABYTE = 10**6


class Progress:
    """Counts the bytes of one file, and prints.

    Attributes:
        done: bytes so far.
    """

    def __init__(self, label: str, done: int, total: int | None) -> None:
        """Start.

        Args:
            label: what is fetched.
            done: bytes that were there before.
            total: bytes in the end, if known.
        """
        self.done = done
        self._label, self._total = label, total
        self._terminal = sys.stdout.isatty()
        self._shown = 0.0
        self._step = max(1, total // 10) if total else 100 * MEGABYTE
        self._next = self._after(done)
        if not self._terminal:
            self._line()

    def add(self, count: int) -> None:
        """Count more bytes."""
        self.done += count
        if self._terminal and time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            self._line()
        elif not self._terminal and self.done >= self._next:
            self._next = self._after(self.done)
            self._line()

    def _after(self, done: int) -> int:
        return (done // self._step + 1) * self._step

    def close(self) -> None:
        """Leave the line on a terminal."""
        if self._terminal:
            self._line()
            print(flush=True)

    def _line(self) -> None:
        amount = f"{self.done / MEGABYTE:,.1f}"
        whole = (
            f" of {self._total / MEGABYTE:,.1f} MB ({self.done / self._total:.0%})" if self._total else " MB"
        )
        start, end = ("\r", "  ") if self._terminal else ("", "\n")
        print(f"{start}{self._label}: {amount}{whole}", end=end, flush=True)
