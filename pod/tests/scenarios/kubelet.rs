//! What the kubelet does with containers that do not behave.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use pod::console::Voice;
use pod::kubelet::{Kubelet, Orders};
use pod::spec::{ContainerSpec, PodSpec, Startup, StopOrder};
use testkit::wait::DEADLINE;

/// A container that notes each of its lives in `diary` and does nothing else, ready never.
fn hermit(diary: &Path, budget: Duration) -> ContainerSpec {
    ContainerSpec {
        name: "hermit",
        binary: "/bin/sh".into(),
        args: vec!["-c".into(), format!("echo born >> {}; exec sleep 600", diary.display()).into()],
        env: vec![("PATH", "/usr/bin:/bin".to_owned())],
        admin: SocketAddr::from(([127, 0, 0, 1], 1)),
        startup: Startup::Ready(budget),
    }
}

/// As in a cluster: a startup probe that fails ends the container, the back-off follows, and the next container waits.
#[tokio::test]
async fn a_container_that_never_starts_is_started_again_and_holds_up_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (first, next) = (dir.path().join("first"), dir.path().join("next"));
    let containers =
        vec![hermit(&first, Duration::from_millis(200)), hermit(&next, Duration::from_secs(600))];
    let spec = PodSpec { containers, stop_order: StopOrder::Reverse, grace: Duration::from_secs(5) };
    let voices = vec![Voice::new("first", 0, 5), Voice::new("next", 1, 5)];

    let orders = Orders::default();
    let mut kubelet = Kubelet::new(orders.clone());
    let twice = async {
        while std::fs::read_to_string(&first).unwrap_or_default().lines().count() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        orders.stop.cancel();
    };
    let both = async { tokio::join!(kubelet.start(spec, voices), twice) };
    let (started, ()) = tokio::time::timeout(DEADLINE, both).await.expect("it is started a second time");
    started.unwrap();
    assert!(!next.exists(), "the next container was started before the first was ready");
    tokio::time::timeout(DEADLINE, kubelet.stop()).await.expect("it stops");
}
