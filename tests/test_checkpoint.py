import dataclasses
import errno
import os
import shutil
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from cards import CARD
from random_nets import identical, largest_difference, random_images, random_variables

import ofa_jax
from ofa_jax import checkpoint
from ofa_jax.families import space_to_dict
from ofa_jax.run import checkpoints, processes
from ofa_jax.run.extract import write_subnet


def save_supernet(directory, space, variables):
    checkpoint.save_network(directory, variables, {"space": space_to_dict(space), "step": 1})


def largest_file(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_a_supernet_comes_back_bit_for_bit_without_a_config(tiny, tmp_path):
    _, variables = random_variables(tiny)
    save_supernet(tmp_path / "supernet", tiny, variables)
    space, net, restored = ofa_jax.load_supernet(str(tmp_path / "supernet"))
    assert space == tiny
    assert net == ofa_jax.build_supernet(tiny)
    assert identical(restored, variables)
    assert jax.tree.structure(restored) == jax.tree.structure(variables)


def test_a_subnet_comes_back_ready_to_apply(tiny, tmp_path):
    net, variables = random_variables(tiny)
    arch = tiny.sample(jax.random.key(0))
    _, sub = ofa_jax.extract(tiny, variables, arch)
    card = dataclasses.replace(CARD, arch=tiny.arch_to_dict(arch))
    write_subnet(tmp_path / "subnets" / "mine", tiny, sub, card)
    subnet, restored = ofa_jax.load_subnet(tmp_path / "subnets" / "mine")
    assert identical(restored, sub)
    images = random_images(tiny, 2)
    logits = jax.jit(subnet.apply)(restored, images)
    assert largest_difference(logits, jax.jit(net.apply)(variables, images, arch)) < 1e-5
    assert [p.name for p in (tmp_path / "subnets").iterdir()] == ["mine"]  # nothing half-written


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_network_is_named(tiny, tmp_path, damage):
    _, variables = random_variables(tiny)
    save_supernet(tmp_path / "net", tiny, variables)
    victim = largest_file(tmp_path / "net")
    data = bytearray(victim.read_bytes())
    if damage == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    else:
        victim.unlink()
    state = "is missing" if damage == "remove" else "is altered or truncated"
    with pytest.raises(ValueError, match=rf"net cannot be read: its file .*{victim.name} {state}"):
        ofa_jax.load_supernet(tmp_path / "net")


def test_what_is_not_a_network_is_named(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint at .*nowhere"):
        ofa_jax.load_supernet(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no checkpoint at"):
        ofa_jax.load_subnet(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty cannot be read"):
        ofa_jax.load_supernet(tmp_path / "empty")
    _, variables = random_variables(tiny)
    (tmp_path / "subnet").mkdir()
    save_supernet(tmp_path / "subnet" / "orbax", tiny, variables)
    with pytest.raises(ValueError, match="holds no subnet"):
        ofa_jax.load_subnet(tmp_path / "subnet")


@pytest.fixture
def phase(tmp_path):
    """Three saved steps of a phase, of which two are kept."""
    states = {}
    with checkpoints.open_phase(tmp_path, "kernel", keep=2) as manager:
        for step in (1, 2, 3):
            states[step] = {"params": {"w": np.full(3, step, np.float32)}, "step": np.int32(step)}
            checkpoints.save_step(manager, step, states[step], {"phase": "kernel"})
        checkpoints.finish_saves(manager)
    return tmp_path, states


def test_a_step_restores_its_state(phase):
    workdir, states = phase
    assert checkpoints.saved_steps(workdir, "kernel") == [3, 2]
    assert checkpoints.saved_steps(workdir, "depth1") == []
    for step in (2, 3):
        assert checkpoints.is_sealed(workdir, "kernel", step)
        checkpoints.check_step(workdir, "kernel", step)
    assert identical(checkpoints.restore_step(workdir, "kernel", 3, states[1]), states[3])


def test_steps_do_not_wait_for_checksums(tmp_path, monkeypatch):
    go_on, threads, seal = threading.Event(), [], checkpoint.seal

    def slowly(directory):
        threads.append(threading.current_thread())
        assert go_on.wait(60)
        seal(directory)

    monkeypatch.setattr(checkpoint, "seal", slowly)
    with checkpoints.open_phase(tmp_path, "kernel", keep=2) as manager:
        checkpoints.save_step(manager, 1, {"w": np.ones(3, np.float32)}, {"phase": "kernel"})
        manager.wait_until_finished()
        for _ in range(3):  # as between steps
            checkpoints.seal_saves(manager)
        assert not checkpoints.is_sealed(tmp_path, "kernel", 1)
        go_on.set()
        checkpoints.finish_saves(manager)
        assert checkpoints.is_sealed(tmp_path, "kernel", 1)
        checkpoints.finish_saves(manager)
    assert len(threads) == 1 and threads[0] is not threading.current_thread()


def test_checksums_that_cannot_be_written_end_the_run(tmp_path, monkeypatch):
    def fail(directory):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "seal", fail)
    with checkpoints.open_phase(tmp_path, "kernel", keep=2) as manager:
        checkpoints.save_step(manager, 1, {"w": np.ones(3, np.float32)}, {"phase": "kernel"})
        with pytest.raises(OSError, match=r"kernel could not be written.*No space left"):
            checkpoints.finish_saves(manager)
        with pytest.raises(OSError, match=r"kernel could not be written.*No space left"):
            checkpoints.seal_saves(manager)


def test_a_damaged_step_is_named_and_left_alone(phase):
    workdir, states = phase
    directory = checkpoints.phase_directory(workdir, "kernel") / "3"
    victim = largest_file(directory / "state")
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"kernel/3 cannot be read: .* is altered or truncated"):
        checkpoints.restore_step(workdir, "kernel", 3, states[1])
    with pytest.raises(ValueError, match=r"kernel/3 cannot be read: .* is altered or truncated"):
        checkpoints.check_step(workdir, "kernel", 3)
    assert identical(checkpoints.restore_step(workdir, "kernel", 2, states[1]), states[2])
    place = checkpoints.put_aside(workdir, "kernel", 3)
    assert place == workdir / "damaged/kernel-3"
    assert largest_file(place / "state").stat().st_size > 0  # nothing is deleted
    assert checkpoints.saved_steps(workdir, "kernel") == [2]
    shutil.copytree(place, directory)  # the same step, damaged again
    assert checkpoints.put_aside(workdir, "kernel", 3) == workdir / "damaged/kernel-3-2"
    assert largest_file(place / "state").stat().st_size > 0
    with pytest.raises(ValueError, match="no checkpoint at .*kernel/3"):
        checkpoints.restore_step(workdir, "kernel", 3, states[1])


def leave_strays(place):
    for name in (".DS_Store", "notes.txt~", "Thumbs.db", "._x"):
        (place / name).write_bytes(b"x")
    (place / ".#card.json").symlink_to("user@host.123:456")  # Emacs's lock
    os.mkfifo(place / "pipe")
    (place / ".ipynb_checkpoints").mkdir()


def test_a_stray_file_is_no_damage(phase, tiny):
    """An editor's backup and lock, or what macOS leaves in any folder."""
    workdir, states = phase
    directory = checkpoints.phase_directory(workdir, "kernel") / "3"
    for place in (directory, directory / "state", directory.parent):
        leave_strays(place)
    for name in ("\u00b2", "\u0663", "03"):  # no number as orbax writes it
        (directory.parent / name).mkdir()
    (directory.parent / "4").write_bytes(b"a file")
    checkpoints.check_step(workdir, "kernel", 3)
    assert checkpoints.saved_steps(workdir, "kernel") == [3, 2]
    assert identical(checkpoints.restore_step(workdir, "kernel", 3, states[1]), states[3])
    _, variables = random_variables(tiny)
    save_supernet(workdir / "net", tiny, variables)
    for place in (workdir / "net", workdir / "net/variables"):
        leave_strays(place)
    assert ofa_jax.checkpoint.load_space(workdir / "net") == tiny
    _, _, restored = ofa_jax.load_supernet(workdir / "net")
    assert identical(restored, variables)


def test_a_process_lost_during_a_save_is_not_the_storages_fault(tmp_path, monkeypatch):
    def lost():
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed: Connection closed")

    gone = pytest.raises(jax.errors.JaxRuntimeError, match="Connection closed")
    alone = pytest.raises(OSError, match="could not be written")
    with checkpoints.open_phase(tmp_path, "full", 1) as manager:
        with alone:
            checkpoints._written(manager, lost)
        monkeypatch.setattr(processes, "several", lambda: True)
        with gone:
            checkpoints._written(manager, lost)


def test_a_workdir_that_vanished_is_not_created_again(tmp_path):
    gone = tmp_path / "run"
    never = checkpoints.open_phase(gone, "full", 2)
    with pytest.raises(OSError, match=r"run could not be written: No such file"), never:
        pass
    gone.mkdir()
    with checkpoints.open_phase(gone, "full", 2) as manager:
        (gone / "checkpoints").rename(tmp_path / "aside")
        with pytest.raises(OSError, match=r"checkpoints/full could not be written: No such file"):
            checkpoints.save_step(manager, 1, {"a": np.zeros(3)}, {})
    assert not list(gone.iterdir())


def test_a_network_that_does_not_fit_on_the_disk_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=r"no space left for a checkpoint in .*: 0.0 MB are needed"):
        checkpoint.save_network(tmp_path / "supernet", {"a": np.zeros(3)}, {})
    assert not list(tmp_path.iterdir())
