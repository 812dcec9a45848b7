"""The ready jobs of docs/jobs/: parsed, and their shell run with stand-ins for a cluster."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from configs import imagenet_mbv3
from ofa_jax.run.config import check_field
from ofa_jax.run.flags import FLAGS

REPOSITORY = Path(__file__).parents[1]
JOBS = REPOSITORY / "docs/jobs"
SLURM, QUEUED = JOBS / "slurm.sh", JOBS / "queued_resource.sh"
WAIT = 60  # seconds, for what takes one
# Of sbatch, those that take part in a job like this: https://slurm.schedmd.com/sbatch.html
OPTIONS = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time",
           "output", "open-mode", "requeue", "signal"}  # fmt: skip


def commands(text):
    """The `python main.py` commands of a shell text, each as its words."""
    joined = text.replace("\\\n", " ")
    return [shlex.split(found) for found in re.findall(r"(python main\.py [^&\n\"']*)", joined)]


def documented():
    page = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")
    (found,) = [command for command in commands(page) if "--config.data.data_dir=/shared/tfds" in
                command]  # fmt: skip
    return found


def pod():
    """The JobSet, the one job of it, and its pods."""
    jobset, _ = yaml.safe_load_all((JOBS / "jobset.yaml").read_text(encoding="utf-8"))
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    return jobset, job, job["template"]["spec"]


def sbatch():
    """The options of the SLURM job."""
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", SLURM.read_text(), re.MULTILINE)
    assert len(lines) == SLURM.read_text().count("#SBATCH")
    return dict(lines)


def test_each_job_runs_the_documented_command():
    (container,) = pod()[2]["containers"]
    assert container["command"] == documented()
    assert commands(QUEUED.read_text()) == [documented()]
    (slurm,) = commands(SLURM.read_text())
    workers = f"--config.data.workers={sbatch()['cpus-per-task']}"
    assert slurm == [*documented(), workers]


def test_its_flags_and_fields_exist():
    config = imagenet_mbv3.get_config()
    for argument in commands(SLURM.read_text())[0][2:]:
        flag, _, value = argument.removeprefix("--").partition("=")
        if flag == "config":
            assert (REPOSITORY / value).samefile(imagenet_mbv3.__file__)
        elif flag.startswith("config."):
            check_field(config, flag.removeprefix("config."))
        else:
            assert flag in FLAGS


def test_the_jobset_starts_again_on_whole_slices():
    jobset, job, spec = pod()
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 100
    assert jobset["spec"]["failurePolicy"]["restartStrategy"] == "BlockingRecreate"
    assert (job["backoffLimit"], spec["restartPolicy"]) == (0, "Never")
    (container,) = spec["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"]["google.com/tpu"] == chips
    rows, columns = spec["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    assert job["completions"] * chips == int(rows) * int(columns)
    assert job["parallelism"] == job["completions"] > 1
    # What is trained in both is split over as many devices.
    options = sbatch()
    assert int(options["nodes"]) * int(options["ntasks-per-node"]) == job["completions"] * chips
    assert options["ntasks-per-node"] == options["gpus-per-node"]


def test_the_jobset_has_its_files_on_a_shared_volume():
    _, claim = yaml.safe_load_all((JOBS / "jobset.yaml").read_text(encoding="utf-8"))
    _, _, spec = pod()
    (container,) = spec["containers"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts["/shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    for argument in container["command"]:
        path = argument.partition("=")[2]
        assert not path.startswith("/") or path.startswith("/shared/")
    # The image has the command, and a Python that it runs on.
    lines = dict(line.split(" ", 1) for line in (JOBS / "Dockerfile").read_text().splitlines())
    assert lines["WORKDIR"] == container["workingDir"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    classifier = (
        f"Programming Language :: Python :: {re.search('python:([0-9.]+)', lines['FROM'])[1]}"
    )
    assert classifier in project["classifiers"]
    assert "tpu" in project["optional-dependencies"] and ".[tpu]" in lines["RUN"]


def test_there_is_time_to_save():
    shell, name, seconds = re.fullmatch(r"(B):(\w+)@(\d+)", sbatch()["signal"]).groups()
    assert (shell, name) == ("B", "USR1")
    assert pod()[2]["terminationGracePeriodSeconds"] >= int(seconds)
    # Requeued before the limit, whether the tasks have ended or not.
    assert int(re.search(r"sleep (\d+) && again", SLURM.read_text())[1]) < int(seconds)


def test_the_options_of_sbatch_are_known_and_come_first():
    assert set(sbatch()) == OPTIONS
    lines = [line for line in SLURM.read_text().splitlines() if line]
    first = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    assert not any("#SBATCH" in line for line in lines[first:])  # sbatch reads no further


@pytest.mark.parametrize("path", [SLURM, QUEUED], ids=lambda path: path.name)
def test_the_shell_parses(path):
    assert subprocess.run(["bash", "-n", path], capture_output=True).stderr == b""
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def stand_ins(directory, **programs):
    """An environment where these programs are short scripts; calls.txt has what was called."""
    (directory / "bin").mkdir()
    for name, text in programs.items():
        path = directory / "bin" / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {directory}/calls.txt\n{text}\n')
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def slurm(directory, srun, sleep="exec /bin/sleep 5", **variables):
    """Starts the SLURM job with `srun` standing in; the others are only noted."""
    environment = stand_ins(
        directory, srun=srun, scontrol="touch requeued", scancel="touch stop", sleep=sleep
    )
    environment.update(SLURM_JOB_ID="7", SLURM_CPUS_PER_TASK="8", **variables)
    return subprocess.Popen(
        ["bash", SLURM], env=environment, cwd=directory, stderr=subprocess.PIPE, text=True
    )


def called(directory):
    lines = (directory / "calls.txt").read_text().splitlines()
    return [line for line in lines if line.startswith("sc")]


@pytest.mark.parametrize("code", [69, 75, 134, 137])
def test_slurm_starts_again_what_was_stopped(tmp_path, code):
    with slurm(tmp_path, f"exit {code}") as job:
        assert job.wait(WAIT) == 0
    assert called(tmp_path) == ["scontrol requeue 7"]


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_slurm_leaves_what_ended(tmp_path, code):
    with slurm(tmp_path, f"exit {code}") as job:
        assert job.wait(WAIT) == code
    assert called(tmp_path) == []


def test_slurm_gives_up_after_many(tmp_path):
    with slurm(tmp_path, "exit 75", SLURM_RESTART_COUNT="100") as job:
        assert "restarted 100 times already" in job.communicate(timeout=WAIT)[1]
    assert job.returncode == 1
    assert called(tmp_path) == []


@pytest.mark.parametrize(("code", "requeued"), [(75, ["scontrol requeue 7"]), (0, [])])
def test_slurm_ends_the_tasks_before_the_time_limit(tmp_path, code, requeued):
    srun = f"touch begun; until [ -e stop ]; do /bin/sleep 0.05; done; exit {code}"
    with slurm(tmp_path, srun) as job:
        while not (tmp_path / "begun").exists():
            assert job.poll() is None
        job.send_signal(signal.SIGUSR1)
        assert job.wait(WAIT) == 0
    assert called(tmp_path) == ["scancel --signal=TERM 7", *requeued]


def test_slurm_starts_again_what_does_not_end_by_the_signal(tmp_path):
    srun = "touch begun; until [ -e requeued ]; do /bin/sleep 0.05; done; exit 1"
    with slurm(tmp_path, srun, sleep="") as job:
        while not (tmp_path / "begun").exists():
            assert job.poll() is None
        job.send_signal(signal.SIGUSR1)
        assert job.wait(WAIT) == 1
    assert called(tmp_path) == ["scancel --signal=TERM 7", "scontrol requeue 7"]


# As the service answers: nothing at first, a slice after `create`, and one that is preempted.
GCLOUD = """
case "$*" in
    *" describe "*) cat state ;;
    *" delete "*) true > state ;;
    *" create "*) cp created state ;;
    *"main.py"*)
        code=$(head -n 1 codes); sed -i 1d codes
        [ "$code" = 255 ] && echo SUSPENDED > state
        exit "$code" ;;
