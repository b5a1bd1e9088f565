#!/usr/bin/env python3
"""Finds circles of files: .ci/circles.py [CRATE...]

A file depends on another where it names something that the other file declares, by a `use` or by a path. A name that a module
re-exports belongs to the file that declares it. Tests do not count. Prints the shortest circle of each knot, with the names
that make it, and fails if there is one. Without arguments: all crates of the workspace.
"""

import collections
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Comments, strings and characters: what is in them names nothing.
NOISE = re.compile(
    r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\])\'', re.DOTALL
)
TEST_ITEM = re.compile(r"#\[cfg\((?:test|any\(test|all\(test|fuzzing|any\(fuzzing)[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?")
USE = re.compile(r"\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
PATH = re.compile(r"\b(?:crate|super|self)(?:::\w+)+")


def without_tests(text):
    """The text without the items that only tests or fuzzers see, and the names of the modules among them."""
    modules = set()
    while match := TEST_ITEM.search(text):
        rest = text[match.end() :]
        if module := re.match(r"mod\s+(\w+)\s*;", rest):
            modules.add(module.group(1))
        end = re.search(r"[;{]", rest)
        stop = end.end() if end else len(rest)
        if end and end.group() == "{":
            depth = 1
            while depth and stop < len(rest):
                depth += {"{": 1, "}": -1}.get(rest[stop], 0)
                stop += 1
        text = text[: match.start()] + rest[stop:]
    return text, modules


def leaves(tree, prefix=()):
    """The paths of a `use` tree, each with the name that it gets here."""
    tree = tree.strip()
    if match := re.match(r"((?:\w+\s*::\s*)*)\{(.*)\}$", tree, re.DOTALL):
        prefix += tuple(re.findall(r"\w+", match.group(1)))
        depth, start = 0, 0
        body = match.group(2) + ","
        for at, letter in enumerate(body):
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if letter == "," and depth == 0:
                if body[start:at].strip():
                    yield from leaves(body[start:at], prefix)
                start = at + 1
        return
    path, _, alias = tree.partition(" as ")
    path = prefix + tuple(re.findall(r"\w+|\*", path))
    if path and path[-1] == "self":
        path = path[:-1]
    if path:
        yield path, alias.strip() or path[-1]


class Crate:
    """The modules of one crate, by their path in it."""

    def __init__(self, source):
        self.source = source
        self.texts = {}
        self.files = {}
        self.exports = collections.defaultdict(dict)
        for root in ("lib.rs", "main.rs"):
            if (source / root).is_file():
                self.load((), source / root, source)

    def load(self, module, file, folder):
        if module in self.files and module:
            return
        text, test_modules = without_tests(NOISE.sub(" ", file.read_text()))
        if module in self.texts:  # lib.rs and main.rs are two roots of one tree
            self.texts[module] += text
        else:
            self.texts[module], self.files[module] = text, file
        for name in re.findall(r"\bmod\s+(\w+)\s*;", text):
            for candidate in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if candidate.is_file() and name not in test_modules:
                    self.load((*module, name), candidate, folder / name)

    def absolute(self, module, path):
        """A path as it is written in `module`, from the crate's root; None where it leaves the crate."""
        if path[0] == "crate":
            return path[1:]
        if path[0] in ("self", "super"):
            at = module
            while path and path[0] in ("self", "super"):
                at = at[:-1] if path[0] == "super" else at
                path = path[1:]
            return (*at, *path)
        return (*module, *path) if (*module, path[0]) in self.files else None

    def declaring(self, path, depth=0):
        """The module that declares what an absolute path names."""
        module = path
        while module not in self.files:
            module = module[:-1]
        rest = path[len(module) :]
        if rest and depth < 10 and rest[0] in self.exports[module]:
            return self.declaring((*self.exports[module][rest[0]], *rest[1:]), depth + 1)
        return module

    def edges(self):
        """For each module, those that it depends on, and by which name."""
        uses = {}
        for module, text in self.texts.items():
            uses[module] = []
            for public, tree in USE.findall(text):
                for path, name in leaves(tree):
                    absolute = self.absolute(module, path)
                    if absolute is None:
                        continue
                    if public:
                        self.exports[module][name] = absolute
                    else:
                        uses[module].append(absolute)
            for path in PATH.findall(USE.sub(" ", text)):
                uses[module].append(self.absolute(module, tuple(path.split("::"))))
        edges = {module: {} for module in self.texts}
        for module, paths in uses.items():
            for path in paths:
                target = self.declaring(tuple(part for part in path if part != "*"))
                if target != module:
                    edges[module].setdefault(target, "::".join(path))
        return edges

    def circles(self):
        """The shortest circle through each module that is in one, each circle once."""
        edges, found = self.edges(), {}
        for start in sorted(edges):
            before, queue = {start: None}, collections.deque([start])
            while queue:
                module = queue.popleft()
                if start in edges[module]:
                    circle = []
                    while module is not None:
                        circle.insert(0, module)
                        module = before[module]
                    found.setdefault(frozenset(circle), [(m, edges[m][n]) for m, n in zip(circle, circle[1:] + [start])])
                    break
                for target in edges[module]:
                    if target not in before:
                        before[target] = module
                        queue.append(target)
        return found.values()


def main():
    manifests = [pathlib.Path(name).resolve() / "Cargo.toml" for name in sys.argv[1:]]
    manifests = manifests or sorted(path for depth in ("*", "*/*") for path in ROOT.glob(f"{depth}/Cargo.toml"))
    failed = 0
    for manifest in manifests:
        source = manifest.parent / "src"
        if not source.is_dir():
            continue
        crate = Crate(source)
        for circle in crate.circles():
            failed += 1
            print(f"{source.relative_to(ROOT)}: a circle of {len(circle)} files")
            for module, name in circle:
                print(f"    {crate.files[module].relative_to(source)} uses {name}")
    if failed:
        sys.exit(f"circles.py: {failed} circles: let one file of each depend on a type or a trait instead")


if __name__ == "__main__":
    main()
