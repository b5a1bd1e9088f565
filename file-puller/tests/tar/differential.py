"""file-puller and `tar -x` on the same archives: both get the same files, or file-puller refuses.

First archives as GNU tar makes them, in every format, compressed or not, and with everything that a tree can have: all of it, and
what a selection leaves of it. Then the same ones with a few bytes changed and their checksums put right, which is how readers of the
format come to disagree. A `.git` is extracted by tar, and never published.
"""

import functools
import http.server
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

BINARY = os.environ["FILE_PULLER"]
FORMATS = [
    ["--format=v7"],
    ["--format=oldgnu"],
    ["--format=gnu"],
    ["--format=ustar"],
    ["--format=posix"],
    ["--format=posix", "--pax-option=globexthdr.name=g,comment=hello"],
    ["--format=posix", "--pax-option=delete=mtime,delete=atime,delete=ctime"],
    ["--format=oldgnu", "--sparse"],
    ["--format=gnu", "--sparse"],
    ["--format=posix", "--sparse", "--sparse-version=0.0"],
    ["--format=posix", "--sparse", "--sparse-version=0.1"],
    ["--format=posix", "--sparse", "--sparse-version=1.0"],
]
COMPRESSIONS = ["none", "gzip", "zstd", "skipped"]
# What is selected, in the words of both programs: a name of `--exclude` is one at any depth for either.
EXCLUSIONS = [[], ["--exclude=css"], ["--exclude=*.html", "--exclude=size-513"]]
# Of names without `./`, which only GNU tar counts as a component; damage may write it.
SELECTIONS = [*EXCLUSIONS, ["--strip-components=1"], ["--strip-components=1", "--exclude=index.html"]]


def make_tree(root, what):
    root.mkdir()
    (root / "index.html").write_text("<h1>hello</h1>\n" * 10)
    (root / "empty").write_text("")
    (root / "css").mkdir()
    (root / "css/site.css").write_text("a{}")
    (root / "css/run").write_text("#!/bin/sh")
    (root / "css/run").chmod(0o755)
    (root / "umlaut-\u00fc.html").write_text("\u00fc")
    if "long" in what:
        deep = root / "/".join(["directory" * 3] * 6)
        deep.mkdir(parents=True)
        (deep / ("name" * 40 + ".html")).write_text("long")
    if "links" in what:
        os.link(root / "css/site.css", root / "hard.css")
        (root / "soft.css").symlink_to("css/site.css")
        (root / "dir").symlink_to("css")
    if "sparse" in what:
        with open(root / "sparse", "wb") as file:
            for at in (0, 1 << 18, 3 << 18):
                file.seek(at)
                file.write(b"data")
            file.truncate(1 << 20)
    if "git" in what:
        (root / ".git/objects/pack").mkdir(parents=True)
        (root / ".git/config").write_text("[core]")
        (root / ".git/objects/pack/1.pack").write_bytes(random.Random(1).randbytes(300 << 10))
        (root / "css/large").write_bytes(b"x" * (300 << 10))
    if "blocks" in what:
        for size in (511, 512, 513, 10240):
            (root / f"size-{size}").write_bytes(random.Random(size).randbytes(size))


def files(root):
    """Path to content and whether it can be executed, with links as what they point to."""
    found = {}
    for directory, _, names in os.walk(root, followlinks=True):
        for name in names:
            file = Path(directory, name)
            executable = bool(file.stat().st_mode & 0o100)
            if ".git" in file.relative_to(root).parts:
                continue  # It is never published.
            found[os.fsencode(file.relative_to(root))] = (file.read_bytes(), executable)
    return found


def compress(archive, how):
    """As a server may have it. Frames that are to be skipped are as pzstd writes them: tar itself does not know them."""
    match how:
        case "none":
            return archive
        case "skipped":
            half = len(archive) // 2
            skipped = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"size"
            return b"".join(skipped + compress(part, "zstd") for part in (archive[:half], archive[half:]))
        case program:
            return subprocess.run([program, "--quiet"], input=archive, capture_output=True, check=True).stdout


def damage(archive, random):
    """Changes one to three fields of one to two headers, and puts their checksums right."""
    archive = bytearray(archive)
    headers = [at for at in range(0, len(archive), 512) if archive[at + 257 : at + 262] == b"ustar" or archive[at] and at + 512 <= len(archive) and checksum_is_right(archive, at)]
    for at in random.sample(headers, min(len(headers), random.choice([1, 1, 2]))):
        for _ in range(random.choice([1, 1, 2, 3])):
            match random.randrange(8):
                case 0:
                    archive[at + 156] = random.choice(b"01234567xXgLKNSDVMAEI\0")
                case 1:
                    size = random.choice([0, 1, 5, 511, 512, 513, 1024, 1 << 20])
                    archive[at + 124 : at + 136] = f"{size:011o}\0".encode()
                case 2:
                    archive[at + random.randrange(100)] = random.choice(b"/.\0 a\\\n\x80")
                case 3:
                    archive[at + 157 + random.randrange(100)] = random.choice(b"/.\0 a")
                case 4:
                    archive[at + 257 : at + 265] = random.choice([b"ustar\x0000", b"ustar  \0", b"\0" * 8])
                case 5:
                    archive[at + 345 + random.randrange(155)] = random.choice(b"/.\0a1")
                case 6:
                    # Within the content, which is the extended header where there is one.
                    if at + 512 < len(archive):
                        within = at + 512 + random.randrange(min(120, len(archive) - at - 512))
                        archive[within] = random.choice(b"0123456789 =\n\0/")
                case 7:
                    archive[at + 100 + random.randrange(8)] = random.choice(b"01234567 ")
        fix_checksum(archive, at)
    return bytes(archive)


