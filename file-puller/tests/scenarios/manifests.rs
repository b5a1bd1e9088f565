//! `file-puller manifest DIR`: the content manager's side.

use std::fs;
use std::os::unix::fs::symlink;

use testkit::process::run;

use crate::content::ContentManager;
use crate::puller::{BINARY, Volume, names, once};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

/// `manifest DIR` and the puller belong together: what one writes, the other publishes.
#[test]
fn manifest_of_a_directory() {
    let volume = Volume::new();
    let site = volume.above().join("site");
    fs::create_dir_all(site.join("css")).expect("a directory");
    for (path, text) in SITE {
        fs::write(site.join(path), text).expect("a file");
    }
    let output = site.join("manifest.json");
    let (code, stdout, stderr) = run(BINARY, ["manifest".as_ref(), site.as_os_str()]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let (code, _, stderr) =
        run(BINARY, ["manifest".as_ref(), site.as_os_str(), "--output".as_ref(), output.as_os_str()]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON")["files"].clone();
    let written = fs::read_to_string(&output).expect("the output");
    assert_eq!(parse(&stdout), parse(&written));
    assert_eq!(names(&site), ["css", "index.html", "manifest.json"]);
    let upstream = testkit::Upstream::start(move |request| {
        let path = request.target().trim_start_matches('/');
        fs::read(site.join(path))
            .map_or_else(|_| testkit::Answer::new(404, ""), |body| testkit::Answer::new(200, body))
    });
    let (code, stderr) = once(&upstream.url("/manifest.json"), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree(), ContentManager::start(SITE).site().files);
}

/// What web-server would not serve is not described, and links are what they point to.
#[test]
fn manifest_of_what_is_public() {
    let volume = Volume::new();
    let site = volume.above().join("site");
    for directory in [".git", ".well-known", "css/.well-known"] {
        fs::create_dir_all(site.join(directory)).expect("a directory");
    }
    let public = ["css/site.css", ".well-known/security.txt"];
    let others = ["index.html~", "#index.html#", ".index.html.swp", ".git/config", "css/.well-known/x"];
    for path in public.iter().chain(&others) {
        fs::write(site.join(path), "text").expect("a file");
    }
    symlink("css/site.css", site.join("style.css")).expect("a link");
    symlink("css", site.join("old")).expect("a link");
    let (code, stdout, stderr) = run(BINARY, ["manifest".as_ref(), site.as_os_str()]);
    assert_eq!(code, 0, "{stderr}");
    let manifest = serde_json::from_str::<serde_json::Value>(&stdout).expect("JSON");
    let files = manifest["files"].as_array().expect("files");
    let paths: Vec<_> = files.iter().filter_map(|file| file["path"].as_str()).collect();
    assert_eq!(paths, [".well-known/security.txt", "css/site.css", "old/site.css", "style.css"]);
}

#[test]
fn manifest_of_what_cannot_be_a_release() {
    let volume = Volume::new();
    let refused = |code: i32, what: &str| {
        let (got, stdout, stderr) = run(BINARY, ["manifest".as_ref(), volume.path().as_os_str()]);
        assert_eq!((got, stdout.as_str()), (code, ""), "{stderr}");
        assert!(stderr.contains(what), "{stderr}");
    };
    refused(78, "holds no file");
    fs::write(volume.join("a\nb"), "").expect("a file");
    refused(78, "control character");
    fs::remove_file(volume.join("a\nb")).expect("it was there");
    symlink("/etc/passwd", volume.join("link")).expect("a link");
    refused(78, "link links to \"/etc/passwd\", and that leads out of what is published");
    fs::remove_file(volume.join("link")).expect("it was there");
    symlink("..", volume.join("up")).expect("a link");
    refused(78, "up links to \"..\", and that leads out of what is published");
    fs::remove_dir_all(volume.path()).expect("it was there");
    refused(74, "cannot read");
}
