"""Once-for-All training in JAX: one supernet, any subnet of it.

    python main.py --config=configs/digits.py --workdir=runs/digits

trains the supernet and runs all later steps; run again, it resumes. `python main.py --help` lists
the modes and their flags. The installed package has the same command as `ofa-jax`; what it does
begins in `ofa_jax/run/app.py`, and each mode is a file beside it.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the rest is imported: no traceback

from ofa_jax.run.app import start

if __name__ == "__main__":
    start()
