//! Who the agent is to its receivers: headers, tokens, certificates, each for the sink that it is for, and read again when they change.

use std::fs;
use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use testkit::process::run;
use testkit::{Process, wait_until};

use crate::support::{Receiver, Room, Verdict, append, binary, metric, write, write_numbers};
use crate::tls::{front, front_that_asks};
use testkit::Answer;

/// In the way that the kubelet does it: another file in the place of the old one.
fn replace(room: &Room, name: &str, text: &str) {
    fs::write(room.path("new"), text).unwrap();
    fs::rename(room.path("new"), room.path(name)).unwrap();
}

#[test]
fn each_sink_has_credentials_of_its_own() {
    let (room, one, two) = (Room::new(), Receiver::start(), Receiver::start());
    write(&room.path("headers"), "# Loki's tenant\nX-Scope-OrgID: tenant 1\n");
    write(&room.path("token"), "a.token\n");
    write(&room.path("login"), "me:pass:word\n");
    write(&room.log("a.log"), "line 0\n");
    let named = |flag: &str, sink: &str, file: &str| {
        [flag.to_owned(), format!("{sink}={}", room.path(file).display())]
    };
    let more: Vec<_> = [
        named("--header-file", "one", "headers"),
        named("--bearer-token-file", "one", "token"),
        named("--basic-auth-file", "two", "login"),
    ]
    .concat();
    let more: Vec<_> = more.iter().map(String::as_str).collect();
    let sinks = [format!("one={}", one.sink()), format!("two={}?a=b", two.sink())];
    let command = room.command("logs/*.log", &[&sinks[0], &sinks[1]], &more);
    let agent = Process::start_command(command);
    one.expect_numbers(1);
    two.expect_numbers(1);
    let header =
        |receiver: &Receiver, name: &str| receiver.upstream.requests()[0].header(name).map(str::to_owned);
    assert_eq!(header(&one, "x-scope-orgid").as_deref(), Some("tenant 1"));
    assert_eq!(header(&one, "authorization").as_deref(), Some("Bearer a.token"));
    assert_eq!(header(&two, "authorization").as_deref(), Some("Basic bWU6cGFzczp3b3Jk"));
    assert_eq!(header(&two, "x-scope-orgid"), None);
    assert!(two.upstream.requests()[0].start.contains("?a=b"), "the query is the receiver's");
    assert!(!agent.stderr().contains("a.token"), "{}", agent.stderr());
    assert!(metric(&agent, "log_agent_sink_up{sink=\"one\"}") > 0.5, "its name is that of its metrics");
}

#[test]
fn a_token_that_changes_is_read_again() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.path("token"), "first");
    let mut file = append(&room.log("a.log"));
    let token = room.path("token");
    let agent = room.agent(&receiver.sink(), &["--bearer-token-file", token.to_str().unwrap()]);
    write_numbers(&mut file, 0..1);
    receiver.expect_numbers(1);
    replace(&room, "token", "second");
    let sent = |token: &str| {
        write(&room.log("b.log"), "more\n");
        let requests = receiver.upstream.requests();
        requests.last().and_then(|request| request.header("authorization").map(str::to_owned)).as_deref()
            == Some(token)
    };
    wait_until("the second is sent", || sent("Bearer second"));
    // What cannot be used changes nothing.
    replace(&room, "token", "two words");
    agent.event("it says so", |event| {
        write(&room.log("b.log"), "more\n");
        event["error"].as_str().is_some_and(|error| error.contains("--bearer-token-file"))
    });
    assert!(sent("Bearer second"));
    replace(&room, "token", "third");
    wait_until("the third is sent", || sent("Bearer third"));
}

#[test]
fn a_ca_file_that_changes_is_read_again() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let ((addr, pem), (_, other)) = (front(receiver.upstream.addr()), front(receiver.upstream.addr()));
    write(&room.path("ca.pem"), other);
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let ca = room.path("ca.pem");
    let agent = room.agent(&format!("ndjson+https://{addr}/logs"), &["--ca-file", ca.to_str().unwrap()]);
    agent.event("it is not trusted", |event| {
        event["reason"].as_str().is_some_and(|reason| reason.to_lowercase().contains("certificate"))
    });
    replace(&room, "ca.pem", &pem);
    receiver.expect_numbers(10);
}

