//! The reference device against f64 arithmetic and hand-made cases, and the rules that operands obey.

use aerostat_backend::conformance::{self, Tolerance};
use aerostat_backend::reference::Reference;
use aerostat_backend::{
    Activation, Alibi, Attention, Backend, BufferId, Error, ErrorKind, KvLayout, KvType, Mat, Placement,
    Rope, RopeStyle, RowPlace, Tile, Weight, WeightId, Window,
};
use aerostat_checkpoint::DType;

fn put(device: &mut Reference, rows: usize, cols: usize, data: &[f32]) -> Mat {
    let mat = Mat::new(device.allocate(rows * cols).unwrap(), rows, cols);
    device.write(mat, data).unwrap();
    mat
}

fn wave(len: usize, step: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * step).sin()).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn dtype_bytes(dtype: DType, rows: usize, cols: usize) -> usize {
    dtype.bytes_for((rows * cols) as u64).unwrap() as usize
}

fn near(got: &[f32], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(got) - want).abs() < bound, "value {i}: {got} instead of {want}");
    }
}

#[test]
fn the_reference_passes_its_own_suite() {
    let reference = || -> Box<dyn Backend> { Box::new(Reference::new()) };
    conformance::run(&reference, &reference, Tolerance::Exact);
}

#[test]
fn matmul_multiplies_by_the_transposed_weights() {
    let (rows, n, k) = (3, 5, 100);
    let (w, x) = (wave(n * k, 0.37), wave(rows * k, 0.11));
    let want: Vec<f64> = (0..rows * n)
        .map(|i| (0..k).map(|j| f64::from(w[i % n * k + j]) * f64::from(x[i / n * k + j])).sum())
        .collect();
    let mut device = Reference::new();
    let x = put(&mut device, rows, k, &x);
    let y = put(&mut device, rows, n, &vec![9.0; rows * n]);
    let bytes = bytes(&w);
    let tile = Tile { dtype: DType::F32, rows: n, cols: k, bytes: &bytes };
    device.matmul(Weight::Streamed(tile), x, y).unwrap();
    near(device.read(y).unwrap(), &want, 1e-5);
}

#[test]
fn attention_is_a_softmax_over_the_visible_positions() {
    let (length, dim) = (7, 4);
    let (k, v, q) = (wave(length * dim, 0.7), wave(length * dim, 0.3), wave(2 * dim, 1.3));
    let shape = |window, alibi| Attention {
        heads: 2,
        kv_heads: 1,
        key_dim: dim,
        value_dim: dim,
        values_in_keys: false,
        scale: 0.5,
        softcap: Some(3.0),
        window,
        alibi,
        sinks: None,
    };
    let (last, chunk) = (|n| Some(Window::Last(n)), Some(Window::Chunk(4)));
    let biased = Some(Alibi { most: 8, rounded: false });
    let ways = [
        (None, 0, None),
        (last(3), 4, None),
        (last(100), 0, None),
        (chunk, 4, None),
        (None, 0, biased),
        (last(3), 4, biased),
        (None, 0, Some(Alibi { most: 8, rounded: true })),
    ];
    // The second time each head has a sink.
    for ((window, first, alibi), sunk) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let mut want = Vec::new();
        // Slopes of two heads: 2^-4 and 2^-8.
        for ((head, slope), sink) in q.chunks(dim).zip([1.0 / 16.0, 1.0 / 256.0]).zip([0.5f64, -2.0]) {
            let scale = if alibi.is_some_and(|biases: Alibi| biases.rounded) { 0.5 } else { 1.0 };
            let slope = if alibi.is_some() { slope * scale } else { 0.0 };
            let bias = |j: usize| slope * (j as f64 - (length - 1) as f64);
            let dot =
                |j: usize| -> f64 { (0..dim).map(|i| f64::from(head[i]) * f64::from(k[j * dim + i])).sum() };
            let weights: Vec<f64> =
                (first..length).map(|j| (3.0 * (dot(j) * 0.5 / 3.0).tanh() + bias(j)).exp()).collect();
            let sum = weights.iter().sum::<f64>() + if sunk { sink.exp() } else { 0.0 };
            let value = |i: usize| -> f64 {
                (first..length).map(|j| weights[j - first] / sum * f64::from(v[j * dim + i])).sum()
            };
            want.extend((0..dim).map(value));
        }
        let mut device = Reference::new();
        let widths = vec![dim];
        let (key_widths, value_widths) = (widths.clone(), widths);
        let (kv_type, heads) = (KvType::F32, vec![1]);
        let layout = KvLayout { kv_type, key_widths, value_widths, heads, page_tokens: 2, pages: 5 };
        device.kv_allocate(&layout).unwrap();
        let rows: Vec<RowPlace> =
            (0..length as u32).map(|position| RowPlace { position, table: 1 }).collect();
        // The first entry belongs to another sequence.
        let pages = [u32::MAX, 3, 0, 4, 1];
        let (k, v) = (put(&mut device, length, dim, &k), put(&mut device, length, dim, &v));
        device.kv_write(0, k, v, Placement { rows: &rows, pages: &pages }).unwrap();
        let q = put(&mut device, 1, 2 * dim, &q);
        let out = put(&mut device, 1, 2 * dim, &[0.0; 8]);
        let places = Placement { rows: &rows[length - 1..], pages: &pages };
        let sinks = sunk.then(|| put(&mut device, 1, 2, &[0.5, -2.0]));
        device.attention(0, q, out, &Attention { sinks, ..shape(window, alibi) }, places).unwrap();
        near(device.read(out).unwrap(), &want, 1e-6);
    }
}

