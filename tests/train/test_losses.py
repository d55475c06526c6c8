"""Losses against torch's own functions and against numbers worked out by hand."""

import pytest

torch = pytest.importorskip("torch")

import numpy as np
import torch.nn.functional as F

from tagclip.train.config import TrainConfig
from tagclip.train.losses import (
    contrast,
    ground_teacher_loss,
    identity_loss,
    n_itc,
    orthogonal_loss,
    r_itc,
    same_identity_targets,
    sdm,
    tal,
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


@pytest.fixture
def cosine() -> torch.Tensor:
    return torch.rand(5, 5, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_sdm_is_the_kl_divergence_at_a_fixed_scale(cosine: torch.Tensor) -> None:
    """IRRA sums both directions; its prediction is the target of torch's kl_div."""
    targets = same_identity_targets(IDS)
    expected = sum(
        F.kl_div((targets + 1e-8).log(), (50 * c).log_softmax(1), reduction="batchmean", log_target=True)
        for c in (cosine, cosine.T)
    )
    torch.testing.assert_close(sdm(cosine, targets), expected)


def test_tal_row_by_row(cosine: torch.Tensor) -> None:
    """RDE's loss in numpy with double precision, one row at a time."""
    tau, margin, total = 0.015, 0.1, 0.0
    ids = IDS.numpy()
    for scores in (cosine.double().numpy(), cosine.double().numpy().T):
        for row, label in zip(scores, ids, strict=True):
            positive, negative = row[ids == label], row[ids != label]
            weight = np.exp((positive - positive.max()) / tau)
            weight /= weight.sum()
            hardest = tau * (np.log(np.exp((negative - negative.max()) / tau).sum()) + negative.max() / tau)
            total += max(0.0, margin - (weight * positive).sum() + hardest)
    assert tal(cosine, IDS).item() == pytest.approx(total, rel=1e-4) and total > 1


def test_tal_pulls_positives_and_pushes_the_hardest_negative() -> None:
    cosine = torch.tensor([[0.5, 0.45, -0.9], [-0.8, 0.9, -0.9], [-0.8, -0.9, 0.9]], requires_grad=True)
    tal(cosine, torch.arange(3)).backward()
    expected = torch.zeros(3, 3)
    expected[0, 0], expected[0, 1] = -1, 1  # only the first row is inside the margin: 0.1 - 0.5 + 0.45 > 0
    torch.testing.assert_close(cosine.grad, expected, atol=1e-4, rtol=0)


def test_tal_of_one_identity_is_nothing_and_no_nan() -> None:
    cosine = torch.rand(3, 3, requires_grad=True)
    loss = tal(cosine, torch.zeros(3))
    loss.backward()
    assert loss == 0 and torch.equal(cosine.grad, torch.zeros(3, 3))


@pytest.mark.parametrize("kind", ["tag", "sdm", "tal"])
def test_contrast_takes_the_cosines_of_the_pairs(kind: str) -> None:
    generator = torch.Generator().manual_seed(3)
    images, texts = (3 * torch.randn(5, 8, generator=generator) for _ in range(2))
    cosine = F.cosine_similarity(images[:, None], texts[None], dim=-1)
    targets = same_identity_targets(IDS)
    expected = {
        "tag": {"n_itc": n_itc(20 * cosine, targets, 0.5), "r_itc": r_itc(20 * cosine, targets)},
        "sdm": {"sdm": sdm(cosine, targets)},  # has its own temperature
        "tal": {"tal": tal(cosine, IDS)},
    }
    found = contrast(kind, images, texts, IDS, torch.tensor(20.0), 0.5)
    torch.testing.assert_close(found, expected[kind], rtol=1e-4, atol=1e-5)


def test_presets_of_the_orthogonal_loss() -> None:
    """The paper's alpha 0.1, and 100 * max(|cos| - 0.001, 0) of the release."""
    pair = [torch.tensor([[1.0, 0.0]])], [torch.tensor([[0.6, 0.8]])]
    values = {}
    for preset in ("paper", "released"):
        alpha, weight = TrainConfig(ortho=preset).orthogonal()
        values[preset] = weight * orthogonal_loss(*pair, alpha).item()
    assert values == pytest.approx({"paper": 0.6 - 0.1, "released": 100 * (0.6 - 0.001)})
    assert TrainConfig(ortho_alpha=0.3, weight_ortho=2.0).orthogonal() == (0.3, 2.0)


def test_ground_pictures_teach_the_aerial_ones_of_their_person() -> None:
    """One picture at a time, in numpy; and no gradient reaches a teacher or a picture without one."""
    images = torch.randn(6, 4, generator=torch.Generator().manual_seed(3), requires_grad=True)
    ids, view = torch.tensor([1, 1, 1, 2, 2, 3]), torch.tensor([0, 1, 1, 0, 0, 1])
    loss = ground_teacher_loss(images, ids, view)
    rows = images.detach().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    teacher = rows[1] + rows[2]
    assert loss.item() == pytest.approx(1 - rows[0] @ teacher / np.linalg.norm(teacher), abs=1e-6)
    loss.backward()
    assert images.grad is not None
    assert images.grad[0].abs().sum() > 0 and not images.grad[1:].any()
    assert ground_teacher_loss(images, ids, torch.zeros(6)).item() == 0
