"""The accuracy predictor: a small net from an arch and a resolution to the accuracy of the subnet.

Three hidden layers of 400 over one-hot choices, all zero where a block is skipped, as in the
reference (`accuracy_predictor.py`), whose weights `load_predictor` reads too.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from ofa_jax.errors import InputError
from ofa_jax.families import space_to_dict
from ofa_jax.files import naming, parse_json, read_arrays, short, shown, written
from ofa_jax.plain import build
from ofa_jax.space import PIXELS, Arch, SearchSpace
from ofa_jax.storage import as_path

Tree = Any
# The sizes the reference's predictors know: MobileNetV3's in steps of 16, ResNet50's these alone.
MOBILENET_BINS = tuple((low, low + 16) for low in range(112, 240, 16))
RESNET_BINS = tuple((size, size + 1) for size in (128, 144, 160, 176, 192, 224, 240, 256))


class MLP(nn.Module):
    """`[..., features]` to one number each."""

    hidden: tuple[int, ...] = (400, 400, 400)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[...]` float32 of `[..., features]`."""
        for i, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, name=f"hidden{i}")(x))
        return nn.Dense(1, name="out")(x)[..., 0]


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """`predictor(arch, resolution)` is the accuracy expected of a subnet, in [0, 1].

    A pytree of its `params`; `report` does not go through transformations.

    Attributes:
      space: whose subnets it knows.
      bins: the resolutions it knows, as (first, one past the last) pixels of each input.
      params: of the `MLP`.
      report: how good it is: "rmse", "kendall_tau", "spearman" on held-out archs; {} if unknown.
    """

    space: SearchSpace
    bins: tuple[tuple[int, int], ...]
    params: Tree
    report: Mapping[str, Any]

    def tree_flatten(self) -> tuple[tuple[Tree], tuple[Any, ...]]:
        """The `params`, and what a program is compiled for."""
        return (self.params,), (self.space, self.bins)

    @classmethod
    def tree_unflatten(cls, known: tuple[Any, ...], children: tuple[Tree]) -> "Predictor":
        """The inverse of `tree_flatten`."""
        return cls(known[0], known[1], children[0], {})

    def __call__(self, arch: Arch, resolution: Any) -> jax.Array:
        """Accuracy of one arch; NaN at a traced resolution that it does not know.

        Raises:
          ValueError: a concrete resolution that it does not know.
        """
        if not isinstance(resolution, jax.core.Tracer):
            self.check(int(resolution))
        x, known = features(self.space, self.bins, arch, resolution)
        predicted: Any = mlp_of(self.params).apply({"params": self.params}, x)
        return jnp.where(known, jnp.clip(predicted, 0.0, 1.0), jnp.nan)

    def check(self, resolution: int) -> None:
        """Raises `ValueError` unless the predictor knows the resolution."""
        if not any(low <= resolution < high for low, high in self.bins):
            known = ", ".join(str(low) if high == low + 1 else f"{low}-{high - 1}"
                              for low, high in self.bins)  # fmt: skip
            raise InputError(f"the predictor does not know resolution {resolution}: it has {known}")


def mlp_of(params: Tree) -> MLP:
    """The net that has these parameters."""
    return MLP(tuple(params[f"hidden{i}"]["bias"].shape[0] for i in range(len(params) - 1)))


def features(
    space: SearchSpace, bins: Sequence[tuple[int, int]], arch: Arch, resolution: Any
) -> tuple[jax.Array, jax.Array]:
    """`[features]` of one arch: one-hot choices, kernels first; and whether it has a bin.

    Blocks that are skipped are all zero. A ResNet's stem and widths follow the expand ratios; the
    resolution comes last.
    """
    one_hot = functools.partial(jax.nn.one_hot, dtype=jnp.float32)
    active = jnp.asarray(space.active(arch.depth))[:, None].astype(jnp.float32)
    groups = []
    if len(space.kernels) > 1:
        groups.append(active * one_hot(arch.kernel, len(space.kernels)))
    groups.append(active * one_hot(arch.expand, len(space.expands)))
    if space.stem_genes:
        deepest = jnp.asarray(arch.depth[0] == len(space.depths) - 1, jnp.int32)
        groups.append(one_hot(deepest, 2))
    if arch.width is not None:
        groups.append(one_hot(arch.width, len(space.widths)))
    low, high = np.asarray(bins).T
    size = (low <= resolution) & (resolution < high)
    flat = [jnp.ravel(group) for group in groups]
    return jnp.concatenate([*flat, jnp.asarray(size, jnp.float32)]), size.any()