#[test]
fn layer_norm_takes_the_mean_and_divides_by_the_deviation_of_each_group() {
    let (rows, groups, size) = (2, 3, 21);
    let x = wave(rows * groups * size, 0.23).iter().map(|v| 3.0 + 2.0 * v).collect::<Vec<_>>();
    let want = x.chunks(size).flat_map(|group| {
        let mean = |f: &dyn Fn(f64) -> f64| group.iter().map(|v| f(f64::from(*v))).sum::<f64>() / size as f64;
        let middle = mean(&|v| v);
        let deviation = (mean(&|v| (v - middle).powi(2)) + 0.01).sqrt();
        group.iter().map(move |v| (f64::from(*v) - middle) / deviation).collect::<Vec<_>>()
    });
    let want: Vec<f64> = want.collect();
    let mut device = Reference::new();
    let x = put(&mut device, rows, groups * size, &x);
    let out = put(&mut device, rows, groups * size, &vec![9.0; rows * groups * size]);
    device.layer_norm(x, size, 0.01, out).unwrap();
    near(device.read(out).unwrap(), &want, 1e-6);
    assert!(device.layer_norm(x, 20, 0.01, out).is_err(), "groups are whole");
}

#[test]
fn columns_are_multiplied_each_by_its_factor() {
    let mut device = Reference::new();
    let x = put(&mut device, 2, 3, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let factors = put(&mut device, 1, 3, &[2.0, 0.0, -1.0]);
    device.mul_columns(x, factors).unwrap();
    assert_eq!(device.read(x).unwrap(), [2.0, 0.0, -3.0, 8.0, 0.0, -6.0]);
    assert!(device.mul_columns(x, factors.col_range(0, 2)).is_err(), "one factor for each column");
}

#[test]
fn rope_rotates_the_pairs_of_its_style() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0];
    let cases =
        [(RopeStyle::Half, [1.0, -4.0, 3.0, 2.0, 5.0]), (RopeStyle::Interleaved, [1.0, 2.0, -4.0, 3.0, 5.0])];
    for (style, want) in cases {
        let mut device = Reference::new();
        let x = put(&mut device, 1, 5, &x);
        // The first pair turns by 0, the second by a right angle.
        let angles = put(&mut device, 1, 4, &[1.0, 0.0, 0.0, 1.0]);
        device.rope(x, Rope { head_dim: 5, start: 0, rotary: 4, style }, angles).unwrap();
        assert_eq!(device.read(x).unwrap(), want, "{style:?}");
    }
}

