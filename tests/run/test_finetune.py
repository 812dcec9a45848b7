from configs import digits
from ofa_jax.run import finetune
from ofa_jax.run.config import from_dict


def test_a_subnet_of_a_run_without_a_teacher_phase_is_taught_by_the_largest_net():
    """In-place distillation has no teacher to check for, and fine-tuning has one all the same."""
    config = from_dict(digits.get_config().to_dict())
    assert config.distill.source == "largest"
    alone = finetune.alone(config, 20)
    assert alone.data.resolutions == (20,)
    leg = finetune.leg(config, images=1257)
    assert (leg.first, leg.end) == (0, 5 * 19)
    assert (leg.phase.source, leg.phase.loss) == ("teacher", "soft")
    assert (leg.phase.distill, leg.phase.lr, leg.phase.subnets) == (1.0, 0.01, 1)
