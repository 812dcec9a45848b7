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
    --format         one or more of stablehlo,onnx,onnx-fp16,onnx-int8,
                     tflite,tflite-fp16,tflite-int8
    --fixed_batch    images a call of the files, where delegates or compilers want it fixed
    --images         a file, a directory or a pattern
    --overwrite      extract, finetune and export replace existing files
    --traceback      show where an error comes from
    --coordinator=HOST:PORT --processes=N --process=I   one of several processes

--helpfull lists every flag with its default.
"""

import contextlib
import functools
import logging
import os
import re
import sys
from pathlib import Path
from shlex import quote

import jax
from absl import app
from absl import logging as absl_logging

from ofa_jax.errors import InputError
from ofa_jax.names import place
from ofa_jax.run import compiled, processes, signals, streams
from ofa_jax.run import workdir as workdir_lib
from ofa_jax.run.all import run_all
from ofa_jax.run.benchmark import benchmark
from ofa_jax.run.card import find_subnet
from ofa_jax.run.config import Config
from ofa_jax.run.evaluate import evaluate
from ofa_jax.run.export import export
from ofa_jax.run.extract import extract_to, middle_winner
from ofa_jax.run.fail import fail, fail_lost, fail_unexpectedly, say_once
from ofa_jax.run.finetune import finetune
from ofa_jax.run.flags import FLAGS, OF_SUBNET, check_flags, parse, read_config
from ofa_jax.run.predict import predict
from ofa_jax.run.preemption import Preempted
from ofa_jax.run.profile import profile
from ofa_jax.run.report import write_report
from ofa_jax.run.search import search
from ofa_jax.run.train import train
from ofa_jax.storage import check_bucket

# What JAX's random numbers depend on beside the seed: a run resumes with the same ones anywhere.
RANDOM = {"jax_default_prng_impl": "threefry2x32", "jax_threefry_partitionable": True,
          "jax_random_seed_offset": 0}  # fmt: skip
HOMELESS = re.compile(r"mkdir -p failed|temporary cache directory")


def start() -> None:
    """Runs the command of `sys.argv` to its end, and exits."""
    streams.make_lasting()
    signals.handle()
    say_once()
    # python -OO has no docstrings.
    usage = (__doc__ or "").replace("python main.py", command()).strip()
    # absl brings a handler of its own: beside what imports left, each warning would be there twice.
    logging.getLogger().handlers.clear()
    with signals.ending_at_once():
        app.run(main, flags_parser=functools.partial(parse, usage))


def command() -> str:
    """What the user typed to start this: `python main.py`, or `ofa-jax`."""
    script = Path(sys.argv[0])
    return f"python {quote(sys.argv[0])}" if script.suffix == ".py" else quote(script.name)


def main(_: list[str]) -> None:
    """Checks the flags, runs their mode and says what is next; one line where it fails."""
    if not FLAGS["verbosity"].present:
        absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells every step of every save
        absl_logging.get_absl_handler().addFilter(is_news)
    try:
        check_flags()
        fix_random_numbers()
        if FLAGS.target:
            jax.config.update("jax_platforms", "cpu")  # the TPUs are not here
        compiled.keep()
        processes.connect(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
        processes.check_devices()
        if not processes.is_first():
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        workdir = place("--workdir", FLAGS.workdir)
        check_bucket(workdir)
        if FLAGS.mode in OF_SUBNET:
            run_subnet(workdir)
            return
        config = read_config(workdir)
        if FLAGS.mode == "profile":
            profile(config, FLAGS.target)
            return
        with processes.watchdog(config.parallel.timeout):
            workdir_lib.check_processes(workdir, config)
            with workdir_lib.locked(workdir):
                following = run(config, workdir)
                if (workdir / "config.json").is_file() and FLAGS.workdir:
                    print(f"report: {processes.from_first(lambda: str(write_report(workdir)))}")
        print(f"next: {command()} {following}")
    except (InputError, FloatingPointError, OSError) as error:
        fail_lost(error)
        fail(error)
    except Preempted as stop:
        signals.all_done()  # no second line
        print(f"{stop}: the same command resumes", file=sys.stderr)
        sys.exit(signals.PREEMPTED)
    except Exception as error:  # a fault of the program: said, and raised again
        fail_unexpectedly(error)
    finally:
        signals.all_done()


def is_news(record: logging.LogRecord) -> bool:
    """Whether a log record says what no line of ours does.

    Orbax logs an error of a save or of a checkpoint with pages of tracebacks before it raises it,
    gcsfs one of the network, and a line of ours then says so. Without a home that can be written,
    Matplotlib logs at import where it keeps its caches instead. Their other warnings are shown, as
    are those of others.
    """
    raised = f"{os.sep}orbax{os.sep}" in record.pathname or record.name == "gcsfs"
    of_home = record.name == "matplotlib" and HOMELESS.search(record.getMessage())
    return not (of_home or (raised and record.levelno >= logging.ERROR))


def fix_random_numbers() -> None:
    """Has random numbers follow from the seed alone, whatever the environment says."""
    for name, value in RANDOM.items():
        with contextlib.suppress(AttributeError):  # not an option of this version any more
            jax.config.update(name, value)


def run(config: Config, workdir: Path) -> str:
    """Dispatches the mode; the flags of the command that people want next."""
    here = quote(f"--workdir={workdir}")
    if FLAGS.mode in ("evaluate", "search", "extract", "finetune") and not config.curriculum:
        train(config, workdir)  # takes the supernet over, unless that is done
    match FLAGS.mode:
        case "all":
            flag = quote(f"--subnet={run_all(config, workdir)}")
            return f"--mode=predict {flag} --images='photos/*.jpg'"
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
                raise InputError("--mode=extract needs --arch: smallest, largest, JSON or a file")
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
                   uint8=FLAGS.uint8, overwrite=FLAGS.overwrite,
                   batch=FLAGS.fixed_batch)  # fmt: skip
            return "--mode=benchmark " + quote(f"--subnet={find_subnet(workdir, FLAGS.subnet)}")


def run_subnet(workdir: Path) -> None:
    """Dispatches a mode that needs nothing but a subnet."""
    directory = find_subnet(workdir, FLAGS.subnet)
    if FLAGS.mode == "benchmark":
        benchmark(directory, FLAGS.batch)
    if FLAGS.mode == "predict":
        predict(directory, FLAGS.images, strict=FLAGS.strict, as_json=FLAGS.json)
