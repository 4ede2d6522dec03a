//! The cases of the conformance suite.

use aerostat_checkpoint::DType;

use super::case::{Case, Elementwise, Keep, Values};
use crate::quantised::Quantised;
use crate::{
    Activation, Alibi, Attention, DeltaRule, HeadCopy, Index, KvType, Rope, RopeStyle, StateScan, Window,
    packed,
};

/// The table.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    matmul_cases(&mut cases);
    k_major_cases(&mut cases);
    scaled_cases(&mut cases);
    elementwise_cases(&mut cases);
    row_cases(&mut cases);
    attention_cases(&mut cases);
    ahead_cases(&mut cases);
    state_cases(&mut cases);
    tile_cases(&mut cases);
    cases
}

/// What is done with tiles but multiplying them, and with heads.
fn tile_cases(cases: &mut Vec<Case>) {
    for &dtype in DType::COMPUTABLE {
        let has_exponents = packed::exponents::Split::of(dtype).is_some();
        let ways = [(false, 512), (DType::PACKED.contains(&dtype), 768), (has_exponents, 2048)];
        for (i, (packed, k)) in ways.into_iter().enumerate() {
            cases.push(Case::GatherWeights { dtype, n: 19, k, packed });
            let (weights, n) = ([Keep::Arriving(1), Keep::Resident, Keep::Arriving(2)][i], [1, 40, 130][i]);
            let values = if i == 0 { Values::Special } else { Values::Plain };
            cases.push(Case::RowNorms { dtype, n, k, packed, weights, values });
        }
        cases.push(Case::Uploads { dtype, count: 7, k: 256 });
    }
    for (n, k) in [(3, 1), (70, 37), (5, 1000)] {
        let (weights, values) = (Keep::Arriving(3), Values::Plain);
        cases.push(Case::RowNorms { dtype: DType::BF16, n, k, packed: false, weights, values });
    }
    for (from_dim, from_start, to_dim, to_start, len) in
        [(1, 0, 1, 0, 1), (192, 128, 576, 512, 64), (20, 3, 17, 0, 17), (33, 0, 40, 7, 31), (5, 5, 4, 4, 0)]
    {
        let copy = HeadCopy { from_dim, from_start, to_dim, to_start, len };
        for (rows, heads) in [(1, 1), (9, 3), (130, 2)] {
            cases.push(Case::CopyHeads { rows, heads, copy });
        }
    }
}

fn matmul_cases(cases: &mut Vec<Case>) {
    const ROWS: [usize; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 33, 130];
    const COLS: [usize; 11] = [1, 15, 16, 17, 31, 32, 33, 100, 256, 512, 1000];
    const OUTPUTS: [usize; 7] = [1, 2, 5, 7, 24, 25, 49];
    let values = Values::Plain;
    for &dtype in DType::COMPUTABLE {
        let fits = |k: &&usize| k.is_multiple_of(dtype.block_len());
        for (i, &rows) in ROWS.iter().enumerate() {
            for (j, &k) in COLS.iter().filter(fits).enumerate() {
                let n = OUTPUTS[(i + j) % OUTPUTS.len()];
                cases.push(Case::Matmul { dtype, rows, n, k, weights: Keep::Arriving((i + j) % 4), values });
            }
        }
        // Longer than a slab of columns, more rows than a block of activations, more outputs than threads.
        for (rows, n, k) in [(1, 130, 2304usize), (5, 26, 1280), (70, 25, 2304), (3, 30, 1041), (9, 30, 2065)]
        {
            if k.is_multiple_of(dtype.block_len()) {
                cases.push(Case::Matmul { dtype, rows, n, k, weights: Keep::Resident, values });
            }
        }
        for (rows, k) in [(1, 33usize), (3, 48), (7, 47), (1, 512), (6, 512)] {
            if k.is_multiple_of(dtype.block_len()) {
                let values = Values::Special;
                cases.push(Case::Matmul { dtype, rows, n: 29, k, weights: Keep::Arriving(1), values });
            }
        }
        for k in [512, 768] {
            cases.push(Case::ExpandRows { dtype, n: 5, k });
        }
    }
}

