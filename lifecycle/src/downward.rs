//! What the kubelet tells a container about its Pod: the downward API.
//!
//! What does not change while the Pod lives comes in environment variables; labels and annotations come in files of a
//! volume, which the kubelet rewrites when the labels or annotations change.

use std::io;
use std::path::Path;

/// The variable with the Pod's name, as Pods call it by custom; so are the others.
pub const POD_NAME: &str = "POD_NAME";
/// With its namespace.
pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
/// With its uid.
pub const POD_UID: &str = "POD_UID";
/// With the node that it runs on.
pub const NODE_NAME: &str = "NODE_NAME";

/// Reads a file of labels or annotations: one `name="value"` a line, the value quoted as Go does it.
///
/// # Errors
/// Where the file cannot be read.
pub fn pairs(file: &Path) -> io::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(file)?;
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), unquoted(value)))
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// Go's escapes are those of JSON, and a few more that a label or a readable annotation does not need; a value with one of
/// those stays as it is written.
fn unquoted(value: &str) -> String {
    serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_the_kubelet_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("annotations");
        std::fs::write(&file, "app=\"web\"\nnote=\"a\\\"b\\nc=d\"\nodd=\"\\x41\"\n").unwrap();
        let expected = [("app", "web"), ("note", "a\"b\nc=d"), ("odd", "\\x41")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs(&file).unwrap(), expected);
        assert!(pairs(&dir.path().join("missing")).is_err());
    }
}
