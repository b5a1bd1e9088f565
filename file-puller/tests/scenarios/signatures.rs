//! Content that somebody vouches for: signed manifests, and archives of a known digest.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::process::run;
use testkit::{Answer, Upstream};

use crate::puller::{BINARY, Volume, names, once, tree};

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

    /// Signs the manifest's bytes, without writing it anew.
    fn sign_as_it_is(&self) {
        let site = self.volume.above().join("site");
        let sign =
            ["pkeyutl", "-sign", "-inkey", "../key", "-rawin", "-in", "manifest.json", "-out", "../raw"];
        openssl(&site, &sign);
        openssl(&site, &["base64", "-A", "-in", "../raw", "-out", "manifest.json.sig"]);
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

    /// The current release's manifest and its signature, as the volume has them.
    fn recorded(&self) -> [Option<Vec<u8>>; 2] {
        let release = self.volume.current().expect("published");
        let releases = self.volume.join("releases");
        ["json", "json.sig"].map(|extension| fs::read(releases.join(format!("{release}.{extension}"))).ok())
    }

    /// What a mirror of this volume gives out is what was signed.
    #[track_caller]
    fn keeps_what_was_signed(&self) {
        let signed = ["manifest.json", "manifest.json.sig"].map(|name| fs::read(self.site(name)).ok());
        assert!(signed[1].is_some());
        assert_eq!(self.recorded(), signed);
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

/// A release that was published without `--public-key` has no signature, so its time does not count as the publisher's.
#[test]
fn an_unsigned_release_of_the_far_future_does_not_make_what_is_signed_look_old() {
    let signed = Signed::start();
    signed.put("signed");
    let good = signed.snapshot();
    signed.put("unsigned");
    let manifest = fs::read_to_string(signed.site("manifest.json")).expect("it is there");
    let created = manifest.split("\"created\": \"").nth(1).and_then(|rest| rest.split('"').next());
    let future = manifest.replace(created.expect("it says when"), "9999-01-01T00:00:00Z");
    fs::write(signed.site("manifest.json"), future).expect("a file");
    let (code, stderr) = once(&signed.upstream.url("/manifest.json"), &signed.volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    signed.serves("unsigned");
    for (path, content) in &good {
        fs::write(path, content).expect("a file");
    }
    signed.publishes("signed");
    // From here on there is no way back.
    signed.put("newer");
    signed.publishes("newer");
    for (path, content) in &good {
        fs::write(path, content).expect("a file");
    }
    signed.refuses("roll back", "newer");
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

/// The volume has the manifest byte for byte, with its signature, so that a mirror can give them out.
#[test]
fn signed_manifest_is_kept_byte_for_byte() {
    let signed = Signed::start();
    signed.put("one");
    // Not as this program would write it.
    let manifest = fs::read_to_string(signed.site("manifest.json")).expect("it is there");
    fs::write(signed.site("manifest.json"), manifest.replace("\"files\"", "\n\n   \"by\": \"x\", \"files\""))
        .expect("a file");
    signed.sign_as_it_is();
    signed.publishes("one");
    signed.keeps_what_was_signed();
    // Nothing changed, so nothing is written.
    let before = signed.volume.snapshot();
    signed.publishes("one");
    let written = |path: &Path| before.get(path) != signed.volume.snapshot().get(path);
    let releases = signed.volume.join("releases");
    assert!(names(&releases).iter().all(|name| !written(&releases.join(name))));
    // The same content, signed anew.
    let release = signed.volume.current();
    signed.put("one");
    signed.publishes("one");
    assert_eq!(signed.volume.current(), release);
    signed.keeps_what_was_signed();
    // Other content, and back to what was there before.
    for text in ["two", "one"] {
        signed.put(text);
        signed.publishes(text);
        signed.keeps_what_was_signed();
    }
    // A volume of an earlier version, which kept no signatures; and one that lost its manifest.
    for lost in ["json.sig", "json"] {
        let release = signed.volume.current().expect("published");
        fs::remove_file(releases.join(format!("{release}.{lost}"))).expect("it was there");
        signed.publishes("one");
        signed.keeps_what_was_signed();
    }
    // A release that has to be put together again, of the same signed manifest.
    let release = signed.volume.current().expect("published");
    fs::remove_file(releases.join(release).join("index.html")).expect("it was there");
    signed.publishes("one");
    signed.keeps_what_was_signed();
    assert_eq!(signed.volume.staging(), [] as [&str; 0]);
}

/// Nothing has to be written for what has not changed.
#[test]
fn a_signed_site_that_has_not_changed_needs_no_volume_that_can_be_written() {
    let signed = Signed::start();
    signed.put("one");
    signed.publishes("one");
    let ours = [signed.volume.path(), signed.volume.join("releases"), signed.volume.join(".staging")];
    let set_modes = |mode| {
        let set = |path| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        ours.iter().try_for_each(set).expect("they are ours");
    };
    set_modes(0o555);
    // Root may write everywhere until it gives its capabilities away.
    let mut command = Command::new("env");
    if rustix::process::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--inh-caps=-all", "--bounding-set=-all"]);
    }
    command.args([BINARY, "--once", "--source", &signed.upstream.url("/manifest.json"), "--public-key"]);
    command.arg(signed.volume.above().join("key.pub")).arg("--volume").arg(signed.volume.path());
    let succeeded = testkit::Process::start_as_is(command).wait().success();
    set_modes(0o755);
    assert!(succeeded);
}

/// Without a key the manifest is written here, and a signature of other bytes must not stay beside it.
#[test]
fn signature_goes_with_its_manifest() {
    let signed = Signed::start();
    signed.put("one");
    signed.publishes("one");
    let first = signed.volume.current().expect("published");
    // Replaced: removed with its release.
    signed.put("two");
    let key = signed.volume.above().join("key.pub");
    let flags = ["--public-key", key.to_str().expect("UTF-8"), "--keep", "0", "--keep-for", "0s"];
    let url = signed.upstream.url("/manifest.json");
    for _ in 0..2 {
        let (code, stderr) = once(&url, &signed.volume.path(), &flags);
        assert_eq!(code, 0, "{stderr}");
    }
    let releases = signed.volume.join("releases");
    let left = names(&releases);
    assert!(left.len() == 3 && left.iter().all(|name| !name.starts_with(&first)), "{left:?}");
    // A crash can leave a signature alone.
    fs::write(releases.join(format!("{first}.json.sig")), "left behind").expect("a file");
    // The release is put together again, this time of a manifest that needs no signature.
    let second = signed.volume.current().expect("published");
    fs::remove_dir_all(releases.join(&second)).expect("it was there");
    fs::create_dir(releases.join(&second)).expect("an empty release");
    let (code, stderr) = once(&url, &signed.volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    let [manifest, signature] = signed.recorded();
    assert!(manifest.is_some() && signature.is_none());
    assert_eq!(names(&releases).len(), 2);
}

/// The puller is killed at each step of publishing, and of taking in a newer signature. After the next sync manifest and signature
/// belong together.
#[test]
fn a_crash_does_not_part_a_manifest_from_its_signature() {
    for texts in [["one", "two"], ["one", "one"]] {
        let signed = Signed::start();
        signed.put(texts[0]);
        signed.publishes(texts[0]);
        let mut step = 1;
        loop {
            signed.put(texts[1]);
            let key = signed.volume.above().join("key.pub");
            let mut command = Command::new(BINARY);
            command.args(["--once", "--source", &signed.upstream.url("/manifest.json"), "--public-key"]);
            command.arg(key).arg("--volume").arg(signed.volume.path());
            command.env("FILE_PULLER_KILL_AT", step.to_string());
            let survived = testkit::Process::start_as_is(command).wait().success();
            signed.publishes(texts[1]);
            signed.keeps_what_was_signed();
            if survived {
                assert!(step > 3, "{step}");
                break;
            }
            step += 1;
            signed.put(texts[0]);
            signed.publishes(texts[0]);
        }
    }
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
