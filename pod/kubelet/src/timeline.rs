//! What happened to each container, as a picture: one lane each, from the Pod's start to its end.

use std::fmt::Write as _;
use std::time::SystemTime;

use lifecycle::Ignore as _;

use crate::event::{Event, What};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 930.0;
const TOP: f64 = 34.0;
const LANE: f64 = 46.0;
const BAR: f64 = 22.0;
/// Labels on the axis, at most.
const TICKS: f64 = 10.0;

/// What a container is in, between two events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    NotReady,
    BackOff,
    Draining,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Starting, Self::Ready, Self::NotReady, Self::BackOff, Self::Draining];

    /// Its class in the picture, and its words in the legend.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Starting => ("starting", "started, not ready yet"),
            Self::Ready => ("ready", "ready"),
            Self::NotReady => ("not-ready", "not ready any more"),
            Self::BackOff => ("back-off", "ended, waits for its restart"),
            Self::Draining => ("draining", "asked to stop, drains"),
        }
    }

    /// The phase that begins with an event; none where the container is gone.
    fn after(what: &What, before: Option<Self>) -> Option<Self> {
        match what {
            What::Started { .. } => Some(Self::Starting),
            What::Ready => Some(Self::Ready),
            What::NotReady(_) if before == Some(Self::Starting) => before,
            What::NotReady(_) => Some(Self::NotReady),
            What::Restarts(_) | What::CannotStart(_) => Some(Self::BackOff),
            What::Stopping => Some(Self::Draining),
            What::PreStop(_)
            | What::StartupProbeFailed(_)
            | What::LivenessProbeFailed { .. }
            | What::Waits(_)
            | What::Killed(_) => before,
            What::Ended(_) | What::Stopped(_) | What::StaysEnded(..) => None,
        }
    }
}

/// A stretch of one lane, in seconds since the first event.
#[derive(Debug, Clone, PartialEq)]
struct Stretch {
    phase: Phase,
    from: f64,
    to: f64,
}

/// The picture. It is empty but for its frame where nothing has happened.
pub(crate) fn svg(events: &[Event]) -> String {
    let start = events.first().map_or(SystemTime::UNIX_EPOCH, |event| event.at);
    let at = |event: &Event| event.at.duration_since(start).unwrap_or_default().as_secs_f64();
    let end = events.last().map_or(0.0, at).max(0.1);
    let x = |seconds: f64| LEFT + (RIGHT - LEFT) * seconds / end;
    let mut names: Vec<&str> = Vec::new();
    for event in events {
        if !names.contains(&event.container) {
            names.push(event.container);
        }
    }
    let lanes: f64 = names.iter().map(|_| LANE).sum();
    let height = TOP + lanes + 64.0;
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <title>What happened to each container</title>\n{STYLE}"
    );
    axis(&mut picture, end, TOP + lanes, x);
    let mut y = TOP;
    for name in names {
        let own: Vec<&Event> = events.iter().filter(|event| event.container == name).collect();
        draw(
            &mut picture,
            format_args!(
                "<text class=\"name {name}\" x=\"{}\" y=\"{}\">{name}</text>",
                LEFT - 12.0,
                y + 15.5
            ),
        );
        for Stretch { phase, from, to } in stretches(&own, at, end) {
            let (class, words) = phase.names();
            let wide = (x(to) - x(from)).max(1.5);
            draw(
                &mut picture,
                format_args!(
                    "<rect class=\"{class} {name}\" x=\"{:.1}\" y=\"{y}\" width=\"{wide:.1}\" height=\"{BAR}\" rx=\"3\"><title>{name}: {words}, {from:.1} s to {to:.1} s</title></rect>",
                    x(from)
                ),
            );
        }
        let mut free = 0.0;
        for event in own.into_iter().filter(|event| is_marked(&event.what)) {
            let (mark, below, what) = (x(at(event)), y + BAR + 12.0, &event.what);
            draw(
                &mut picture,
                format_args!("<path class=\"end\" d=\"M{mark:.1} {y}v{BAR}\"><title>{what}</title></path>"),
            );
            // Beside a mark that comes so soon after another, there is no room for its words.
            if mark >= free {
                draw(
                    &mut picture,
                    format_args!("<text class=\"note\" x=\"{mark:.1}\" y=\"{below}\">{what}</text>"),
                );
                free = mark + width(&what.to_string());
            }
        }
        y += LANE;
    }
    let mut left = LEFT;
    for phase in Phase::ALL {
        let (class, words) = phase.names();
        let (box_y, text_y) = (height - 24.0, height - 13.0);
        draw(
            &mut picture,
            format_args!(
                "<rect class=\"{class}\" x=\"{left}\" y=\"{box_y}\" width=\"14\" height=\"14\" rx=\"3\"/><text class=\"legend\" x=\"{}\" y=\"{text_y}\">{words}</text>",
                left + 19.0
            ),
        );
        left += 34.0 + width(words);
    }
    picture + "</svg>\n"
}

/// What a lane has a mark for: an end, and why it came.
fn is_marked(what: &What) -> bool {
    match what {
        What::LivenessProbeFailed { failures, threshold, .. } => failures == threshold,
        What::Ended(_) | What::Killed(_) | What::StartupProbeFailed(_) => true,
        _ => false,
    }
}

/// How wide a text is, about.
fn width(text: &str) -> f64 {
    text.chars().map(|_| 6.4).sum()
}

