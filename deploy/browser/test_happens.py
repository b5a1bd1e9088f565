"""What happens in the Pod is seen on its page: edits, kills, hangs, and partners that are away."""

import os
import re
import signal
import time

from playwright.sync_api import expect

from live_page import CONTAINERS, HIDE, LivePage, wait


class WhatHappens(LivePage):
    sinks = ("stdout:", "file:{}/log.ndjson")

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
            kill = lambda: os.kill(self.pod.pid("log-agent"), signal.SIGKILL)
            expected += 1
            if expected == 1:
                kill()
            else:
                self.assertLess(self.seconds_until_down(page, "log-agent", kill), 2)
                expect(page.locator('[data-v="log-agent.reason"]')).to_have_text("nothing listens on its port")
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
        try:
            stop = lambda: os.kill(puller, signal.SIGSTOP)
            self.assertLess(self.seconds_until_down(page, "file-puller", stop), 2)
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
        hung = self.seconds_until_down(page, "web-server", lambda: os.kill(server, signal.SIGSTOP))
        os.kill(server, signal.SIGCONT)
        self.assertLess(hung, 2)
        self.state(page, "web-server", "up")
        self.assertLess(self.seconds_until_down(page, "web-server", lambda: os.kill(server, signal.SIGKILL)), 2)
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


