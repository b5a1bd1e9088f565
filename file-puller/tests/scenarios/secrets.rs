//! Credentials: read from files, again at each sync, and never shown.

use std::fs;
use std::process::Command;

use testkit::http::{Message, get};
use testkit::{Answer, Process, Upstream, wait_until};

use crate::content::ContentManager;
use crate::puller::{BINARY, Volume, fails, once, publishes, start, start_with_period, try_sync, when_asked};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>")];

/// Lets in who shows this.
fn let_in(manager: &ContentManager, authorization: &'static str) {
    manager.fault(move |request: &Message, _| {
        (request.header("authorization") != Some(authorization)).then(|| Answer::new(401, "who are you?"))
    });
}

fn token(volume: &Volume, text: &str) -> String {
    let path = volume.above().join("token");
    fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn token_rotated() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let_in(&manager, "Bearer first");
    let process = start(&manager, &volume, &["--bearer-token-file", &token(&volume, "first\n")]);
    assert_eq!(try_sync(&process).status(), 200);
    let_in(&manager, "Bearer second");
    manager.put("index.html", "new");
    fails(&process, 502, "status");
    token(&volume, "second");
    publishes(&process, &volume, &manager);
}

#[test]
fn token_wrong_then_right() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let_in(&manager, "Basic bWU6cGFzczogd29yZA==");
    let file = token(&volume, "me:wrong");
    let flags = ["--basic-auth-file", &file, "--period", "50ms", "--max-backoff", "100ms"];
    let process = start_with_period(&manager, &volume, &flags);
    process.event("it is said", |event| {
        event["error"].as_str().is_some_and(|error| error.ends_with("it answers 401 Unauthorized"))
    });
    fs::remove_file(&file).expect("it was there");
    process.event("it is said", |event| {
        event["reason"] == "credential" && event["error"].as_str().is_some_and(|error| error.contains(&file))
    });
    token(&volume, "me:pass: word\n");
    wait_until("content", || volume.current().is_some());
    assert_eq!(volume.tree(), manager.site().files);
}

#[test]
fn secret_never_printed() {
    let (manager, volume) = (ContentManager::start(SITE), Volume::new());
    let_in(&manager, "Bearer s3cr3t-token");
    let file = token(&volume, "s3cr3t-token");
    let url = manager.url() + "?signature=s3cr3t-query";
    let hook = Upstream::start(|_| Answer::new(200, ""));
    // A hook's path is its secret, as with most chat services.
    let hook_url = hook.url("/s3cr3t-hook");
    let secrets = ["--bearer-token-file", &file, "--log-level", "trace", "--webhook", &hook_url];
    let mut command = Command::new(BINARY);
    command.args(["--source", &url, "--volume"]).arg(volume.path()).args(secrets);
    let process = Process::start_command(when_asked(command));
    let mut said = String::new();
    said += try_sync(&process).text();
    assert_eq!(volume.tree(), manager.site().files);
    assert!(manager.asked()[0].ends_with("?signature=s3cr3t-query"), "it is sent");
    let_in(&manager, "Bearer another");
    said += try_sync(&process).text();
    let elsewhere = "http://127.0.0.1:1/?token=s3cr3t-redirect";
    manager.fault(move |_, _| Some(Answer::new(302, "").with("Location", elsewhere)));
    said += try_sync(&process).text();
    token(&volume, "s3cr3t\nlines");
    said += try_sync(&process).text();
    wait_until("the webhook is told", || !hook.requests().is_empty());
    for told in hook.requests() {
        assert_eq!(told.header("authorization"), None, "the token is the content manager's");
        said += std::str::from_utf8(&told.body).expect("UTF-8");
    }
    said +=
        &once(&url, &volume.above().join("other"), &["--bearer-token-file", &file, "--log-level", "trace"]).1;
    for path in ["/status", "/metrics", "/readyz"] {
        said += get(process.addr("admin"), path).text();
    }
    said += &process.stderr();
    assert!(said.contains("more than one line") && said.contains("another origin"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
}
