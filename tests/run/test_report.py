"""The page of a run, from files written by hand: every figure is where it belongs."""

import dataclasses
import html
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from cards import CARD
from main_runs import SAFETY

import ofa_jax
from ofa_jax import checkpoint
from ofa_jax.families import space_to_dict
from ofa_jax.run.config import from_dict, to_dict
from ofa_jax.run.report import SECTIONS, write_report
from ofa_jax.search.cost import macs, params
from ofa_jax.subnets.evaluate import grid

VOID = {"meta", "link", "br", "line", "rect", "path", "circle"}
TINY = "ofa_tiny_d123_e346_k357"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


class Page(HTMLParser):
    """Elements in the order of their start: tag, attributes, own text; refuses crossed tags."""

    def __init__(self, text):
        super().__init__()
        self.all, self._open, self._around = [], [], {}
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, **dict(attributes), "text": "", "in": [e["tag"] for e in self._open]}
        self._around[id(element)] = tuple(self._open)
        self.all.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def find(self, tag, style=None, **attributes):
        return [
            e
            for e in self.all
            if e["tag"] == tag
            and (style is None or style in (e.get("class") or "").split())
            and all(e.get(key) == value for key, value in attributes.items())
        ]

    def around(self, element):
        """The elements that hold this one."""
        return self._around[id(element)]

    def rows(self):
        """The cells' text of each table row by the first cell's; the last such row wins."""
        rows, row = {}, []
        for element in self.all:
            if element["tag"] == "tr":
                row = []
            elif element["tag"] in ("td", "th"):
                row.append(element["text"])
                rows[row[0]] = row
        return rows


def written(workdir):
    path = write_report(workdir)
    assert path == workdir / "report.html"
    text = path.read_text()
    assert not list(workdir.glob(".report*"))
    return Page(text)


def config(**sections):
    phases = {
        "full": {"kernels": [7], "depths": [3], "expands": [6], "distill": 0.0},
        "kernel": {"depths": [3], "expands": [6], "subnets": 2, "lr": 0.05},
    }
    data = {"name": "digits", "resolutions": [16, 24]}
    return from_dict({"data": data, "curriculum": ["full", "kernel"], "phases": phases, **sections})


@pytest.fixture
def workdir(tmp_path):
    """Of a run that has not begun."""
    directory = tmp_path / "mine & <b>ours"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(to_dict(config())))
    return directory


