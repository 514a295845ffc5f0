"""A page opened in headless Chromium, spoken to over its debugging pipe: what it says, what it asks for, and what it looks like."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def found() -> str | None:
    """The path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page at a time. `events` are what Chromium reported since the last `open`."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._to_read, self._to_write = os.pipe()
        self._from_read, self._from_write = os.pipe()
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={self._profile.name}")
        # Chromium reads commands from descriptor 3 and writes to 4, each message ended by a zero byte.
        command = f'exec "$0" "$@" 3<&{self._to_read} 4>&{self._from_write}'
        ends = (self._to_read, self._from_write)
        self._process = subprocess.Popen(
            ["bash", "-c", command, found() or "chromium", *flags], pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for end in ends:
            os.close(end)
        self._number, self._rest, self.events = 0, b"", []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command to the page."""
        return self._call(method, session=self._session, **parameters)

    def open(self, path: Path, width: int, height: int, dark: bool = False) -> None:
        """Load a file in a window of this size and wait until it is there."""
        self.events = []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=path.resolve().as_uri())
        ends = time.monotonic() + 30
        while self.run("document.readyState") != "complete" or self.run("location.protocol") != "file:":
            assert time.monotonic() < ends, "the page does not load"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; of a promise what it becomes."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get("value")

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions."""
        named = [e for e in self.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")]
        return [json.dumps(e["params"])[:500] for e in named]

    def requests(self) -> list[str]:
        """Addresses the page asked for, data: ones and its own left out."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [address for address in asked[1:] if not address.startswith("data:")]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """A PNG of the page, all of it or what the window shows."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def close(self) -> None:
        """End Chromium."""
        self._process.terminate()
        self._process.wait(20)
        os.close(self._to_write)
        os.close(self._from_read)
        self._profile.cleanup()

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._to_write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._from_read, 1 << 20)
            assert part, "Chromium ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)
