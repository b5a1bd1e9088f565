//! Archives as a source: what becomes a release, and what is refused whole.

use std::process::Command;

use tar::{EntryType, Header};
use testkit::{Answer, Upstream, wait_until};

use crate::content::{ContentManager, Tree, sha256};
use crate::puller::{BINARY, Volume, metric, once, start_when_asked, sync, tree};
use crate::tarball::{gzip, header, raw_entry, tar, tar_with, zstd};

const SITE: &[(&str, &str)] = &[("index.html", "<h1>hello</h1>"), ("css/site.css", "a{}"), ("empty", "")];

fn site(files: &[(&str, &str)]) -> Tree {
    ContentManager::start(files).site().files.clone()
}

fn serve(name: &str, archive: Vec<u8>) -> (Upstream, String) {
    let tag = format!("\"{}\"", sha256(&archive));
    let upstream = Upstream::start(move |request| {
        if request.header("if-none-match") == Some(&tag) {
            return Answer::new(304, "");
        }
        Answer::new(200, archive.clone()).with("ETag", &tag)
    });
    let url = upstream.url(&format!("/{name}"));
    (upstream, url)
}

/// Exit code 78, one line with this in it, and nothing on the volume or beside it.
#[track_caller]
fn refused(name: &str, archive: Vec<u8>, reason: &str) {
    let (volume, (_upstream, url)) = (Volume::new(), serve(name, archive));
    let (code, stderr) = once(&url, &volume.path(), &["--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
    assert!(
        stderr.contains("archive refused: ") && stderr.contains(reason),
        "{stderr:?} should say {reason:?}"
    );
    volume.assert_nothing_written();
}

#[test]
fn tar_plain_gzip_and_zstd() {
    let files = site(SITE);
    let archive = tar(&files);
    let all = [
        ("site.tar", archive.clone()),
        ("site.tar.gz", gzip(&archive)),
        ("site.TGZ", [gzip(&archive[..1000]), gzip(&archive[1000..])].concat()),
        ("site.tar.zst", zstd(&archive)),
    ];
    let mut ids = Vec::new();
    for (name, archive) in all {
        let (volume, (_upstream, url)) = (Volume::new(), serve(name, archive));
        let (code, stderr) = once(&url, &volume.path(), &[]);
        assert_eq!(code, 0, "{name}: {stderr}");
        assert_eq!(volume.tree(), files, "{name}");
        assert_eq!(volume.staging(), [] as [&str; 0]);
        ids.push(volume.current());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "the same content is the same release however it came");
}

/// As a running puller: 304 costs one request, unchanged files are shared, damage is repaired.
#[test]
fn archive_is_followed() {
    let mut files = site(SITE);
    let (volume, (upstream, url)) = (Volume::new(), serve("site.tar", tar(&files)));
    let process = start_when_asked(&url, &volume, &["--verify-period", "50ms"]);
    assert_eq!(sync(&process)["result"], "unchanged");
    upstream.forget();
    let before = volume.snapshot();
    assert_eq!(sync(&process)["result"], "unchanged");
    assert_eq!((upstream.requests().len(), volume.snapshot()), (1, before));
    let inode = volume.inode("css/site.css");
    files.insert("index.html".to_owned(), (0o644, b"new".to_vec()));
    let archive = tar(&files);
    upstream.answer(move |_| Answer::new(200, archive.clone()));
    let outcome = sync(&process);
    assert_eq!((&outcome["result"], &outcome["fetched_files"]), (&"published".into(), &1.into()));
    assert_eq!((volume.tree(), volume.inode("css/site.css")), (files.clone(), inode));
    // Without an entity tag it is fetched each time, and recognised by its content.
    assert_eq!(sync(&process)["result"], "unchanged");
    std::fs::write(volume.join("current/index.html"), "bad").expect("it can be written");
    wait_until("repaired", || metric(&process, "file_puller_repaired_files_total") >= 1.0);
    assert_eq!(volume.tree(), files);
}

/// More files than are written one by one, of sizes around those that are gathered, under an umask that leaves others nothing.
#[test]
fn tar_of_many_files() {
    let mut files = Tree::new();
    for number in 0..300_usize {
        let size = [0, 1, 4096, 65_535, 65_536, 65_537, 200_000][number % 7];
        let mode = if number % 5 == 0 { 0o755 } else { 0o644 };
        let content = number.to_string().repeat(size).into_bytes();
        files.insert(format!("d{}/{number}", number % 3), (mode, content[..size].to_vec()));
    }
    let (volume, (_upstream, url)) = (Volume::new(), serve("site.tar.gz", gzip(&tar(&files))));
    for umask in ["022", "077"] {
        let path = volume.above().join(umask);
        let mut command = Command::new("sh");
        command.args(["-c", "umask $0 && exec \"$@\"", umask, BINARY, "--once", "--source", &url]);
        let ran = command.arg("--volume").arg(&path).output().expect("a shell");
        assert!(ran.status.success(), "{ran:?}");
        let found = tree(&path.join("current"));
        let wrong: Vec<_> = files.keys().filter(|path| found.get(*path) != files.get(*path)).collect();
        assert!(wrong.is_empty() && found.len() == files.len(), "{umask}: {wrong:?}");
    }
}

#[test]
fn tar_gz_of_a_git_forge() {
    let long = format!("repo-1a2b3c/{}/{}.html", "d".repeat(120), "f".repeat(120));
    let archive = tar_with(&site(&[("repo-1a2b3c/index.html", "hello"), (&long, "long")]), |builder| {
        builder
            .append_pax_extensions([("path", "repo-1a2b3c/pax \u{fc}.html".as_bytes())])
            .expect("in memory");
        let mut program = header(EntryType::Regular, 2);
        program.set_mode(0o775);
        builder.append_data(&mut program, "repo-1a2b3c/ascii", &b"hi"[..]).expect("in memory");
        builder
            .append_data(&mut header(EntryType::Directory, 0), "repo-1a2b3c/empty/", &b""[..])
            .expect("in memory");
    });
    // Forges begin with a global header that holds the commit.
    let commit = b"52 comment=1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b\n";
    let archive = [raw_entry("pax_global_header", EntryType::XGlobalHeader, commit), archive].concat();
    let (volume, (_upstream, url)) = (Volume::new(), serve("v1.tar.gz", gzip(&archive)));
    let (code, stderr) = once(&url, &volume.path(), &["--strip-components", "1"]);
    assert_eq!(code, 0, "{stderr}");
    let mut expected = site(&[("index.html", "hello"), (&long["repo-1a2b3c/".len()..], "long")]);
    expected.insert("pax \u{fc}.html".to_owned(), (0o755, b"hi".to_vec()));
    assert_eq!(volume.tree(), expected);
}

/// `tar -C site .` is how people make them.
#[test]
fn tar_of_the_current_directory() {
    let mut archive = raw_entry("./", EntryType::Directory, b"");
    archive.extend(raw_entry("./css/", EntryType::Directory, b""));
    archive.extend(raw_entry("./css/site.css", EntryType::Regular, b"a{}"));
    archive.extend([0; 1024]);
    let (volume, (_upstream, url)) = (Volume::new(), serve("site.tar", archive));
    let (code, stderr) = once(&url, &volume.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree(), site(&[("css/site.css", "a{}")]));
}

fn with_link(kind: EntryType, path: &str, target: &str) -> Vec<u8> {
    tar_with(&site(SITE), |builder| {
        builder.append_link(&mut header(kind, 0), path, target).expect("in memory");
    })
}

#[test]
fn tar_symlink() {
    for (path, target, reason) in [
        ("link", "/etc/passwd", "link links to \"/etc/passwd\", and that leads out of what is published"),
        ("a/link", "../../index.html", "a/link links to \"../../index.html\", and that leads out"),
        ("link", "missing.html", "link links to \"missing.html\", and there is no file"),
        ("css/up", "..", "css/up links to \"..\", and that is a directory above the link itself"),
        ("css/site.css/link", "x", "lies beneath a path that is a file"),
    ] {
        refused("site.tar", with_link(EntryType::Symlink, path, target), reason);
    }
}

#[test]
fn tar_symlink_loop() {
    for links in [&[("a", "b"), ("b", "a")][..], &[("a", "a")], &[("css/a", "../d/b"), ("d/b", "../css/a")]] {
        let archive = tar_with(&site(SITE), |builder| {
            for (path, target) in links {
                builder.append_link(&mut header(EntryType::Symlink, 0), path, target).expect("in memory");
            }
        });
        refused("site.tar", archive, "these links lead to one another");
    }
}

#[test]
fn tar_hardlink() {
    let reason = "\"link\" is a hard link to \"/etc/passwd\", and no file before it has that name";
    refused("site.tar", with_link(EntryType::Link, "link", "/etc/passwd"), reason);
}

/// The release that an archive becomes.
#[track_caller]
fn published(archive: Vec<u8>, flags: &[&str]) -> (Volume, Tree) {
    let (volume, (_upstream, url)) = (Volume::new(), serve("site.tar", archive));
    let (code, stderr) = once(&url, &volume.path(), flags);
    assert_eq!(code, 0, "{stderr}");
    let tree = volume.tree();
    (volume, tree)
}

/// A symbolic link becomes what it points to, also where that comes later; a hard link is another name for its file.
#[test]
fn tar_links_within() {
    let archive = tar_with(&Tree::new(), |builder| {
        let mut link = |kind, path: &str, target: &str| {
            builder.append_link(&mut header(kind, 0), path, target).expect("in memory");
        };
        link(EntryType::Symlink, "current", "./v1");
        link(EntryType::Symlink, "v1/home.html", "index.html");
        let files = [("v1/index.html", "hello"), ("v1/css/site.css", "a{}")];
        for (path, content) in files {
            let mut header = header(EntryType::Regular, content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).expect("in memory");
        }
        builder
            .append_link(&mut header(EntryType::Link, 0), "copy.css", "./v1/css/site.css")
            .expect("in memory");
    });
    let (volume, tree) = published(archive, &[]);
    let expected = site(&[
        ("copy.css", "a{}"),
        ("current/css/site.css", "a{}"),
        ("current/home.html", "hello"),
        ("current/index.html", "hello"),
        ("v1/css/site.css", "a{}"),
        ("v1/home.html", "hello"),
        ("v1/index.html", "hello"),
    ]);
    assert_eq!(tree, expected);
    assert_eq!(volume.inode("current/home.html"), volume.inode("v1/index.html"), "linked, not copied");
}

/// A thousand links to a directory of one kilobyte are a thousand kilobytes.
#[test]
fn tar_links_count_against_the_limits() {
    let content = "x".repeat(512);
    let archive = tar_with(&site(&[("dir/a", &content), ("dir/b", &content)]), |builder| {
        for number in 0..1000 {
            let path = format!("link-{number}");
            builder.append_link(&mut header(EntryType::Symlink, 0), path, "dir").expect("in memory");
        }
    });
    for (flag, limit, what) in [
        ("--max-files", "1500", "its links expand to more than --max-files 1500 files"),
        ("--max-size", "1000000", "its links expand to more than --max-size 1000000 bytes"),
    ] {
        let (volume, (_upstream, url)) = (Volume::new(), serve("site.tar", archive.clone()));
        let (code, stderr) = once(&url, &volume.path(), &[flag, limit]);
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains(what), "{stderr}");
        volume.assert_nothing_written();
    }
}

/// What is left out cannot refuse a release, whatever it is.
#[test]
fn tar_subdir_and_exclude() {
    let files = site(&[
        ("repo-1a2b/site/index.html", "hello"),
        ("repo-1a2b/site/app.js", "1"),
        ("repo-1a2b/site/app.js.map", "2"),
        ("repo-1a2b/site/.git/config", "3"),
        ("repo-1a2b/site/node_modules/x/y.js", "4"),
        ("repo-1a2b/README.md", "5"),
    ]);
    let archive = tar_with(&files, |builder| {
        for path in ["repo-1a2b/link", "repo-1a2b/site/node_modules/link"] {
            builder.append_link(&mut header(EntryType::Symlink, 0), path, "/etc").expect("in memory");
        }
        builder.append_data(&mut header(EntryType::Fifo, 0), "repo-1a2b/fifo", &b""[..]).expect("in memory");
    });
    let flags =
        ["--strip-components", "1", "--subdir", "site", "--exclude", "*.map", "--exclude", "node_modules"];
    let (_volume, tree) = published(archive.clone(), &flags);
    assert_eq!(tree, site(&[("index.html", "hello"), ("app.js", "1")]));
    let (_volume, tree) = published(archive, &["--subdir", "repo-1a2b/site/", "--exclude", "node_modules"]);
    assert_eq!(tree, site(&[("index.html", "hello"), ("app.js", "1"), ("app.js.map", "2")]));
}

/// Content that is left out is skipped, however large; and that of a sparse file is smaller than the file.
#[test]
fn tar_of_what_is_left_out_and_large() {
    let large = "x".repeat(300 << 10);
    let archive = tar(&site(&[("repo/site/index.html", "hello"), ("repo/video.mp4", &large)]));
    let (_volume, tree) = published(archive, &["--strip-components", "1", "--subdir", "site"]);
    assert_eq!(tree, site(&[("index.html", "hello")]));
    let archive = tar(&site(&[(".git/objects/pack/1.pack", &large), ("index.html", "hello")]));
    let (_volume, tree) = published(archive, &[]);
    assert_eq!(tree, site(&[("index.html", "hello")]));
    let last = [raw_entry("index.html", EntryType::Regular, b"hello"), sparse("disk.img"), vec![0; 1024]];
    let (_volume, tree) = published(last.concat(), &["--exclude", "*.img"]);
    assert_eq!(tree, site(&[("index.html", "hello")]));
    refused("site.tar", last.concat(), "\"disk.img\" is a sparse file, and a release has none");
}

/// An entry of GNU's own type for sparse files: 5 bytes at the end of a gigabyte.
fn sparse(path: &str) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path(path).expect("a short path");
    header.set_size(5);
    header.set_mode(0o644);
    let gnu = header.as_gnu_mut().expect("a header of GNU tar");
    let octal = |number: u64| *format!("{number:011o}\0").as_bytes().first_chunk().expect("12 digits");
    gnu.sparse[0].offset = octal((1 << 30) - 5);
    gnu.sparse[0].numbytes = octal(5);
    gnu.realsize = octal(1 << 30);
    header.set_cksum();
    let mut entry = header.as_bytes().to_vec();
    entry.extend(b"12345");
    entry.resize(1024, 0);
    entry
}

