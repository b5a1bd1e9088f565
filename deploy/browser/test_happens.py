"""What happens in the Pod is seen on its page: edits, kills, hangs, and partners that are away."""

import os
import re
import signal
import time

from playwright.sync_api import expect

from live_page import LivePage, wait


class WhatHappens(LivePage):
    sinks = ("stdout:", "file:{}/shipped.ndjson")

    def test_an_edit_arrives(self):
        page = self.open()
        before = page.locator('h2 [data-v="release.id"]').inner_text()
        moved = "window.moved = 0; new MutationObserver((all) => { moved += all.flatMap((one) => [...one.addedNodes]).length })"
        page.evaluate(f"{moved}.observe(document.getElementById('packets'), {{childList: true}})")
        self.pod.edit("robots.txt", f"# {time.time()}\n")
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
        before = self.number(page, "confirmed")
        for _ in range(7):
            self.pod.get("/")
        wait(lambda: self.number(page, "confirmed") >= before + 7, "seven more lines are confirmed")
        expect(self.value(page, "lost")).to_have_text("nothing")
        self.assertEqual(page.evaluate("said"), 0, "a screen reader is told of every line")
        self.quiet()

    def test_a_killed_container_looks_down_within_two_seconds_and_comes_back(self):
        page = self.open()
        restarts = page.locator('[data-v="log-agent.restarts"]')
        # The first time a container is started again at once, then after ten seconds: the demo's kubelet is a real one.
        expected = int(restarts.inner_text())
        for _ in range(2):
            os.kill(self.pod.pid("log-agent"), signal.SIGKILL)
            began = time.monotonic()
            expected += 1
            if expected > 1:
                self.state(page, "log-agent", "down")
                self.assertLess(time.monotonic() - began, 2)
                expect(page.locator('[data-v="log-agent.reason"]')).to_have_text("nobody listens on its port")
                self.pod.get("/")
                expect(self.value(page, "waiting")).not_to_have_text("0 lines")
            expect(restarts).to_have_text(str(expected))
            self.state(page, "log-agent", "up")
        self.happened(page, "log-agent is up again, as a new process.")
        expect(self.value(page, "waiting")).to_have_text("0 lines")
        self.quiet()

    def test_a_container_that_hangs_looks_down_within_two_seconds(self):
        page = self.open()
        puller = self.pod.pid("file-puller")
        os.kill(puller, signal.SIGSTOP)
        try:
            began = time.monotonic()
            self.state(page, "file-puller", "down")
            self.assertLess(time.monotonic() - began, 2)
            expect(page.locator("#say")).to_contain_text("file-puller is down.")
        finally:
            os.kill(puller, signal.SIGCONT)
        self.state(page, "file-puller", "up")
        self.quiet()

    def test_a_stopped_content_manager_is_seen_and_the_release_stays(self):
        page = self.open()
        release = page.locator('h2 [data-v="release.id"]').inner_text()
        self.pod.stop_content_manager()
        try:
            self.happened(page, "file-puller cannot sync: the last good release stays.")
            expect(page.locator('#drawing [data-part="content-manager"]')).to_have_attribute("data-state", "down")
            expect(page.locator('h2 [data-v="release.id"]')).to_have_text(release)
            self.state(page, "file-puller", "up")
        finally:
            self.pod.start_content_manager()
        self.happened(page, "file-puller syncs again.")
        self.quiet()

    def test_a_web_server_that_is_gone_is_seen_within_two_seconds(self):
        page = self.open()
        server = self.pod.pid("web-server")
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

    def test_a_sink_that_does_not_confirm_is_seen_and_nothing_is_lost(self):
        page = self.open()
        before = self.number(page, "confirmed")
        away = self.pod.folder / "away"
        self.pod.sink.rename(away)
        try:
            for _ in range(3):
                self.pod.get("/")
            self.happened(page, "The log sink does not confirm: lines wait in their file.")
            expect(page.locator('#drawing [data-part="sink"]')).to_have_attribute("data-state", "down")
            expect(self.value(page, "sinks")).to_contain_text("does not confirm")
            expect(self.value(page, "waiting")).to_have_text(re.compile(r"[1-9]\d* lines?"))
            self.state(page, "log-agent", "up")
        finally:
            away.rename(self.pod.sink)
        self.happened(page, "The log sink confirms again.")
        wait(lambda: self.number(page, "confirmed") >= before + 3, "the lines that waited are confirmed")
        expect(self.value(page, "lost")).to_have_text("nothing")
        self.quiet()
