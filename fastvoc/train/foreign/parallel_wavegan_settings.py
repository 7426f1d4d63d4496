"""What the settings of kan-bayashi/ParallelWaveGAN 8674037 say about discriminators, as ours."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fastvoc.checkpoints import foreign_settings
from fastvoc.config import config, from_dict
from fastvoc.models.discriminators import DiscriminatorConfig

_MELGAN, _HIFIGAN = "MelGANMultiScaleDiscriminator", "HiFiGANMultiScaleMultiPeriodDiscriminator"


@config
class _Pooling:
    """``downsample_pooling_params``, with the defaults of PyTorch."""

    kernel_size: Literal[4]
    stride: Literal[2]
    padding: int = 0
    count_include_pad: bool = True


@config
class _Slope:
    negative_slope: float = 0.01


@config
class _Network:
    """What the parameters of all discriminators have in common."""

    in_channels: Literal[1] = 1
    out_channels: Literal[1] = 1
    bias: Literal[True] = True
    nonlinear_activation: Literal["LeakyReLU"] = "LeakyReLU"


@config
class _MelGAN(_Network):
    """``discriminator_params`` of the class, with the defaults of its code."""

    scales: int = 3
    downsample_pooling: Literal["AvgPool1d"] = "AvgPool1d"
    downsample_pooling_params: _Pooling = _Pooling(kernel_size=4, stride=2, padding=1, count_include_pad=False)
    kernel_sizes: tuple[Literal[5], Literal[3]] = (5, 3)
    channels: int = 16
    max_downsample_channels: int = 1024
    downsample_scales: tuple[int, ...] = (4, 4, 4, 4)
    nonlinear_activation_params: _Slope = _Slope(negative_slope=0.2)
    pad: Literal["ReflectionPad1d"] = "ReflectionPad1d"


@config
class _Scale(_Network):
    """``scale_discriminator_params``."""

    kernel_sizes: tuple[Literal[15], Literal[41], Literal[5], Literal[3]] = (15, 41, 5, 3)
    channels: int = 128
    max_downsample_channels: int = 1024
    max_groups: Literal[16] = 16
    downsample_scales: tuple[int, ...] = (2, 2, 4, 4, 1)
    nonlinear_activation_params: _Slope = _Slope(negative_slope=0.1)


@config
class _Period(_Network):
    """``period_discriminator_params``."""

    kernel_sizes: tuple[Literal[5], int] = (5, 3)
    channels: int = 32
    downsample_scales: tuple[Literal[3], Literal[3], Literal[3], Literal[3], Literal[1]] = (3, 3, 3, 3, 1)
    max_downsample_channels: int = 1024
    nonlinear_activation_params: _Slope = _Slope(negative_slope=0.1)


@config
class _HiFiGAN:
    """``discriminator_params`` of the class, with the defaults of its code."""

    scales: int = 3
    scale_downsample_pooling: Literal["AvgPool1d"] = "AvgPool1d"
    scale_downsample_pooling_params: _Pooling = _Pooling(kernel_size=4, stride=2, padding=2)
    scale_discriminator_params: dict[str, Any] = Field(default_factory=dict)
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_discriminator_params: dict[str, Any] = Field(default_factory=dict)


def discriminator_configs(kind: str, parameters: Any, where: str) -> list[DiscriminatorConfig]:
    """Translate ``discriminator_type`` and ``discriminator_params``.

    Parameters
    ----------
    kind : str
    parameters : object
        Names and values.
    where : str
        What error messages call the settings.

    Raises
    ------
    ValueError
        If they say something that our discriminators cannot do.
    """
    where = f"{where}: discriminator_params"
    if kind == _MELGAN:
        melgan = foreign_settings.pick(_MelGAN, parameters, where)
        pooling = melgan.downsample_pooling_params
        if (pooling.padding, pooling.count_include_pad) != (1, False):
            raise ValueError(f"{where}: pools with other padding than MelGAN, which is not taken")
        values: list[dict[str, Any]] = [
            {
                "kind": "melgan",
                "scales": melgan.scales,
                "channels": melgan.channels,
                "downsampling": melgan.downsample_scales,
                "largest": melgan.max_downsample_channels,
                "slope": melgan.nonlinear_activation_params.negative_slope,
            }
        ]
        return from_dict(list[DiscriminatorConfig], values, where)  # type: ignore[no-any-return]
    if kind != _HIFIGAN:
        raise ValueError(f"{where}: discriminator_type is {kind}; fastvoc takes {_MELGAN} and {_HIFIGAN}")
    both = foreign_settings.pick(_HiFiGAN, parameters, where)
    scale = foreign_settings.pick(_Scale, both.scale_discriminator_params, where)
    period = foreign_settings.pick(_Period, both.period_discriminator_params, where)
    pooling = both.scale_downsample_pooling_params
    if (
        (pooling.padding, pooling.count_include_pad) != (2, True)
        or {scale.nonlinear_activation_params.negative_slope, period.nonlinear_activation_params.negative_slope}
        != {0.1}
        or scale.max_downsample_channels != 8 * scale.channels
        or period.max_downsample_channels != 32 * period.channels
    ):
        raise ValueError(f"{where}: has other pooling, slopes or widths than HiFi-GAN, which are not taken")
    taps = period.kernel_sizes[1] - 1
    values = [
        {"kind": "scale", "scales": both.scales, "channels": scale.channels, "strides": scale.downsample_scales},
        {"kind": "period", "periods": both.periods, "channels": period.channels, "last_kernel_size": taps},
    ]
    return from_dict(list[DiscriminatorConfig], values, where)  # type: ignore[no-any-return]