/// Every code, with one scale for all, for each row, for runs of a row, for blocks that tiles cut anywhere, and by index.
fn scaled_cases(cases: &mut Vec<Case>) {
    use crate::quantised::{Code, Rounding, Table};
    const CODES: [Code; 9] = [
        Code::E4M3,
        Code::E5M2,
        Code::I8,
        Code::LowFirst(Table::E2M1),
        Code::HighFirst(Table::Nf4),
        Code::HighFirst(Table::Fp4),
        Code::Packed(4),
        Code::Packed(8),
        Code::Packed(3),
    ];
    const BY_INPUTS: [Code; 8] = [
        Code::Columns(2),
        Code::Columns(3),
        Code::Columns(4),
        Code::Columns(8),
        Code::Halves,
        Code::E4M3,
        Code::HighFirst(Table::Nf4),
        Code::Packed(4),
    ];
    /// Rows, outputs, inputs, a block, groups by index, the first row.
    type Shape = (usize, usize, usize, (usize, usize), bool, usize);
    const SHAPES: [Shape; 7] = [
        (1, 1, 2, (1, 1), false, 0),
        (2, 29, 256, (16, 128), false, 5),
        (5, 7, 160, (1, 32), false, 3),
        (9, 40, 130, (1000, 1000), false, 9),
        (33, 130, 96, (1, 96), false, 0),
        (3, 17, 2050, (128, 128), false, 120),
        (4, 9, 224, (1, 32), true, 2),
    ];
    /// The same, the last being the rows of a tile by runs.
    const SHAPES_BY_INPUTS: [Shape; 5] = [
        (1, 8, 32, (32, 1), false, 1),
        (3, 120, 160, (64, 1), false, 3),
        (9, 200, 704, (1000, 1), false, 100),
        (4, 328, 224, (128, 128), false, 2),
        (2, 104, 320, (40, 1), true, 4),
    ];
    let mut case = |i: usize, j: usize, code, shape: Shape, by_inputs: bool| {
        let (rows, n, k, block, groups, last) = shape;
        let quantised = Quantised::new(code, [Rounding::BF16, Rounding::F32, Rounding::F16][(i + j) % 3]);
        let weights = if j == 4 { Keep::Resident } else { Keep::Arriving(j % 4) };
        let (zeros, tile_rows) = ((i + j) % 2 == 1, by_inputs.then_some(last));
        let first_row = if by_inputs { 5 * j } else { last };
        let case =
            Case::MatmulScaled { quantised, rows, n, k, block, zeros, groups, tile_rows, first_row, weights };
        cases.push(case);
    };
    for (i, code) in CODES.into_iter().enumerate() {
        SHAPES.into_iter().enumerate().for_each(|(j, shape)| case(i, j, code, shape, false));
    }
    for (i, code) in BY_INPUTS.into_iter().enumerate() {
        SHAPES_BY_INPUTS.into_iter().enumerate().for_each(|(j, shape)| case(i, j, code, shape, true));
    }
}

/// Rows up to those of several register tiles, tiles cut anywhere.
fn k_major_cases(cases: &mut Vec<Case>) {
    const ROWS: [usize; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 33, 70];
    const SHAPES: [(usize, usize); 9] =
        [(1, 1), (15, 3), (16, 16), (17, 33), (100, 15), (96, 64), (130, 200), (200, 47), (300, 600)];
    const TILE_ROWS: [usize; 6] = [1000, 16, 1, 17, 50, 33];
    for (d, dtype) in [DType::F32, DType::F16, DType::BF16].into_iter().enumerate() {
        for (i, &rows) in ROWS.iter().enumerate() {
            for (j, &(n, k)) in SHAPES.iter().enumerate() {
                let tile_rows = TILE_ROWS[(d + i + j) % TILE_ROWS.len()];
                let weights = if j == 5 { Keep::Resident } else { Keep::Arriving((i + j) % 4) };
                let values = if (i + j) % 5 == 4 { Values::Special } else { Values::Plain };
                cases.push(Case::MatmulKMajor { dtype, rows, n, k, tile_rows, weights, values });
            }
        }
        let (weights, values) = (Keep::Arriving(1), Values::Plain);
        cases.push(Case::MatmulKMajor { dtype, rows: 3, n: 70, k: 2100, tile_rows: 1111, weights, values });
    }
    for &dtype in DType::COMPUTABLE.iter().filter(|dtype| dtype.block_len() > 1) {
        for (rows, n, k, tile_rows) in [(1, 256, 5, 2), (5, 512, 40, 33)] {
            let (weights, values) = (Keep::Arriving(rows), Values::Plain);
            cases.push(Case::MatmulKMajor { dtype, rows, n, k, tile_rows, weights, values });
        }
    }
}

