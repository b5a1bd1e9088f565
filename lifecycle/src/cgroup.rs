//! The memory limit that the container runtime set, so that a program can stay within it instead of being killed at it.

use std::fs;
use std::path::{Path, PathBuf};

/// The memory limit of this process's cgroup in bytes, v2 or v1; `None` where there is no limit.
///
/// Source: the kernel's `Documentation/admin-guide/cgroup-v2.rst` (`memory.max`) and `cgroup-v1/memory.rst`
/// (`memory.limit_in_bytes`). A container sees its own cgroup at the mount's root; on a host the path in
/// `/proc/self/cgroup` is followed, and the tightest limit on the way up holds.
pub fn memory_limit() -> Option<u64> {
    Some(limited()?.limit)
}

/// What the cgroup with that limit does not use of it, in bytes (`memory.current`, `memory.usage_in_bytes`). What it uses includes
/// files that the kernel keeps in memory and would give back.
pub fn memory_left() -> Option<u64> {
    let Limited { limit, used } = limited()?;
    Some(limit.saturating_sub(read_number(&used)?))
}

/// A cgroup with a limit.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Limited {
    limit: u64,
    /// The file that says how much it uses.
    used: PathBuf,
}

fn limited() -> Option<Limited> {
    limited_beneath(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").ok()?)
}

fn limited_beneath(mount: &Path, proc_self_cgroup: &str) -> Option<Limited> {
    proc_self_cgroup
        .lines()
        .filter_map(|line| {
            // hierarchy-ID:controller-list:cgroup-path; v2 has ID 0 and an empty list
            let mut fields = line.splitn(3, ':');
            let (_id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let (base, limit, used) = if controllers.is_empty() {
                (mount.to_owned(), "memory.max", "memory.current")
            } else if controllers.split(',').any(|name| name == "memory") {
                (mount.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
            } else {
                return None;
            };
            let own = base.join(path.trim_start_matches('/'));
            own.ancestors()
                .take_while(|dir| dir.starts_with(&base))
                // v2 writes `max` for no limit; v1 writes a number near `i64::MAX`.
                .filter_map(|dir| {
                    let limit = read_number(&dir.join(limit)).filter(|limit| *limit < 1 << 60)?;
                    Some(Limited { limit, used: dir.join(used) })
                })
                .min()
        })
        .min()
}

fn read_number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, file: &str, content: &str) {
        let file = dir.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }

    fn limit_beneath(mount: &Path, proc_self_cgroup: &str) -> Option<u64> {
        Some(limited_beneath(mount, proc_self_cgroup)?.limit)
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_holds() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "pod/memory.max", "67108864\n");
        write(dir.path(), "pod/web/memory.max", "max\n");
        assert_eq!(limit_beneath(dir.path(), "0::/pod/web\n"), Some(64 << 20));
        let used = limited_beneath(dir.path(), "0::/pod/web\n").unwrap().used;
        assert_eq!(used, dir.path().join("pod/memory.current"));
        assert_eq!(limit_beneath(dir.path(), "0::/elsewhere\n"), None);
    }

    #[test]
    fn version_1_is_read_and_its_no_limit_is_none() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "memory/memory.limit_in_bytes", "9223372036854771712\n");
        let own = "12:cpu,cpuacct:/docker/x\n5:memory:/docker/x\n";
        assert_eq!(limit_beneath(dir.path(), own), None);
        // In a container the path is the host's, and the mount shows the container's own cgroup at its root.
        write(dir.path(), "memory/memory.limit_in_bytes", "67108864\n");
        assert_eq!(limit_beneath(dir.path(), own), Some(64 << 20));
    }
}
