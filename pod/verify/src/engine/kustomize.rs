//! Manifests as they are in `deploy/kubernetes`, but with other images, in another namespace, or patched: rendered by
//! `kubectl kustomize` from a folder that is gone afterwards.

use std::io;
use std::path::{Path, PathBuf};

use super::command::{run, text};

/// Which images stand for the names in the manifests.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    registry: String,
    tag: String,
    shell: String,
}

const OURS: [&str; 4] = ["file-puller", "web-server", "log-agent", "content-manager"];
/// The lesson's `shell` container.
const SHELL: &str = "almalinux";

impl Images {
    /// Our images with this prefix and tag, and `shell` with bash and curl in it.
    pub(crate) fn new(registry: &str, tag: &str, shell: &str) -> Self {
        Self { registry: registry.to_owned(), tag: tag.to_owned(), shell: shell.to_owned() }
    }

    /// The image with bash and curl in it.
    pub(crate) fn shell(&self) -> &str {
        &self.shell
    }

    fn as_yaml(&self) -> String {
        let Self { registry, tag, shell } = self;
        let ours = OURS.map(|name| (name, format!("{registry}{name}"), tag.as_str()));
        // A colon after the last slash parts the tag from the name; one before it parts a port from a host.
        let (name, shell_tag) = match shell.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (shell.as_str(), "latest"),
        };
        let images = ours.into_iter().chain([(SHELL, name.to_owned(), shell_tag)]);
        let entries = images.map(|(name, image, tag)| {
            format!("- {{name: {name}, newName: \"{image}\", newTag: \"{tag}\"}}\n")
        });
        std::iter::once("images:\n".to_owned()).chain(entries).collect()
    }
}

/// A kustomization in the making.
#[derive(Debug)]
pub(crate) struct Kustomization {
    resource: PathBuf,
    yaml: String,
    patches: String,
}

impl Kustomization {
    /// Over a folder that is itself one, or over one file of manifests.
    pub(crate) fn over(resource: &Path) -> Self {
        Self { resource: resource.to_owned(), yaml: String::new(), patches: String::new() }
    }

    /// With these images.
    #[must_use]
    pub(crate) fn images(mut self, images: &Images) -> Self {
        self.yaml.push_str(&images.as_yaml());
        self
    }

    /// In this namespace; a Namespace among the manifests is renamed to it.
    #[must_use]
    pub(crate) fn namespace(mut self, namespace: &str) -> Self {
        self.yaml.extend(["namespace: ", namespace, "\n"]);
        self
    }

    /// With an entry of `patches`, as YAML.
    #[must_use]
    pub(crate) fn patch(mut self, patch: &str) -> Self {
        self.patches.push_str(patch);
        self
    }

    /// The manifests.
    pub(crate) fn render(&self) -> io::Result<String> {
        let dir = tempfile::Builder::new().prefix("verify-manifests-").tempdir()?;
        let resource = if self.resource.is_dir() {
            // kustomize takes no absolute path, and none of a file outside its folder.
            let ups = dir.path().canonicalize()?.components().count() - 1;
            let absolute = self.resource.canonicalize()?;
            format!("{}{}", "../".repeat(ups), absolute.display().to_string().trim_start_matches('/'))
        } else {
            std::fs::copy(&self.resource, dir.path().join("resource.yaml"))?;
            "resource.yaml".to_owned()
        };
        let patches =
            if self.patches.is_empty() { String::new() } else { format!("patches:\n{}", self.patches) };
        let head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
        let kustomization = format!("{head}resources: [\"{resource}\"]\n{}{patches}", self.yaml);
        std::fs::write(dir.path().join("kustomization.yaml"), kustomization)?;
        run("kubectl", ["kustomize".as_ref(), dir.path().as_os_str()]).map(|printed| text(&printed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_by_name_and_tag() {
        let yaml = Images::new("reg:5000/team/", "v1", "reg:5000/tools/shell").as_yaml();
        assert!(
            yaml.contains(r#"{name: web-server, newName: "reg:5000/team/web-server", newTag: "v1"}"#),
            "{yaml}"
        );
        assert!(yaml.contains(r#"newName: "reg:5000/tools/shell", newTag: "latest""#), "{yaml}");
        let yaml = Images::new("", "dev", "almalinux:9-minimal").as_yaml();
        assert!(yaml.contains(r#"newName: "almalinux", newTag: "9-minimal""#), "{yaml}");
    }
}