fn elementwise_cases(cases: &mut Vec<Case>) {
    const CLIPPED: Activation = Activation::ClippedSilu { alpha: 1.7, limit: 0.6 };
    const OPS: [Elementwise; 34] = [
        Elementwise::Add,
        Elementwise::Mul,
        Elementwise::AddBias,
        Elementwise::MulColumns,
        Elementwise::MulRows,
        Elementwise::Scale(-1.7),
        Elementwise::Softcap(30.0),
        Elementwise::Softcap(0.5),
        Elementwise::Clip(0.5),
        Elementwise::Glu(Activation::Silu),
        Elementwise::Glu(Activation::Sigmoid),
        Elementwise::Activate(Activation::Sigmoid),
        Elementwise::Glu(Activation::GeluTanh),
        Elementwise::Glu(Activation::GeluErf),
        Elementwise::Glu(Activation::Relu),
        Elementwise::Glu(Activation::ReluSquared),
        Elementwise::Glu(Activation::Relu6),
        Elementwise::Glu(Activation::QuickGelu),
        Elementwise::Glu(Activation::Mish),
        Elementwise::Glu(CLIPPED),
        Elementwise::Activate(CLIPPED),
        Elementwise::Activate(Activation::Silu),
        Elementwise::Activate(Activation::GeluTanh),
        Elementwise::Activate(Activation::GeluErf),
        Elementwise::Activate(Activation::Relu),
        Elementwise::Activate(Activation::ReluSquared),
        Elementwise::Activate(Activation::Relu6),
        Elementwise::Activate(Activation::QuickGelu),
        Elementwise::Activate(Activation::Mish),
        Elementwise::Activate(Activation::Tanh),
        Elementwise::Activate(Activation::Exp),
        Elementwise::Activate(Activation::Softplus),
        Elementwise::Glu(Activation::Tanh),
        Elementwise::GluInPlace(Activation::Silu),
    ];
    for op in OPS {
        for (rows, cols) in [(1, 1), (1, 15), (2, 16), (3, 17), (9, 100), (33, 1000)] {
            for values in [Values::Plain, Values::Special] {
                cases.push(Case::Elementwise { op, rows, cols, values });
            }
        }
    }
}

fn row_cases(cases: &mut Vec<Case>) {
    let sizes = [(1, 1), (3, 12), (2, 16), (7, 20), (4, 64), (1, 100), (2, 128), (1, 1000), (1, 4096)];
    for (i, (groups, size)) in sizes.into_iter().enumerate() {
        for (rows, values) in [(1, Values::Plain), (33, Values::Plain), (5, Values::Special)] {
            cases.push(Case::RmsNorm { rows, groups, size, in_place: i % 2 == 0, values });
            cases.push(Case::LayerNorm { rows, groups, size, in_place: i % 2 == 1, values });
        }
    }
    for style in [RopeStyle::Half, RopeStyle::Interleaved] {
        for (head_dim, start, rotary) in [
            (12, 0, 12),
            (20, 0, 10),
            (64, 0, 64),
            (64, 0, 16),
            (80, 48, 32),
            (128, 0, 128),
            (256, 3, 64),
            (4, 0, 0),
            (576, 512, 64),
        ] {
            for (rows, heads) in [(1, 1), (9, 3), (130, 2)] {
                cases.push(Case::Rope { rows, heads, rope: Rope { head_dim, start, rotary, style } });
            }
        }
    }
    for (rows, cols) in [(1, 1), (5, 33), (9, 1000)] {
        cases.push(Case::Gather { rows, cols });
        cases.push(Case::Scatter { rows, cols });
    }
}

fn attention_cases(cases: &mut Vec<Case>) {
    let dims = [(12, 12), (20, 20), (64, 64), (80, 80), (128, 128), (256, 256), (192, 128)];
    let heads = [(1, 1), (4, 4), (6, 2), (9, 3), (8, 1), (10, 2), (5, 5)];
    let rules = [
        (None, None, None),
        (Some(1), None, None),
        (Some(17), Some(50.0), None),
        (None, Some(20.0), None),
        (Some(40), None, None),
        (None, None, Some(Alibi { most: 8, rounded: false })),
        (Some(21), Some(10.0), Some(Alibi { most: 16, rounded: false })),
        (None, None, Some(Alibi { most: 8, rounded: true })),
    ];
    for &kv_type in KvType::ALL {
        for (i, (key_dim, value_dim)) in dims.into_iter().enumerate() {
            for (j, (window, softcap, alibi)) in rules.into_iter().enumerate() {
                let (heads, kv_heads) = heads[(i + j) % heads.len()];
                let scale = 1.0 / (key_dim as f32).sqrt();
                let window = window.map(if j == 4 { Window::Chunk } else { Window::Last });
                let sinks = j % 3 == 1;
                let values_in_keys = j == 3;
                let shape = Attention {
                    heads,
                    kv_heads,
                    key_dim,
                    value_dim,
                    values_in_keys,
                    scale,
                    softcap,
                    window,
                    ahead: false,
                    alibi,
                };
                let page_tokens = [16, 32, 5][(i + j) % 3];
                let values = if (i + j) % 6 == 5 { Values::Special } else { Values::Plain };
                let lengths = if j == 0 { vec![1, 17, 33] } else { vec![70, 3] };
                let biases = None;
                cases.push(Case::Attention { kv_type, shape, sinks, biases, page_tokens, lengths, values });
            }
        }
        for (i, (heads, key_dim, value_dim)) in
            [(1, 12, 9), (6, 40, 32), (16, 576, 512)].into_iter().enumerate()
        {
            let index = Index { heads: 1 + 3 * i, dim: 7 + 16 * i, scale: 0.3 };
            let (values_in_keys, scale) = (i > 0, 0.2);
            let (softcap, window, alibi) = ((i == 1).then_some(20.0), None, None);
            let kv_heads = 1;
            let shape = Attention {
                heads,
                kv_heads,
                key_dim,
                value_dim,
                values_in_keys,
                scale,
                softcap,
                window,
                ahead: false,
                alibi,
            };
            let index = if values_in_keys { index } else { Index { dim: value_dim, ..index } };
            for (count, page_tokens, lengths) in [(1, 16, vec![1, 33]), (20, 5, vec![50, 3, 21])] {
                cases.push(Case::SparseAttention { kv_type, shape, index, count, page_tokens, lengths });
            }
        }
    }
}