def add(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def train(workdir, steps=1000, until=600, then="kernel"):
    """Loss falls from 3 to 1; accuracy rises to 1. Behind step `until` the phase is another one."""
    rows = []
    for i in range(1, steps + 1):
        done = (i - 1) / (steps - 1)
        rows.append({"step": i, "phase": "full" if i <= until else then, "group": "train",
                     "time": float(i), "loss": 3 - 2 * done, "accuracy": done,
                     "learning_rate": 0.1, "gradient_norm": 1.0})  # fmt: skip
    add(workdir / "metrics.jsonl", rows)


def end_phase(workdir, name, step, **top1):
    row = {"step": step, "phase": name, "time": 1.0}
    speed = {"seconds": 61.4, "images_per_second": 476.8, "waited_for_data": 0.0433,
             "skipped_images": 3}  # fmt: skip
    measured = {f"top1/{key}": value for key, value in top1.items()}
    add(workdir / "metrics.jsonl",
        [{**row, "group": "phase", **speed}, {**row, "group": "held_out", **measured}])  # fmt: skip


def evaluate(workdir, space):
    """The grid at two resolutions; top-1 tells which row a cell is of."""
    rows = []
    for size in (16, 24):
        for i, (name, arch) in enumerate(grid(space).items()):
            rows.append({"name": name, "arch": space.arch_to_dict(arch), "resolution": size,
                         "split": "test", "top1": 0.9 + 0.01 * i + 0.0001 * size, "loss": 0.25,
                         "macs": int(macs(space, arch, size)),
                         "params": int(params(space, arch))})  # fmt: skip
    result = {"space": space.name, "mean_top1": 0.9, "subnets": rows}
    (workdir / "evaluation.json").write_text(json.dumps(result))
    return rows


def search(workdir, space):
    smallest, largest = (space.arch_to_dict(a) for a in (space.smallest(), space.largest()))
    about = {"space": space.name, "cost": "macs",
             "predictor": {"held_out_archs": 60, "rmse": 0.004, "kendall_tau": 0.81,
                           "spearman": 0.9}}  # fmt: skip
    found = [{"name": f"macs-{m}M", "arch": smallest, "resolution": 16, "macs": m * 1e6,
              "params": 100_000, "predicted": 0.9 + m / 100, "held_out": 0.9 + m / 200}
             for m in (2, 3, 4)]  # fmt: skip
    front = [{"macs": m * 1e6, "predicted": 0.9 + m / 100} for m in (1, 2, 3, 4)]
    random = [{"cost": 3e6, "held_out": value} for value in (0.90, 0.915, 0.92)]
    add(workdir / "search/measured.jsonl",
        [{"index": 0, "arch": smallest, "resolution": 16, "top1": 0.8, "loss": 0.3},
         {"index": 1, "arch": largest, "resolution": 16, "top1": 0.95, "loss": 0.2}])  # fmt: skip
    (workdir / "search/front.json").write_text(
        json.dumps({**about, "hypervolume": 0.8428, "front": front})
    )
    (workdir / "search/found.json").write_text(
        json.dumps({**about, "found": found, "random": random})
    )


def describe(workdir, space):
    variables = {"params": np.zeros(1)}  # which nobody reads
    checkpoint.save_network(workdir / "supernet", variables, {"space": space_to_dict(space)})


def extract(workdir, name, space, arch, **fields):
    card = dataclasses.replace(CARD, space=space.name, arch=arch)
    fields = {"name": name, **fields}  # a card that is altered may hold anything
    directory = workdir / "subnets" / name.replace("/", "")
    directory.mkdir(parents=True)
    (directory / "card.json").write_text(json.dumps({**dataclasses.asdict(card), **fields}))


FINETUNED = {
    "from": "other", "epochs": 25.0, "lr": 0.01,
    "before": {"test": {"top1": 0.8765}}, "after": {"test": {"top1": 0.9123}},
}  # fmt: skip
EXPORTS = {
    "onnx-int8": {"file": "model.int8.onnx", "bytes": 154522, "input": "float32 [batch, 3, 16, 16]",
                  "difference": 0.039, "accuracy": {"top1": 0.9012}},
}  # fmt: skip
LATENCY = [{"runtime": "LiteRT", "batch": 1, "threads": 2, "median_ms": 0.0473, "p90_ms": 0.061}]


@pytest.fixture
def whole(workdir, tiny):
    """A run with everything."""
    train(workdir)
    end_phase(workdir, "full", 600, largest_16=0.93)
    end_phase(workdir, "kernel", 1000, largest_16=0.97, smallest_16=0.91)
    evaluate(workdir, tiny)
    describe(workdir, tiny)
    search(workdir, tiny)
    arch = tiny.arch_to_dict(tiny.smallest())
    extract(workdir, "macs-3M", tiny, arch)
    extract(workdir, "macs-3M-finetuned", tiny, arch, finetuned=FINETUNED, exports=EXPORTS,
            latency=LATENCY, machine={"processor": "abacus"})  # fmt: skip
    train(workdir / "finetune/macs-3M-finetuned", steps=50, until=0, then="finetune")
    return workdir


# -- what may be missing ---------------------------------------------------------------------------


def test_a_run_that_has_not_begun_has_a_page(workdir):
    page = written(workdir)
    assert [e["text"] for e in page.find("h2")] == [title for title in SECTIONS if title]
    assert f"{TINY} on digits: not begun." in page.find("main")[0]["text"]
    assert page.rows()["kernel"] == ["kernel", "not yet", "2", "1.0", "0.05", "depth 3; expand 6"]
    assert page.find("main")[0]["text"].count("Nothing yet.") == 4
    assert '"curriculum"' in page.find("pre")[0]["text"]


def test_an_empty_directory_has_a_page(tmp_path):
    page = written(tmp_path)
    assert "Not begun." in page.find("main")[0]["text"]
    assert "cannot be shown" not in page.find("main")[0]["text"]
    assert not page.find("svg")


def test_a_damaged_file_costs_its_own_part_only(whole):
    (whole / "evaluation.json").write_text('{"subnets": [{"name": "largest"}]}')
    (whole / "search/found.json").write_text("{half")
    text = written(whole).find("main")[0]["text"]
    assert text.count("This part cannot be shown: KeyError") == 2  # the summary and the grid
    assert "2 random subnets measured so far" in text
    assert "macs-3M-finetuned" in text


def test_it_replaces_the_page_before(workdir):
    (workdir / "report.html").write_text("old")
    assert written(workdir).find("h1")


# -- how it is written -----------------------------------------------------------------------------


def test_text_of_files_stays_text(workdir, tiny):
    name = '"><script>alert(1)</script>'
    exports = {name: {**EXPORTS["onnx-int8"], "file": name}}
    extract(workdir, name, tiny, tiny.arch_to_dict(tiny.largest()), exports=exports)
    train(workdir, steps=5, until=5)
    path = workdir / "metrics.jsonl"
    path.write_text(path.read_text().replace('"full"', json.dumps(name)))
    end_phase(workdir, name, 5, **{f"{name}_16": 0.5})
    page = written(workdir)
    assert not page.find("script")
    assert not page.find("b")
    assert page.find("h1")[0]["text"] == page.find("title")[0]["text"] == "mine & <b>ours"
    assert [e["text"] for e in page.find("h3")] == [name]
    cells = [row for row in page.rows().values() if row[0] == name]
    assert cells[0][1] in ("1:01", name)
    labels = [e.get("aria-label") or "" for e in page.find("svg")]
    assert any(label.startswith(f"{name}: blocks kept") for label in labels)
    titles = [e["text"] for e in page.find("title")]
    assert any(text.startswith(f"{name}, steps 1 to 5: loss 3 to 1") for text in titles)
    assert any(text.endswith("px: 50.00%") and name in text for text in titles)


HOSTILE = ("<script>alert(1)</script>", '"><img onerror=', "'><i", "&amp;")
FILES = ("config.json", "metrics.jsonl", "evaluation.json", "search/found.json",
         "search/front.json", "search/measured.jsonl", "subnets/macs-3M-finetuned/card.json",
         "finetune/macs-3M-finetuned/metrics.jsonl")  # fmt: skip


def hostile(value, only=None, key=False):
    """The data with the four texts after its own, or after that of number `only`; or its keys."""
    count = itertools.count()

    def changed(value):
        if isinstance(value, str):
            ours = not key and only in (None, next(count))
            return value + "".join(HOSTILE) * ours
        if isinstance(value, list):
            return [changed(inner) for inner in value]
        if isinstance(value, dict):
            return {k + "".join(HOSTILE) * key: changed(inner) for k, inner in value.items()}
        return value

    return changed(value), next(count)


@pytest.mark.parametrize("name", FILES)
def test_no_text_of_a_file_is_html(whole, name):
    """All texts at once, all keys, and each text by itself, as one alone may be shown further."""
    path = whole / name
    lines = path.read_text().splitlines() if name.endswith("l") else [path.read_text()]
    rows = [json.loads(line) for line in lines][-4:]
    singly = 0 if name == "config.json" else min(hostile(rows, -1)[1], 30)
    variants = [hostile(rows), hostile(rows, key=True), *(hostile(rows, i) for i in range(singly))]
    for changed, _ in variants:
        path.write_text("\n".join(map(json.dumps, changed)))
        written(whole)
        check_escaped((whole / "report.html").read_text())


def check_escaped(text):
    page = Page(text)
    assert not page.find("script") + page.find("img") + page.find("i")
    assert not any(key.startswith("on") for element in page.all for key in element)
    for found in re.finditer(r"alert\(1\)", text):
        around = text[found.start() - 20 : found.end() + 90]
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in around
        assert "&amp;amp;" in around or "&amp;" not in around  # cut short where it is long


def test_hostile_text_would_be_seen():
    for text in HOSTILE:
        with pytest.raises(AssertionError):
            check_escaped(f"<p title=\"{text}\" class='{text}'>alert(1){text}</p>")


def test_names_of_directories_and_classes_are_no_html(workdir, tiny):
    name = "".join(HOSTILE).replace("/", "")
    extract(workdir, name, tiny, tiny.arch_to_dict(tiny.largest()), classes=[name, name])
    train(workdir / "finetune" / name, steps=5, until=5)
    variables, space = {"params": np.zeros(1)}, space_to_dict(tiny)
    checkpoint.save_network(workdir / "supernet", variables, {"space": space, "classes": [name]})
    page = written(workdir)
    assert [e["text"] for e in page.find("h3")] == [name]
    assert not page.find("script") + page.find("img") + page.find("i")


def test_nothing_comes_from_elsewhere(whole):
    page = written(whole)
    assert "cannot be shown" not in page.find("main")[0]["text"]
    assert "http" not in (whole / "report.html").read_text()
    assert "url(" not in (whole / "report.html").read_text()
    links = [e["href"] for e in page.all if "href" in e]
    assert [link for link in links if not link.startswith("#")] == ["data:,"]
    assert {link[1:] for link in links if link.startswith("#")} == {
        e["id"] for e in page.all if "id" in e
    }
    assert not [e for e in page.all if "src" in e]
    assert all(e.get("aria-label") or e.get("aria-hidden") for e in page.find("svg"))


# -- training --------------------------------------------------------------------------------------


def curve(page, label):
    """The points of each curve in the picture whose label begins so, and the label."""
    (picture,) = [e for e in page.find("svg") if (e.get("aria-label") or "").startswith(label)]
    curves = [
        marks_of(page, e)
        for e in page.find("g", "curve")
        if any(outer is picture for outer in page.around(e))
    ]
    paths = [path["d"] for (path,) in curves]
    return [list(map(pair, re.split("[ML]", path)[1:])) for path in paths], picture["aria-label"]


def pair(text):
    return tuple(map(float, text.split()))


def marks_of(page, group):
    """The shapes in a group, without what it defines."""
    inside = [e for e in page.all if any(outer is group for outer in page.around(e))]
    return [e for e in inside if e["tag"] in ("path", "use") and "id" not in e]


def test_curves_have_few_points_and_fill_their_axes(workdir):
    train(workdir)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5000, "phase": "kernel", "group": "train", "loss": 99.0, "accur')
    page = written(workdir)
    (first, second), label = curve(page, "Loss")  # a phase's is its own
    assert len(second) == 100  # means of 4 of the 400 steps
    assert len(first) < 150  # of 600, of which a line needs two
    assert (first[0][0], second[-1][0]) == (66.0, 466.0)
    assert first[0][1] < 45 and second[-1][1] > 230  # it falls
    assert label == "Loss from 2.997 at the first step to 1.003 at the last"
    titles = [e["text"] for e in page.find("title") if "g" in e["in"]]
    assert any(t.startswith("kernel, steps 601 to 1,000: loss 1.796 to 1.003") for t in titles)
    assert "training, phase kernel (2 of 2) at step 1,000" in page.find("main")[0]["text"]


@pytest.mark.parametrize("name", ["$a_b$", "$a_", "\x00\x1b[1m", "層", "\ud800", "a\nb"])
def test_a_phase_of_any_name_is_drawn(workdir, name):
    train(workdir, steps=5, until=2, then=name)
    page = written(workdir)
    assert "cannot be shown" not in page.find("main")[0]["text"]
    shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in name)[:9]
    (picture, *_) = [e for e in page.find("svg") if e["aria-label"].startswith("Loss")]
    assert shown.replace("\n", "") in picture["text"].replace("\n", "").replace(" ", "")


