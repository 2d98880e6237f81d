"""From what a user types to a `PictureSet`: a path tells by what is there, anything else is a name.

pictures.csv .tsv .jsonl                a table
set.tar, or a folder with tars          webdataset; in test/ (or val, validation) where there is such a folder
a folder of folders                     classes; likewise
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tercet.data.sets.built_in import BUILT_IN, built_in
from tercet.data.sets.folders import class_folders, class_names, read_folders, say_left_out
from tercet.data.sets.named import NAMED, Named, classes_of, place_of, templates_of
from tercet.data.sets.sample import TEMPLATES, PictureSet, Sample, filled, lines
from tercet.data.sets.tables import SUFFIXES, table
from tercet.data.sets.webdataset import read_tars, tars_in
from tercet.errors import FormatError
from tercet.fsio import user_path

__all__ = ["open_set"]

SPLITS = ("test", "val", "validation")


def open_set(source: str | Path) -> PictureSet:
    """Opens a dataset. Raises FormatError: no such path or name, not downloaded, not understood."""
    path = user_path(source)
    if path.exists():
        return _from_path(path)
    own = built_in(str(source))
    if own is not None:
        return own
    named = NAMED.get(str(source))
    if named is None:
        names = ", ".join((*BUILT_IN, *NAMED))
        raise FormatError(f"{str(source)[:200]}: no such file or folder, and no name of a dataset; names: {names}")
    return _named(named)


def _from_path(path: Path) -> PictureSet:
    if path.suffix.lower() in SUFFIXES:
        task, classes, samples = table(path, lines(path.parent / "classnames.txt"))
        metric = "top1" if classes else "recall"
        return PictureSet(path.stem, task, metric, classes, _templates(path.parent) or TEMPLATES, samples)  # type: ignore[arg-type]
    if path.suffix.lower() == ".tar":
        return _tars(path.stem, [path], path.parent, None)
    if not path.is_dir():
        raise FormatError(f"{path}: give a folder of class folders, a .csv, .tsv, .jsonl, or webdataset tars")
    part = _part(path)
    tars = tars_in(part)
    if tars:
        return _tars(path.name, tars, path, None)
    folders = class_folders(part)
    say_left_out(part)
    known = lines(part / "classnames.txt") or lines(part.parent / "classnames.txt")
    return PictureSet(
        path.name,
        "classification",
        "top1",
        class_names(part, folders, known),
        _templates(path) or TEMPLATES,
        lambda: read_folders(part, folders),
        _training(path, folders),
    )


def _named(named: Named) -> PictureSet:
    place = place_of(named)
    part = _part(place)
    tars = tars_in(part)
    if tars:
        return _tars(named.name, tars, place, named)
    if named.task == "retrieval":
        found = sorted(file for file in part.iterdir() if file.suffix.lower() in SUFFIXES)
        if not found:
            raise FormatError(f"{part}: neither tars nor a table of captions; get {named.download}")
        task, _, samples = table(found[0], None)
        if task != "retrieval":
            raise FormatError(f"{found[0]}: no captions in it; {named.name} is a retrieval set")
        return PictureSet(named.name, "retrieval", "recall", (), TEMPLATES, samples)
    folders = class_folders(part)
    say_left_out(part)
    known = lines(place / "classnames.txt") or (classes_of(named) if named.classes else None)
    return PictureSet(
        named.name,
        "classification",
        named.metric,
        class_names(part, folders, known),
        _templates(place) or templates_of(named),
        lambda: read_folders(part, folders),
        _training(place, folders),
    )


def _tars(name: str, tars: list[Path], place: Path, named: Named | None) -> PictureSet:
    classes = lines(place / "classnames.txt") or lines(place.parent / "classnames.txt")
    kind = lines(place / "dataset_type.txt")
    captioned = named.task == "retrieval" if named else kind == ("retrieval",) or classes is None
    if captioned:
        return PictureSet(name, "retrieval", "recall", (), TEMPLATES, lambda: read_tars(tars))
    prompts = _templates(place)
    if named is not None:
        classes = classes or classes_of(named)
        prompts = prompts or templates_of(named)
    metric = named.metric if named else "top1"
    return PictureSet(
        name,
        "classification",
        metric,
        classes or (),
        prompts or TEMPLATES,
        lambda: read_tars(tars),
        _training(place, None),
    )


def _part(folder: Path) -> Path:
    return next((folder / split for split in SPLITS if (folder / split).is_dir()), folder)


def _training(folder: Path, classes: Sequence[str] | None) -> Callable[[], Iterator[Sample]] | None:
    """`classes` are the class folders of the test pictures, None where those are in tars."""
    train = folder / "train"
    if not train.is_dir() or not any((folder / split).is_dir() for split in SPLITS):
        return None

    def begin() -> Iterator[Sample]:
        tars = tars_in(train)
        if bool(tars) == (classes is not None):
            raise FormatError(f"{folder}: of train/ and the test pictures one is tars, the other folders; make both so")
        return read_tars(tars) if classes is None else read_folders(train, classes)

    return begin


def _templates(folder: Path) -> tuple[str, ...] | None:
    path = folder / "zeroshot_classification_templates.txt"
    made = lines(path)
    bad = next((each for each in made or () if filled(each, "") == each), None)
    if bad is not None:
        raise FormatError(f"{path}: {bad[:80]!r} has no {{c}} in it, where the class is named")
    return made
