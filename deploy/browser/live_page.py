"""A Pod of real processes, and a browser that has its live page open: what every test here begins with."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from playwright.sync_api import expect, sync_playwright

BINARIES = pathlib.Path(os.environ["BINARIES"])
CONTENT = pathlib.Path(__file__).parents[1] / "content"
CONTAINERS = ("file-puller", "web-server", "log-agent")
# Whatever takes longer than this has failed; nothing here waits for time to pass where it could wait for something to happen.
TIMEOUT = 20_000


class Pod:
    """`cargo demo` on an address of its own, and outside it a content manager that the tests may stop and a sink that they may take away.

    With `whole`, the demo runs the content manager, as it does for a person. A sink's `{}` is the folder that the tests may take away."""

    started = 0

    def __init__(self, sinks, whole=False, arguments=()):
        Pod.started += 1
        self.ip = f"127.0.{os.getpid() % 200 + 20}.{Pod.started}"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pod-page-"))
        # A name that a shell must be given in quotes: the page shows commands with it.
        self.content = self.folder / "a site's content"
        shutil.copytree(CONTENT, self.content)
        self.log = open(self.folder / "pod.log", "w+b")
        self.manager = None
        arguments = ["--ip", self.ip, "--period", "1s", *arguments]
        if whole:
            arguments += ["--content", self.content]
        else:
            self.start_content_manager()
            arguments += ["--source", f"http://{self.ip}:9880/manifest.json"]
        # Where the page's command for the sink puts it.
        self.sink = self.folder / "lab/sink"
        self.sink.mkdir(parents=True)
        arguments += [f"--sink={sink.format(self.sink)}" for sink in sinks]
        arguments += [f"--keep-dir={self.folder / 'volumes'}", "--binaries", BINARIES]
        self.process = subprocess.Popen([BINARIES / "kubelet", *arguments], stdout=self.log, stderr=self.log)
        wait(lambda: self.get("/live.html"), "the Pod serves its page")

    def start_content_manager(self):
        arguments = ["--root", self.content, "--manifest", "--listen", f"{self.ip}:9880", "--admin-addr", f"{self.ip}:0"]
        self.manager = subprocess.Popen([BINARIES / "web-server", *arguments], stdout=self.log, stderr=self.log)

    def stop_content_manager(self):
        if self.manager:
            self.manager.kill()
            self.manager.wait()

    def another_server(self, port, *arguments, **variables):
        """A web-server over the same volume, outside the Pod, such as one that was told less. The caller ends it."""
        arguments = ["--root", self.folder / "volumes/content/current", "--listen", f"{self.ip}:{port}", "--admin-addr", f"{self.ip}:0", *arguments]
        server = subprocess.Popen([BINARIES / "web-server", *arguments], stdout=self.log, stderr=self.log, env={**os.environ, **variables})
        wait(lambda: self.status("/live.html", port) == 200, "the other server serves")
        return server

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        self.stop_content_manager()
        self.log.close()
        shutil.rmtree(self.folder)

    def url(self, path, port=9876):
        return f"http://{self.ip}:{port}{path}"

    def get(self, path, port=9876):
        with urllib.request.urlopen(self.url(path, port), timeout=5) as answer:
            return answer.read().decode()

    def status(self, path, port=9876):
        try:
            with urllib.request.urlopen(self.url(path, port), timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def edit(self, path, text):
        temporary = self.folder / "edit"
        temporary.write_text(text)
        temporary.replace(self.content / path)

    def pid(self, container):
        """The container's process: the demo's child with that name. The content manager is a web-server, too, and no container."""
        for child in pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            arguments = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == container and b"--manifest" not in arguments:
                return int(child)
        raise LookupError(f"{container} does not run")

    def lines(self):
        """Lines in the log's files."""
        return sum(file.read_bytes().count(b"\n") for file in (self.folder / "volumes/logs").glob("access.log*"))

    def at_the_sink(self):
        """Different records in the sink's file: what was sent again after a death counts once."""
        return len({json.loads(line)["id"] for line in (self.sink / "log.ndjson").read_text().splitlines()})

    def cpu_seconds(self, container):
        fields = pathlib.Path(f"/proc/{self.pid(container)}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait(condition, what):
    deadline = time.monotonic() + TIMEOUT / 1000
    while True:
        try:
            if condition():
                return
        except (OSError, LookupError) as error:
            last = error
        else:
            last = None
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain until {what}: {last}")
        time.sleep(0.05)


# What a browser does with a page that goes to the background, and with one that comes back.
HIDE = "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); document.dispatchEvent(new Event('visibilitychange')) }"
# Notes when a card first shows that its container is down.
WATCH = """(selector) => {
  const card = document.querySelector(selector);
  window.downAt = null;
  new MutationObserver(() => { if (card.dataset.state === "down") downAt ??= performance.now(); }).observe(card, {attributes: true});
}"""


class LivePage(unittest.TestCase):
    """One Pod and one browser for a class of tests; a browser context for each test, which leaves the Pod as it found it."""

    sinks = ("stdout:",)
    whole = False
    arguments = ()

    @classmethod
    def setUpClass(cls):
        cls.pod = Pod(cls.sinks, cls.whole, cls.arguments)
        cls.addClassCleanup(cls.pod.stop)
        cls.open_browser(cls.pod.ip)

    @classmethod
    def open_browser(cls, ip):
        playwright = sync_playwright().start()
        cls.addClassCleanup(playwright.stop)
        # A name that means the Pod, as a browser on another machine of the same network would have one.
        elsewhere = f"--host-resolver-rules=MAP another-machine {ip}"
        cls.browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", elsewhere])
        cls.addClassCleanup(cls.browser.close)
        expect.set_options(timeout=TIMEOUT)

    def open(self, address=None, live=True, **options):
        context = self.browser.new_context(**options)
        self.addCleanup(context.close)
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        self.complaints = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address or self.pod.url("/live.html"))
        if live:
            expect(page.locator("#live")).to_be_visible()
            expect(page.locator("#line")).to_have_text(re.compile("Live"))
            for container in CONTAINERS:
                self.state(page, container, "up")
        return page

    def another_page(self, port, *arguments, live=True, **variables):
        """The live page of another server, which is told where its neighbours are: not at the ports of its own localhost."""
        neighbours = ["--pod-page-puller", f"{self.pod.ip}:9878", "--pod-page-agent", f"{self.pod.ip}:9879"]
        server = self.pod.another_server(port, "--pod-page", *neighbours, *arguments, **variables)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        return self.open(address=self.pod.url("/live.html", port), live=live)

    def state(self, page, container, state):
        expect(page.locator(f'.card[data-container="{container}"]')).to_have_attribute("data-state", state)

    def seconds_until_down(self, page, container, act):
        """From the act to the moment at which the page shows it, by the page's own clock: an expectation looks only now and then."""
        selector = f'.card[data-container="{container}"]'
        page.evaluate(WATCH, selector)
        began = page.evaluate("performance.now()")
        act()
        self.state(page, container, "down")
        return (page.evaluate("downAt") - began) / 1000

    def value(self, page, key):
        return page.locator(f'dd[data-v="{key}"]')

    def number(self, page, key):
        return int(self.value(page, key).inner_text().replace(",", ""))

    def happened(self, page, sentence):
        expect(page.locator("#news")).to_contain_text(sentence)

    def quiet(self):
        self.assertEqual(self.complaints, [], "the browser's console has something to say")