#[test]
fn activations_match_f64() {
    let x = wave(64, 0.9).iter().map(|v| v * 6.0).collect::<Vec<_>>();
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let gelu = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044715 * x * x * x)).tanh());
    for (activation, bound, function) in [
        (Activation::Silu, 1e-5, &silu as &dyn Fn(f64) -> f64),
        (Activation::GeluTanh, 1e-5, &gelu),
        // The two GELUs differ by less than 0.001.
        (Activation::GeluErf, 1e-3, &gelu),
        (Activation::Relu, 1e-7, &|x| x.max(0.0)),
        (Activation::ClippedSilu { alpha: 1.5, limit: 1.0 }, 1e-5, &|x| {
            x.min(1.0) / (1.0 + (-1.5 * x.min(1.0)).exp())
        }),
        (Activation::ReluSquared, 1e-5, &|x| x.max(0.0).powi(2)),
    ] {
        let mut device = Reference::new();
        let (gate, up) = (put(&mut device, 1, 64, &x), put(&mut device, 1, 64, &[2.0; 64]));
        device.glu(gate, up, activation, gate).unwrap();
        let want: Vec<f64> = x.iter().map(|&v| function(f64::from(v)) * 2.0).collect();
        near(device.read(gate).unwrap(), &want, 2.0 * bound);
    }
}

#[test]
fn a_norm_works_on_groups_and_strided_rows() {
    let mut device = Reference::new();
    let x = put(&mut device, 2, 6, &[3.0, 4.0, 1.0, 1.0, 7.0, 7.0, 0.0, 5.0, 2.0, -2.0, 7.0, 7.0]);
    let weight = put(&mut device, 1, 2, &[1.0, 10.0]);
    let inner = x.col_range(0, 4);
    device.rms_norm(inner, weight, 0.0, inner).unwrap();
    let root = 12.5f64.sqrt();
    let want = [3.0 / root, 40.0 / root, 1.0, 10.0, 7.0, 7.0, 0.0, 50.0 / root, 1.0, -10.0, 7.0, 7.0];
    near(device.read(x).unwrap(), &want, 1e-5);
}

