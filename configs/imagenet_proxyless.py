"""Once-for-all on ImageNet: ProxylessNAS w1.3, with the reference's hyper-parameters.

Cai et al. 2020 (arXiv 1908.09791). The run of imagenet_mbv3.py, which says what data, hardware and
time it takes, with the other space: the reference trains both by one script.

    python main.py --config=configs/imagenet_proxyless.py --workdir=runs/proxyless
    python main.py --config=configs/imagenet_proxyless.py:short --workdir=...   # 4 sizes, not 25

Not run yet, so no hours and no accuracy of ours; a subnet costs about 1.8 times what it costs
there (MACs of the largest net).
"""

from ml_collections import ConfigDict

from configs.imagenet_mbv3 import imagenet


def get_config(sizes: str = "continuous") -> ConfigDict:
    """`sizes`: "continuous" (128 to 224 px in steps of 4) or "short" (four of them)."""
    return imagenet("ofa_proxyless_d234_e346_k357_w1.3", sizes)
