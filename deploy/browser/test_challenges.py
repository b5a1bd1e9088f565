"""Each challenge is ticked after the command that the page itself shows for it, typed as it stands there."""

import re
import subprocess

from playwright.sync_api import expect

from live_page import LivePage, wait


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

    def commands(self, challenge):
        expect(self.item(challenge)).not_to_have_class(re.compile("done"))
        return self.item(challenge).locator("pre").text_content().splitlines()

    def type(self, command):
        return subprocess.run(["bash", "-c", command], cwd=self.pod.folder, check=True, capture_output=True, text=True, timeout=60).stdout

    def done(self, challenge):
        expect(self.item(challenge)).to_have_class(re.compile("done"))
        title = self.item(challenge).locator("summary span").first.text_content()
        self.happened(self.page, f"Done: {title}.")

    def follow(self, challenge):
        for command in self.commands(challenge):
            if not command.startswith("#"):
                self.type(command)
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

    def test_kill_log_agent_under_load(self):
        self.follow("kill-agent")
        wait(lambda: self.pod.at_the_sink() == self.pod.lines(), "nothing is lost")

    def test_kill_the_same_container_twice(self):
        first = self.commands("backoff")[0]
        self.type(first)
        expect(self.page.locator('[data-v="file-puller.restarts"]')).to_have_text("1")
        self.state(self.page, "file-puller", "up")
        # The page shows the new pid by now.
        expect(self.item("backoff").locator("pre")).not_to_contain_text(first)
        self.type(self.commands("backoff")[0])
        self.done("backoff")

    def test_freeze_log_agent(self):
        freeze, ask, thaw = self.commands("freeze")
        self.type(freeze)
        self.state(self.page, "log-agent", "down")
        self.type(ask)
        self.type(thaw)
        self.done("freeze")

    def test_stop_the_content_manager_and_bring_it_back_with_another_page(self):
        self.follow("manager")
        self.follow("return")

    def test_make_a_release_that_the_gate_refuses(self):
        _, away, _, back = self.commands("gate")
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
        remark, start, away, ask, back = self.commands("sink")
        self.assertRegex(remark, "^# ")
        # The Pod that the second line starts is this one: its sink is the same.
        started = self.type(f"cargo() {{ printf '%s\\n' \"$@\"; }}; {start}").splitlines()
        self.assertEqual(started, ["demo", "--sink", f"file:{self.pod.sink}/log.ndjson"])
        self.type(away)
        self.type(ask)
        self.happened(self.page, "The log sink does not confirm: lines wait in their file.")
        self.type(back)
        self.done("sink")

    def test_nothing_is_ticked_by_itself(self):
        # Long enough for syncs, probes and snapshots; the page itself is a request or two.
        before = int(self.page.locator('dd[data-v="web-server.probes"]').inner_text().split()[0])
        wait(lambda: int(self.page.locator('dd[data-v="web-server.probes"]').inner_text().split()[0]) >= before + 2, "two more probes")
        expect(self.page.locator("#tries li")).to_have_count(12)
        expect(self.page.locator("#tries .done")).to_have_count(0)
        self.quiet()
