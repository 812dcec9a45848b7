"""`--mode=all`: the whole job, from images to the exported files of a subnet."""

from pathlib import Path

from ofa_jax.run import processes
from ofa_jax.run import workdir as workdir_lib
from ofa_jax.run.benchmark import benchmark_once
from ofa_jax.run.config import Config
from ofa_jax.run.evaluate import evaluate_once
from ofa_jax.run.export import check_formats, export_once
from ofa_jax.run.extract import extract_all, middle_winner
from ofa_jax.run.finetune import finetune_once
from ofa_jax.run.search import check_search, search_once
from ofa_jax.run.train import train


def run_all(config: Config, workdir: Path) -> Path:
    """Trains, evaluates, searches, extracts, fine-tunes and exports; what is done is left alone.

    Returns:
      The directory of the subnet that was exported.
    """
    check_formats(config.export.formats, "export.formats")
    check_search(config)
    train(config, workdir)
    with workdir_lib.locked(workdir):  # new until here, it may be nobody's again
        evaluate_once(config, workdir)
        search_once(config, workdir)
        extract_all(config, workdir)
        subnet = deploy(config, workdir)
    return workdir / "subnets" / subnet


def deploy(config: Config, workdir: Path) -> str:
    """Fine-tunes, exports and times the search's middle winner, unless that is done; its name."""
    name = processes.from_first(lambda: middle_winner(workdir))
    if config.finetune.epochs:
        name = finetune_once(config, workdir, name)
    export_once(config, workdir, name)
    if config.export.benchmark:
        benchmark_once(workdir / "subnets" / name, config.export.benchmark)
    return name
