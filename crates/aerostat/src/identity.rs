//! Which options change the bits of results.

use crate::KvType;
use crate::options::{Device, Options};

/// What of the options changes the bits of results, in words such as `kv f16`.
///
/// Results that were computed with options of the same identity, from the same model, are the same bit for bit, however
/// else the options differ. Whoever keeps results and goes on with them later compares it, as a job does; so the words for
/// options that there are already must not change. What changes bits in a model's files, such as the format of its weights,
/// is not an option but part of the model.
pub fn result_identity(options: &Options) -> String {
    // Without `..`, so that whoever adds an option says here whether it changes bits.
    let Options {
        kv,
        device,
        // How much is kept where, and how much is done at once.
        memory_bytes: _,
        vram_bytes: _,
        budget_of: _,
        rows_max: _,
        tile_bytes: _,
        prefill_chunk: _,
        prefixes: _,
        draft: _,
        spill: _,
        prompt_cache: _,
        pinned_bytes_max: _,
        // Who computes, and how weights are read.
        threads: _,
        isa: _,
        io: _,
        // What is expected and learned.
        read_bytes_per_second: _,
        expert_use: _,
        expert_trace: _,
    } = options;
    let device = match device {
        // All of them compute on the host, with the same bits.
        Device::Auto | Device::Cpu | Device::Reference => String::new(),
        Device::Gpu(number) => format!(" on {}", crate::gpu::name(*number)),
    };
    let kv = match kv {
        KvType::F16 | KvType::BF16 | KvType::F32 => kv.name(),
        KvType::Q8 => "f16 and q8",
        // Jobs that were begun when both in 8 bits had this name go on.
        KvType::Q8All => "q8",
    };
    format!("kv {kv}{device}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IoChoice, Isa, Prefixes};

    /// Jobs that run today were begun with these words.
    #[test]
    fn the_identity_names_the_type_of_keys_and_values() {
        for (kv, words) in [
            (KvType::F16, "kv f16"),
            (KvType::BF16, "kv bf16"),
            (KvType::F32, "kv f32"),
            (KvType::Q8, "kv f16 and q8"),
            (KvType::Q8All, "kv q8"),
        ] {
            assert_eq!(result_identity(&Options { kv, ..Options::default() }), words);
        }
        assert_eq!(KvType::ALL.len(), 5, "a type that the words above do not name");
    }

    /// A job that was begun on a GPU does not go on elsewhere.
    #[test]
    fn the_identity_names_a_gpu() {
        let of = |device| result_identity(&Options { device, ..Options::default() });
        assert!(of(Device::Gpu(None)).starts_with("kv f16 on "));
        assert_ne!(of(Device::Gpu(None)), of(Device::Cpu));
    }

    /// Invariant 2 of the architecture: nothing else shows in a result.
    #[test]
    fn no_other_option_is_part_of_it() {
        let plain = result_identity(&Options::default());
        for device in [Device::Auto, Device::Cpu, Device::Reference] {
            let options = Options {
                budget_of: crate::BudgetOf::Engine,
                memory_bytes: Some(1 << 30),
                vram_bytes: Some(1 << 30),
                device,
                threads: Some(3),
                isa: Some(Isa::Portable),
                io: IoChoice::Buffered,
                rows_max: Some(7),
                kv: KvType::default(),
                tile_bytes: Some(1 << 16),
                prefill_chunk: Some(5),
                prefixes: Prefixes::Apart,
                draft: crate::Draft::None,
                spill: Some("spill".into()),
                prompt_cache: None,
                pinned_bytes_max: Some(0),
                read_bytes_per_second: Some(1e9),
                expert_use: Some("experts".into()),
                expert_trace: Some("trace".into()),
            };
            assert_eq!(result_identity(&options), plain);
        }
    }
}