/// Attention that looks both ways, and biases by distance with and without.
fn ahead_cases(cases: &mut Vec<Case>) {
    let paper = Some(Alibi { most: 8, rounded: false });
    let rules = [
        (true, None, None, None),
        (true, Some(Window::Around(0)), None, None),
        (true, Some(Window::Around(17)), None, Some(3)),
        (true, None, paper, None),
        (true, None, None, Some(20)),
        (true, Some(Window::Around(200)), paper, Some(0)),
        (false, None, None, Some(9)),
        (false, Some(Window::Last(5)), None, Some(100)),
    ];
    let heads = [(1, 1), (12, 12), (6, 2), (8, 1)];
    for &kv_type in KvType::ALL {
        for (i, dim) in [12, 64, 32, 80].into_iter().enumerate() {
            for (j, (ahead, window, alibi, biases)) in rules.into_iter().enumerate() {
                let (heads, kv_heads) = heads[(i + j) % heads.len()];
                let shape = Attention {
                    heads,
                    kv_heads,
                    key_dim: dim,
                    value_dim: dim,
                    values_in_keys: false,
                    scale: 0.2,
                    softcap: (j == 4).then_some(20.0),
                    window,
                    ahead,
                    alibi,
                };
                let (page_tokens, sinks) = ([16, 32, 5][(i + j) % 3], j % 4 == 3);
                let values = if (i + j) % 6 == 5 { Values::Special } else { Values::Plain };
                let lengths = if j == 0 { vec![1, 17, 33] } else { vec![70, 3, 16] };
                cases.push(Case::Attention { kv_type, shape, sinks, biases, page_tokens, lengths, values });
            }
        }
    }
}

/// Sequences that go on, that begin, and that end; widths below, at and above those of vectors and of tasks.
fn state_cases(cases: &mut Vec<Case>) {
    let lengths = [vec![(1, 1)], vec![(3, 1), (0, 5), (40, 0), (2, 30)], vec![(20, 7), (1, 2)]];
    for (i, lengths) in lengths.into_iter().enumerate() {
        for (j, (channels, kernel)) in [(1, 4), (15, 2), (33, 3), (300, 4), (70, 8)].into_iter().enumerate() {
            let values = if (i + j) % 4 == 3 { Values::Special } else { Values::Plain };
            let (bias, silu) = (j % 2 == 1, (i + j) % 3 != 2);
            cases.push(Case::ShortConv { channels, kernel, bias, silu, lengths: lengths.clone(), values });
        }
        let shapes = [
            (1, 1, 1, 1, 1),
            (2, 4, 12, 10, 2),
            (2, 2, 16, 16, 1),
            (1, 3, 7, 33, 3),
            (2, 6, 32, 64, 6),
            (1, 2, 128, 128, 2),
            (3, 3, 40, 150, 1),
        ];
        for (j, (key_heads, value_heads, key_dim, value_dim, run)) in shapes.into_iter().enumerate() {
            let values = if (i + j) % 4 == 3 { Values::Special } else { Values::Plain };
            for each in [false, true] {
                let tiled = j % 2 == 0;
                let rule = DeltaRule { key_heads, value_heads, key_dim, value_dim, run, tiled, each };
                cases.push(Case::DeltaRule { rule, lengths: lengths.clone(), values });
            }
        }
        let shapes =
            [(1, 1, 1, 1), (4, 10, 2, 12), (2, 16, 1, 16), (3, 33, 3, 7), (6, 64, 2, 128), (8, 150, 8, 40)];
        for (j, (heads, head_dim, groups, state_dim)) in shapes.into_iter().enumerate() {
            let steps = if j % 2 == 0 { (0.0, f32::INFINITY) } else { (0.5, 0.9) };
            let values = if (i + j) % 4 == 3 { Values::Special } else { Values::Plain };
            for each in [false, true] {
                let scan = StateScan { heads, head_dim, groups, state_dim, steps, each };
                cases.push(Case::StateScan { scan, lengths: lengths.clone(), values });
            }
        }
    }
}