def test_few_steps_are_all_drawn(workdir):
    train(workdir, steps=5, until=5)
    (points,), _ = curve(written(workdir), "Accuracy")
    assert [x for x, _ in points] == [66.0, 166.0, 266.0, 366.0, 466.0]


def test_held_out_accuracy_after_each_phase(whole):
    page = written(whole)
    rows = page.rows()
    assert rows["after phase"][2:5] == ["mean", "largest", "worst"]
    assert ["kernel", "2", "94.00%", "97.00%", "91.00%", "smallest, 16 px"] in [
        [c["text"] for c in page.all[i : i + 7] if c["tag"] in ("td", "th")]
        for i, e in enumerate(page.all)
        if e["tag"] == "tr"
    ]
    titles = [e["text"] for e in page.find("title")]
    assert "kernel, smallest, 16 px: 91.00%" in titles


def test_time_and_throughput(whole):
    rows = written(whole).rows()
    assert rows["kernel"] == ["kernel", "1:01", "", "477", "4.33%", "3"]
    assert rows["all"][1] == "2:03"


# -- the grid --------------------------------------------------------------------------------------


def heat(page):
    """The cells of each heat map by their row's and their column's head."""
    maps, found = [], None
    for element in page.all:
        if element["tag"] == "table":
            found = {"heads": []} if "heat" in (element.get("class") or "") else None
            if found is not None:
                maps.append(found)
        if found is None:
            continue
        if element.get("scope") == "col":
            found["heads"].append(element["text"])
        elif element.get("scope") == "row":
            row, column = element["text"], 0
        elif element["tag"] == "td":
            found[row, found["heads"][column]] = element
            column += 1
    return maps


