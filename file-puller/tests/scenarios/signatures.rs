//! Content that somebody vouches for: signed manifests, and archives of a known digest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::process::run;
use testkit::{Answer, Upstream};

use crate::puller::{BINARY, Volume, once, tree};

/// A directory with a signed manifest, and its server.
struct Signed {
    volume: Volume,
    upstream: Upstream,
}

impl Signed {
    fn start() -> Self {
        let volume = Volume::new();
        for name in ["key", "other"] {
            openssl(volume.above(), &["genpkey", "-algorithm", "ed25519", "-out", name]);
            openssl(volume.above(), &["pkey", "-in", name, "-pubout", "-out", &format!("{name}.pub")]);
        }
        fs::create_dir(volume.above().join("site")).expect("a directory");
        let site = volume.above().join("site");
        let upstream = Upstream::start(move |request| {
            let path = site.join(request.target().trim_start_matches('/'));
            fs::read(path).map_or_else(|_| Answer::new(404, ""), |body| Answer::new(200, body))
        });
        Self { volume, upstream }
    }

    fn site(&self, name: &str) -> PathBuf {
        self.volume.above().join("site").join(name)
    }

    /// Puts a file there and signs anew.
    fn put(&self, text: &str) {
        fs::write(self.site("index.html"), text).expect("a file");
        self.sign("key");
    }

    fn sign(&self, key: &str) {
        let (site, key) = (self.volume.above().join("site"), self.volume.above().join(key));
        let mut command =
            vec!["manifest".into(), site.clone(), "--output".into(), site.join("manifest.json")];
        command.extend(["--sign".into(), key]);
        let (code, stdout, stderr) = run(BINARY, command);
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    }

    /// What is served now: manifest, signature and file.
    fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = ["manifest.json", "manifest.json.sig", "index.html"].map(|name| self.site(name));
        files.map(|path| (path.clone(), fs::read(path).expect("it is there"))).to_vec()
    }

    fn pull(&self) -> (i32, String) {
        let key = self.volume.above().join("key.pub");
        let flags = ["--public-key", key.to_str().expect("UTF-8"), "--log-level", "error"];
        once(&self.upstream.url("/manifest.json"), &self.volume.path(), &flags)
    }

    #[track_caller]
    fn publishes(&self, text: &str) {
        assert_eq!(self.pull(), (0, String::new()));
        self.serves(text);
    }

    #[track_caller]
    fn refuses(&self, why: &str, still: &str) {
        let (code, stderr) = self.pull();
        assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
        self.serves(still);
    }

    #[track_caller]
    fn serves(&self, text: &str) {
        let tree = tree(&self.volume.join("current"));
        assert_eq!(tree.into_iter().collect::<Vec<_>>(), [("index.html".into(), (0o644, text.into()))]);
    }
}

pub(crate) fn openssl(directory: &Path, arguments: &[&str]) {
    let status = Command::new("openssl").args(arguments).current_dir(directory).status();
    assert!(status.expect("openssl is there: it makes the keys that users have").success());
}

#[test]
fn signature_is_demanded() {
    let signed = Signed::start();
    signed.put("one");
    signed.publishes("one");
    signed.put("two");
    signed.publishes("two");
    // Somebody who can write what is served, and does not have the key.
    let manifest = fs::read_to_string(signed.site("manifest.json")).expect("it is there");
    fs::write(signed.site("manifest.json"), manifest.replace("0644", "0755")).expect("a file");
    signed.refuses("manifest.json.sig is not its signature", "two");
    signed.sign("other");
    signed.refuses("manifest.json.sig is not its signature", "two");
    fs::remove_file(signed.site("manifest.json.sig")).expect("it was there");
    let (code, stderr) = signed.pull();
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains("manifest.json.sig: it answers 404"), "{stderr}");
    signed.put("three");
    signed.publishes("three");
}

#[test]
fn signature_of_old_content_is_no_way_back() {
    let signed = Signed::start();
    signed.put("one");
    let one = signed.snapshot();
    signed.publishes("one");
    signed.put("two");
    let two = signed.snapshot();
    signed.publishes("two");
    let replay = |snapshot: &[(PathBuf, Vec<u8>)]| {
        for (path, content) in snapshot {
            fs::write(path, content).expect("a file");
        }
    };
    replay(&one);
    signed.refuses("which may be an attempt to roll back", "two");
    // The content manager itself may go back: by signing again.
    signed.put("one");
    signed.publishes("one");
    replay(&two);
    signed.refuses("which may be an attempt to roll back", "one");
    // The same content signed anew is nothing new to publish, and still all before it is old.
    let before_last = signed.snapshot();
    signed.put("one");
    signed.publishes("one");
    replay(&before_last);
    signed.refuses("which may be an attempt to roll back", "one");
}

#[test]
fn signing_needs_a_key_and_a_place() {
    let signed = Signed::start();
    signed.put("one");
    let (site, key) = (signed.volume.above().join("site"), signed.volume.above().join("key.pub"));
    let (code, _, stderr) = run(BINARY, [Path::new("manifest"), &site, Path::new("--sign"), &key]);
    assert_eq!(code, 64, "{stderr}");
    let output = [Path::new("--output"), Path::new("/nowhere/manifest.json")];
    let (code, _, stderr) =
        run(BINARY, [Path::new("manifest"), &site, Path::new("--sign"), &key, output[0], output[1]]);
    assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
    assert!(stderr.contains("ed25519 private key"), "{stderr}");
}

/// Content comes back that was there before, under a newer signature, and the puller is killed at each step in turn. The
/// signature in between must not be accepted any more once the newer one is in effect.
#[test]
fn a_crash_does_not_make_room_for_a_rollback() {
    let mut step = 1;
    loop {
        let signed = Signed::start();
        signed.put("A");
        signed.publishes("A");
        signed.put("B");
        signed.publishes("B");
        let between = signed.snapshot();
        signed.put("A");
        let key = signed.volume.above().join("key.pub");
        let mut command = Command::new(BINARY);
        command.args(["--once", "--source", &signed.upstream.url("/manifest.json"), "--public-key"]);
        command.arg(key).arg("--volume").arg(signed.volume.path());
        command.env("FILE_PULLER_KILL_AT", step.to_string());
        let survived = testkit::Process::start_as_is(command).wait().success();
        let is_a = tree(&signed.volume.join("current"))["index.html"].1 == b"A";
        for (path, content) in between {
            fs::write(path, content).expect("a file");
        }
        if is_a {
            signed.refuses("attempt to roll back", "A");
        } else {
            signed.publishes("B");
        }
        if survived {
            assert!(is_a && step > 3, "{step}");
            return;
        }
        step += 1;
    }
}
