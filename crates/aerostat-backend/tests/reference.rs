//! The reference device against f64 arithmetic and hand-made cases, and the rules that operands obey.

use aerostat_backend::conformance::{self, Tolerance};
use aerostat_backend::numerics;
use aerostat_backend::reference::Reference;
use aerostat_backend::{
    Activation, Alibi, Attention, Backend, BufferId, Error, ErrorKind, Extras, HeadCopy, Home, KvElement,
    KvLayout, Mat, Placement, Rope, RopeStyle, RowPlace, ScratchNeed, StateRow, SweepRows, TileShape,
    UploadId, Weight, WeightId, Window, defect,
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

fn upload(
    device: &mut Reference,
    dtype: DType,
    (rows, cols): (usize, usize),
    bytes: Vec<u8>,
) -> Result<Weight, Error> {
    let shape = TileShape { dtype, rows, cols, packed: false };
    device.upload(shape, Box::new(bytes)).map(Weight::Arriving)
}

fn set_places(device: &mut Reference, rows: &[RowPlace], pages: &[u32]) -> Result<(), Error> {
    device.set_rows(SweepRows { places: Placement { rows, pages, slots: &[] }, states: &[] })
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
    let w = upload(&mut device, DType::F32, (n, k), bytes);
    device.matmul(w.unwrap(), x, y).unwrap();
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
        ahead: false,
        alibi,
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
        let (keys, heads) = (KvElement::F32, vec![1]);
        let layout =
            KvLayout { keys, values: keys, key_widths, value_widths, heads, page_tokens: 2, pages: 5 };
        device.kv_allocate(&layout).unwrap();
        let rows: Vec<RowPlace> = (0..length as u32).map(|position| RowPlace::new(position, 1)).collect();
        // The first entry belongs to another sequence.
        let pages = [u32::MAX, 3, 0, 4, 1];
        let (k, v) = (put(&mut device, length, dim, &k), put(&mut device, length, dim, &v));
        set_places(&mut device, &rows, &pages).unwrap();
        device.kv_write(0, k, v).unwrap();
        let q = put(&mut device, 1, 2 * dim, &q);
        let out = put(&mut device, 1, 2 * dim, &[0.0; 8]);
        set_places(&mut device, &rows[length - 1..], &pages).unwrap();
        let sinks = sunk.then(|| put(&mut device, 1, 2, &[0.5, -2.0]));
        device.attention(0, q, out, &shape(window, alibi), Extras { sinks, biases: None }).unwrap();
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
        (Activation::Relu6, 1e-7, &|x| x.clamp(0.0, 6.0)),
        (Activation::QuickGelu, 1e-5, &|x| x / (1.0 + (-1.702 * x).exp())),
        (Activation::Mish, 1e-5, &|x| x * x.exp().ln_1p().tanh()),
        (Activation::Tanh, 1e-6, &|x| x.tanh()),
        (Activation::Softplus, 1e-5, &|x| x.exp().ln_1p()),
    ] {
        let mut device = Reference::new();
        let (gate, up) = (put(&mut device, 1, 64, &x), put(&mut device, 1, 64, &[2.0; 64]));
        device.glu(gate, up, activation, gate).unwrap();
        let want: Vec<f64> = x.iter().map(|&v| function(f64::from(v)) * 2.0).collect();
        near(device.read(gate).unwrap(), &want, 2.0 * bound);
    }
    assert_eq!(numerics::activate(7.0, Activation::Relu6), 6.0);
    assert_eq!(numerics::activate(1e30, Activation::Mish), 1e30);
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
    let factors = put(&mut device, 2, 1, &[2.0, -1.0]);
    device.mul_rows(y, factors).unwrap();
    assert_eq!(device.read(y).unwrap(), [13.0, 17.0, -13.5, -25.0]);
    device.clear(y.row_range(1, 1)).unwrap();
    assert_eq!(device.read(y).unwrap(), [13.0, 17.0, 0.0, 0.0]);
    let wide = put(&mut device, 2, 5, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    for (rows, factors, from) in
        [(&[0, 3][..], &[1.0; 2][..], y), (&[0, 1], &[1.0; 1], y), (&[0, 1, 2], &[1.0; 3], x)]
    {
        assert!(device.scatter_rows(from, rows, factors, x).is_err(), "{rows:?}");
    }
    assert!(device.mul_rows(x, factors).is_err());
    device.take_columns(wide, 1, 2, y).unwrap();
    assert_eq!(device.read(y).unwrap(), [1.0, 3.0, 6.0, 8.0]);
    assert!(device.take_columns(wide, 2, 3, y).is_err() && device.take_columns(wide, 0, 0, y).is_err());
}

type Op<'a> = dyn Fn(&mut Reference, Mat, Mat) -> Result<(), Error> + 'a;

/// Each op gives an error of its kind, and changes nothing.
fn refused(cases: &[(&str, ErrorKind, &Op<'_>)]) {
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
fn operands_that_do_not_fit_are_refused() {
    let tile = |dtype, len| {
        move |device: &mut Reference, x, y| {
            let w = upload(device, dtype, (4, 4), vec![0; len])?;
            device.matmul(w, x, y)
        }
    };
    refused(&[
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
        ("unknown resident", ErrorKind::Shape, &|d, x, y| d.matmul(Weight::Resident(WeightId(0)), x, y)),
        ("unknown upload", ErrorKind::Shape, &|d, x, y| {
            d.matmul(Weight::Arriving(UploadId { place: 0, turn: 0 }), x, y)
        }),
        ("home on disk", ErrorKind::Unsupported, &|d, _, _| {
            let shape = TileShape { dtype: DType::F32, rows: 1, cols: 1, packed: false };
            d.pin(shape, Box::new(vec![0; 4]), Home::Disk).map(|_| ())
        }),
        ("heads of other numbers", ErrorKind::Shape, &|d, x, y| {
            d.copy_heads(x, &HeadCopy { from_dim: 2, from_start: 0, to_dim: 4, to_start: 0, len: 2 }, y)
        }),
        ("past the end of a head", ErrorKind::Shape, &|d, x, y| {
            d.copy_heads(x, &HeadCopy { from_dim: 2, from_start: 1, to_dim: 2, to_start: 0, len: 2 }, y)
        }),
        ("rows of no resident", ErrorKind::Shape, &|d, x, _| d.gather_weights(&[(WeightId(0), 0); 4], x)),
        ("output is input", ErrorKind::Shape, &|d, x, _| tile(DType::F32, 64)(d, x, x)),
        ("buffer too large", ErrorKind::OutOfMemory, &|d, _, _| d.allocate(1 << 60).map(|_| ())),
    ]);
}

#[test]
fn rows_and_pages_that_do_not_fit_are_refused() {
    let kv = |device: &mut Reference, pages| {
        let (key_widths, value_widths) = (vec![4], vec![4]);
        device.kv_allocate(&KvLayout {
            keys: KvElement::F16,
            values: KvElement::F16,
            key_widths,
            value_widths,
            heads: vec![1],
            page_tokens: 2,
            pages,
        })
    };
    let place = |position, table, page: u32| {
        move |device: &mut Reference, x: Mat, _: Mat| {
            kv(device, 2)?;
            set_places(device, &[RowPlace::new(position, table); 4], &[page])?;
            device.kv_write(0, x, x)
        }
    };
    refused(&[
        ("no KV cache", ErrorKind::Shape, &|d, x, _| {
            set_places(d, &[RowPlace::new(0, 0); 4], &[0])?;
            d.kv_write(0, x, x)
        }),
        ("rows not set", ErrorKind::Shape, &|d, x, _| kv(d, 2).and_then(|()| d.kv_write(0, x, x))),
        ("rows set before the cache", ErrorKind::Shape, &|d, x, _| {
            set_places(d, &[RowPlace::new(0, 0); 4], &[9])?;
            kv(d, 2)?;
            d.kv_write(0, x, x)
        }),
        ("rows of other numbers", ErrorKind::Shape, &|d, x, _| {
            kv(d, 2)?;
            set_places(d, &[RowPlace::new(0, 0); 3], &[0])?;
            d.kv_write(0, x, x)
        }),
        ("states of fewer rows", ErrorKind::Shape, &|d, _, _| {
            let rows = [RowPlace::new(0, 0); 2];
            let places = Placement { rows: &rows, pages: &[0], slots: &[] };
            d.set_rows(SweepRows { places, states: &[StateRow { slot: 0, position: 0 }] })
        }),
        ("page past the end", ErrorKind::Shape, &|d, _, _| kv(d, 2).and_then(|()| d.kv_save(2, &mut |_| ()))),
        ("second KV cache", ErrorKind::Shape, &|d, _, _| kv(d, 1).and_then(|()| kv(d, 1))),
        ("KV cache too large", ErrorKind::OutOfMemory, &|d, _, _| kv(d, 1 << 55)),
        ("position past the cache", ErrorKind::Shape, &place(9, 0, 0)),
        ("page past the cache", ErrorKind::Shape, &place(0, 0, 2)),
        ("table past the pages", ErrorKind::Shape, &place(0, 1, 0)),
    ]);
}

#[test]
fn tiles_by_inputs_that_do_not_fit_are_refused() {
    let cases = [
        ("fits", None, DType::F32, 0, 32),
        ("does not follow", Some(ErrorKind::Shape), DType::F32, 1, 32),
        ("inputs past the end", Some(ErrorKind::Shape), DType::F32, 3, 32),
        ("inputs far past the end", Some(ErrorKind::Shape), DType::F32, usize::MAX, 32),
        ("fewer outputs", Some(ErrorKind::Shape), DType::F32, 0, 16),
        ("blocks", None, DType::Q8_0, 0, 32),
    ];
    for (name, kind, dtype, k0, outputs) in cases {
        let mut device = Reference::new();
        device.reserve(&ScratchNeed { k_major_outputs: 32, ..ScratchNeed::default() }, 4).unwrap();
        let x = put(&mut device, 4, 4, &[1.0; 16]);
        let y = put(&mut device, 4, outputs, &vec![7.0; 4 * outputs]);
        let w = upload(&mut device, dtype, (2, 32), vec![0; dtype_bytes(dtype, 2, 32)]).unwrap();
        let done = device.matmul_k_major(w, x, y, k0, false);
        assert_eq!(done.err().map(|error| error.kind()), kind, "{name}");
        assert_eq!(device.read(y).unwrap(), vec![7.0; 4 * outputs], "{name}: the last tile has not come");
    }
}

/// Sums that wait between tiles belong to one matrix: a tile of another, or one too many, must not be added to them.
#[test]
fn partial_sums_are_of_one_matrix_and_of_what_was_reserved() {
    let mut device = Reference::new();
    let (x, y) = (put(&mut device, 2, 4, &[1.0; 8]), put(&mut device, 2, 3, &[0.0; 6]));
    let w = upload(&mut device, DType::F32, (2, 3), bytes(&[0.5; 6])).unwrap();
    let error = device.matmul_k_major(w, x, y, 0, false).unwrap_err();
    assert!(error.to_string().contains("reserved"), "{error}");
    let need = ScratchNeed { k_major_outputs: 3, ..ScratchNeed::default() };
    device.reserve(&need, 2).unwrap();
    device.matmul_k_major(w, x, y, 0, false).unwrap();
    assert!(device.matmul_k_major(w, x.row_range(0, 1), y.row_range(0, 1), 2, true).is_err());
    device.matmul_k_major(w, x, y, 2, true).unwrap();
    assert_eq!(device.read(y).unwrap(), [2.0; 6]);
    assert!(device.matmul_k_major(w, x, y, 2, true).is_err(), "it came");
    let scratch = device.allocated().scratch_bytes;
    assert!((2 * 16 * 3 * 4..=device.footprint(&need).total_bytes(2, 0)).contains(&scratch), "{scratch}");
}

#[test]
fn what_is_released_cannot_be_used_even_where_its_place_is_taken() {
    struct Counted(std::sync::Arc<[u8]>);
    impl std::ops::Deref for Counted {
        type Target = [u8];
        fn deref(&self) -> &[u8] {
            &self.0
        }
    }
    let mut device = Reference::new();
    let (x, y) = (put(&mut device, 1, 1, &[3.0]), put(&mut device, 1, 1, &[0.0]));
    let bytes: std::sync::Arc<[u8]> = 2.0f32.to_le_bytes().into();
    let shape = TileShape { dtype: DType::F32, rows: 1, cols: 1, packed: false };
    let send = |device: &mut Reference| device.upload(shape, Box::new(Counted(bytes.clone()))).unwrap();
    let [first, second] = [send(&mut device), send(&mut device)];
    device.matmul(Weight::Arriving(second), x, y).unwrap();
    assert_eq!(device.read(y).unwrap(), [6.0]);
    device.release(first);
    let third = send(&mut device);
    assert_eq!((third.place, third == first), (first.place, false), "places are taken again");
    assert!(device.matmul(Weight::Arriving(first), x, y).is_err());
    device.matmul(Weight::Arriving(third), x, y).unwrap();
    device.release_all();
    assert!(device.matmul(Weight::Arriving(third), x, y).is_err());
    assert_eq!(std::sync::Arc::strong_count(&bytes), 1, "all are given back");
    assert_eq!(device.allocated().weights_bytes, 0);
    let refused = device.upload(shape, Box::new(vec![0; 5])).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Shape);
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "was released before")]
fn releasing_twice_is_a_defect() {
    let mut device = Reference::new();
    let shape = TileShape { dtype: DType::F32, rows: 1, cols: 1, packed: false };
    let id = device.upload(shape, Box::new(vec![0; 4])).unwrap();
    device.release(id);
    device.release(id);
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "role 7 has no bias")]
fn defects_panic_in_debug_builds() {
    drop(defect!("role {} has no bias", 7));
}

#[cfg(not(debug_assertions))]
#[test]
fn defects_are_errors_in_release_builds() {
    let error = defect!("role {} has no bias", 7);
    assert!(error.kind() == ErrorKind::Defect && error.to_string().contains("role 7 has no bias"));
}

#[test]
fn what_is_allocated_is_counted() {
    let mut device = Reference::new();
    let empty = device.allocated();
    assert_eq!((empty.buffers_bytes, empty.weights_bytes, empty.kv_bytes, empty.scratch_bytes), (0, 0, 0, 0));
    device.allocate(1000).unwrap();
    let shape = TileShape { dtype: DType::F32, rows: 10, cols: 10, packed: false };
    device.pin(shape, Box::new(vec![0; 400]), Home::Host).unwrap();
    let (keys, heads) = (KvElement::F16, vec![2]);
    let (key_widths, value_widths) = (vec![8], vec![4]);
    let layout = KvLayout { keys, values: keys, key_widths, value_widths, heads, page_tokens: 16, pages: 3 };
    device.kv_allocate(&layout).unwrap();
    let got = device.allocated();
    assert!((4000..4100).contains(&got.buffers_bytes), "{got:?}");
    assert!((400..500).contains(&got.weights_bytes), "{got:?}");
    let kv = 48 * layout.token_bytes() as u64;
    assert!((kv..kv + 200).contains(&got.kv_bytes), "{got:?}");
    let rows: Vec<RowPlace> = (0..40).map(|position| RowPlace::new(position, 0)).collect();
    set_places(&mut device, &rows, &[0, 1, 2]).unwrap();
    let bound = device.footprint(&ScratchNeed::default()).total_bytes(40, 48);
    assert!((1..=bound).contains(&device.allocated().scratch_bytes), "{:?}", device.allocated());
}

/// Thousands of buffers, as models with many experts have them: operands come from any of them, in any order.
#[test]
fn operands_lie_in_any_buffers() {
    let mut device = Reference::new();
    let mats: Vec<Mat> = (0..2000).map(|i| put(&mut device, 1, 2, &[i as f32, 1.0])).collect();
    for (a, b, c) in [(1999, 0, 1000), (0, 1999, 1), (7, 8, 6), (5, 5, 4), (3, 2, 3)] {
        let (want_a, want_b) = (device.read(mats[a]).unwrap()[0], device.read(mats[b]).unwrap()[0]);
        device.glu(mats[a], mats[b], Activation::Relu, mats[c]).unwrap();
        assert_eq!(device.read(mats[c]).unwrap(), [want_a * want_b, 1.0], "{a} {b} {c}");
    }
}
