//! The recipes of `docs/sources.md`, as they stand there: same flags, same host names, same files of headers. Behind a proxy, each
//! name leads to a stand-in that behaves as the service does.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use tar::{Builder, EntryType};
use testkit::http::Message;
use testkit::{Answer, Process, Upstream};

use crate::content::{ContentManager, Tree, sha256};
use crate::proxies::Tunnels;
use crate::puller::{BINARY, Volume};
use crate::tarball::{gzip, header, raw_entry, zstd};
use crate::tls::{Authority, TlsFront};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sources.md");

/// A block of arguments, and the environment beside it.
#[derive(Debug, Default)]
struct Recipe {
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// The body of the block whose first line ends like this.
fn block(info: &str) -> String {
    let text = fs::read_to_string(DOCUMENT).expect("the document is there");
    let begin = format!("```{info}\n");
    let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("sources.md has {info}"));
    rest.split_once("\n```").expect("it ends").0.to_owned()
}

impl Recipe {
    fn named(name: &str) -> Self {
        let mut recipe = Self::default();
        let text = block(&format!("yaml recipe={name}"));
        let mut section = "";
        for line in text.lines() {
            match (line.strip_prefix("- "), section) {
                (None, _) => section = line.strip_suffix(':').expect("a section"),
                (Some(arg), "args") => recipe.args.push(arg.to_owned()),
                (Some(pair), "env") => {
                    let (name, value) = pair.split_once('=').expect("NAME=value");
                    recipe.env.push((name.to_owned(), value.to_owned()));
                }
                (Some(line), _) => panic!("{section}: {line}"),
            }
        }
        recipe
    }

    /// Puts a file where this machine lets us, and its name into the recipe.
    fn with_file(mut self, volume: &Volume, path: &str, content: &str) -> Self {
        let file = volume.above().join(path.trim_start_matches('/').replace('/', "-"));
        fs::write(&file, content).expect("a file");
        let mut found = false;
        for arg in &mut self.args {
            found |= arg.ends_with(&format!("={path}"));
            *arg = arg.replace(path, file.to_str().expect("UTF-8"));
        }
        assert!(found, "the recipe names {path}");
        self
    }
}

/// The services: one server that goes by the name that it is called, each name with a certificate of its own.
struct Internet {
    upstream: Upstream,
    authority: Authority,
    proxy: Tunnels,
}

impl Internet {
    fn start(hosts: &[&str], answer: impl Fn(&str, &Message) -> Answer + Send + Sync + 'static) -> Self {
        let upstream =
            Upstream::start(move |request| answer(request.header("host").expect("HTTP/1.1"), request));
        let authority = Authority::new();
        let fronts: BTreeMap<_, _> = hosts
            .iter()
            .map(|host| ((*host).to_owned(), TlsFront::start_as(host, upstream.addr(), &authority).addr()))
            .collect();
        Self { upstream, authority, proxy: Tunnels::by_name(fronts) }
    }

    fn run(&self, recipe: &Recipe, volume: &Volume) -> (Option<i32>, String) {
        let mut command = Command::new(BINARY);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.env("HTTPS_PROXY", format!("http://{}", self.proxy.addr()));
        command.envs(recipe.env.iter().map(|(name, value)| (name, value))).args(&recipe.args);
        if !recipe.args.contains(&"--once".to_owned()) {
            command.arg("--once");
        }
        command.args(["--ca-file", &self.authority.file(volume, "ca.pem"), "--volume"]).arg(volume.path());
        command.args(["--log-level", "trace"]);
        let mut process = Process::start_as_is(command);
        (process.wait().code(), process.stderr())
    }

    /// Publishes with the first run, and asks again, in vain, with the second.
    #[track_caller]
    fn follows(&self, recipe: &Recipe, volume: &Volume, files: &Tree) -> String {
        let (code, stderr) = self.run(recipe, volume);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(&volume.tree(), files);
        let (asked, current, snapshot) =
            (self.upstream.requests().len(), volume.current(), volume.snapshot());
        let (code, again) = self.run(recipe, volume);
        assert_eq!(code, Some(0), "{again}");
        assert_eq!((volume.current(), &volume.tree()), (current, files));
        assert!(self.upstream.requests().len() > asked);
        if self.last().header("if-none-match").is_some() {
            assert_eq!(volume.snapshot(), snapshot, "nothing new, so nothing is written");
        }
        stderr + &again
    }

