"""`KLBudget` in loops of other people: global, per prompt, over processes, what it refuses."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from trustregion import KLBudget, RelativeDualDescent


def test_it_is_the_scale_free_dual_of_the_mean():
    budget, dual = KLBudget(0.3, initial=2.0), RelativeDualDescent(budget=0.3, initial=2.0)
    assert float(budget.lam) == 2.0
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        kl = torch.rand(5, generator=generator)
        lam = budget.step(kl)
        assert lam.shape == ()
        torch.testing.assert_close(lam, dual.update(kl.mean()[None])["lambda"][0])
        assert torch.equal(lam, budget.lam)
    assert float(budget.step(0.7)) != float(lam)


def test_a_penalised_gaussian_ends_at_the_target():
    """A loop of its own: maximise E[x] of N(m, 1) under KL from N(0, 1), which is m^2/2."""
    for target in (0.02, 2.0):
        mean = torch.nn.Parameter(torch.zeros(()))
        optimiser = torch.optim.Adam([mean], lr=0.05)
        budget = KLBudget(target)
        held = []
        for _ in range(600):
            loss = budget.penalty(0.5 * mean.square()) - mean
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            held.append(0.5 * float(mean.detach()) ** 2)
        assert sum(held[-100:]) / 100 == pytest.approx(target, rel=0.1)
        # At the optimum lambda m = 1.
        assert float(budget.lam) == pytest.approx(1.0 / math.sqrt(2.0 * target), rel=0.2)


def test_each_prompt_has_its_own_lambda():
    budget = KLBudget(0.5, prompts=3)
    alone = KLBudget(0.5)
    for kl in (0.2, 0.9, 0.4):
        lam = budget.step(torch.tensor([kl, 2.0, kl + 0.2]), torch.tensor([2, 0, 2]))
        expected = alone.step(kl + 0.1)
        torch.testing.assert_close(lam, torch.stack([expected, budget.lam[0], expected]))
    assert float(budget.lam[1]) == 1.0
    assert budget.lam[0] > 1.0
    assert budget.dual.known.tolist() == [3, 0, 3]
    term = budget.penalty(torch.ones(2, requires_grad=True), torch.tensor([0, 1]))
    torch.testing.assert_close(term.detach(), budget.lam[:2].mean())


def test_state_resumes_bit_for_bit():
    kls = torch.rand(20, generator=torch.Generator().manual_seed(0))
    whole, second = KLBudget(0.4, prompts=2), KLBudget(0.4, prompts=2)
    prompt = torch.tensor([0, 1])
    for kl in kls[:10]:
        whole.step(torch.stack([kl, kl.square()]), prompt)
    second.load_state_dict({name: value.clone() for name, value in whole.state_dict().items()})
    for kl in kls[10:]:
        pair = torch.stack([kl, kl.square()])
        assert torch.equal(whole.step(pair, prompt), second.step(pair, prompt))


@pytest.mark.parametrize(
    ("kl", "prompt", "message"),
    [
        (torch.tensor([0.1, math.nan]), None, r"not finite \(here: 1 of 2 values\)"),
        (math.inf, None, r"not finite \(here: inf\)"),
        (torch.zeros(2, 3), None, r"expected a number or one estimate per sample"),
        (torch.zeros(0), None, r"measured_kl has shape \(0,\)"),
        (torch.zeros(2), torch.tensor([0, 1]), "this budget is global"),
    ],
)
def test_what_cannot_be_a_kl_moves_nothing(kl, prompt, message):
    budget = KLBudget(0.5)
    budget.step(0.7)
    before = {name: value.clone() for name, value in budget.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        budget.step(kl, prompt)
    assert all(torch.equal(value, before[name]) for name, value in budget.state_dict().items())


def test_prompts_must_be_told():
    budget = KLBudget(0.5, prompts=2)
    for prompt in (None, torch.tensor([0.0, 1.0]), torch.tensor([0])):
        with pytest.raises(ValueError, match="one lambda for each of 2 prompts"):
            budget.step(torch.zeros(2), prompt)
    with pytest.raises(ValueError, match=r"numbered 0\.\.1, got 0 to 2"):
        budget.step(torch.zeros(2), torch.tensor([0, 2]))
    for prompts in (0, True, 2.0):
        with pytest.raises(ValueError, match="prompts must be"):
            KLBudget(0.5, prompts=prompts)
    with pytest.raises(ValueError, match="positive number of nats"):
        KLBudget(0.0)


def test_a_loss_term_needs_a_gradient():
    budget = KLBudget(0.5)
    for kl in (0.3, torch.tensor(0.3)):
        with pytest.raises(ValueError, match="carries no gradient"):
            budget.penalty(kl)
    assert int(budget.dual.step) == 0
    kl = torch.tensor([0.1, 0.5], requires_grad=True)
    budget.penalty(kl).backward()
    torch.testing.assert_close(kl.grad, budget.lam.expand(2) / 2.0)


def test_an_average_that_stays_negative_is_warned_of_once():
    budget = KLBudget(0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):  # unbiased estimates may be negative now and then
        budget.step(0.3 + torch.randn(16, generator=generator))
    wrong = KLBudget(0.5)
    for _ in range(19):
        wrong.step(torch.tensor(-0.2))
    with pytest.warns(UserWarning, match=r"averages to -0\.2 nats, which no KL does"):
        wrong.step(torch.tensor(-0.2))
    wrong.step(torch.tensor(-0.2))  # once is enough


@pytest.mark.parametrize("samples", ["its own", "the reference's", "older", "exchanged"])
def test_samples_of_another_policy_are_warned_of(samples: str, recwarn):
    """A Gaussian policy N(m, 1) that moves away from N(0, 1); its KL is m^2/2."""
    budget, generator, kls = KLBudget(0.5), torch.Generator().manual_seed(0), []
    for update in range(300):
        mean = 1.0 + 0.002 * update
        origin = {"the reference's": 0.0, "older": mean - 0.4}.get(samples, mean)
        x = origin + torch.randn(64, generator=generator)
        pair = (-0.5 * (x - mean).square(), -0.5 * x.square())
        budget.step_log_probs(*(pair[::-1] if samples == "exchanged" else pair))
        kls.append(0.5 * mean**2)
    told = [str(warning.message) for warning in recwarn]
    if samples == "its own":
        assert told == []
        assert float(budget.evidence) < 3.0
        assert float(budget.dual.kl_ema) == pytest.approx(sum(kls[-10:]) / 10, rel=0.3)
    elif samples == "older":
        assert len(told) == 1  # its KL is positive: nothing else would tell
        assert "not those of the policy" in told[0]
    else:
        assert len(told) == 1
    with pytest.raises(ValueError, match="one number per sample"):
        budget.step_log_probs(torch.zeros(2, 3), torch.zeros(2, 3))


def process(rank: int, file: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    kls = torch.rand(10, 6, generator=torch.Generator().manual_seed(0))
    prompts = torch.tensor([0, 1, 1, 0, 2, 2])
    whole, each, own = KLBudget(0.4), KLBudget(0.4, prompts=3), KLBudget(0.4, distributed=False)
    mine = slice(0, 2) if rank == 0 else slice(2, 6)  # batches of different size
    for kl in kls:
        whole.step(kl[mine])
        each.step(kl[mine], prompts[mine])
        own.step(kl[mine])
    message = ""
    try:
        whole.step(torch.tensor(math.nan if rank == 1 else 0.1))
    except ValueError as error:  # both must err, or the other waits for ever
        message = str(error)
    torch.save([whole.lam, each.lam, own.lam, message], f"{out}.{rank}")
    dist.destroy_process_group()


def test_two_processes_hold_the_lambda_of_one(tmp_path: Path):
    files = [str(tmp_path / "meet"), str(tmp_path / "out")]
    workers = [subprocess.Popen([sys.executable, __file__, str(rank), *files]) for rank in range(2)]
    kls = torch.rand(10, 6, generator=torch.Generator().manual_seed(0))
    one, each = KLBudget(0.4), KLBudget(0.4, prompts=3)
    for kl in kls:
        one.step(kl)
        each.step(kl, torch.tensor([0, 1, 1, 0, 2, 2]))
    assert [worker.wait(120) for worker in workers] == [0, 0]
    results = [torch.load(tmp_path / f"out.{rank}", weights_only=True) for rank in range(2)]
    for lam, per_prompt, _, message in results:
        torch.testing.assert_close(lam, one.lam)
        torch.testing.assert_close(per_prompt, each.lam)
        assert "not finite" in message
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][2] != results[1][2]


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2], sys.argv[3])
