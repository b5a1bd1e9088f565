//! Images of registries that say less than the specification asks for. `tests/oci` follows a real one.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tar::EntryType;
use testkit::{Answer, Upstream};

use crate::content::{ContentManager, Tree, sha256};
use crate::puller::{Volume, fails, once, start_when_asked, sync};
use crate::tarball::{header, raw_entry, tar, tar_with};
use crate::tls::{Authority, TlsFront};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

/// The manifest and the only layer of an image, and the layer's digest.
fn image(site: &ContentManager) -> (String, Vec<u8>, String) {
    let layer = tar(&site.site().files);
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let digest = format!("sha256:{}", sha256(&layer));
    let manifest = json!({"layers": [{"mediaType": kind, "digest": digest, "size": layer.len()}]});
    (manifest.to_string(), layer, digest)
}

/// A registry that has an image of these layers, lowest first.
fn registry_of(layers: &[Vec<u8>]) -> Upstream {
    let digest = |layer: &Vec<u8>| format!("sha256:{}", sha256(layer));
    let described = layers.iter().map(|layer| {
        let kind = "application/vnd.oci.image.layer.v1.tar";
        json!({"mediaType": kind, "digest": digest(layer), "size": layer.len()})
    });
    let manifest = json!({"layers": described.collect::<Value>()}).to_string();
    let layers = layers.to_vec();
    Upstream::start(move |request| match request.target() {
        "/v2/site/manifests/v1" => Answer::new(200, manifest.clone()),
        target => match layers.iter().find(|layer| target.ends_with(&digest(layer))) {
            Some(layer) => Answer::new(200, layer.clone()),
            None => Answer::new(404, ""),
        },
    })
}

/// A layer with these directories, and with other entries behind them.
fn layer(directories: &[&str], others: &[Vec<u8>]) -> Vec<u8> {
    let directories = directories.iter().map(|path| raw_entry(path, EntryType::Directory, b""));
    [directories.collect::<Vec<_>>().concat(), others.concat(), vec![0; 1024]].concat()
}

/// As the image specification says of a layer: what it has replaces what has that name, whatever that is.
#[test]
fn a_layer_replaces_what_has_another_type_below_it() {
    let file = |path: &str, content: &str| raw_entry(path, EntryType::Regular, content.as_bytes());
    let lower = tar_with(
        &ContentManager::start(&[("a", "old"), ("v1/x", "old"), ("d/x", "old")]).site().files,
        |builder| {
            builder.append_link(&mut header(EntryType::Symlink, 0), "current", "v1").expect("in memory");
        },
    );
    let old = [("d/x", "old"), ("v1/x", "old")];
    for (upper, more) in [
        // A directory over a file, and over a link, which is not followed; with or without its whiteout.
        (
            layer(&["a/", "current/"], &[file("current/x", "new")]),
            &[("current/x", "new"), old[0], old[1]][..],
        ),
        (
            layer(&["a/", "current/"], &[file("current/.wh..wh..opq", ""), file("current/x", "new")]),
            &[("current/x", "new"), old[0], old[1]],
        ),
        // A file over a directory, and over a link.
        (
            layer(&["a/"], &[file("current", "new"), file("d", "new")]),
            &[("current", "new"), ("d", "new"), old[1]],
        ),
        // A directory over a directory has the files of both.
        (layer(&["a/", "d/", "current/"], &[file("d/y", "new")]), &[("d/y", "new"), old[0], old[1]]),
    ] {
        let (registry, volume) = (registry_of(&[lower.clone(), upper]), Volume::new());
        let (code, stderr) = once(&format!("oci://{}/site:v1", registry.addr()), &volume.path(), &[]);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(volume.tree(), ContentManager::start(more).site().files);
    }
}

