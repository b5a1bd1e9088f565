// Things to try. Each is ticked when two snapshots of the Pod, one after the other, show that it happened; what was ticked, and the little
// that a challenge must remember from one step to its next, is kept in this browser.

import { copyButton } from "./copy.js";
import { make } from "./words.js";

const KEY = "things-to-try/1";
const NONE = { done: {}, releases: [], failed: null, load: null, frozen: null, pulled: null, silent: false, starts: {} };
let memory = structuredClone(NONE);
try { memory = { ...memory, ...JSON.parse(localStorage.getItem(KEY)) }; } catch { /* It may be forbidden here, or be of another kind. */ }

// ---- what is typed, where the Pod runs on ----

const compose = "docker compose -f deploy/compose.yaml";
const site = () => `http://${location.host}`;
const pid = (snapshot, name) => snapshot.kubelet?.pids[name];
const folder = (snapshot) => snapshot.kubelet?.content ?? "deploy/content";
// A name as a shell takes it: quoted where it has anything but what every shell leaves alone.
const quoted = (name) => (/^[\w./-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`);
const inFolder = (snapshot, name) => quoted(`${folder(snapshot)}/${name}`);
// What is typed on the demo, on Compose, and in a cluster. PID 1 of a container takes no SIGKILL and no SIGSTOP from its own namespace, so
// in a cluster the signal is sent from the node, to every process of that name there.
const where = (snapshot, demo, docker, cluster) => ({ demo, kubernetes: cluster })[snapshot.runs_on] ?? docker;
const onNode = (snapshot, command) => `kubectl debug node/${snapshot.pod.node ?? "NODE"} --profile=sysadmin -i --image=busybox -- ${command}`;
const kill = (name, signal = "KILL") => (snapshot) => where(snapshot,
  `kill -${signal} ${pid(snapshot, name) ?? "PID"}`,
  `sudo kill -${signal} $(docker inspect --format '{{.State.Pid}}' $(${compose} ps -q ${name}))`,
  onNode(snapshot, `pkill -${signal} ${name}`));
const SOURCE = "# change a page where the content manager gets it from";
const edit = (snapshot) => where(snapshot, `echo '<p>Changed.' >> ${inFolder(snapshot, "index.html")}`, "echo '<p>Changed.' >> deploy/content/index.html", SOURCE);
const unedit = (snapshot) => where(snapshot, `sed -i '$d' ${inFolder(snapshot, "index.html")}`, "sed -i '$d' deploy/content/index.html", SOURCE);
const manager = (away) => (snapshot) => where(snapshot,
  `kill -USR1 ${snapshot.kubelet?.kubelet_pid ?? "PID"}`,
  `${compose} ${away ? "stop" : "start"} content-manager`,
  `kubectl scale deployment content-manager --replicas ${away ? 0 : 1}`);
const freeze = (on) => (snapshot) => (snapshot.runs_on === "compose" ? `${compose} ${on ? "pause" : "unpause"} log-agent` : kill("log-agent", on ? "STOP" : "CONT")(snapshot));
const ask = (times, also = "") => `for i in $(seq ${times}); do curl -s -o /dev/null ${site()}/; ${also}done`;
// One block, which a person may paste whole. So what the page must see in between is given the time to be seen (WAIT), and a command
// that goes on running, or after which a person looks at something, is a block of its own.
const block = (...lines) => lines.join("\n");
const WAIT = "sleep 5";

// ---- what happened ----

const [PULLER, SERVER, AGENT] = [0, 1, 2];
const restarted = (before, after, at) => {
  const [was, is] = [before.containers[at], after.containers[at]];
  return is.state === "up" && was.started && is.started && was.started !== is.started;
};
const answers = (snapshot, kind) => snapshot.requests.classes[kind];
const failed = (snapshot) => snapshot.sync?.result === "failed";
// The content manager is not there; not that its release is refused.
const away = (snapshot) => failed(snapshot) && !heldBack(snapshot);
const heldBack = (snapshot) => /held back/.test(snapshot.sync.error ?? "");
const failing = (snapshot) => snapshot.log.sinks.some((sink) => sink.failing);
const lostBytes = (snapshot) => snapshot.log.sinks.reduce((sum, sink) => sum + (sink.lost_bytes ?? 0), 0);
// Whether web-server went on when file-puller died. A page that was cut off by a death of web-server sees two new processes at once;
// then the kubelet knows which death was the later one.
const wentOn = (before, after) => {
  if (!after.kubelet) return !restarted(before, after, SERVER);
  const latest = (name, what) => after.kubelet.events.findLast(({ container, event }) => container === name && event === what)?.at ?? "";
  return latest("file-puller", "ended") > latest("web-server", "started");
};
const arrived = (before, after) => after.release && before.release && after.release.id !== before.release.id;

const CHALLENGES = [
  {
    id: "edit", title: "Change a page", commands: (snapshot) => [edit(snapshot)],
    why: "file-puller writes the new release beside the old one and then replaces one link, so no reader sees half of it.",
    lab: "02-shared-volume", code: "file-puller/src/store/publish.rs",
    happened: (before, after) => arrived(before, after) && (after.release.changes?.changed.length ?? 0) > 0,
  },
  {
    id: "back", title: "Take the change back", commands: (snapshot) => [unedit(snapshot)],
    why: "A release is named after its content: the old content is the old release, under its old name.",
    lab: "07-immutable", code: "file-puller/src/content/release_id.rs",
    happened: (before, after) => arrived(before, after) && memory.releases.includes(after.release.id),
  },
  {
    id: "missing", title: "Ask for a page that is not there", commands: () => [`curl -i ${site()}/no-such-page`],
    why: "Each answer is one line of the access log, whatever its status; log-agent ships that line like any other.",
    lab: "09-log-shipping", code: "web-server/src/http/exchange.rs",
    happened: (before, after) => answers(after, "4xx") > answers(before, "4xx"),
  },
  {
    id: "kill-server", title: "Kill the web server, and keep its log", commands: (snapshot) => [kill("web-server")(snapshot)],
    why: "A volume belongs to the Pod and outlives its containers: the new process goes on in the old file. Only the line of an answer that was given in the very moment of the kill may be missing.",
    lab: "06-restarts", code: "pod/kubelet/src/kubelet.rs",
    happened: (before, after) => restarted(before, after, SERVER) && after.log.written >= before.log.written,
  },
  {
    id: "kill-puller", title: "Kill file-puller, and keep the site", commands: (snapshot) => [kill("file-puller")(snapshot)],
    why: "Only the dead container is started again. web-server reads the volume and does not need its neighbour to be there.",
    lab: "06-restarts", code: "web-server/src/content/watch.rs",
    happened: (_, after) => memory.pulled && after.release?.id === memory.pulled,
  },
  {
    id: "kill-agent", title: "Kill log-agent under load, and lose nothing", commands: (snapshot) => [ask(400, `if [ $i = 100 ]; then ${kill("log-agent")(snapshot)}; fi; `)],
    why: "The file is the buffer, and a checkpoint says up to which byte the sink has confirmed: the next process goes on there.",
    lab: "09-log-shipping", code: "log-agent/src/agent/checkpoint_schedule.rs",
    happened: (_, after) => memory.load && after.containers[AGENT].state === "up" && after.containers[AGENT].started !== memory.load.started
      && after.log.written >= memory.load.written + 100 && after.log.waiting === 0 && lostBytes(after) === memory.load.lost,
  },
  {
    id: "backoff", title: "Kill the same container twice", commands: (snapshot) => [kill("file-puller")(snapshot), `# and again, as soon as it is back: ${snapshot.runs_on === "demo" ? "look for its new pid above" : "the same command"}`],
    why: "The first restart comes at once; then each wait is longer than the one before, so that a crash loop does not use up the node.",
    lab: "06-restarts", code: "pod/kubelet/src/backoff.rs",
    happened: (before, after) => (after.kubelet
      ? after.kubelet.events.some(({ at, event, after_seconds: wait }) => event === "restarts" && wait > 0 && at > (before.kubelet?.events.at(-1)?.at ?? ""))
      : Object.values(memory.starts).some((starts) => starts.length > 2 && Date.parse(starts.at(-1)) - Date.parse(starts.at(-2)) < 600_000)),
  },
  {
    id: "freeze", title: "Freeze log-agent, ask for pages, and thaw it", commands: (snapshot) => [block(freeze(true)(snapshot), ask(10), WAIT, freeze(false)(snapshot))],
    why: "A process that hangs holds its port and answers nothing. Its lines wait in their file, and web-server does not wait for it.",
    lab: "05-probes", code: "log-agent/src/tail/content/mod.rs",
    happened: (_, after) => memory.frozen && after.containers[AGENT].state === "up" && after.containers[AGENT].started === memory.frozen.started
      && after.log.written > memory.frozen.written && after.log.waiting === 0,
  },
  {
    id: "manager", title: "Stop the content manager", commands: (snapshot) => [manager(true)(snapshot)],
    why: "The last good release stays and is served on: what a reader sees does not depend on what is outside the Pod.",
    lab: "08-sidecars", code: "file-puller/src/daemon/backoff.rs",
    happened: (before, after) => away(after) && after.release && after.release.id === before.release?.id,
  },
  {
    id: "return", title: "Bring it back with another page", commands: (snapshot) => [block(edit(snapshot), manager(false)(snapshot))],
    why: "file-puller asks again by itself, after waits that grow up to a limit. It does not have to be restarted.",
    lab: "11-ambassador", code: "file-puller/src/daemon/scheduler.rs",
    happened: (_, after) => memory.failed && !failed(after) && after.release && after.release.id !== memory.failed,
  },
  {
    id: "gate", title: "Make a release that the gate refuses", commands: (snapshot) => (snapshot.runs_on === "kubernetes"
      ? ["# with --require index.html among file-puller’s arguments: take index.html away from the content manager"]
      : [block("# take it away, and look at “Last sync”:", `mv ${inFolder(snapshot, "index.html")} /tmp/`), block("# bring it back:", `mv /tmp/index.html ${inFolder(snapshot, "")}`)]),
    why: "A gate is a rule that a release must pass before it is published, here that it has index.html. A release that does not pass is held back, and the one before is served.",
    lab: "07-immutable", code: "file-puller/src/sync/gate.rs",
    happened: (_, after) => failed(after) && heldBack(after),
  },
  {
    id: "sink", title: "Take the log’s sink away, and give it back",
    commands: (snapshot) => (snapshot.runs_on === "demo"
      ? [block("# with a Pod that was started like this, in a terminal of its own:", "mkdir -p lab/sink && cargo demo --sink \"file:$PWD/lab/sink/log.ndjson\""),
        block("mv lab/sink lab/away", ask(3), WAIT, "mv lab/away lab/sink")]
      : snapshot.runs_on === "kubernetes" ? ["# let LOG_AGENT_SINK of the Deployment name a host that is not there, and take that back"]
      : [block(`LOG_SINKS=ndjson+http://no-such-host.invalid/ ${compose} up -d log-agent`, ask(3), WAIT, `${compose} up -d log-agent`)]),
    why: "log-agent confirms nothing that its sink has not confirmed: the lines stay where they are until the sink is back.",
    lab: "09-log-shipping", code: "log-agent/src/deliver/retry.rs",
    happened: (_, after) => memory.silent && after.log.sinks.length > 0 && !failing(after) && after.log.waiting === 0,
  },
];

