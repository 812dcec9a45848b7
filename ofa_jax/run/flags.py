"""The flags of the command: what they are, and the checks of their values."""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from ofa_jax.errors import InputError
from ofa_jax.files import shown
from ofa_jax.run import workdir as workdir_lib
from ofa_jax.run.config import Config, check_field, from_dict
from ofa_jax.run.fail import fail
from ofa_jax.run.groups.subnets import FORMATS

MODES = ("all", "profile", "train", "evaluate", "search", "extract", "finetune", "export",
         "benchmark", "predict")  # fmt: skip
# What a subnet's directory alone is enough for.
OF_SUBNET = ("benchmark", "predict")
USED_BY = {
    "subnet": ("finetune", "export", "benchmark", "predict"),
    "format": ("export",),
    "fixed_batch": ("export",),
    "images": ("predict",),
    "strict": ("predict",),
    "json": ("predict",),
}

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file(
    "config", None, "Experiment, such as configs/digits.py; without it the workdir's own."
)
flags.DEFINE_string("workdir", "", "Directory of the run, made if it does not exist; may be gs://.")
flags.DEFINE_string("mode", "all", f"What to do: {', '.join(MODES)}.")
flags.DEFINE_string("arch", "", "--mode=extract: a word, published:NAME, JSON or a file.")
flags.DEFINE_string("name", "", "--mode=extract, finetune: the new subnet's name.")
flags.DEFINE_integer("resolution", None, "--mode=extract: pixels.", lower_bound=1)
flags.DEFINE_bool("overwrite", False, "--mode=extract, finetune, export: replace existing ones.")
flags.DEFINE_string("subnet", "", "--mode=finetune, export, ...: a subnet's name or directory.")
flags.DEFINE_list("format", [], f"--mode=export: one or more of {','.join(FORMATS)}.")
flags.DEFINE_bool("uint8", False, "--mode=export: files take pixels and normalise them.")
flags.DEFINE_integer("fixed_batch", None, "--mode=export: images a call of the files; by default"
                     " any number.", lower_bound=1)  # fmt: skip
flags.DEFINE_string("images", "", "--mode=predict: a file, a directory or a pattern.")
flags.DEFINE_bool("strict", False, "--mode=predict: an image that cannot be read is an error.")
flags.DEFINE_bool("json", False, "--mode=predict: lines of JSON.")
flags.DEFINE_integer("batch", 32, "--mode=benchmark: images a call, besides 1.", lower_bound=1)
flags.DEFINE_string("target", "", "--mode=profile: TPUs to compile for, such as v5e:2x2.")
flags.DEFINE_string("coordinator", "", "Several processes: HOST:PORT of the first one.")
flags.DEFINE_integer("processes", 0, "Several processes: how many.", lower_bound=0)
flags.DEFINE_integer("process", -1, "Several processes: which one this is, from 0.")
flags.DEFINE_bool("traceback", False, "Show the traceback of an error.")


def parse(usage: str, argv: list[str]) -> list[str]:
    """Parses the flags; what absl and ml_collections raise becomes one line too."""
    if len(argv) == 1 or {"--help", "-h", "help"} & set(argv):
        print(usage or FLAGS.module_help(__name__))
        sys.exit()
    try:
        for flag, _, path in (argument.partition("=") for argument in argv):
            if flag == "--config" and not Path(path.split(":")[0]).is_file():
                raise InputError(f"--config={shown(path)} is no file: try configs/digits.py")
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
    except InputError as error:
        fail(error)
    finally:
        sys.argv = argv


def check_flags() -> None:
    """Raises `ValueError` for flags that do not go together."""
    if FLAGS.mode not in MODES:
        raise InputError(f"--mode={FLAGS.mode!r}: expected one of {', '.join(MODES)}")
    if FLAGS.target and FLAGS.mode != "profile":
        raise InputError(f"--target={FLAGS.target!r} is for --mode=profile")
    for flag in USED_BY:
        if FLAGS[flag].present and FLAGS.mode not in USED_BY[flag]:
            raise InputError(f"--{flag} is for --mode={' or '.join(USED_BY[flag])}")
    enough = (FLAGS.mode == "profile" and FLAGS.config) or (
        FLAGS.mode in OF_SUBNET and FLAGS.subnet
    )
    if not FLAGS.workdir and not enough:
        raise InputError("--workdir is missing: for example --workdir=runs/digits")


def read_config(workdir: Path) -> Config:
    """The config of the flags, or the workdir's own."""
    if FLAGS.config is None:
        return workdir_lib.stored_config(workdir)
    config = from_dict(FLAGS.config.to_dict())
    if FLAGS.workdir:
        workdir_lib.check(workdir, config)
    return config