def test_the_grid_holds_the_figures(workdir, tiny):
    rows = evaluate(workdir, tiny)
    page = written(workdir)
    small, large = heat(page)
    assert len(small) == len(large) == 1 + 8
    by_name = {(row["name"], row["resolution"]): row for row in rows}
    for name, place in (
        ("smallest", ("depth 1, expand 3", "kernel 3")),
        ("d1-e3-k7", ("depth 1, expand 3", "kernel 7")),
        ("d3-e6-k3", ("depth 3, expand 6", "kernel 3")),
        ("largest", ("depth 3, expand 6", "kernel 7")),
    ):
        for cells, size in ((small, 16), (large, 24)):
            row = by_name[name, size]
            assert cells[place]["text"] == f"{row['top1']:.2%}{row['macs'] / 1e6:,.2f} M"
            assert cells[place]["title"].startswith(f"{name}: loss 0.250")
    shades = sorted(float(cells["style"].removeprefix("--v:"))
                    for place, cells in small.items() if place != "heads")  # fmt: skip
    assert shades[0] == 0.0
    assert 0.98 < shades[-1] < 1.0  # the best is of the other map
    assert [e["text"][:6] for e in page.find("td", "best")] == ["97.24%"]
    tiles = [e["text"] for e in page.find("dd")]
    assert tiles[:4:2] == ["97.24%", "90.16%"]


