"""Once-for-All training in JAX: one supernet, any subnet of it.

    python main.py --config=configs/digits.py --workdir=runs/digits

trains the supernet and does everything behind it. Safe to run again: it goes on where it stopped,
and does nothing where all is done. A part of it, by --mode:

    profile     what a run will take, before it starts   --config [--target=v5e:2x2]
    train       the supernet, phase after phase          --config --workdir
    evaluate    the grid of its subnets                  --workdir
    search      the best subnets within a budget         --workdir
    extract     one subnet                               --workdir --arch [--resolution --name]
    finetune    a subnet trained further by itself       --workdir --subnet [--name]
    export      files of a subnet for other runtimes     --workdir --subnet --format [--uint8]
    benchmark   how long a subnet takes in each          --subnet [--batch]
    predict     the classes of image files               --subnet --images

    --config         an experiment of configs/; a workdir that is there has its own
    --config.x.y=z   overrides any field of it: docs/configuration.md
    --arch           smallest, largest, a JSON object or a file
    --subnet         a name in the workdir, or a subnet's directory
    --format         one or more of stablehlo,onnx,onnx-int8,tflite
    --images         a file, a directory or a pattern
    --overwrite      extract, finetune and export replace what is there
    --traceback      shows where an error comes from
    --coordinator=HOST:PORT --processes=N --process=I   one of several processes

--helpfull lists every flag with its default.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from jax.errors import JaxRuntimeError
from ml_collections import config_flags

from ofa_jax import compiled, processes
from ofa_jax import workdir as workdir_lib
from ofa_jax.config import FORMATS, Config, from_dict
from ofa_jax.deploy.benchmark import benchmark
from ofa_jax.deploy.export import export, export_once
from ofa_jax.deploy.predict import predict
from ofa_jax.report import write_report
from ofa_jax.subnets.card import find_subnet
from ofa_jax.subnets.evaluate import evaluate, evaluate_once
from ofa_jax.subnets.save import extract_all, extract_to, middle_winner
from ofa_jax.subnets.specialize import search, search_once
from ofa_jax.train.finetune import finetune, finetune_once
from ofa_jax.train.loop import train
from ofa_jax.train.preemption import Preempted
from ofa_jax.train.profile import profile

# Exit codes: what the user can mend, a lost process (sysexits' "unavailable"), SIGTERM (sysexits'
# "try again") and Ctrl-C (the shell's).
WRONG, LOST, PREEMPTED, INTERRUPTED = 2, processes.LOST, 75, 130
MODES = ("all", "profile", "train", "evaluate", "search", "extract", "finetune", "export",
         "benchmark", "predict")  # fmt: skip
# What a subnet's directory alone is enough for.
OF_SUBNET = ("benchmark", "predict")
USED_BY = {
    "subnet": ("finetune", "export", "benchmark", "predict"),
    "format": ("export",),
    "images": ("predict",),
}

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file(
    "config", None, "Experiment, such as configs/digits.py; without it the workdir's own."
)
flags.DEFINE_string("workdir", "", "Directory of the run; made if it does not exist.")
flags.DEFINE_string("mode", "all", f"What to do: {', '.join(MODES)}.")
flags.DEFINE_string("arch", "", "--mode=extract: smallest, largest, a JSON object or a file.")
flags.DEFINE_string("name", "", "--mode=extract, finetune: the new subnet's name.")
flags.DEFINE_integer("resolution", None, "--mode=extract: pixels.", lower_bound=1)
flags.DEFINE_bool("overwrite", False, "--mode=extract, finetune, export: replace what is there.")
flags.DEFINE_string("subnet", "", "--mode=finetune, export, ...: a subnet's name or directory.")
flags.DEFINE_list("format", [], f"--mode=export: one or more of {','.join(FORMATS)}.")
flags.DEFINE_bool("uint8", False, "--mode=export: files take pixels and normalise them.")
flags.DEFINE_string("images", "", "--mode=predict: a file, a directory or a pattern.")
flags.DEFINE_integer("batch", 32, "--mode=benchmark: images a call, besides 1.", lower_bound=1)
flags.DEFINE_string("target", "", "--mode=profile: TPUs to compile for, such as v5e:2x2.")
flags.DEFINE_string("coordinator", "", "Several processes: HOST:PORT of the first one.")
flags.DEFINE_integer("processes", 0, "Several processes: how many.", lower_bound=0)
flags.DEFINE_integer("process", -1, "Several processes: which one this is, from 0.")
flags.DEFINE_bool("traceback", False, "Show the traceback of an error.")


def run(config: Config, workdir: Path) -> str:
    """Dispatches the mode; the flags of the command that people want next."""
    here = f"--workdir={workdir}"
    match FLAGS.mode:
        case "all":
            train(config, workdir)
            evaluate_once(config, workdir)
            search_once(config, workdir)
            extract_all(config, workdir)
            subnet = deploy(config, workdir)
            return f"--mode=predict --subnet={workdir / 'subnets' / subnet} --images='photos/*.jpg'"
        case "profile":
            profile(config, FLAGS.target)
            return ""
        case "train":
            train(config, workdir)
            return f"--mode=evaluate {here}"
        case "evaluate":
            evaluate(config, workdir)
            return f"--mode=search {here}"
        case "search":
            search(config, workdir)
            name = processes.from_first(lambda: middle_winner(workdir))
            return f"--mode=extract {here} --arch={workdir / 'search' / name}.json"
        case "extract":
            if not FLAGS.arch:
                raise ValueError("--mode=extract needs --arch: smallest, largest, JSON or a file")
            directory = extract_to(config, workdir, FLAGS.arch, FLAGS.resolution, FLAGS.name,
                                   overwrite=FLAGS.overwrite)  # fmt: skip
            return f"--mode=finetune {here} --subnet={directory.name}"
        case "finetune":
            directory = finetune(config, workdir, FLAGS.subnet, FLAGS.name,
                                 overwrite=FLAGS.overwrite)  # fmt: skip
            return f"--mode=export {here} --subnet={directory.name} --format=onnx,tflite"
        case _:
            export(config, workdir, FLAGS.subnet, FLAGS.format or config.export.formats,
                   uint8=FLAGS.uint8, overwrite=FLAGS.overwrite)  # fmt: skip
            return f"--mode=benchmark --subnet={find_subnet(workdir, FLAGS.subnet)}"


def deploy(config: Config, workdir: Path) -> str:
    """Fine-tunes and exports the search's middle winner, unless that is done; its name."""
    name = processes.from_first(lambda: middle_winner(workdir))
    if config.finetune.epochs:
        name = finetune_once(config, workdir, name)
    export_once(config, workdir, name)
    return name


