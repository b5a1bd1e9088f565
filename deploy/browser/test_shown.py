"""What the page shows of each container, of the release, of the Pod: what they say of themselves, and a button only where it may be pressed."""

import http.server
import json
import os
import re
import subprocess
import threading

from playwright.sync_api import expect

from live_page import BINARIES, CONTAINERS, LivePage


class WhatIsShown(LivePage):
    def test_each_container_says_since_when_and_what_it_is(self):
        page = self.open()
        for container in CONTAINERS:
            with self.subTest(container):
                version = subprocess.run([BINARIES / container, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
                expect(self.value(page, f"{container}.version")).to_have_text(version)
                expect(self.value(page, f"{container}.up")).to_have_text(re.compile(r"\d+ s$"))
                expect(self.value(page, f"{container}.restarts")).to_have_text("0")
                expect(page.locator(f'.state[data-v="{container}.state"]')).to_have_text("ready")
                expect(page.locator(f'#drawing [data-v="{container}.short"]')).to_have_text(re.compile("ready, up "))

    def test_the_release_and_the_next_sync(self):
        page = self.open()
        current = (self.pod.folder / "volumes/content/current").readlink().name
        expect(page.locator('h2 [data-v="release.id"]')).to_have_text(current)
        expect(page.locator('#drawing [data-v="current"]')).to_contain_text(current)
        files = sum(file.is_file() for file in (self.pod.folder / "volumes/content/current/").rglob("*"))
        expect(self.value(page, "release.files")).to_have_text(str(files))
        expect(self.value(page, "release.age")).to_have_text(re.compile(r"\d+ s ago$"))
        expect(self.value(page, "countdown")).to_have_text("waiting for a change")
        expect(self.value(page, "last")).to_have_text(re.compile(r"\d+ s ago: (a new release|nothing new)"))

    def test_answers_are_counted_by_class_and_by_second(self):
        page = self.open()
        count = lambda: int(re.search(r"4xx ([\d,]+)", self.value(page, "classes").inner_text())[1].replace(",", ""))
        before = count()
        for _ in range(3):
            self.assertEqual(self.pod.status("/no-such-page"), 404)
        expect(self.value(page, "classes")).to_contain_text(f"4xx {before + 3}")
        expect(self.value(page, "persecond")).to_have_text(re.compile(r"\d+\.\d"))
        written = self.number(page, "written")
        expect(page.locator('#drawing [data-v="access"]')).to_have_text(re.compile(f"access.log: ({written}|{written + 1}) lines"))

    def test_the_pod_says_who_it_is(self):
        page = self.open()
        for key, expected in {"pod.namespace": "default", "pod.node": os.uname().nodename}.items():
            expect(self.value(page, key)).to_have_text(expected)
        expect(page.locator('h2 [data-v="podname"]')).to_have_text("sidecar-pod-demo")
        expect(self.value(page, "pod.uid")).to_have_text(re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"))
        expect(self.value(page, "pod.labels")).to_have_text("app.kubernetes.io/name=sidecar-pod")
        expect(self.value(page, "pod.annotations")).to_have_text("kubectl.kubernetes.io/default-container=web-server")

    def test_what_is_lost_is_not_hidden(self):
        page = self.open()
        expect(self.value(page, "lost")).to_have_text("nothing")
        # The Pod's own agent loses nothing, so another speaks here: what that says, with a loss in it.
        status = json.loads(self.pod.get("/status", 9879))
        status["sinks"][0]["lost_bytes"] = 987
        answer = json.dumps(status).encode()

        class Agent(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        agent = http.server.ThreadingHTTPServer((self.pod.ip, 0), Agent)
        self.addCleanup(agent.server_close)
        threading.Thread(target=agent.serve_forever).start()
        self.addCleanup(agent.shutdown)
        self.another_server(9892, "--pod-page", "--pod-page-puller", f"{self.pod.ip}:9878", "--pod-page-agent", f"{self.pod.ip}:{agent.server_port}")
        page = self.open(address=self.pod.url("/live.html", 9892))
        expect(self.value(page, "lost")).to_have_text("987 B")
        self.quiet()

    def another_server(self, port, *arguments):
        server = self.pod.another_server(port, *arguments)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)

    def test_the_button_is_there_only_where_it_may_be_pressed(self):
        page = self.open()
        expect(page.locator("#sync")).to_be_visible()
        # From another machine.
        page = self.open(address="http://another-machine:9876/live.html")
        expect(page.locator("#sync")).to_be_hidden()
        self.quiet()
        # Where actions are not allowed.
        page = self.another_page(9890)
        expect(page.locator("#sync")).to_be_hidden()
        self.quiet()

    def test_off_unless_asked_for_and_the_page_says_how(self):
        self.another_server(9891)
        page = self.open(address=self.pod.url("/live.html", 9891), live=False)
        expect(page.locator("#off")).to_contain_text("--pod-page")
        expect(page.locator("#live")).to_be_hidden()

    def test_in_a_cluster_the_page_says_what_a_container_can_know(self):
        page = self.another_page(9893, "--pod-runs-on", "kubernetes", NODE_NAME="worker-1", POD_NAME="sidecar-pod-7d4b")
        expect(self.value(page, "pod.node")).to_have_text("worker-1")
        expect(page.locator('[data-v="keeper.title"]')).to_have_text("kubelet")
        expect(page.locator('[data-v="keeper.of"]')).to_have_text("on worker-1")
        expect(page.locator('[data-v="keeper.says"]')).to_contain_text("kubectl describe pod")
        # No file of the demo's kubelet: the lanes are of what the containers say, and the page says so.
        expect(page.locator("#kubelet li")).to_have_count(0)
        expect(page.locator('[data-v="lanes.note"]')).to_contain_text("start times")
        for container in CONTAINERS:
            expect(page.locator(f".lane.{container} .track .ready")).to_have_count(1)
            expect(self.value(page, f"{container}.probes")).not_to_have_text("")
        # Every challenge has a command or a remark for a cluster, and none that is for another place.
        commands = {item.get_attribute("data-challenge"): "\n".join(item.locator("pre").all_text_contents()) for item in page.locator("#tries li").all()}
        self.assertEqual(len(commands), 12)
        on_node = "kubectl debug node/worker-1 --profile=sysadmin -i --image=busybox -- pkill"
        for challenge, container in {"kill-server": "web-server", "kill-puller": "file-puller", "kill-agent": "log-agent", "backoff": "file-puller"}.items():
            self.assertIn(f"{on_node} -KILL {container}", commands[challenge])
        self.assertEqual([line for line in commands["freeze"].splitlines() if "pkill" in line], [f"{on_node} -STOP log-agent", f"{on_node} -CONT log-agent"])
        self.assertEqual(commands["manager"], "kubectl scale deployment content-manager --replicas 0")
        self.assertIn("kubectl scale deployment content-manager --replicas 1", commands["return"])
        for challenge in ("edit", "back", "gate", "sink"):
            self.assertRegex(commands[challenge], "^# ", challenge)
        for text in commands.values():
            self.assertNotRegex(text, r"docker|cargo demo|deploy/content|kill -(KILL|USR1) \d|undefined")
        self.quiet()
