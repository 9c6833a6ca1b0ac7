"""Finding a model: by its name from any folder, or by the path of its folder or of its file.

A name is looked up in `models/` of the current folder, then of this project or of the installed
package. Relative paths in a model's files (nets, lists, weights) are meant from its `root`. Trained
weights that the project brings lie in the model's folder, as `weights.safetensors`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lglstm.common.checkout import PACKAGE, checkout
from lglstm.common.errors import InputError
from lglstm.common.suggest import close, nearest

PathLike = str | os.PathLike[str]

FOLDER = "models"
LABELS = "labels.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model; they need not all exist.

    name: of the model; of a file elsewhere, that of its folder or, if the file has one, its own.
    file: the file that was looked for.
    root: the folder from which relative paths in the files are meant: the one that holds `models/`,
        and the current one for files elsewhere and for those of the installed package.
    """

    name: str
    file: Path
    root: Path

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def is_packaged(self) -> bool:
        """Whether it is one of the installed package, which has no data and no runs beside it."""
        return PACKAGE in self.file.resolve().parents

    @property
    def labels(self) -> Path:
        """The file of its label set, which every generated model has: labels.LabelSet.to_text."""
        return self.file.with_name(LABELS)

    @property
    def weights(self) -> Path | None:
        """The trained weights that lie in the model's folder; None if it has none.

        Those of an installed package's model are looked for in `models/` of the current folder.
        """
        own = Path(FOLDER, self.name) if self.is_packaged else self.folder
        return own / WEIGHTS if (own / WEIGHTS).is_file() else None

    def form(self, name: str) -> Path:
        """Another file of the model: `train`, `test`, `deploy` or `solver`."""
        path = self.file.with_name(f"{name}.prototxt")
        if not path.is_file():
            raise InputError(
                f"{path}: does not exist; generate it with `lglstm models generate`, or name a "
                "model that has one"
            )
        return path


def find_model(model: str, form: str = "deploy") -> ModelFiles:
    """Find a model's `train`, `test`, `deploy` or `solver` prototxt, whichever `form` names.

    model: a name in `models/`, a folder that holds the file, or the file itself.
    Raises InputError with the nearest name when there is none.
    """
    if model.endswith(".prototxt") or "/" in model or os.sep in model:
        path = Path(model)
        path = path / f"{form}.prototxt" if path.is_dir() else path
        if not path.is_file():
            folder = path.parent.name if path.suffix == ".prototxt" else path.name
            meant = close(folder, known_models(form))
            advice = f"did you mean the model {meant}" if meant else "give a model's name or a path"
            raise InputError(f"{path}: there is no such file; {advice}")
        name = path.resolve().parent.name if path.stem == form else path.stem
        return ModelFiles(name, path, Path.cwd())
    for root in _roots():
        path = root / FOLDER / model / f"{form}.prototxt"
        if path.is_file():
            return ModelFiles(model, path, Path.cwd() if root == PACKAGE else root)
    raise InputError(
        f"there is no model '{model}'; {nearest(model, known_models(form))}; or give the path of a "
        "prototxt, or make the model with `lglstm models generate`"
    )


def known_models(form: str = "deploy") -> list[str]:
    """The names that `find_model` finds."""
    files = (path for root in _roots() for path in (root / FOLDER).glob(f"*/{form}.prototxt"))
    return sorted({path.parent.name for path in files})


def find_weights(asked: PathLike | None, model: ModelFiles) -> Path:
    """The weights to use: those asked for, by a path or a model's name, else the model's own."""
    return trained_weights(model) if asked is None else named_weights(asked)


def named_weights(name: PathLike) -> Path:
    """The trained weights of the model of this name, or else the path of a file.

    Whether the file exists, its reader says. Raises InputError for a model that has no weights.
    """
    if os.fspath(name) not in known_models() or os.path.isfile(name):
        return Path(name)
    return trained_weights(find_model(os.fspath(name)))


def trained_weights(model: ModelFiles) -> Path:
    """The weights in a model's folder; InputError where there are none, with models that have."""
    if model.weights is not None:
        return model.weights
    have = [name for name in known_models() if find_model(name).weights]
    akin = [name for name in have if _kind(name) == _kind(model.name)] or have
    advice = "name a file with --weights"
    if model.is_packaged:
        place = Path(FOLDER, model.name, WEIGHTS)
        advice = f"copy {place} from a checkout of the project to {place} here, or {advice}"
    if akin:
        advice += f", or take a model that has some: {', '.join(akin)}"
    raise InputError(f"{model.name}: there are no trained weights in its folder; {advice}")


def _kind(name: str) -> str:
    """What a model parses: horse_161 and horse_local2 parse horses."""
    return name.partition("_")[0]


def _roots() -> dict[Path, None]:
    """The folders with a `models/`, each once, in the order in which they are looked at."""
    return dict.fromkeys((Path.cwd(), checkout() or PACKAGE))
