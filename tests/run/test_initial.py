"""A run that starts from a trained supernet: other classes, a larger space, nothing to train."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from main_runs import SMALL, run
from random_nets import (
    QUICKLY,
    identical,
    largest_difference,
    random_images,
    random_variables,
)

import ofa_jax
from ofa_jax import checkpoint
from ofa_jax.families import space_to_dict
from ofa_jax.interop import save_pretrained, to_once_for_all
from ofa_jax.run.config import from_dict
from ofa_jax.run.evaluate import load_trained
from ofa_jax.run.initial import (
    Supernet,
    check_trained,
    classes_taken,
    grow,
    new_parts,
    read_supernet,
    starting_variables,
    teaches,
)
from ofa_jax.run.supernet_card import check_taken_over
from ofa_jax.subnets.extract import extract
from ofa_jax.supernet import Preprocessing, SupernetCard, save_supernet

SMALLER = {
    "some": {"kernels": (3, 5), "expands": (3, 4), "depths": (1, 2)},
    "others": {"kernels": (5, 7), "expands": (3,), "depths": (2,)},
}


def with_new_matrices(variables):
    """Kernel transforms as a new net has them."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.eye(len(leaf)) if "_matrix" in jax.tree_util.keystr(path) else leaf,
        variables,
    )


@functools.cache
def quickly(net):
    return jax.jit(net.apply, compiler_options=QUICKLY)


def of_larger(larger, smaller, arch):
    """The arch in a space of more blocks, whose genes are those of the blocks of the same names."""
    values = smaller.arch_to_dict(arch)
    names = [block.name for block in smaller.blocks]
    for key in ("ks", "e"):
        own = dict(zip(names, values[key], strict=True))
        values[key] = [own.get(block.name) for block in larger.blocks]
    return larger.arch_from_dict(values)


@pytest.mark.parametrize("choices", SMALLER.values(), ids=SMALLER)
def test_a_larger_space_computes_the_same_for_the_smaller_ones_subnets(tiny, choices):
    smaller = dataclasses.replace(tiny, name="smaller", **choices)
    net, trained = random_variables(smaller)
    larger, fresh = random_variables(tiny, seed=1)
    grown = grow(smaller, trained, tiny, with_new_matrices(fresh), list(range(10)))
    images = random_images(tiny, 4)
    for key in jax.random.split(jax.random.key(0), 3):
        arch = smaller.sample(key)
        expected = quickly(net)(trained, images, arch)
        found = quickly(larger)(grown, images, of_larger(tiny, smaller, arch))
        assert largest_difference(found, expected) < 1e-4


def test_a_resnet_with_more_widths(small_resnet):
    smaller = dataclasses.replace(small_resnet, widths=small_resnet.widths[:-1])
    net, trained = random_variables(smaller)
    larger, fresh = random_variables(small_resnet, seed=1)
    grown = grow(smaller, trained, small_resnet, fresh, list(range(smaller.num_classes)))
    images = random_images(small_resnet, 2)
    arch = smaller.sample(jax.random.key(0))
    expected = quickly(net)(trained, images, arch)
    same = small_resnet.arch_from_dict(smaller.arch_to_dict(arch))
    assert largest_difference(quickly(larger)(grown, images, same), expected) < 1e-4


def test_the_classes_that_are_taken(tiny):
    named = Supernet(dataclasses.replace(tiny, num_classes=3), {}, ("ant", "bee", "cat"))
    unnamed = named._replace(classes=())
    assert classes_taken(named, ("ant", "bee", "cat")) == [0, 1, 2]
    assert classes_taken(named, ("cat", "ant")) == [2, 0]
    assert classes_taken(named, ("cat", "dog", "ant")) is None
    assert classes_taken(unnamed, ("x", "y", "z")) == [0, 1, 2]
    assert classes_taken(unnamed, ("x", "y")) is None


def test_the_classifier_follows_the_classes(tiny):
    _, trained = random_variables(tiny)
    space = dataclasses.replace(tiny, num_classes=2)
    _, fresh = random_variables(space, seed=1)
    cut = grow(tiny, trained, space, fresh, [7, 2])["params"]["classifier"]
    expected = trained["params"]["classifier"]
    assert identical(cut["kernel"], expected["kernel"][:, [7, 2]])
    assert identical(cut["bias"], expected["bias"][np.asarray([7, 2])])
    kept = grow(tiny, trained, space, fresh, None)["params"]["classifier"]
    assert identical(kept, fresh["params"]["classifier"])


