import json

import ofa_jax
from ofa_jax.run.collect import read_measured


def row(index, top1=0.5):
    arch = ofa_jax.get_space("ofa_tiny_d123_e346_k357").smallest()
    return {
        "index": index, "arch": ofa_jax.get_space("ofa_tiny_d123_e346_k357").arch_to_dict(arch),
        "resolution": 16, "top1": top1, "loss": 1.0,
    }  # fmt: skip


def test_what_was_measured_is_kept_whatever_lies_between(tmp_path):
    """Hours of measuring: only the half line of a killed run goes."""
    space, path = ofa_jax.get_space("ofa_tiny_d123_e346_k357"), tmp_path / "measured.jsonl"
    first, second, newer = (json.dumps(r) for r in (row(0), row(1), {**row(2), "seconds": 3}))
    whole = f"{first}\nno JSON\n{newer}\n{second}\n"
    for text, left in (
        (whole, whole),
        (whole + first[:20], whole),
        (whole.removesuffix("\n"), whole),  # an editor left the last line's end out
        (newer + "\n", newer + "\n"),
    ):
        path.write_text(text)
        rows = read_measured(path, space, (16,))
        assert path.read_text() == left
        assert rows == ({"0": row(0), "1": row(1)} if left == whole else {})
