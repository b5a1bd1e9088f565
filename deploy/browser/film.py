"""The moving picture of the README: a page is edited and arrives, a container is killed and comes back.

    deploy/browser/run.sh --film     writes docs/img/live.gif

Real frames of the live page over a Pod of real processes, taken as fast as the browser gives them, and played in the time that they took."""

import io
import os
import pathlib
import signal
import time
import unittest

from PIL import Image

from live_page import LivePage

FILM = os.environ.get("FILM")
WIDTH, HEIGHT = 800, 640
SIZE_MAX = 1_000_000
# Between two frames, in seconds: a GIF counts in hundredths.
STEP = 0.15


class Film(LivePage):
    sinks = ("file:{}/log.ndjson",)
    whole = True

    @unittest.skipUnless(FILM, "only with --film")
    def test_film(self):
        page = self.open(viewport={"width": WIDTH, "height": HEIGHT}, bypass_csp=True)
        # The drawing and what happened, beside each other; the rest of the page is below.
        page.add_style_tag(content=STYLE)
        page.evaluate("document.fonts.ready")
        self.frames = []
        self.shoot(page, 0.8)
        self.caption(page, "Edit a page …")
        self.shoot(page, 0.6)
        self.pod.edit("index.html", (self.pod.content / "index.html").read_text() + "<p>Edited.\n")
        self.caption(page, "Edit a page: a release arrives, whole")
        self.shoot(page, 3)
        self.caption(page, "kill -9 log-agent, twice, under load")
        for _ in range(2):
            self.ask(8)
            self.shoot(page, 0.6)
            os.kill(self.pod.pid("log-agent"), signal.SIGKILL)
            self.shoot(page, 1)
        self.ask(20)
        self.caption(page, "The kubelet waits; lines wait in their file")
        self.shoot(page, 3)
        # The rest of the back-off is left out: ten seconds in which only a number changes.
        self.state(page, "log-agent", "up")
        self.caption(page, "It is back, and nothing is lost")
        self.shoot(page, 3)
        self.save()
        self.quiet()

    def ask(self, times):
        for _ in range(times):
            self.pod.get("/")

    def caption(self, page, text):
        page.evaluate("(text) => { document.querySelector('h1').textContent = text }", text)

    def shoot(self, page, seconds):
        end = time.monotonic() + seconds
        while (began := time.monotonic()) < end:
            image = Image.open(io.BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}))).convert("RGB")
            page.wait_for_timeout(max(0, STEP - (time.monotonic() - began)) * 1000)
            self.frames.append((image, time.monotonic() - began))

    def save(self):
        # One palette for all frames, so that what has not changed is the same to the bit, and is not stored again.
        sample = Image.new("RGB", (WIDTH, HEIGHT * 4))
        for row, at in enumerate((0, 0.3, 0.6, 0.95)):
            sample.paste(self.frames[int(at * len(self.frames))][0], (0, row * HEIGHT))
        palette = sample.quantize(colors=64, dither=Image.Dither.NONE)
        images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image, _ in self.frames]
        times = [max(20, round(took * 100) * 10) for _, took in self.frames]
        times[-1] = 2000
        images[0].save(FILM, save_all=True, append_images=images[1:], duration=times, loop=0, optimize=False, disposal=1)
        size = pathlib.Path(FILM).stat().st_size
        print(f"\n{len(images)} frames, {sum(times) / 1000:.1f} s, {size} bytes", flush=True)
        self.assertLess(size, SIZE_MAX)


STYLE = """
  header, .intro, .kubelet-card, .tries-card, .lanes-card .key, .lanes-card .note, #span, .release-card, .pod-card, figcaption, footer { display: none !important; }
  main { padding: .75rem 0 0; } .top { margin-bottom: .5rem; } .top h1 { font-size: 1.5rem; }
  .live { grid-template-columns: 330px 1fr !important; gap: 1rem !important; }
  #drawing { max-width: 318px; } .story { gap: .5rem; }
  .story .news-card { position: absolute; left: 350px; right: 16px; top: 70px; height: 210px; overflow: hidden; }
  .cards { padding-top: 225px; gap: .5rem; } .card { padding: .5rem .75rem; font-size: .85rem; }
  .server-card, .puller-card { display: none; } .agent-card .wide, .agent-card .why, .agent-card dl > :nth-child(4) { display: none; }
  .lanes-card { position: absolute; left: 360px; right: 16px; top: 478px; } .lanes-card h2 { margin: 0 0 .25rem; }
  .lane { grid-template-columns: 5.5rem 1fr !important; margin: .2rem 0; } .track { height: 1.1rem; } .scale { margin-left: 6.25rem; }
"""
