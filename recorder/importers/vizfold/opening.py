"""Finds the prediction in a path: a folder of files, one of several, or a single file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.systems.vizfold import attention_file
from recorder.importers.foreign_tree import ForeignTree
from recorder.importers.importer import TreeImporter
from recorder.importers.vizfold.folder import open_prediction
from recorder.importers.vizfold.survey import is_known
from recorder.importers.vizfold_archives import FLAGS, SIGNS, ArchiveTree, is_archive

if TYPE_CHECKING:
    from archive_schema.records import RunRecords
    from recorder.importers.tree import TreeSource

PASSES_FLAG: Final = {"passes": "how many passes there were (num_recycles), where no file says it"}
_DEEPEST: Final = 5
_OWN: Final = (
    "predictions", "representations", "trace", "structure", "attention", "alignments",
    "attention_maps", "attn_txt",
)  # fmt: skip
"""Folders of one prediction; any other may be a prediction of its own."""


def open_vizfold(
    tree: ForeignTree,
    part: str | None,
    records: RunRecords | None,
    passes: str | None = None,
    attention_axes: str | None = None,
) -> TreeSource | None:
    """Return the prediction, or the archive of one, in *tree*; None if there is none.

    Parameters
    ----------
    part
        A folder in it, or what the files of one of several predictions begin with.
    passes
        The number of passes, where no file says it.
    attention_axes
        Of archives; see `ArchiveTree`.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if there are several, and none is named; ``invalid-parameter`` for a
        number of passes that is none.
    """
    del records
    stem = tree.url.rpartition("/")[2].rpartition(".")[0]
    if is_archive(tree) and not attention_file(stem):
        _refuse_flag("passes", passes, "an archive says itself which passes it has")
        return ArchiveTree(tree.url, tree.options, attention_axes)
    _refuse_flag("attention_axes", attention_axes, "axes of other files than archives are known")
    count = None if passes is None else _count(passes)
    paths = list(tree.files("", _entered))
    if not paths:
        folder, _, name = tree.url.rpartition("/")
        above = ForeignTree(folder or "/", tree.options)
        if name not in above.files("", lambda _: False):
            return None
        return open_prediction(above, [name], part, count)
    roots = _roots(paths)
    folder = ""
    if "" not in roots and roots:
        if part is None and len(roots) > 1:
            names = ", ".join(sorted(roots)[:20])
            raise tree.refuse(f"expected one prediction, found {names}: name one by --part")
        folder = next((root for root in roots if root == part), "") if part else min(roots)
        if not folder:
            names = ", ".join(sorted(roots)[:20])
            raise tree.refuse(f"there is no prediction {part!r}, but {names}")
        part = None
    if not roots:
        return None
    if folder:
        paths = [path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")]
        tree = ForeignTree(f"{tree.url}/{folder}", tree.options)
    return open_prediction(tree, paths, part, count)


def _entered(folder: str) -> bool:
    name = folder.rpartition("/")[2]
    hidden = name.startswith(".") or name.endswith(".zarr")
    return folder.count("/") < _DEEPEST and not hidden


def _roots(paths: list[str]) -> set[str]:
    """Return the folders that hold a prediction each."""
    roots = set()
    for path in paths:
        folders = path.split("/")[:-1]
        while folders and (folders[-1] in _OWN or folders[-1].startswith("attention_files_")):
            folders.pop()
        if "trace" in folders:
            folders = folders[: folders.index("trace")]
        root = "/".join(folders)
        if is_known(path.removeprefix(f"{root}/") if root else path):
            roots.add(root)
    # What lies beside a prediction's files in folders of its own is part of it.
    return {root for root in roots if not any(_is_below(root, other) for other in roots)}


def _is_below(root: str, other: str) -> bool:
    return root != other and (not other or root.startswith(f"{other}/"))


def _refuse_flag(name: str, value: str | None, reason: str) -> None:
    if value is not None:
        message = f"expected no flag {name}: {reason}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)


def _count(passes: str) -> int:
    if not passes.isdecimal() or not 1 <= int(passes) <= 1000:  # noqa: PLR2004  far beyond any use
        message = f"passes: expected a number of passes from 1 on, got {passes[:40]!r}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return int(passes)


_SIGNS: Final = (
    "*_output_dict.pkl", "predictions/*_output_dict.pkl", "attention_files_*/*", "*/*_attn_layer*",
    "*_attn_layer*", "representations/*_layer*.npy", "trace/index.json",
    "*/attention_files_*/*",
)  # fmt: skip
IMPORTER: Final = TreeImporter(
    open=open_vizfold,
    signs=_SIGNS + SIGNS,
    flags=PASSES_FLAG | FLAGS,
    # A program writes over its files at each pass: of two of them, some would be of each.
    grows=False,
)
