"""Runs whose workdir is in a bucket: nothing that they leave differs from a local run's."""

import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults.running import check_same, made_by, of_metrics
from main_runs import REPOSITORY, SMALL, finish, run, run_forks, start
from random_nets import identical
from run.test_processes import free_port

import ofa_jax
from ofa_jax import storage
from ofa_jax.checkpoint import SEAL
from ofa_jax.families import space_to_dict
from ofa_jax.run import checkpoints, processes
from ofa_jax.run.extract import read_arch
from ofa_jax.run.fail import fail_lost
from ofa_jax.supernet import SupernetCard, read_supernet_card, save_supernet

IN_TRAINING = "checkpoints/full/10/sha256.json"
IN_SEARCH = "search/measured.jsonl"


def wait_for(process, bucket, name):
    """Waits until there is an object of that name, while the process runs."""
    while name not in bucket.objects:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def own_lines(error):
    """The lines of standard error but for those of Google's libraries, on whose token they take."""
    return [line for line in error.splitlines() if not re.search("google_auth|_default.py", line)]


def fetched(bucket, prefix, directory):
    """The objects whose names begin so, as files of a directory."""
    for name, found in dict(bucket.objects).items():
        if name.startswith(f"{prefix}/"):
            path = directory / name.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(found.data)
    return directory


def object_of(path):
    """The name of a path's object in the bucket."""
    return str(path).removeprefix("gs://bucket/")


def test_checkpoints_are_sealed_in_a_bucket_and_damage_is_put_aside(bucket, in_bucket):
    states = {step: {"a": jnp.full(1000, step), "b": jnp.arange(3.0)} for step in (1, 2, 3)}
    with checkpoints.open_phase(in_bucket, "full", keep=2) as manager:
        for step, state in states.items():
            checkpoints.save_step(manager, step, state, {"phase": "full"})
        checkpoints.finish_saves(manager)
    assert checkpoints.saved_steps(in_bucket, "full") == [3, 2]
    for step in (2, 3):
        assert checkpoints.is_sealed(in_bucket, "full", step)
        checkpoints.check_step(in_bucket, "full", step)
        assert identical(checkpoints.restore_step(in_bucket, "full", step, states[1]), states[step])

    damaged = in_bucket / "checkpoints/full/3/state/_METADATA"
    bucket.objects[object_of(damaged)] = bucket.objects[object_of(damaged)]._replace(data=b"{}")
    with pytest.raises(ValueError, match="its file state/_METADATA is altered or truncated"):
        checkpoints.check_step(in_bucket, "full", 3)
    assert checkpoints.put_aside(in_bucket, "full", 3) == in_bucket / "damaged/full-3"
    assert checkpoints.saved_steps(in_bucket, "full") == [2]
    assert (in_bucket / "damaged/full-3/state/_METADATA").read_bytes() == b"{}"
    with checkpoints.open_phase(in_bucket, "full", keep=2) as manager:  # its step is free again
        checkpoints.save_step(manager, 3, states[3], {"phase": "full"})
        checkpoints.finish_saves(manager)
    checkpoints.check_step(in_bucket, "full", 3)
    (in_bucket / "checkpoints/full/3" / SEAL).unlink()  # killed before
    assert not checkpoints.is_sealed(in_bucket, "full", 3)


def test_a_supernet_in_a_bucket_is_whole_or_none(bucket, in_bucket):
    space = tiny()
    image = jnp.zeros((1, 16, 16, 3))
    variables = jax.eval_shape(ofa_jax.build_supernet(space).init, jax.random.key(0), image,
                               space.largest())  # fmt: skip
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), variables)
    directory = in_bucket / "supernet"
    card = SupernetCard(space_to_dict(space), tuple("abcdefghij"))
    for _ in range(2):  # the second one replaces the first
        save_supernet(directory, space, variables, card)
    assert storage.is_published(directory, SEAL)
    found, _, loaded = ofa_jax.load_supernet(str(directory))
    assert found == space
    assert identical(loaded, variables)
    assert read_supernet_card(directory).classes == card.classes
    last = max(bucket.objects, key=lambda name: bucket.objects[name].generation)
    assert last == object_of(directory / SEAL)
    (directory / SEAL).unlink()
    assert not storage.is_published(directory, SEAL)