/// Whiteouts, and entries that replace others, are about the image. What is left out of it is decided after that.
#[test]
fn what_an_upper_layer_deletes_is_deleted_whatever_is_selected() {
    let file = |path: &str| raw_entry(path, EntryType::Regular, b"");
    let link = |path: &str| {
        tar_with(&Tree::new(), |builder| {
            builder.append_link(&mut header(EntryType::Symlink, 0), path, "/srv").expect("in memory");
        })[..512]
            .to_vec()
    };
    let lower = &[("a/site/index.html", "1"), ("a/site/.x", "2"), ("b/site/other.html", "3")];
    let (all, rest) = (&[("index.html", "1")][..], &[("other.html", "3")][..]);
    for (upper, flags, left) in [
        (file("a/site/.wh.index.html"), &["--exclude", ".*", "--strip-components", "2"][..], rest),
        (file("a/.wh.site"), &["--strip-components", "2", "--exclude", ".*"], rest),
        (file(".wh.a"), &["--strip-components", "2"], rest),
        (file("a/.wh..wh..opq"), &["--strip-components", "2"], rest),
        (link("a"), &["--strip-components", "2"], rest),
        (file("b"), &["--strip-components", "2", "--exclude", ".*"], all),
        (file(".wh.b"), &["--strip-components", "1", "--subdir", "site", "--exclude", ".*"], all),
        (file(".wh.b"), &["--subdir", "a/site", "--exclude", ".*"], all),
        (file("a/site/.wh..x"), &["--subdir", "a/site"], all),
        // A parent directory of what is published: all of it is gone, and an empty release is never published.
        (file(".wh.a"), &["--subdir", "a/site"], &[]),
        (file("a/.wh.site"), &["--subdir", "a/site"], &[]),
        (file("a"), &["--subdir", "a/site"], &[]),
        (link("a"), &["--subdir", "a/site"], &[]),
    ] {
        let layers = [tar(&ContentManager::start(lower).site().files), layer(&[], &[upper])];
        let (registry, volume) = (registry_of(&layers), Volume::new());
        let (code, stderr) = once(&format!("oci://{}/site:v1", registry.addr()), &volume.path(), flags);
        if left.is_empty() {
            assert!(code == 78 && stderr.contains("its layers hold no file"), "{flags:?}: {code} {stderr}");
            continue;
        }
        assert_eq!(code, 0, "{flags:?}: {stderr}");
        assert_eq!(volume.tree(), ContentManager::start(left).site().files, "{flags:?}");
    }
}

/// The image is asked for its manifest, and not for its layers as well.
#[test]
fn an_unchanged_image_of_a_registry_that_tells_no_digest_is_not_fetched_again() {
    for head in [405, 200] {
        let (site, volume) = (ContentManager::start(SITE), Volume::new());
        let layer = tar(&site.site().files);
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let digest = format!("sha256:{}", sha256(&layer));
        let manifest =
            json!({"layers": [{"mediaType": kind, "digest": digest, "size": layer.len()}]}).to_string();
        let registry = Upstream::start(move |request| match request.target() {
            "/v2/site/manifests/v1" if request.start.starts_with("HEAD ") => Answer::new(head, ""),
            "/v2/site/manifests/v1" => Answer::new(200, manifest.clone()),
            target if target.ends_with(&digest) => Answer::new(200, layer.clone()),
            _ => Answer::new(404, ""),
        });
        let url = format!("oci://{}/site:v1", registry.addr());
        let process = start_when_asked(&url, &volume, &[]);
        assert_eq!(sync(&process)["result"], "unchanged", "the first sync had published");
        assert_eq!(volume.tree(), site.site().files);
        registry.forget();
        let before = volume.snapshot();
        assert_eq!(sync(&process)["result"], "unchanged");
        let asked = registry.requests();
        assert!(asked.iter().all(|request| request.target() == "/v2/site/manifests/v1"), "{asked:?}");
        assert_eq!(volume.snapshot(), before);
    }
}

#[test]
fn an_image_that_the_gate_refuses_is_not_fetched_again() {
    let (site, volume) = (ContentManager::start(SITE), Volume::new());
    let gate = Upstream::start(|_| Answer::new(403, ""));
    let (manifest, layer, digest) = image(&site);
    let tag = format!("sha256:{}", sha256(manifest.as_bytes()));
    let registry = Upstream::start(move |request| match request.target() {
        "/v2/site/manifests/v1" => Answer::new(200, manifest.clone()).with("Docker-Content-Digest", &tag),
        target if target.ends_with(&digest) => Answer::new(200, layer.clone()),
        _ => Answer::new(404, ""),
    });
    let check = gate.url("/");
    let url = format!("oci://{}/site:v1", registry.addr());
    let process = start_when_asked(&url, &volume, &["--gate", &check]);
    fails(&process, 502, "gate");
    registry.forget();
    for _ in 0..3 {
        fails(&process, 502, "gate");
    }
    gate.answer(|_| Answer::new(204, ""));
    assert_eq!(sync(&process)["result"], "published");
    assert_eq!(volume.tree(), site.site().files);
    assert_eq!(sync(&process)["result"], "unchanged");
    let asked = registry.requests();
    assert!(asked.len() == 5 && asked.iter().all(|request| request.start.starts_with("HEAD ")), "{asked:?}");
}

