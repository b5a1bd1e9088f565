// The timeline: one lane a container, from the Pod's start on. Under `cargo demo` its small kubelet says what it did, and the lanes
// are made of that. Elsewhere a page can know the containers' own start times and what it saw since it was opened, and no more.

import { clock, make } from "./words.js";

const CONTAINERS = ["log-agent", "file-puller", "web-server"];
const RECENT = 5 * 60_000;
const WORDS = {
  starting: "started, not ready yet", ready: "ready", "not-ready": "not ready", "back-off": "ended, waits for its restart",
  draining: "drains", down: "does not answer",
};

const releases = []; // when each was published, as far as this page knows
const seen = new Map(); // by container: what this page saw, as stretches of [time, phase], and its ends

// What a container is in after an event of the kubelet; null where it is gone, undefined where nothing changes.
function after(event) {
  switch (event) {
    case "started": return "starting";
    case "ready": return "ready";
    case "not-ready": return "not-ready";
    case "restarts": case "cannot-start": return "back-off";
    case "stopping": return "draining";
    case "ended": case "stopped": case "stays-ended": return null;
    default: return undefined;
  }
}

// A snapshot has come, at this time by the server's clock.
export function note(snapshot, time) {
  const published = snapshot.release && Date.parse(snapshot.release.published);
  if (published && !releases.includes(published)) releases.push(published);
  for (const { name, state, started, ready, draining } of snapshot.containers) {
    const own = seen.get(name) ?? { began: null, stretches: [], ends: [] };
    seen.set(name, own);
    const phase = state === "down" ? "down" : draining ? "draining" : ready ? "ready" : "not-ready";
    const began = started ? Date.parse(started) : null;
    const before = own.stretches.at(-1);
    if (state === "up" && began !== own.began) {
      // Another process: the one before had ended when it stopped answering, or just before this one began.
      if (before) own.ends.push([before[1] === "down" ? before[0] : began, "ended"]);
      own.stretches.push([Math.max(began, before?.[0] ?? 0), phase]);
      own.began = began;
    } else if (before?.[1] !== phase) own.stretches.push([time, phase]);
  }
}

// web-server does not answer this page.
export function lost(time) {
  const own = seen.get("web-server")?.stretches;
  if (own && own.at(-1)[1] !== "down") own.push([time, "down"]);
}

// The stretches of a lane, as [from, to, phase], and its marks, as [time, words]: its ends, and liveness probes that failed.
function lane(name, kubelet, end) {
  if (!kubelet) {
    const { stretches, ends } = seen.get(name) ?? { stretches: [], ends: [] };
    return [stretches.map(([from, phase], at) => [from, stretches[at + 1]?.[0] ?? end, phase]), ends, []];
  }
  const stretches = [];
  const [ends, misses] = [[], []];
  for (const { container, at, event, text } of kubelet.events) {
    if (container !== name) continue;
    const time = Date.parse(at);
    let phase = after(event);
    if (event === "ended" || event === "killed") ends.push([time, text]);
    if (event === "liveness-probe-failed") misses.push([time, text]);
    if (event === "not-ready" && stretches.at(-1)?.[2] === "starting") phase = undefined;
    if (phase === undefined) continue;
    if (stretches.length && stretches.at(-1)[1] === null) stretches.at(-1)[1] = time;
    if (phase) stretches.push([time, null, phase]);
  }
  if (stretches.length && stretches.at(-1)[1] === null) stretches.at(-1)[1] = end;
  return [stretches, ends, misses];
}

export const begins = (snapshot) => {
  const starts = snapshot.kubelet?.events.length
    ? [Date.parse(snapshot.kubelet.events[0].at)]
    : [...seen.values()].flatMap((own) => own.stretches.slice(0, 1).map(([time]) => time));
  return Math.min(...starts, Infinity);
};
export const isLong = (snapshot, time) => time - begins(snapshot) > RECENT;

// Draws the lanes from the Pod's start, or of the last five minutes, until now.
export function draw(into, snapshot, time, recent) {
  const start = recent ? Math.max(begins(snapshot), time - RECENT) : begins(snapshot);
  if (!(time > start)) return;
  const percent = (at) => `${(Math.min(Math.max((at - start) / (time - start), 0), 1) * 100).toFixed(2)}%`;
  const rows = CONTAINERS.map((name) => {
    const track = make("div", { class: "track" });
    const words = [];
    const [stretches, ends, misses] = lane(name, snapshot.kubelet, time);
    for (const [from, to, phase] of stretches) {
      if (to <= start) continue;
      const bar = make("i", { class: phase, title: `${WORDS[phase]}, ${clock(from)} to ${clock(to)}` });
      bar.style.left = percent(from);
      bar.style.width = `calc(${percent(to)} - ${percent(from)})`;
      track.append(bar);
      words.push(`${WORDS[phase]} since ${clock(from)}`);
    }
    const dots = name === "file-puller" ? releases.map((at) => [at, "release", "published a release"]) : [];
    for (const [at, kind, text] of [...dots, ...misses.map(([at, text]) => [at, "miss", text]), ...ends.map(([at, text]) => [at, "mark", text])]) {
      if (at < start) continue;
      const bar = make("i", { class: kind, title: `${text}, ${clock(at)}` });
      bar.style.left = percent(at);
      track.append(bar);
    }
    track.setAttribute("role", "img");
    track.setAttribute("aria-label", `${name}: ${words.slice(-4).join(", ") || "nothing known"}${ends.length ? `; ended ${ends.length} times` : ""}`);
    return make("div", { class: `lane ${name}` }, make("b", { text: name }), track);
  });
  const scale = make("div", { class: "scale" });
  scale.setAttribute("aria-hidden", "true");
  for (const part of [0, 0.5, 1]) {
    const tick = make("span", { text: part === 1 ? "now" : clock(start + (time - start) * part) });
    tick.style.left = `${part * 100}%`;
    scale.append(tick);
  }
  into.replaceChildren(...rows, scale);
}
