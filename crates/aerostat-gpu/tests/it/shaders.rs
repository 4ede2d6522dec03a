//! Every kernel in every variant, as naga checks it and writes it for Vulkan, Metal and DirectX 12: on systems whose drivers
//! nobody tested, kernels get as far as those drivers' own compilers.

use std::collections::{BTreeMap, HashSet};

use aerostat_backend::KvElement;
use aerostat_backend::quantised::{Code, Table};
use aerostat_checkpoint::DType;
use aerostat_gpu::{AttentionShape, Gpu, Kernel, Weights};
use naga::back::{hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ResourceBinding};

const ELEMENTS: [KvElement; 4] = [KvElement::F16, KvElement::BF16, KvElement::F32, KvElement::Q8];
/// Elements of keys and values: few, odd, many, and more than a workgroup has threads.
const DIMS: [(u32, u32); 5] = [(1, 1), (10, 6), (64, 64), (192, 128), (2048, 512)];
/// Those that stand for all others of a variant.
const USUAL_DIMS: (u32, u32) = (64, 64);
/// Rows of workgroups of products.
const ROWS: [u32; 3] = [1, 8, 32];

/// Every code, in every number of bits that it can have.
fn codes() -> Vec<Code> {
    let tables = [Table::E2M1, Table::Nf4, Table::Fp4];
    let bits = 1..=8;
    let mut codes = vec![Code::E4M3, Code::E5M2, Code::I8, Code::Halves];
    codes.extend(bits.clone().map(Code::Packed).chain(bits.map(Code::Columns)));
    codes.extend(tables.map(Code::LowFirst).into_iter().chain(tables.map(Code::HighFirst)));
    codes
}

fn attention(key: KvElement, value: KvElement, (key_dim, value_dim): (u32, u32)) -> [Kernel; 4] {
    [(false, false), (true, false), (false, true), (true, true)].map(|(values_in_keys, selected)| {
        Kernel::Attention(AttentionShape { key, value, key_dim, value_dim, values_in_keys, selected })
    })
}

/// Every kernel in every variant; of heads' sizes, which are numbers in the code, some.
fn kernels() -> Vec<Kernel> {
    let mut all = vec![
        Kernel::Map,
        Kernel::Norm,
        Kernel::Rope,
        Kernel::Copy,
        Kernel::Nested,
        Kernel::KvWrite,
        Kernel::KvCopy,
        Kernel::ShortConv,
        Kernel::DeltaRule,
        Kernel::StateScan,
        Kernel::Select,
        Kernel::PeakFma,
        Kernel::PeakRead,
    ];
    let plain = DType::COMPUTABLE.iter().copied();
    let weights = plain.clone().map(Weights::Plain).chain(codes().into_iter().map(Weights::Codes));
    for weights in weights {
        all.extend(ROWS.map(|rows| Kernel::Matmul { weights, rows }));
        all.push(Kernel::KMajor(weights));
    }
    all.extend(plain.flat_map(|dtype| [Kernel::RowNorms(dtype), Kernel::WeightRows(dtype)]));
    for key in ELEMENTS {
        all.extend(ELEMENTS.into_iter().flat_map(|value| attention(key, value, USUAL_DIMS)));
        all.extend(DIMS.into_iter().flat_map(|dims| attention(key, key, dims)));
        all.extend(DIMS.map(|(dim, _)| Kernel::IndexScore { key, dim }));
    }
    let mut seen = HashSet::new();
    all.retain(|kernel| seen.insert(*kernel));
    all
}