// Two snapshots, one after the other: the titles of what they show to be done for the first time.
export function observe(before, after) {
  const [was, is] = [before.containers[AGENT], after.containers[AGENT]];
  const line = JSON.stringify(memory);
  // The one before the first change counts as well: it may be the very first snapshot that this page was sent.
  const served = before.release?.id;
  if (served && memory.releases.at(-1) !== served) memory.releases = [...memory.releases.filter((id) => id !== served), served].slice(-50);
  if (was.state === "up" && (is.state === "down" || restarted(before, after, AGENT))) {
    memory.load = { written: before.log.written, lost: lostBytes(before), started: was.started };
    memory.frozen = { written: before.log.written, started: was.started };
  }
  if (restarted(before, after, PULLER) && wentOn(before, after)) memory.pulled = memory.releases.at(-1) ?? null;
  for (const [at, { name, state, started }] of after.containers.entries()) {
    const starts = memory.starts[name] ?? [before.containers[at].started];
    if (state === "up" && started && !starts.includes(started)) starts.push(started);
    memory.starts[name] = starts.slice(-3);
  }
  if (away(after)) memory.failed ??= after.release?.id ?? null;
  memory.silent ||= failing(after);
  const fresh = CHALLENGES.filter(({ id, happened }) => !memory.done[id] && happened(before, after));
  for (const { id } of fresh) memory.done[id] = new Date().toISOString();
  if (!failed(after)) memory.failed = null;
  // A web-server that was just started may still be loading the release.
  if (after.release) memory.pulled = null;
  if (memory.silent && !failing(after) && after.log.waiting === 0) memory.silent = false;
  if (JSON.stringify(memory) !== line) keep();
  return fresh.map(({ title }) => title);
}

