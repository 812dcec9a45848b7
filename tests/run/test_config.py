import json
import math
import os
import shutil

import pytest

from configs import (
    cifar10,
    cifar10_16,
    digits,
    digits_ps,
    digits_resnet,
    imagenet_mbv3,
    imagenet_proxyless,
    imagenet_resnet50,
    imagenette,
    smoke,
)
from ofa_jax.run import workdir
from ofa_jax.run.config import defaults, from_dict, to_dict
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.evaluate import load_trained
from ofa_jax.run.groups.data import DataConfig
from ofa_jax.run.plan import plan

PHASES = {"full": {"kernels": (7,), "expands": (6,), "depths": (3,), "distill": 0.0}}


CONFIGS = [
    cifar10, cifar10_16, digits, digits_ps, digits_resnet, imagenet_mbv3, imagenet_proxyless,
    imagenet_resnet50, imagenette, smoke,
]  # fmt: skip


@pytest.mark.parametrize("module", CONFIGS)
def test_configs_are_valid_and_complete(module):
    config = from_dict(module.get_config().to_dict())
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert module.get_config().train.momentum == 0.9  # a default: every field can be overridden


def test_the_references_run_of_imagenet():
    """FACTS of its `train_ofa_net.py`: 32 workers of 64 images, rates by worker, 25 sizes."""
    config = from_dict(imagenet_mbv3.get_config().to_dict())
    phases = config.ordered_phases()
    assert config.data.batch_size == 2048
    assert config.data.resolutions == tuple(range(128, 225, 4))
    assert [(n, p.epochs + p.warmup_epochs, p.subnets) for n, p in phases] == [
        ("full", 180, 1), ("kernel", 125, 1), ("depth1", 25, 2), ("depth2", 125, 2),
        ("expand1", 25, 4), ("expand2", 125, 4),
    ]  # fmt: skip
    rates = [2.6, 0.96, 0.08, 0.24, 0.08, 0.24]
    assert [p.lr for _, p in phases] == pytest.approx(rates)
    assert [p.warmup_lr for _, p in phases if p.warmup_lr] == [2.6 / 32, 0.03, 0.0075, 0.0075]
    augment = config.data.augment
    assert (augment.area, augment.flip, augment.saturation) == ((0.08, 1.0), 0.5, 0.5)
    assert augment.brightness == pytest.approx(32 / 255)
    assert config.evaluate.resolutions == (160, 224)
    images = 1_281_167 - config.data.held_out
    assert plan(config, images)[0].end == 180 * (images // 2048)
    short = from_dict(imagenet_mbv3.get_config("1.2,short").to_dict())
    assert short.data.resolutions == (128, 160, 192, 224)
    assert short.search_space(1000).stages[0].width == 32  # 24 * 1.2
    with pytest.raises(ValueError, match=r"expected 1.0 or 1.2, found '2'"):
        imagenet_mbv3.get_config("2")
    with pytest.raises(ValueError, match="'few': expected continuous or short resolutions"):
        imagenet_proxyless.get_config("few")


def test_a_space_can_be_changed_in_a_config():
    config = from_dict(smoke.get_config().to_dict())
    space = config.search_space(10)
    assert [len(space.blocks), space.stem, space.stages[1].se] == [4, 8, True]


def test_a_first_phase_that_is_no_teacher_is_named():
    data = digits_resnet.get_config().to_dict()
    data["phases"]["full"]["widths"] = (0.75, 1.0)
    message = r"phases.full: .*distill=0, expands=\(0.5,\), depths=\(1,\), widths=\(1.0,\) \(or"
    with pytest.raises(ValueError, match=message):
        from_dict(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sead": 1}, r"unknown field sead: .*did you mean seed\?"),
        ({"data": {"batchsize": 1}}, r"data.batchsize: .*did you mean data.batch_size\?"),
        ({"data": {"batch_size": 1.5}}, r"data.batch_size=1.5: expected int"),
        ({"data": {"batch_size": 0}}, r"data.batch_size=0: expected at least 1"),
        ({"data": {"resolutions": 16}}, r"data.resolutions=16: expected tuple\[int, ...\]"),
        ({"data": {"resolutions": ()}}, r"data.resolutions=\(\): expected pixels"),
        ({"data": {"resolutions": (8, 0)}}, r"data.resolutions=\(8, 0\): expected pixels"),
        ({"data": {"corrupt": "ignore"}}, r"data.corrupt='ignore': expected one of stop, skip"),
        ({"search": {"cost": "flops"}}, r"search.cost='flops': expected one of macs, params"),
        ({"search": {"archs": 5}}, r"search.archs=5: expected 20 to 1000000"),
        (
            {"search": {"constraints": (0,)}},
            r"search.constraints=\(0.0,\): expected positive costs",
        ),
        ({"search": {"population": 127}}, "search.population=127: expected 0, or 128 to 1000000"),
        (
            {"search": {"population": 3, "constraints": (1e6,)}},
            "search.population=3: expected 0, or 4 to 1000000",
        ),
        ({"search": {"winners": 1001}}, "search.winners=1001: expected 1 to 1000"),
        ({"search": {"least_tau": 2.0}}, r"search.least_tau=2.0: expected -1 to 1"),
        ({"search": {"resolutions": (0,)}}, r"search.resolutions=\(0,\): expected pixels"),
        ({"seed": -1}, "seed=-1: expected 0 to 2147483647"),
        ({"seed": 2**31}, "seed=2147483648: expected at most 2,147,483,647"),
        ({"data": {"batch_size": 2**40}}, "data.batch_size=1099511627776: expected at most"),
        ({"data": {"std": (0.2, 0.2, 0.0)}}, r"data.std=.*: expected numbers from 0.001 to 1"),
        ({"data": {"mean": (math.nan, 0.2, 0.2)}}, r"data.mean\[0\]=nan: expected a finite number"),
        ({"train": {"momentum": -0.1}}, "train.momentum=-0.1: expected at least 0, below 1"),
        ({"train": {"weight_decay": -1.0}}, "train.weight_decay=-1.0: expected 0 to 1"),
        ({"train": {"label_smoothing": 1.5}}, "train.label_smoothing=1.5: expected 0 to 1"),
        ({"parallel": {"timeout": math.inf}}, "parallel.timeout=inf: expected a finite number"),
        ({"train": {"optimizer": "adam"}}, "train.optimizer='adam': expected one of sgd, adamw"),
        ({"distill": {"temperature": 0.0}}, "distill.temperature=0.0: expected 0.01 to 1000"),
        ({"data": {"workers": -1}}, r"data.workers=-1: expected 0 to 1000"),
        ({"data": {"center_crop": 0.0}}, r"data.center_crop=0.0: expected 0.01 to 1"),
        ({"data": {"augment": {"crop": "no"}}}, r"data.augment.crop='no': expected one of resized"),
        ({"data": {"augment": {"flip": 2.0}}}, r"data.augment.flip=2.0: expected 0 to 1"),
        ({"data": {"augment": {"area": (0.0, 1.0)}}}, r"data.augment.area=\(0.0, 1.0\): expected"),
        ({"data": {"augment": {"aspect": (2.0, 1.0)}}}, r"data.augment.aspect=\(2.0, 1.0\): exp"),
        ({"data": {"mean": (0.5,)}}, r"data.mean=\(0.5,\): expected 3 numbers"),
        ({"train": 3}, r"train=3: expected a group of fields"),
        ({"distill": {"loss": "kl"}}, r"distill.loss='kl': expected one of soft, mse, alpha"),
        ({"distill": {"source": "me"}}, r"distill.source='me': expected one of teacher, largest"),
        ({"space": {"name": "ofa_x"}}, r"space 'ofa_x' is unknown: expected one of ofa_mbv3"),
        ({"curriculum": ("fall",)}, r"curriculum='fall': expected one of full"),
        ({"phases": {"/tmp/x": {}, **PHASES}}, r"the name of a phase='/tmp/x': expected a plain"),
        ({"phases": {"..": {}, **PHASES}}, r"the name of a phase='..': expected a plain name"),
        ({"phases": {"": {}, **PHASES}}, r"the name of a phase='': expected a plain name"),
        ({"phases": {"a\nb": {}, **PHASES}}, r"the name of a phase='a\\nb': expected a plain name"),
        ({"curriculum": ("full", "full")}, r"a phase is named twice"),
        ({"phases": {"full": {"lr": "fast"}}}, r"phases.full.lr='fast': expected float"),
        ({"phases": {"full": {"draw": "x"}}}, r"phases.full.draw='x': expected one of random"),
        ({"phases": {"full": {"kernels": (9,)}}}, r"phases.full.kernels=\(9,\): .*\(3, 5, 7\)"),
        ({"phases": {"full": {"widths": (0.5,)}}}, r"phases.full.widths=\(0.5,\): .* \(\) only"),
        ({"space": {"name": "ofa_resnet50", "head": 8}}, "'head' is unknown to ofa_resnet50"),
        ({"parallel": {"subnets": "all"}}, r"parallel.subnets='all': expected one of own, same"),
        ({"parallel": {"micro_steps": 0}}, r"parallel.micro_steps=0: expected at least 1"),
        ({"parallel": {"devices": -1}}, r"parallel.devices=-1: expected at least 0"),
        ({"train": {"ema": 1.0}}, r"train.ema=1.0: expected at least 0, below 1"),
        ({"evaluate": {"split": "train"}}, r"evaluate.split='train': expected one of test"),
        ({"extract": {"archs": ("big",)}}, r"extract.archs='big': expected one of smallest"),
    ],
)
def test_wrong_fields_are_named(data, message):
    with pytest.raises(ValueError, match=message):
        from_dict({"phases": PHASES, "curriculum": ("full",), **data})


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(DataConfig())