/// The kernel of the same variant with heads of the usual size. Whoever adds a kernel adds it here and in the list.
fn usual(kernel: Kernel) -> Kernel {
    match kernel {
        Kernel::Attention(shape) => {
            Kernel::Attention(AttentionShape { key_dim: USUAL_DIMS.0, value_dim: USUAL_DIMS.1, ..shape })
        }
        Kernel::IndexScore { key, .. } => Kernel::IndexScore { key, dim: USUAL_DIMS.0 },
        Kernel::Map
        | Kernel::Norm
        | Kernel::Rope
        | Kernel::Copy
        | Kernel::Matmul { .. }
        | Kernel::KMajor(_)
        | Kernel::RowNorms(_)
        | Kernel::WeightRows(_)
        | Kernel::Nested
        | Kernel::KvWrite
        | Kernel::KvCopy
        | Kernel::ShortConv
        | Kernel::DeltaRule
        | Kernel::StateScan
        | Kernel::Select
        | Kernel::PeakFma
        | Kernel::PeakRead => kernel,
    }
}

/// All that a device has compiled is of the list.
pub(crate) fn assert_listed(gpu: &Gpu) {
    let listed: HashSet<Kernel> = kernels().into_iter().collect();
    let compiled = gpu.kernels();
    assert!(!compiled.is_empty());
    for kernel in compiled {
        assert!(listed.contains(&usual(kernel)), "{kernel:?} is not in the list of this test");
    }
}

/// What devices are asked for, and nothing else; f16 are looked at in f32.
const CAPABILITIES: Capabilities = Capabilities::IMMEDIATES.union(Capabilities::SHADER_FLOAT16_IN_FLOAT32);

const CHECKED: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Restrict,
    buffer: BoundsCheckPolicy::Restrict,
    image_load: BoundsCheckPolicy::Unchecked,
    binding_array: BoundsCheckPolicy::Unchecked,
};

#[test]
fn every_kernel_is_valid_and_can_be_written_for_vulkan_metal_and_directx() {
    let kernels = kernels();
    println!("{} kernels", kernels.len());
    for kernel in kernels {
        let source = kernel.source();
        let module = naga::front::wgsl::parse_str(&source)
            .unwrap_or_else(|error| panic!("{kernel:?}: {}", error.emit_to_string(&source)));
        let mut validator = Validator::new(ValidationFlags::all(), CAPABILITIES);
        let info = validator
            .validate(&module)
            .unwrap_or_else(|error| panic!("{kernel:?}: {}", error.emit_to_string(&source)));
        fits_the_limits(kernel, &module);
        let bindings = bindings(&module);
        let vulkan = vulkan(&module, &info);
        // The magic number of SPIR-V.
        assert_eq!(vulkan.first(), Some(&0x0723_0203), "{kernel:?}");
        let metal = metal(&module, &info, &bindings).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
        assert!(metal.contains("kernel void main_"), "{kernel:?}");
        for model in [hlsl::ShaderModel::V5_1, hlsl::ShaderModel::V6_0] {
            let directx = directx(&module, &info, &bindings, model)
                .unwrap_or_else(|error| panic!("{kernel:?}, {model:?}: {error}"));
            assert!(directx.contains("[numthreads("), "{kernel:?}");
        }
    }
}

/// Limits that docs/gpu.md promises, and no part that is not always there.
fn fits_the_limits(kernel: Kernel, module: &Module) {
    const WORKGROUP_BYTES_MAX: u32 = 16 << 10;
    const THREADS_MAX: u32 = 256;
    const BUFFERS_MAX: usize = 8;
    const PARAMETER_BYTES_MAX: u32 = 128;
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("types have sizes");
    let (mut workgroup, mut parameters, mut buffers) = (0, 0, 0);
    for (_, variable) in module.global_variables.iter() {
        let bytes = layouter[variable.ty].size;
        match variable.space {
            AddressSpace::WorkGroup => workgroup += bytes.next_multiple_of(16),
            AddressSpace::Immediate => parameters += bytes,
            AddressSpace::Storage { .. } => buffers += 1,
            ref other => panic!("{kernel:?} has a variable in {other:?}"),
        }
    }
    assert!(workgroup <= WORKGROUP_BYTES_MAX, "{kernel:?}: threads share {workgroup} bytes");
    assert!(parameters <= PARAMETER_BYTES_MAX, "{kernel:?}: {parameters} bytes of parameters");
    assert!(buffers <= BUFFERS_MAX, "{kernel:?}: {buffers} buffers");
    let [entry] = &module.entry_points[..] else { panic!("{kernel:?} has one entry point") };
    assert_eq!(entry.name, "main");
    assert!(entry.workgroup_size.iter().product::<u32>() <= THREADS_MAX, "{kernel:?}");
}

