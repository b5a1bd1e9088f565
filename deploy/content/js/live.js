// The live page: web-server sends snapshots of the Pod (docs/contract.md, `pod-page/1`), and this draws them. A snapshot says
// how things are; what has happened is worked out here, from two of them. No library and no build: what is here is what runs.

import * as challenges from "./challenges.js";
import * as timeline from "./timeline.js";
import { bytes, clock, count, cut, host, known, make, span } from "./words.js";

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const CONTAINERS = ["file-puller", "web-server", "log-agent"];
// Without a word for this long, web-server hangs: it sends a beat after 750 ms without news.
const SILENCE = 1600;
// Without a word for this long the connection itself may be dead, as after a night's sleep: a new one is made.
const DEAD = 5000;

let last = null; // the snapshot that is shown
let came = 0; // when, by the server's clock
let skew = 0; // the server's clock less ours, in milliseconds
let heard = 0; // when the stream said something, by our clock
let lost = null; // since when it does not
let source = null;
let serverRestarts = 0; // that this page saw; the kubelet of the demo counts them itself
let syncing = false;
let lanesDrawn = null; // when, and of what
let recent = false; // whether the timeline shows the last five minutes
const rates = []; // [time, requests a second] of the last minute

// ---- words ----

const cells = new Map();
for (const element of document.querySelectorAll("[data-v]")) {
  cells.set(element.dataset.v, [...(cells.get(element.dataset.v) ?? []), element]);
}
const said = new Map();
const put = (key, text) => {
  if (said.get(key) === text) return;
  said.set(key, text);
  for (const element of cells.get(key)) element.textContent = text;
};
const state = (name, value) => {
  for (const element of document.querySelectorAll(`[data-part="${name}"], [data-container="${name}"]`)) element.dataset.state = value;
};
const now = () => Date.now() + skew;

function chips(key, pairs) {
  const names = Object.keys(pairs);
  if (said.get(key) === JSON.stringify(pairs)) return;
  said.set(key, JSON.stringify(pairs));
  for (const element of cells.get(key)) {
    element.replaceChildren(...names.map((name) => make("span", { class: "chip", text: `${name}=${pairs[name]}` })));
    if (!names.length) element.textContent = "none known";
  }
}

// ---- what happened ----

let sentences = [];
let speaking = 0;

// On the page at once; to the ears of a screen reader's user in one go, and not more often than every three seconds. The latest is on
// top, by the time at which it happened, by the server's clock: after a silence of web-server the page hears of several things at once.
function tell(sentence, at = now()) {
  $("news").querySelector(".none")?.remove();
  const item = make("li", {}, make("time", { text: clock(at) }), make("span", { text: sentence }));
  item.dataset.at = at;
  $("news").insertBefore(item, [...$("news").children].find((other) => Number(other.dataset.at) <= at) ?? null);
  while ($("news").children.length > 100) $("news").lastChild.remove();
  sentences.push(sentence);
  speaking ||= setTimeout(() => {
    $("say").textContent = sentences.slice(-3).join(" ");
    sentences = [];
    speaking = setTimeout(() => { speaking = 0; }, 3000);
  }, 250);
}

// Sends something along the drawing: at once where nothing may move, that is, not at all.
function send(kind, points, { number = 1, delay = 0 } = {}) {
  if (calm.matches || document.hidden) return;
  for (let at = 0; at < Math.min(number, 5); at += 1) {
    const square = kind === "release";
    const packet = document.createElementNS("http://www.w3.org/2000/svg", square ? "rect" : "circle");
    const shape = square ? { x: -8, y: -8, width: 16, height: 16, rx: 3 } : { r: 5 };
    for (const [name, value] of Object.entries(shape)) packet.setAttribute(name, value);
    packet.setAttribute("class", `packet ${kind}`);
    $("packets").append(packet);
    const steps = points.map(([x, y]) => ({ transform: `translate(${x}px, ${y}px)` }));
    const run = packet.animate(steps, { duration: 420 * (points.length - 1), delay: delay + at * 140, easing: "ease-in-out", fill: "both" });
    run.onfinish = run.oncancel = () => packet.remove();
  }
}

// A probe: a ring at the container, for a moment. It does not move, because it comes every second or so.
function ring(y) {
  if (calm.matches || document.hidden) return;
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of Object.entries({ cx: 294, cy: y, r: 5, class: "packet probe" })) ring.setAttribute(name, value);
  $("packets").append(ring);
  setTimeout(() => ring.remove(), 500);
}

