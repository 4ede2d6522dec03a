"""Writes the fixtures of `formats.rs`: random blocks of each format and what `gguf` makes of them.

Run from anywhere, with the packages of `oracle/requirements.txt`: `python crates/aerostat-backend/tests/formats.py`.
The committed files were made with gguf 0.19.0 and numpy 2.4.6.

A fixture `formats/NAME.bin` is: number of blocks (u32), the blocks, the expected f32 values; all little-endian.
"""

import pathlib

import gguf
import numpy as np

BLOCKS_PLAIN = 128
BLOCKS_32 = 24
BLOCKS_256 = 6
# Byte offsets of the f16 scales in a block.
SCALES = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [],
}
# Scales that the first blocks get: zeros, subnormals, the largest, negative.
ODD_SCALES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xBC00]
# Plain elements to try: zeros, infinities, subnormals, the largest.
ODD_F16 = [0x0000, 0x8000, 0x7C00, 0xFC00, 0x0001, 0x83FF, 0x7BFF]
ODD_BF16 = [0x0000, 0x8000, 0x7F80, 0xFF80, 0x0001, 0x807F, 0x7F7F]


def blocks(name: str, random: np.random.Generator) -> np.ndarray:
    if name == "F32":
        return random.standard_normal(BLOCKS_PLAIN, dtype=np.float32).view(np.uint8)
    if name in ("F16", "BF16"):
        values = random.standard_normal(BLOCKS_PLAIN, dtype=np.float32)
        bits = values.astype(np.float16).view(np.uint16) if name == "F16" else (values.view(np.uint32) >> 16).astype(np.uint16)
        odd = ODD_F16 if name == "F16" else ODD_BF16
        bits[: len(odd)] = odd
        return bits.view(np.uint8)
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    count = BLOCKS_32 if block_len == 32 else BLOCKS_256
    out = random.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    for at in SCALES[name]:
        scales = random.normal(0, 0.05, count).astype(np.float16).view(np.uint16)
        odd = random.permutation(ODD_SCALES)[: min(len(ODD_SCALES), count // 2)]
        scales[: len(odd)] = odd
        out[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    return out.reshape(-1)


def main() -> None:
    folder = pathlib.Path(__file__).parent / "formats"
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(["F32", "F16", "BF16", *SCALES]):
        kind = gguf.GGMLQuantizationType[name]
        data = blocks(name, np.random.default_rng(seed))
        values = gguf.quants.dequantize(data, kind).astype(np.float32)
        count = np.uint32(data.size // gguf.GGML_QUANT_SIZES[kind][1])
        (folder / f"{name}.bin").write_bytes(count.tobytes() + data.tobytes() + values.tobytes())


if __name__ == "__main__":
    main()