    /// The last request.
    fn last(&self) -> Message {
        self.upstream.requests().pop().expect("a request")
    }
}

fn files() -> Tree {
    [("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")]
        .map(|(path, text)| (path.to_owned(), (0o644, text.into())))
        .into()
}

/// As `git archive` makes it: a global header with the commit, and one directory above all.
fn git_archive(directory: &str) -> Vec<u8> {
    const COMMIT: &[u8] = b"52 comment=1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b\n";
    let mut builder = Builder::new(Vec::new());
    let mut folder = header(EntryType::Directory, 0);
    folder.set_mode(0o775);
    builder.append_data(&mut folder, format!("{directory}/"), &b""[..]).expect("in memory");
    for (path, (_, content)) in files() {
        let mut header = header(EntryType::Regular, content.len() as u64);
        builder
            .append_data(&mut header, format!("{directory}/{path}"), content.as_slice())
            .expect("in memory");
    }
    let tar = builder.into_inner().expect("in memory");
    gzip(&[raw_entry("pax_global_header", EntryType::XGlobalHeader, COMMIT), tar].concat())
}

/// 200 with a tag, or 304 where the tag is known.
fn tagged(request: &Message, tag: &str, content_type: &str, body: Vec<u8>) -> Answer {
    let answer = if request.header("if-none-match") == Some(tag) {
        Answer::new(304, "")
    } else {
        Answer::new(200, body)
    };
    answer.with("ETag", tag).with("Content-Type", content_type)
}

fn found(location: &str) -> Answer {
    Answer::new(302, "").with("Location", location).with("Content-Type", "text/html; charset=utf-8")
}

fn codeload(request: &Message, path: &str, directory: &str) -> Answer {
    assert_eq!(request.header("authorization"), None, "who we are is no business of codeload's");
    assert_eq!(request.header("x-github-api-version"), None);
    if request.target() != path {
        return Answer::new(404, "404: Not Found");
    }
    let archive = git_archive(directory);
    tagged(request, &format!("W/\"{}\"", sha256(&archive)), "application/x-gzip", archive)
}

#[test]
fn recipe_github() {
    let volume = Volume::new();
    let internet = Internet::start(&["github.com", "codeload.github.com"], |host, request| match host {
        "github.com" if request.target() == "/OWNER/REPO/archive/refs/heads/main.tar.gz" => {
            found("https://codeload.github.com/OWNER/REPO/tar.gz/refs/heads/main")
        }
        "codeload.github.com" => codeload(request, "/OWNER/REPO/tar.gz/refs/heads/main", "REPO-main"),
        _ => Answer::new(404, "Not Found"),
    });
    internet.follows(&Recipe::named("github"), &volume, &files());
    let last = internet.last();
    assert!(last.header("if-none-match").is_some(), "no change costs no download: {}", last.start);
}

#[test]
fn recipe_github_api() {
    let volume = Volume::new();
    let internet = Internet::start(&["api.github.com", "codeload.github.com"], |host, request| {
        if host == "codeload.github.com" {
            let path = "/OWNER/REPO/legacy.tar.gz/refs/heads/main?token=s3cr3t-five-minutes";
            return codeload(request, path, "OWNER-REPO-1a2b3c4");
        }
        // It refuses whoever does not say who asks, and with what.
        let agent = request.header("user-agent").is_some_and(|agent| !agent.is_empty());
        let version = request.header("x-github-api-version") == Some("2022-11-28");
        let accepts = request.header("accept") == Some("application/vnd.github+json");
        let known = request.header("authorization") == Some("Bearer s3cr3t-token");
        match request.target() {
            "/repos/OWNER/REPO/tarball/main" if agent && version && accepts && known => found(
                "https://codeload.github.com/OWNER/REPO/legacy.tar.gz/refs/heads/main?token=s3cr3t-five-minutes",
            ),
            _ => Answer::new(404, "{\"message\": \"Not Found\"}"),
        }
    });
    let recipe = Recipe::named("github-api")
        .with_file(&volume, "/run/secrets/github/token", "s3cr3t-token\n")
        .with_file(&volume, "/run/secrets/github/headers", &block("text file=/run/secrets/github/headers"));
    let said = internet.follows(&recipe, &volume, &files());
    assert!(!said.contains("s3cr3t"), "{said}");
}

