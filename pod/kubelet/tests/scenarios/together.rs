//! The rows that every engine passes, one test each.

use verify::engine::Engine;
use verify::scenario;

use crate::processes::Processes;

#[track_caller]
fn holds(scenario: scenario::Scenario) {
    let pod = Processes::start(&[]);
    if let Err(error) = scenario(&pod) {
        panic!("{error:#}\n{}", pod.stderr());
    }
    // What held must have left the Pod healthy.
    assert_eq!(pod.get("/").unwrap().status(), 200);
    assert!(pod.stop().success());
}

#[test]
fn edit_reaches_the_browser() {
    holds(scenario::content::edit_reaches_the_browser);
}

#[test]
fn content_manager_outage_keeps_serving() {
    holds(scenario::content::content_manager_outage_keeps_serving);
}

#[test]
fn every_request_is_in_the_log_once() {
    holds(scenario::log::every_request_is_in_the_log_once);
}

#[test]
fn ports_do_not_clash() {
    holds(scenario::network::ports_do_not_clash);
}

#[test]
fn info_from_a_neighbour() {
    holds(scenario::network::info_from_a_neighbour);
}

#[test]
fn kill_any_container() {
    holds(scenario::killing::kill_any_container);
}
