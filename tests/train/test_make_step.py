"""The library's training, used without a config: the example of the README and of docs/api.md."""

import re
from pathlib import Path

import numpy as np
import pytest

import ofa_jax

ROOT = Path(__file__).parents[2]
PAGE, README = ROOT / "docs/api.md", ROOT / "README.md"


@pytest.mark.slow
def test_the_example_trains_and_extracts_without_a_config():
    example, same = (
        text
        for page in (PAGE, README)
        for text in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        if "ofa_jax.fit" in text
    )
    assert example == same
    assert len(example.splitlines()) <= 30
    names = {}
    exec(compile(example, str(PAGE), "exec"), names)
    unseen = ofa_jax.normalize_images(names["images"][1000:])
    logits = names["subnet"].apply(names["variables"], unseen)
    top1 = (np.asarray(logits).argmax(-1) == names["labels"][1000:]).mean()
    assert top1 > 0.8  # guessing gets 0.1


def test_statistics_of_different_subnets_are_not_mixed():
    net = ofa_jax.build_supernet(ofa_jax.get_space("ofa_tiny_d123_e346_k357"))
    with pytest.raises(ofa_jax.InputError, match="needs subnets='same', found 'own'"):
        ofa_jax.make_train_step(net, optimizer=ofa_jax.sgd(), statistics="global")
