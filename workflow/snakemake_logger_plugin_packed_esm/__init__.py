"""Snakemake logger plugin `packed-esm`: one bar over all stages, warnings, and the log of a job that failed.

Use: snakemake --logger packed-esm. Snakemake finds the plugin by the name of this package.
"""

import logging
import re
import sys
from collections import Counter
from pathlib import Path

from packed_esm import errors
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

SHOWN = ("Nothing to be done", "Creating conda", "Downloading and installing")  # else a user waits and sees nothing
LINES_OF_A_LOG = 20  # shown of a job that failed
_SAID_BEFORE = ("CalledProcessError in file", "At least one job did not complete")  # by the failure of the job
_USER_ERRORS = {name for name in dir(errors) if name.endswith("Error")}


def stage_of(rule: str) -> str:
    """Return the name of a rule without the number of its group of samples."""
    return re.sub(r"_\d+$", "", rule)


class LogHandler(LogHandlerBase):
    """Writes to stderr: a bar on a terminal, else a line for each stage that is done."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.total: Counter[str] = Counter()  # jobs of each rule
        self.done: Counter[str] = Counter()
        self.rules: dict[int, str] = {}  # of each job
        self.bar: tqdm | None = None
        self.events = {
            LogEvent.RUN_INFO: self.on_plan,
            LogEvent.JOB_INFO: self.on_start,
            LogEvent.JOB_FINISHED: self.on_finish,
            LogEvent.JOB_ERROR: self.on_failure,
            LogEvent.GROUP_ERROR: self.on_group_failure,
            LogEvent.ERROR: self.on_error,
        }

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.events.get(getattr(record, "event", None), self.on_message)(record)
        except Exception:  # noqa: BLE001 - a logger must not end the run
            self.handleError(record)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        super().close()

    def on_plan(self, record: logging.LogRecord) -> None:
        if self.common_settings.dryrun and not self.total:
            self.write(record.getMessage())
        self.total = Counter()
        for rule, jobs in record.stats.items():
            if rule not in ("all", "total"):
                self.total[stage_of(rule)] += jobs
        if not self.common_settings.dryrun:
            bar_format = "{percentage:3.0f}%|{bar:12}| {desc}"
            self.bar = tqdm(total=self.total.total(), bar_format=bar_format, dynamic_ncols=True, disable=None)
            self.draw(0)

    def on_start(self, record: logging.LogRecord) -> None:
        self.rules[record.jobid] = stage_of(record.rule_name)
        self.draw(0)

    def on_finish(self, record: logging.LogRecord) -> None:
        rule = self.rules.get(record.job_id, "all")
        self.done[rule] += 1
        self.draw(int(rule in self.total))
        if self.bar is not None and self.bar.disable and self.done[rule] == self.total[rule]:
            self.write(f"{rule}: {self.total[rule]:,} of {self.total[rule]:,} jobs done")

    def on_failure(self, record: logging.LogRecord) -> None:
        self.write(f"{record.rule_name} failed:")
        self.write_logs(record.log)

    def on_group_failure(self, record: logging.LogRecord) -> None:
        self.write("a group of jobs failed:")
        self.write_logs([path for job in record.job_error_info for path in job["log"]])

    def on_error(self, record: logging.LogRecord) -> None:
        lines = record.getMessage().splitlines()
        if any(line.startswith(_SAID_BEFORE) for line in lines):
            return
        if getattr(record, "exception", "") in _USER_ERRORS:  # without the lines of our code that found it
            lines = ["packed-esm: error: " + " ".join(line for line in lines[1:] if not line.startswith("  File "))]
        self.write("\n".join(lines))

    def on_message(self, record: logging.LogRecord) -> None:
        message = str(record.msg or "")
        if record.levelno >= logging.WARNING or message.startswith(SHOWN):
            self.write(message)

    def draw(self, jobs: int) -> None:
        """Add finished jobs to the bar, and show how many jobs each stage has done."""
        if self.bar is not None:
            stages = (f"{rule} {self.done[rule]:,}/{jobs:,}" for rule, jobs in self.total.items())
            self.bar.set_description_str(", ".join(stages), refresh=False)
            self.bar.n += jobs
            self.bar.refresh()
            if self.bar.n == self.bar.total:
                self.bar.close()

    def write_logs(self, paths: list[str]) -> None:
        """Write the ends of logs."""
        for path in filter(Path.is_file, map(Path, paths)):
            self.write("\n".join(path.read_text(errors="replace").splitlines()[-LINES_OF_A_LOG:]))
            self.write(f"(log: {path})")

    def write(self, text: str) -> None:
        """Write lines above the bar."""
        tqdm.write(text, file=sys.stderr)
