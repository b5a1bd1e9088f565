"""Whom the page reaches, and what it costs: keyboards, screen readers, phones, dark rooms, no JavaScript; bytes and processor time."""

import re
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from live_page import CONTAINERS, CONTENT, TIMEOUT, LivePage

WEIGHT_MAX = 80 * 1000
# Of a processor that is awake.
CPU_MAX = 0.02
# The same work, in one go or a piece every 50 ms.
PIECES = """(pause) => new Promise((done) => {
  const list = document.body.appendChild(document.createElement("ul"));
  let left = 100;
  const piece = () => {
    list.replaceChildren(...Array.from({length: 60}, (_, at) => Object.assign(document.createElement("li"), {textContent: at + left})));
    list.getBoundingClientRect();
    if (--left === 0) done(); else if (pause) setTimeout(piece, pause); else piece();
  };
  piece();
})"""


class WhoCanUseIt(LivePage):
    def test_sync_now_by_keyboard(self):
        page = self.open()
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "sync":
                break
        expect(page.locator("#sync")).to_be_focused()
        self.assertNotEqual(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"), "none", "the focus is not visible")
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

    def test_the_labs_are_accessible_on_a_desk_and_on_a_phone(self):
        for lab in ("index", "01-twocontainers", "08-sidecars"):
            for scheme, width in (("light", 1280), ("dark", 360)):
                with self.subTest(lab=lab, scheme=scheme):
                    address = self.pod.url(f"/labs/{lab}.html")
                    page = self.open(address=address, live=False, color_scheme=scheme, viewport={"width": width, "height": 800})
                    results = Axe().run(page)
                    self.assertEqual(results.violations_count, 0, results.generate_report())
                    self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), width, "it scrolls sideways")
                    self.quiet()

    def test_a_comment_of_a_listing_stays_in_its_line_on_a_phone(self):
        page = self.open(address=self.pod.url("/labs/01-twocontainers.html"), live=False, viewport={"width": 360, "height": 800})
        listing = page.locator("figure.listing pre").first
        rows = listing.evaluate("(pre) => { const range = document.createRange(); range.selectNodeContents(pre.firstChild); return new Set([...range.getClientRects()].map(({top}) => Math.round(top))).size }")
        self.assertEqual(rows, len(listing.text_content().splitlines()))
        self.assertTrue(listing.evaluate("(pre) => pre.scrollWidth > pre.clientWidth"))

    def test_a_button_copies_what_is_typed_and_nothing_else(self):
        page = self.open(address=self.pod.url("/labs/12-adapter.html"), live=False, permissions=["clipboard-read", "clipboard-write"])
        copied = lambda: page.evaluate("navigator.clipboard.readText()")
        blocks = page.locator("figure.commands")
        # A block that is only looked at, or interrupted, has nothing to copy.
        typed = blocks.filter(has_text=re.compile(r"^\$ ", re.MULTILINE))
        expect(typed.locator("button")).to_have_count(typed.count())
        expect(blocks.filter(has_text="^C").locator("button")).to_have_count(0)
        # On processes, and not in Docker.
        block = blocks.filter(has_text="$ curl -s localhost:9883/stub_status")
        block.get_by_role("button", name="Copy").click()
        expect(block.get_by_role("button")).to_have_text("Copied")
        self.assertEqual(copied(), "curl -s localhost:9883/stub_status\n")
        expect(block.get_by_role("button")).to_have_text("Copy")
        self.quiet()

    def test_a_challenge_leads_to_its_lab_and_its_code(self):
        page = self.open(permissions=["clipboard-read", "clipboard-write"])
        challenge = page.locator('#tries [data-challenge="edit"]')
        challenge.locator("summary").first.click()
        # The commands are folded, for who wants to find them first.
        commands = challenge.locator("pre").first
        expect(challenge.get_by_role("link", name="Lab 2")).to_be_visible()
        expect(commands).to_be_hidden()
        challenge.get_by_text("The commands").click()
        expect(commands).to_be_visible()
        challenge.get_by_role("button", name="Copy path").click()
        expect(challenge.get_by_role("button")).to_have_text("Copied")
        self.assertEqual(page.evaluate("navigator.clipboard.readText()"), challenge.locator("p code").text_content())
        self.quiet()
        challenge.get_by_role("link", name="Lab 2").click()
        expect(page).to_have_url(self.pod.url("/labs/02-shared-volume.html"))

    def test_dark_where_the_reader_wants_it_dark(self):
        lightness = {}
        for scheme in ("light", "dark"):
            page = self.open(color_scheme=scheme)
            colours = page.evaluate("['background-color', 'color'].map((name) => getComputedStyle(document.body).getPropertyValue(name))")
            lightness[scheme] = [sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 765 for colour in colours]
        paper, ink = lightness["light"]
        self.assertTrue(paper > 0.8 and ink < 0.3, lightness)
        paper, ink = lightness["dark"]
        self.assertTrue(paper < 0.2 and ink > 0.7, lightness)

    def test_one_column_on_a_phone(self):
        page = self.open(viewport={"width": 360, "height": 740})
        boxes = [page.locator(one).bounding_box() for one in ("#drawing", ".puller-card", ".pod-card")]
        self.assertEqual(sorted(boxes, key=lambda box: box["y"]), boxes)
        for above, below in zip(boxes, boxes[1:]):
            self.assertGreaterEqual(below["y"], above["y"] + above["height"], "they overlap")

    def test_a_screen_reader_is_told_what_happens(self):
        page = self.open()
        region = page.locator("#say")
        # A live region has to be there, and empty, before anything is said in it.
        self.assertEqual((region.get_attribute("role"), region.inner_text()), ("status", ""))
        self.assertTrue(page.get_by_role("img", name="The Pod that serves this page").is_visible())
        self.pod.edit("robots.txt", f"# {time.time()}\n")
        expect(page.get_by_role("status").filter(has_text="has arrived")).to_have_count(1)

    def test_nothing_moves_where_nothing_may(self):
        page = self.open(reduced_motion="reduce")
        page.evaluate("window.moved = 0; new MutationObserver(() => { moved += 1 }).observe(document.getElementById('packets'), {childList: true})")
        self.pod.edit("robots.txt", f"# {time.time()}\n")
        self.happened(page, "has arrived")
        self.pod.get("/")
        self.assertEqual(page.evaluate("moved"), 0)
        self.assertEqual(page.evaluate("document.getAnimations().length"), 0)
        self.quiet()

    def test_without_javascript_the_last_snapshot_is_there(self):
        page = self.open(live=False, java_script_enabled=False)
        expect(page.locator("#live")).to_be_hidden()
        snapshot = page.frame_locator("iframe.plain")
        expect(snapshot.get_by_role("heading", name="log-agent")).to_be_visible()
        expect(snapshot.get_by_text("up, ready").first).to_be_visible()
        expect(snapshot.get_by_text("web-server: ready").first).to_be_visible()
        # The things to try are named, as the script would name them.
        titles = re.findall(r'title: "([^"]*)"', (CONTENT / "js/challenges.js").read_text())
        self.assertEqual(page.locator(".titles li").all_text_contents(), titles)
        self.quiet()

    def test_light_in_weight_and_from_here_alone(self):
        context = self.browser.new_context()
        self.addCleanup(context.close)
        page = context.new_page()
        answers = []
        page.on("response", lambda answer: answers.append(answer))
        page.goto(self.pod.url("/live.html"))
        expect(page.locator("#live")).to_be_visible(timeout=TIMEOUT)
        self.assertEqual({answer.url for answer in answers if not answer.url.startswith(self.pod.url("/"))}, set())
        loaded = {answer.url: len(answer.body()) for answer in answers if not answer.url.endswith("/pod/events")}
        self.assertGreaterEqual(len(loaded), 4, loaded)
        print(f"\n{sum(loaded.values())} bytes in {len(loaded)} files", flush=True)
        self.assertLess(sum(loaded.values()), WEIGHT_MAX, loaded)

    def busy(self, page):
        """Measures for how long the page's thread has had a processor."""
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        return lambda: {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}["TaskDuration"]

    def price_of_waking(self):
        """How much more the same work costs in small pieces: on a machine whose processors sleep deeply, or are others' meanwhile, three
        times as much. That is nothing of the page's."""
        blank = self.browser.new_page()
        self.addCleanup(blank.close)
        busy = self.busy(blank)
        began = busy()
        blank.evaluate(PIECES, 0)
        awake = busy()
        blank.evaluate(PIECES, 50)
        return max(1, (busy() - awake) / (awake - began))

    def test_one_viewer_costs_little(self):
        page = self.open()
        measure = self.busy(page)
        # A busy machine makes the same work look like more. What is too much is too much each time.
        for _ in range(3):
            before, browsed, began = [self.pod.cpu_seconds(container) for container in CONTAINERS], measure(), time.monotonic()
            # A share of time can only be had by letting time pass.
            page.wait_for_timeout(10_000)
            took = time.monotonic() - began
            pod = sum(self.pod.cpu_seconds(container) - was for container, was in zip(CONTAINERS, before)) / took
            browser = (measure() - browsed) / took
            price = self.price_of_waking()
            print(f"\nthe Pod {pod:.2%}, the page {browser:.2%}; in small pieces work costs {price:.1f} times as much", flush=True)
            if max(pod, browser) / price < CPU_MAX:
                break
        self.assertLess(pod / price, CPU_MAX)
        self.assertLess(browser / price, CPU_MAX)
        self.quiet()
