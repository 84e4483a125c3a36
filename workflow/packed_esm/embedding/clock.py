"""Seconds of the stages of an embed job."""

import time

STAGES = ("read", "load", "reuse", "warm_up", "embed", "repeat", "write")


class Clock:
    """Seconds of each stage; `lap` adds the time since the last call to a stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def restart(self) -> None:
        """Count discarded work, which is done again, as warm-up."""
        self.lap("warm_up")
        for stage in ("embed", "repeat"):
            self.seconds["warm_up"] += self.seconds[stage]
            self.seconds[stage] = 0.0