class AfterADeath(LivePage):
    """One Pod for each test: the back-off grows with each death."""

    sinks = ("file:{}/log.ndjson",)

    def setUp(self):
        self.doClassCleanups()
        self.setUpClass()

    def agrees(self, page, container):
        """All figures are those of the file and of the sink."""
        for _ in range(25):
            self.pod.get("/")
        figures = lambda: tuple(self.value(page, key).inner_text() for key in ("written", "confirmed", "waiting", "lost"))
        # The page's own stream is a line when it ends, so the file is asked again whenever the page is.
        truth = lambda: (str(self.pod.lines()), str(self.pod.at_the_sink()), "0 lines", "nothing")
        wait(lambda: figures() == truth(), f"the page agrees with file and sink ({container})")
        drawn = lambda: tuple(page.locator(f'#drawing [data-v="{key}"]').text_content() for key in ("access", "onway", "shipped"))
        wait(lambda: drawn() == (f"access.log: {self.pod.lines()} lines", "follows the file", f"{self.pod.at_the_sink()} lines shipped"), f"so does the drawing ({container})")
        answered = sum(int(number) for number in re.findall(r"xx (\d+)", self.value(page, "classes").inner_text()))
        self.assertEqual(answered, self.pod.lines())

    def test_the_numbers_agree_after_each_container_was_killed_in_turn(self):
        page = self.open()
        self.agrees(page, "none was killed")
        for container in CONTAINERS:
            with self.subTest(container):
                os.kill(self.pod.pid(container), signal.SIGKILL)
                expect(page.locator(f'[data-v="{container}.restarts"]')).to_have_text("1")
                self.state(page, container, "up")
                self.agrees(page, container)

    def test_the_kubelet_says_what_it_does(self):
        page = self.open()
        expect(page.locator('h2 [data-v="keeper.of"]')).to_have_text(f"pid {self.pod.process.pid}")
        expect(page.locator('[data-v="keeper.pids"]')).to_have_text(f"Processes: {', '.join(f'{container} {self.pod.pid(container)}' for container in sorted(CONTAINERS))}.")
        os.kill(self.pod.pid("file-puller"), signal.SIGKILL)
        self.happened(page, "The kubelet: file-puller has ended: signal: 9 (SIGKILL).")
        self.happened(page, "The kubelet starts file-puller again at once.")
        self.state(page, "file-puller", "up")
        wait(lambda: self.pod.pid("file-puller"), "it runs again")
        expect(page.locator('[data-v="file-puller.restarts"]')).to_have_text("1")
        os.kill(self.pod.pid("file-puller"), signal.SIGKILL)
        self.happened(page, "The kubelet starts file-puller again in 10 s.")
        expect(page.locator('.again[data-v="file-puller.again"]')).to_have_text(re.compile(r"Again in \d+ s\."))
        expect(page.locator('#drawing [data-v="file-puller.short"]')).to_have_text(re.compile(r"down, again in \d+ s"))
        expect(page.locator("#kubelet")).to_contain_text("back-off: starting again in 10 s")
        # Nothing can be asked of a container that is down.
        expect(page.locator("#sync")).to_have_attribute("aria-disabled", "true")
        expect(page.locator('[data-v="sync.why"]')).to_have_text("file-puller is down.")
        # Its lane shows the wait, and its two ends.
        lane = page.locator(".lane.file-puller .track")
        expect(lane.locator(".back-off").last).to_be_visible()
        expect(lane.locator(".mark")).to_have_count(2)
        expect(page.locator(".lane.web-server .track .mark")).to_have_count(0)
        self.state(page, "file-puller", "up")
        expect(page.locator("#sync")).to_have_attribute("aria-disabled", "false")
        expect(page.locator('[data-v="file-puller.restarts"]')).to_have_text("2")
        self.quiet()

    def test_what_happened_while_web_server_was_away_is_told_in_its_order_and_with_its_own_times(self):
        page = self.open()
        for deaths in (1, 2):
            os.kill(self.pod.pid("web-server"), signal.SIGKILL)
            expect(page.locator('[data-v="web-server.restarts"]')).to_have_text(str(deaths))
            self.state(page, "web-server", "up")
        ended, started = "web-server has ended: signal: 9 (SIGKILL).", f"has started web-server: pid {self.pod.pid('web-server')}."
        self.happened(page, started)
        read = "(all) => all.map((one) => [one.querySelector('time').textContent, one.lastChild.textContent])"
        lines = [(at, text.removeprefix("The kubelet: ").removeprefix("The kubelet ")) for at, text in reversed(page.locator("#news li").evaluate_all(read))]
        # From the second death on.
        last = max(at for at, (_, text) in enumerate(lines) if text == ended)
        wanted = [ended, "starts web-server again in 10 s.", started, "web-server answers again."]
        told = [(at, text) for at, text in lines[last:] if text in wanted]
        self.assertEqual([text for _, text in told], wanted, lines)
        card = page.locator("#kubelet li").filter(has_text="web-server").evaluate_all(read)
        expected = [f"started, pid {self.pod.pid('web-server')}", "back-off: starting again in 10 s", "ended: signal: 9 (SIGKILL)"]
        times = [at for at, text in card if text in expected]
        self.assertEqual(times[:3], [at for at, _ in told[2::-1]], (card, told))

    def test_a_container_that_ends_by_itself_is_shown_with_its_exit_code(self):
        page = self.open()
        # It drains and ends. That the kubelet has not asked for it makes it a death like any other.
        os.kill(self.pod.pid("file-puller"), signal.SIGTERM)
        self.happened(page, "The kubelet: file-puller has ended: exit status: 0.")
        self.happened(page, "The kubelet starts file-puller again at once.")
        expect(page.locator("#kubelet")).to_contain_text("ended: exit status: 0")
        expect(page.locator(".lane.file-puller .track .mark")).to_have_attribute("title", re.compile("^ended: exit status: 0, "))
        self.quiet()

    def test_probes_are_shown_as_they_are_asked(self):
        page = self.open()
        page.evaluate("window.asked = 0; new MutationObserver((all) => { asked += all.flatMap((one) => [...one.addedNodes]).filter((one) => one.classList?.contains('probe')).length }).observe(document.getElementById('packets'), {childList: true})")
        times = lambda: {container: int(page.locator(f'dd[data-v="{container}.probes"]').inner_text().split()[0]) for container in CONTAINERS}
        before = times()
        wait(lambda: all(now > before[container] for container, now in times().items()), "each container was probed again")
        self.assertGreaterEqual(page.evaluate("asked"), 3)

    def test_the_order_of_start_is_in_the_lanes(self):
        page = self.open()
        # All of one drawing, since the lanes are drawn anew each second, on a longer scale.
        begins = "(lanes, all) => all.map((one) => parseFloat(lanes.querySelector(one).style.left))"
        phases = [".log-agent .starting", ".file-puller .starting", ".file-puller .ready", ".web-server .starting"]
        begun = page.locator("#lanes").evaluate(begins, [f".lane{one}" for one in phases])
        # log-agent has no startup probe, so file-puller starts whether log-agent is ready or not. web-server starts when file-puller is.
        self.assertEqual(begun, sorted(begun), phases)
        expect(page.locator(".lane.file-puller .release")).to_have_count(1)
        self.pod.edit("robots.txt", f"# {time.time()}\n")
        expect(page.locator(".lane.file-puller .release")).to_have_count(2)

    def test_a_page_that_slept_catches_up(self):
        page = self.open()
        page.evaluate(HIDE, True)
        os.kill(self.pod.pid("file-puller"), signal.SIGKILL)
        self.pod.edit("robots.txt", f"# {time.time()}\n")
        wait(lambda: self.pod.get("/robots.txt").startswith("# "), "the new release is served")
        for _ in range(5):
            self.pod.get("/")
        page.evaluate(HIDE, False)
        self.happened(page, f"The kubelet has started file-puller: pid {self.pod.pid('file-puller')}.")
        self.happened(page, re.compile("Release [0-9a-f]{16} has arrived"))
        expect(page.locator("#line")).to_have_text("Live")
        self.agrees(page, "the page slept")

    def test_a_connection_that_died_in_its_sleep_is_made_again(self):
        page = self.open()
        server = self.pod.pid("web-server")
        # As long as the process is stopped, the connection is open and silent, which is what a sleep leaves behind.
        with page.expect_request("**/pod/events"):
            os.kill(server, signal.SIGSTOP)
            self.state(page, "web-server", "down")
            expect(page.locator('[data-v="sync.why"]')).to_have_text("web-server does not answer.")
        os.kill(server, signal.SIGCONT)
        self.state(page, "web-server", "up")
        self.happened(page, "web-server answers again.")


