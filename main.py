"""Once-for-All training in JAX: one supernet, any subnet of it.

    python main.py --config=configs/digits.py --workdir=runs/digits

trains the supernet and runs all later steps. It is safe to run again: it resumes where it stopped
and does nothing once everything is done. --mode runs a single step:

    profile     estimate memory and time before a run    --config [--target=v5e:2x2]
    train       train the supernet, phase by phase       --config --workdir
    evaluate    evaluate a grid of its subnets           --workdir
    search      find the best subnets within a budget    --workdir
    extract     cut out one subnet                       --workdir --arch [--resolution --name]
    finetune    train one subnet further                 --workdir --subnet [--name]
    export      write a subnet for other runtimes        --workdir --subnet --format [--uint8]
    benchmark   time a subnet in each runtime            --subnet [--batch]
    predict     classify image files                     --subnet --images [--strict --json]

    --config         a file of configs/; an existing workdir has its own
    --config.x.y=z   overrides a field: docs/configuration.md
    --arch           smallest, largest, published:NAME, a JSON object or a file
    --subnet         a name in the workdir, or a subnet's directory
    --format         one or more of stablehlo,onnx,onnx-int8,tflite
    --images         a file, a directory or a pattern
    --overwrite      extract, finetune and export replace existing files
    --traceback      show where an error comes from
    --coordinator=HOST:PORT --processes=N --process=I   one of several processes

--helpfull lists every flag with its default.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the rest is imported: no traceback

import os
import sys
import traceback
from pathlib import Path
from shlex import quote
from typing import NoReturn

import jax
from absl import app, flags, logging
from jax.errors import JaxRuntimeError
from ml_collections import config_flags

from ofa_jax import compiled, processes, signals, streams
from ofa_jax import workdir as workdir_lib
from ofa_jax.config import FORMATS, Config, check_field, from_dict
from ofa_jax.deploy.benchmark import benchmark, benchmark_once
from ofa_jax.deploy.export import check_formats, export, export_once
from ofa_jax.deploy.predict import predict
from ofa_jax.files import LINE, short, shown
from ofa_jax.names import local_path
from ofa_jax.report import write_report
from ofa_jax.subnets.card import find_subnet
from ofa_jax.subnets.evaluate import evaluate, evaluate_once
from ofa_jax.subnets.save import extract_all, extract_to, middle_winner
from ofa_jax.subnets.specialize import check_search, search, search_once
from ofa_jax.train.finetune import finetune, finetune_once
from ofa_jax.train.loop import train
from ofa_jax.train.preemption import Preempted
from ofa_jax.train.profile import profile

# Exit codes: what the user can mend, a lost process (sysexits' "unavailable"), and SIGTERM, SIGHUP
# (sysexits' "try again") or Ctrl-C (the shell's, 130), which `signals` has.
WRONG, LOST, PREEMPTED = 2, processes.LOST, signals.PREEMPTED
MODES = ("all", "profile", "train", "evaluate", "search", "extract", "finetune", "export",
         "benchmark", "predict")  # fmt: skip
# What a subnet's directory alone is enough for.
OF_SUBNET = ("benchmark", "predict")
USED_BY = {
    "subnet": ("finetune", "export", "benchmark", "predict"),
    "format": ("export",),
    "images": ("predict",),
    "strict": ("predict",),
    "json": ("predict",),
}

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file(
    "config", None, "Experiment, such as configs/digits.py; without it the workdir's own."
)
flags.DEFINE_string("workdir", "", "Directory of the run; made if it does not exist.")
flags.DEFINE_string("mode", "all", f"What to do: {', '.join(MODES)}.")
flags.DEFINE_string("arch", "", "--mode=extract: a word, published:NAME, JSON or a file.")
flags.DEFINE_string("name", "", "--mode=extract, finetune: the new subnet's name.")
flags.DEFINE_integer("resolution", None, "--mode=extract: pixels.", lower_bound=1)
flags.DEFINE_bool("overwrite", False, "--mode=extract, finetune, export: replace what is there.")
flags.DEFINE_string("subnet", "", "--mode=finetune, export, ...: a subnet's name or directory.")
flags.DEFINE_list("format", [], f"--mode=export: one or more of {','.join(FORMATS)}.")
flags.DEFINE_bool("uint8", False, "--mode=export: files take pixels and normalise them.")
flags.DEFINE_string("images", "", "--mode=predict: a file, a directory or a pattern.")
flags.DEFINE_bool("strict", False, "--mode=predict: an image that cannot be read is an error.")
flags.DEFINE_bool("json", False, "--mode=predict: lines of JSON.")
flags.DEFINE_integer("batch", 32, "--mode=benchmark: images a call, besides 1.", lower_bound=1)
flags.DEFINE_string("target", "", "--mode=profile: TPUs to compile for, such as v5e:2x2.")
flags.DEFINE_string("coordinator", "", "Several processes: HOST:PORT of the first one.")
flags.DEFINE_integer("processes", 0, "Several processes: how many.", lower_bound=0)
flags.DEFINE_integer("process", -1, "Several processes: which one this is, from 0.")
flags.DEFINE_bool("traceback", False, "Show the traceback of an error.")


def run(config: Config, workdir: Path) -> str:
    """Dispatches the mode; the flags of the command that people want next."""
    here = quote(f"--workdir={workdir}")
    if FLAGS.mode in ("evaluate", "search", "extract", "finetune") and not config.curriculum:
        train(config, workdir)  # takes the supernet over, unless that is done
    match FLAGS.mode:
        case "all":
            check_formats(config.export.formats, "export.formats")
            check_search(config)
            train(config, workdir)
            with workdir_lib.locked(workdir):  # new until here, it may be nobody's again
                evaluate_once(config, workdir)
                search_once(config, workdir)
                extract_all(config, workdir)
                subnet = deploy(config, workdir)
            found = quote(f"--subnet={workdir / 'subnets' / subnet}")
            return f"--mode=predict {found} --images='photos/*.jpg'"
        case "train":
            train(config, workdir)
            return f"--mode=evaluate {here}"
        case "evaluate":
            evaluate(config, workdir)
            return f"--mode=search {here}"
        case "search":
            search(config, workdir)
            name = processes.from_first(lambda: middle_winner(workdir))
            return f"--mode=extract {here} " + quote(f"--arch={workdir / 'search' / name}.json")
        case "extract":
            if not FLAGS.arch:
                raise ValueError("--mode=extract needs --arch: smallest, largest, JSON or a file")
            directory = extract_to(config, workdir, FLAGS.arch, FLAGS.resolution, FLAGS.name,
                                   overwrite=FLAGS.overwrite)  # fmt: skip
            return f"--mode=finetune {here} " + quote(f"--subnet={directory.name}")
        case "finetune":
            directory = finetune(config, workdir, FLAGS.subnet, FLAGS.name,
                                 overwrite=FLAGS.overwrite)  # fmt: skip
            return (
                f"--mode=export {here} {quote(f'--subnet={directory.name}')} --format=onnx,tflite"
            )
        case _:
            export(config, workdir, FLAGS.subnet, FLAGS.format or config.export.formats,
                   uint8=FLAGS.uint8, overwrite=FLAGS.overwrite)  # fmt: skip
            return "--mode=benchmark " + quote(f"--subnet={find_subnet(workdir, FLAGS.subnet)}")


def deploy(config: Config, workdir: Path) -> str:
    """Fine-tunes, exports and times the search's middle winner, unless that is done; its name."""
    name = processes.from_first(lambda: middle_winner(workdir))
    if config.finetune.epochs:
        name = finetune_once(config, workdir, name)
    export_once(config, workdir, name)
    if config.export.benchmark:
        benchmark_once(workdir / "subnets" / name, config.export.benchmark)
    return name


