#!/usr/bin/env python3
"""Uses the page of a curve as a person does, in headless Chromium with a real pointer, and says as JSON what it showed.

  use_page.py PAGE.html FOLDER

The pointer drags the slider to its right end, presses in the chart at the left, drags to the right, lets go, chooses the second resource with the keyboard, and clicks the button that saves the plan into FOLDER. The page
is then opened on a narrow screen. Speaks Chromium's own protocol over two pipes, so it needs Python alone.
"""
import json
import os
import pathlib
import select
import subprocess
import sys
import time

LIMIT = 50.0  # seconds for everything


class Browser:
    def __init__(self, profile):
        to_browser, self.out = os.pipe()
        self.back, from_browser = os.pipe()

        def wire():  # Chromium reads commands from 3 and answers on 4
            commands, answers = os.dup(to_browser), os.dup(from_browser)
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=wire, close_fds=False, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.count, self.waiting, self.events, self.session = 0, b"", [], None
        self.end = time.monotonic() + LIMIT

    def read(self):
        while b"\0" not in self.waiting:
            if time.monotonic() > self.end:
                raise SystemExit("use_page: Chromium took too long")
            if not select.select([self.back], [], [], max(0.0, self.end - time.monotonic()))[0]:
                continue
            part = os.read(self.back, 1 << 16)
            if not part:
                raise SystemExit("use_page: Chromium ended")
            self.waiting += part
        message, self.waiting = self.waiting.split(b"\0", 1)
        return json.loads(message)

    def ask(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise SystemExit(f"use_page: {method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event):
        while not any(one.get("method") == event for one in self.events):
            self.events.append(self.read())
        self.events = [one for one in self.events if one.get("method") != event]

    def open(self, page):
        self.session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.ask("Page.navigate", url=pathlib.Path(page).resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def value(self, script):
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise SystemExit(f"use_page: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def box(self, element):
        return self.value(f"(() => {{ const e = document.getElementById('{element}'); e.scrollIntoView({{block: 'center'}});"
                          " const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()")

    def mouse(self, kind, x, y):
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=0 if kind == "mouseReleased" else 1,
                 clickCount=1)

    def move(self, *point):
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=point[0], y=point[1], buttons=0)

    def press(self, *point):
        self.move(*point)
        self.mouse("mousePressed", *point)

    def drag(self, *point):
        self.mouse("mouseMoved", *point)

    def release(self, *point):
        self.mouse("mouseReleased", *point)

    def key(self, name, code):
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def close(self):
        self.session = None
        try:
            self.ask("Browser.close")
        except (SystemExit, OSError):
            pass
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()


STATE = """({plan: document.body.dataset.plan, axis: document.getElementById('axis').selectedOptions[0].text,
  bits: [...document.getElementById('layers').tBodies[0].rows].map((row) => row.cells[2].textContent.trim()),
  yaml: document.getElementById('plan').textContent,
  circles: document.querySelectorAll('#chart circle').length, squares: document.querySelectorAll('#chart rect').length})"""


def use(browser, page, folder):
    states = {}
    browser.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.open(page)
    states["start"] = browser.value(STATE)

    left, top, width, height = browser.box("budget")
    start = browser.value("(() => { const s = document.getElementById('budget');"
                          " return (s.value - s.min) / (s.max - s.min); })()")
    middle = top + height / 2
    browser.press(left + 8 + start * (width - 16), middle)
    browser.drag(left + 0.9 * width, middle)
    browser.drag(left + width - 8, middle)
    browser.release(left + width - 8, middle)
    states["slider"] = browser.value(STATE)

    left, top, width, height = browser.box("chart")
    at = lambda share: (left + share * width, top + height / 2)
    browser.press(*at(0.08))
    states["chart"] = browser.value(STATE)
    browser.drag(*at(0.6))
    browser.drag(*at(0.97))
    states["dragged"] = browser.value(STATE)
    browser.release(*at(0.97))
    browser.move(*at(0.08))  # the button is up: nothing follows
    states["released"] = browser.value(STATE)

    browser.value("document.getElementById('axis').focus()")
    browser.key("ArrowDown", 40)
    states["axis"] = browser.value(STATE)

    left, top, width, height = browser.box("save")
    browser.press(left + width / 2, top + height / 2)
    browser.release(left + width / 2, top + height / 2)
    while not any(path.suffix in (".yaml", ".yml") for path in folder.iterdir()):
        if time.monotonic() > browser.end:
            raise SystemExit("use_page: nothing was saved")
        time.sleep(0.05)
    states["saved"] = next(path.read_text() for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))

    browser.ask("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=False)
    # What sticks out of the screen to the right; a table may be scrolled in a box of its own.
    states["overhang"] = browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return states


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    page, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    browser = Browser(folder / "profile")
    try:
        states = use(browser, page, folder)
    finally:
        browser.close()
    print(json.dumps(states))


main()