def test_the_grid_of_a_resnet_goes_by_width(workdir, small_resnet):
    evaluate(workdir, small_resnet)
    (workdir / "config.json").unlink()
    describe(workdir, small_resnet)
    cells, _ = heat(written(workdir))
    assert cells["heads"] == ["width 0.5", "width 1"]
    assert cells["depth 1, expand 0.5", "width 1"]["title"].startswith("largest:")


# -- the search ------------------------------------------------------------------------------------


def places(page, style):
    """Where the marks of a style in the search's picture are."""
    groups = [e for e in page.find("g", style) if "chart wide" in page.around(e)[-3]["class"]]
    return [(float(m["x"]), float(m["y"])) for g in groups for m in marks_of(page, g)]


def test_the_front(whole, tiny):
    page = written(whole)
    (x0, y0), (x1, y1) = places(page, "dot")
    assert x0 < x1 and y0 > y1
    counted = int(macs(tiny, tiny.smallest(), 16)) / 1e6
    titles = [e["text"] for e in page.find("title")]
    assert f"random, 80.00% at {counted:.4g} M MACs" in titles
    assert sum(text.startswith("random, of equal cost, ") for text in titles) == 3
    stars = places(page, "star")
    assert stars == sorted(stars) and len(stars) == 3
    assert [e["text"].strip() for e in page.find("g", "letter")] == ["A", "B", "C"]
    assert page.rows()["B: macs-3M"] == [
        "B: macs-3M",
        "16",
        "3.00 M",
        "0.100 M",
        "93.00%",
        "91.50%",
    ]
    text = page.find("main")[0]["text"]
    assert "Hypervolume of the front 0.8428" in text
    assert "mean 91.17%, best 92.00%; it beats 1 and is level with 1" in text


def test_the_front_of_another_search_is_not_shown(whole):
    """A search within constraints leaves the front of the one before, by another predictor."""
    path = whole / "search/found.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "predictor": {**found["predictor"], "rmse": 0.5}}))
    page = written(whole)
    text = page.find("main")[0]["text"]
    assert "RMSE 50.00 points" in text
    assert "Hypervolume" not in text
    assert "cannot be shown" not in text


# -- subnets ---------------------------------------------------------------------------------------


