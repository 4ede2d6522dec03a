//! Weights whose scales lie apart, bit for bit as libraries dequantise them (fixture made by `quantised.py`).

use aerostat_backend::quantised::{self, Code, Groups, Numbers, Quantised, Rounding, Table, points};
use aerostat_backend::reference::Reference;
use aerostat_backend::{Backend, ErrorKind, Mat, Nested, TileShape, Weight, formats};
use aerostat_checkpoint::{Catalog, DType, Tensor, fuzzing};

use Rounding::{BF16, F16, F32};

struct Fixture {
    bytes: Vec<u8>,
    catalog: Catalog,
}

impl Fixture {
    fn open() -> Fixture {
        let bytes =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/quantised.safetensors")).unwrap();
        let catalog = fuzzing::safetensors(&bytes).unwrap();
        Fixture { bytes, catalog }
    }

    fn find(&self, case: &str, name: &str) -> Option<&Tensor> {
        self.catalog.get(&format!("{case}.{name}"))
    }

    fn shape(&self, case: &str, name: &str) -> (usize, usize) {
        let shape = &self.find(case, name).unwrap().shape;
        (shape[0] as usize, shape.get(1).map_or(1, |&cols| cols as usize))
    }

    fn bytes(&self, case: &str, name: &str) -> &[u8] {
        let extent = self.find(case, name).unwrap().extent;
        &self.bytes[extent.offset as usize..][..extent.bytes as usize]
    }

    fn floats(&self, case: &str, name: &str) -> Vec<f32> {
        let Some(tensor) = self.find(case, name) else { return Vec::new() };
        let bytes = self.bytes(case, name);
        match tensor.dtype {
            DType::U8 => bytes.iter().map(|&bits| quantised::e8m0(bits)).collect(),
            DType::I32 => bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as f32).collect(),
            dtype => {
                let mut out = vec![0.0; tensor.elements() as usize];
                formats::expand(dtype, bytes, &mut out).unwrap();
                out
            }
        }
    }

    fn assert_equal(&self, case: &str, got: &[f32]) {
        let want = self.floats(case, "expected");
        assert_eq!(got.len(), want.len(), "{case}");
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(same, "{case}: element {i} is {got:e}, not {want:e}");
        }
    }
}

/// Code and rounding of every case that is stored by outputs. Its groups follow from the shape of its scales.
const CASES: &[(&str, Code, Rounding)] = &[
    ("fp8_block_bfloat16", Code::E4M3, BF16),
    ("fp8_block_float16", Code::E4M3, F16),
    ("e4m3_rows", Code::E4M3, BF16),
    ("e4m3_tensor", Code::E4M3, BF16),
    ("e5m2_rows", Code::E5M2, BF16),
    ("mxfp4", Code::LowFirst(Table::E2M1), BF16),
    ("nf4_bfloat16", Code::HighFirst(Table::Nf4), BF16),
    ("nf4_float16", Code::HighFirst(Table::Nf4), F16),
    ("nf4_float32", Code::HighFirst(Table::Nf4), F32),
    ("nf4_nested_bfloat16", Code::HighFirst(Table::Nf4), BF16),
    ("nf4_nested_float16", Code::HighFirst(Table::Nf4), F16),
    ("nf4_nested_float32", Code::HighFirst(Table::Nf4), F32),
    ("fp4_bfloat16", Code::HighFirst(Table::Fp4), BF16),
    ("fp4_float16", Code::HighFirst(Table::Fp4), F16),
    ("fp4_float32", Code::HighFirst(Table::Fp4), F32),
    ("fp4_nested_bfloat16", Code::HighFirst(Table::Fp4), BF16),
    ("fp4_nested_float16", Code::HighFirst(Table::Fp4), F16),
    ("fp4_nested_float32", Code::HighFirst(Table::Fp4), F32),
    ("int8", Code::I8, F32),
    ("packed_4_32", Code::Packed(4), BF16),
    ("packed_8_96", Code::Packed(8), BF16),
];