#[test]
fn rows_are_scaled_and_added_where_they_belong() {
    let mut device = Reference::new();
    let x = put(&mut device, 3, 2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let y = put(&mut device, 2, 2, &[0.5, 0.5, 10.0, 20.0]);
    device.scatter_rows(x, &[1, 0, 1], &[1.0, 2.0, 0.5], y).unwrap();
    assert_eq!(device.read(y).unwrap(), [6.5, 8.5, 13.5, 25.0]);
    device.scale_rows(y, &[2.0, -1.0]).unwrap();
    assert_eq!(device.read(y).unwrap(), [13.0, 17.0, -13.5, -25.0]);
    device.clear(y.row_range(1, 1)).unwrap();
    assert_eq!(device.read(y).unwrap(), [13.0, 17.0, 0.0, 0.0]);
    let wide = put(&mut device, 2, 5, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    for (rows, factors, from) in
        [(&[0, 3][..], &[1.0; 2][..], y), (&[0, 1], &[1.0; 1], y), (&[0, 1, 2], &[1.0; 3], x)]
    {
        assert!(device.scatter_rows(from, rows, factors, x).is_err(), "{rows:?}");
    }
    assert!(device.scale_rows(x, &[1.0; 2]).is_err());
    device.take_columns(wide, 1, 2, y).unwrap();
    assert_eq!(device.read(y).unwrap(), [1.0, 3.0, 6.0, 8.0]);
    assert!(device.take_columns(wide, 2, 3, y).is_err() && device.take_columns(wide, 0, 0, y).is_err());
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    type Op<'a> = dyn Fn(&mut Reference, Mat, Mat) -> Result<(), Error> + 'a;
    let kv = |device: &mut Reference, pages| {
        let (key_widths, value_widths) = (vec![4], vec![4]);
        device.kv_allocate(&KvLayout {
            kv_type: KvType::F16,
            key_widths,
            value_widths,
            heads: vec![1],
            page_tokens: 2,
            pages,
        })
    };
    let tile = |dtype, len| {
        move |device: &mut Reference, x, y| {
            let bytes = vec![0; len];
            device.matmul(Weight::Streamed(Tile { dtype, rows: 4, cols: 4, bytes: &bytes }), x, y)
        }
    };
    let place = |position, table, page: u32| {
        move |device: &mut Reference, x: Mat, _: Mat| {
            kv(device, 2)?;
            let rows = [RowPlace { position, table }; 4];
            device.kv_write(0, x, x, Placement { rows: &rows, pages: &[page] })
        }
    };
    let cases: &[(&str, ErrorKind, &Op)] = &[
        ("unknown buffer", ErrorKind::Shape, &|d, x, _| d.scale(Mat { buffer: BufferId(99), ..x }, 1.0)),
        ("past the end", ErrorKind::Shape, &|d, x, _| d.scale(Mat { offset: 1, ..x }, 1.0)),
        ("other shape", ErrorKind::Shape, &|d, x, y| d.add(x, y.col_range(0, 3))),
        ("summand is the sum", ErrorKind::Shape, &|d, x, _| d.add(x, x)),
        ("gather in place", ErrorKind::Shape, &|d, x, _| d.gather_rows(x, &[0, 1, 2, 3], x)),
        ("row out of range", ErrorKind::Shape, &|d, x, y| d.gather_rows(x, &[0, 1, 2, 4], y)),
        ("bias of two rows", ErrorKind::Shape, &|d, x, y| d.add_bias(x, y)),
        ("short write", ErrorKind::Shape, &|d, x, _| d.write(x, &[0.0; 15])),
        ("strided read", ErrorKind::Shape, &|d, x, _| d.read(x.col_range(0, 2)).map(|_| ())),
        ("short tile", ErrorKind::Shape, &tile(DType::F32, 63)),
        ("part of a block", ErrorKind::Shape, &tile(DType::Q8_0, 34)),
        ("unknown format", ErrorKind::Unsupported, &tile(DType::I8, 16)),
        ("unknown pin", ErrorKind::Shape, &|d, x, y| d.matmul(Weight::Pinned(WeightId(0)), x, y)),
        ("output is input", ErrorKind::Shape, &|d, x, _| tile(DType::F32, 64)(d, x, x)),
        ("no KV cache", ErrorKind::Shape, &|d, x, _| {
            d.kv_write(0, x, x, Placement { rows: &[], pages: &[] })
        }),
        ("second KV cache", ErrorKind::Shape, &|d, _, _| kv(d, 1).and_then(|()| kv(d, 1))),
        ("KV cache too large", ErrorKind::OutOfMemory, &|d, _, _| kv(d, 1 << 55)),
        ("position past the cache", ErrorKind::Shape, &place(9, 0, 0)),
        ("page past the cache", ErrorKind::Shape, &place(0, 0, 2)),
        ("table past the pages", ErrorKind::Shape, &place(0, 1, 0)),
        ("buffer too large", ErrorKind::OutOfMemory, &|d, _, _| d.allocate(1 << 60).map(|_| ())),
    ];
    for (name, kind, op) in cases {
        let mut device = Reference::new();
        let (x, y) = (put(&mut device, 4, 4, &[1.0; 16]), put(&mut device, 4, 4, &[2.0; 16]));
        let error = op(&mut device, x, y).expect_err(name);
        assert_eq!(error.kind(), *kind, "{name}: {error}");
        assert_eq!(device.read(x).unwrap(), [1.0; 16], "{name}: nothing may change");
        assert_eq!(device.read(y).unwrap(), [2.0; 16], "{name}: nothing may change");
    }
}

#[test]
fn tiles_by_inputs_that_do_not_fit_are_refused() {
    let cases = [
        ("fits", None, DType::F32, 2, 512),
        ("inputs past the end", Some(ErrorKind::Shape), DType::F32, 3, 512),
        ("inputs far past the end", Some(ErrorKind::Shape), DType::F32, usize::MAX, 512),
        ("fewer lanes", Some(ErrorKind::Shape), DType::F32, 0, 256),
        ("blocks", None, DType::Q8_0, 0, 512),
    ];
    for (name, kind, dtype, k0, lanes) in cases {
        let mut device = Reference::new();
        let x = put(&mut device, 4, 4, &[1.0; 16]);
        let lanes = put(&mut device, 4, lanes, &vec![0.0; 4 * lanes]);
        let bytes = vec![0; dtype_bytes(dtype, 2, 32)];
        let tile = Tile { dtype, rows: 2, cols: 32, bytes: &bytes };
        let done = device.matmul_k_major(Weight::Streamed(tile), x, lanes, k0);
        assert_eq!(done.err().map(|error| error.kind()), kind, "{name}");
        let y = Mat::new(x.buffer, 4, lanes.cols / 16 + 1);
        assert_eq!(device.sum_lanes(lanes, y).unwrap_err().kind(), ErrorKind::Shape, "{name}");
    }
}
