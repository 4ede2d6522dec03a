//! The CPU device gives the bits of the reference, on every instruction set and number of threads.

use aerostat_backend::coded::{Code, Coding, Rounding, Table};
use aerostat_backend::conformance::{self, Case, Keep, Tolerance, Values};
use aerostat_backend::reference::Reference;
use aerostat_backend::{Attention, Backend, ErrorKind, KvType, Mat, Tile, Weight};
use aerostat_checkpoint::DType;
use aerostat_cpu::{Cpu, CpuConfig, Isa};
use proptest::prelude::*;

fn cpu(isa: Isa, threads: usize) -> Box<dyn Backend> {
    Box::new(Cpu::new(CpuConfig { threads, isa: Some(isa) }).unwrap())
}

fn reference() -> Box<dyn Backend> {
    Box::new(Reference::new())
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_bits_of_the_reference() {
    for isa in Isa::available() {
        for threads in 1..=3 {
            conformance::run(&|| cpu(isa, threads), &reference, Tolerance::Exact);
        }
    }
}

/// Products that vanish to -0.0 leave lanes of -0.0; padding the last columns with +0.0 would turn them to +0.0.
#[test]
fn sums_of_vanishing_products_keep_the_sign_of_zero() {
    const COLS: usize = 17;
    let bytes: Vec<u8> = [1e-30f32; 5 * COLS].iter().flat_map(|w| w.to_le_bytes()).collect();
    let tile = Tile { dtype: DType::F32, rows: 5, cols: COLS, bytes: &bytes };
    for isa in Isa::available() {
        for rows in [1, 20] {
            let mut cpu = cpu(isa, 1);
            let x = Mat::new(cpu.allocate(rows * COLS).unwrap(), rows, COLS);
            let y = Mat::new(cpu.allocate(rows * 5).unwrap(), rows, 5);
            cpu.write(x, &vec![-1e-30; rows * COLS]).unwrap();
            cpu.matmul(Weight::Streamed(tile), x, y).unwrap();
            assert!(
                cpu.read(y).unwrap().iter().all(|y| y.to_bits() == (-0.0f32).to_bits()),
                "{isa}, {rows} rows"
            );
        }
    }
}

#[test]
fn capabilities_name_the_instruction_set_and_threads() {
    let capabilities = cpu(Isa::Portable, 2).capabilities();
    let got = (capabilities.device, capabilities.detail.as_str(), capabilities.threads);
    assert_eq!(got, ("cpu", "portable", 2));
}

#[test]
fn a_device_without_threads_is_refused() {
    let error = Cpu::new(CpuConfig { threads: 0, isa: None }).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

fn agree(case: Case) -> Result<(), TestCaseError> {
    for isa in Isa::available() {
        conformance::check(&case, &|| cpu(isa, 2), &reference, Tolerance::Exact)
            .map_err(TestCaseError::fail)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matmul_of_any_shape(
        format in 0..DType::COMPUTABLE.len(), rows in 1..80usize, n in 1..60usize, k in 1..1200usize, shift in 0..8usize,
    ) {
        let dtype = DType::COMPUTABLE[format];
        let k = k.next_multiple_of(dtype.block_len());
        agree(Case::Matmul { dtype, rows, n, k, weights: Keep::Streamed(shift), values: Values::Plain })?;
    }

    #[test]
    fn scaled_codes_of_any_shape(
        code in 0..4usize, rounding in 0..3usize, rows in 1..40usize, n in 1..80usize, k in 1..600usize,
        block in (1..200usize, 1..200usize), first_row in 0..300usize, shift in 0..8usize,
    ) {
        let code = [Code::E4M3, Code::LowFirst(Table::E2M1), Code::HighFirst(Table::Nf4), Code::Packed(5)][code];
        let rounding = [Rounding::BF16, Rounding::F16, Rounding::F32][rounding];
        let coding = Coding { code, factor: 1.0, rounding };
        agree(Case::MatmulScaled { coding, rows, n, k, block, first_row, weights: Keep::Streamed(shift) })?;
    }

    #[test]
    fn attention_of_any_shape(
        kv in 0..3usize, kv_heads in 1..4usize, group in 1..7usize, key_dim in 1..140usize, value_dim in 1..140usize,
        page_tokens in 1..40usize, lengths in prop::collection::vec(1..90usize, 1..4), window in 0..60usize,
    ) {
        let kv_type = [KvType::F16, KvType::BF16, KvType::F32][kv];
        let (heads, window) = (kv_heads * group, (window > 0).then_some(window));
        let shape = Attention { heads, kv_heads, key_dim, value_dim, scale: 0.2, softcap: None, window, alibi: page_tokens % 2 == 1 };
        agree(Case::Attention { kv_type, shape, page_tokens, lengths, values: Values::Plain })?;
    }

    #[test]
    fn norm_of_any_shape(rows in 1..20usize, groups in 1..5usize, size in 1..600usize, in_place: bool) {
        agree(Case::RmsNorm { rows, groups, size, in_place, values: Values::Plain })?;
    }
}