#[test]
fn rows_expand_to_the_bits_of_the_libraries() {
    let fixture = Fixture::open();
    for &(case, code, rounding) in CASES {
        let (rows, cols) = fixture.shape(case, "expected");
        let scales = scales(&fixture, case);
        let per_row = (scales.len() / rows).max(1);
        // Blocks of rows share their scales: (2, 4) of them for 4 rows, 1 for all.
        let (scale_rows, per_row) = match fixture.shape(case, "scales") {
            (scale_rows, per_row) if scale_rows * per_row == scales.len() && rows % scale_rows == 0 => {
                (scale_rows, per_row)
            }
            _ => (rows, per_row),
        };
        let quantised = Quantised::new(code, rounding);
        let codes = fixture.bytes(case, "codes");
        let mut got = vec![0.0; rows * cols];
        for (row, out) in got.chunks_mut(cols).enumerate() {
            let first = row / (rows / scale_rows) * per_row;
            let scales = &scales[first..][..per_row];
            let groups = Groups { len: cols / per_row, index: None, scales, zeros: &[] };
            let codes = &codes[row * code.row_bytes(cols)..][..code.row_bytes(cols)];
            quantised::expand(&quantised, codes, 0, groups, out).unwrap();
        }
        fixture.assert_equal(case, &got);
    }
}

#[test]
fn packed_rows_with_zero_points_expand_to_the_bits_of_the_library() {
    let fixture = Fixture::open();
    for (bits, group, rounding) in [(4, 32, F16), (8, 48, BF16), (3, 32, F16)] {
        let case = if bits == 4 { "packed_4_32_zeros".to_owned() } else { format!("packed_{bits}_{group}") };
        let (rows, cols) = fixture.shape(&case, "expected");
        let per_row = cols / group;
        let (scales, wanted) = (fixture.floats(&case, "scales"), fixture.floats(&case, "points"));
        // Zero points are packed down the rows, as GPTQ packs the inputs of a column.
        let mut zeros = vec![0.0; rows * per_row];
        for (row, zeros) in zeros.chunks_mut(per_row).enumerate() {
            let (words, run) = Code::Columns(bits).run();
            let packed = &fixture.bytes(&case, "zeros")[row / run * words * per_row * 4..];
            points(Code::Columns(bits), 0, packed, row % run, zeros);
        }
        assert_eq!(zeros, wanted, "{case}");
        let code = Code::Packed(bits);
        let quantised = Quantised::new(code, rounding);
        let mut got = vec![0.0; rows * cols];
        for (row, out) in got.chunks_mut(cols).enumerate() {
            let of_row = |values: &'_ [f32]| values[row * per_row..][..per_row].to_vec();
            let groups = Groups { len: group, index: None, scales: &of_row(&scales), zeros: &of_row(&zeros) };
            let codes = &fixture.bytes(&case, "codes")[row * code.row_bytes(cols)..][..code.row_bytes(cols)];
            quantised::expand(&quantised, codes, 0, groups, out).unwrap();
        }
        fixture.assert_equal(&case, &got);
    }
}

/// Inputs belong to any group, by `g_idx`.
#[test]
fn gptq_expands_as_documented() {
    let fixture = Fixture::open();
    for bits in [2, 3, 4, 8] {
        let case = format!("gptq_{bits}");
        let (inputs, outputs) = fixture.shape(&case, "expected");
        let (scales, groups) = (fixture.floats(&case, "scales"), fixture.floats(&case, "groups"));
        let zero_bytes = Code::Packed(bits).row_bytes(outputs);
        let quantised = Quantised::new(Code::Columns(bits), F16);
        let (words, run) = quantised.code.run();
        let mut got = vec![0.0; inputs * outputs];
        for (k, out) in got.chunks_mut(outputs).enumerate() {
            let group = groups[k] as usize;
            let mut zeros = vec![0.0; outputs];
            let packed = &fixture.bytes(&case, "zeros")[group * zero_bytes..][..zero_bytes];
            points(Code::Packed(bits), 1, packed, 0, &mut zeros);
            let scales = &scales[group * outputs..][..outputs];
            let groups = Groups { len: 1, index: None, scales, zeros: &zeros };
            let codes =
                &fixture.bytes(&case, "codes")[k / run * words * outputs * 4..][..words * outputs * 4];
            quantised::expand(&quantised, codes, k % run, groups, out).unwrap();
        }
        fixture.assert_equal(&case, &got);
    }
}

