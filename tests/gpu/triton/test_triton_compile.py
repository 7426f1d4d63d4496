"""What Triton makes of the kernels for GPUs that are not there: matrix units, asynchronous copies, budgets."""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="the package triton is not installed")

from triton_aot import compile_for, describe, signature

from fastvoc.ops.availability import interpreted
from fastvoc.ops.convnext import triton as convnext
from fastvoc.ops.convnext.call import Convnext
from fastvoc.ops.gated import triton as gated
from fastvoc.ops.gated.call import Gated
from fastvoc.ops.ragged import ragged
from fastvoc.ops.residual.call import Residual
from fastvoc.ops.residual.triton import launches as residual_launches
from fastvoc.ops.smooth_snake import triton as smooth_snake
from fastvoc.ops.smooth_snake.call import SmoothSnake, SmoothSnakeBackward
from fastvoc.ops.strided_conv1d import triton as strided_conv1d
from fastvoc.ops.strided_conv1d.call import StridedConv1d, StridedConv1dBackward
from fastvoc.ops.triton import Launch, Launches
from fastvoc.ops.triton.convolution import convolution
from fastvoc.ops.triton.weight_gradient import describe_launches as weight_gradients

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(interpreted(), reason="Triton interprets its kernels in this process"),
]

MATRIX_UNIT = {80: "HMMA", 86: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTC[A-Z]*MMA", 120: "HMMA"}
SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""KiB of shared memory that a program can have (CUDA C++ Programming Guide, compute capabilities)."""


def features(channels: int, frames: int, dtype: torch.dtype) -> Tensor:
    """Channels-last, as in the trunk."""
    return torch.empty(2, frames, channels, dtype=dtype, device="meta").transpose(1, 2)


def weight(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def branches(channels: int, number: int, dtype: torch.dtype) -> Launch:
    """One convolution of all three branches of HiFi-GAN V1, or the mean that ends them."""
    x = features(channels, 5001, dtype)
    taps = [(size, dilation) for size in (3, 7, 11) for first in (1, 3, 5) for dilation in (first, 1)]
    weights = [weight(channels, channels, size, dtype=dtype) for size, _ in taps]
    biases = [weight(channels, dtype=dtype)] * len(taps)
    dilations = [dilation for _, dilation in taps]
    return list(residual_launches(Residual(x, weights, biases, dilations, branches=3), x))[number]


def forward(channels: int, out: int, dtype: torch.dtype, padding: str = "zero") -> Launch:
    x, y = features(channels, 5001, dtype), features(out, 5001, dtype)
    packed, bias = weight(7, out, channels, dtype=dtype), weight(out, dtype=dtype)
    finish = "tanh" if out <= 4 else "none"
    return convolution(
        x, packed, bias, y, name="conv1d", dilation=3, shift=9, padding=padding, slope=0.1, finish=finish
    )


def gradient_of_input(channels: int, dtype: torch.dtype) -> Launch:
    x = features(channels, 5001, dtype)
    packed = weight(3, channels, channels, dtype=dtype)
    return convolution(
        x, packed, None, x, name="conv1d_backward", dilation=-3, shift=-3,
        copies="reflect", padded=(3, 3), beside=x, role="gate", out_slope=0.1,
    )  # fmt: skip


def upsampling(channels: int, stride: int, dtype: torch.dtype, out: int | None = None) -> Launch:
    out = out or channels // 2
    x, y = features(channels, 689, dtype), features(out, 689 * stride, dtype)
    packed, bias = weight(2, stride * out, channels, dtype=dtype), weight(out, dtype=dtype)
    return convolution(
        x, packed, bias, y, name="upsample", dilation=-1, shift=0, phases=stride, crop=stride // 2, slope=0.1
    )


def gradient_of_weight(channels: int, dtype: torch.dtype) -> Launch:
    x = features(channels, 5001, dtype)
    grad_weight, grad_bias = weight(channels, channels, 7, dtype=dtype), weight(channels, dtype=dtype)
    return weight_gradients(
        x, x, grad_weight, grad_bias, taps=7, dilation=3, shift=9, hop=1,
        padding="zero", activated="shifted", biased="fixed", slope=0.1,
    )[0]  # fmt: skip


def downsampling(channels: int, out: int, taps: int, stride: int, groups: int, number: int) -> Launch:
    """A layer of a discriminator (0), or its gradient for the input (1) or for weight and bias (2)."""
    x = features(channels, 999, torch.bfloat16)
    w, bias = weight(out, channels // groups, taps, dtype=x.dtype), weight(out, dtype=x.dtype)
    settings = stride, taps // 2, taps // 2, groups, 0.1
    made: list[Launch] = []
    with patch.object(Launch, "__call__", lambda launch: made.append(launch) or launch):
        forward = strided_conv1d._run(Launches(), StridedConv1d(x, w, bias, *settings))
        backward = StridedConv1dBackward(forward, x, w, forward, *settings, (True, True, True))
        strided_conv1d._run_backward(Launches(), backward)
    return made[number]


def gated_layer(channels: int, dtype: torch.dtype, number: int = 0) -> Launch:
    """Convolution and gate (0), with the products if a tile holds all gates, or these products (1)."""
    x, condition = features(channels, 5001, dtype), features(2 * channels, 5001, dtype)
    w, out = weight(2 * channels, channels, 3, dtype=dtype), weight(2 * channels, channels, 1, dtype=dtype)
    bias = weight(2 * channels, dtype=dtype)
    call = Gated(x, w, bias, condition, out, bias, x, channels, 4, 4, 4)
    results = call.empty()
    launch = gated.gate_launch(call, *results)
    return gated.product_launch(call, launch.arguments["let_through"], *results) if number else launch


def vocos_block(number: int, dtype: torch.dtype) -> Launch:
    """Convolution and norm (0), the product before the GELU (1) and the one behind it (2)."""
    x, hidden = features(512, 5001, dtype), features(1536, 5001, dtype)
    channels, expand = weight(512, dtype=dtype), weight(1536, 512, dtype=dtype)
    call = Convnext(
        x, weight(512, 1, 7, dtype=dtype), channels, channels, channels, expand, weight(1536, dtype=dtype),
        weight(512, 1536, dtype=dtype), channels, channels, 3, 3,
    )  # fmt: skip
    if number == 0:
        return convnext.norm_launch(call, x)
    return convnext.expand_launch(call, x, hidden) if number == 1 else convnext.contract_launch(call, hidden, x)


def snake(channels: int, dtype: torch.dtype, *, gradient: bool = False, last: bool = True) -> Launch:
    x = features(channels, 5001, dtype) if last else weight(2, channels, 5001, dtype=dtype)
    alpha = weight(channels, dtype=dtype)
    if not gradient:
        return smooth_snake.launch(SmoothSnake(x, alpha, alpha), x)
    sums = weight(2, 2, 264, channels, dtype=torch.float32)
    return smooth_snake.gradient_launch(SmoothSnakeBackward(x, x, alpha, alpha, True, (True, True, True)), x, sums)


HALF, BRAIN, FULL = torch.float16, torch.bfloat16, torch.float32

LAUNCHES = {
    "branches of 128 channels": (lambda: branches(128, 1, HALF), (80, 86, 89, 90, 100, 120)),
    "mean of branches of 32 channels": (lambda: branches(32, 5, HALF), (80, 90)),
    "head": (lambda: forward(32, 1, HALF), (90,)),
    "head of 64 channels": (lambda: forward(64, 1, BRAIN), (86, 89, 120)),
    "multi-band MelGAN's head": (lambda: forward(48, 4, HALF, "reflect"), (86, 89, 120)),
    "iSTFTNet's head": (lambda: forward(128, 18, BRAIN), (86, 89, 120)),
    "upsampling to few channels": (lambda: upsampling(256, 1, HALF, 16), (86, 89, 120)),
    "64 channels in tf32": (lambda: forward(64, 64, FULL), (80, 90)),
    "gradient for the input, reflected": (lambda: gradient_of_input(64, BRAIN), (80, 90)),
    "upsampling by 8": (lambda: upsampling(512, 8, HALF), (90,)),
    "gradient for the weight": (lambda: gradient_of_weight(128, BRAIN), (80, 90)),
    "gates and products of 64 channels": (lambda: gated_layer(64, HALF), (80, 89, 90, 120)),
    "gates and products of 64 channels in tf32": (lambda: gated_layer(64, FULL), (86, 90)),
    "gates and products of 128 channels": (lambda: gated_layer(128, BRAIN), (80, 86, 90, 100)),
    "gates of 256 channels": (lambda: gated_layer(256, HALF), (80, 90, 100, 120)),
    "Vocos' product before the GELU": (lambda: vocos_block(1, HALF), (80, 90, 120)),
    "Vocos' product behind the GELU": (lambda: vocos_block(2, BRAIN), (86, 90, 100)),
    "products behind 256 gates": (lambda: gated_layer(256, HALF, 1), (80, 90)),
} | {
    f"discriminator's {layer}, {kind}": (partial(downsampling, *shape, number), capabilities)
    for layer, shape, capabilities in (
        ("period layer 5", (1024, 1024, 5, 1, 1), (80, 90)),
        ("scale layer 2", (128, 128, 41, 2, 4), (80, 90)),
        ("scale layer 3", (128, 256, 41, 2, 16), (80, 90, 100, 120)),
    )
    for number, kind in enumerate(("forward", "gradient for the input", "gradient for the weight"))
}


@pytest.mark.parametrize(
    ("name", "capability"), [(name, number) for name, (_, numbers) in LAUNCHES.items() for number in numbers]
)
def test_kernels_use_the_machine_within_its_budget(name: str, capability: int) -> None:
    launch = describe(capability, LAUNCHES[name][0])
    compiled = compile_for(launch, capability)
    assert compiled.count(MATRIX_UNIT[capability]) >= 2, "no matrix unit multiplies"
    assert compiled.count("LDGSTS") >= 8, "loads do not run ahead of the multiplications"
    # 65536 registers of a multiprocessor let two such programs of 4 warps run side by side, or one of 8. The tiles of
    # gates are as wide as these hold.
    assert compiled.registers <= (255 if launch.warps == 4 or launch.constants.get("GATES") else 200)
    assert compiled.stack <= 16, "registers are spilled"
    assert compiled.shared <= 1024 * SHARED[capability]


def splits_of(weight: Tensor) -> Launch:
    """The sum of the splits of a gradient for a weight of a discriminator, and for its bias."""
    x, g = features(weight.shape[1], 9999, BRAIN), features(weight.shape[0], 3333, BRAIN)
    sums, add = weight_gradients(
        x, g, weight, weight[:, 0, 0], taps=weight.shape[2], dilation=1, shift=2, hop=3,
        padding="zero", activated="none", biased="fixed", slope=1.0, flat=True,
    )  # fmt: skip
    return add(sums.arguments["workspace"])


@pytest.mark.parametrize("capability", [80, 90, 120])
def test_splits_are_added_side_by_side(capability: int) -> None:
    launch = describe(capability, lambda: splits_of(weight(32, 1, 5, dtype=BRAIN)))
    # a period discriminator's first layer: 192 sums of a hundred splits and more, which one program would add in turn
    assert launch.grid == (3, 1, 1) and launch.arguments["splits"] > 3 * launch.constants["SPLITS"] == 96
    compiled = compile_for(launch, capability)
    assert compiled.count("LDG") >= 8, "loads wait for each other"
    assert compiled.stack == 0


SNAKES = {
    "forward": (lambda: snake(32, HALF), (80, 86, 89, 90, 100, 120), 128),
    "forward of 24 channels, contiguous": (lambda: snake(24, FULL, last=False), (86, 90), 128),
    "gradient": (lambda: snake(32, BRAIN, gradient=True), (80, 90), 160),
}


@pytest.mark.parametrize(
    ("name", "capability"), [(name, number) for name, (_, numbers, _) in SNAKES.items() for number in numbers]
)
def test_snakes_stay_in_registers(name: str, capability: int) -> None:
    make, _, registers = SNAKES[name]
    compiled = compile_for(describe(capability, make), capability)
    assert compiled.registers <= registers and compiled.stack == 0 and compiled.shared == 0
    # a stretch of six steps is not unrolled further, and needs no function of the compiler's but a division
    assert compiled.count("FFMA") < 1500 and compiled.count("MUFU") <= 8


@pytest.mark.parametrize(("dtype", "capability"), [(HALF, 80), (FULL, 90), (BRAIN, 120)])
def test_convolution_and_norm_stay_in_registers(dtype: torch.dtype, capability: int) -> None:
    compiled = compile_for(describe(capability, lambda: vocos_block(0, dtype)), capability)
    assert compiled.registers <= 128 and compiled.stack == 0
    assert compiled.shared <= 8192  # only sums of frames leave the registers
    assert compiled.count(r"LDG\.E\.(64|128)") >= 7, "neighbouring channels are loaded one by one"


def test_exact_float32_needs_no_matrix_unit() -> None:
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        launch = describe(80, lambda: forward(32, 32, FULL))
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    assert launch.constants["PRECISION"] == "ieee"
    compiled = compile_for(launch, 80)
    assert compiled.count("HMMA") == 0 and compiled.count("FFMA") > 100 and compiled.stack == 0


@pytest.mark.parametrize("channels", [32, 48, 80])
def test_a_new_length_is_not_compiled_again(channels: int) -> None:
    def launch(frames: int) -> Launch:
        x = features(channels, frames, HALF)
        packed = weight(3, channels, channels, dtype=HALF)
        return convolution(x, packed, None, x, name="conv1d", dilation=1, shift=1, slope=0.1, beside=x)

    first, *others = (signature(describe(90, partial(launch, frames))) for frames in (64, 97, 100, 4097))
    assert all(other == first for other in others)


@pytest.mark.parametrize("kind", ["convolution", "branches"])
def test_a_new_bucket_is_not_compiled_again(kind: str) -> None:
    lengths = torch.empty(2, dtype=torch.int32, device="meta")

    def launch(bucket: int) -> Launch:
        x = features(32, 4 * bucket, HALF)
        weights, biases = [weight(32, 32, 3, dtype=HALF)] * 2, [weight(32, dtype=HALF)] * 2
        with ragged(lengths, bucket):
            if kind == "branches":
                return next(residual_launches(Residual(x, weights, biases, [1, 1]), x))
            return convolution(x, weight(3, 32, 32, dtype=HALF), None, x, name="conv1d", dilation=1, shift=1)

    first, *others = (signature(describe(90, partial(launch, bucket))) for bucket in (8, 16, 24, 32, 1, 37))
    assert first[0]["lengths"] == "*i32" and all(other == first for other in others)
