//! What is measured, one function each. Goals are those of a machine with two cores, on which the pullers take most of the time.

use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use testkit::http::Connection;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::manager::Manager;
use crate::nginx::{Nginx, Setup};
use crate::pods::{Pod, RealPuller, RealPullers};
use crate::proxy::Proxy;
use crate::report::{Goal, Report, mebibytes, milliseconds};
use crate::site::Site;
use crate::swarm::{Swarm, Volume};

type Done<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;
/// A case, for the binaries in a folder.
type Case = for<'a> fn(&'a Path, &'a mut Report) -> Done<'a>;

/// All cases, in the order in which they run.
pub(crate) const CASES: &[(&str, Case)] = &[
    ("pod", |binaries, report| Box::pin(async { block_in_place(|| pod(binaries, report)) })),
    ("question", |binaries, report| Box::pin(async { block_in_place(|| question(binaries, report)) })),
    ("edit-1", |binaries, report| Box::pin(edit(binaries, report, 1))),
    ("edit-10", |binaries, report| Box::pin(edit(binaries, report, 10))),
    ("edit-100", |binaries, report| Box::pin(edit(binaries, report, 100))),
    ("edit-1000", |binaries, report| Box::pin(edit(binaries, report, 1000))),
    ("release", |binaries, report| Box::pin(release(binaries, report))),
    ("cold", |binaries, report| Box::pin(cold(binaries, report))),
    ("nginx", |binaries, report| Box::pin(nginx(binaries, report))),
    ("waiting-1000", |binaries, report| Box::pin(waiting(binaries, report, 1000))),
    ("waiting-10000", |binaries, report| Box::pin(waiting(binaries, report, 10_000))),
    ("restart", |binaries, report| Box::pin(restart(binaries, report))),
    ("torn", |binaries, report| Box::pin(torn(binaries, report))),
];

const FILES: usize = 1000;
/// Nothing but waiting tells a puller of a change.
const PERIOD: [&str; 2] = ["--period", "1h"];
/// Real pullers beside those in this process.
const REAL: usize = 10;
/// What a question is held for, if nothing else is said: `--wait`.
const WAIT: Duration = Duration::from_secs(50);

/// From an edit to the page that a Pod serves.
fn pod(binaries: &Path, report: &mut Report) -> anyhow::Result<()> {
    const EDITS: usize = 100;
    let site = Site::new(FILES)?;
    let manager = Manager::start(binaries, site.path(), &[])?;
    let pod = Pod::start(binaries, &manager.url(), &PERIOD)?;
    let path = format!("/{}", Site::name(0));
    pod.serves(&path, "first", Instant::now())?;
    let took = (0..EDITS).map(|edit| {
        testkit::wait_until("the puller waits", || pod.puller.waits());
        let text = format!("edit {edit} ");
        let since = Instant::now();
        site.edit(&text)?;
        pod.serves(&path, &text, since)
    });
    let mut took = took.collect::<anyhow::Result<Vec<_>>>()?;
    report.times("edit → served", &mut took, Goal::AtMost(150.0));
    Ok(())
}

/// What a question costs that has no news for an answer.
fn question(binaries: &Path, report: &mut Report) -> anyhow::Result<()> {
    const QUESTIONS: u32 = 20_000;
    for files in [10, 1000, 10_000] {
        let site = Site::new(files)?;
        let manager = Manager::start(binaries, site.path(), &["--rescan", "1h"])?;
        let mut connection = Connection::try_open(manager.addr())?;
        connection.send("GET /manifest.json HTTP/1.1\r\nHost: fleet\r\n\r\n")?;
        let tag = connection.receive("GET")?.header("etag").unwrap_or_default().to_owned();
        let request = format!("GET /manifest.json HTTP/1.1\r\nHost: fleet\r\nIf-None-Match: {tag}\r\n\r\n");
        let before = manager.usage();
        for _ in 0..QUESTIONS {
            connection.send(&request)?;
            anyhow::ensure!(connection.receive("GET")?.status() == 304, "the manifest has changed");
        }
        let used = manager.usage().since(before);
        let each = milliseconds(used.cpu) / f64::from(QUESTIONS);
        report.row(&format!("CPU of a 304, {files} files"), "ms", each, Goal::AtMost(0.05));
    }
    Ok(())
}