def test_a_subnet_is_drawn_block_by_block(workdir, tiny):
    arch = {"ks": [3, 7, None, 5, None, None, 3, 3, 3], "e": [6, 3, None, 4, None, None, 6, 6, 6],
            "d": [2, 1, 3]}  # fmt: skip
    extract(workdir, "mine", tiny, arch)
    page = written(workdir)
    blocks, skipped = page.find("rect", "block"), page.find("rect", "skipped")
    assert (len(blocks), len(skipped)) == (6, 3)
    assert [float(b["width"]) / 74 for b in blocks[:3]] == pytest.approx([1, 0.5, 2 / 3], abs=0.01)
    assert [b["style"] for b in blocks[:3]] == ["--v:0.00", "--v:1.00", "--v:0.50"]
    assert len({b["y"] for b in blocks}) == 3  # a row for each stage
    titles = [e["text"] for e in page.find("title")]
    assert "stage1 block2: kernel 7\u00d77, expand 3, 72 channels inside" in titles
    (label,) = [e["aria-label"] for e in page.find("svg")]
    assert label.endswith("stage 1 2, stage 2 1, stage 3 3")
    assert page.rows()["MACs"] == ["MACs", "2.00 M"]


def test_a_resnet_is_drawn_with_its_stem_and_widths(workdir, small_resnet):
    (workdir / "config.json").unlink()
    describe(workdir, small_resnet)
    extract(workdir, "small", small_resnet, small_resnet.arch_to_dict(small_resnet.smallest()))
    page = written(workdir)
    assert len(page.find("rect", "skipped")) == 1 + 2
    texts = [e["text"] for e in page.find("text")]
    assert texts.count("0.25") == 2
    assert "32 channels" in texts  # half of the first stage's 64
    assert any(e["text"] == "stem, residual: skipped" for e in page.find("title"))


def test_facts_of_a_subnet(whole):
    page = written(whole)
    rows = page.rows()
    assert rows["fine-tuning, test"][1] == "87.65% before, 91.23% after"
    assert rows["onnx-int8"][1:5] == ["model.int8.onnx", "0.15 MB", "float32 [batch, 3, 16, 16]",
                                      "90.12%"]  # fmt: skip
    assert rows["LiteRT"] == ["LiteRT", "1", "2", "0.047", "0.061"]
    text = page.find("main")[0]["text"]
    assert "On processor abacus" in text
    assert "macs-3M-finetuned: test, 2.00 M MACs" in text  # the chosen one
    assert "digits: finished." in text


def test_fine_tuning_has_its_curves(whole):
    page = written(whole)
    (folded,) = [e for e in page.find("details") if e["text"].startswith("Fine-tuning")]
    labels = [e["aria-label"] for e in page.find("svg") if "details" in e["in"]]
    assert labels == [
        "Loss from 3 at the first step to 1 at the last",
        "Accuracy on training images from 0 at the first step to 1 at the last",
    ]
    assert "finetune, steps 1 to 50: loss 3 to 1" in folded["text"]


@pytest.mark.parametrize(
    ("missing", "state"),
    [
        ("subnets", "trained, evaluated, searched"),
        ("search", "trained, evaluated, extracted, fine-tuned, exported"),
        ("subnets/macs-3M-finetuned", "trained, evaluated, searched, extracted"),
    ],
)
def test_the_state_of_a_run(whole, missing, state):
    shutil.rmtree(whole / missing)
    assert f"on digits: {state}." in written(whole).find("main")[0]["text"]


# -- in a browser ----------------------------------------------------------------------------------

# A page's own width is seen from a frame around it: a browser's window is never as narrow. The
# frame is as high as the page, so that no scroll bar takes of its width.
FRAME = """<!DOCTYPE html><iframe style="width:375px;height:20000px;border:0" srcdoc="{}"
 onload="document.title = this.contentDocument.documentElement.scrollWidth"></iframe>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")
def test_a_phone_shows_it_without_scrolling_sideways(whole, tmp_path):
    wide = ofa_jax.get_space("ofa_resnet50")  # six blocks in a row
    extract(whole, "wide", wide, wide.arch_to_dict(wide.largest()))
    page = written(whole)
    assert len(page.find("section", "subnet")) == 3
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(html.escape((whole / "report.html").read_text())))
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={tmp_path / 'browser'}", "--enable-logging=stderr",
         "--v=0", "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=SAFETY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    assert Page(done.stdout).find("title")[0]["text"] == "375"


def test_a_page_that_would_be_the_same_is_not_touched(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    path = write_report(tmp_path)
    before = path.stat().st_mtime_ns
    assert write_report(tmp_path).stat().st_mtime_ns == before
    (tmp_path / "config.json").write_text('{"seed": 5}')
    write_report(tmp_path)
    assert '"seed": 5' in html.unescape(path.read_text())
