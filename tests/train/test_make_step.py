"""The library's step, used without a config: the example of docs/api.md."""

import re
from pathlib import Path

import numpy as np
import pytest

import ofa_jax

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.mark.slow
def test_the_example_trains_and_extracts_without_a_config():
    (example,) = (
        text
        for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if "make_train_step" in text
    )
    assert len(example.splitlines()) <= 30
    names = {"compiled": []}
    # One program for both phases: compiling is most of the time.
    example = example.replace("stats = ofa", "compiled.append(step._cache_size())\nstats = ofa")
    exec(compile(example, str(PAGE), "exec"), names)
    assert int(names["state"].step) == names["done"] == 90
    unseen = ofa_jax.normalize_images(names["images"][1000:])
    logits = names["subnet"].apply(names["variables"], unseen)
    top1 = (np.asarray(logits).argmax(-1) == names["labels"][1000:]).mean()
    assert top1 > 0.8  # guessing gets 0.1
    assert names["compiled"] == [1]


def test_statistics_of_different_subnets_are_not_mixed():
    net = ofa_jax.build_supernet(ofa_jax.get_space("ofa_tiny_d123_e346_k357"))
    with pytest.raises(ofa_jax.InputError, match="needs subnets='same', found 'own'"):
        ofa_jax.make_train_step(net, optimizer=ofa_jax.sgd(), statistics="global")
