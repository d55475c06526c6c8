"""The mixture against a loop that follows eq. 3-8 token by token; what is not routed to costs nothing."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from tagclip.train.moe import DenseMoe, FixedMoe, HrMoe, Mlp, group, top_k_softmax

WIDTH, EXPERTS = 8, 6


def mixture(selected: int, router: str = "view", **extras: bool) -> HrMoe:
    """Routers with weights that decide, instead of the near zeros of a new model."""
    torch.manual_seed(0)
    made = HrMoe(WIDTH, (Mlp(WIDTH, 2.0) for _ in range(EXPERTS)), selected, router, **extras)
    for linear in (made.image_router, made.token_router):
        if linear is not None:
            torch.nn.init.normal_(linear.weight)
            torch.nn.init.normal_(linear.bias)
    return made


@pytest.fixture
def moe() -> HrMoe:
    return mixture(3)


def naive(moe: HrMoe, h: torch.Tensor, view: list[int] | None) -> torch.Tensor:
    """Eq. 3-8, one token at a time."""
    out = torch.zeros_like(h)
    for b in range(h.shape[0]):
        g_img = moe.image_router.weight @ h[b, -1] + moe.image_router.bias  # eq. 3
        z = int(g_img.softmax(0).argmax()) if view is None else view[b]  # eq. 4
        allowed = range(0, EXPERTS - 1) if z == 0 else range(1, EXPERTS)
        for t in range(h.shape[1]):
            g_feat = moe.token_router.weight @ h[b, t] + moe.token_router.bias  # eq. 5
            mask = torch.tensor([0.0 if k in allowed else float("-inf") for k in range(EXPERTS)])  # eq. 7
            p = (g_feat + mask).softmax(0)  # eq. 6
            top = p.argsort(descending=True)[: moe.selected].tolist()
            for k in top:  # eq. 8
                out[b, t] += p[k] / p[top].sum() * moe.experts[k](h[b, t])
    return out


@pytest.mark.parametrize("selected", [1, 3, 5])
@pytest.mark.parametrize("known", [False, True])
def test_moe_follows_the_equations(moe: HrMoe, selected: int, known: bool) -> None:
    moe.selected = selected
    h = torch.randn(6, 4, WIDTH, generator=torch.Generator().manual_seed(2))
    predicted = moe.image_router(h[:, -1]).argmax(-1)
    assert 0 < predicted.sum() < 6, "the case must hold both views"
    view = (1 - predicted).tolist() if known else None  # a known view counts even against the prediction
    mixed, logits = moe(h, None if view is None else torch.tensor(view))
    torch.testing.assert_close(mixed, naive(moe, h, view))
    torch.testing.assert_close(logits, F.linear(h[:, -1], moe.image_router.weight, moe.image_router.bias))


def test_groups_share_all_but_the_other_views_own() -> None:
    assert (group(6, 0), group(6, 1)) == ([0, 1, 2, 3, 4], [1, 2, 3, 4, 5])


@pytest.mark.parametrize(("view", "foreign", "own"), [(0, EXPERTS - 1, 0), (1, 0, EXPERTS - 1)])
def test_the_other_views_expert_has_no_weight_and_no_gradient(
    moe: HrMoe, view: int, foreign: int, own: int
) -> None:
    moe.selected = EXPERTS - 1
    h = torch.randn(3, 4, WIDTH)
    before, _ = moe(h, torch.full((3,), view))
    before.square().sum().backward()
    assert all(p.grad is None for p in moe.experts[foreign].parameters())  # it was not called
    assert not moe.token_router.weight.grad[foreign].any()
    assert all(p.grad.any() for p in moe.experts[own].parameters())
    with torch.no_grad():
        for parameter in moe.experts[foreign].parameters():
            parameter.fill_(1e6)
    assert torch.equal(moe(h, torch.full((3,), view))[0], before)


def test_the_image_router_learns_from_the_view_loss_only(moe: HrMoe) -> None:
    mixed, logits = moe(torch.randn(3, 4, WIDTH))
    mixed.square().sum().backward(retain_graph=True)
    assert moe.image_router.weight.grad is None
    logits.sum().backward()
    assert moe.image_router.weight.grad.any()


def test_top_k_softmax_renormalises() -> None:
    scores = torch.tensor([1.0, 2.0, 0.0, 3.0]).log()  # log 0 is -inf
    torch.testing.assert_close(top_k_softmax(scores, 2), torch.tensor([0.0, 0.4, 0.0, 0.6]))
    torch.testing.assert_close(top_k_softmax(scores, 4), torch.tensor([1 / 6, 2 / 6, 0.0, 3 / 6]))


def dense(moe: HrMoe, h: torch.Tensor, view: torch.Tensor | None) -> torch.Tensor:
    """Every expert on every token, weighted: what the sparse form must equal, gradients included."""
    scores = moe.token_router(h)
    if moe.image_router is not None:
        z = moe.image_router(h[:, -1]).argmax(-1) if view is None else view
        banned = torch.stack([torch.arange(EXPERTS) == (EXPERTS - 1 if v == 0 else 0) for v in z])
        scores = scores - 1e9 * banned[:, None]
    p = scores.softmax(-1)
    value, index = p.topk(moe.selected, dim=-1)
    w = torch.zeros_like(p).scatter(-1, index, value / value.sum(-1, keepdim=True))
    return sum(w[..., k : k + 1] * expert(h) for k, expert in enumerate(moe.experts))


@pytest.mark.parametrize(
    ("router", "selected", "view"),
    [
        ("view", 5, [0, 1, 0, 0, 1]),  # all of a group: sparse by image
        ("view", 5, None),
        ("view", 5, [1] * 5),
        ("view", 2, [0, 1, 1, 0, 1]),  # some of a group: sparse by token
        ("view", 2, None),
        ("token", 2, None),  # the vanilla mixture
        ("token", 6, None),
    ],
)
def test_sparse_is_dense(router: str, selected: int, view: list[int] | None) -> None:
    moe = mixture(selected, router)
    known = None if view is None else torch.tensor(view)
    h = torch.randn(5, 7, WIDTH, generator=torch.Generator().manual_seed(4), requires_grad=True)
    outward = torch.randn(5, 7, WIDTH, generator=torch.Generator().manual_seed(5))
    results = []
    for run in (lambda: moe(h, known)[0], lambda: dense(moe, h, known)):
        moe.zero_grad()
        h.grad = None
        out = run()
        (out * outward).sum().backward()
        assert h.grad is not None
        # An expert that did not run has no gradient, which is a gradient of zero.
        grads = {
            n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in moe.named_parameters()
        }
        results.append((out.detach(), h.grad.clone(), grads))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("view", "served"),
    [
        ([0, 0, 0], [3, 3, 3, 3, 3, 0]),
        ([1, 1, 1], [0, 3, 3, 3, 3, 3]),
        ([0, 1, 0], [2, 3, 3, 3, 3, 1]),  # images of one view do not pay for the other view's expert
    ],
)
def test_experts_see_the_images_that_they_serve(view: list[int], served: list[int]) -> None:
    moe = mixture(EXPERTS - 1)
    seen = [0] * EXPERTS
    for k, expert in enumerate(moe.experts):

        def count(module: torch.nn.Module, given: tuple[torch.Tensor], k: int = k) -> None:
            seen[k] += len(given[0])

        expert.register_forward_pre_hook(count)
    moe(torch.randn(3, 4, WIDTH), torch.tensor(view))
    assert seen == served


@pytest.mark.parametrize(("router", "chosen"), [("view", 2), ("token", 5)])
def test_experts_see_the_tokens_that_keep_them(router: str, chosen: int) -> None:
    moe = mixture(1, router)
    with torch.no_grad():
        moe.token_router.weight.zero_()
        moe.token_router.bias.copy_(
            torch.tensor([0.0, 0, 9, 0, 0, 0] if router == "view" else [0.0] * 5 + [9])
        )
    seen: dict[int, int] = {}
    for k, expert in enumerate(moe.experts):
        expert.register_forward_pre_hook(lambda m, given, k=k: seen.__setitem__(k, len(given[0])))
    out, _ = moe(torch.randn(3, 4, WIDTH), torch.tensor([0, 1, 0]))
    out.sum().backward()
    assert seen == {chosen: 12}  # of all experts one was called, once, with every token


def test_a_token_router_has_no_view() -> None:
    moe = mixture(2, "token")
    assert moe.image_router is None and "image_router.weight" not in moe.state_dict()
    h = torch.randn(3, 4, WIDTH)
    out, logits = moe(h, torch.tensor([0, 1, 0]))
    assert logits is None and torch.equal(out, moe(h)[0])


def test_noise_is_small_and_in_training_only() -> None:
    moe = mixture(5, noise=True)
    h = torch.randn(64, 4, WIDTH)
    assert torch.equal(moe.eval()(h)[0], moe(h)[0])
    plain = moe(h)[0]
    moe.train()
    noisy = moe(h)[0]
    assert not torch.equal(noisy, plain) and not torch.equal(noisy, moe(h)[0])
    torch.testing.assert_close(noisy, plain, atol=0.1, rtol=0)


def test_gumbel_draws_the_view_with_the_routers_probability() -> None:
    moe = mixture(5, gumbel=True)
    logits = torch.tensor([[1.0, 0.0]]).expand(20_000, 2)
    torch.manual_seed(1)
    assert moe.train()._view(logits).float().mean().item() == pytest.approx(1 / (1 + torch.e), abs=0.02)
    assert not moe.eval()._view(logits).any()  # evaluation takes the arg max


@pytest.mark.parametrize("router", ["view", "token"])
@pytest.mark.parametrize("selected", [2, 5])
@pytest.mark.parametrize("view", [0, 1])
def test_a_fixed_view_is_exact(router: str, selected: int, view: int) -> None:
    moe = mixture(selected, router)
    fixed = FixedMoe(moe, view)
    h = torch.randn(3, 4, WIDTH)
    wanted, _ = moe(h, torch.full((3,), view))
    torch.testing.assert_close(fixed(h)[0], wanted)
    assert len(fixed.experts) == (EXPERTS - 1 if router == "view" else EXPERTS)


@pytest.mark.parametrize("selected", [1, 3, 5])
@pytest.mark.parametrize("router", ["view", "token"])
def test_all_experts_on_all_tokens_are_the_same_mixture(selected: int, router: str) -> None:
    moe = mixture(selected, router)
    h = torch.randn(6, 4, WIDTH, generator=torch.Generator().manual_seed(2))
    wanted, logits = moe(h)
    mixed, found = DenseMoe(moe)(h)
    torch.testing.assert_close(mixed, wanted)
    if router == "view":
        assert 0 < logits.argmax(-1).sum() < 6, "the case must hold both views"
        torch.testing.assert_close(found, logits)
    else:
        assert found is None