function flash(part) {
  for (const element of document.querySelectorAll(`#drawing [data-part="${part}"]`)) {
    element.classList.add("flash");
    element.addEventListener("animationend", () => element.classList.remove("flash"), { once: true });
  }
}

const answers = (snapshot) => Object.values(snapshot.requests.classes).reduce((sum, each) => sum + each, 0);
const shipped = (snapshot) => Math.min(...snapshot.log.sinks.map((sink) => sink.shipped ?? 0));

function changed(changes) {
  const parts = [["changed", changes.changed], ["added", changes.added], ["removed", changes.removed]];
  const named = parts.flatMap(([, paths]) => paths).length;
  const words = parts.filter(([, paths]) => paths.length).map(([what, paths]) => `${paths.join(", ")} ${what}`);
  if (changes.count > named) words.push(`and ${changes.count - named} more`);
  return words.join("; ") || "nothing";
}

function compare(before, after) {
  // What a snapshot says of the past lies between the one before and now.
  const then = (time) => (time ? Math.min(Math.max(Date.parse(time), came), now()) : now());
  CONTAINERS.forEach((name, at) => {
    const [was, is] = [before.containers[at], after.containers[at]];
    const restarted = was.started && is.started && was.started !== is.started;
    if (restarted && name === "web-server") serverRestarts += 1;
    if (was.state !== "down" && is.state === "down") tell(`${name} is down.`);
    else if (was.state === "down" && is.state === "up") tell(restarted ? `${name} is up again, as a new process.` : `${name} is up again.`);
    // The kubelet of the demo says so itself, and knows the pid.
    else if (restarted && !after.kubelet) tell(`${name} was started again.`, then(is.started));
    else if (!was.draining && is.draining) tell(`${name} is stopping.`);
    else if (was.ready && !is.ready) tell(`${name} is not ready.`);
    else if (was.ready === false && is.ready) tell(`${name} is ready.`);
  });
  kubelet(before.kubelet, after.kubelet);
  for (const [at, { probes }] of after.containers.entries()) {
    if (probes && probes.asked > (before.containers[at].probes?.asked ?? Infinity)) ring([169, 355, 573][at]);
  }
  for (const title of challenges.observe(before, after)) tell(`Done: ${title}.`);
  if (after.release && after.release.id !== before.release?.id) {
    const { id, changes } = after.release;
    tell(`Release ${id} has arrived${changes ? `: ${changed(changes)}` : ""}.`, then(after.release.published));
    send("release", [[92, 58], [92, 140], [92, 234], [92, 342]]);
    flash("content");
  }
  const [failed, fails] = [before, after].map((snapshot) => snapshot.sync?.result === "failed");
  if (fails && !failed) tell("file-puller cannot sync: the last good release stays.", then(after.sync.last));
  if (failed && !fails && after.sync) tell("file-puller syncs again.", then(after.sync.last));
  const [refused, refuses] = [before, after].map((snapshot) => snapshot.log.sinks.some((sink) => sink.failing));
  if (refuses && !refused) tell("The log sink does not confirm: lines wait in their file.");
  if (refused && !refuses) tell("The log sink confirms again.");
  const [asked, wrote] = [answers(after) - answers(before), after.log.written - before.log.written];
  if (asked > 0) send("request", [[320, 371], [286, 371]], { number: asked });
  if (wrote > 0) send("logline", [[92, 400], [92, 440]], { number: wrote, delay: 300 });
  const arrived = shipped(after) - shipped(before);
  if (arrived > 0 && arrived < Infinity) send("logline", [[92, 506], [92, 544], [92, 602], [92, 667]], { number: arrived, delay: 500 });
}

// What the demo's kubelet has done since the snapshot before.
function kubelet(before, after) {
  const latest = before?.events.at(-1)?.at ?? "";
  for (const { at, container, event, text, pid, after_seconds: wait } of after?.events ?? []) {
    if (at <= latest) continue;
    const says = (sentence) => tell(sentence, Date.parse(at));
    if (event === "ended") says(`The kubelet: ${container} has ${text}.`);
    else if (event === "liveness-probe-failed") says(`The kubelet: ${container}’s ${text}.`);
    else if (event === "killed") says(`The kubelet: ${container} ${text}.`);
    else if (event === "restarts") says(`The kubelet starts ${container} again ${wait ? `in ${wait} s` : "at once"}.`);
    else if (event === "started") says(`The kubelet has started ${container}: pid ${pid}.`);
    else if (event === "stays-ended") says(`The kubelet: ${container} is ${text}.`);
  }
}

// ---- how things are ----