#[test]
fn recipe_github_release() {
    let volume = Volume::new();
    let asset =
        "https://release-assets.githubusercontent.com/github-production-release-asset/1/2?sp=r&sig=s3cr3t";
    let hosts = ["github.com", "release-assets.githubusercontent.com"];
    let internet = Internet::start(&hosts, move |host, request| match (host, request.target()) {
        ("github.com", "/OWNER/REPO/releases/latest/download/site.tar.gz") => {
            found("https://github.com/OWNER/REPO/releases/download/v1/site.tar.gz")
        }
        ("github.com", "/OWNER/REPO/releases/download/v1/site.tar.gz") => found(asset),
        ("release-assets.githubusercontent.com", _) => {
            tagged(request, "\"0x8DC\"", "application/octet-stream", gzip(&crate::tarball::tar(&files())))
        }
        _ => Answer::new(404, "Not Found"),
    });
    let said = internet.follows(&Recipe::named("github-release"), &volume, &files());
    assert!(!said.contains("s3cr3t"), "{said}");
    assert!(internet.last().header("if-none-match").is_some());
}

#[test]
fn recipe_gitlab() {
    let volume = Volume::new();
    let internet = Internet::start(&["gitlab.com"], |_, request| {
        match request.target() {
            "/GROUP/PROJECT/-/archive/main/PROJECT-main.tar.gz" => {
                let archive = git_archive("PROJECT-main");
                tagged(request, &format!("W/\"{}\"", sha256(&archive)), "application/octet-stream", archive)
            }
            // It sends strangers to a page.
            _ => found("https://gitlab.com/users/sign_in"),
        }
    });
    internet.follows(&Recipe::named("gitlab"), &volume, &files());
    assert!(internet.last().header("if-none-match").is_some());
}

#[test]
fn recipe_gitlab_api() {
    let volume = Volume::new();
    let internet = Internet::start(&["gitlab.com"], |_, request| {
        let known = request.header("private-token") == Some("glpat-0123456789");
        match request.target() {
            "/api/v4/projects/GROUP%2FPROJECT/repository/archive.tar.gz?sha=main" if known => {
                let archive = git_archive("PROJECT-main-1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b");
                tagged(request, &format!("W/\"{}\"", sha256(&archive)), "application/octet-stream", archive)
            }
            _ => Answer::new(404, "{\"message\":\"404 Project Not Found\"}"),
        }
    });
    let headers = block("text file=/run/secrets/gitlab/headers");
    let recipe = Recipe::named("gitlab-api").with_file(&volume, "/run/secrets/gitlab/headers", &headers);
    let said = internet.follows(&recipe, &volume, &files());
    assert!(!said.contains("glpat"), "{said}");
}

#[test]
fn recipe_gitea() {
    for tag in [Some("W/\"1a2b3c4d5e6f\""), None] {
        let volume = Volume::new();
        let internet = Internet::start(&["gitea.example"], move |_, request| {
            let known = request.header("authorization") == Some("Bearer s3cr3t-token");
            if !known || request.target() != "/OWNER/REPO/archive/main.tar.gz" {
                return Answer::new(404, "Not found.");
            }
            let archive = git_archive("repo");
            match tag {
                Some(tag) => tagged(request, tag, "application/gzip", archive),
                None => Answer::new(200, archive).with("Content-Type", "application/gzip"),
            }
        });
        let recipe = Recipe::named("gitea").with_file(&volume, "/run/secrets/gitea/token", "s3cr3t-token");
        let said = internet.follows(&recipe, &volume, &files());
        assert_eq!(said.contains("WARN") && said.contains("ETag"), tag.is_none(), "{said}");
    }
}