class AHang(LivePage):
    arguments = ("--grace", "2s")

    def test_a_container_that_hangs_is_restarted_by_the_kubelet(self):
        page = self.open()
        lane = page.locator(".lane.file-puller .track")
        os.kill(self.pod.pid("file-puller"), signal.SIGSTOP)
        # Every ten seconds, as in a cluster.
        for failures in (1, 2, 3):
            self.happened(page, f"The kubelet: file-puller’s liveness probe failed, {failures} of 3: no answer within 1s.")
        self.happened(page, "The kubelet: file-puller did not stop within the grace period: killed.")
        self.happened(page, "The kubelet starts file-puller again at once.")
        self.state(page, "file-puller", "up")
        expect(page.locator('[data-v="file-puller.restarts"]')).to_have_text("1")
        expect(page.locator("#kubelet")).to_contain_text("liveness probe failed, 3 of 3: no answer within 1s")
        expect(lane.locator(".miss")).to_have_count(3)
        expect(lane.locator(".mark")).to_have_count(1)
        expect(page.locator(".lane.web-server .track .miss")).to_have_count(0)
        self.quiet()


class NativeAndClassic(LivePage):
    """How a Pod starts and stops, in the lanes of a page whose server is outside that Pod, and so sees its end."""

    @classmethod
    def setUpClass(cls):
        """Each test starts the Pod that it stops."""

    def lanes(self, sidecars):
        """Where each container begins to start and is ready, and where it begins to stop and has stopped, in hundredths of the lane."""
        type(self).arguments = ("--sidecars", sidecars)
        super().setUpClass()
        self.addCleanup(self.doClassCleanups)
        page = self.another_page(9894, "--pod-runs-on", "demo", "--pod-events-file", self.pod.folder / "volumes/podinfo/events.json")
        self.pod.process.terminate()
        self.pod.process.wait(timeout=30)
        expect(page.locator("#kubelet li", has_text="stopped: exit status: 0")).to_have_count(3)
        read = "(lanes) => ['starting', 'draining'].map((phase) => [...lanes.querySelectorAll(`.lane .${phase}`)].map(({style}) => [style.left, style.width].map((one) => parseFloat(one.replace('calc(', '')))))"
        phases = page.locator("#lanes").evaluate(read)
        # Each phase is once in each lane: from top to bottom, log-agent's, file-puller's and web-server's.
        self.assertEqual([len(stretches) for stretches in phases], [3, 3])
        return [[(left, left + width) for left, width in stretches] for stretches in phases]

    def test_native_sidecars_stop_one_after_the_other(self):
        _, (agent, puller, server) = self.lanes("native")
        # Two digits after the point are rounded.
        self.assertLessEqual(server[1], puller[0] + 0.02)
        self.assertLessEqual(puller[1], agent[0] + 0.02)

    def test_classic_containers_start_and_stop_at_once(self):
        for phase, stretches in zip(("starting", "draining"), self.lanes("classic")):
            self.assertLessEqual(max(begun for begun, _ in stretches), min(ended for _, ended in stretches) + 0.02, phase)