const WORDS = { up: "ready", unready: "not ready", draining: "stopping", down: "down" };

function container({ name, state: life, reason, version, ready, draining, restarts, probes }) {
  const how = life === "down" ? "down" : draining ? "draining" : ready ? "up" : "unready";
  state(name, how === "draining" ? "unready" : how);
  put(`${name}.state`, WORDS[how]);
  put(`${name}.reason`, reason ?? "");
  put(`${name}.version`, known(version));
  put(`${name}.restarts`, String(restarts + (name === "web-server" && !last?.kubelet ? serverRestarts : 0)));
  put(`${name}.probes`, probes ? count(probes.asked, "time") : "not known");
}

// How many answers of each class: "2xx 12".
function answered(numbers) {
  if (said.get("classes") === JSON.stringify(numbers)) return;
  said.set("classes", JSON.stringify(numbers));
  const classes = document.createElement("span");
  classes.className = "classes";
  for (const [name, number] of Object.entries(numbers)) {
    if (name === "1xx" && !number) continue;
    const one = document.createElement("span");
    if (name === "5xx" && number) one.className = "bad";
    const value = document.createElement("b");
    value.textContent = number.toLocaleString("en");
    one.append(`${name} `, value);
    classes.append(one);
  }
  document.querySelector('[data-v="classes"]').replaceChildren(classes);
}

// What keeps the containers running, as far as a container can know it.
const KEEPERS = {
  demo: ["kubelet", "The small kubelet of cargo demo says what it does:"],
  compose: ["Docker", "Docker starts the containers again, and asks their health checks. What else it does no container can see: docker events."],
  kubernetes: ["kubelet", "The kubelet starts the containers again, and asks their probes. What else it does no container can see: kubectl describe pod."],
};

function keeper(snapshot) {
  const [name, says] = KEEPERS[snapshot.runs_on] ?? ["the engine", "What starts the containers again is not known here."];
  put("keeper", name.replace("the ", ""));
  put("keeper.title", name);
  put("keeper.of", snapshot.kubelet ? `pid ${snapshot.kubelet.kubelet_pid}` : snapshot.pod.node ? `on ${snapshot.pod.node}` : "");
  put("keeper.says", says);
  put("lanes.note", snapshot.kubelet ? "" : "Made of the containers’ own start times and of what this page has seen since it was opened.");
  const pids = Object.entries(snapshot.kubelet?.pids ?? {});
  put("keeper.pids", pids.length ? `Processes: ${pids.map(([container, pid]) => `${container} ${pid}`).join(", ")}.` : "");
  const events = (snapshot.kubelet?.events ?? []).slice(-7).reverse();
  const key = events.map(({ at, container: name, event }) => at + name + event).join();
  if (said.get("kubelet") === key) return;
  said.set("kubelet", key);
  $("kubelet").replaceChildren(...events.map(({ at, container: name, text }) =>
    make("li", {}, make("time", { text: clock(Date.parse(at)) }), make("b", { text: name }), make("span", { text }))));
}

// What the kubelet will do about a container that has ended: "again in 8 s".
function again(name) {
  const own = (last.kubelet?.events ?? []).filter((event) => event.container === name);
  const { at, event, after_seconds: wait } = own.at(-1) ?? {};
  if (event === "stays-ended") return "it stays ended";
  if (event !== "restarts") return "";
  const left = Math.ceil((Date.parse(at) + wait * 1000 - now()) / 1000);
  return left > 0 ? `again in ${left} s` : "starting again";
}

