"""What once broke a reader, or was accepted though nobody can mean it: tried first, forever."""

import copy

import numpy as np
from fuzz import readers
from fuzz.damage import DEEP, Declared, as_json, npz

DEEP_LIST = b"[" * DEEP
LONG_NUMBER = b'{"ks": ' + b"9" * 5000 + b"}"


def other(tree, *path, to):
    """The JSON of a value in which what lies at `path` is another."""
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return as_json(tree)


def lines(*rows):
    return b"\n".join(row if isinstance(row, bytes) else as_json(row) for row in rows)


SMOKE = readers.CONFIGS[0]
CONFIGS = (
    as_json("x" * 5000),
    other(SMOKE, "seed", to=-1),
    other(SMOKE, "seed", to=10**400),
    other(SMOKE, "unknown\x1b[31m", to=1),
    other(SMOKE, "space", "depths", to=[1, 2**31]),
    other(SMOKE, "space", "expands", to=["x"]),
    other(SMOKE, "space", "expands", to=[10**400]),
    other(SMOKE, "space", "stem", to=2**31 - 1),
    other(SMOKE, "space", "dropout", to=-0.5),
    other(SMOKE, "train", "momentum", to=-0.9),
    other(SMOKE, "train", "weight_decay", to=1e300),
    other(SMOKE, "data", "std", to=[0.2, 0.0, 0.2]),
    other(SMOKE, "data", "std", to=[0.2, float("nan"), 0.2]),
    other(SMOKE, "data", "std", to=[0.2, float("inf"), 0.2]),
    other(SMOKE, "data", "std", to=[0.2, 1e-320, 0.2]),
    other(SMOKE, "data", "augment", "flip", to=7.26),
    other(SMOKE, "data", "resolutions", to=[2**31 - 1]),
    other(SMOKE, "distill", "temperature", to=1e-320),
    other(SMOKE, "phases", "full", "epochs", to=1e300),
    other(SMOKE, "phases", "full", "lr", to=10**400),
    other(SMOKE, "phases", "full", "subnets", to=2**31 - 1),
    other(SMOKE, "finetune", "epochs", to=float("inf")),
)
TINY, RESNET = readers.SPACES[-1], readers.SPACES[3]
SPACES = (
    b"null",
    other(TINY, "stem", to="x"),
    other(TINY, "stem", to=0),
    other(TINY, "stem_stride", to=0),
    other(TINY, "features", to=-1),
    other(TINY, "bn_eps", to=float("nan")),
    other(TINY, "stages", 0, "depth", to=2**31),
    other(TINY, "stages", 0, "width", to=2**63),
    other(TINY, "stages", 0, "unknown", to=1),
    other(TINY, "kernels", to=[3, 2**31 - 1]),
    other(TINY, "depths", to=[1, 2**31]),
    other(RESNET, "widths", to=["x"]),
    other(RESNET, "stem", to=None),
    other(RESNET, "family", to=[]),
)
NET = readers.reference_config(readers.MBV3, 1)
RESNET_NET = readers.reference_config(readers.RESNET, 1)
ARCH = readers.ARCHS[0]
TABLE = readers.latency_table()
KEY = next(iter(TABLE["resolutions"]["8"]))
CARD = readers.json.loads(readers.CARD_FILE["good"][0])
OURS, THEIRS = readers.predictors()
MEASURED = readers.MEASURED[0]