/// The look of the sample site: each container has its colour.
const STYLE: &str = "<style>
svg { background: #ffffff } text { fill: #17262b } .name { text-anchor: end; font-weight: 700 } .note, .tick, .legend { font-size: 12px; fill: #4c5e63 }
.tick { text-anchor: middle } .grid { stroke: #c9d4d1 } .end { stroke: #b3261e; stroke-width: 3 } rect { color: #4c5e63 }
.file-puller { color: #0b6b5d } .web-server { color: #2a4fa3 } .log-agent { color: #8a4b08 } text.name { fill: currentColor }
.starting { fill: currentColor; opacity: .4 } .ready { fill: currentColor } .not-ready { fill: none; stroke: currentColor; stroke-width: 2 }
.back-off { fill: none; stroke: #b3261e; stroke-width: 2; stroke-dasharray: 5 4 } .draining { fill: none; stroke: currentColor; stroke-width: 2; stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) { svg { background: #172327 } text { fill: #e3ebe9 } .note, .tick, .legend { fill: #a3b4b5 } .grid { stroke: #34464b }
.end, .back-off { stroke: #ff9c8f } rect { color: #a3b4b5 } .file-puller { color: #5fcbb5 } .web-server { color: #9db8ff } .log-agent { color: #f0b265 } text.name { fill: currentColor } }
</style>
";

/// Seconds since the start, at steps of 1, 2 or 5.
fn axis(picture: &mut String, end: f64, bottom: f64, x: impl Fn(f64) -> f64) {
    let rough = end / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let decimals = usize::from(step < 1.0);
    let mut seconds = 0.0;
    while seconds <= end {
        let at = x(seconds);
        draw(
            picture,
            format_args!(
                "<path class=\"grid\" d=\"M{at:.1} {}V{bottom}\"/><text class=\"tick\" x=\"{at:.1}\" y=\"20\">{seconds:.decimals$} s</text>",
                TOP - 6.0
            ),
        );
        seconds += step;
    }
}

/// A container's phases, each from the event that begins it to the next.
fn stretches(events: &[&Event], at: impl Fn(&Event) -> f64, end: f64) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut phase = None;
    for (position, event) in events.iter().enumerate() {
        phase = Phase::after(&event.what, phase);
        let to = events.get(position + 1).map_or(end, |next| at(next));
        if let Some(phase) = phase {
            stretches.push(Stretch { phase, from: at(event), to });
        }
    }
    stretches
}

fn draw(picture: &mut String, element: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    writeln!(picture, "{element}").ignore();
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::*;
    use crate::event::Why;

    fn event(seconds: u64, container: &'static str, what: What) -> Event {
        Event { at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), container, what }
    }

    #[test]
    fn a_killed_container_is_seen_to_wait_and_to_come_back() {
        let events = [
            event(0, "web-server", What::Started { pid: 1 }),
            event(1, "web-server", What::Ready),
            event(5, "web-server", What::Ended(ExitStatus::from_raw(9))),
            event(5, "web-server", What::Restarts(Duration::from_secs(10))),
            event(15, "web-server", What::Started { pid: 2 }),
            event(16, "web-server", What::Ready),
            event(20, "web-server", What::Stopping),
            event(21, "web-server", What::Stopped(ExitStatus::from_raw(0))),
        ];
        let refs: Vec<&Event> = events.iter().collect();
        let at = |event: &Event| event.at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let seen: Vec<(Phase, f64, f64)> = stretches(&refs, at, 21.0)
            .into_iter()
            .map(|stretch| (stretch.phase, stretch.from, stretch.to))
            .collect();
        let expected = [
            (Phase::Starting, 0.0, 1.0),
            (Phase::Ready, 1.0, 5.0),
            (Phase::BackOff, 5.0, 15.0),
            (Phase::Starting, 15.0, 16.0),
            (Phase::Ready, 16.0, 20.0),
            (Phase::Draining, 20.0, 21.0),
        ];
        assert_eq!(seen, expected);
        let picture = svg(&events);
        assert!(picture.contains("SIGKILL") && picture.contains("15.0 s to 16.0 s"), "{picture}");
        assert!(svg(&[]).ends_with("</svg>\n"));
    }

    #[test]
    fn a_container_that_hangs_has_a_mark_for_its_last_probe_and_for_its_end() {
        let failed = |failures| What::LivenessProbeFailed {
            failures,
            threshold: 3,
            reason: "no answer within 1s".to_owned(),
        };
        let picture = svg(&[
            event(0, "web-server", What::Started { pid: 1 }),
            event(10, "web-server", failed(1)),
            event(20, "web-server", failed(2)),
            event(30, "web-server", failed(3)),
            event(30, "web-server", What::Stopping),
            event(40, "web-server", What::Killed(Why::GracePeriod)),
            event(40, "web-server", What::Restarts(Duration::ZERO)),
            event(41, "web-server", What::Started { pid: 2 }),
            event(100, "web-server", What::Ready),
        ]);
        assert_eq!(picture.matches("class=\"end\"").count(), 2, "{picture}");
        // Both notes have no room: the second would be written over the first.
        let notes = picture.lines().filter(|line| line.contains("class=\"note\"")).collect::<Vec<_>>();
        assert!(matches!(notes[..], [note] if note.contains("3 of 3")), "{notes:?}");
    }
}