def checksum_is_right(archive, at):
    try:
        return int(bytes(archive[at + 148 : at + 156]).strip(b" \0") or b"-1", 8) == checksum(archive, at)
    except ValueError:
        return False


def checksum(archive, at):
    return sum(archive[at : at + 148]) + 8 * 32 + sum(archive[at + 156 : at + 512])


def fix_checksum(archive, at):
    archive[at + 148 : at + 156] = f"{checksum(archive, at):06o}\0 ".encode()


class Comparison:
    def __init__(self, root):
        self.root = root
        self.served = root / "served"
        self.served.mkdir()
        handler = functools.partial(Quiet, directory=str(self.served))
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        # A puller that refuses an archive does not read the rest of it.
        self.http.handle_error = lambda *_: None
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.published = self.refused = 0

    def compare(self, archive, name, strict, selection=(), compression="none"):
        name = f"{name} with {' '.join(selection)}" if selection else name
        (self.served / "site.tar").write_bytes(compress(archive, compression))
        plain = self.root / "plain.tar"
        plain.write_bytes(archive)
        with tempfile.TemporaryDirectory(dir=self.root) as directory:
            work = Path(directory)
            url = f"http://127.0.0.1:{self.http.server_port}/site.tar"
            ours = subprocess.run(
                [BINARY, "--once", "--source", url, "--volume", str(work / "volume"), "--log-level", "error", *selection],
                capture_output=True,
                text=True,
            )
            if ours.returncode == 78:
                self.refused += 1
                if strict:
                    self.fail(archive, f"{name}: refused: {ours.stderr}")
                return ours.stderr
            if ours.returncode != 0:
                self.fail(archive, f"{name}: exit code {ours.returncode}: {ours.stderr}")
            extracted = work / "extracted"
            extracted.mkdir()
            subprocess.run(
                ["tar", "--extract", "--no-same-owner", *selection, "--file", str(plain), "--directory", str(extracted)],
                capture_output=True,
            )
            self.published += 1
            current = (work / "volume/current").resolve()
            ours, theirs = files(current), files(extracted)
            # What neither a web server nor a release has.
            if ours != theirs:
                different = {path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)}
                # Not published is safe; published with other content is not.
                wrong = {path for path in different if path in ours}
                if wrong or strict:
                    self.fail(archive, f"{name}: differs in {sorted(different)[:5]}")
        return ""

    def fail(self, archive, why):
        kept = Path(tempfile.gettempdir(), "differential.tar")
        kept.write_bytes(archive)
        sys.exit(f"{why}\nthe archive is {kept}")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def make(tree, flags, members):
    made = subprocess.run(["tar", "--create", *flags, "--directory", str(tree), *members], capture_output=True)
    # Some names cannot be held by some formats.
    return made.stdout if made.returncode == 0 else None


def with_directory_over_file(archive, root):
    """The archive with `empty` once more, which is a directory now."""
    (root / "over/empty").mkdir(parents=True, exist_ok=True)
    appended = root / "appended.tar"
    appended.write_bytes(archive)
    subprocess.run(["tar", "--append", "--file", str(appended), "--directory", str(root / "over"), "./empty"], check=True)
    return appended.read_bytes()


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        comparison = Comparison(root)
        archives = []
        for number, what in enumerate([[], ["links"], ["long", "blocks"], ["sparse", "links", "blocks"], ["git", "blocks"]]):
            tree = root / f"tree-{number}"
            make_tree(tree, what)
            for flags in FORMATS:
                made = make(tree, flags, ["."])
                if made is None:
                    continue
                name = f"{' '.join(flags)} of {what}"
                is_sparse = "sparse" in what and "--sparse" in flags
                reason = comparison.compare(made, name, strict=not is_sparse)
                if is_sparse and "is a sparse file" not in reason:
                    comparison.fail(made, f"{name}: not refused as sparse: {reason}")
                archives.append((name, made))
        print(f"{len(archives)} archives as GNU tar makes them: the same files, or sparse and refused")
        name, archive = archives[0]
        over = with_directory_over_file(archive, root)
        reason = comparison.compare(over, "a directory over a file", strict=False)
        if "is listed twice" not in reason:
            comparison.fail(over, f"a directory over a file is not refused: {reason}")
        for how in COMPRESSIONS:
            comparison.compare(archive, f"{how}: {name}", strict=True, compression=how)
        print(f"{len(COMPRESSIONS)} ways to compress: the same files")
        selected = []
        for number in (0, 2, 4):
            for flags in FORMATS[:7]:
                made = make(root, flags, [f"tree-{number}"])
                if made is not None:
                    selected.append((f"{' '.join(flags)} of tree {number}", made))
        for name, archive in selected:
            for selection in SELECTIONS:
                comparison.compare(archive, name, True, selection)
        print(f"{len(selected)} archives with {len(SELECTIONS)} selections each: the same files")
        before = comparison.published, comparison.refused
        for number in range(seed, seed + count):
            chance = random.Random(number)
            if chance.random() < 0.5:
                (name, archive), selection = chance.choice(archives), []
            else:
                (name, archive), selection = chance.choice(selected), chance.choice(EXCLUSIONS)
            how = chance.choice(COMPRESSIONS)
            comparison.compare(damage(archive, chance), f"seed {number}, {name}", False, selection, how)
        published, refused = comparison.published - before[0], comparison.refused - before[1]
        print(f"{count} damaged ones: {published} published as tar extracts them, {refused} refused")


if __name__ == "__main__":
    main()