/// One file of a thousand changes.
async fn edit(binaries: &Path, report: &mut Report, pullers: usize) -> anyhow::Result<()> {
    const EDITS: usize = 5;
    let site = Site::new(FILES)?;
    let manager = Manager::start(binaries, site.path(), &[])?;
    let swarm = Swarm::start(&manager.url(), pullers, Volume::Full, &PERIOD)?;
    let real = RealPullers::start(binaries, &manager.url(), REAL.min(pullers), &PERIOD)?;
    let began = Instant::now();
    swarm.waits().await?;
    block_in_place(|| real.wait());
    let (mut took, mut took_real) = (Vec::new(), Vec::new());
    let (mut cpu, mut requests, mut bytes) = (Duration::ZERO, 0, 0);
    for edit in 0..EDITS {
        let (release, releases) = (swarm.release(), real.releases());
        let (before, since) = (manager.usage(), Instant::now());
        site.edit(&format!("edit {edit}"))?;
        took_real.extend(block_in_place(|| real.published(&releases, since))?);
        took.extend(swarm.published(release.as_deref(), since).await?);
        anyhow::ensure!(swarm.fetched() == pullers, "each fetches the one file that has changed");
        swarm.waits().await?;
        block_in_place(|| real.wait());
        let used = manager.usage().since(before);
        (cpu, requests, bytes) = (cpu + used.cpu, requests + used.requests, bytes + used.bytes);
    }
    let goal = if pullers == 1000 { Goal::AtMost(2000.0) } else { Goal::None };
    report.times("edit → published", &mut took, goal);
    report.times("edit → published, real volumes", &mut took_real, goal);
    let each = |value: f64| value / (EDITS * (pullers + REAL.min(pullers))) as f64;
    report.row("manager's CPU per edit and puller", "ms", each(milliseconds(cpu)), Goal::None);
    report.row("requests per edit and puller", "", each(requests as f64), Goal::None);
    report.row("bytes per edit and puller", "KiB", each(bytes as f64 / 1024.0), Goal::None);
    report.row("manager's memory", "MiB", mebibytes(manager.resident()), Goal::None);
    report.row("a real puller's memory", "MiB", mebibytes(real.resident()), Goal::None);
    let (failures, _) = swarm.failures(began);
    report.row("failures", "", failures as f64, Goal::AtMost(0.0));
    Ok(())
}

/// Every file of the site changes.
async fn release(binaries: &Path, report: &mut Report) -> anyhow::Result<()> {
    const PULLERS: usize = 100;
    let site = Site::new(FILES)?;
    let manager = Manager::start(binaries, site.path(), &["--quiet-period", "500ms"])?;
    let swarm = Swarm::start(&manager.url(), PULLERS, Volume::Empty, &PERIOD)?;
    let began = Instant::now();
    swarm.waits().await?;
    let (release, before, since) = (swarm.release(), manager.usage(), Instant::now());
    block_in_place(|| site.rewrite("second"))?;
    let mut took = swarm.published(release.as_deref(), since).await?;
    let used = manager.usage().since(before);
    report.times(&format!("new release → published, {PULLERS} pullers"), &mut took, Goal::None);
    let published = (PULLERS * FILES) as f64;
    report.row("manager's CPU per file and puller", "ms", milliseconds(used.cpu) / published, Goal::None);
    let (failures, _) = swarm.failures(began);
    report.row("failures", "", failures as f64, Goal::AtMost(0.0));
    Ok(())
}

