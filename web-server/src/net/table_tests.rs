//! Which connection makes room, and what it is charged for.

use std::io::Write as _;

use super::*;
use crate::net::closed_windows::{LOOK_VALID, STALLED_CLOSED};

fn table(most: usize, limit: Option<u64>) -> Arc<ConnectionTable> {
    ConnectionTable::new(most, Budget::hidden(limit), Gauge::default(), Counter::default())
}

/// A connection of whose client nothing is known.
fn stranger() -> Endpoints {
    let [ours, client] = ["127.0.0.1:9876", "192.0.2.1:1024"].map(|address| address.parse().unwrap());
    Endpoints::new(ours, client)
}

fn try_admit(table: &Arc<ConnectionTable>) -> Result<Slot, Obstacle> {
    table.try_admit(stranger())
}

fn is_evicted(table: &ConnectionTable, slot: &Slot) -> bool {
    table.entries.lock().by_number[&slot.number].evicted
}

#[test]
fn the_longest_silent_connection_makes_room_and_one_that_is_answered_never() {
    let table = table(3, None);
    let admit = || try_admit(&table).inspect(|slot| slot.state().listened());
    let (answered, rests, newest) = (admit().unwrap(), admit().unwrap(), admit().unwrap());
    answered.state().requested();
    std::thread::sleep(Duration::from_millis(20));
    newest.state().requested();
    newest.state().answered();
    assert_eq!(admit().unwrap_err(), Obstacle::Leaving);
    assert!(is_evicted(&table, &rests) && !is_evicted(&table, &newest));
    assert_eq!(admit().unwrap_err(), Obstacle::Leaving, "its memory is not there yet");
    drop(rests);
    let fourth = admit().unwrap();
    fourth.state().requested();
    newest.state().requested();
    assert_eq!(admit().unwrap_err(), Obstacle::Answering);
    assert_eq!(table.evicted.get(), 1);
    drop(answered);
    assert!(admit().is_ok());
}

#[test]
fn a_client_that_has_taken_nothing_for_a_while_makes_room_where_no_other_is_silent() {
    let table = table(3, None);
    let admit = || try_admit(&table).inspect(|slot| slot.state().listened());
    let (stalled, answered, rests) = (admit().unwrap(), admit().unwrap(), admit().unwrap());
    for slot in [&stalled, &answered] {
        slot.state().requested();
    }
    stalled.state().sending();
    let begun = Moment::now();
    // The connection that rests goes first, however long the client of the other has taken nothing.
    while begun.elapsed() < STALLED + Duration::from_millis(50) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(admit().unwrap_err(), Obstacle::Leaving);
    assert!(is_evicted(&table, &rests) && !is_evicted(&table, &stalled));
    drop(rests);
    let fresh = admit().unwrap();
    fresh.state().requested();
    fresh.state().sending();
    fresh.state().body_progressed();
    // One that takes what it is sent is left alone, and so is one whose next piece is ours to find.
    assert_eq!(admit().unwrap_err(), Obstacle::Leaving);
    assert!(is_evicted(&table, &stalled) && !is_evicted(&table, &fresh) && !is_evicted(&table, &answered));
    drop(stalled);
    let last = admit().unwrap();
    last.state().requested();
    fresh.state().body_progressed();
    assert_eq!(admit().unwrap_err(), Obstacle::Answering);
}

/// A connection whose client is sent more than it has room for, and takes none of it.
fn full() -> (std::net::TcpStream, std::net::TcpStream, Endpoints) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    while server.write(&[0; 16 * 1024]).is_ok() {}
    let endpoints = Endpoints::new(server.local_addr().unwrap(), peer);
    (client, server, endpoints)
}

/// A connection of a table of one, which is sent a body.
fn sending(endpoints: Endpoints) -> (Arc<ConnectionTable>, Slot) {
    let table = table(1, None);
    let slot = table.try_admit(endpoints).unwrap();
    slot.state().listened();
    slot.state().requested();
    slot.state().sending();
    (table, slot)
}

