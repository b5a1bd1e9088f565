"""The live page, as people meet it: a browser, and a Pod of real processes behind it.

Run by run.sh, which knows where everything is. Each test has a browser context of its own; the Pod is one for all, and every test
leaves it as it found it.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.request

from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect, sync_playwright

BINARIES = pathlib.Path(os.environ["BINARIES"])
CONTENT = pathlib.Path(__file__).parents[1] / "content"
SCREENSHOT = os.environ.get("SCREENSHOT")
# Whatever takes longer than this has failed; nothing here waits for time to pass where it could wait for something to happen.
PATIENCE = 20_000
WEIGHT_MAX = 60 * 1024
CPU_MAX = 0.02


class Pod:
    """`cargo demo` on an address of its own, and outside it a content manager that the tests may stop."""

    def __init__(self):
        self.ip = f"127.0.{os.getpid() % 200 + 20}.1"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pod-page-"))
        self.content = self.folder / "content"
        shutil.copytree(CONTENT, self.content)
        self.log = open(self.folder / "pod.log", "w+b")
        self.manager = None
        self.start_content_manager()
        arguments = ["--ip", self.ip, "--source", f"http://{self.ip}:9880/manifest.json", "--period", "1s"]
        arguments += ["--sink", "stdout:", "--binaries", BINARIES]
        self.process = subprocess.Popen([BINARIES / "pod", *arguments], stdout=self.log, stderr=self.log)
        wait(lambda: self.get("/live.html"), "the Pod serves its page")

    def start_content_manager(self):
        arguments = ["--root", self.content, "--manifest", "--listen", f"{self.ip}:9880", "--admin-addr", f"{self.ip}:0"]
        self.manager = subprocess.Popen([BINARIES / "web-server", *arguments], stdout=self.log, stderr=self.log)

    def stop_content_manager(self):
        self.manager.kill()
        self.manager.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        self.stop_content_manager()
        self.log.close()
        shutil.rmtree(self.folder)

    def url(self, path):
        return f"http://{self.ip}:9876{path}"

    def get(self, path):
        with urllib.request.urlopen(self.url(path), timeout=5) as answer:
            return answer.read().decode()

    def edit(self, path, text):
        temporary = self.folder / "edit"
        temporary.write_text(text)
        temporary.replace(self.content / path)

    def pid(self, container):
        """The container's process: the demo's child with that name."""
        for child in pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == container:
                return int(child)
        raise LookupError(f"{container} does not run")

    def cpu_seconds(self, container):
        fields = pathlib.Path(f"/proc/{self.pid(container)}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait(condition, what):
    deadline = time.monotonic() + PATIENCE / 1000
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


def setUpModule():
    global pod, playwright, browser
    pod = Pod()
    playwright = sync_playwright().start()
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])


def tearDownModule():
    browser.close()
    playwright.stop()
    pod.stop()


class Page(unittest.TestCase):
    def open(self, **options):
        context = browser.new_context(**options)
        self.addCleanup(context.close)
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page = context.new_page()
        self.complaints = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(pod.url("/live.html"))
        if options.get("java_script_enabled", True):
            expect(page.locator("#live")).to_be_visible()
            expect(page.locator("#line")).to_have_text(re.compile("Live"))
            for container in ("file-puller", "web-server", "log-agent"):
                self.state(page, container, "up")
        return page

    def state(self, page, container, state):
        expect(page.locator(f'.card[data-container="{container}"]')).to_have_attribute("data-state", state)

    def happened(self, page, sentence):
        expect(page.locator("#news")).to_contain_text(sentence)

    def quiet(self):
        self.assertEqual(self.complaints, [], "the browser's console has something to say")

    def test_an_edit_arrives(self):
        page = self.open()
        before = page.locator('h2 [data-v="release.id"]').inner_text()
        moved = "window.moved = 0; new MutationObserver((all) => { moved += all.flatMap((one) => [...one.addedNodes]).length })"
        page.evaluate(f"{moved}.observe(document.getElementById('packets'), {{childList: true}})")
        pod.edit("robots.txt", f"# {time.time()}\n")
        self.happened(page, re.compile(r"Release [0-9a-f]{16} has arrived: robots.txt changed"))
        expect(page.locator('h2 [data-v="release.id"]')).not_to_have_text(before)
        expect(page.locator('[data-v="release.changes"]')).to_have_text("robots.txt changed")
        expect(page.locator('[data-v="release.fetched"]')).to_have_text("1 file")
        # And it is announced, once.
        expect(page.locator("#say")).to_contain_text("has arrived")
        self.assertGreater(page.evaluate("moved"), 0)
        self.quiet()

    def test_lines_are_followed_to_the_sink(self):
        page = self.open()
        page.evaluate("window.said = 0; new MutationObserver(() => { said += 1 }).observe(document.getElementById('say'), {childList: true})")
        number = lambda key: int(page.locator(f'dd[data-v="{key}"]').inner_text().replace(",", ""))
        before = number("confirmed")
        for _ in range(7):
            pod.get("/")
        wait(lambda: number("confirmed") >= before + 7, "seven more lines are confirmed")
        expect(page.locator('dd[data-v="lost"]')).to_have_text("nothing")
        self.assertEqual(page.evaluate("said"), 0, "a screen reader is told of every line")
        self.quiet()

    def test_a_killed_container_looks_down_within_two_seconds_and_comes_back(self):
        page = self.open()
        restarts = page.locator('[data-v="log-agent.restarts"]')
        # The first time a container is started again at once, then after ten seconds: the demo's kubelet is a real one.
        expected = int(restarts.inner_text())
        for _ in range(2):
            os.kill(pod.pid("log-agent"), signal.SIGKILL)
            began = time.monotonic()
            expected += 1
            if expected > 1:
                self.state(page, "log-agent", "down")
                self.assertLess(time.monotonic() - began, 2)
                expect(page.locator('[data-v="log-agent.reason"]')).to_have_text("nobody listens on its port")
                pod.get("/")
                expect(page.locator('dd[data-v="waiting"]')).not_to_have_text("0 lines")
            expect(restarts).to_have_text(str(expected))
            self.state(page, "log-agent", "up")
        self.happened(page, "log-agent is up again, as a new process.")
        expect(page.locator('dd[data-v="waiting"]')).to_have_text("0 lines")
        self.quiet()

    def test_a_container_that_hangs_looks_down_within_two_seconds(self):
        page = self.open()
        puller = pod.pid("file-puller")
        os.kill(puller, signal.SIGSTOP)
        try:
            began = time.monotonic()
            self.state(page, "file-puller", "down")
            self.assertLess(time.monotonic() - began, 2)
        finally:
            os.kill(puller, signal.SIGCONT)
        self.state(page, "file-puller", "up")
        self.quiet()

    def test_a_stopped_content_manager_is_seen_and_the_release_stays(self):
        page = self.open()
        release = page.locator('h2 [data-v="release.id"]').inner_text()
        pod.stop_content_manager()
        try:
            self.happened(page, "file-puller cannot sync: the last good release stays.")
            expect(page.locator('#drawing [data-part="content-manager"]')).to_have_attribute("data-state", "down")
            expect(page.locator('h2 [data-v="release.id"]')).to_have_text(release)
            self.state(page, "file-puller", "up")
        finally:
            pod.start_content_manager()
        self.happened(page, "file-puller syncs again.")
        self.quiet()

    def test_a_web_server_that_is_gone_is_seen_within_two_seconds(self):
        page = self.open()
        server = pod.pid("web-server")
        os.kill(server, signal.SIGSTOP)
        began = time.monotonic()
        self.state(page, "web-server", "down")
        hung = time.monotonic() - began
        os.kill(server, signal.SIGCONT)
        self.assertLess(hung, 2)
        self.state(page, "web-server", "up")
        os.kill(server, signal.SIGKILL)
        began = time.monotonic()
        self.state(page, "web-server", "down")
        self.assertLess(time.monotonic() - began, 2)
        self.happened(page, "web-server answers again.")
        self.state(page, "web-server", "up")
        expect(page.locator('[data-v="web-server.restarts"]')).to_have_text("1")
        # The browser notes that a stream was cut; the page itself has nothing to complain of.
        own = [text for text in self.complaints if not text.startswith("Failed to load resource")]
        self.assertEqual(own, [])

    def test_sync_now_by_keyboard(self):
        page = self.open()
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "sync":
                break
        expect(page.locator("#sync")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#synced")).to_have_text(re.compile("Nothing is new|A new release"))
        self.quiet()

    def test_accessible_in_light_and_dark_on_a_desk_and_on_a_phone(self):
        for scheme in ("light", "dark"):
            for width, height in ((1280, 900), (360, 740)):
                with self.subTest(scheme=scheme, width=width):
                    page = self.open(color_scheme=scheme, viewport={"width": width, "height": height})
                    results = Axe().run(page)
                    self.assertEqual(results.violations_count, 0, results.generate_report())
                    self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), width, "it scrolls sideways")
                    self.quiet()

    def test_nothing_moves_where_nothing_may(self):
        page = self.open(reduced_motion="reduce")
        page.evaluate("window.moved = 0; new MutationObserver(() => { moved += 1 }).observe(document.getElementById('packets'), {childList: true})")
        pod.edit("robots.txt", f"# {time.time()}\n")
        self.happened(page, "has arrived")
        pod.get("/")
        self.assertEqual(page.evaluate("moved"), 0)
        self.assertEqual(page.evaluate("document.getAnimations().length"), 0)
        self.quiet()

    def test_without_javascript_the_last_snapshot_is_there(self):
        page = self.open(java_script_enabled=False)
        expect(page.locator("#live")).to_be_hidden()
        snapshot = page.frame_locator("iframe.plain")
        expect(snapshot.get_by_role("heading", name="log-agent")).to_be_visible()
        expect(snapshot.get_by_text("up, ready").first).to_be_visible()
        self.quiet()

    def test_light_in_weight_and_from_here_alone(self):
        context = browser.new_context()
        self.addCleanup(context.close)
        page = context.new_page()
        answers = []
        page.on("response", lambda answer: answers.append(answer))
        page.goto(pod.url("/live.html"))
        expect(page.locator("#live")).to_be_visible(timeout=PATIENCE)
        self.assertEqual({answer.url for answer in answers if not answer.url.startswith(pod.url("/"))}, set())
        loaded = {answer.url: len(answer.body()) for answer in answers if not answer.url.endswith("/pod/events")}
        self.assertGreaterEqual(len(loaded), 4, loaded)
        print(f"\n{sum(loaded.values())} bytes in {len(loaded)} files", flush=True)
        self.assertLess(sum(loaded.values()), WEIGHT_MAX, loaded)

    def test_one_viewer_costs_little(self):
        page = self.open()
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        measure = lambda: {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}["TaskDuration"]
        containers = ("web-server", "file-puller", "log-agent")
        cpu, browsed, began = [pod.cpu_seconds(container) for container in containers], measure(), time.monotonic()
        # A share of time can only be had by letting time pass.
        page.wait_for_timeout(10_000)
        took = time.monotonic() - began
        shares = {container: (pod.cpu_seconds(container) - before) / took for container, before in zip(containers, cpu)}
        shares["the page"] = (measure() - browsed) / took
        print("\n" + ", ".join(f"{name} {share:.2%}" for name, share in shares.items()), flush=True)
        self.assertLess(sum(shares[container] for container in containers), CPU_MAX)
        self.quiet()

    @unittest.skipUnless(SCREENSHOT, "only with --screenshot")
    def test_screenshot_for_the_readme(self):
        page = self.open(viewport={"width": 1200, "height": 1000})
        page.evaluate("document.fonts.ready")
        pod.edit("index.html", (CONTENT / "index.html").read_text().replace("Three small programs", "Three little programs"))
        for _ in range(12):
            pod.get("/sidecar.html")
        self.happened(page, "index.html changed")
        expect(page.locator('dd[data-v="waiting"]')).to_have_text("0 lines")
        page.wait_for_timeout(2500)
        page.screenshot(path=SCREENSHOT, animations="disabled", clip={"x": 80, "y": 0, "width": 1040, "height": 1205}, full_page=True)
        with Image.open(SCREENSHOT) as image:
            small = image.convert("RGB").quantize(colors=128, dither=Image.Dither.NONE)
        small.save(SCREENSHOT, optimize=True)
        self.assertLess(pathlib.Path(SCREENSHOT).stat().st_size, 150_000)
        self.quiet()


if __name__ == "__main__":
    unittest.main()