def run_subnet(workdir: Path) -> None:
    """Dispatches a mode that needs nothing but a subnet."""
    directory = find_subnet(workdir, FLAGS.subnet)
    if FLAGS.mode == "benchmark":
        benchmark(directory, FLAGS.batch)
    if FLAGS.mode == "predict":
        predict(directory, FLAGS.images, strict=FLAGS.strict, as_json=FLAGS.json)


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
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        workdir = local_path("--workdir", FLAGS.workdir)
        if FLAGS.mode in OF_SUBNET:
            run_subnet(workdir)
            return
        config = read_config(workdir)
        if FLAGS.mode == "profile":
            profile(config, FLAGS.target)
            return
        with processes.watched(config.parallel.timeout):
            workdir_lib.check_processes(workdir, config)
            with workdir_lib.locked(workdir):
                following = run(config, workdir)
                if (workdir / "config.json").is_file() and FLAGS.workdir:
                    print(f"report: {processes.from_first(lambda: str(write_report(workdir)))}")
        print(f"next: python {quote(sys.argv[0])} {following}")
    except (ValueError, FloatingPointError, OSError) as error:
        fail_lost(error)
        fail(error)
    except Preempted as stop:
        print(f"{stop}: the same command resumes", file=sys.stderr)
        sys.exit(PREEMPTED)
    except Exception as error:
        fail_unexpectedly(error)
    finally:
        signals.all_done()


