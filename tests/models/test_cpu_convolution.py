"""On a CPU, a VAE's convolutions over time and plane take the fast kernel, and compute what they did."""

import copy
import json
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from models import cpu_convolution
from models.cpu_convolution import quicken
from tests.models.conftest import TinyFolder, TinyModel

pytestmark = pytest.mark.skipif(
    not cpu_convolution._has_fast_kernels(), reason="a processor without AVX2, or no oneDNN"
)

# Family, frames, and whether its tiny VAE has convolutions over time and plane.
VAES = {
    "wan": 9,
    "wan-vace": 9,
    "ltx": 9,
    "cogvideox": 9,
    "hunyuanvideo": 9,
    "hunyuanvideo15": 9,
    "mochi": 7,
    "easyanimate-control": 5,
}
SIDE = 64


@pytest.fixture
def _whatever_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks would be left to torch."""
    monkeypatch.setattr(cpu_convolution, "_LEAST_IN_PLANE", 0)
    monkeypatch.setattr(cpu_convolution, "_LEAST_AT_POINTS", 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The inputs' shapes of the calls that go to oneDNN at once."""
    seen: list[tuple[int, ...]] = []
    direct = torch.mkldnn_convolution

    def counted(video: Tensor, *rest: Any) -> Tensor:
        seen.append(tuple(video.shape))
        return direct(video, *rest)

    monkeypatch.setattr(torch, "mkldnn_convolution", counted)
    return seen


def vae_of(family: str, folder: TinyFolder) -> Any:
    place = folder(family) / "vae"
    cls = getattr(diffusers, json.loads((place / "config.json").read_text())["_class_name"])
    return cls.from_pretrained(place).eval()


@pytest.mark.parametrize("family", VAES)
@pytest.mark.usefixtures("_whatever_the_size")
@torch.no_grad()
def test_a_vae_says_what_it_said(family: str, tiny_folder: TinyFolder, calls: list[tuple[int, ...]]) -> None:
    stock = vae_of(family, tiny_folder)
    fast = copy.deepcopy(stock)
    quicken(fast)
    video = torch.rand(1, 3, VAES[family], SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = stock.encode(video).latent_dist.mode()
    torch.testing.assert_close(fast.encode(video).latent_dist.mode(), latents, rtol=1e-5, atol=1e-5)
    assert calls, "no convolution of its encoder took the fast kernel"
    calls.clear()
    torch.testing.assert_close(fast.decode(latents).sample, stock.decode(latents).sample, rtol=1e-5, atol=1e-5)
    assert calls, "no convolution of its decoder took the fast kernel"
    mine, theirs = fast.state_dict(), stock.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 3, 1), "padding": (1, 1, 0), "stride": (2, 1, 1)},
        {"kernel_size": 3, "stride": 2, "dilation": (1, 2, 1)},
        {"kernel_size": 3, "groups": 2, "bias": False},
        {"kernel_size": 3, "padding": (0, 1, 2), "padding_mode": "replicate"},
        {"kernel_size": (3, 1, 1), "padding": (1, 0, 0)},
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": (1, 2, 2), "stride": (1, 2, 2)},
    ],
)
@pytest.mark.usefixtures("_whatever_the_size")
@torch.no_grad()
def test_a_convolution_of_any_settings_computes_what_it_did(settings: dict[str, Any]) -> None:
    stock = nn.Conv3d(4, 6, **settings)
    fast = nn.Sequential(copy.deepcopy(stock))
    quicken(fast)
    video = torch.randn(1, 4, 7, 12, 20)
    laid_out = {
        "plain": video,
        "frames first": video.transpose(1, 2).contiguous().transpose(1, 2),
        "channels innermost": video.contiguous(memory_format=torch.channels_last_3d),
        "a part": torch.randn(1, 4, 9, 12, 40)[:, :, 1:8, :, ::2],
        "one frame, repeated": video[:, :, :1].expand_as(video),
    }
    for name, one in laid_out.items():
        torch.testing.assert_close(fast(one), stock(one), rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@torch.no_grad()
def test_where_the_fast_kernel_would_save_nothing_torch_decides(calls: list[tuple[int, ...]]) -> None:
    over, point, patches = nn.Conv3d(16, 16, 3), nn.Conv3d(64, 64, (3, 1, 1)), nn.Conv3d(16, 512, (1, 2, 2), (1, 2, 2))
    quicken(nn.ModuleList([over, point, patches]))
    large = torch.randn(1, 64, 6, 66, 66)
    over(large[:, :16])
    point(large)
    assert len(calls) == 2
    for conv, video in (
        (over, large[:, :16, :3, :5, :5]),  # little work
        (point, large[:, :, :, :8, :8]),
        (patches, large[:, :16]),  # a matrix product
        (over, large[:, :16].expand(2, -1, -1, -1, -1)),  # torch itself takes the fast kernel
    ):
        conv(video)
    over.double()(large[:, :16].double())
    assert len(calls) == 2


@pytest.mark.usefixtures("_whatever_the_size")
@torch.no_grad()
def test_a_copy_convolves_with_its_own_weights() -> None:
    first = nn.Sequential(nn.Conv3d(4, 4, 3))
    quicken(first)
    second = copy.deepcopy(first)
    second[0].weight.zero_()
    second[0].bias.zero_()
    video = torch.randn(1, 4, 4, 8, 8)
    assert not second(video).any()
    assert first(video).any()


def test_weights_are_laid_out_anew_only_where_no_group_norm_undoes_it() -> None:
    for norm, is_laid_out in ((nn.Identity(), True), (nn.GroupNorm(2, 4), False)):
        part = nn.Sequential(nn.Conv3d(4, 4, 3), norm)
        quicken(part)
        weight = part[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last_3d) is is_laid_out


def test_another_kind_of_processor_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    part = nn.Sequential(nn.Conv3d(4, 4, 3))
    quicken(part)
    assert "_conv_forward" not in vars(part[0])
    assert part[0].weight.is_contiguous()


def test_what_is_loaded_onto_a_cpu_is_quick(tiny_model: TinyModel) -> None:
    vae: Any = next(iter(tiny_model("wan").pipes.values())).vae
    convolutions = [module for module in vae.modules() if isinstance(module, nn.Conv3d)]
    assert convolutions
    assert all("_conv_forward" in vars(module) for module in convolutions)
