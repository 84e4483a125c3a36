"""Seconds of the stages of an embed job."""

import time

STAGES = ("read", "load", "reuse", "warm_up", "embed", "repeat", "write")


class Clock:
    """Seconds of each stage; `lap` gives a stage all the time since the last one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def restart(self) -> None:
        """Count what is thrown away, and made once more, as warming up."""
        self.lap("warm_up")
        for stage in ("embed", "repeat"):
            self.seconds["warm_up"] += self.seconds[stage]
            self.seconds[stage] = 0.0
