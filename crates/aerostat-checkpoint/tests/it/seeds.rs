//! Files and what becomes of them: the seeds of the fuzz targets.

use aerostat_checkpoint::ErrorKind::{self, *};

use crate::write::{Gguf, Pickled, Zip, array, pickle, pytorch_vectors, safetensors, string, vectors};

/// What it is, what opening it gives (`None`: it is valid), its bytes.
pub(crate) type Seed = (&'static str, Option<ErrorKind>, Vec<u8>);

pub(crate) fn safetensors_seeds() -> Vec<Seed> {
    let one = |dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}}}"#)
    };
    let two = |begin: u64, end: u64| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}},
                "b":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}}}"#,
            end - begin
        )
    };
    let many_dimensions = format!("[{}]", ["1"; 17].join(","));
    let file = safetensors;
    vec![
        ("empty header", None, file("{}", 0)),
        ("metadata only", None, file(r#"{"__metadata__":{"format":"pt"}}   "#, 0)),
        ("three vectors", None, vectors(&["a", "b", "c"])),
        ("scalar", None, file(&one("BF16", "[]", 0, 2), 2)),
        ("no elements", None, file(&one("F32", "[0,4]", 0, 0), 0)),
        ("four-bit", None, file(&one("F4", "[3,4]", 0, 6), 6)),
        ("six-bit", None, file(&one("F6_E2M3", "[8]", 0, 6), 6)),
        ("escaped name", None, file(&one("U8", "[1]", 0, 1).replace(r#""a""#, r#""\u0061\n""#), 1)),
        ("no bytes", Some(Truncated), Vec::new()),
        ("short length", Some(Truncated), vec![1, 2, 3]),
        ("header cut off", Some(Truncated), [&99u64.to_le_bytes(), b"{}" as &[u8]].concat()),
        ("huge header", Some(Header), [&u64::MAX.to_le_bytes(), b"{}" as &[u8]].concat()),
        ("header over the cap", Some(Header), [&100_000_001u64.to_le_bytes(), b"{}" as &[u8]].concat()),
        ("not JSON", Some(Header), file("nonsense", 0)),
        ("a list", Some(Header), file("[]", 0)),
        ("deep nesting", Some(Header), file(&"[".repeat(10_000), 0)),
        ("JSON goes on", Some(Header), file("{} {}", 0)),
        ("not UTF-8", Some(Header), [&2u64.to_le_bytes(), b"{\xff" as &[u8]].concat()),
        ("entry without shape", Some(Header), file(r#"{"a":{"dtype":"F32","data_offsets":[0,0]}}"#, 0)),
        ("negative dimension", Some(Header), file(&one("F32", "[-1]", 0, 4), 4)),
        ("many dimensions", Some(Header), file(&one("U8", &many_dimensions, 0, 1), 1)),
        ("one name twice", Some(Header), vectors(&["a", "a"])),
        ("backward offsets", Some(Header), file(&one("F32", "[1]", 4, 0), 4)),
        ("hole at the start", Some(Header), file(&one("F32", "[1]", 4, 8), 8)),
        ("hole in the middle", Some(Header), file(&two(9, 10), 10)),
        ("bytes left over", Some(Header), file(&one("F32", "[1]", 0, 4), 5)),
        ("overlap", Some(Overlap), file(&two(7, 9), 9)),
        ("same bytes", Some(Overlap), file(&two(0, 8), 8)),
        ("out of the file", Some(OutOfRange), file(&one("F32", "[2]", 0, 8), 7)),
        ("offsets near 2^64", Some(OutOfRange), file(&one("U8", "[1]", u64::MAX - 1, u64::MAX), 1)),
        ("too long for its shape", Some(ShapeMismatch), file(&one("F32", "[1]", 0, 8), 8)),
        ("shape over 2^64", Some(ShapeMismatch), file(&one("U8", "[4294967296,4294967296]", 0, 1), 1)),
        ("bytes over 2^64", Some(ShapeMismatch), file(&one("F64", "[4611686018427387904]", 0, 8), 8)),
        ("half a byte", Some(ShapeMismatch), file(&one("F4", "[3]", 0, 1), 1)),
        ("unknown dtype", Some(UnknownDType), file(&one("F7", "[1]", 0, 1), 1)),
        ("ggml dtype", Some(UnknownDType), file(&one("Q8_0", "[32]", 0, 34), 34)),
    ]
}

pub(crate) fn index_seeds() -> Vec<Seed> {
    let index = |map: &str| format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{map}}}"#).into_bytes();
    vec![
        ("index", None, index(r#"{"b":"2.safetensors","a":"1.safetensors","c":"2.safetensors"}"#)),
        ("no tensors", None, index("{}")),
        ("no weight map", Some(Header), b"{}".to_vec()),
        ("a number", Some(Header), index(r#"{"a":1}"#)),
        ("one name twice", Some(Header), index(r#"{"a":"1.safetensors","a":"2.safetensors"}"#)),
        ("folder above", Some(Header), index(r#"{"a":"../1.safetensors"}"#)),
        ("dots", Some(Header), index(r#"{"a":".."}"#)),
        ("absolute path", Some(Header), index(r#"{"a":"/1.safetensors"}"#)),
        ("backslash", Some(Header), index(r#"{"a":"x\\1.safetensors"}"#)),
    ]
}

pub(crate) fn pytorch_seeds() -> Vec<Seed> {
    let whole = || Zip::checkpoint(pickle(&[("a", (0, 6), 0, &[2, 3], &[3, 1])]), &[24]);
    let with = |change: &dyn Fn(&mut Zip)| {
        let mut zip = whole();
        change(&mut zip);
        zip.bytes()
    };
    let raw = |pickle: &[u8]| Zip::checkpoint(pickle.to_vec(), &[]).bytes();
    let tied: [Pickled<'_>; 3] = [
        ("a", (0, 6), 0, &[2, 3], &[3, 1]),
        ("b", (0, 6), 0, &[6], &[1]),
        ("c", (0, 6), 3, &[1, 3], &[9, 1]),
    ];
    let two_lengths: [Pickled<'_>; 2] = [("a", (0, 6), 0, &[6], &[1]), ("b", (0, 5), 0, &[5], &[1])];
    vec![
        ("matrix", None, whole().bytes()),
        ("three vectors", None, pytorch_vectors(&["a", "b", "c"])),
        ("tied", None, Zip::checkpoint(pickle(&tied), &[24]).bytes()),
        ("no tensors", None, raw(&pickle(&[]))),
        ("no elements", None, Zip::checkpoint(pickle(&[("a", (0, 0), 0, &[0, 4], &[7, 1])]), &[0]).bytes()),
        ("64-bit zip", None, with(&|zip| zip.long = true)),
        ("comment", None, with(&|zip| zip.comment = b"PK\x05\x06 and more".to_vec())),
        ("no byteorder", None, with(&|zip| drop(zip.files.remove(1)))),
        ("no bytes", Some(Truncated), Vec::new()),
        ("cut", Some(Truncated), whole().bytes()[..400].to_vec()),
        ("not a zip", Some(Truncated), vec![7; 100]),
        ("before 1.6", Some(Unsupported), b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M".to_vec()),
        ("big-endian", Some(Unsupported), with(&|zip| zip.files[1].1 = b"big".to_vec())),
        ("compressed", Some(Unsupported), with(&|zip| zip.method = 8)),
        ("encrypted", Some(Unsupported), with(&|zip| zip.flags = 1)),
        ("sizes differ", Some(Unsupported), with(&|zip| zip.lies[0] = 1)),
        (
            "another length",
            Some(ShapeMismatch),
            with(&|zip| zip.lies = [8u32.wrapping_neg(), 8u32.wrapping_neg(), 0]),
        ),
        ("out of the file", Some(OutOfRange), with(&|zip| zip.lies = [1 << 20, 1 << 20, 0])),
        ("header out of the file", Some(OutOfRange), with(&|zip| zip.lies[2] = 1 << 20)),
        ("no header there", Some(Header), with(&|zip| zip.lies[2] = 1)),
        (
            "header of another",
            Some(Header),
            with(&|zip| {
                zip.lies[2] = (zip.files[1].0.len() + zip.files[1].1.len() + 33).wrapping_neg() as u32;
            }),
        ),
        ("no pickle", Some(Unsupported), with(&|zip| drop(zip.files.remove(0)))),
        (
            "two pickles",
            Some(Unsupported),
            with(&|zip| zip.files.insert(0, ("n/data.pkl".into(), Vec::new()))),
        ),
        ("no folder", Some(Unsupported), with(&|zip| zip.files[0].0 = "data.pkl".into())),
        ("one file twice", Some(Header), with(&|zip| zip.files.push(zip.files[0].clone()))),
        ("storage is absent", Some(MissingTensor), with(&|zip| drop(zip.files.pop()))),
        ("two lengths", Some(Header), Zip::checkpoint(pickle(&two_lengths), &[24]).bytes()),
    ]
    .into_iter()
    .chain(pickle_seeds())
    .collect()
}

/// What is wrong in the pickle.
fn pickle_seeds() -> Vec<Seed> {
    let one = |tensor: Pickled<'_>| Zip::checkpoint(pickle(&[tensor]), &[24]).bytes();
    let raw = |pickle: &[u8]| Zip::checkpoint(pickle.to_vec(), &[]).bytes();
    let huge = i32::MAX;
    let many_dimensions = [1; 17];
    vec![
        ("columns", Some(Unsupported), one(("a", (0, 6), 0, &[3, 2], &[1, 3]))),
        ("rows apart", Some(Unsupported), one(("a", (0, 6), 0, &[2, 2], &[3, 1]))),
        ("repeated", Some(Unsupported), one(("a", (0, 6), 0, &[4], &[0]))),
        ("fewer strides", Some(Unsupported), one(("a", (0, 6), 0, &[2, 3], &[1]))),
        ("past the storage", Some(OutOfRange), one(("a", (0, 6), 1, &[6], &[1]))),
        ("offset far past", Some(OutOfRange), one(("a", (0, 6), huge, &[1], &[1]))),
        ("shape far past", Some(Unsupported), one(("a", (0, 6), 0, &[huge, huge, huge], &[huge, huge, 1]))),
        ("negative dimension", Some(Header), one(("a", (0, 6), 0, &[-1], &[1]))),
        ("many dimensions", Some(Header), one(("a", (0, 6), 0, &many_dimensions, &many_dimensions))),
        ("one name twice", Some(Header), pytorch_vectors(&["a", "a"])),
        ("empty pickle", Some(Truncated), raw(b"")),
        ("no result", Some(Header), raw(b"\x80\x02.")),
        ("a number", Some(Unsupported), raw(b"\x80\x02K\x01.")),
        ("tensors below a key", Some(Unsupported), raw(b"\x80\x02}X\x05\0\0\0model}s.")),
        ("entry of a number", Some(Header), raw(b"\x80\x02K\x01(K\x01K\x02u.")),
        ("key without a value", Some(Header), raw(b"\x80\x02}(K\x01u.")),
        ("long integer", Some(Header), raw(b"\x80\x02\x8a\x09123456789.")),
        ("text not UTF-8", Some(Header), raw(b"\x80\x02X\x01\0\0\0\xff.")),
    ]
}

pub(crate) fn gguf_seeds() -> Vec<Seed> {
    let gguf = Gguf::new;
    let with = |change: fn(&mut Gguf)| {
        let mut file = valid_gguf();
        change(&mut file);
        file.bytes()
    };
    let u64s = |value: u64| value.to_le_bytes();
    let nested = (0..6).fold(array(0, 1, &[7]), |inner, _| array(9, 1, &inner));
    let cut = |bytes: usize| valid_gguf().bytes()[..bytes].to_vec();
    vec![
        ("empty", None, gguf().bytes()),
        ("all types", None, valid_gguf().bytes()),
        ("version 2", None, with(|file| file.version = 2)),
        ("scalar", None, gguf().tensor("a", &[], 0, 0).data(4).bytes()),
        ("no elements", None, gguf().tensor("a", &[0, 3], 0, 0).bytes()),
        ("gap between tensors", None, gguf().vector("a").tensor("b", &[8], 0, 64).data(96).bytes()),
        ("alignment 1", None, gguf().entry("general.alignment", 4, [1, 0, 0, 0]).bytes()),
        ("no bytes", Some(Truncated), Vec::new()),
        ("cut in the counts", Some(Truncated), cut(20)),
        ("cut in the metadata", Some(Truncated), cut(100)),
        ("huge string", Some(Truncated), gguf().entry("a", 8, u64s(u64::MAX)).bytes()),
        ("huge strings", Some(Truncated), gguf().entry("a", 9, array(8, u64::MAX, &[])).bytes()),
        ("huge array", Some(Truncated), gguf().entry("a", 9, array(10, 1 << 61, &[])).bytes()),
        ("many arrays", Some(Header), gguf().entry("a", 9, array(9, u64::MAX, &[])).bytes()),
        ("other file", Some(Header), b"PK\x03\x04 and so on".to_vec()),
        ("big-endian", Some(Unsupported), with(|file| file.version = 3u32.swap_bytes())),
        ("version 1", Some(Unsupported), with(|file| file.version = 1)),
        ("version 4", Some(Unsupported), with(|file| file.version = 4)),
        ("huge entry count", Some(Header), with(|file| file.entry_count = Some(u64::MAX))),
        ("huge tensor count", Some(Header), with(|file| file.tensor_count = Some(u64::MAX))),
        ("large tensor count", Some(Truncated), with(|file| file.tensor_count = Some(1 << 20))),
        ("long key", Some(Header), gguf().entry(&"k".repeat(70_000), 0, [0]).bytes()),
        ("key not UTF-8", Some(Header), with(|file| file.entries[0].0[0] = 0xff)),
        ("key twice", Some(Header), gguf().entry("a", 0, [0]).entry("a", 0, [1]).bytes()),
        ("unknown value type", Some(Header), gguf().entry("a", 13, [0]).bytes()),
        ("truth value 2", Some(Header), gguf().entry("a", 7, [2]).bytes()),
        ("truth values 2", Some(Header), gguf().entry("a", 9, array(7, 2, &[1, 2])).bytes()),
        ("deep arrays", Some(Header), gguf().entry("a", 9, nested).bytes()),
        ("alignment 0", Some(Header), gguf().entry("general.alignment", 4, [0; 4]).bytes()),
        ("alignment 48", Some(Header), gguf().entry("general.alignment", 4, [48, 0, 0, 0]).bytes()),
        ("alignment text", Some(Header), gguf().entry("general.alignment", 8, string("32")).bytes()),
        ("five dimensions", Some(Header), gguf().tensor("a", &[1; 5], 0, 0).data(4).bytes()),
        ("long name", Some(Header), gguf().vector(&"n".repeat(1025)).bytes()),
        ("name twice", Some(Header), gguf().vector("a").vector("a").bytes()),
        ("unaligned", Some(Header), gguf().tensor("a", &[1], 0, 4).data(8).bytes()),
        ("withdrawn type", Some(UnknownDType), gguf().tensor("a", &[32], 4, 0).data(64).bytes()),
        ("unknown type", Some(UnknownDType), gguf().tensor("a", &[32], u32::MAX, 0).data(64).bytes()),
        ("row of half a block", Some(ShapeMismatch), gguf().tensor("a", &[16, 2], 8, 0).data(34).bytes()),
        ("shape over 2^64", Some(ShapeMismatch), gguf().tensor("a", &[1 << 32, 1 << 32], 24, 0).bytes()),
        ("bytes over 2^64", Some(ShapeMismatch), gguf().tensor("a", &[1 << 62], 0, 0).bytes()),
        ("out of the file", Some(OutOfRange), gguf().vector("a").data(31).bytes()),
        ("offset near 2^64", Some(OutOfRange), gguf().tensor("a", &[8], 0, u64::MAX - 31).data(32).bytes()),
        ("overlap", Some(Overlap), gguf().tensor("a", &[9], 0, 0).tensor("b", &[8], 0, 32).data(64).bytes()),
    ]
}

/// A file with a value of every type and tensors of some.
pub(crate) fn valid_gguf() -> Gguf {
    let strings = [string("plain"), string(b"\xe2\x96"), string("")].concat();
    let nested = [array(0, 2, &[1, 2]), array(8, 1, &string("x"))].concat();
    Gguf::new()
        .entry("general.architecture", 8, string("tiny"))
        .entry("general.alignment", 4, 64u32.to_le_bytes())
        .entry("u8", 0, [200])
        .entry("i8", 1, (-1i8).to_le_bytes())
        .entry("u16", 2, 60_000u16.to_le_bytes())
        .entry("i16", 3, (-300i16).to_le_bytes())
        .entry("i32", 5, 70_000i32.to_le_bytes())
        .entry("f32", 6, 0.5f32.to_le_bytes())
        .entry("bool", 7, [1])
        .entry("u64", 10, u64::MAX.to_le_bytes())
        .entry("i64", 11, (-5i64).to_le_bytes())
        .entry("f64", 12, 0.1f64.to_le_bytes())
        .entry("lossy", 8, string(b"a\xff"))
        .entry("strings", 9, array(8, 3, &strings))
        .entry("floats", 9, array(6, 2, &[1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat()))
        .entry("shorts", 9, array(3, 2, &[(-7i16).to_le_bytes(), 9i16.to_le_bytes()].concat()))
        .entry("large", 9, array(10, 1, &u64::MAX.to_le_bytes()))
        .entry("flags", 9, array(7, 3, &[1, 0, 1]))
        .entry("nested", 9, array(9, 2, &nested))
        .entry("nothing", 9, array(8, 0, &[]))
        .tensor("b", &[64, 2], 8, 64)
        .tensor("a", &[3, 2], 0, 0)
        .tensor("c", &[256], 12, 256)
        .data(400)
        .aligned(64)
}

impl Gguf {
    fn aligned(mut self, alignment: usize) -> Gguf {
        self.alignment = alignment;
        self
    }
}