/// GNU tar has the directory then.
#[test]
fn tar_directory_over_a_file() {
    for kind in [EntryType::Directory, EntryType::Regular] {
        let archive =
            [raw_entry("a", EntryType::Regular, b"1"), raw_entry("a/", kind, b""), vec![0; 1024]].concat();
        refused("site.tar", archive, "\"a/\" is listed twice");
    }
}

/// Links whose content is not part of the release.
#[test]
fn tar_links_to_what_is_left_out() {
    let archive = tar_with(&site(&[("private/a", "1"), ("site/index.html", "hello")]), |builder| {
        builder.append_link(&mut header(EntryType::Link, 0), "site/b", "private/a").expect("in memory");
    });
    let to_empty = tar_with(&site(SITE), |builder| {
        builder.append_data(&mut header(EntryType::Directory, 0), "none/", &b""[..]).expect("in memory");
        builder.append_link(&mut header(EntryType::Symlink, 0), "link", "none").expect("in memory");
    });
    for (archive, flags, reason) in [
        (
            archive.clone(),
            &["--exclude", "private"][..],
            "is a hard link to \"private/a\", which is left out",
        ),
        (archive, &["--subdir", "site"], "is a hard link to \"private/a\", which is left out"),
        (to_empty, &[], "link links to \"none\", and there is no file"),
    ] {
        let (volume, (_upstream, url)) = (Volume::new(), serve("site.tar", archive));
        let (code, stderr) = once(&url, &volume.path(), flags);
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
        volume.assert_nothing_written();
    }
}