#[test]
fn an_image_that_is_held_back_is_dropped_when_its_tag_moves_back() {
    let (site, volume) = (ContentManager::start(SITE), Volume::new());
    let (gate, registry) =
        (Upstream::start(|_| Answer::new(204, "")), Upstream::start(|_| Answer::new(503, "")));
    let offer = |(manifest, layer, digest): (String, Vec<u8>, String)| {
        registry.answer(move |request| match request.target() {
            "/v2/site/manifests/v1" => Answer::new(200, manifest.clone()),
            target if target.ends_with(&digest) => Answer::new(200, layer.clone()),
            _ => Answer::new(404, ""),
        });
    };
    let first = image(&site);
    offer(first.clone());
    let url = format!("oci://{}/site:v1", registry.addr());
    let process = start_when_asked(&url, &volume, &["--gate", &gate.url("/")]);
    assert_eq!(sync(&process)["result"], "unchanged", "the first sync had published");
    gate.answer(|_| Answer::new(403, ""));
    site.put("index.html", "held back");
    offer(image(&site));
    fails(&process, 502, "gate");
    assert_ne!(volume.staging(), [] as [&str; 0]);
    offer(first);
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!(volume.staging(), [] as [&str; 0]);
}

/// The token's server is another host, as at large registries: a secret goes there only where a flag names it, and over TLS.
#[test]
fn tokens_of_another_host() {
    let (site, volume, authority) = (ContentManager::start(SITE), Volume::new(), Authority::new());
    let (manifest, layer, digest) = image(&site);
    let tokens = Upstream::start(|_| Answer::new(200, r#"{"token": "t"}"#));
    let front = TlsFront::start_as("localhost", tokens.addr(), &authority);
    let astray = TlsFront::start_as("localhost", tokens.addr(), &authority);
    let realm = Arc::new(Mutex::new(String::new()));
    let named = Arc::clone(&realm);
    // Another address, and the same port.
    let own = SocketAddr::from(([127, 0, 0, 2], front.addr().port()));
    let registry = Upstream::start_on(own, move |request| match request.target() {
        _ if request.header("authorization") != Some("Bearer t") => {
            let challenge = format!("Bearer realm=\"{}\"", named.lock().expect("no holder panics"));
            Answer::new(401, "").with("WWW-Authenticate", &challenge)
        }
        "/v2/site/manifests/v1" => Answer::new(200, manifest.clone()),
        target if target.ends_with(&digest) => Answer::new(200, layer.clone()),
        _ => Answer::new(404, ""),
    });
    let [tls, astray] =
        [&front, &astray].map(|front| format!("https://localhost:{}/token", front.addr().port()));
    let plain = format!("http://localhost:{}/token", tokens.addr().port());
    let (secret, header) = (volume.above().join("secret"), volume.above().join("header"));
    fs::write(&secret, "me:secret").expect("a file");
    fs::write(&header, "X-Team: web").expect("a file");
    let (secret, header) = (secret.to_str().expect("UTF-8"), header.to_str().expect("UTF-8"));
    let trusted = authority.file(&volume, "ca.pem");
    let pull = |url: &str, flags: &[&str]| {
        url.clone_into(&mut realm.lock().expect("no holder panics"));
        tokens.forget();
        let all = [&["--ca-file", &trusted, "--log-level", "error"], flags].concat();
        let target = tempfile::tempdir().expect("a directory");
        let (code, stderr) = once(&format!("oci://{}/site:v1", registry.addr()), target.path(), &all);
        (code, stderr, tokens.requests())
    };
    // With a secret, the refusal names the flag, and nothing is sent.
    let (code, stderr, asked) = pull(&tls, &["--basic-auth-file", secret]);
    assert!(code == 69 && stderr.contains("--redirect-to localhost") && asked.is_empty(), "{code}: {stderr}");
    let named = ["--redirect-to", "localhost"];
    let (code, stderr, asked) = pull(&tls, &[&named[..], &["--basic-auth-file", secret]].concat());
    assert_eq!((code, asked.len()), (0, 1), "{stderr}");
    assert_eq!(asked[0].header("authorization"), Some("Basic bWU6c2VjcmV0"));
    // Never without TLS.
    let (code, stderr, asked) = pull(&plain, &[&named[..], &["--basic-auth-file", secret]].concat());
    assert!(code == 69 && stderr.contains("without TLS") && asked.is_empty(), "{code}: {stderr}");
    // Nor at another port than that of https or the registry's own.
    let (code, stderr, asked) = pull(&astray, &[&named[..], &["--basic-auth-file", secret]].concat());
    assert!(code == 69 && stderr.contains("only at port 443") && asked.is_empty(), "{code}: {stderr}");
    // A header or a token is no reason to refuse, and stays at home.
    for given in [["--header-file", header], ["--bearer-token-file", secret]] {
        for flags in [&[][..], &named[..]] {
            let (code, stderr, asked) = pull(&tls, &[flags, &given].concat());
            assert_eq!((code, asked.len()), (0, 1), "{stderr}");
            assert_eq!((asked[0].header("x-team"), asked[0].header("authorization")), (None, None));
        }
    }
}

/// A server may name several ways to log in, each in a header of its own, of which most clients know one.
#[test]
fn a_registry_may_offer_several_ways_to_log_in() {
    let (site, volume) = (ContentManager::start(SITE), Volume::new());
    let (manifest, layer, digest) = image(&site);
    let registry = Upstream::start(move |request| match request.target() {
        target if target.starts_with("/token") => Answer::new(200, r#"{"token": "t"}"#),
        _ if request.header("authorization") != Some("Bearer t") => Answer::new(401, "")
            .with("WWW-Authenticate", "Negotiate")
            .with("WWW-Authenticate", "Bearer realm=\"/token\""),
        "/v2/site/manifests/v1" => Answer::new(200, manifest.clone()),
        target if target.ends_with(&digest) => Answer::new(200, layer.clone()),
        _ => Answer::new(404, ""),
    });
    let (code, stderr) = once(&format!("oci://{}/site:v1", registry.addr()), &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree(), site.site().files);
}

/// A file with a secret or a header, and its name.
fn file(volume: &Volume, name: &str, text: &str) -> String {
    let path = volume.above().join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// Another port is another origin: a token's server there is shown user and password, and nothing else of us.
#[test]
fn tokens_of_another_port() {
    let (site, volume) = (ContentManager::start(SITE), Volume::new());
    let (manifest, layer, digest) = image(&site);
    let tokens = Upstream::start(|_| Answer::new(200, r#"{"token": "t"}"#));
    let challenge = format!("Bearer realm=\"{}\"", tokens.url("/token"));
    let registry = Upstream::start(move |request| match request.target() {
        _ if request.header("authorization") != Some("Bearer t") => {
            Answer::new(401, "").with("WWW-Authenticate", &challenge)
        }
        "/v2/site/manifests/v1" => Answer::new(200, manifest.clone()),
        target if target.ends_with(&digest) => Answer::new(200, layer.clone()),
        _ => Answer::new(404, ""),
    });
    let secret = file(&volume, "secret", "me:secret");
    let header = file(&volume, "header", "X-Team: web");
    for (flags, authorization) in [
        (&["--header-file", &header][..], None),
        (&["--bearer-token-file", &secret], None),
        (&["--header-file", &header, "--basic-auth-file", &secret], Some("Basic bWU6c2VjcmV0")),
    ] {
        tokens.forget();
        let target = tempfile::tempdir().expect("a directory");
        let (code, stderr) = once(&format!("oci://{}/site:v1", registry.addr()), target.path(), flags);
        assert_eq!(code, 0, "{stderr}");
        let asked = tokens.requests();
        assert_eq!(asked.len(), 1);
        assert_eq!((asked[0].header("x-team"), asked[0].header("authorization")), (None, authorization));
    }
}

/// A manifest's redirect is followed as that of any source, also where only its digest is asked for.
#[test]
fn a_manifest_behind_a_redirect() {
    let (site, volume) = (ContentManager::start(SITE), Volume::new());
    let (manifest, layer, digest) = image(&site);
    let mirror = Upstream::start(move |_| Answer::new(200, manifest.clone()));
    let there = format!("http://localhost:{}/manifest", mirror.addr().port());
    let registry = Upstream::start(move |request| match request.target() {
        "/v2/site/manifests/v1" => Answer::new(307, "").with("Location", "/moved"),
        "/moved" => Answer::new(307, "").with("Location", &there),
        target if target.ends_with(&digest) => Answer::new(200, layer.clone()),
        _ => Answer::new(404, ""),
    });
    let url = format!("oci://{}/site:v1", registry.addr());
    let header = file(&volume, "header", "X-Team: web");
    let (code, stderr) = once(&url, &volume.path(), &["--header-file", &header, "--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
    assert!(stderr.contains("add --redirect-to localhost") && mirror.requests().is_empty(), "{stderr}");
    let process = start_when_asked(&url, &volume, &["--header-file", &header, "--redirect-to", "localhost"]);
    assert_eq!(sync(&process)["result"], "unchanged", "the first sync had published");
    assert_eq!(volume.tree(), site.site().files);
    let asked = mirror.requests();
    assert!(asked.iter().any(|request| request.start.starts_with("HEAD ")), "{asked:?}");
    assert!(asked.iter().all(|request| request.header("x-team").is_none()), "{asked:?}");
    let moved = registry.requests().into_iter().filter(|request| request.target() == "/moved");
    assert!(moved.into_iter().all(|request| request.header("x-team") == Some("web")), "it is the origin's");
    // How to log in, the registry says, and not another host.
    let login = format!("Bearer realm=\"{}\"", mirror.url("/token"));
    mirror.forget();
    mirror.answer(move |_| Answer::new(401, "").with("WWW-Authenticate", &login));
    fails(&process, 502, "status");
    assert!(mirror.requests().iter().all(|request| request.target() == "/manifest"));
}