#[test]
fn awq_expands_as_documented() {
    let fixture = Fixture::open();
    let (inputs, outputs) = fixture.shape("awq", "expected");
    let scales = fixture.floats("awq", "scales");
    let row =
        |name: &str, row: usize| fixture.bytes("awq", name)[row * outputs / 2..][..outputs / 2].to_vec();
    let mut got = vec![0.0; inputs * outputs];
    for (k, out) in got.chunks_mut(outputs).enumerate() {
        let group = k / 32;
        let mut zeros = vec![0.0; outputs];
        points(Code::Halves, 0, &row("zeros", group), 0, &mut zeros);
        let scales = &scales[group * outputs..][..outputs];
        let groups = Groups { len: 1, index: None, scales, zeros: &zeros };
        quantised::expand(&Quantised::new(Code::Halves, F16), &row("codes", k), 0, groups, out).unwrap();
    }
    fixture.assert_equal("awq", &got);
}

#[test]
fn a_zero_point_of_gptq_wraps() {
    let mut zeros = [0.0; 8];
    points(Code::Packed(4), 1, &0x0000_0f7fu32.to_le_bytes(), 0, &mut zeros);
    assert_eq!(zeros[..4], [0.0, 8.0, 0.0, 1.0]);
    points(Code::Packed(4), 0, &0x0000_0f7fu32.to_le_bytes(), 0, &mut zeros);
    assert_eq!(zeros[..4], [15.0, 7.0, 15.0, 0.0]);
}

#[test]
fn codes_and_groups_that_do_not_fit_are_refused() {
    let quantised = Quantised::new(Code::Packed(4), F32);
    let refused = |codes: usize, len, scales: &[f32], zeros: &[f32]| {
        let groups = Groups { len, index: None, scales, zeros };
        quantised::expand(&quantised, &vec![0; codes], 0, groups, &mut [0.0; 12])
            .map_err(|error| error.kind())
    };
    assert_eq!(refused(8, 5, &[1.0; 3], &[0.0; 3]), Ok(()));
    for (codes, len, scales, zeros) in [(6, 5, 3, 3), (8, 5, 2, 0), (8, 5, 3, 2), (8, 0, 3, 0)] {
        let got = refused(codes, len, &vec![1.0; scales], &vec![0.0; zeros]);
        assert_eq!(got, Err(ErrorKind::Shape), "{codes} {len} {scales} {zeros}");
    }
}

fn scales(fixture: &Fixture, case: &str) -> Vec<f32> {
    if fixture.find(case, "values").is_none() {
        return fixture.floats(case, "scales");
    }
    let mut device = Reference::new();
    let mut row = |values: &[f32]| {
        let mat = Mat::new(device.allocate(values.len()).unwrap(), 1, values.len());
        device.write(mat, values).unwrap();
        mat
    };
    let codes = fixture.bytes(case, "scales");
    let (values, scales) = (row(&fixture.floats(case, "values")), row(&fixture.floats(case, "inner")));
    let out = row(&vec![0.0; codes.len()]);
    let offset = fixture.floats(case, "offset")[0];
    // In two parts, as tiles have them.
    let cut = codes.len() / 3;
    for (first, bytes) in [(0, &codes[..cut]), (cut, &codes[cut..])] {
        let nested = Nested { values, scales, len: 256, first, offset };
        let shape = TileShape { dtype: DType::U8, rows: 1, cols: bytes.len(), packed: false };
        let out = out.col_range(first, bytes.len());
        let upload = device.upload(shape, Box::new(bytes.to_vec())).unwrap();
        device.expand_numbers(Weight::Arriving(upload), Numbers::Nested, Some(nested), out).unwrap();
    }
    device.read(out).unwrap().to_vec()
}