esac
"""


def queued(directory, codes, created="ACTIVE"):
    """Runs the loop on queued resources, the command ending with these codes: calls, exit code."""
    (directory / "state").touch()
    (directory / "created").write_text(created)
    (directory / "codes").write_text("".join(f"{code}\n" for code in codes))
    done = subprocess.run(
        ["bash", "-c", QUEUED.read_text().replace("restarts=100", "restarts=5")],
        env=stand_ins(directory, gcloud=GCLOUD, sleep=""), cwd=directory,
        capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    text = (directory / "calls.txt").read_text()
    found = re.findall(r"queued-resources (create|delete)|(main\.py)", text)
    return ["".join(words) for words in found], done.returncode


def test_a_preempted_slice_is_created_again(tmp_path):
    calls, code = queued(tmp_path, [75, 255, 69, 0])
    again = ["create", "main.py", "main.py", "delete"]
    assert (calls, code) == ([*again, *again], 0)


def test_what_the_user_must_fix_is_not_tried_for_ever(tmp_path):
    calls, code = queued(tmp_path, [2, 75, 2, 2, 2])
    assert (calls, code) == (["create", *["main.py"] * 5], 2)


def test_a_request_that_fails_is_not_made_for_ever(tmp_path):
    assert queued(tmp_path, [], created="FAILED") == (["create", "delete"] * 6, 1)
