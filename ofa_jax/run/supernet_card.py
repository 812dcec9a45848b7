"""The card of the supernet that a run trained or imported."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ofa_jax.errors import InputError
from ofa_jax.families import space_to_dict
from ofa_jax.names import place
from ofa_jax.run.config import Config
from ofa_jax.run.contents import init_digest
from ofa_jax.run.data.sources import Dataset
from ofa_jax.run.initial import card_at
from ofa_jax.run.plan import Leg
from ofa_jax.space import SearchSpace
from ofa_jax.storage import resolved
from ofa_jax.supernet import Preprocessing, SupernetCard


def supernet_card(
    config: Config, run: str, dataset: Dataset, space: SearchSpace, legs: Sequence[Leg]
) -> SupernetCard:
    """The card of a run's supernet; without phases, `trained` is the initial supernet's.

    Args:
      config: the run's.
      run: the workdir's name.
      dataset: what it was trained on.
      space: of the supernet.
      legs: its phases.
    """
    source = {"run": run}
    if config.init:
        source |= {"init": config.init, "init_sha256": init_digest(config.init)}
    card = SupernetCard(
        space=space_to_dict(space),
        classes=tuple(dataset.class_names),
        preprocessing=Preprocessing(config.data.mean, config.data.std, config.data.center_crop),
        resolutions=config.data.resolutions,
        source=source,
    )
    if not legs:
        began = card_at(config.init, space)
        own = began.resolutions or card.resolutions
        return dataclasses.replace(card, resolutions=own, trained=began.trained)
    trained = {
        "dataset": config.data.name, "images": len(dataset.train), "steps": legs[-1].end,
        "seed": config.seed, "curriculum": list(config.curriculum),
    }  # fmt: skip
    return dataclasses.replace(card, trained=trained)


def check_taken_over(config: Config, workdir: Path) -> None:
    """Raises `ValueError` if a run without training finds another supernet in its workdir.

    A workdir without a `config.json` has been no run's: its supernet was put there.
    """
    if config.curriculum or (workdir / "config.json").is_file():
        return
    its = resolved(place("init", config.init))
    if its not in (resolved(workdir), resolved(workdir / "supernet")):
        raise InputError(
            f"{workdir / 'supernet'} exists and is not init={config.init!r}: give another --workdir"
        )
