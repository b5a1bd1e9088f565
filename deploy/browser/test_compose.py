"""The challenges on Compose: the commands that the page shows there, pasted as they stand there. Needs the images, as deploy/images.sh makes them."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request

from playwright.sync_api import expect

import test_challenges
from live_page import CONTENT, LivePage, wait

# A person has Compose as Docker's plug-in, and sudo. Here it may be the program that it was before, and the user may be root.
SHELL = """
docker() { if [ "$1" = compose ] && ! command docker compose version >/dev/null 2>&1; then shift; docker-compose "$@"; else command docker "$@"; fi; }
sudo() { if [ "$(id -u)" -eq 0 ]; then "$@"; else command sudo "$@"; fi; }
"""


class Compose:
    """The project of deploy/compose.yaml, under a name, a port and a content folder of its own."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pod-page-"))
        self.folder.chmod(0o755)
        self.content = self.folder / "deploy/content"
        shutil.copytree(CONTENT, self.content)
        shutil.copy(CONTENT.parent / "compose.yaml", self.folder / "deploy")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.project = f"page-{os.getpid()}"
        self.environment = {**os.environ, "COMPOSE_PROJECT_NAME": self.project, "POD_PORT": str(self.port), "CONTENT_DIR": str(self.content)}
        self.type("docker compose -f deploy/compose.yaml up -d --no-build")
        wait(lambda: self.status("/live.html") == 200, "the Pod serves its page")

    def type(self, command):
        done = subprocess.run(["bash", "-c", SHELL + command], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise AssertionError(f"$ {command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def stop(self):
        self.type("docker compose -f deploy/compose.yaml down -v -t 2")
        shutil.rmtree(self.folder)

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def status(self, path):
        try:
            with urllib.request.urlopen(self.url(path), timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def lines(self):
        with urllib.request.urlopen(self.url("/pod"), timeout=5) as answer:
            return json.load(answer)["log"]["written"]

    def at_the_sink(self):
        shipped = self.type("docker logs $(docker compose -f deploy/compose.yaml ps -q log-agent)")
        return len({json.loads(line)["id"] for line in shipped.splitlines()})


class ChallengesOnCompose(test_challenges.Challenges):
    @classmethod
    def setUpClass(cls):
        cls.pod = Compose()
        cls.addClassCleanup(cls.pod.stop)
        cls.open_browser("127.0.0.1")

    def setUp(self):
        wait(lambda: self.pod.status("/live.html") == 200, "the Pod serves its page")
        self.page = self.open()

    def type(self, block):
        return self.pod.type(f"set -e\n{block}")

    # Which of two deaths was the later one only the demo's kubelet can say.
    test_kill_file_puller_while_the_page_comes_back = None
    test_both_were_killed_while_nobody_looked_and_web_server_last = None

    def test_the_page_knows_what_it_runs_on(self):
        expect(self.page.locator('[data-v="keeper.title"]')).to_have_text("Docker")
        expect(self.page.locator('[data-v="lanes.note"]')).to_contain_text("start times")
        expect(self.page.locator(".lane.web-server .track .ready")).to_have_count(1)
        self.quiet()

    def test_kill_log_agent_under_load(self):
        before = self.pod.lines()
        self.follow("kill-agent")
        wait(lambda: self.pod.lines() >= before + 400, "each request of the load is a line")
        # The page's own requests are lines, too, and go on.
        written = self.pod.lines()
        wait(lambda: self.pod.at_the_sink() >= written, "nothing is lost")

    def test_kill_the_same_container_twice(self):
        command = self.blocks("backoff")[0]
        for restarts in (1, 2):
            self.type(command)
            expect(self.page.locator('[data-v="file-puller.restarts"]')).to_have_text(re.compile(r"[1-9]\d*"))
            if restarts == 1:
                self.happened(self.page, re.compile("file-puller (was started again|is up again, as a new process)"))
                self.state(self.page, "file-puller", "up")
        self.done("backoff")

    def test_take_the_sink_away_and_give_it_back(self):
        away_and_back, = self.blocks("sink")
        self.type(away_and_back)
        self.happened(self.page, "The log sink does not confirm: lines wait in their file.")
        self.done("sink")

    def test_nothing_is_ticked_by_itself(self):
        asked = lambda: int(self.page.locator('dd[data-v="web-server.probes"]').inner_text().split()[0])
        before = asked()
        wait(lambda: asked() > before, "another probe")
        expect(self.page.locator("#tries li")).to_have_count(12)
        expect(self.page.locator("#tries .done")).to_have_count(0)
        self.quiet()
