"""Writes the fixture of `quantised.rs`: codes, scales and what the libraries make of them (`quantised.safetensors`).

Run from anywhere, with the packages of `oracle/requirements.txt`: `python crates/aerostat-backend/tests/quantised.py`. The
committed file was made with transformers 5.23.0, compressed-tensors 0.20.0, bitsandbytes 0.50.2 and torch 2.15.0. GPTQ's
and AWQ's libraries need a GPU: theirs are packed here by the documented layouts and dequantised in f16 arithmetic.
"""

import pathlib

import bitsandbytes.functional as bnb
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization.lifecycle.forward_helpers import _dequantize
from safetensors.torch import save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

OUT = {}


def put(case, **tensors):
    for name, tensor in tensors.items():
        tensor = tensor.detach().clone().contiguous()
        if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            tensor = tensor.view(torch.uint8)
        OUT[f"{case}.{name}"] = tensor


def every_byte():
    return torch.arange(256).to(torch.uint8).view(4, 64)


def fp8():
    weights = every_byte().view(torch.float8_e4m3fn)
    scales = torch.rand(2, 4) * 0.02 + 1e-4
    for dtype in (torch.bfloat16, torch.float16):
        name = f"fp8_block_{str(dtype)[6:]}"
        put(name, codes=weights, scales=scales, expected=Fp8Dequantize(None)._dequantize_one(weights, scales, dtype))
    for name, kind, shape in [("e4m3_rows", torch.float8_e4m3fn, (4, 1)), ("e4m3_tensor", torch.float8_e4m3fn, (1, 1)),
                              ("e5m2_rows", torch.float8_e5m2, (4, 1))]:
        weights = every_byte().view(kind)
        scales = (torch.rand(shape) * 0.02).to(torch.bfloat16)
        put(name, codes=weights, scales=scales, expected=_dequantize(weights, scales))


def mxfp4():
    blocks = torch.cat([every_byte().view(-1, 16), torch.randint(0, 256, (24, 16), dtype=torch.uint8)])
    scales = torch.cat([torch.tensor([3, 4, 250, 240]), torch.randint(100, 140, (36,))]).to(torch.uint8)
    expected = _convert_moe_packed_tensors(blocks.view(1, 10, 4, 16), scales.view(1, 10, 4))
    put("mxfp4", codes=blocks.view(10, 64), scales=scales.view(10, 4), expected=expected[0].t())


def four_bits():
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            for dtype in (torch.bfloat16, torch.float16, torch.float32):
                # Nested scales have scales for 256 of them: one case has more.
                rows = 88 if nested and kind == "nf4" and dtype == torch.bfloat16 else 4
                weights = torch.randn(rows, 192, dtype=dtype)
                codes, state = bnb.quantize_4bit(weights, blocksize=64, quant_type=kind, compress_statistics=nested)
                case = f"{kind}_{'nested_' if nested else ''}{str(dtype)[6:]}"
                put(case, codes=codes.view(rows, 96), scales=state.absmax, expected=bnb.dequantize_4bit(codes, state))
                if nested:
                    inner = state.state2
                    put(case, values=inner.code, inner=inner.absmax, offset=state.offset.view(1))


def int8():
    weights = torch.randn(6, 40, dtype=torch.float16)
    codes, scales, _ = bnb.int8_vectorwise_quant(weights)
    put("int8", codes=codes, scales=scales, expected=bnb.int8_vectorwise_dequant(codes, scales))


def packed():
    for bits, group, asymmetric, dtype in [(4, 32, False, torch.bfloat16), (4, 32, True, torch.float16),
                                           (8, 96, False, torch.bfloat16), (8, 48, True, torch.bfloat16), (3, 32, True, torch.float16)]:
        half = 1 << (bits - 1)
        codes = torch.randint(-half, half, (12, 96), dtype=torch.int8)
        scales = (torch.rand(12, 96 // group) * 0.1).to(dtype)
        case = f"packed_{bits}_{group}" + ("_zeros" if bits == 4 and asymmetric else "")
        spread = scales.repeat_interleave(group, 1)
        zeros = None
        if asymmetric:
            points = torch.randint(-half, half, (12, 96 // group), dtype=torch.int8)
            put(case, zeros=pack_to_int32(points, bits, packed_dim=0), points=points.int() + half)
            zeros = points.repeat_interleave(group, 1)
        put(case, codes=pack_to_int32(codes, bits), scales=scales, expected=_dequantize(codes, spread, zeros))


def pack_dense(values, bits):
    """Rows of integers to rows of 32-bit words, bit after bit from the lowest up."""
    rows = []
    for row in values.tolist():
        whole = sum(value << (i * bits) for i, value in enumerate(row))
        words = -(-len(row) * bits // 32)
        rows.append([(whole >> (32 * i)) & 0xFFFFFFFF for i in range(words)])
    return torch.tensor(rows, dtype=torch.int64).to(torch.uint32).view(torch.int32)


def gptq():
    inputs, outputs, group = 128, 32, 32
    for bits in (2, 3, 4, 8):
        codes = torch.randint(0, 1 << bits, (inputs, outputs))
        zeros = torch.randint(1, 1 << bits, (inputs // group, outputs))
        scales = (torch.rand(inputs // group, outputs) * 0.1).half()
        groups = torch.randperm(inputs) // group  # act-order: inputs of a group lie anywhere
        expected = (codes.half() - zeros[groups].half()) * scales[groups]
        put(f"gptq_{bits}", codes=pack_dense(codes.t(), bits).t(), zeros=pack_dense(zeros - 1, bits), scales=scales,
            groups=groups.int(), expected=expected)


def awq():
    inputs, outputs, group = 64, 32, 32
    codes = torch.randint(0, 16, (inputs, outputs))
    zeros = torch.randint(0, 16, (inputs // group, outputs))
    scales = (torch.rand(inputs // group, outputs) * 0.1).half()
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # the columns of a word, from the lowest bits up
    place = torch.arange(outputs).view(-1, 8)[:, order].reshape(-1)
    expected = (codes.half() - zeros.half().repeat_interleave(group, 0)) * scales.repeat_interleave(group, 0)
    put("awq", codes=pack_dense(codes[:, place], 4), zeros=pack_dense(zeros[:, place], 4), scales=scales, expected=expected)


torch.manual_seed(7)
for make in (fp8, mxfp4, four_bits, int8, packed, gptq, awq):
    make()
path = pathlib.Path(__file__).parent / "quantised.safetensors"
save_file(OUT, path)
path.chmod(0o644)
