"""Losses against torch's own functions and against numbers worked out by hand."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from tagclip.train.losses import (
    identity_loss,
    n_itc,
    orthogonal_loss,
    r_itc,
    same_identity_targets,
    view_loss,
)

IDS = torch.tensor([4, 7, 4, 9, 4])


@pytest.fixture
def similarity() -> torch.Tensor:
    return 5 * torch.randn(5, 5, generator=torch.Generator().manual_seed(1))


def test_targets_are_equal_on_the_pairs_of_one_identity() -> None:
    targets = same_identity_targets(IDS)
    third = 1 / 3
    expected = [
        [third, 0, third, 0, third],
        [0, 1, 0, 0, 0],
        [third, 0, third, 0, third],
        [0, 0, 0, 1, 0],
        [third, 0, third, 0, third],
    ]
    torch.testing.assert_close(targets, torch.tensor(expected))
    torch.testing.assert_close(targets.sum(1), torch.ones(5))


@pytest.mark.parametrize("soft", [0.0, 0.3, 1.0])
def test_n_itc_is_cross_entropy_with_soft_targets(similarity: torch.Tensor, soft: float) -> None:
    targets = same_identity_targets(IDS)
    expected = torch.zeros(())
    for logits in (similarity, similarity.T):
        wanted = soft * logits.softmax(1) + (1 - soft) * targets
        expected = expected + F.cross_entropy(logits, wanted) / 2
    torch.testing.assert_close(n_itc(similarity, targets, soft), expected)


def test_n_itc_does_not_learn_from_its_own_prediction(similarity: torch.Tensor) -> None:
    """With soft = 1 the target is the prediction, so a detached target leaves no gradient at all."""
    similarity.requires_grad_()
    n_itc(similarity, same_identity_targets(IDS), 1.0).backward()
    torch.testing.assert_close(similarity.grad, torch.zeros(5, 5), atol=1e-7, rtol=0)


def test_r_itc_is_the_kl_divergence_from_prediction_to_targets(similarity: torch.Tensor) -> None:
    targets = same_identity_targets(IDS)
    # torch's kl_div(input, target) is KL(target || exp(input)): our prediction is the target.
    expected = sum(
        F.kl_div((targets + 0.01).log(), logits.log_softmax(1), reduction="batchmean", log_target=True)
        for logits in (similarity, similarity.T)
    )
    torch.testing.assert_close(r_itc(similarity, targets), expected / 2)


@pytest.mark.parametrize("loss", [lambda s, q: n_itc(s, q, 0.2), r_itc])
def test_losses_prefer_the_right_pairs(loss) -> None:
    targets = same_identity_targets(torch.arange(4))
    assert loss(10 * torch.eye(4), targets) < loss(torch.zeros(4, 4), targets)
    assert loss(torch.zeros(4, 4), targets) < loss(-10 * torch.eye(4), targets)


def test_view_loss_is_the_mean_cross_entropy_of_the_blocks() -> None:
    view = torch.tensor([0, 1, 1])
    blocks = [torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, -1.0]]), torch.zeros(3, 2)]
    expected = (F.cross_entropy(blocks[0], view) + torch.tensor(2.0).log()) / 2
    torch.testing.assert_close(view_loss(blocks, view), expected)


def test_without_moe_blocks_nothing_is_lost() -> None:
    assert view_loss([], torch.tensor([0])) == 0 and orthogonal_loss([], [], 0.1) == 0


def test_orthogonal_loss_is_a_hinge_on_the_absolute_cosine() -> None:
    # cosines 1, -0.6, 0.05; the second block is at right angles
    cls = torch.tensor([[1.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
    view = torch.tensor([[7.0, 0.0], [-2.0, 0.0], [0.05, (1 - 0.05**2) ** 0.5]])
    other = (torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[0.0, 1.0]] * 3))
    first = ((1 - 0.1) + (0.6 - 0.1) + 0) / 3
    torch.testing.assert_close(
        orthogonal_loss([cls, other[0]], [view, other[1]], 0.1), torch.tensor(first / 2), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_step_against_the_gradient_turns_the_pair_apart(sign: float) -> None:
    cls = torch.tensor([[1.0, 0.3]], requires_grad=True)
    view = sign * torch.tensor([[1.0, 0.0]])
    orthogonal_loss([cls], [view], 0.1).backward()
    assert cls.grad is not None and cls.grad.norm() > 0
    with torch.no_grad():
        after = cls - 0.1 * cls.grad
    assert F.cosine_similarity(after, view).abs() < F.cosine_similarity(cls, view).abs()


def test_under_alpha_there_is_no_loss_and_no_gradient() -> None:
    cls = torch.tensor([[0.05, 1.0]], requires_grad=True)
    loss = orthogonal_loss([cls], [torch.tensor([[1.0, 0.0]])], 0.1)
    loss.backward()
    assert loss == 0 and torch.equal(cls.grad, torch.zeros(1, 2))


def test_identity_loss_is_the_mean_of_both_towers() -> None:
    right = torch.tensor([[20.0, 0.0, 0.0]])
    assert identity_loss(right, torch.zeros(1, 3), torch.tensor([0])).item() == pytest.approx(
        torch.tensor(3.0).log().item() / 2, abs=1e-6
    )
