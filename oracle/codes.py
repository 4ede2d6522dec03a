"""Codes and scales of a matrix as checkpoints have them, and what the libraries make of them."""

import bitsandbytes.functional as bnb
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization.lifecycle.forward_helpers import _dequantize
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import FP4_VALUES, _convert_moe_packed_tensors

BLOCK = (4, 8)


def fp8_blocks(matrix):
    """FP8 with a scale for each block."""
    (rows, cols), (height, width) = matrix.shape, BLOCK
    assert rows % height == 0 and cols % width == 0, "the library takes whole blocks only"
    blocks = matrix.float().view(rows // height, height, cols // width, width)
    scales = blocks.abs().amax((1, 3), keepdim=True) / 448
    codes = (blocks / scales).to(torch.float8_e4m3fn).view(matrix.shape)
    scales = scales[:, 0, :, 0]
    dequantised = Fp8Dequantize(None)._dequantize_one(codes, scales, matrix.dtype)
    return dequantised, {"weight": codes, "weight_scale_inv": scales}


def fp8_rows(matrix):
    """FP8 with a scale for each row, of the type that the matrix had."""
    scales = (matrix.float().abs().amax(1, keepdim=True) / 448).to(matrix.dtype)
    codes = (matrix.float() / scales.float()).to(torch.float8_e4m3fn)
    return _dequantize(codes, scales), {"weight": codes, "weight_scale": scales}


def int8_rows(matrix):
    """LLM.int8: the largest magnitude of each row is 127. Dequantised here, by what bitsandbytes documents."""
    largest = matrix.float().abs().amax(1)
    codes = torch.round(matrix.float() * (127 / largest[:, None])).to(torch.int8)
    dequantised = codes.float() * largest[:, None] * (1 / 127)
    return dequantised, {"weight": codes, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}


def mxfp4(experts):
    """gpt-oss: a stack of matrices, each stored by inputs; their codes are stored by outputs, a scale for 32 inputs."""
    values = torch.tensor(FP4_VALUES)
    groups = experts.float().transpose(1, 2).unflatten(2, (-1, 32))
    exponents = torch.floor(torch.log2(groups.abs().amax(3, keepdim=True))).clamp(-100, 100) - 2
    codes = (groups / exponents.exp2()).unsqueeze(-1).sub(values).abs().argmin(-1).to(torch.uint8)
    blocks = codes[..., ::2] | codes[..., 1::2] << 4
    scales = (exponents.squeeze(3) + 127).to(torch.uint8)
    return _convert_moe_packed_tensors(blocks, scales), {"_blocks": blocks, "_scales": scales}


def packed(bits, size, symmetric=True, by_index=False):
    """compressed-tensors `pack-quantized`: integers with a scale for `size` inputs (0: all), with zero points unless they
    are symmetric; by index, the inputs of a group lie anywhere."""
    half = 1 << (bits - 1)

    def make(matrix):
        (rows, cols), dtype = matrix.shape, matrix.dtype
        each = size or cols
        index = torch.randperm(cols, generator=torch.Generator().manual_seed(cols)) // each if by_index else torch.arange(cols) // each
        order = torch.argsort(index, stable=True)
        groups = matrix.float()[:, order].unflatten(1, (-1, each))
        low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
        span = torch.maximum(-low, high) * 2 if symmetric else high - low
        scales = (span / (2 * half - 1)).to(dtype)
        zeros = torch.zeros_like(scales) if symmetric else (-half - low / scales.float()).round().clamp(-half, half - 1)
        points, spread = zeros.to(torch.int8), lambda of: of.repeat_interleave(each, 1)[:, torch.argsort(order)]
        codes = (matrix.float() / spread(scales).float() + spread(points)).round().clamp(-half, half - 1).to(torch.int8)
        tensors = {"weight_packed": pack_to_int32(codes, bits), "weight_scale": scales, "weight_shape": torch.tensor([rows, cols])}
        if not symmetric:
            tensors["weight_zero_point"] = pack_to_int32(points, bits, packed_dim=0)
        if by_index:
            tensors["weight_g_idx"] = index.int()
        return _dequantize(codes, spread(scales), None if symmetric else spread(points)), tensors

    return make


def four_bits(kind, nested):
    """bitsandbytes NF4 or FP4, with or without scales that are quantised themselves."""

    def make(matrix):
        codes, state = bnb.quantize_4bit(matrix, blocksize=64, quant_type=kind, compress_statistics=nested)
        tensors = {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}
        return bnb.dequantize_4bit(codes, state), {"weight": codes, **tensors}

    return make


def pack_dense(values, bits):
    """Rows of integers to rows of 32-bit words, bit after bit from the lowest up."""
    rows = []
    for row in values.tolist():
        whole = sum(value << (i * bits) for i, value in enumerate(row))
        rows.append([(whole >> (32 * i)) & 0xFFFFFFFF for i in range(-(-len(row) * bits // 32))])
    return torch.tensor(rows, dtype=torch.int64).to(torch.uint32).view(torch.int32)


def grouped(matrix, bits, index):
    """Codes, zero points and scales of a matrix `[inputs, outputs]`, by the group of each input, and what they stand for."""
    codes, most = torch.empty_like(matrix, dtype=torch.int64), (1 << bits) - 1
    zeros, scales = [], []
    for group in range(int(index.max()) + 1):
        rows = matrix.float()[index == group]
        low, high = rows.amin(0).clamp(max=0), rows.amax(0).clamp(min=0)
        scale = ((high - low) / most).to(matrix.dtype)
        zero = (-low / scale.float()).round().clamp(1, most).long()
        codes[index == group] = (rows / scale.float() + zero).round().clamp(0, most).long()
        zeros.append(zero), scales.append(scale)
    zeros, scales = torch.stack(zeros), torch.stack(scales)
    dequantised = (codes.to(matrix.dtype) - zeros[index].to(matrix.dtype)) * scales[index]
    return codes, zeros, scales, dequantised


def gptq(bits, size, by_index, second_version=False):
    """GPTQ, whose libraries need a GPU: packed by the documented layout, `size` inputs to a group (0: all)."""

    def make(matrix):
        inputs = matrix.shape[1]
        order = torch.randperm(inputs, generator=torch.Generator().manual_seed(inputs)) if by_index else torch.arange(inputs)
        index = order // (size or inputs)
        codes, zeros, scales, dequantised = grouped(matrix.t(), bits, index)
        zeros = zeros if second_version else zeros - 1
        return dequantised.t(), {"qweight": pack_dense(codes.t(), bits).t(), "qzeros": pack_dense(zeros, bits),
                                 "scales": scales, "g_idx": index.int()}

    return make


def awq(matrix):
    """AWQ's layout for matrix multiplication, packed as documented, 32 inputs to a group."""
    codes, zeros, scales, dequantised = grouped(matrix.t(), 4, torch.arange(matrix.shape[1]) // 32)
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # the columns of a word, from the lowest bits up
    place = torch.arange(matrix.shape[0]).view(-1, 8)[:, order].reshape(-1)
    words = {"qweight": pack_dense(codes[:, place], 4), "qzeros": pack_dense(zeros[:, place], 4)}
    return dequantised.t(), {**words, "scales": scales}