fn has_closed_window(table: &ConnectionTable, slot: &Slot) -> bool {
    let Silence::Sending(taken) = slot.state().silence() else { panic!("{:?}", slot.state().silence()) };
    table.entries.lock().by_number[&slot.number].has_closed_window(taken)
}

/// No look is held to a time: it takes as long as the machine has connections.
#[test]
fn a_client_that_has_closed_its_window_makes_room_sooner() {
    let (_client, _server, endpoints) = full();
    let (table, slot) = sending(endpoints);
    let look = |table: &ConnectionTable| {
        let closed = closed_windows(endpoints).unwrap();
        table.looked(Moment::now(), &closed, LOOK_PAUSE);
    };
    testkit::wait_until("the window is seen closed", || {
        look(&table);
        has_closed_window(&table, &slot)
    });
    // One that reads closes its window for moments as well, and nothing is known of one that is far away.
    for (endpoints, taken) in [(endpoints, 1024 * 1024), (stranger(), 0)] {
        let (table, slot) = sending(endpoints);
        slot.state().taken(taken);
        look(&table);
        std::thread::sleep(STALLED_CLOSED + Duration::from_millis(20));
        look(&table);
        assert!(!has_closed_window(&table, &slot), "{endpoints:?}");
    }
}

#[test]
fn windows_are_looked_at_where_all_are_being_answered() {
    let (_client, _server, endpoints) = full();
    let (table, _slot) = sending(endpoints);
    assert!(table.try_admit(endpoints).is_err());
    testkit::wait_until("a look has ended", || table.entries.lock().looks.last.is_some());
}

#[tokio::test]
async fn a_client_of_which_nothing_is_known_has_its_time() {
    let (table, slot) = sending(stranger());
    let (number, begun) = (slot.number(), Instant::now());
    let connection = tokio::spawn(async move {
        let _slot = slot;
        std::future::pending::<()>().await;
    });
    table.started(number, connection.abort_handle());
    assert!(table.admit(stranger()).await.is_some());
    assert!(begun.elapsed() + Duration::from_millis(20) >= STALLED, "{:?}", begun.elapsed());
}

#[test]
fn a_client_that_takes_some_between_two_looks_has_not_closed_its_window() {
    let endpoints = stranger();
    let (table, slot) = sending(endpoints);
    let look = |queued: Option<u32>| {
        let closed = queued.map(|queued| (endpoints, Queued::of(queued))).into_iter().collect();
        table.looked(Moment::now(), &closed, LOOK_PAUSE);
    };
    let has_closed = || has_closed_window(&table, &slot);
    let pause = || std::thread::sleep(STALLED_CLOSED + Duration::from_millis(20));
    for looks in [[Some(1), Some(2)], [Some(1), None], [None, Some(1)]] {
        look(looks[0]);
        pause();
        look(looks[1]);
        assert!(!has_closed(), "{looks:?}");
    }
    pause();
    look(Some(1));
    assert!(has_closed());
    std::thread::sleep(LOOK_VALID + Duration::from_millis(20));
    assert!(!has_closed(), "that was a while ago");
    pause();
    look(Some(1));
    assert!(has_closed());
    slot.state().taken(1);
    assert!(!has_closed());
}

#[test]
fn a_connection_that_was_not_read_from_yet_is_not_taken_for_silent() {
    let table = table(1, None);
    let fresh = try_admit(&table).unwrap();
    assert_eq!(try_admit(&table).unwrap_err(), Obstacle::Answering);
    fresh.state().listened();
    assert_eq!(try_admit(&table).unwrap_err(), Obstacle::Leaving);
}

