"""Each challenge is ticked after the commands that the page itself shows for it: each block pasted whole, as it stands there.

Between two lines of a block no test waits for anything: a person who pastes the block does not, either."""

import os
import re
import signal
import subprocess

from playwright.sync_api import expect

from live_page import HIDE, LivePage, wait


class Challenges(LivePage):
    sinks = ("file:{}/log.ndjson",)
    whole = True

    def setUp(self):
        # A Pod for each test: the back-off grows with each death.
        self.doClassCleanups()
        self.setUpClass()
        self.page = self.open()

    def item(self, challenge):
        return self.page.locator(f'#tries [data-challenge="{challenge}"]')

    def blocks(self, challenge):
        expect(self.item(challenge)).not_to_have_class(re.compile("done"))
        return self.item(challenge).locator("pre").all_text_contents()

    def type(self, block):
        return subprocess.run(["bash", "-ec", block], cwd=self.pod.folder, check=True, capture_output=True, text=True, timeout=60).stdout

    def done(self, challenge):
        expect(self.item(challenge)).to_have_class(re.compile("done"))
        title = self.item(challenge).locator("summary span").first.text_content()
        self.happened(self.page, f"Done: {title}.")

    def follow(self, challenge):
        for block in self.blocks(challenge):
            self.type(block)
        self.done(challenge)

    def test_change_a_page_and_take_it_back(self):
        self.follow("edit")
        self.follow("back")
        # The browser remembers, and forgets when it is told to.
        self.page.reload()
        expect(self.item("edit")).to_have_class(re.compile("done"))
        expect(self.page.locator('[data-v="tries.done"]')).to_have_text("2 of 12")
        self.page.locator("#forget").click()
        expect(self.page.locator('[data-v="tries.done"]')).to_have_text("0 of 12")
        self.quiet()

    def test_ask_for_a_page_that_is_not_there(self):
        self.follow("missing")

    def test_kill_the_web_server(self):
        self.follow("kill-server")

    def test_kill_file_puller(self):
        self.follow("kill-puller")

    def test_kill_file_puller_while_the_page_comes_back(self):
        """The page was cut off by a death of web-server, and sees two new processes at once."""
        kill, = self.blocks("kill-puller")
        server = self.pod.pid("web-server")
        os.kill(server, signal.SIGKILL)
        wait(lambda: self.pod.pid("web-server") != server, "web-server was started again")
        self.type(kill)
        self.done("kill-puller")

    def test_both_were_killed_while_nobody_looked_and_web_server_last(self):
        self.page.evaluate(HIDE, True)
        for container in ("file-puller", "web-server"):
            killed = self.pod.pid(container)
            os.kill(killed, signal.SIGKILL)
            wait(lambda: self.pod.pid(container) != killed, f"{container} was started again")
        self.page.evaluate(HIDE, False)
        self.done("kill-server")
        self.state(self.page, "file-puller", "up")
        expect(self.item("kill-puller")).not_to_have_class(re.compile("done"))

    def test_kill_log_agent_under_load(self):
        self.follow("kill-agent")
        wait(lambda: self.pod.at_the_sink() == self.pod.lines(), "nothing is lost")

    def test_kill_the_same_container_twice(self):
        first = self.blocks("backoff")[0]
        self.type(first)
        expect(self.page.locator('[data-v="file-puller.restarts"]')).to_have_text("1")
        self.state(self.page, "file-puller", "up")
        # The page shows the new pid by now.
        expect(self.item("backoff").locator("pre").first).not_to_have_text(first)
        self.type(self.blocks("backoff")[0])
        self.done("backoff")

    def test_freeze_log_agent(self):
        self.follow("freeze")

    def test_stop_the_content_manager_and_bring_it_back_with_another_page(self):
        self.follow("manager")
        self.follow("return")

    def test_make_a_release_that_the_gate_refuses(self):
        away, back = self.blocks("gate")
        temporary = self.pod.folder / "away"
        temporary.mkdir()
        self.type(re.sub("/tmp/$", f"{temporary}/", away))
        self.done("gate")
        expect(self.item("manager")).not_to_have_class(re.compile("done"))
        expect(self.value(self.page, "last")).to_contain_text("held back")
        self.assertEqual(self.pod.status("/index.html"), 200, "the last good release is served on")
        self.type(back.replace("/tmp/", f"{temporary}/", 1))
        expect(self.value(self.page, "last")).to_contain_text("nothing new")

    def test_take_the_sink_away_and_give_it_back(self):
        start, away_and_back = self.blocks("sink")
        # The Pod that this block starts is the test's: its sink is the same. It runs on, so nothing may follow in the block.
        self.assertRegex(start.splitlines()[-1], "cargo demo")
        started = self.type(f"cargo() {{ printf '%s\\n' \"$@\"; }}\n{start}").splitlines()
        self.assertEqual(started, ["demo", "--sink", f"file:{self.pod.sink}/log.ndjson"])
        self.type(away_and_back)
        self.happened(self.page, "The log sink does not confirm: lines wait in their file.")
        self.done("sink")

    def test_nothing_is_ticked_by_itself(self):
        # Long enough for syncs, probes and snapshots; the page itself is a request or two.
        before = int(self.page.locator('dd[data-v="web-server.probes"]').inner_text().split()[0])
        wait(lambda: int(self.page.locator('dd[data-v="web-server.probes"]').inner_text().split()[0]) >= before + 2, "two more probes")
        expect(self.page.locator("#tries li")).to_have_count(12)
        expect(self.page.locator("#tries .done")).to_have_count(0)
        self.quiet()