#[test]
fn recipe_nginx() {
    let (volume, manager) =
        (Volume::new(), ContentManager::start(&[("index.html", "1"), ("css/a.css", "2")]));
    let site = manager.site().clone();
    let files = site.files.clone();
    let internet = Internet::start(&["content.example"], move |_, request| site.answer(request));
    internet.follows(&Recipe::named("nginx"), &volume, &files);
    assert!(internet.last().header("if-none-match").is_some());
}

#[test]
fn recipe_nginx_signed() {
    let volume = Volume::new();
    let above = volume.above().to_owned();
    crate::signatures::openssl(&above, &["genpkey", "-algorithm", "ed25519", "-out", "key"]);
    crate::signatures::openssl(&above, &["pkey", "-in", "key", "-pubout", "-out", "key.pub"]);
    let site = above.join("site");
    fs::create_dir(&site).expect("a directory");
    fs::write(site.join("index.html"), "hello").expect("a file");
    let (key, manifest) = (above.join("key"), site.join("manifest.json"));
    let command = ["manifest".as_ref(), site.as_os_str(), "--output".as_ref(), manifest.as_os_str()];
    let signing = ["--sign".as_ref(), key.as_os_str(), "--site".as_ref(), "content.example".as_ref()];
    let (code, _, stderr) = testkit::process::run(BINARY, [&command[..], &signing[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    let internet = Internet::start(&["content.example"], move |_, request| {
        let path = request.target().strip_prefix("/site/").unwrap_or_default();
        fs::read(site.join(path)).map_or_else(|_| Answer::new(404, ""), |body| Answer::new(200, body))
    });
    let key = fs::read_to_string(above.join("key.pub")).expect("it is there");
    let recipe = Recipe::named("nginx-signed").with_file(&volume, "/run/secrets/site/key.pub", &key);
    let files = [("index.html".to_owned(), (0o644, b"hello".to_vec()))].into();
    internet.follows(&recipe, &volume, &files);
}

/// As S3 speaks: XML for errors, quoted digests as tags, and an error for two credentials.
fn s3(request: &Message, objects: &BTreeMap<String, Vec<u8>>) -> Answer {
    if request.header("authorization").is_some() {
        return Answer::new(400, "<Error><Code>InvalidArgument</Code></Error>")
            .with("Content-Type", "application/xml");
    }
    match objects.get(request.target()) {
        Some(object) => {
            tagged(request, &format!("\"{}\"", &sha256(object)[..32]), "binary/octet-stream", object.clone())
                .with("Last-Modified", "Mon, 23 Nov 2026 18:00:00 GMT")
                .with("Date", "Mon, 23 Nov 2026 19:00:00 GMT")
        }
        None => Answer::new(403, "<Error><Code>AccessDenied</Code></Error>")
            .with("Content-Type", "application/xml"),
    }
}

#[test]
fn recipe_bucket() {
    let (volume, manager) =
        (Volume::new(), ContentManager::start(&[("index.html", "1"), ("css/a.css", "2")]));
    let files = manager.site().files.clone();
    let mut objects: BTreeMap<String, Vec<u8>> =
        files.iter().map(|(path, (_, content))| (format!("/site/{path}"), content.clone())).collect();
    objects.insert("/site/manifest.json".to_owned(), manager.site().manifest().into_bytes());
    let hosts = ["BUCKET.s3.eu-central-1.amazonaws.com".to_lowercase()];
    let internet = Internet::start(&[&hosts[0]], move |_, request| s3(request, &objects));
    internet.follows(&Recipe::named("bucket"), &volume, &files);
    assert!(internet.last().header("if-none-match").is_some());
}

#[test]
fn recipe_bucket_presigned() {
    let volume = Volume::new();
    let recipe = Recipe::named("bucket-presigned");
    let url = &recipe.env[0].1;
    let (_, target) = url.split_once(".com").expect("a host and a path");
    let objects = [(target.to_owned(), zstd(&crate::tarball::tar(&files())))].into();
    let internet =
        Internet::start(&["bucket.s3.eu-central-1.amazonaws.com"], move |_, request| s3(request, &objects));
    let said = internet.follows(&recipe, &volume, &files());
    assert!(!said.contains("X-Amz-Signature"), "{said}");
}