@pytest.mark.slow
def test_training_killed_in_a_bucket_resumes_to_the_bits_of_a_local_run(bucket, tmp_path):
    train = (SMALL, "--mode=train")
    code, _, error = run(*train, f"--workdir={tmp_path / 'run'}")
    assert code == 0, error
    process = start(*train, "--workdir=gs://bucket/training/run")
    wait_for(process, bucket, f"training/run/{IN_TRAINING}")
    process.kill()
    process.communicate()
    code, out, error = run(*train, "--workdir=gs://bucket/training/run")
    assert (code, own_lines(error)) == (0, [])
    assert "gs://bucket/training/run was in use by process" in out  # it had left no word
    assert re.search(r"resumed phase '(full|expand2)' at step \d+ of 38", out)
    _, _, expected = ofa_jax.load_supernet(tmp_path / "run/supernet")
    _, _, found = ofa_jax.load_supernet("gs://bucket/training/run/supernet")
    assert identical(found, expected)
    copy = fetched(bucket, "training/run", tmp_path / "copy")
    assert of_metrics(copy / "metrics.jsonl") == of_metrics(tmp_path / "run/metrics.jsonl")


@pytest.mark.slow
def test_a_run_killed_twice_in_a_bucket_leaves_what_an_undisturbed_local_one_does(bucket, tmp_path):
    """Killed in training and in the search; and then read from the bucket and from a copy of it."""
    local = tmp_path / "local/run"
    code, _, error = run(SMALL, f"--workdir={local}")
    assert code == 0, error

    command = (SMALL, "--workdir=gs://bucket/killed/run")
    for name in (IN_TRAINING, IN_SEARCH):
        process = start(*command)
        wait_for(process, bucket, f"killed/run/{name}")
        process.kill()
        process.communicate()
    code, out, error = run(*command)
    assert (code, own_lines(error)) == (0, [])
    copy = fetched(bucket, "killed/run", tmp_path / "copy/run")
    check_same(copy, made_by(local))
    assert (copy / "report.html").stat().st_size > 20_000
    assert not [name for name in bucket.objects if ".tmp." in name]

    # Done, the same command does nothing; nor is it kept waiting.
    before = dict(bucket.objects)
    code, out, error = run(*command)
    assert (code, own_lines(error)) == (0, [])
    for done in ("training is complete", "evaluation is complete", "search is complete"):
        assert done in out
    changed = {name for name in {*before, *bucket.objects}
               if before.get(name) != bucket.objects.get(name)}  # fmt: skip
    assert all(name.startswith("killed/run/.lock/") for name in changed), changed

    # And what it left is read from there, as from a disk.
    _, _, expected = ofa_jax.load_supernet(local / "supernet")
    _, _, found = ofa_jax.load_supernet("gs://bucket/killed/run/supernet")
    assert identical(found, expected)
    subnets = "gs://bucket/killed/run/subnets/smallest"
    assert identical(ofa_jax.load_subnet(subnets)[1],
                     ofa_jax.load_subnet(local / "subnets/smallest")[1])  # fmt: skip


@pytest.mark.slow
def test_two_processes_that_share_nothing_but_the_bucket_train_what_two_devices_do(
    bucket, tmp_path
):
    train = (SMALL, "--mode=train")
    code, _, error = run(*train, f"--workdir={tmp_path / 'one'}", JAX_NUM_CPU_DEVICES="2")
    assert code == 0, error
    together = (f"--coordinator=localhost:{free_port()}", "--processes=2")
    homes = [tmp_path / f"host{i}" for i in range(2)]
    pair = []
    for i, home in enumerate(homes):
        (home / "tmp").mkdir(parents=True)
        pair.append(
            start(*train, "--workdir=gs://bucket/pair", *together, f"--process={i}",
                  HOME=str(home), TMPDIR=str(home / "tmp"))
        )  # fmt: skip
    ends = [finish(process) for process in pair]
    assert [end[0] for end in ends] == [0, 0], ends
    _, _, expected = ofa_jax.load_supernet(tmp_path / "one/supernet")
    _, _, found = ofa_jax.load_supernet("gs://bucket/pair/supernet")
    assert identical(found, expected)
    assert jax.tree.leaves(found)


REFUSED = [
    ((SMALL, "--workdir=s3://bucket/run"), "--workdir='s3://bucket/run': expected a local path, or "
     "gs://BUCKET/PATH; mount other storage, with rclone for example"),
    ((SMALL, "--workdir=hdfs://host/run"), "--workdir='hdfs://host/run': expected a local path, o"),
    ((SMALL, "--workdir=gs:/bucket/run"), "--workdir='gs:/bucket/run': expected a local path, or "),
    ((SMALL, "--workdir=gs://bucket"), "--workdir='gs://bucket': expected a local path, or gs://"),
    ((SMALL, "--workdir=gs://bucket/../run"), "--workdir='gs://bucket/../run': expected a local p"),
    ((SMALL, "--workdir=gs://nobody-s/run"), "gs://nobody-s cannot be reached: there is no "),
    (("--workdir=gs://bucket/none",), "gs://bucket/none/config.json does not exist: give --config"),
    ((SMALL, "--workdir=gs://bucket/none", "--config.init=gs://bucket/none"),
     "init='gs://bucket/none': expected a supernet's directory"),
    (("--mode=predict", "--subnet=gs://bucket/none", "--images=a.jpg"),
     "--subnet='gs://bucket/none': expected a subnet's directory"),
]  # fmt: skip


