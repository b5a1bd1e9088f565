//! Images of registries that say less than the specification asks for. `tests/oci` follows a real one.

use serde_json::json;
use testkit::{Answer, Upstream};

use crate::content::{ContentManager, sha256};
use crate::puller::{Volume, once, start_when_asked, sync};
use crate::tarball::tar;

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}")];

/// The manifest and the only layer of an image, and the layer's digest.
fn image(site: &ContentManager) -> (String, Vec<u8>, String) {
    let layer = tar(&site.site().files);
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let digest = format!("sha256:{}", sha256(&layer));
    let manifest = json!({"layers": [{"mediaType": kind, "digest": digest, "size": layer.len()}]});
    (manifest.to_string(), layer, digest)
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
