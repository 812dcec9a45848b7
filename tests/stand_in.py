"""A tfds dataset made here: downloaded from a local server, 28x28 and of one channel."""

import http.server
import io
import threading

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

LABELS = ("circle", "square", "star")
URLS = {"stand_in": ""}  # set by `serve`


class StandIn(tfds.core.GeneratorBasedBuilder):
    """Images `[28, 28, 1]` from a downloaded array; "id" is a field that nobody can batch."""

    VERSION = tfds.core.Version("1.0.0")
    name = "stand_in"

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(names=LABELS),
            "box": tfds.features.BBoxFeature(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        images = np.load(dl_manager.download(URLS["stand_in"]))
        return {"train": self._generate_examples(images), "test": self._generate_examples(images)}

    def _generate_examples(self, images):
        for i, image in enumerate(images):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            png.seek(0)
            box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
            yield i, {"id": f"n{i}", "image": png, "label": i % 3, "box": box}


def images(count=96):
    """Gray images `[count, 28, 28]`, all different."""
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)


def serve(directory):
    """Serves a folder with the images on this machine; returns what stops it."""
    np.save(directory / "images.npy", images())

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=directory)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    URLS["stand_in"] = f"http://127.0.0.1:{server.server_port}/images.npy"

    def stop():
        server.shutdown()
        server.server_close()

    return stop
