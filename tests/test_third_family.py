"""A third family, all in this file: what the package does with spaces, it does with this one."""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from random_nets import identical, largest_difference, random_variables
from search.test_cost import count_macs

import ofa_jax
from ofa_jax import conv, families, mesh, search
from ofa_jax.deploy import graph, to_onnx
from ofa_jax.layers import Classifier, ConvBN, DepthwiseBN, Norm
from ofa_jax.run.report.nets import draw_net
from ofa_jax.space import SearchSpace, Stage
from ofa_jax.topology import Add, Builder, Mean, Size

Mixer = namedtuple("Mixer", "name stage position stride in_width width kernels mids")


class MixerSpace(SearchSpace):
    @property
    def blocks(self):
        blocks, before = [], 8
        for place in self.places:
            width, mids = self.stages[place.stage].width, tuple(before * e for e in self.expands)
            blocks.append(Mixer(*place, before, width, self.kernels, mids))
            before = width
        return tuple(blocks)

    def active_blocks(self, arch):
        chosen = zip(self.blocks, arch.kernel, arch.expand, self.active(arch.depth), strict=True)
        return tuple(block._replace(kernels=(block.kernels[k],), mids=(block.mids[e],))
                     for block, k, e, keep in chosen if keep)  # fmt: skip

    @property
    def layers(self):
        net = Builder()
        net.begin("stem")
        x = net.conv(0, "stem", 8, 3, 2, "relu")
        for i, b in enumerate(self.blocks):
            net.begin(b.name, block=i, stage=b.stage, kept=self.kept(b))
            y = net.depthwise(x, f"{b.name}/mix", Size(b.kernels, (("kernel", i),)), b.stride)
            y = net.conv(y, f"{b.name}/up", Size(b.mids, (("expand", i),)), act="h_swish")
            y = net.conv(y, f"{b.name}/down", b.width)
            x = net.add(Add(), x, y) if b.position else y
        net.begin("classifier")
        net.dense(net.add(Mean(), x, stride=0), "classifier", self.num_classes)
        return tuple(net.layers)


class MixerBlock(nn.Module):
    block: Mixer
    norm: Norm

    @nn.compact
    def __call__(self, x, kernel, expand, active, train):
        b, norm, ends, inside = self.block, self.norm, None, None
        if active is not None:
            ends = jnp.broadcast_to(active, b.width)
            inside = active & (jnp.arange(b.mids[-1]) < jnp.array(b.mids)[expand])
        first = ends if b.position else None
        y = DepthwiseBN(b.kernels, b.stride, None, norm, name="mix")(x, kernel, first, train)
        y = ConvBN(b.mids[-1], act="h_swish", norm=norm, name="up")(y, inside, train=train)
        y = ConvBN(b.width, norm=norm, name="down")(y, ends, train=train)
        return x + y if b.position else y


class MixerNet(families.Network):
    @nn.compact
    def __call__(self, images, arch=None, train=False):
        self.check_call(images, arch)
        norm, none = Norm(self.space.bn_eps, axis=self.norm_axis), (None,) * 3
        x = ConvBN(8, 3, 2, "relu", norm, name="stem")(images, train=train)
        for i, b in enumerate(self.blocks):
            keep = None if arch is None else self.space.active(arch.depth)[i]
            genes = none if arch is None else (arch.kernel[i], arch.expand[i], keep)
            x = MixerBlock(b, norm, name=b.name)(x, *genes, train)
        return Classifier(self.space.num_classes, 0.0, name="classifier")(x.mean((1, 2)), train)


families.register("mixer", MixerSpace, MixerNet)
SPACE = MixerSpace(name="mixer", stages=(Stage(16, 2), Stage(24, 2)), kernels=(3, 5),
                   expands=(2, 3), depths=(1, 2), resolutions=(32,), num_classes=10)  # fmt: skip
KEY, IMAGES = jax.random.key(1), np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("f4")


def test_everything_works_with_it(tmp_path, monkeypatch):
    (net, variables), tx = random_variables(SPACE), ofa_jax.sgd()
    arch = SPACE.arch_from_dict({"ks": [5, 3, 3, 5], "e": [2, 3, 3, 2], "d": [2, 1]})
    phase = ofa_jax.phase_data(ofa_jax.Phase(distill=0.0), SPACE, 0, images=10, batch_size=4)
    batch = {"image": np.zeros((4, 32, 32, 3), np.uint8), "label": np.arange(4)}
    one = mesh.data_mesh(1)
    state = ofa_jax.init_state(variables, tx, mesh=one)
    step = ofa_jax.make_train_step(net, optimizer=tx, mesh=one)
    state, metrics = step(state, variables, phase, batch)
    assert metrics["loss"] > 0 and not identical(state.params, variables["params"])
    variables["batch_stats"] = ofa_jax.calibrate(net, variables, arch, [IMAGES])
    subnet, own = ofa_jax.extract(SPACE, variables, arch)
    expected = net.apply(variables, IMAGES, arch)
    assert largest_difference(subnet.apply(own, IMAGES), expected) < 1e-5
    assert "stage 1 2, stage 2 1" in draw_net(SPACE, SPACE.arch_to_dict(arch), "mixer")
    to_onnx.write(graph.fold(subnet, own), 32, tmp_path / "net.onnx")
    assert largest_difference(to_onnx.load(tmp_path / "net.onnx")(IMAGES), expected) < 1e-4
    monkeypatch.setattr(conv, "depthwise_conv", conv.grouped_conv)
    monkeypatch.setattr(conv, "dense_conv", conv.direct_conv)
    cost = ofa_jax.macs(SPACE, arch, 32)
    assert cost == count_macs(jax.make_jaxpr(subnet.apply)(own, IMAGES[:1]).jaxpr)
    score, spent = lambda arch, _: arch.kernel.mean(), lambda *at: ofa_jax.macs(SPACE, *at)
    (found,) = search.evolve(SPACE, score, spent, [cost], key=KEY, population=20, generations=20)
    assert found.cost == spent(found.arch, 32) <= cost
    assert families.space_from_dict(families.space_to_dict(SPACE)) == SPACE