def test_a_workdir_belongs_to_one_config(tmp_path, dataset):
    make = lambda **data: from_dict({"phases": PHASES, "curriculum": ("full",), **data})  # noqa: E731
    with workdir.claim(tmp_path / "run", make(), dataset):
        pass
    workdir.check(tmp_path / "run", make())
    assert workdir.stored_config(tmp_path / "run") == make()
    other = make(seed=3, data={"batch_size": 32})
    before = (tmp_path / "run/config.json").read_bytes()
    message = r"another config: data.batch_size is 64 there, 32 here; seed is 0 there, 3 here"
    with pytest.raises(ValueError, match=message):
        workdir.check(tmp_path / "run", other)
    with pytest.raises(ValueError, match=message), workdir.claim(tmp_path / "run", other, dataset):
        pass
    assert (tmp_path / "run/config.json").read_bytes() == before
    with pytest.raises(ValueError, match="does not exist: give --config"):
        workdir.stored_config(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match="cannot be written"),
        workdir.claim(tmp_path / "file", make(), dataset),
    ):
        pass


def test_a_run_goes_on_with_other_devices_and_after_an_upgrade(tmp_path, dataset):
    config = {"phases": PHASES, "curriculum": ("full",)}
    with workdir.claim(tmp_path, from_dict(config), dataset):
        pass
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["parallel"]["subnets"]  # as a version wrote it that did not know the field
    path.write_text(json.dumps(stored))
    free = {"devices": 2, "micro_steps": 4, "shard_optimizer": True, "timeout": 9.0}
    workdir.check(tmp_path, from_dict({**config, "parallel": free}))
    with pytest.raises(ValueError, match="parallel.subnets is 'own' there, 'same' here"):
        workdir.check(tmp_path, from_dict({**config, "parallel": {"subnets": "same"}}))


