import jax
import numpy as np
import pytest
from random_nets import identical, random_variables

import ofa_jax
from ofa_jax import interop


def test_to_and_from_are_inverse_bit_for_bit(space):
    _, variables = random_variables(space)
    state_dict = interop.to_once_for_all(variables, space)
    again = interop.from_once_for_all(state_dict, space)
    assert identical(again, variables)
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    twice = interop.to_once_for_all(again, space)
    assert twice.keys() == state_dict.keys()
    assert all(np.array_equal(twice[name], state_dict[name]) for name in twice)


def test_tensors_have_the_references_names_and_shapes():
    space = ofa_jax.get_space("ofa_mbv3_d234_e346_k357_w1.0", num_classes=10)
    state_dict = interop.to_once_for_all(random_variables(space)[1], space)
    for name, shape in {
        "first_conv.conv.weight": (16, 3, 3, 3),
        "blocks.0.conv.depth_conv.conv.weight": (16, 1, 3, 3),
        "blocks.0.conv.point_linear.bn.running_var": (16,),
        "blocks.1.conv.inverted_bottleneck.conv.conv.weight": (96, 16, 1, 1),
        "blocks.1.conv.depth_conv.conv.conv.weight": (96, 1, 7, 7),
        "blocks.1.conv.depth_conv.conv.7to5_matrix": (25, 25),
        "blocks.1.conv.depth_conv.conv.5to3_matrix": (9, 9),
        "blocks.5.conv.depth_conv.se.fc.reduce.weight": (40, 144, 1, 1),
        "blocks.20.conv.point_linear.bn.bn.running_mean": (160,),
        "blocks.20.conv.point_linear.bn.bn.num_batches_tracked": (),
        "final_expand_layer.conv.weight": (960, 160, 1, 1),
        "feature_mix_layer.conv.weight": (1280, 960, 1, 1),
        "classifier.linear.weight": (10, 1280),
    }.items():
        assert state_dict[name].shape == shape, name
    assert not any("inverted_bottleneck" in name for name in state_dict if ".0." in name)
    proxyless = ofa_jax.get_space("ofa_proxyless_d234_e346_k357_w1.3", num_classes=10)
    state_dict = interop.to_once_for_all(random_variables(proxyless)[1], proxyless)
    assert state_dict["feature_mix_layer.conv.weight"].shape == (1664, 416, 1, 1)
    assert state_dict["feature_mix_layer.bn.weight"].shape == (1664,)
    assert "blocks.21.conv.depth_conv.conv.conv.weight" in state_dict


def test_the_old_naming_is_read_too(tiny):
    _, variables = random_variables(tiny)
    state_dict = interop.to_once_for_all(variables, tiny)
    old = {
        name.replace(".conv.", ".mobile_inverted_conv.", 1)
        .replace(".bn.bn.", ".bn.")
        .replace(".conv.conv.weight", ".conv.weight")
        if name.startswith("blocks.")
        else name.replace(".linear.", ".linear.linear."): value
        for name, value in state_dict.items()
    }
    assert "blocks.1.mobile_inverted_conv.inverted_bottleneck.bn.weight" in old
    assert "classifier.linear.linear.weight" in old
    assert identical(interop.from_once_for_all(old, tiny), variables)


def test_a_resnets_short_names_are_read_too(small_resnet):
    _, variables = random_variables(small_resnet)
    state_dict = interop.to_once_for_all(variables, small_resnet)
    assert "input_stem.1.conv.conv.conv.weight" in state_dict
    assert "blocks.0.downsample.bn.bn.running_var" in state_dict
    short = {
        name.replace(".bn.bn.", ".bn.")
        .replace(".conv.conv.weight", ".conv.weight")
        .replace(".linear.linear.", ".linear."): value
        for name, value in state_dict.items()
    }
    assert "input_stem.1.conv.conv.weight" in short
    assert "classifier.linear.weight" in short
    assert identical(interop.from_once_for_all(short, small_resnet), variables)


def test_tensors_of_pytorch_are_read(tiny):
    torch = pytest.importorskip("torch")
    _, variables = random_variables(tiny)
    state_dict = interop.to_once_for_all(variables, tiny)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in state_dict.items()}
    tensors["classifier.linear.bias"].requires_grad_(True)
    assert identical(interop.from_once_for_all(tensors, tiny), variables)


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
def test_other_precisions_become_float32(tiny, kind):
    torch = pytest.importorskip("torch")
    _, variables = random_variables(tiny)
    state_dict = interop.to_once_for_all(variables, tiny)
    tensors = {
        k: torch.from_numpy(a.copy()).to(getattr(torch, kind)) for k, a in state_dict.items()
    }
    rounded = {k: t.float().numpy() for k, t in tensors.items()}
    expected = interop.from_once_for_all(rounded, tiny)
    assert identical(interop.from_once_for_all(tensors, tiny), expected)


def test_what_no_weight_can_be_is_refused(tiny):
    torch = pytest.importorskip("torch")
    _, variables = random_variables(tiny)
    good = interop.to_once_for_all(variables, tiny)
    name = "classifier.linear.bias"
    for bias in (
        np.ones(good[name].shape, np.complex64),
        torch.ones(good[name].shape, dtype=torch.complex64),
        np.full(good[name].shape, "1"),
    ):
        with pytest.raises(ValueError, match=r"classifier\.linear\.bias holds no real numbers"):
            interop.from_once_for_all({**good, name: bias}, tiny)
    with pytest.raises(ValueError, match=r"classifier\.linear\.bias holds what is no finite"):
        interop.from_once_for_all({**good, name: np.full(good[name].shape, 1e300)}, tiny)


def test_a_gradient_tree_is_mapped(tiny):
    _, variables = random_variables(tiny)
    gradients = interop.to_once_for_all({"params": variables["params"]}, tiny)
    assert not any("running" in name or "num_batches" in name for name in gradients)
    expected = variables["params"]["stage1_block1"]["inverted_bottleneck"]["conv"]["kernel"].T
    name = "blocks.1.conv.inverted_bottleneck.conv.conv.weight"
    np.testing.assert_array_equal(gradients[name][:, :, 0, 0], expected)


def test_what_does_not_fit_is_named(tiny):
    _, variables = random_variables(tiny)
    good = interop.to_once_for_all(variables, tiny)
    missing = {k: v for k, v in good.items() if k != "classifier.linear.bias"}
    with pytest.raises(ValueError, match=r"1 missing tensors .*: classifier\.linear\.bias"):
        interop.from_once_for_all(missing, tiny)
    with pytest.raises(ValueError, match=r"1 unknown tensors .*: head\.weight"):
        interop.from_once_for_all({**good, "head.weight": np.zeros(3)}, tiny)
    name = "blocks.2.conv.depth_conv.conv.conv.weight"
    with pytest.raises(ValueError, match=r"conv\.weight is \(144, 1, 5, 5\), not \(144, 1, 7, 7\)"):
        interop.from_once_for_all({**good, name: np.zeros((144, 1, 5, 5))}, tiny)
    del variables["params"]["classifier"]
    with pytest.raises(ValueError, match="variables lack params/classifier/kernel"):
        interop.to_once_for_all(variables, tiny)