def test_a_space_that_does_not_fit(tiny, small_resnet):
    _, trained = random_variables(tiny)
    wider = dataclasses.replace(tiny, stages=(dataclasses.replace(tiny.stages[0], width=32),))
    fewer = dataclasses.replace(tiny, kernels=(3, 5))
    skips = dataclasses.replace(tiny, kernels=(3, 7))  # its matrix leads from 7 to 3
    for source, target, said in (
        (tiny, wider, "stages="),
        (tiny, fewer, r"kernels=\(3, 5, 7\), \(3, 5\) here"),
        (skips, tiny, r"kernels=\(3, 7\), \(3, 5, 7\) here"),
        (tiny, small_resnet, "ofa_tiny_d123_e346_k357, .* here"),
    ):
        with pytest.raises(ValueError, match=f"its space is another: {said}"):
            grow(source, trained, target, {}, None)


def config_of(**fields):
    full = {"kernels": (7,), "expands": (6,), "depths": (3,), "distill": 0.0}
    phases = {"full": full, "elastic": {}, "alone": {"source": "largest"}}
    return from_dict({"init": "supernet", "phases": phases, **fields})


def test_who_teaches(tiny):
    assert teaches(config_of(curriculum=("elastic",)), tiny)
    assert not teaches(config_of(curriculum=("full", "elastic")), tiny)
    assert not teaches(config_of(curriculum=()), tiny)
    assert not teaches(config_of(init="", curriculum=("full",)), tiny)


def test_what_is_new_must_be_trained_and_cannot_teach(tiny):
    found = Supernet(dataclasses.replace(tiny, kernels=(3, 5), num_classes=7), {}, ())
    new = new_parts(found, tiny, None)
    assert new == "a classifier of 10 classes, not the 7 of init, kernels [7]"
    assert new_parts(found, found.space, list(range(7))) == ""
    with pytest.raises(ValueError, match="is new: a classifier of 10 .*configs/transfer.py"):
        check_trained(config_of(curriculum=()), tiny, new)
    with pytest.raises(ValueError, match="cannot teach what is new, a classifier of 10 .*elastic"):
        check_trained(config_of(curriculum=("elastic",)), tiny, new)
    for curriculum in (("full", "elastic"), ("alone",)):
        check_trained(config_of(curriculum=curriculum), tiny, new)
    check_trained(config_of(curriculum=()), tiny, "")


def test_a_config_trains_or_starts_from_something():
    with pytest.raises(ValueError, match="names of one phase or more, or `init`"):
        from_dict({"curriculum": ()})


def test_a_supernet_is_read_from_wherever_it_is(tiny, tmp_path):
    torch = pytest.importorskip("torch")
    _, variables = random_variables(tiny)
    (tmp_path / "run").mkdir()
    description = {"space": space_to_dict(tiny), "classes": [str(i) for i in range(10)]}
    checkpoint.save_network(tmp_path / "run/supernet", variables, description)
    tensors = {name: torch.tensor(a) for name, a in to_once_for_all(variables, tiny).items()}
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"model_ema": {"state_dict": wrapped}, "epoch": 3}, tmp_path / "net.pth")
    save_pretrained(tmp_path / "hub", tiny, variables, classes=tuple("0123456789"))
    for place in ("run", "run/supernet", "hub", "net.pth"):
        space, found, classes, *_ = read_supernet(str(tmp_path / place), tiny)
        assert space == tiny
        assert identical(found, variables)
        assert classes == (() if place == "net.pth" else tuple("0123456789"))
    for place in ("nothing", "run/.lock"):
        with pytest.raises(ValueError, match="expected a supernet's directory, a run's workdir"):
            read_supernet(str(tmp_path / place), tiny)
    _, its = extract(tiny, variables, tiny.smallest())
    save_pretrained(tmp_path / "subnet", tiny, its, tiny.smallest())
    with pytest.raises(ValueError, match="subnet' holds a subnet: expected a supernet"):
        read_supernet(str(tmp_path / "subnet"), tiny)


def test_images_normalised_otherwise_are_refused_or_reported(tiny, tmp_path, capsys):
    net, variables = random_variables(tiny)
    described = {
        "space": space_to_dict(tiny), "classes": list("0123456789"),
        "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.229, 0.224, 0.225]},
    }  # fmt: skip
    checkpoint.save_network(tmp_path / "supernet", variables, described)
    fields = {"init": str(tmp_path / "supernet"), "data": {"resolutions": (8,)}}
    message = r"data\.mean=\(0\.485, 0\.456, 0\.406\), not \(0\.5, 0\.5, 0\.5\)"
    with pytest.raises(ValueError, match=f"supernet': it was trained with other images: {message}"):
        starting_variables(config_of(curriculum=(), **fields), net, "0123456789")
    found = starting_variables(config_of(curriculum=("elastic",), **fields), net, "0123456789")
    assert identical(found, variables)
    assert "it was trained with other images: data.mean=(0.485" in capsys.readouterr().out
    with pytest.raises(ValueError, match=f"supernet was trained with other images: {message}"):
        load_trained(config_of(curriculum=(), **fields), tmp_path)


