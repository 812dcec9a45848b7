"""Side by side with the reference, where it is installed: width sorting and its optimiser."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_nets import golden_batch, random_variables

import ofa_jax
from ofa_jax import interop, mesh
from ofa_jax.run import config as config_lib
from ofa_jax.run import step as step_lib
from ofa_jax.train.phases import phase_data
from ofa_jax.train.step import draw_parts, train_step

torch = pytest.importorskip("torch", reason="torch is not installed: the extra [reference]")
pytest.importorskip("ofa", reason="ofa is not installed: the extra [reference]")

MBV3, PROXYLESS, RESNET = (
    "ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_proxyless_d234_e346_k357_w1.3",
    "ofa_resnet50",
)
DECAY = 0.1  # large, so that ten steps show which weights take it


@pytest.fixture(autouse=True)
def reference():
    from benchmarks.once_for_all import reference, stub_imports

    stub_imports()
    return reference


def spread(space, variables):
    """The variables with importances 1 apart in random order: no order hangs on a rounding.

    The reference's offsets make importances within 1/64 equal, and its order is then open.
    """
    rng = np.random.default_rng(0)
    for block in space.blocks:
        tree = variables["params"][block.name]
        readers = ("conv3", "conv2") if space.widths else ("point_linear",)
        weights = [tree[reader]["conv"] for reader in readers]
        if "se" in tree:
            weights.append(tree["se"]["expand"])
        for weight in weights:
            shape = weight["kernel"].shape
            totals = rng.permutation(shape[-2]).astype(np.float32) + 1
            per_weight = totals / np.prod(shape) * shape[-2]
            weight["kernel"] = jnp.broadcast_to(per_weight[:, None], shape)
    return variables


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("name", [MBV3, PROXYLESS, RESNET])
def test_sorted_weights_are_the_references(reference, name, stage):
    space = ofa_jax.get_space(name, num_classes=10, dropout=0.0)
    variables = spread(space, random_variables(space)[1])
    before = interop.to_once_for_all(variables, space)
    net = reference(space, before)
    net.re_organize_middle_weights(stage)
    theirs = {tensor: value.numpy() for tensor, value in net.state_dict().items()}
    ours = interop.to_once_for_all(ofa_jax.sort_width(space, variables, stage), space)
    assert ours.keys() == theirs.keys()
    assert not [tensor for tensor in ours if not np.array_equal(ours[tensor], theirs[tensor])]
    assert sum(not np.array_equal(ours[tensor], before[tensor]) for tensor in ours) > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", [MBV3, RESNET])
def test_calibrated_statistics_are_the_references(reference, name):
    """Every running mean and variance, of channels outside the arch too, for three archs."""
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

    space = ofa_jax.get_space(name, num_classes=10, dropout=0.0)
    net, variables = random_variables(space)
    images, _ = golden_batch()
    torch_images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    for key in jax.random.split(jax.random.key(3), 3):
        arch = space.sample(key)
        torch_net = reference(space, interop.to_once_for_all(variables, space))
        torch_net.set_active_subnet(**space.arch_to_dict(arch))
        set_running_statistics(torch_net, [(torch_images[:5], None), (torch_images[5:], None)])
        stats = ofa_jax.calibrate(net, variables, arch, [images[:5], images[5:]])
        ours = interop.to_once_for_all({"batch_stats": stats}, space)
        compared = 0
        for tensor, value in torch_net.state_dict().items():
            if "running" in tensor:
                scale = value.abs().max().item()
                np.testing.assert_allclose(ours[tensor], value, atol=1e-5 * scale, rtol=1e-5)
                compared += 1
        assert compared == len(jax.tree.leaves(stats))


def settings(name, **replaced):
    phases = {
        "full": {"kernels": (), "expands": (), "depths": (), "distill": 0.0},
        "expand": {"subnets": 2, "lr": 0.001, "warmup_lr": 0.0001, "warmup_epochs": 3, "epochs": 7},
    }
    space = ofa_jax.get_space(name, **replaced)
    for field in ("kernels", "expands", "depths", "widths"):
        phases["full"][field] = getattr(space, field)[-1:]
    data = {"batch_size": 8, "resolutions": (128,), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    named = {"name": name, "dropout": 0.0, **replaced}
    train, curriculum = {"weight_decay": DECAY}, ("full", "expand")
    sections = {"space": named, "data": data, "train": train, "phases": phases}
    return config_lib.from_dict({**sections, "curriculum": curriculum})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize(
    ("name", "replaced"),
    [(MBV3, {"depths": (1, 2)}), (RESNET, {"depths": (0, 1), "widths": (0.2, 0.25)})],
)
def test_ten_steps_are_the_references(reference, name, replaced):
    """Warm-up, cosine, two subnets a step, distillation from a teacher in train mode.

    Smaller than the published spaces, for the sake of time. The rate is low and the images large
    because a ReLU that rounding tips over changes a gradient: at ten times the rate the reference
    strays as far from itself in float64.
    """
    config = settings(name, **replaced)
    space = config.search_space(10)
    net, variables = random_variables(space)
    _, teacher = random_variables(space, seed=1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 8, 128, 128, 3), np.uint8)
    labels = rng.integers(0, 10, (10, 8), np.int32)
    data = phase_data(config.phases["expand"], space, 0, images=8, batch_size=8)
    devices = mesh.data_mesh(1)
    static = step_lib.settings(config, devices, 2)
    step = jax.jit(functools.partial(train_step, net, static))

    tensors = interop.to_once_for_all(variables, space)
    trainer = ReferenceTrainer(reference, space, tensors, interop.to_once_for_all(teacher, space))
    state = step_lib.init_state(config, devices, variables, 0)
    for i in range(10):
        key = jax.random.fold_in(jax.random.key(config.seed), i)
        archs, _ = draw_parts(space, static, data, key, 1)
        archs = [jax.tree.map(lambda leaf, k=k: leaf[0, k], archs) for k in range(2)]
        state, metrics = step(state, teacher, data, {"image": images[i], "label": labels[i]})
        rate = float(metrics["learning_rate"])
        trainer.step(images[i], labels[i], [space.arch_to_dict(arch) for arch in archs], rate)
    ours = interop.to_once_for_all({"params": state.params}, space)
    theirs = {tensor: parameter.detach().numpy() for tensor, parameter in trainer.parameters()}
    assert ours.keys() == theirs.keys()
    size = distance(theirs, {tensor: np.zeros(()) for tensor in theirs})
    assert distance(ours, theirs) < 1e-4 * size
    assert distance(ours, theirs) < 0.02 * distance(theirs, tensors)  # of how far they went


def distance(a, b):
    """The Euclidean distance of two sets of tensors."""
    return np.sqrt(sum(np.square(a[name] - b[name]).sum() for name in a))


class ReferenceTrainer:
    """One step of `progressive_shrinking.train_one_epoch`, with a given arch and rate."""

    def __init__(self, reference, space, tensors, teacher):
        self.net, self.teacher = reference(space, tensors).train(), reference(space, teacher)
        keys = "bn#bias"  # RunConfig.no_decay_keys
        groups = [
            self.net.get_parameters(keys.split("#"), mode="exclude"),
            self.net.get_parameters(keys.split("#"), mode="include"),
        ]
        self.optimizer = torch.optim.SGD(
            [
                {"params": list(groups[0]), "weight_decay": DECAY},
                {"params": list(groups[1]), "weight_decay": 0},
            ],
            lr=0.01,
            momentum=0.9,
            nesterov=True,
        )

        # Weights outside the sampled subnets get decay and momentum too: PyTorch's old `zero_grad`
        # and Horovod, which the reference trains with, leave gradients of zero, not None.
        for parameter in self.net.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def parameters(self):
        return self.net.named_parameters()

    def step(self, images, labels, archs, rate):
        from ofa.utils import (
            cross_entropy_loss_with_soft_target,
            cross_entropy_with_label_smoothing,
        )

        images = (images.astype(np.float32) / 255 - 0.5) / 0.5
        images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        labels = torch.from_numpy(labels).long()
        with torch.no_grad():
            soft = torch.nn.functional.softmax(self.teacher.train()(images), dim=1)
        self.optimizer.zero_grad(set_to_none=False)
        for arch in archs:
            self.net.set_active_subnet(**arch)
            logits = self.net(images)
            loss = cross_entropy_loss_with_soft_target(logits, soft)
            (loss + cross_entropy_with_label_smoothing(logits, labels, 0.1)).backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