PLACES = {
    "--workdir": ("--workdir=gs://bucket/none",),
    "--subnet": ("--mode=predict", "--subnet=gs://bucket/none", "--images=a.jpg"),
    "init": (SMALL, "--workdir=unused", "--config.init=gs://bucket/none"),
    "search.latency_table": (
        SMALL, "--workdir=unused", "--config.search.cost=latency",
        "--config.search.latency_table=gs://bucket/none",
    ),
    "--config": ("--config=gs://bucket/none.py", "--workdir=unused"),
    "data.name": (SMALL, "--workdir=unused", "--config.data.name=gs://bucket/none"),
    "data.data_dir": (
        SMALL, "--workdir=unused", "--config.data.name=mnist",
        "--config.data.data_dir=gs://bucket/none",
    ),
}  # fmt: skip
READERS = {
    "load_supernet": ofa_jax.load_supernet,
    "load_subnet": ofa_jax.load_subnet,
    "search.load_predictor": lambda path: ofa_jax.search.load_predictor(path, tiny()),
    "search.load_latency_table": lambda path: ofa_jax.search.load_latency_table(path, tiny()),
    "--arch": lambda path: read_arch(tiny(), path),
}
# What needs a subnet or a package that is not installed everywhere, and its line in the code.
ELSEWHERE = {
    "from_pretrained": ("interop/hub.py", 'names.place("place"'),
    "python -m ofa_jax.hub SOURCE": ("hub.py", 'place("SOURCE"'),
    "python -m ofa_jax.hub --out": ("hub.py", 'local_path("--out"'),
    "python -m ofa_jax.interop CHECKPOINT --out": ("interop/__main__.py", 'local_path("--out"'),
    "--images": ("run/predict.py", 'local_path("--images"'),
}


def tiny():
    return ofa_jax.get_space("ofa_tiny_d123_e346_k357", num_classes=10)


def table():
    """The table of the documentation: whether what is named may be in a bucket."""
    page = (REPOSITORY / "docs/scale.md").read_text()
    rows = re.findall(r"^\| (`.+`) \| (yes|no)\b.* \|$", page, re.MULTILINE)
    return {name: word == "yes" for names, word in rows for name in re.findall("`([^`]+)`", names)}


def test_a_bucket_that_is_lost_is_a_matter_of_trying_again(bucket, capsys):
    """As a lost process is, with its exit code; what a bucket refuses is the user's to mend."""
    from gcsfs.retry import HttpError

    for raised, unreachable in (
        (HttpError({"code": 503, "message": "down"}), True),
        (OSError("Forbidden"), False),
        (FileNotFoundError("gs://bucket/run"), False),
    ):
        failing = pytest.raises(OSError, match="a could not be written: ")
        with failing as found, storage.reaching("gs://bucket/run/a could not be written"):
            raise raised
        assert storage.is_unreachable(found.value) == unreachable
    with pytest.raises(SystemExit) as end:
        fail_lost(HttpError({"code": 503, "message": "down"}))
    assert end.value.code == processes.LOST
    assert capsys.readouterr().err == ("error: a process was lost, or the network: down, 503\n")


@pytest.fixture(scope="module")
def ends(bucket):
    """How each of `REFUSED` and of `PLACES` ends: exit code and standard error."""
    commands = [*(flags for flags, _ in REFUSED), *PLACES.values()]
    return [(code, error) for code, _, error in run_forks(commands)]


def test_the_table_of_the_documentation_says_what_may_be_in_a_bucket(ends):
    """What may be is looked for there and not found; anything else is refused as no local path."""
    expected = table()
    assert expected.keys() == {*PLACES, *READERS, *ELSEWHERE}
    of_places = ends[len(REFUSED) :]
    said = {name: error for name, (_, error) in zip(PLACES, of_places, strict=True)}
    for name, read in READERS.items():
        with pytest.raises(ValueError, match="gs://bucket/none") as raised:
            read("gs://bucket/none")
        said[name] = str(raised.value)
    for name, error in said.items():
        refused = "expected a local path" in error or "is no file" in error
        assert "gs://bucket/none" in error, error
        assert refused != expected[name], (name, error)
    for name, (file, line) in ELSEWHERE.items():
        assert line in (REPOSITORY / "ofa_jax" / file).read_text(), name
        assert expected[name] == ("local_path" not in line), name


def test_what_is_no_place_in_a_bucket_is_refused_at_start(bucket, ends):
    for (flags, message), (code, error) in zip(REFUSED, ends, strict=False):
        assert code == 2, (flags, error)
        [line] = own_lines(error)
        assert line.startswith(f"error: {message}"), error
    assert not [name for name in bucket.objects if name.startswith("none")]
