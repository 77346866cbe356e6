"""Models of the hub."""

from __future__ import annotations

import os
import warnings
from typing import Callable, List, Optional, Sequence, Union

from . import _palmtop


def pull(
    name: str,
    *,
    weights: Optional[str] = None,
    recipe: Optional[str] = None,
    adapters: Sequence[Union[str, os.PathLike]] = (),
    path: Union[str, os.PathLike, None] = None,
    again: bool = False,
    progress: Optional[Callable[[int, int], None]] = None,
) -> str:
    """Gets a model from the Hugging Face hub, and gives the path of its .palm file.

        model = palmtop.Model(palmtop.pull("paligemma2-3b-mix-224", weights="int4"))

    `name` is ORG/NAME, with @ and a revision if you like, or the short name of what Google has published. The checkpoint
    is converted while it comes, so the disk never holds it: `weights` are f32, f16, int8 (the default) or int4, `recipe`
    says it for parts of the model, and `adapters` (folders of PEFT, or repositories) are merged. A .palm file of the
    repository is fetched as it is, unless one of these is given.

    The model goes into the folder of models, as `palmtop pull` has it, or to `path`. If it is there, nothing is fetched,
    unless `again` is true. What came before an error or Ctrl-C is kept in `path` + ".part", and the next call goes on with
    it. `progress` is called some times a second with the bytes that have come and those that will; if it raises, the pull
    ends.

    The environment says who asks (HF_TOKEN and its like) and where models live (PALMTOP_MODELS). Raises ValueError for a
    name or a format that is none, and Error with what to do for everything else.

    Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms; a model made from it
    comes under them, too.
    """
    paths = [os.fspath(adapter) for adapter in adapters]
    target = os.fspath(path) if path is not None else _palmtop.usual_path(name, weights, recipe is not None, paths)
    if path is None and not again and os.path.isfile(target):
        return target

    def follow(done: int, total: int, notes: List[str]) -> None:
        for note in notes:
            warnings.warn(note, stacklevel=3)
        if progress is not None:
            progress(done, total)

    _palmtop.pull(name, target, weights, recipe, paths, follow)
    return target