/// The bytes of a sparse file's entry are not those of the file, and only its extended header says so.
#[test]
fn tar_sparse_pax() {
    for extensions in [
        &[("GNU.sparse.size", "1048576"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.offset", "0")][..],
        &[("GNU.sparse.size", "1048576"), ("GNU.sparse.map", "0,5"), ("GNU.sparse.name", "a")],
        &[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "1048576")],
        &[("SCHILY.realsize", "1048576")],
    ] {
        let archive = tar_with(&site(SITE), |builder| {
            let extensions = extensions.iter().map(|(key, value)| (*key, value.as_bytes()));
            builder.append_pax_extensions(extensions).expect("in memory");
            builder
                .append_data(&mut header(EntryType::Regular, 5), "sparse", &b"12345"[..])
                .expect("in memory");
        });
        refused(
            "site.tar",
            archive,
            "\"sparse\" is a sparse file, and not every reader finds the end of one",
        );
    }
}

/// Where two readers of the format would not get the same files, there is no release.
#[test]
fn tar_that_readers_understand_differently() {
    let record = |text: &str| {
        let length = (1..100).find(|length: &usize| length.to_string().len() + text.len() + 2 == *length);
        format!("{} {text}\n", length.expect("some length is right"))
    };
    let local_of = |path: &str, records: &[&str]| {
        let records: String = records.iter().map(|text| record(text)).collect();
        let extension = raw_entry("x", EntryType::XHeader, records.as_bytes());
        [extension, raw_entry(path, EntryType::Regular, b"12345"), vec![0; 1024]].concat()
    };
    let local = |records: &[&str]| local_of("a", records);
    // A format that has no extended headers, but GNU tar reads them in it.
    let mut old = raw_entry(".git/x", EntryType::XHeader, record("size=512").as_bytes());
    old[257..265].fill(0);
    let sum: u32 = old[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }))
        .sum();
    old[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let global = |records: &str| raw_entry("g", EntryType::XGlobalHeader, records.as_bytes());
    let file = [raw_entry("a", EntryType::Regular, b"12345"), vec![0; 1024]].concat();
    for (archive, reason) in [
        (local(&["path=b", "path=c"]), "contradicts itself about its path"),
        (local(&["size=5", "size=6"]), "contradicts itself about its size"),
        (local(&["size=+5"]), "contradicts itself about its size"),
        // Nor where the entry is left out, because the next one begins where it ends.
        (local_of(".git/x", &["size=5", "size=600"]), "contradicts itself about its size"),
        (local_of(".git/x", &["GNU.sparse.size=1048576"]), "\".git/x\" is a sparse file"),
        (raw_entry(".git/x", EntryType::Link, b"content"), "\".git/x\" has content, and is not a file"),
        (old, "\".git/x\" is an extended header, and its format has none"),
        // Solaris's extended header, with which GNU tar extracts what follows as `evil`, and its like.
        (
            [raw_entry(".git/x", EntryType::new(b'X'), record("path=evil").as_bytes()), file.clone()]
                .concat(),
            "\".git/x\" is of the type 'X', which not every reader knows",
        ),
        (
            [raw_entry(".git/x", EntryType::new(b'D'), b""), file.clone()].concat(),
            "\".git/x\" is of the type 'D', which not every reader knows",
        ),
        (
            [
                raw_entry("././@LongLink", EntryType::GNULongName, b"long\0"),
                raw_entry("x", EntryType::XHeader, record("path=other").as_bytes()),
                file.clone(),
            ]
            .concat(),
            "contradicts itself about its path",
        ),
        (
            [global(&record("path=b")), file.clone()].concat(),
            "its global extended header sets path for all files",
        ),
        ([global(&record("GNU.sparse.size=9")), file.clone()].concat(), "sets GNU.sparse.size for all files"),
        ([global("99 x\n"), file.clone()].concat(), "its global extended header is malformed"),
        (
            [
                raw_entry("x", EntryType::XHeader, record("path=b").as_bytes()),
                global(&record("comment=c")),
                file,
            ]
            .concat(),
            "stands between an entry and the extended header of that",
        ),
        (raw_entry("dir", EntryType::Directory, b"content"), "\"dir\" has content, and is not a file"),
    ] {
        refused("site.tar", archive, reason);
    }
}