def test_a_run_belongs_to_its_images_wherever_they_lie(tmp_path, monkeypatch):
    """A folder may be moved, or called by another path; what it holds may not change."""
    run, photos = tmp_path / "run", tmp_path / "photos"
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"")

    def make(path, **more):
        data = {"name": str(path), "held_out": 1}
        return from_dict({"phases": PHASES, "curriculum": ("full",), "data": data, **more})

    def begin(path):
        config = make(path)
        with workdir.claim(run, config, load_dataset(config.data)):
            pass

    begin(photos)
    monkeypatch.chdir(tmp_path)
    for same in ("./photos", f"{photos}/", f"{tmp_path}/x/../photos"):
        workdir.check(run, make(same))
    elsewhere = shutil.copytree(photos, tmp_path / "elsewhere")
    workdir.check(run, make(elsewhere))
    with pytest.raises(ValueError, match="another config: data.name is .*photos' there"):
        workdir.check(run, make(tmp_path / "none"))
    with pytest.raises(ValueError, match="another config: seed is 0 there, 1 here$"):
        workdir.check(run, make(elsewhere, seed=1))
    begin(elsewhere)
    assert workdir.stored_config(run) == make(elsewhere)
    (elsewhere / "dog/3.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"run was begun with other images.*elsewhere'"):
        begin(elsewhere)
    with pytest.raises(ValueError, match="another config: data.name is .*elsewhere' there"):
        workdir.check(run, make(shutil.copytree(elsewhere, tmp_path / "third")))
    with pytest.raises(ValueError, match=r"run was begun with other images.*elsewhere'"):
        # Whatever is done with the trained supernet: other images would be held out.
        load_trained(make(elsewhere), run)
    begin(photos)
    (run / "contents.json").unlink()  # as a version wrote it that did not know the file
    with pytest.raises(ValueError, match="another config: data.name is .*photos' there"):
        workdir.check(run, make(elsewhere))


@pytest.mark.parametrize("name", workdir.RESULTS)
def test_what_another_run_left_is_neither_replaced_nor_used(tmp_path, dataset, name):
    """Such as another program's metrics.jsonl, or a search's results beside a new supernet."""
    config = from_dict({"phases": PHASES, "curriculum": ("full",)})
    theirs, run = tmp_path / "run" / name, tmp_path / "run"
    theirs.parent.mkdir()
    if "." in name:
        theirs.write_text("theirs")
    else:
        theirs.mkdir()
        with workdir.claim(run, config, dataset):  # an empty folder is nobody's
            pass
        (run / "config.json").unlink()
        (theirs / "file").write_text("theirs")
    message = rf"run holds {name}, and no config.json of the run that it is of: give another"
    before = {path.name for path in run.iterdir()}
    with pytest.raises(ValueError, match=message), workdir.claim(run, config, dataset):
        pass
    assert {path.name for path in run.iterdir()} == before


def test_a_workdir_is_one_processes_at_a_time(tmp_path, monkeypatch, dataset):
    config = from_dict({"phases": PHASES, "curriculum": ("full",)})
    message = rf"run is in use by another run, process {os.getpid()}"
    run = tmp_path / "run"
    with workdir.claim(run, config, dataset):
        with workdir.claim(run, config, dataset), workdir.locked(run):  # parts of one command
            pass
        monkeypatch.setattr("ofa_jax.run.lock._locked", set())  # as another process has it
        for again in (workdir.claim(run, config, dataset), workdir.locked(run)):
            with pytest.raises(ValueError, match=message), again:
                pass
    with workdir.locked(run):  # free again
        pass


def test_a_lock_leaves_no_trace_in_what_is_no_run(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        with workdir.locked(place):
            assert not list(tmp_path.iterdir())
    (tmp_path / "supernet").mkdir()
    with workdir.locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_defaults_has_every_field():
    config = defaults(phases=PHASES, curriculum=("full",), seed=7)
    assert config.seed == 7
    assert config.phases.full.warmup_lr == 0.0
    with pytest.raises(ValueError, match="unknown field nothing"):
        defaults(nothing=1)


def test_the_cost_of_a_curriculum_is_counted_in_subnet_passes():
    cost = {}
    for module in (digits, digits_ps):
        legs = plan(from_dict(module.get_config().to_dict()), images=1257)
        cost[module] = sum(leg.units for leg in legs)
    # The largest net teaches by the pass that trains it; any other teacher's forward is a third.
    assert cost[digits] == 304 * 3
    # 323 + 190 * 4/3 + (57 + 152) * 7/3 + (38 + 266) * 13/3
    assert cost[digits_ps] == pytest.approx(323 + 253.33 + 487.67 + 1317.33, abs=0.1)


SMALL = {"curriculum": ("only",), "phases": {"only": {"distill": 0.0}}}


def test_what_a_space_has_is_kept_unless_it_is_replaced():
    assert from_dict({**SMALL, "space": {"name": "ofa_resnet50"}}).search_space(10).dropout == 0.0
    mbv3 = {"name": "ofa_mbv3_d234_e346_k357_w1.0"}
    assert from_dict({**SMALL, "space": mbv3}).search_space(10).dropout == 0.1
    replaced = from_dict({**SMALL, "space": {**mbv3, "dropout": 0, "features": 0}})
    space = replaced.search_space(10)
    assert (space.dropout, space.features, space.stem) == (0.0, 0, 16)


def test_a_flag_replaces_a_field_that_has_no_value():
    config = defaults(space={"name": "ofa_resnet50"}, **SMALL)
    config.space.update(dropout=0, stem=32)
    assert config.space.dropout == 0.0
    with pytest.raises(TypeError):
        config.space.stem = "wide"
    assert config.to_dict()["space"]["features"] is None