/// Pullers with empty volumes.
async fn cold(binaries: &Path, report: &mut Report) -> anyhow::Result<()> {
    const PULLERS: usize = 200;
    let site = Site::new(FILES)?;
    let manager = Manager::start(binaries, site.path(), &[])?;
    let (before, since) = (manager.usage(), Instant::now());
    let swarm = Swarm::start(&manager.url(), PULLERS, Volume::Empty, &PERIOD)?;
    let took = swarm.published(None, since).await?;
    let used = manager.usage().since(before);
    let all = took.iter().max().copied().unwrap_or_default();
    report.row(
        &format!("{PULLERS} cold starts, until all have published"),
        "s",
        all.as_secs_f64(),
        Goal::AtMost(8.0),
    );
    report.row("manager's CPU", "s", used.cpu.as_secs_f64(), Goal::None);
    report.row("bytes", "MiB", mebibytes(used.bytes), Goal::None);
    report.row("manager's memory", "MiB", mebibytes(manager.resident()), Goal::None);
    Ok(())
}

/// The same requests to nginx: a manifest and a thousand files for each puller.
async fn nginx(binaries: &Path, report: &mut Report) -> anyhow::Result<()> {
    const PULLERS: usize = 50;
    let site = Site::new(FILES)?;
    let start = |setup| Nginx::start(binaries, site.path(), setup);
    let (Some(looking), Some(remembering)) = (start(Setup::Looking)?, start(Setup::Remembering)?) else {
        println!("  skipped: there is no nginx here");
        return Ok(());
    };
    let manager = Manager::start(binaries, site.path(), &[])?;
    let puller = RealPuller::start(binaries, &manager.url(), &PERIOD)?;
    block_in_place(|| testkit::wait_until("a mirror has the site", || puller.release().is_some()));
    let mirror = Manager::start(binaries, &puller.root(), &[])?;
    let servers: [(String, &dyn Fn() -> Duration); 4] = [
        (looking.url(), &|| looking.cpu()),
        (remembering.url(), &|| remembering.cpu()),
        (manager.url(), &|| manager.usage().cpu),
        (mirror.url(), &|| mirror.usage().cpu),
    ];
    let mut rounds: [Vec<f64>; 4] = Default::default();
    for _ in 0..3 {
        for ((url, cpu), all) in servers.iter().zip(&mut rounds) {
            let before = cpu();
            let swarm = Swarm::start(url, PULLERS, Volume::Empty, &PERIOD)?;
            swarm.published(None, Instant::now()).await?;
            all.push(cpu().saturating_sub(before).as_secs_f64() * 1e6 / (PULLERS * FILES) as f64);
        }
    }
    let [looking, remembering, manager, mirror] = rounds.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[1]
    });
    report.row("nginx's CPU per file and puller", "µs", looking, Goal::None);
    report.row("nginx's, without a log, files remembered for 30 s", "µs", remembering, Goal::None);
    report.row("manager's CPU per file and puller", "µs", manager, Goal::AtMost(looking));
    report.row("a mirror's CPU per file and puller", "µs", mirror, Goal::AtMost(looking));
    Ok(())
}

/// Nothing changes.
async fn waiting(binaries: &Path, report: &mut Report, pullers: usize) -> anyhow::Result<()> {
    let site = Site::new(FILES)?;
    let flags = ["--max-connections", "16384"];
    let manager = Manager::start(binaries, site.path(), &flags)?;
    let swarm = Swarm::start(&manager.url(), pullers, Volume::Full, &PERIOD)?;
    swarm.waits().await?;
    // Each question is held for WAIT: in twice that time, each puller asks twice.
    let (before, since) = (manager.usage(), Instant::now());
    sleep(2 * WAIT).await;
    let used = manager.usage().since(before);
    // At this moment many ask again.
    let are_waiting = || manager.waiters() as usize >= pullers * 9 / 10;
    block_in_place(|| testkit::wait_until("nine of ten are waiting", are_waiting));
    let (goals, limit) = match pullers {
        1000 => (true, 32.0),
        _ => (false, 96.0),
    };
    let goal = |most| if goals { Goal::AtMost(most) } else { Goal::None };
    let share = used.cpu.as_secs_f64() / used.took.as_secs_f64() * 100.0;
    report.row("manager's CPU", "% of a core", share, goal(0.5));
    report.row("manager's memory", "MiB", mebibytes(manager.resident()), Goal::AtMost(limit));
    let hourly = used.requests as f64 / pullers as f64 * 3600.0 / used.took.as_secs_f64();
    report.row("requests per Pod and hour", "", hourly, Goal::AtMost(75.0));
    let (failures, _) = swarm.failures(since);
    report.row("failures", "", failures as f64, Goal::AtMost(0.0));
    Ok(())
}