#[tokio::test]
async fn among_many_a_silent_connection_rests_at_once() {
    let table = table(usize::MAX, None);
    let mut slots: Vec<_> = std::iter::repeat_with(|| try_admit(&table).unwrap()).take(AWAKE_MAX).collect();
    assert!(!slots[0].is_crowded());
    slots.push(try_admit(&table).unwrap());
    assert!(slots[0].is_crowded());
    slots[0].shrink_to(PARKED);
    assert!(!slots[0].is_crowded());
    slots[0].grow_to(HTTP1).await;
    assert!(slots[0].is_crowded());
    drop(slots.pop());
    assert!(!slots[0].is_crowded());
}

#[test]
fn a_connection_whose_request_is_held_rests() {
    let table = table(usize::MAX, None);
    let slots: Vec<_> = std::iter::repeat_with(|| try_admit(&table).unwrap()).take(AWAKE_MAX + 1).collect();
    let before = table.budget.status()["connections_bytes"].as_u64().unwrap();
    for slot in &slots {
        slot.try_hold(1000).unwrap();
        slot.shrink_to(PARKED);
    }
    assert!(!slots[0].is_crowded());
    let held = table.budget.status()["connections_bytes"].as_u64().unwrap();
    assert_eq!(held, before - (HTTP1 - PARKED - 1000) * slots.len() as u64);
    slots[0].release_held();
    let released = table.budget.status()["connections_bytes"].as_u64().unwrap();
    assert_eq!(released, held - 1000, "once it is answered it costs no more than any other");
    drop(slots);
    assert_eq!(table.budget.status()["connections_bytes"], 0);
}

#[test]
fn what_rests_makes_room_for_a_request_and_what_is_answered_does_not() {
    let table = table(usize::MAX, Some(16 * 1024 * 1024));
    let asks = try_admit(&table).unwrap();
    asks.state().requested();
    let mut others: Vec<Slot> = Vec::new();
    while let Ok(slot) = try_admit(&table).inspect(|slot| slot.state().listened()) {
        others.push(slot);
    }
    others.retain(|slot| !is_evicted(&table, slot));
    while let Ok(slot) = try_admit(&table) {
        others.push(slot);
    }
    // New connections fill more of the memory than requests may.
    assert!(table.budget.take_sparingly(1).is_err());
    let is_taken = |take: fn(&Slot, u64) -> Result<(), NoRoom>| {
        let taken = take(&asks, 64 * 1024);
        assert_eq!(table.budget.excess(), 0);
        taken.is_ok()
    };
    assert!(is_taken(Slot::try_grow) && is_taken(Slot::try_hold));
    others.retain(|slot| !is_evicted(&table, slot));
    assert!(table.budget.take_sparingly(1).is_ok());
    for slot in &others {
        slot.state().requested();
    }
    while is_taken(Slot::try_grow) {}
    assert!(!is_taken(Slot::try_hold));
}

/// What is charged never passes what there is, although the memory of those that are evicted comes back only after a while.
#[tokio::test]
async fn memory_counts_as_well_as_the_number() {
    let table = table(usize::MAX, Some(16 * 1024 * 1024));
    let mut slots: Vec<Slot> = Vec::new();
    for _ in 0..2000 {
        let slot = loop {
            match try_admit(&table) {
                Ok(slot) => {
                    slot.state().listened();
                    break slot;
                }
                Err(obstacle) => {
                    assert_eq!(obstacle, Obstacle::Leaving);
                    assert_eq!(table.budget.excess(), 0);
                    slots.retain(|slot| !is_evicted(&table, slot));
                }
            }
        };
        slots.push(slot);
    }
    assert!(table.evicted.get() > 1000);
    assert_eq!(table.budget.excess(), 0);
    // One that grows waits until others have gone.
    let grows = slots.pop().unwrap();
    let room = async {
        grows.grow_to(HTTP1 + 1024 * 1024).await;
        table.budget.excess()
    };
    let leave = async {
        assert_eq!(table.budget.excess(), 0);
        slots.retain(|slot| !is_evicted(&table, slot));
    };
    assert_eq!(tokio::join!(room, leave).0, 0);
    drop((slots, grows));
    assert_eq!(table.budget.status()["connections_bytes"], 0);
}
