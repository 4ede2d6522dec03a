// What the kernels that multiply weights share: their operands. `weight(n, k)` is what the tile has for output `n` and
// input `k`; `plain.wgsl` or `codes.wgsl` says it.
//
// Every product is added up in one order, whatever the rows, the tiles and the kernel: elements of 32 inputs, from a
// multiple of 32 on, by fused multiply-add in ascending order; such sums are then added to the total, in ascending order.

struct Params {
    w: u32, row_bytes: u32,
    n: u32, k: u32,
    x: u32, x_stride: u32,
    y: u32, y_stride: u32,
    rows: u32,
    k0: u32, last: u32,
    scales: u32, scales_stride: u32,
    zeros: u32, zeros_stride: u32,
    groups: u32,
    block_rows: u32, block_cols: u32, first_row: u32,
    run: u32, columns: u32,
    rounding: u32,
    middle: f32, factor: f32,
}
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