function show(snapshot) {
  // A web-server that was just started has not heard a neighbour that is down: what that one said before still holds.
  for (const [at, one] of snapshot.containers.entries()) one.started ??= last?.containers[at].started ?? null;
  if (last) compare(last, snapshot);
  [last, came] = [snapshot, now()];
  timeline.note(snapshot, now());
  keeper(snapshot);
  put("tries.done", challenges.show($("tries"), snapshot));
  const { pod, release, sync, requests, log } = snapshot;
  snapshot.containers.forEach(container);

  put("podname", pod.name ?? "");
  put("podshort", cut(pod.name ?? "", 20));
  for (const key of ["namespace", "node", "uid"]) put(`pod.${key}`, known(pod[key]));
  chips("pod.labels", pod.labels);
  chips("pod.annotations", pod.annotations);

  put("release.id", release ? release.id : "none yet");
  put("current", release ? `current → ${cut(release.id, 18)}` : "no release yet");
  put("release.files", release ? String(release.files) : "–");
  put("release.fetched", release ? (release.fetched_files === null ? "not known" : count(release.fetched_files, "file")) : "–");
  put("release.changes", release?.changes ? changed(release.changes) : "no release has arrived since this page is watched");
  put("wrote", release ? `wrote ${count(release.files, "file")}` : "writes a release");

  const stuck = sync?.result === "failed";
  state("content-manager", stuck ? "down" : "up");
  put("source", sync?.source ? cut(stuck ? `no sync: ${host(sync.source)}` : host(sync.source), 30) : "outside the Pod");

  put("persecond", requests.per_second === null ? "–" : requests.per_second.toFixed(1));
  put("rate", requests.per_second === null ? "–" : `${requests.per_second.toFixed(1)}/s`);
  answered(requests.classes);

  const away = snapshot.containers[2].state === "down";
  const waits = Math.max(0, ...log.sinks.map((sink) => sink.waiting_bytes ?? 0));
  const losses = log.sinks.reduce((sum, sink) => sum + (sink.lost_bytes ?? 0), 0);
  const failing = log.sinks.find((sink) => sink.failing);
  put("written", log.written.toLocaleString("en"));
  put("access", `access.log: ${count(log.written, "line")}`);
  put("waiting", log.waiting !== null ? count(log.waiting, "line") : log.sinks.length && !away ? bytes(waits) : "not known");
  put("confirmed", log.sinks.length ? shipped(snapshot).toLocaleString("en") : "not known");
  const dropped = log.dropped ? `, ${count(log.dropped, "line")} never written` : "";
  put("lost", log.sinks.length ? `${losses ? bytes(losses) : "nothing"}${dropped}` : "not known");
  put("sinks", log.sinks.length ? log.sinks.map((sink) => (sink.failing ? `${sink.name} does not confirm: ${sink.failing}` : sink.name)).join(", ") : "not known");
  put("onway", log.waiting ? `${count(log.waiting, "line")} on the way` : "follows the file");
  put("shipped", log.sinks.length ? `${count(shipped(snapshot), "line")} shipped` : "ships every line");
  put("sink", log.sinks.length ? cut(log.sinks.map((sink) => sink.name).join(", "), 30) : "outside the Pod");
  state("sink", failing ? "down" : "up");

  able(snapshot.containers[0].state !== "down");
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname) || location.hostname.startsWith("127.");
  document.querySelector(".act").hidden = !(snapshot.actions.includes("sync") && local);
  tick();
}

// "Sync now" asks file-puller, by way of web-server: neither may be down.
function able(can) {
  if (syncing) return;
  $("sync").setAttribute("aria-disabled", String(!can));
  put("sync.why", can ? "" : lost === null ? "file-puller is down." : "web-server does not answer.");
}

// What changes by itself: ages, the countdown, the last minute.
function tick() {
  if (!last) return;
  for (const { name, state: life, started, ready, draining } of last.containers) {
    const dead = life === "down" || (name === "web-server" && lost !== null);
    const up = started && !dead ? span(now() - Date.parse(started)) : "–";
    put(`${name}.up`, up);
    const next = dead ? again(name) : "";
    put(`${name}.again`, next && `${next[0].toUpperCase()}${next.slice(1)}.`);
    put(`${name}.short`, dead ? `down${next && `, ${next}`}` : `${draining ? "stopping" : ready ? "ready" : "not ready"}, up ${up}`);
  }
  lanes();
  const { release, sync } = last;
  put("release.age", release ? `${span(now() - Date.parse(release.published))} ago` : "–");
  const until = sync?.next ? Date.parse(sync.next) - now() : null;
  const pulls = last.containers[0].state === "up" && until !== null;
  const waits = last.containers[0].state === "up" && sync?.waiting === true;
  put("countdown", waits ? "waiting for a change" : pulls ? (until > 0 ? `in ${Math.ceil(until / 1000)} s` : "now") : "–");
  put("next", waits ? "waits for a change" : pulls ? (until > 0 ? `asks again in ${Math.ceil(until / 1000)} s` : "asks what is new") : "does not ask");
  const when = sync?.last ? `${span(now() - Date.parse(sync.last))} ago: ` : "";
  const how = { published: "a new release", unchanged: "nothing new", failed: `failed, ${sync?.error ?? "no reason given"}` };
  put("last", sync?.result ? `${when}${how[sync.result] ?? sync.result}` : "none yet");
  spark();
}