FOUND = {
    "config from a dict": CONFIGS,
    "stored config": (*CONFIGS, DEEP_LIST, b"\xff\xfe", b"[]"),
    "overrides of a config": (
        as_json({"seed": "x"}),
        as_json({"nothing": 1}),
        as_json({"data.batch_size": 2**31}),
        as_json({"data.resolutions": "(8,"}),
        as_json({"phases.full.lr": "nan"}),
        as_json({"phases.full.lr": -1}),
        as_json({"data.name\n\x1b[31m": "x" * 5000}),
    ),
    "space by id": (
        b"[]",
        b"null",
        as_json("\x1b[31m" + "x" * 5000),
        as_json({"name": readers.TINY, "depths": 2}),
        as_json({"name": readers.TINY, "depths": [1, 2**31]}),
        as_json({"name": readers.TINY, "stem": "x"}),
        as_json({"name": readers.RESNET, "stem": 0}),
        as_json({"name": readers.RESNET, "expands": [1e300]}),
    ),
    "space description": SPACES,
    "supernet description": (
        b"[]",
        DEEP_LIST,
        other({"space": TINY}, "classes", to=3),
        other({"space": TINY}, "classes", to=[None]),
        as_json({"space": 1}),
    ),
    "subnet description": (
        other({"space": TINY}, "arch", to=[]),
        other({"space": TINY}, "arch", to={"ks": 99}),
    ),
    "arch file": (
        b"[]",
        DEEP_LIST,
        LONG_NUMBER,
        other(ARCH, "unknown", to=1),
        other(ARCH, "r", to=[224]),
        other(ARCH, "resolution", to=True),
        other(ARCH, "resolution", to=2**31),
        other(ARCH, "resolution", to=0),
        other(ARCH, "d", to=2**31),
        other(ARCH, "d", to=[2**31, 1, 1]),
        other(ARCH, "ks", to="x" * 5000),
        other(ARCH, "ks", to={str(i): i for i in range(300)}),
        other(ARCH, "e", 0, to=float("nan")),
    ),
    "arch of a flag": (
        DEEP_LIST,
        b"x" * 5000,
        b"a\x00b",
        b"~nobody/a.json",
        other(ARCH, "\x1b[2J\n", to=1),
        other(ARCH, "resolution", to=10**400),
    ),
    f"net.config of {readers.MBV3}": (
        b"[]",
        b'{"name": []}',
        other(NET, "bn", to=[]),
        other(NET, "bn", to={"eps": "x"}),
        other(NET, "blocks", to=None),
        other(NET, "blocks", 3, to=[]),
        other(NET, "blocks", 3, "conv", to=7),
        other(NET, "blocks", 3, "conv", "out_channels", to=[]),
        other(NET, "blocks", 3, "conv", "expand_ratio", to=10**400),
        other(NET, "blocks", 3, "conv", "mid_channels", to="x" * 5000),
        other(NET, "first_conv", to=1),
    ),
    f"net.config of {readers.RESNET}": (
        other(RESNET_NET, "input_stem", to=3),
        other(RESNET_NET, "input_stem", 0, to=[]),
        other(RESNET_NET, "blocks", 0, to=None),
        other(RESNET_NET, "blocks", 0, "act_func", to="\x1b[31m\r\n"),
        other(RESNET_NET, "blocks", 0, "mid_channels", to={}),
    ),
    "catalogue": (
        b"{}",
        b"[1]",
        other(readers.CATALOGUE, 0, "id", to="x_lat-1.2.3ms_top1-7..26_finetune-1"),
        other(readers.CATALOGUE, 0, "id", to="x_lat-1ms_top1-726_finetune-1"),
        other(readers.CATALOGUE, 0, "id", to="\x1b[31m" * 1000),
        other(readers.CATALOGUE, 0, "space", to=[]),
        other(readers.CATALOGUE, 0, "resolution", to="x"),
        other(readers.CATALOGUE, 0, "resolution", to=2**31),
    ),
    "measured archs": (
        other(MEASURED, "top1", to=7.26),
        other(MEASURED, "top1", to="x"),
        other(MEASURED, "top1", to=float("nan")),
        other(MEASURED, "index", to=1e300),
        other(MEASURED, "index", to=-1),
        other(MEASURED, "resolution", to=10**400),
        other(MEASURED, "arch", to=None),
        lines(MEASURED, DEEP_LIST, b"[]", b'{"index"'),
    ),
    "card": (
        other(CARD, "macs", to=10**400),
        other(CARD, "name", to="x" * 5000),
        other(CARD, "resolution", to=0),
        other(CARD, "preprocessing", "center_crop", to=0),
        other(CARD, "preprocessing", "std", to=[0, 0, 0]),
        other(CARD, "preprocessing", "mean", to=[]),
        other(CARD, "accuracy", "test", to={}),
        other(CARD, "accuracy", "test", "top1", to=7.26),
        other(CARD, "finetuned", to={"from": "mine"}),
        other(CARD, "finetuned", "before", to=3),
        other(CARD, "exports", "onnx", "file", to="../../card.json"),
        other(CARD, "exports", "onnx", "file", to="other.onnx"),
        other(CARD, "exports", to={"unknown": CARD["exports"]["onnx"]}),
        other(CARD, "files", to={"a\x00b": ""}),
        other(CARD, "files", to={"x" * 5000: ""}),
        other(CARD, "files", to={"/dev/zero": ""}),
        other(CARD, "classes", to=["\ud800", "b"]),
        other(CARD, "largest_difference_from_supernet", to=float("nan")),
    ),
    "foreign files by a card": (DEEP_LIST, other(CARD, "files", to=[])),
    "evaluation": (
        other(readers.EVALUATION, "subnets", to=None),
        other(readers.EVALUATION, "subnets", 0, to=[]),
        other(readers.EVALUATION, "subnets", 0, "top1", to="x"),
        other(readers.EVALUATION, "subnets", 0, "name", to=None),
        other(readers.EVALUATION, "subnets", 0, "macs", to=10**400),
    ),
    "what a search found": (
        b'{"found": []}',
        b'{"found": null}',
        b'{"found": [1]}',
        other(readers.FOUND, "found", 1, "name", to="../../etc"),
        other(readers.FOUND, "found", 1, "name", to=["x" * 5000]),
    ),
    "begun fine-tuning": (b"[]", DEEP_LIST),
    "metrics of a run to go on": (
        b"null",
        b"[]",
        DEEP_LIST,
        b'{"step": "x"}',
        b'{"step": null}',
        b'{"step": 1e999}',
    ),
    "report of search/measured.jsonl": (DEEP_LIST, b"\xff\xfe"),
    "report of config.json": (DEEP_LIST, other(SMOKE, "data", "name", to="\ud800")),
    "report of metrics.jsonl": (DEEP_LIST, other(readers.METRICS[0], "phase", to=[])),
    "report of report.html": (b"\xff\xfe", b""),
    "report of subnets/mine/card.json": (other(CARD, "name", to="\ud800"),),
    "seal of a checkpoint": (
        b"[]",
        DEEP_LIST,
        b'{"state/array": 1}',
        b'{"/dev/zero": "a"}',
        as_json({"x" * 5000: "a"}),
        as_json({"a\x00b": "a"}),
        as_json({"\ud800": "a"}),
    ),
    "latency table": (
        DEEP_LIST,
        other(TABLE, "factor", to=float("nan")),
        other(TABLE, "factor", to=0),
        other(TABLE, "factor", to=True),
        other(TABLE, "factor", to=10**400),
        other(TABLE, "resolutions", to={}),
        other(TABLE, "resolutions", to={"²": TABLE["resolutions"]["8"]}),
        other(TABLE, "resolutions", to={"9" * 5000: {}}),
        other(TABLE, "resolutions", "8", to=[]),
        other(TABLE, "resolutions", "8", KEY, to=3),
        other(TABLE, "resolutions", "8", KEY, "median", to=-1),
        other(TABLE, "resolutions", "8", KEY, "median", to=1e300),
    ),
    "latency table of the reference": (
        b"&a [*a]",
        b"a: 2001-13-45",
        b"? [1]\n: 2",
        b"a: {mean: .nan}",
        b"a: {mean: -.inf}",
        b"a: " + b"9" * 5000,
    ),
    "predictor": (
        b"",
        b"PK\x05\x06" + bytes(18),
        npz(OURS)[:-30],
        npz({**OURS, "hidden0/kernel": Declared((2**60, 2))}),
        npz({**OURS, "hidden0/kernel": Declared((2**34, 2))}),
        npz({**OURS, "hidden0/kernel": np.full((17, 5), np.nan)}),
        npz({**OURS, "hidden0/kernel": np.full((17, 5), 1e300)}),
        npz({**OURS, "hidden0/bias": np.full(5, 3e38)}),
        npz({**OURS, "hidden0/bias": np.zeros(5, "g")}),
        npz({**OURS, "hidden0/bias": np.array([None] * 5)}),
        npz({**OURS, "about": np.asarray("[" * DEEP)}),
        npz({**OURS, "about": np.asarray("{}")}),
        npz({**OURS, "about": np.zeros(3)}),
        npz({**THEIRS, "base_acc": np.zeros(())}),
        npz({**THEIRS, "0.0.weight": np.zeros((0, 2))}),
    ),
    "image": tuple(
        readers.wide(p, kind) for p, kind in zip(readers.PICTURES, ("png", "jpeg"), strict=False)
    ),
    "image to predict": (b"",),
    "image of a folder": (b"",),
    "tfds dataset_info.json": (b"null", b"[]", b"{}", DEEP_LIST, b"\xff\xfe"),
    "tfds features.json": (b"null", b"[]", b"{}", DEEP_LIST, b"\xff\xfe"),
    "tfds label.labels.txt": (b"", b"\xff\xfe", b"a\na\n"),
}