#[test]
fn tar_device() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let archive = [raw_entry("dev", kind, b""), tar(&site(SITE))].concat();
        refused("site.tar", archive, "\"dev\" is neither a file nor a directory");
    }
}

#[test]
fn tar_dotdot() {
    for path in ["../outside", "a/../../outside", "a/./b", ".././outside"] {
        let archive =
            [raw_entry("first", EntryType::Regular, b"x"), raw_entry(path, EntryType::Regular, b"x")]
                .concat();
        refused("site.tar", [archive, vec![0; 1024]].concat(), "it has a '.' or '..' segment");
    }
}

#[test]
fn tar_absolute() {
    let archive = [raw_entry("/tmp/outside", EntryType::Regular, b"x"), vec![0; 1024]].concat();
    refused("site.tar", archive, "\"/tmp/outside\" is refused as a path: it is absolute");
}

#[test]
fn tar_duplicate() {
    let twice = |first: &str, second: &str| {
        let entries =
            [raw_entry(first, EntryType::Regular, b"1"), raw_entry(second, EntryType::Regular, b"2")];
        [entries.concat(), vec![0; 1024]].concat()
    };
    refused("site.tar", twice("a", "a"), "\"a\" is listed twice");
    refused("site.tar", twice("a", "./a"), "\"./a\" is listed twice");
    refused("site.tar", twice("a", "a/b"), "\"a/b\" lies beneath a path that is a file");
    refused("site.tar", twice("a/b", "a"), "\"a\" lies beneath a path that is a file");
}

