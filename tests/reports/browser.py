"""Drives a headless Chromium through its own chromedriver, by WebDriver's plain HTTP."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
#: straight to this machine, whatever proxy there is
OPENER = build_opener(ProxyHandler({}))


def missing() -> str:
    """What is not installed; "" if all is."""
    return ", ".join(name for name in ("chromium", "chromedriver") if not shutil.which(name))


class Browser:
    """One window; use it in a ``with`` statement."""

    def __init__(self, width: int = 1280, height: int = 900, *, dark: bool = False):
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        assert self.driver.stdout is not None
        said = next(line for line in self.driver.stdout if "started successfully" in line)
        [port] = re.findall(r"port (\d+)", said)
        self.address = f"http://127.0.0.1:{port}/session"
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += ["--force-dark-mode"] if dark else []
        wanted = {
            "goog:chromeOptions": {"args": [*words, f"--window-size={width},{height}"]},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.address += f"/{made['sessionId']}"

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._ask("DELETE", "")
        self.driver.terminate()
        self.driver.communicate()  # which closes its output as well

    def _ask(self, verb: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.address}{path}", data, method=verb)
        with OPENER.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        self._ask("POST", "/url", {"url": page.as_uri()})

    def script(self, text: str, *values: Any) -> Any:
        """Returns what the body of a function returns."""
        return self._ask("POST", "/execute/sync", {"script": text, "args": list(values)})

    def wait(self, condition: str) -> None:
        """Waits until an expression is true."""
        text = f"""const done = arguments[0], look = () => {{
            if ({condition}) done(true); else setTimeout(look, 20); }}; look();"""
        self._ask("POST", "/execute/async", {"script": text, "args": []})

    def find(self, selector: str) -> str:
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def click(self, selector: str) -> None:
        self._ask("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector: str, keys: str) -> None:
        self._ask("POST", f"/element/{self.find(selector)}/value", {"text": keys})

    def press(self, keys: str) -> None:
        """Presses keys wherever the focus is."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": steps}]
        self._ask("POST", "/actions", {"actions": actions})

    def click_at(self, x: float, y: float) -> None:
        """Clicks a place in the window."""
        steps = [
            {"type": "pointerMove", "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        actions = [{"type": "pointer", "id": "mouse", "actions": steps}]
        self._ask("POST", "/actions", {"actions": actions})

    def cpu_seconds(self, page: Path, ready: str) -> float:
        """Returns the processor time that it takes to open a page, whatever else is going on."""
        self._devtools("Performance.enable", timeDomain="threadTicks")
        self.open(page)
        self.wait(ready)
        found = self._devtools("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    def _devtools(self, command: str, **values: Any) -> Any:
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": values})

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """Returns and forgets what was logged: ``browser`` (the console) or ``performance``."""
        found: list[dict[str, Any]] = self._ask("POST", "/se/log", {"type": kind})
        return found

    def requests(self) -> list[str]:
        """Returns and forgets all addresses that were asked for."""
        events = [json.loads(line["message"])["message"] for line in self.logged("performance")]
        sent = [one for one in events if one["method"] == "Network.requestWillBeSent"]
        return [one["params"]["request"]["url"] for one in sent]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))