def run_subnet(workdir: Path) -> None:
    """Dispatches a mode that needs nothing but a subnet."""
    directory = find_subnet(workdir, FLAGS.subnet)
    if FLAGS.mode == "benchmark":
        benchmark(directory, FLAGS.batch)
    if FLAGS.mode == "predict":
        predict(directory, FLAGS.images)


def main(_: list[str]) -> None:
    if not FLAGS["verbosity"].present:
        # Orbax tells every step of every save otherwise, and pages where a line of ours says it.
        logging.set_verbosity(logging.FATAL)
    try:
        check_flags()
        if FLAGS.target:
            jax.config.update("jax_platforms", "cpu")  # the TPUs are not here
        compiled.keep()
        processes.connect(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
        if not processes.is_first():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        workdir = Path(FLAGS.workdir)
        if FLAGS.mode in OF_SUBNET:
            run_subnet(workdir)
            return
        config = read_config(workdir)
        with processes.watched(config.parallel.timeout):
            workdir_lib.check_processes(workdir, config)
            following = run(config, workdir)
            if (workdir / "config.json").is_file() and FLAGS.workdir:
                print(f"report: {processes.from_first(lambda: str(write_report(workdir)))}")
        if following:
            print(f"next: python main.py {following}")
    except (ValueError, FloatingPointError, OSError) as error:
        fail(error)
    except Preempted as stop:
        print(f"{stop}: the same command goes on", file=sys.stderr)
        sys.exit(PREEMPTED)
    except KeyboardInterrupt:
        processes.end("interrupted: the same command goes on", INTERRUPTED)
    except Exception as error:
        fail_unexpectedly(error)


def check_flags() -> None:
    if FLAGS.mode not in MODES:
        raise ValueError(f"--mode={FLAGS.mode!r}: expected one of {', '.join(MODES)}")
    if FLAGS.target and FLAGS.mode != "profile":
        raise ValueError(f"--target={FLAGS.target!r} is for --mode=profile")
    for flag in ("subnet", "format", "images"):
        if FLAGS[flag].present and FLAGS.mode not in USED_BY[flag]:
            raise ValueError(f"--{flag} is for --mode={' or '.join(USED_BY[flag])}")
    enough = (FLAGS.mode == "profile" and FLAGS.config) or (
        FLAGS.mode in OF_SUBNET and FLAGS.subnet
    )
    if not FLAGS.workdir and not enough:
        raise ValueError("--workdir is missing: for example --workdir=runs/digits")


def read_config(workdir: Path) -> Config:
    """The config of the flags, or the workdir's own."""
    if FLAGS.config is None:
        return workdir_lib.stored_config(workdir)
    config = from_dict(FLAGS.config.to_dict())
    if FLAGS.workdir:
        workdir_lib.check(workdir, config)
    return config


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; what absl and ml_collections raise becomes one line too."""
    if len(argv) == 1 or {"--help", "-h", "help"} & set(argv):
        print((__doc__ or "").strip())
        sys.exit()
    try:
        for flag, _, path in (argument.partition("=") for argument in argv):
            if flag == "--config" and not Path(path.split(":")[0]).is_file():
                raise ValueError(f"--config={path!r} is no file: try configs/digits.py")
        return FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(error)


def fail_unexpectedly(error: Exception) -> NoReturn:
    """Ends with what the runtime's errors most likely mean; others keep their traceback."""
    of_runtime = isinstance(error, JaxRuntimeError)
    if of_runtime and "RESOURCE_EXHAUSTED" in str(error):
        fail(f"out of memory; more parallel.micro_steps need less: {error}")
    if not processes.several():
        raise error
    if of_runtime:
        fail(f"a process was lost, or the network: {error}", LOST)
    traceback.print_exception(error)
    processes.end("error: this is a fault of the program", 1)


def fail(error: Exception | str, code: int = WRONG) -> NoReturn:
    if "--traceback" in sys.argv and isinstance(error, Exception):
        raise error
    text = str(error.args[0] if isinstance(error, KeyError) else error)  # a KeyError quotes itself
    if "Traceback" in text:  # ml_collections quotes what a config file raised
        text = text.strip().splitlines()[-1]
    processes.end(f"error: {' '.join(text.split())[:1000]}", code)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
