"""From a PyTorch file to an exported, timed subnet by one command: the reference's logits."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from main_runs import REPOSITORY, run

import ofa_jax
from benchmarks.reference import reference
from ofa_jax import interop, mesh
from ofa_jax.normalization import normalize_images
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.evaluate import calibration_images, evaluation_batches
from ofa_jax.run.workdir import read_config

torch = pytest.importorskip("torch", reason="torch is not installed: the extra [reference]")
pytest.importorskip("ofa", reason="ofa is not installed: the extra [reference]")

DATA = REPOSITORY.parent / "shared/data/tfds"
# Few images and few measured subnets: what they score is nothing that random weights have.
QUICK = (
    "--config.data.train_split=train[:60]", "--config.data.test_split=validation[:20]",
    "--config.data.held_out_split=none", "--config.data.held_out=20", "--config.data.batch_size=8",
    "--config.evaluate.calibration_images=20", "--config.evaluate.calibration_batch_size=20",
    "--config.evaluate.batch_size=20", "--config.search.archs=20", "--config.search.winners=1",
    "--config.search.random_archs=0", "--config.search.generations=5",
    "--config.search.least_tau=-1.0", "--config.extract.archs=()", "--config.finetune.epochs=0.0",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="Imagenette is not here")
def test_one_command_leads_from_a_pytorch_file_to_a_timed_export(tmp_path):
    space = ofa_jax.get_space("ofa_mbv3_d234_e346_k357_w1.0", num_classes=10)
    torch.manual_seed(0)
    net = reference(space)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pth")
    sha = (tmp_path / "net.pth").read_bytes()
    code, out, error = run(
        f"--config=configs/specialise.py:{tmp_path / 'net.pth'}", f"--workdir={tmp_path / 'run'}",
        "--config.data.name=imagenette224", f"--config.data.data_dir={DATA}",
        "--config.export.formats=('onnx',)", "--config.export.benchmark=2", *QUICK,
    )  # fmt: skip
    assert code == 0, error
    assert "its classes have no names: they are taken to be the data's" in out
    assert (tmp_path / "net.pth").read_bytes() == sha
    (directory,) = (tmp_path / "run/subnets").iterdir()
    card = json.loads((directory / "card.json").read_text())
    assert card["resolution"] == 224
    assert {"JAX", "ONNX Runtime"} <= {row["runtime"] for row in card["latency"]}
    batch, theirs = the_references(net, space, card["arch"], tmp_path / "run")
    session = pytest.importorskip("onnxruntime").InferenceSession(directory / "model.onnx")
    (ours,) = session.run(None, {"images": batch})
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def the_references(net, space, arch, workdir: Path):
    """Test images, and the logits of the reference's own subnet, calibrated by its own function."""
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

    config = read_config(workdir / "config.json")
    dataset, devices = load_dataset(config.data), mesh.data_mesh(1)

    def images(pixels):
        made = normalize_images(jax.numpy.asarray(pixels), config.data.mean, config.data.std)
        return np.ascontiguousarray(np.asarray(made).transpose(0, 3, 1, 2))

    net.set_active_subnet(**arch)
    subnet = net.get_active_subnet(preserve_weight=True)
    own = interop.from_once_for_all(subnet.state_dict(), space, space.arch_from_dict(arch))
    _, variables = ofa_jax.load_subnet(next((workdir / "subnets").iterdir()))
    assert jax.tree.all(jax.tree.map(np.array_equal, own["params"], variables["params"]))
    calibrating = calibration_images(config, dataset, devices, 224)
    set_running_statistics(subnet, [(torch.from_numpy(images(x)), None) for x in calibrating])
    batch = images(next(iter(evaluation_batches(config, dataset, devices, "test", 224)))["image"])
    with torch.no_grad():
        return batch, subnet.eval()(torch.from_numpy(batch)).numpy()