function lanes() {
  if (lost !== null) timeline.lost(now());
  $("span").hidden = !timeline.isLong(last, now());
  // A hundredth of its width is the smallest step that shows.
  const [drawn, events] = [performance.now(), last.kubelet?.events.at(-1)?.at ?? last];
  const pace = Math.min(now() - timeline.begins(last), recent ? 300_000 : Infinity) / 100;
  if (lanesDrawn && drawn - lanesDrawn.at < pace && lanesDrawn.events === events && lanesDrawn.recent === recent) return;
  lanesDrawn = { at: drawn, events, recent };
  timeline.draw($("lanes"), last, now(), recent);
}

function spark() {
  const time = performance.now();
  if (rates.length && time - rates.at(-1)[0] < 950) return;
  if (last.requests.per_second !== null && lost === null) rates.push([time, last.requests.per_second]);
  while (rates.length && time - rates[0][0] > 61000) rates.shift();
  const most = Math.max(1, ...rates.map(([, rate]) => rate));
  const points = rates.map(([at, rate]) => `${(240 - (time - at) / 250).toFixed(1)},${(27 - (rate / most) * 25).toFixed(1)}`);
  // A line of nothing but zeros looks the same a second later.
  const flat = rates.length < 2 || rates.every(([, rate]) => rate === 0);
  const drawn = flat ? "0,27 240,27" : points.join(" ");
  if (said.get("spark") !== drawn) document.querySelector("#spark polyline").setAttribute("points", drawn);
  said.set("spark", drawn);
}

// ---- the stream ----

function line(how, words) {
  if ($("line").dataset.state === how) return;
  $("line").dataset.state = how;
  put("line", words);
}

function alive(event) {
  heard = performance.now();
  if (event.type === "beat") skew = Date.parse(event.data) - Date.now();
  if (lost === null) return;
  lost = null;
  $("live").classList.remove("stale");
  if (last) able(last.containers[0].state !== "down");
  tell("web-server answers again.");
}

function lose() {
  if (lost !== null || !last) return;
  lost = now();
  $("live").classList.add("stale");
  able(false);
  state("web-server", "down");
  put("web-server.state", "down");
  put("web-server.reason", "It does not answer this page. What you see of the others is what it said last.");
  line("lost", "web-server does not answer");
  tell("web-server does not answer.");
  tick();
}

function connect() {
  source?.close();
  source = new EventSource("pod/events");
  heard = performance.now();
  source.addEventListener("beat", (event) => {
    alive(event);
    if (last) { line("live", "Live"); container(last.containers[1]); }
  });
  source.addEventListener("snapshot", (event) => {
    alive(event);
    line("live", "Live");
    show(JSON.parse(event.data));
    $("live").hidden = false;
  });
  source.onerror = async () => {
    lose();
    if (!source) return;
    // A browser comes back by itself, except from an answer that is no stream.
    if (source.readyState !== EventSource.CLOSED) return;
    const missing = !last && (await fetch("pod").then((answer) => answer.status === 404, () => false));
    if (missing) { $("off").hidden = false; $("line").hidden = true; return; }
    setTimeout(connect, 1000);
  };
}

// A page in the background is not watched, so nothing is polled for it. Back in front it shows what has changed meanwhile: the
// snapshot that comes is compared with the last one that it had.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    if (last && lost === null) line("waiting", "Catching up");
    return connect();
  }
  source?.close();
  source = null;
});

$("span").addEventListener("click", ({ currentTarget: button }) => {
  recent = !recent;
  button.setAttribute("aria-pressed", String(recent));
  lanes();
});

$("forget").addEventListener("click", () => {
  challenges.forget();
  if (last) put("tries.done", challenges.show($("tries"), last));
});

$("sync").addEventListener("click", async ({ currentTarget: button }) => {
  if (button.getAttribute("aria-disabled") === "true") return;
  syncing = true;
  button.setAttribute("aria-disabled", "true");
  $("synced").textContent = "";
  try {
    const answer = await fetch("pod/sync", { method: "POST" });
    const text = await answer.text();
    const outcome = answer.headers.get("content-type")?.startsWith("application/json") ? JSON.parse(text) : { error: text };
    const words = { published: "A new release.", unchanged: "Nothing is new." };
    $("synced").textContent = words[outcome.result] ?? `It failed: ${outcome.error ?? outcome.result}`;
  } catch {
    $("synced").textContent = "web-server does not answer.";
  }
  syncing = false;
  able(lost === null && last?.containers[0].state !== "down");
});

$("line").hidden = false;
setInterval(tick, 1000);
setInterval(() => {
  const silence = source ? performance.now() - heard : 0;
  if (silence > SILENCE) lose();
  if (silence > DEAD) connect();
}, 200);
connect();
