"""Codes and scales of a matrix as checkpoints have them, and what the libraries make of them."""

import torch
from compressed_tensors.quantization.lifecycle.forward_helpers import _dequantize
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

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
