"""Drive a headless Chromium by its DevTools protocol, over a pipe: no port, no package, no network.

Protocol: https://chromedevtools.github.io/devtools-protocol/ (messages are JSON, each ended by a zero byte).
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60  # for an answer


def find_chromium() -> str | None:
    """Return the path of an installed Chromium, None without one."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


@contextmanager
def chromium(program: str, profile: Path) -> Iterator["Browser"]:
    """Start Chromium with software rendering and a profile of its own; end it."""
    to_browser, from_us = _pipe()
    from_browser, to_us = _pipe()
    flags = ["--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += [
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        "--force-color-profile=srgb",
        "--force-device-scale-factor=1",
    ]
    if os.getuid() == 0:
        flags.append("--no-sandbox")  # root has no sandbox
    # The protocol reads from descriptor 3 and writes to 4.
    moves = f'exec "$@" 3<&{to_browser} 4>&{to_us}'
    process = subprocess.Popen(
        ["bash", "-c", moves, "bash", program, *flags, "about:blank"],
        pass_fds=(to_browser, to_us),
        stdout=subprocess.DEVNULL,
        stderr=(profile.parent / "chromium.log").open("w"),
    )
    os.close(to_browser)
    os.close(to_us)
    try:
        yield Browser(from_us, from_browser)
    finally:
        process.terminate()
        process.wait(SECONDS)
        os.close(from_us)
        os.close(from_browser)


def _pipe() -> tuple[int, int]:
    """Return the ends of a pipe, as descriptors above those that the protocol uses."""
    ends = os.pipe()
    above = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return above


class Browser:
    """A connection to a browser."""

    def __init__(self, writer: int, reader: int):
        self.writer, self.reader, self.number = writer, reader, 0
        self.events, self.unread = [], b""

    def call(self, method: str, session: str | None = None, **parameters) -> dict:
        """Send a command and return its result; events that come before are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.writer, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict:
        while b"\0" not in self.unread:
            assert select.select([self.reader], [], [], SECONDS)[0], f"Chromium said nothing for {SECONDS} s"
            data = os.read(self.reader, 2**20)
            assert data, "Chromium ended"
            self.unread += data
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    def open(self, file: Path, width: int = 1280, height: int = 900, dark: bool = False, script: bool = True) -> "Tab":
        """Open a file in a tab, wait until it is loaded, and return the tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        tab.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        tab.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.events.clear()
        tab.call("Page.navigate", url=file.resolve().as_uri())
        tab.wait_for("Page.loadEventFired")
        return tab


class Tab:
    """A page in a browser."""

    def __init__(self, browser: Browser, target: str, session: str):
        self.browser, self.target, self.session = browser, target, session

    def call(self, method: str, **parameters) -> dict:
        return self.browser.call(method, self.session, **parameters)

    def wait_for(self, event: str) -> None:
        while not any(one["method"] == event for one in self.browser.events):
            self.browser.events.append(self.browser._read())

    def run(self, expression: str):
        """Return the value of an expression, or what its promise brings."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def frame(self) -> None:
        """Wait until what was changed is painted."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)
        self.frame()

    def press(self, selector: str) -> None:
        """Click the middle of the first element that a selector finds."""
        script = "(e => { e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
        script += f"return [b.x + b.width / 2, b.y + b.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        self.click(*self.run(script))

    def type(self, selector: str, text: str) -> None:
        """Put a text into a field, as a user would."""
        script = f"(e => {{ e.focus(); e.select() }})(document.querySelector({json.dumps(selector)}))"
        self.run(script)
        self.call("Input.insertText", text=text)
        self.frame()

    def choose(self, selector: str, value: int) -> None:
        """Choose an option of a list."""
        script = f"(e => {{ e.value = {value}; e.dispatchEvent(new Event('change')) }})"
        self.run(f"{script}(document.querySelector({json.dumps(selector)}))")
        self.frame()

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def complaints(self) -> list[str]:
        """Return what the console said since the page was opened: errors, exceptions, what the policy refused."""
        said = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Page.javascriptDialogOpening"}
        return [json.dumps(event["params"]) for event in self.browser.events if event["method"] in said]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened."""
        sent = [event for event in self.browser.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)
