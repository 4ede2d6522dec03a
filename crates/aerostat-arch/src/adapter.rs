//! Adapters: what low-rank updates (LoRA) change of a model that was described without them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aerostat_checkpoint::{Adapter, Catalog, DType, Tensor, name_shown};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind};
use crate::spec::{Linear, Matrix, ModelSpec, Role, Runs, Update, Vector};

/// What PEFT puts before the names of the model's own modules.
const PREFIX: &str = "base_model.model.";

/// Adds an adapter's updates to a description. `catalog` is that of the model with the adapter's tensors
/// ([`Catalog::with`]).
///
/// # Errors
/// An adapter that is not LoRA or does more than low-rank updates of linear layers, tensors that belong to no matrix of
/// the model or are of another shape. Nothing of an adapter is left out in silence.
pub fn adapt(spec: &mut ModelSpec, adapter: &Adapter, catalog: &Catalog) -> Result<(), Error> {
    let refused = |message: String| Error::new(ErrorKind::Unsupported, &adapter.path, message);
    let factors = Factors::read(&adapter.config).map_err(refused)?;
    let mut pairs = pairs(&adapter.catalog, catalog).map_err(refused)?;
    let mut updates = Vec::new();
    for (block, of) in spec.blocks.iter().enumerate() {
        for (role, linear) in of.linears() {
            let Some(module) = module_of(&linear.weight) else { continue };
            let Some(pair) = pairs.get_mut(module) else { continue };
            pair.used = true;
            updates.push(pair.update((block, role), linear, catalog, &factors)?);
        }
    }
    let unused: Vec<&str> =
        pairs.iter().filter(|(_, pair)| !pair.used).map(|(name, _)| name.as_str()).collect();
    if let Some(first) = unused.first() {
        return Err(refused(format!(
            "the adapter changes {} of which this model has none that an adapter can change, such as `{first}`: is it made \
             for another model?",
            if unused.len() == 1 { "a module".to_owned() } else { format!("{} modules", unused.len()) }
        )));
    }
    if updates.is_empty() {
        return Err(refused("the adapter changes nothing: it has no lora_A and lora_B".to_owned()));
    }
    spec.updates = updates;
    Ok(())
}

/// The module whose weight a matrix is: its tensor's name without the last part.
fn module_of(matrix: &Matrix) -> Option<&str> {
    matrix.name.rsplit_once('.').map(|(module, _)| module)
}

/// The two factors of an update.
struct Pair<'a> {
    down: &'a Tensor,
    up: &'a Tensor,
    path: &'a Path,
    used: bool,
}

/// The adapter's tensors by the module that they change.
fn pairs<'a>(own: &'a Catalog, all: &'a Catalog) -> Result<BTreeMap<String, Pair<'a>>, String> {
    let mut modules = BTreeSet::new();
    for tensor in own.tensors() {
        let name = tensor.name.strip_prefix(PREFIX).unwrap_or(&tensor.name);
        let module = ["lora_A", "lora_B"].iter().find_map(|side| {
            ["weight", "default.weight"].iter().find_map(|end| name.strip_suffix(&format!(".{side}.{end}")))
        });
        let Some(module) = module else {
            let what = "is no lora_A.weight or lora_B.weight; other changes than low-rank ones of linear layers are not \
                        supported";
            return Err(format!("tensor `{}` {what}", name_shown(&tensor.name)));
        };
        modules.insert(module);
    }
    let find = |module: &str, side: &str| {
        let names = [PREFIX, ""].into_iter().flat_map(|prefix| {
            ["weight", "default.weight"].map(|end| format!("{prefix}{module}.{side}.{end}"))
        });
        // Offsets are those in the joined catalogue.
        names.into_iter().find_map(|name| all.get(own.get(&name)?.name.as_str()))
    };
    modules
        .into_iter()
        .map(|module| {
            let (Some(down), Some(up)) = (find(module, "lora_A"), find(module, "lora_B")) else {
                return Err(format!("`{module}` has one of lora_A and lora_B; both are needed"));
            };
            Ok((module.to_owned(), Pair { down, up, path: all.file_of(down), used: false }))
        })
        .collect()
}