def test_sizes_that_were_not_trained_are_refused_or_reported(tiny, tmp_path, capsys):
    net, variables = random_variables(tiny)
    card = SupernetCard(
        space_to_dict(tiny), tuple("0123456789"), Preprocessing(center_crop=0.875), (16, 32)
    )
    save_supernet(tmp_path / "supernet", tiny, variables, card)
    fields = {"init": str(tmp_path / "supernet"), "data": {"resolutions": (24, 48)}}
    message = r"images: data\.resolutions=\(24, 48\), trained at 16 to 32 px"
    with pytest.raises(ValueError, match=message):
        starting_variables(config_of(curriculum=(), **fields), net, "0123456789")
    starting_variables(config_of(curriculum=("elastic",), **fields), net, "0123456789")
    printed = capsys.readouterr().out
    assert "images: data.resolutions=(24, 48), trained at 16 to 32 px" in printed
    assert "it was evaluated with data.center_crop=0.875, here 1.0" in printed
    with pytest.raises(ValueError, match=message):
        load_trained(config_of(curriculum=(), **fields), tmp_path)
    fields["data"] = {"resolutions": (16, 24)}
    assert load_trained(config_of(curriculum=(), **fields), tmp_path)[1] == tiny


def test_classes_without_names_are_reported(tiny, tmp_path, capsys):
    net, variables = random_variables(tiny)
    checkpoint.save_network(tmp_path / "supernet", variables, {"space": space_to_dict(tiny)})
    starting_variables(config_of(init=str(tmp_path), curriculum=()), net, "0123456789")
    assert "its classes have no names: they are taken to be the data's" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("space", "classes", "message"),
    [
        (
            {"expands": (2, 3, 6)},
            "0123456789",
            r"another space: expands=\(2, 3, 6\), \(3, 4, 6\) her",
        ),
        ({}, "1023456789", "trained with the class '1' where digits has '0'"),
        ({"num_classes": 7}, "0123456", "has 7 classes, digits 10"),
    ],
)
def test_a_supernet_of_others_in_a_workdir_must_fit(tiny, tmp_path, space, classes, message):
    theirs = dataclasses.replace(tiny, **space)
    _, variables = random_variables(theirs)
    save_supernet(
        tmp_path / "supernet", theirs, variables,
        SupernetCard(space_to_dict(theirs), tuple(classes)),
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"supernet .*{message}"):
        load_trained(config_of(curriculum=()), tmp_path)


def test_without_training_the_workdirs_own_supernet_is_init(tiny, tmp_path):
    (tmp_path / "run/supernet").mkdir(parents=True)
    for own in ("run", "run/supernet"):
        check_taken_over(config_of(init=str(tmp_path / own), curriculum=()), tmp_path / "run")
    other = config_of(init=str(tmp_path / "other"), curriculum=())
    with pytest.raises(ValueError, match=r"run/supernet exists and is not init='.*other'"):
        check_taken_over(other, tmp_path / "run")
    (tmp_path / "run/config.json").touch()  # of a run, whose init was compared
    check_taken_over(other, tmp_path / "run")


@pytest.mark.slow
def test_a_run_without_training_and_one_that_goes_on(tmp_path):
    """The supernet of one run is taken over by another, bit for bit, and teaches a third."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    code, _, error = run(SMALL, "--mode=train", f"--workdir={first}")
    assert code == 0, error
    before = {path: path.read_bytes() for path in (first / "supernet").rglob("*") if path.is_file()}
    from_first = f"--config.init={first}"
    code, out, error = run(
        SMALL, "--mode=train", f"--workdir={second}", from_first, "--config.curriculum=()"
    )
    assert code == 0, error
    assert f"starting from {first}, with its classifier" in out
    loaded = [ofa_jax.load_supernet(place / "supernet")[2] for place in (first, second)]
    assert identical(*loaded)
    code, out, error = run(
        SMALL, "--mode=train", f"--workdir={third}", from_first, "--config.curriculum=('expand2',)",
        "--config.phases.expand2.sort_width=False", "--config.phases.expand2.lr=0.0",
    )  # fmt: skip
    assert code == 0, error
    trained = ofa_jax.load_supernet(third / "supernet")[2]
    assert identical(trained["params"], loaded[0]["params"])  # trained at a rate of 0
    assert not identical(trained["batch_stats"], loaded[0]["batch_stats"])
    now = {path: path.read_bytes() for path in (first / "supernet").rglob("*") if path.is_file()}
    assert now == before