/// The places of buffers, and whether they are written to.
fn bindings(module: &Module) -> Vec<(ResourceBinding, bool)> {
    let variables = module.global_variables.iter().filter_map(|(_, variable)| {
        let AddressSpace::Storage { access } = variable.space else { return None };
        Some((variable.binding?, access.contains(naga::StorageAccess::STORE)))
    });
    variables.collect()
}

fn vulkan(module: &Module, info: &ModuleInfo) -> Vec<u32> {
    let options = spv::Options {
        // That of Vulkan 1.1.
        lang_version: (1, 3),
        // The places of bindings are those that the code names.
        fake_missing_bindings: true,
        bounds_check_policies: CHECKED,
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        capabilities: Some([spv::Capability::Shader].into_iter().collect()),
        ..spv::Options::default()
    };
    let entry =
        spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".to_owned() };
    spv::write_vec(module, info, &options, Some(&entry)).unwrap_or_else(|error| panic!("{error}"))
}

fn metal(
    module: &Module,
    info: &ModuleInfo,
    bindings: &[(ResourceBinding, bool)],
) -> Result<String, msl::Error> {
    let place = |(slot, (binding, mutable)): (u8, &(ResourceBinding, bool))| {
        let target = msl::BindTarget { buffer: Some(slot), mutable: *mutable, ..msl::BindTarget::default() };
        (*binding, target)
    };
    let resources = msl::EntryPointResources {
        resources: (0..).zip(bindings).map(place).collect(),
        immediates_buffer: Some(bindings.len() as u8),
        sizes_buffer: Some(bindings.len() as u8 + 1),
    };
    let options = msl::Options {
        lang_version: (2, 0),
        per_entry_point_map: BTreeMap::from([("main".to_owned(), resources)]),
        fake_missing_bindings: false,
        bounds_check_policies: CHECKED,
        zero_initialize_workgroup_memory: false,
        ..msl::Options::default()
    };
    let entry = msl::PipelineOptions {
        entry_point: Some((naga::ShaderStage::Compute, "main".to_owned())),
        ..msl::PipelineOptions::default()
    };
    let (text, found) = msl::write_string(module, info, &options, &entry)?;
    found.entry_point_names.into_iter().for_each(|name| assert!(name.is_ok(), "{name:?}"));
    Ok(text)
}

fn directx(
    module: &Module,
    info: &ModuleInfo,
    bindings: &[(ResourceBinding, bool)],
    shader_model: hlsl::ShaderModel,
) -> Result<String, hlsl::Error> {
    let place = |(register, (binding, _)): (u32, &(ResourceBinding, bool))| {
        (*binding, hlsl::BindTarget { register, restrict_indexing: true, ..hlsl::BindTarget::default() })
    };
    let options = hlsl::Options {
        shader_model,
        binding_map: (0..).zip(bindings).map(place).collect(),
        fake_missing_bindings: false,
        immediates_target: Some(hlsl::BindTarget { space: 1, ..hlsl::BindTarget::default() }),
        zero_initialize_workgroup_memory: false,
        ..hlsl::Options::default()
    };
    let entry = hlsl::PipelineOptions { entry_point: Some((naga::ShaderStage::Compute, "main".to_owned())) };
    let mut text = String::new();
    let found = hlsl::Writer::new(&mut text, &options, &entry).write(module, info, None)?;
    found.entry_point_names.into_iter().for_each(|name| assert!(name.is_ok(), "{name:?}"));
    Ok(text)
}