/// A client certificate, its key, and the authority that has signed it.
fn identity() -> (String, String, String) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let mut params = CertificateParams::new(vec!["log-agent".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    (certificate.pem(), key.serialize_pem(), ca_certificate.pem())
}

fn with_certificate(room: &Room, sink: &str) -> Process {
    let of = |name: &str| room.path(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (of("ca.pem"), of("cert.pem"), of("key.pem"));
    room.agent(sink, &["--ca-file", &ca, "--client-cert-file", &cert, "--client-key-file", &key])
}

#[test]
fn a_client_certificate_over_https_and_forward() {
    let (cert, key, ca) = identity();
    let (room, receiver) = (Room::new(), Receiver::start());
    let forward = crate::forward::Receiver::start();
    let start = |behind: SocketAddr| front_that_asks(behind, &ca);
    let ((addr, pem), (forward_addr, forward_pem)) = (start(receiver.upstream.addr()), start(forward.addr));
    write(&room.path("ca.pem"), pem + &forward_pem);
    write(&room.log("a.log"), "line 0\n");
    // One that the receiver's authority has not signed.
    let (other, other_key, _) = identity();
    write(&room.path("cert.pem"), other);
    write(&room.path("key.pem"), other_key);
    let agent = with_certificate(&room, &format!("ndjson+https://{addr}/logs"));
    agent.event("it is refused", |event| event["reason"].is_string());
    assert_eq!(receiver.count(), 0);
    // A key without its certificate for a moment: nothing to use, and no reason to stop.
    replace(&room, "key.pem", &key);
    replace(&room, "cert.pem", &cert);
    receiver.expect_numbers(1);
    drop(agent);
    let other_state = Room::new();
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(room.path(name), other_state.path(name)).unwrap();
    }
    write(&other_state.log("a.log"), "line 0\n");
    let _agent = with_certificate(&other_state, &format!("forward+tls://{forward_addr}/tag"));
    wait_until("it arrives", || forward.bodies() == ["line 0"]);
}

/// Both have another URL; one of them has a name.
#[test]
fn a_sink_with_a_name_keeps_its_positions() {
    let room = Room::new();
    let (one, two) = (Receiver::start(), Receiver::that(|_| Verdict::Refuse(Answer::new(503, ""))));
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..10);
    let sinks = [format!("one={}", one.sink()), two.sink()];
    let more = ["--shutdown-timeout", "300ms"];
    let start = |sinks: &[String; 2]| {
        Process::start_command(room.command("logs/*.log", &[&sinks[0], &sinks[1]], &more))
    };
    let mut agent = start(&sinks);
    one.expect_numbers(10);
    // A drain has too little time to be sure of a last checkpoint.
    wait_until("a checkpoint says so", || room.checkpointed("one") == 70);
    assert_eq!(agent.terminate().code(), Some(69));
    write_numbers(&mut file, 10..11);
    let (new_one, new_two) = (Receiver::start(), Receiver::start());
    let _agent = start(&[format!("one={}", new_one.sink()), new_two.sink()]);
    new_two.expect_numbers(11);
    wait_until("the new line arrives", || new_one.count() > 0);
    assert_eq!(new_one.bodies(), ["line 10"]);
}

#[test]
fn credentials_that_cannot_be_are_one_line() {
    let room = Room::new();
    let state = room.state();
    let file = |name: &str, text: &str| {
        write(&room.path(name), text);
        room.path(name).to_str().unwrap().to_owned()
    };
    let (token, empty) = (file("token", "t"), file("empty", "\n"));
    let own = format!("a={token}");
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--sink", "ndjson+http://h/", "--bearer-token-file", &own], 64, "--sink a=URL"),
        (&["--sink", "ndjson+http://h/,otlp+http://h/", "--bearer-token-file", &token], 64, "NAME=FILE"),
        (&["--sink", "ndjson+http://h/", "--client-cert-file", &token], 64, "--client-key-file"),
        (&["--sink", "forward://h/", "--forward-user", "me"], 64, "--forward-password-file"),
        (
            &["--sink", "forward://h/", "--forward-user", "me", "--forward-password-file", &token],
            64,
            "--forward-shared-key-file",
        ),
        (
            &["--sink", "ndjson+http://h/", "--bearer-token-file", &token, "--basic-auth-file", &token],
            64,
            "not both",
        ),
        (&["--sink", "ndjson+http://me:pw@h/", "--bearer-token-file", &token], 64, "in its URL"),
        (&["--sink", "ndjson+http://h/", "--basic-auth-file", &token], 78, "user:password"),
        (&["--sink", "forward://h/", "--forward-shared-key-file", &empty], 78, "--forward-shared-key-file"),
    ];
    for (args, expected, named) in cases {
        let common =
            ["--include", "x", "--admin-addr", "127.0.0.1:0", "--state-dir", state.to_str().unwrap()];
        let (code, _, stderr) = run(binary(), common.iter().chain(args));
        assert_eq!(code, expected, "{args:?}: {stderr}");
        assert!(stderr.lines().last().unwrap().contains(named), "{args:?}: {stderr}");
        assert!(!stderr.contains("pw@"), "{stderr}");
    }
}