/// 64 MiB of zeros in some kilobytes.
fn bomb() -> Vec<u8> {
    let mut files = Tree::new();
    files.insert("zeros".to_owned(), (0o644, vec![0; 64 << 20]));
    tar(&files)
}

#[test]
fn tar_bomb_gzip() {
    refused("site.tar.gz", gzip(&bomb()), "it expands more than --max-expansion 100 times");
}

#[test]
fn tar_bomb_zstd() {
    refused("site.tar.zst", zstd(&bomb()), "it expands more than --max-expansion 100 times");
}

/// An entry's name of 8 MiB, which a reader would keep in memory; also right behind a larger entry that is left out.
#[test]
fn tar_bomb_in_a_name() {
    let name = raw_entry("././@LongLink", EntryType::GNULongName, &vec![b'a'; 8 << 20]);
    for before in [vec![], sparse(".git/disk.img")] {
        refused(
            "site.tar",
            [before, name.clone(), tar(&site(SITE))].concat(),
            "an entry's name or extension is larger than any path",
        );
    }
}

#[test]
fn tar_beyond_a_limit() {
    for (flag, limit, what) in [
        ("--max-files", "2", "more than --max-files 2"),
        ("--max-file-size", "10", "more than --max-file-size 10"),
        ("--max-size", "16", "more than --max-size 16"),
        ("--max-archive-size", "1KiB", "larger than --max-archive-size"),
    ] {
        let (volume, (_upstream, url)) = (Volume::new(), serve("site.tar", tar(&site(SITE))));
        let (code, stderr) = once(&url, &volume.path(), &[flag, limit]);
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains(what), "{stderr}");
        volume.assert_nothing_written();
    }
}

