"""A run as a tree of files stays below the folder that it is written to."""

from __future__ import annotations

from server.exporters.tree import Tree, TreeFile


def test_paths_that_lead_out_are_left_out_and_told() -> None:
    outside = ("../a", "b/../../c", "/etc/d", "b//e", "b\\..\\f", "", ".")
    files = [TreeFile(path, 1, "", lambda _: None) for path in ("in/side", *outside)]

    tree = Tree.of(files, ["a note"])

    assert [file.path for file in tree.files] == ["in/side"]
    assert tree.notes == ("a note", "paths that lead out of the folder are left out: '../a', …")
