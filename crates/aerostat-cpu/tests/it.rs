//! The CPU device gives the bits of the reference, on every instruction set and number of threads.

use aerostat_backend::conformance::{self, Case, Keep, Tolerance, Values};
use aerostat_backend::reference::Reference;
use aerostat_backend::{Attention, Backend, ErrorKind, KvType, formats};
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
        conformance::check(&case, &|| cpu(isa, 2), &reference, Tolerance::Exact).map_err(TestCaseError::fail)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matmul_of_any_shape(
        format in 0..formats::SUPPORTED.len(), rows in 1..80usize, n in 1..60usize, k in 1..1200usize, shift in 0..8usize,
    ) {
        let dtype = formats::SUPPORTED[format];
        let k = k.next_multiple_of(dtype.block_len());
        agree(Case::Matmul { dtype, rows, n, k, weights: Keep::Streamed(shift), values: Values::Plain })?;
    }

    #[test]
    fn attention_of_any_shape(
        kv in 0..3usize, kv_heads in 1..4usize, group in 1..7usize, key_dim in 1..140usize, value_dim in 1..140usize,
        page_tokens in 1..40usize, lengths in prop::collection::vec(1..90usize, 1..4), window in 0..60usize,
    ) {
        let kv_type = [KvType::F16, KvType::BF16, KvType::F32][kv];
        let (heads, window) = (kv_heads * group, (window > 0).then_some(window));
        let shape = Attention { heads, kv_heads, key_dim, value_dim, scale: 0.2, softcap: None, window };
        agree(Case::Attention { kv_type, shape, page_tokens, lengths, values: Values::Plain })?;
    }

    #[test]
    fn norm_of_any_shape(rows in 1..20usize, groups in 1..5usize, size in 1..600usize, in_place: bool) {
        agree(Case::RmsNorm { rows, groups, size, in_place, values: Values::Plain })?;
    }
}