#[test]
fn tar_truncated() {
    let archive = tar(&site(SITE));
    // Within a file, within a header, and exactly between two entries, where nothing but the missing end tells.
    for length in [700, 1100, 1536] {
        refused("site.tar", archive[..length].to_vec(), "");
    }
    refused("site.tar", archive[..1024].to_vec(), "its end marker is missing");
    let packed = gzip(&archive);
    refused("site.tar.gz", packed[..packed.len() - 4].to_vec(), "");
    let packed = zstd(&archive);
    refused("site.tar.zst", packed[..packed.len() - 4].to_vec(), "");
}

#[test]
fn tar_trailing_garbage() {
    let archive = tar(&site(SITE));
    refused("site.tar", [archive.clone(), b"garbage".to_vec()].concat(), "there is something after its end");
    refused("site.tar.gz", [gzip(&archive), b"garbage".to_vec()].concat(), "");
    refused("site.tar.zst", [zstd(&archive), b"garbage".to_vec()].concat(), "");
    // Padding to a full record is what every tar writes.
    let (volume, (_upstream, url)) = (Volume::new(), serve("site.tar", [archive, vec![0; 10_240]].concat()));
    assert_eq!(once(&url, &volume.path(), &[]).0, 0);
}

#[test]
fn tar_that_is_none() {
    refused("site.tar", b"<html>Welcome to nginx!</html>".repeat(30), "");
    refused("site.tar.gz", b"<html>Welcome to nginx!</html>".to_vec(), "");
    refused("site.tar", vec![0; 1024], "it holds no file");
}

#[test]
fn archive_of_a_digest() {
    let archive = gzip(&tar(&site(SITE)));
    let right = format!("sha256:{}", sha256(&archive));
    let wrong = format!("sha256:{}", sha256(b"another"));
    let (volume, (_upstream, url)) = (Volume::new(), serve("site.tar.gz", archive));
    let (code, stderr) = once(&url, &volume.path(), &["--digest", &wrong, "--log-level", "error"]);
    assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
    assert!(stderr.contains(&right[7..]) && stderr.contains(&wrong), "{stderr}");
    volume.assert_nothing_written();
    let (code, stderr) = once(&url, &volume.path(), &["--digest", &right]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(volume.tree(), site(SITE));
    for (url, flag, value) in
        [(&*url, "--digest", "sha256:x"), ("http://x/manifest.json", "--digest", &right)]
    {
        assert_eq!(once(url, &volume.path(), &[flag, value]).0, 64, "{value}");
    }
    assert_eq!(once(&url, &volume.path(), &["--public-key", "x"]).0, 64, "an archive has no signature");
}