def feature_count(space: SearchSpace, bins: Sequence[tuple[int, int]]) -> int:
    """The length of `features`."""
    return len(features(space, bins, space.smallest(), bins[0][0])[0])


# -- training ------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """How a predictor is trained (the reference's issue 30); epochs end early without progress."""

    lr: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 64
    epochs: int = 600
    patience: int = 10  # checks of `EVERY` epochs
    hidden: tuple[int, ...] = (400, 400, 400)


EVERY = 10  # epochs between two looks at the validation archs


def train_predictor(
    space: SearchSpace,
    archs: Arch,
    resolutions: np.ndarray,
    accuracies: np.ndarray,
    key: jax.Array,
    recipe: Recipe | None = None,
) -> Predictor:
    """A predictor from measured subnets: 70 % to learn from, 10 % to stop by, 20 % held out.

    Args:
      space: of the archs.
      archs: stacked, `[n, ...]`.
      resolutions: `[n]` pixels.
      accuracies: `[n]` in [0, 1].
      key: splits, initialises and shuffles.
      recipe: how; default the reference's.

    Raises:
      ValueError: fewer than 20 subnets, or an accuracy that is none.
    """
    count, recipe = len(accuracies), recipe or Recipe()
    if count < 20:
        raise InputError(f"{count} measured subnets are too few for a predictor: expected 20")
    if not ((accuracies >= 0) & (accuracies <= 1)).all():
        raise InputError("an accuracy is not in [0, 1]")
    bins = tuple((int(r), int(r) + 1) for r in np.unique(resolutions))
    inputs, _ = jax.jit(jax.vmap(functools.partial(features, space, bins)))(archs, resolutions)
    split_key, init_key, key = jax.random.split(key, 3)
    order = np.asarray(jax.random.permutation(split_key, count))
    test, stop, learn = np.split(order, [count // 5, count // 5 + max(count // 10, 2)])
    # Learnt as deviations in units of their own: accuracies of 0.97 and 0.99 would else drown in
    # the weight decay. The last layer takes both back.
    mean, scale = float(accuracies[learn].mean()), float(accuracies[learn].std()) + 1e-6
    targets = jnp.asarray((accuracies - mean) / scale, jnp.float32)
    net = MLP(recipe.hidden)
    params = net.init(init_key, inputs[:1])["params"]
    params["out"]["bias"] = jnp.zeros(1, jnp.float32)
    params = _fit(net, recipe, params, inputs[learn], targets[learn],
                  inputs[stop], targets[stop], key)  # fmt: skip
    params["out"] = {"kernel": params["out"]["kernel"] * scale,
                     "bias": params["out"]["bias"] * scale + mean}  # fmt: skip
    params = jax.tree.map(np.asarray, params)
    predicted = np.asarray(net.apply({"params": params}, inputs[test]))
    return Predictor(space, bins, params, agreement(predicted, accuracies[test]))


def agreement(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """RMSE, Kendall's tau and Spearman's rho of predicted and measured accuracies."""
    constant = np.ptp(predicted) == 0 or np.ptp(measured) == 0  # ranks mean nothing
    return {
        "held_out_archs": len(measured),
        "rmse": float(np.sqrt(np.mean((predicted - measured) ** 2))),
        "kendall_tau": 0.0 if constant else kendall_tau(predicted, measured),
        "spearman": 0.0 if constant else spearman(predicted, measured),
    }


def kendall_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b of two `[n]`, neither of them constant."""
    signs = [np.sign(np.subtract.outer(values, values)) for values in (a, b)]
    return float((signs[0] * signs[1]).sum() / np.sqrt(np.prod([np.abs(s).sum() for s in signs])))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rho of two `[n]`, neither of them constant: the correlation of their ranks."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Each value's rank, ties at the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _fit(net: MLP, recipe: Recipe, params: Tree, x: Any, y: Any,
         stop_x: Any, stop_y: Any, key: jax.Array) -> Tree:  # fmt: skip
    """The parameters that were best on the archs to stop by."""
    decay = optax.add_decayed_weights(recipe.weight_decay)
    optimizer = optax.chain(decay, optax.adam(recipe.lr))
    size = min(recipe.batch_size, len(x))
    steps = len(x) // size

    def loss(params: Tree, x: jax.Array, y: jax.Array) -> jax.Array:
        predicted: Any = net.apply({"params": params}, x)
        return jnp.mean(jnp.square(predicted - y))

    def step(state: Any, rows: jax.Array) -> tuple[Any, None]:
        params, moments = state
        gradient = jax.grad(loss)(params, x[rows], y[rows])
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a number to its count's power
            updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), None

    @jax.jit
    def epochs(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        shuffled = [jax.random.permutation(k, len(x)) for k in jax.random.split(key, EVERY)]
        rows = jnp.concatenate([s[: steps * size].reshape(steps, size) for s in shuffled])
        state, _ = jax.lax.scan(step, state, rows)
        return state, loss(state[0], stop_x, stop_y)

    state, best, least, waited = (params, optimizer.init(params)), params, np.inf, 0
    for _ in range(recipe.epochs // EVERY):
        key, shuffle = jax.random.split(key)
        state, error = epochs(state, shuffle)
        waited += 1
        if float(error) < least:
            best, least, waited = state[0], float(error), 0
        if waited > recipe.patience:
            break
    return best


# -- files -----------------------------------------------------------------------------------------

ABOUT = "about"  # the one entry of our files that is no parameter
LARGEST = 1e30  # that a layer may give: float32 ends at 3e38


def save_predictor(path: Path, predictor: Predictor) -> None:
    """Writes `path` (.npz), whole or not at all."""
    about = {
        "space": _identity(predictor.space),
        "bins": predictor.bins,
        "report": dict(predictor.report),
    }
    leaves = {f"{layer}/{name}": np.asarray(array) for layer, tree in predictor.params.items()
              for name, array in tree.items()}  # fmt: skip
    leaves[ABOUT] = np.asarray(json.dumps(about))
    with written(path) as temporary:
        np.savez(temporary, **leaves)  # type: ignore[arg-type]


def _identity(space: SearchSpace) -> dict[str, Any]:
    """What makes two spaces the same to a predictor."""
    own = json.loads(json.dumps(space_to_dict(space)))
    return {k: v for k, v in own.items() if k not in ("num_classes", "dropout", "resolutions")}


def load_predictor(path: str | Path, space: SearchSpace) -> Predictor:
    """Reads a predictor: `predictor(arch, resolution)` is an accuracy in [0, 1].

    Args:
      path: a file of `--mode=search`, or the reference's weights by their PyTorch names (.npz).
      space: whose subnets will be predicted.

    Raises:
      ValueError: no such file, no predictor, or one of another space.
    """
    path = as_path(path)
    if not path.exists():
        raise InputError(f"no predictor at {path}")
    with naming(path):
        arrays = read_arrays(path)
        predictor = (_own if ABOUT in arrays else _reference)(path, space, arrays)
        return dataclasses.replace(predictor, params=_checked(path, predictor))


def _checked(path: Path, predictor: Predictor) -> Tree:
    """The parameters as float32; `ValueError`, naming the array, unless all fit each other."""
    checked: dict[str, dict[str, np.ndarray]] = {}
    width = feature_count(predictor.space, predictor.bins)
    largest = np.ones(width)  # of each layer's outputs, whatever the arch
    names = [*(f"hidden{i}" for i in range(len(predictor.params) - 1)), "out"]
    for name in names:
        layer = predictor.params.get(name, {})
        if sorted(layer) != ["bias", "kernel"]:
            raise InputError(f"{path} is no predictor: its layer {name} has no kernel and bias")
        kernel, bias = layer["kernel"], layer["bias"]
        out = 1 if name == "out" else bias.size
        if kernel.shape != (width, out) or bias.shape != (out,):
            raise InputError(
                f"{path} is no predictor: {name} is {kernel.shape} and {bias.shape}, expected"
                f" {(width, out)} and {(out,)}"
            )
        if not all(a.dtype.kind == "f" and np.isfinite(a).all() for a in (kernel, bias)):
            raise InputError(f"{path} is no predictor: {name} holds what is no finite number")
        with np.errstate(over="ignore"):
            largest = largest @ np.abs(kernel.astype(float)) + np.abs(bias.astype(float))
        if not (largest < LARGEST).all():
            raise InputError(f"{path} is no predictor: {name} gives numbers beyond 32 bits")
        checked[name] = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
        width = out
    return checked


@dataclasses.dataclass(frozen=True)
class _About:
    """What a predictor's file says of itself."""

    space: dict[str, Any]
    bins: tuple[tuple[int, ...], ...]
    report: dict[str, Any]

    def __post_init__(self) -> None:
        ordered = all(len(ends) == 2 and 1 <= ends[0] < ends[1] <= PIXELS + 1 for ends in self.bins)
        if not ordered or not 1 <= len(self.bins) <= PIXELS:
            raise InputError(f"bins={shown(self.bins)}: expected pairs of pixels")


def _own(path: Path, space: SearchSpace, arrays: dict[str, np.ndarray]) -> Predictor:
    try:
        about = build(_About, parse_json(str(arrays.pop(ABOUT))))
    except InputError as error:
        raise InputError(f"{path} is no predictor: its description: {short(error)}") from error
    ours, theirs = _identity(space), about.space
    different = [key for key in ours if ours[key] != theirs.get(key)]
    if different:
        key = different[0]
        raise InputError(
            f"{path} is a predictor of another space: its {key} is {shown(theirs.get(key))}, not"
            f" {shown(ours[key])}"
        )
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, leaf = name.partition("/")
        params.setdefault(layer, {})[leaf] = array
    bins = tuple((low, high) for low, high in about.bins)
    return Predictor(space, bins, params, about.report)


def _reference(path: Path, space: SearchSpace, arrays: dict[str, np.ndarray]) -> Predictor:
    weights = [array for name, array in arrays.items() if name.endswith("weight")]
    if not weights or any(w.ndim != 2 for w in weights):
        raise InputError(f"{path} is no predictor: it has {shown(', '.join(arrays) or 'nothing')}")
    biases = [array for name, array in arrays.items() if name.endswith("bias")]
    biases += [arrays[name] for name in ("base_acc",) if name in arrays]  # the last layer's
    bins = RESNET_BINS if space.widths else MOBILENET_BINS
    count = feature_count(space, bins)
    if weights[0].shape[1] != count or len(biases) != len(weights):
        raise InputError(
            f"{path} is a predictor of another space: {weights[0].shape[1]} features,"
            f" {space.name} has {count}"
        )
    names = [*(f"hidden{i}" for i in range(len(weights) - 1)), "out"]
    layers = zip(names, weights, biases, strict=True)
    params = {name: {"kernel": w.T.copy(), "bias": b} for name, w, b in layers}
    if space.widths:
        # There: resolution, stem, widths, expand ratios. Here: expand ratios, stem, widths, size.
        expand = len(space.blocks) * len(space.expands)
        order = np.r_[count - expand : count, len(bins) : count - expand, 0 : len(bins)]
        params["hidden0"]["kernel"] = params["hidden0"]["kernel"][order]
    return Predictor(space, bins, params, {})