impl Pair<'_> {
    fn update(
        &self,
        (block, role): (usize, Role),
        linear: &Linear,
        catalog: &Catalog,
        factors: &Factors,
    ) -> Result<Update, Error> {
        let matrix = &linear.weight;
        let module = module_of(matrix).unwrap_or(&matrix.name);
        let fail =
            |message: String| Error::new(ErrorKind::Tensor, self.path, format!("`{module}`: {message}"));
        let (&[rank, inputs], &[outputs, up_rank]) = (&self.down.shape[..], &self.up.shape[..]) else {
            return Err(fail(format!(
                "lora_A of shape {:?} and lora_B of shape {:?} are not two matrices",
                self.down.shape, self.up.shape
            )));
        };
        if rank == 0 || up_rank != rank || inputs != matrix.cols as u64 {
            return Err(fail(format!(
                "lora_A is [{rank}, {inputs}] and lora_B [{outputs}, {up_rank}], for a matrix of {} inputs",
                matrix.cols
            )));
        }
        for tensor in [self.down, self.up] {
            if !DType::COMPUTABLE.contains(&tensor.dtype) {
                return Err(fail(format!("{} is a format that adapters cannot have", tensor.dtype)));
            }
        }
        let (first, runs) = rows_of(matrix, outputs, catalog)
            .ok_or_else(|| fail(format!("lora_B has {outputs} outputs, the matrix {}", matrix.rows)))?;
        let rank = rank as usize;
        let whole = |tensor: &Tensor| Vector {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            len: tensor.elements() as usize,
            extent: tensor.extent,
            runs: None,
            offset: 0.0,
        };
        let (down, mut up) = (whole(self.down), whole(self.up));
        let row_bytes = self.up.extent.bytes / outputs;
        let spanned = runs.map_or(matrix.rows, |runs| runs.place(matrix.rows - 1) + 1);
        up.extent.offset += first as u64 * row_bytes;
        up.extent.bytes = spanned as u64 * row_bytes;
        up.len = matrix.rows * rank;
        up.runs = runs.map(|runs| Runs { rows: runs.rows * rank, stride: runs.stride * rank });
        let factor = factors.of(module, rank);
        Ok(Update { block, role, rank, down, up, factor })
    }
}

/// Which of a module's `outputs` rows a matrix is: the first of them, and how they lie among the others. `None` if they
/// are not there.
fn rows_of(matrix: &Matrix, outputs: u64, catalog: &Catalog) -> Option<(usize, Option<Runs>)> {
    if outputs == matrix.rows as u64 && matrix.runs.is_none() {
        return Some((0, None));
    }
    let tensor = catalog.get(&matrix.name)?;
    if matrix.k_major || matrix.scales.is_some() || matrix.tiles.is_some() || matrix.row_bytes() == 0 {
        return None;
    }
    let first = (matrix.extent.offset.checked_sub(tensor.extent.offset)? / matrix.row_bytes()) as usize;
    let last = matrix.runs.map_or(matrix.rows - 1, |runs| runs.place(matrix.rows - 1));
    let is_whole = tensor.extent.bytes == outputs * matrix.row_bytes();
    (is_whole && ((first + last) as u64) < outputs).then_some((first, matrix.runs))
}

/// What each product is multiplied by.
struct Factors {
    alpha: f64,
    /// By the end of the module's name.
    alphas: Vec<(String, f64)>,
    /// Over the square root of the rank, not the rank.
    by_root: bool,
}

impl Factors {
    fn read(config: &Map<String, Value>) -> Result<Self, String> {
        let kind = config.get("peft_type").and_then(Value::as_str).ok_or("`peft_type` is missing")?;
        if !kind.eq_ignore_ascii_case("lora") {
            return Err(format!("adapters of type `{}` are not supported: LoRA is", name_shown(kind)));
        }
        for key in ["use_dora", "lora_bias", "alora_invocation_tokens", "use_qalora", "arrow_config"] {
            if config.get(key).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false))) {
                return Err(format!("adapters with `{key}` are not supported: plain LoRA is"));
            }
        }
        for key in ["modules_to_save", "trainable_token_indices", "layer_replication", "target_parameters"] {
            let is_empty = |value: &Value| match value {
                Value::Null => true,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if config.get(key).is_some_and(|value| !is_empty(value)) {
                return Err(format!(
                    "adapters with `{key}` are not supported: plain LoRA of linear layers is"
                ));
            }
        }
        if let Some(way) = config.get("init_lora_weights").and_then(Value::as_str)
            && ["pissa", "olora", "corda", "loftq"].iter().any(|changed| way.starts_with(changed))
        {
            return Err(format!(
                "`init_lora_weights` is `{}`: such an adapter belongs to a base model that was changed with it; save it as \
                 a plain LoRA first (PEFT's path_initial_model_for_weight_conversion)",
                name_shown(way)
            ));
        }
        let number = |value: &Value| value.as_f64().filter(|alpha| alpha.is_finite());
        let alpha = config.get("lora_alpha").map_or(Some(8.0), number);
        let alpha = alpha.ok_or("`lora_alpha` is not a number")?;
        let mut alphas = Vec::new();
        if let Some(patterns) = config.get("alpha_pattern").and_then(Value::as_object) {
            for (pattern, value) in patterns {
                let name = pattern.trim_start_matches('^');
                let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
                let alpha = number(value).filter(|_| is_name);
                let alpha = alpha.ok_or_else(|| {
                    format!("`alpha_pattern` has `{}`: names of modules are supported", name_shown(pattern))
                })?;
                alphas.push((name.to_owned(), alpha));
            }
        }
        let by_root = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self { alpha, alphas, by_root })
    }

    /// That of a module.
    fn of(&self, module: &str, rank: usize) -> f32 {
        let named =
            |name: &str| module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let own = self.alphas.iter().find(|(name, _)| named(name)).map(|(_, alpha)| *alpha);
        let rank = if self.by_root { (rank as f64).sqrt() } else { rank as f64 };
        (own.unwrap_or(self.alpha) / rank) as f32
    }
}