function keep() {
  try { localStorage.setItem(KEY, JSON.stringify(memory)); } catch { /* Then it lasts as long as the page. */ }
}

export function forget() {
  memory = structuredClone(NONE);
  keep();
}

// ---- the list ----

const items = new Map();
let place = null;

// Shows them; commands are written again only when they would be others.
export function show(into, snapshot) {
  if (!items.size) {
    for (const { id, title, why, lab, code } of CHALLENGES) {
      const typed = make("div");
      const links = make("p", {}, make("a", { href: `labs/${lab}.html`, text: `Lab ${Number(lab.slice(0, 2))}` }), " · ", make("code", { text: code }));
      // The Pod does not serve its own source, so the path is for the clone.
      const copy = copyButton(code, "Copy path");
      if (copy) links.append(" ", copy);
      // Folded, so that a person may find them first.
      const folded = make("details", {}, make("summary", { text: "The commands" }), typed);
      const item = make("li", {}, make("details", {}, make("summary", {}, make("span", { text: title }), make("span", { class: "state" })), make("p", { text: why }), folded, links));
      item.dataset.challenge = id;
      items.set(id, { item, typed });
      into.append(item);
    }
  }
  const now = JSON.stringify([snapshot.runs_on, folder(snapshot), snapshot.kubelet?.kubelet_pid, ["file-puller", "web-server", "log-agent"].map((name) => pid(snapshot, name))]);
  for (const { id, commands } of CHALLENGES) {
    const { item, typed } = items.get(id);
    item.classList.toggle("done", Boolean(memory.done[id]));
    item.querySelector(".state").textContent = memory.done[id] ? "done" : "";
    if (now !== place) typed.replaceChildren(...commands(snapshot).map((text) => make("pre", { tabIndex: 0, text })));
  }
  place = now;
  return `${Object.keys(memory.done).length} of ${CHALLENGES.length}`;
}