def check_flags() -> None:
    if FLAGS.mode not in MODES:
        raise ValueError(f"--mode={FLAGS.mode!r}: expected one of {', '.join(MODES)}")
    if FLAGS.target and FLAGS.mode != "profile":
        raise ValueError(f"--target={FLAGS.target!r} is for --mode=profile")
    for flag in USED_BY:
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
        print((__doc__ or FLAGS.main_module_help()).strip())  # python -OO has no docstrings
        sys.exit()
    try:
        for flag, _, path in (argument.partition("=") for argument in argv):
            if flag == "--config" and not Path(path.split(":")[0]).is_file():
                raise ValueError(f"--config={shown(path)} is no file: try configs/digits.py")
        return FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        check_overrides(argv)
        fail(error)


def check_overrides(argv: list[str]) -> None:
    """Ends with a line that names the field, where the config has none of that name."""
    overrides = [argument for argument in argv if argument.startswith("--config.")]
    alone = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, flag_values=alone)
    sys.argv = argv[:1]  # where ml_collections looks for overrides
    try:
        alone([argv[0], *(argument for argument in argv if argument.startswith("--config="))])
        for override in overrides:
            check_field(alone["config"].value, override.removeprefix("--config.").split("=")[0])
    except (flags.Error, AttributeError, KeyError, TypeError, OSError):
        return  # it is the file that is wrong
    except ValueError as error:
        fail(error)
    finally:
        sys.argv = argv


def fail_unexpectedly(error: Exception) -> NoReturn:
    """Ends with what the runtime's errors most likely mean; others keep their traceback."""
    of_runtime = isinstance(error, JaxRuntimeError)
    if of_runtime and "RESOURCE_EXHAUSTED" in str(error):
        fail(f"out of memory; more parallel.micro_steps need less: {error}")
    if not processes.several():
        raise error
    fail_lost(error)
    traceback.print_exception(error)
    processes.end("error: this is a fault of the program", 1)


def fail_lost(error: Exception) -> None:
    if processes.lost_another(error):
        fail(f"a process was lost, or the network: {error}", LOST)


def fail(error: Exception | str, code: int = WRONG) -> NoReturn:
    if "--traceback" in sys.argv and isinstance(error, Exception):
        raise error
    text = str(error)
    if isinstance(error, KeyError):  # it quotes itself
        text = str(error.args[0])
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    if "Traceback" in text:  # ml_collections quotes what a config file raised
        text = text.strip().splitlines()[-1].removeprefix("ValueError: ")
    processes.end(short(f"error: {text}", LINE), code)


if __name__ == "__main__":
    streams.make_lasting()
    signals.handle()
    with signals.ending_at_once():
        app.run(main, flags_parser=parse)
