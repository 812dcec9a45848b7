"""configs/smoke.py on a net of two blocks, two phases: compiled in seconds.

For tests of what happens around the step, where what is learnt does not matter.
"""

from ml_collections import ConfigDict

from configs import smoke


def get_config() -> ConfigDict:
    config = smoke.get_config()
    config.space.stages = smoke.STAGES[1:]
    config.space.depths = (1, 2)
    config.curriculum = ("full", "expand2")
    for name in set(config.phases) - set(config.curriculum):
        del config.phases[name]
    config.phases.full.update(depths=(2,), epochs=1, warmup_epochs=0)
    return config