/// The content manager is killed under its waiters, and comes back.
async fn restart(binaries: &Path, report: &mut Report) -> anyhow::Result<()> {
    const PULLERS: usize = 1000;
    const AWAY: Duration = Duration::from_secs(5);
    const BUCKET: Duration = Duration::from_secs(1);
    let site = Site::new(FILES)?;
    let manager = Manager::start(binaries, site.path(), &[])?;
    // The flags as they are: a period of ten seconds.
    let swarm = Swarm::start(&manager.url(), PULLERS, Volume::Full, &[])?;
    swarm.waits().await?;
    let (release, listen, killed) = (swarm.release(), manager.addr().to_string(), Instant::now());
    manager.kill();
    sleep(AWAY).await;
    site.edit("while it was away")?;
    let manager = block_in_place(|| Manager::start_at(binaries, site.path(), &listen, &[]))?;
    let back = Instant::now();
    let counting = async {
        let (mut counts, mut before) = (Vec::new(), manager.usage());
        while (manager.waiters() as usize) < PULLERS && back.elapsed() < Duration::from_secs(120) {
            sleep(BUCKET).await;
            let now = manager.usage();
            counts.push(now.since(before).requests);
            before = now;
        }
        counts
    };
    let counts = counting.await;
    let mut took = swarm.published(release.as_deref(), back).await?;
    let (failures, last) = swarm.failures(killed);
    let mean = counts.iter().sum::<u64>() as f64 / counts.len().max(1) as f64;
    let peak = counts.iter().max().copied().unwrap_or_default() as f64;
    report.times("back → published", &mut took, Goal::None);
    report.row("last failure after the kill", "s", last.as_secs_f64(), Goal::None);
    report.row("failures", "", failures as f64, Goal::None);
    report.row("requests in the busiest second", "", peak, Goal::None);
    report.row("busiest second, as a multiple of the mean", "", peak / mean.max(1.0), Goal::AtMost(3.0));
    let late = last.saturating_sub(back - killed).as_secs_f64();
    report.row("last failure after it was back", "s", late, Goal::AtMost(1.0));
    Ok(())
}

/// One answer of a hundred ends in its middle.
async fn torn(binaries: &Path, report: &mut Report) -> anyhow::Result<()> {
    const PULLERS: usize = 100;
    let site = Site::new(FILES)?;
    let manager = Manager::start(binaries, site.path(), &[])?;
    let proxy = Proxy::start(manager.addr(), 0.01).await?;
    let since = Instant::now();
    let swarm = Swarm::start(&proxy.url(), PULLERS, Volume::Empty, &["--period", "10s"])?;
    let mut took = swarm.published(None, since).await?;
    report.times("cold start → published", &mut took, Goal::None);
    swarm.waits().await?;
    let mut took = Vec::new();
    for edit in 0..5 {
        let (release, since) = (swarm.release(), Instant::now());
        site.edit(&format!("edit {edit}"))?;
        took.extend(swarm.published(release.as_deref(), since).await?);
        swarm.waits().await?;
    }
    report.times("edit → published", &mut took, Goal::None);
    report.row("answers torn", "", proxy.torn() as f64, Goal::None);
    let (failures, _) = swarm.failures(since);
    report.row("syncs that failed", "", failures as f64, Goal::None);
    Ok(())
}
