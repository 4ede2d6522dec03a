//! Matrices of codes of a few bits, whose scales and zero points are read with them: where they lie and how, by the names of
//! their stored. `quantization_config` says what names do not.

use aerostat_checkpoint::{Code, DType, Extent, Numbers, Table, Tensor};
use serde_json::Value;

use super::part::{Part, Stack};
use super::scales::whole;
use super::stored::Stored;
use crate::config::quantisation::{config, model_type};
use crate::error::Error;
use crate::spec::{Beside, Companion, Matrix, Nested, Scales};

/// Elements that share a scale in MXFP4.
const MXFP4_GROUP: usize = 32;
/// Scales of bitsandbytes that share one of their own.
const NESTED_LEN: usize = 256;

/// The names of a matrix's codes, which it has in place of `.weight`.
const CODES: &[&str] = &["qweight", "weight_packed"];

/// Whether the checkpoint has such codes of this name.
pub(super) fn has(stored: Stored<'_>, stem: &str) -> bool {
    CODES.iter().any(|suffix| stored.contains(&format!("{stem}.{suffix}")))
}

/// Whether they are stored by inputs: then the rows of one matrix among several do not lie together.
pub(super) fn by_inputs(stored: Stored<'_>, stem: &str) -> bool {
    config(stored.keys).is_some() && stored.contains(&format!("{stem}.qweight"))
}

/// Rows (outputs) of the whole matrix of this name, if it is one of codes.
pub(super) fn outputs(stored: Stored<'_>, stem: &str, cols: usize) -> Option<usize> {
    let tensor = |suffix: &str| stored.get(&format!("{stem}.{suffix}"));
    let rows = match (tensor("weight_packed"), tensor("qweight"), tensor("weight.absmax")) {
        (Some(packed), ..) => *packed.shape.first()?,
        (_, Some(_), _) => *tensor("scales")?.shape.get(1)?,
        (.., Some(_)) => tensor("weight")?.elements().checked_mul(2)? / cols.max(1) as u64,
        _ => return None,
    };
    usize::try_from(rows).ok()
}

/// The part of a matrix of codes, if the checkpoint has codes of this name.
pub(super) fn find(stored: Stored<'_>, stem: &str, part: Part, cols: usize) -> Result<Option<Matrix>, Error> {
    if config(stored.keys).is_none() {
        return Ok(None);
    }
    let codes = Codes { stored, stem, part, cols };
    match (codes.tensor("qweight"), codes.tensor("weight_packed"), codes.tensor("weight")) {
        (Some(words), ..) if codes.method() == "awq" => codes.awq(words).map(Some),
        (Some(words), ..) => codes.gptq(words).map(Some),
        (_, Some(words), _) => codes.packed(words).map(Some),
        (.., Some(bytes)) if codes.tensor("weight.absmax").is_some() => codes.four_bits(bytes).map(Some),
        _ => Ok(None),
    }
}

/// One matrix of a stack of them in MXFP4: the blocks, `[matrices, rows, groups, 16]`, have the suffix
/// `_blocks`.
pub(super) fn blocks(
    stored: Stored<'_>,
    stem: &str,
    stack: Stack,
    part: Part,
    cols: usize,
) -> Result<Matrix, Error> {
    let name = format!("{stem}_blocks");
    let whole = part.total;
    let part = stack.part(part);
    let codes = Codes { stored, stem, part, cols };
    let groups = cols / MXFP4_GROUP;
    let bytes = codes.require(&name, &[DType::U8], &[stack.count, whole, groups, MXFP4_GROUP / 2])?;
    if !cols.is_multiple_of(MXFP4_GROUP) {
        return Err(stored.bad(bytes, format!("rows of {cols} are not whole groups of {MXFP4_GROUP}")));
    }
    let name = format!("{stem}_scales");
    let scales = codes.require(&name, &[DType::U8, DType::F8_E8M0], &[stack.count, whole, groups])?;
    let base = part.first;
    let scales = codes.companion(scales, Beside::Scales, Numbers::E8M0, (base, codes.span()), groups);
    let scales = Scales {
        block_cols: MXFP4_GROUP,
        companions: vec![scales],
        ..codes.scales(Code::LowFirst(Table::E2M1), DType::BF16)
    };
    Ok(codes.matrix(bytes, scales))
}

/// A matrix that is looked for.
struct Codes<'a> {
    stored: Stored<'a>,
    stem: &'a str,
    part: Part,
    cols: usize,
}

impl<'a> Codes<'a> {
    /// GPTQ: `[inputs * bits / 32, outputs]` words, zero points `[groups, outputs * bits / 32]`.
    fn gptq(&self, words: &'a Tensor) -> Result<Matrix, Error> {
        self.refuse_parts(words)?;
        let (inputs, outputs) = (self.cols, self.part.total);
        let bits = words.shape.first().copied().unwrap_or(0).saturating_mul(32) / inputs.max(1) as u64;
        let bits = u32::try_from(bits).unwrap_or(0);
        let code = Code::Columns(bits);
        let is_whole = [2, 3, 4, 8].contains(&bits)
            && inputs.is_multiple_of(code.run().1)
            && outputs.saturating_mul(bits as usize).is_multiple_of(32);
        if !is_whole {
            let message = format!("it is not {inputs} inputs of {outputs} outputs by 2, 3, 4 or 8 bits");
            return Err(self.stored.bad(words, message));
        }
        self.require(&words.name, &[DType::I32], &[inputs.saturating_mul(bits as usize) / 32, outputs])?;
        // Stored zero points are one less than they are, but in the second version.
        let more = u32::from(self.text("checkpoint_format") != Some("gptq_v2"));
        let points = Numbers::Points { code: Code::Packed(bits), more };
        let by_index = self.flag("desc_act");
        let mut scales = self.by_inputs(code, points, outputs * bits as usize / 32, by_index)?;
        if let Some(groups) = self.tensor("g_idx").filter(|_| by_index) {
            scales.companions.push(self.groups(groups, scales.companions[0].shape.0)?);
        }
        Ok(Matrix { k_major: true, ..self.matrix(words, scales) })
    }

    /// AWQ: `[inputs, outputs / 8]` words, zero points `[groups, outputs / 8]`.
    fn awq(&self, words: &'a Tensor) -> Result<Matrix, Error> {
        self.refuse_parts(words)?;
        let (inputs, outputs) = (self.cols, self.part.total);
        if !outputs.is_multiple_of(8) {
            return Err(self.stored.bad(words, format!("{outputs} outputs are not whole words of 8")));
        }
        self.require(&words.name, &[DType::I32], &[inputs, outputs / 8])?;
        let points = Numbers::Points { code: Code::Halves, more: 0 };
        let scales = self.by_inputs(Code::Halves, points, outputs / 8, false)?;
        Ok(Matrix { k_major: true, ..self.matrix(words, scales) })
    }

    /// The scales and zero points of a matrix that is stored by inputs, of groups of inputs.
    fn by_inputs(&self, code: Code, points: Numbers, words: usize, by_index: bool) -> Result<Scales, Error> {
        let outputs = self.part.total;
        let name = format!("{}.scales", self.stem);
        let scales = self.some(&name)?;
        let groups = scales.shape.first().map_or(0, |n| usize::try_from(*n).unwrap_or(0));
        let size = self.group_size(scales, groups, by_index)?;
        let scales = self.require(&name, FLOATS, &[groups, outputs])?;
        let zeros = self.require(&format!("{}.qzeros", self.stem), &[DType::I32], &[groups, words])?;
        let companion = |tensor: &Tensor, what, stored| Companion {
            name: tensor.name.clone(),
            what,
            dtype: tensor.dtype,
            stored,
            shape: (groups, outputs),
            rows: groups,
            extent: tensor.extent,
        };
        let companions =
            vec![companion(scales, Beside::Scales, Numbers::Plain), companion(zeros, Beside::Zeros, points)];
        let rounding = scales.dtype;
        Ok(Scales { companions, block_rows: size, block_cols: 1, ..self.scales(code, rounding) })
    }

    /// compressed-tensors `pack-quantized`: `[outputs, words]`, zero points packed down the columns.
    fn packed(&self, words: &'a Tensor) -> Result<Matrix, Error> {
        let (rows, cols) = (self.part.total, self.cols);
        let row_words = words.shape.get(1).copied().unwrap_or(0);
        let code = [2, 4, 8].map(Code::Packed).into_iter().find(|code| {
            code.row_bytes(cols) as u64 == row_words.saturating_mul(4) && self.may_have_bits(code.bits())
        });
        let Some(code) = code else {
            let message = format!("it is not {cols} inputs by 2, 4 or 8 bits, as `num_bits` says");
            return Err(self.stored.bad(words, message));
        };
        self.require(&words.name, &[DType::I32], &[rows, code.row_bytes(cols) / 4])?;
        let name = format!("{}.weight_scale", self.stem);
        let scales = self.some(&name)?;
        let groups = match *scales.shape.as_slice() {
            [n] if n == rows as u64 => 1,
            [_, groups] => usize::try_from(groups).unwrap_or(0),
            _ => 0,
        };
        let by_index = self.by_index();
        let size = self.group_size(scales, groups, by_index)?;
        match scales.shape.len() {
            1 => self.require(&name, FLOATS, &[rows])?,
            _ => self.require(&name, FLOATS, &[rows, groups])?,
        };
        let down = Code::Columns(code.bits() as u32);
        // Several rows share a word of zero points.
        let points = self.tensor("weight_zero_point");
        let base =
            if points.is_some() { self.part.first / down.run().1 * down.run().1 } else { self.part.first };
        let range = (base, self.part.first + self.span() - base);
        let mut companions = vec![self.companion(scales, Beside::Scales, Numbers::Plain, range, groups)];
        if let Some(points) = points {
            let words = rows.div_ceil(down.run().1);
            let points = self.require(&points.name, &[DType::I32], &[words, groups])?;
            let stored = Numbers::Points { code: down, more: 0 };
            companions.push(self.companion(points, Beside::Zeros, stored, range, groups));
        }
        if let Some(index) = self.tensor("weight_g_idx").filter(|_| by_index) {
            companions.push(self.groups(index, groups)?);
        }
        let rounding = scales.dtype;
        let first_row = self.part.first - base;
        let scales = Scales { companions, block_cols: size, first_row, ..self.scales(code, rounding) };
        Ok(self.matrix(words, scales))
    }

    /// bitsandbytes NF4 and FP4: two elements in a byte, one scale for a run of elements, which may be some rows.
    fn four_bits(&self, bytes: &'a Tensor) -> Result<Matrix, Error> {
        let (total, cols) = (self.part.total, self.cols);
        let elements = total.saturating_mul(cols);
        self.require(&bytes.name, &[DType::U8], &[elements.div_ceil(2), 1])?;
        let kinds = [("fp4", Table::Fp4), ("nf4", Table::Nf4)];
        let found = kinds.into_iter().find_map(|(kind, table)| {
            let state = self.tensor(&format!("weight.quant_state.bitsandbytes__{kind}"))?;
            Some((state, table))
        });
        let Some((state, table)) = found else {
            return Err(self
                .stored
                .bad(bytes, "no tensor beside it says whether it is FP4 or NF4".to_owned()));
        };
        let absmax = self.some(&format!("{}.weight.absmax", self.stem))?;
        let count = absmax.shape.iter().product::<u64>();
        let sizes = [32, 64, 128, 256, 512, 1024, 2048, 4096];
        let size = sizes.into_iter().find(|size| elements.div_ceil(*size) as u64 == count);
        let blocks = size.and_then(|size| match cols {
            _ if cols.is_multiple_of(size) => Some((1, size)),
            _ if size.is_multiple_of(cols) => Some((size / cols, cols)),
            _ => None,
        });
        let Some((block_rows, block_cols)) = blocks.filter(|_| cols.is_multiple_of(2)) else {
            let message =
                format!("{count} scales are not those of {total} rows of {cols} by a known block size");
            return Err(self.stored.bad(absmax, message));
        };
        let (rows, groups) = (total.div_ceil(block_rows), cols / block_cols);
        let first = self.part.first / block_rows;
        let end = (self.part.first + self.span()).div_ceil(block_rows);
        let is_nested = absmax.dtype == DType::U8;
        let types: &[DType] = if is_nested { &[DType::U8] } else { &[DType::F32] };
        self.require(&absmax.name, types, &[rows * groups])?;
        let stored = if is_nested { Numbers::Nested } else { Numbers::Plain };
        let viewed = Codes { part: Part { total: rows, ..self.part }, ..*self };
        let companion = viewed.companion(absmax, Beside::Scales, stored, (first, end - first), groups);
        let nested = match is_nested {
            true => Some(self.nested(rows * groups, first * groups)?),
            false => None,
        };
        let scales = Scales {
            companions: vec![companion],
            nested,
            block_rows,
            block_cols,
            first_row: self.part.first - first * block_rows,
            state: Some(whole(state)),
            ..self.scales(Code::HighFirst(table), model_type(self.stored.keys))
        };
        Ok(self.matrix(bytes, scales))
    }

    /// Scales of `count` scales.
    fn nested(&self, count: usize, first: usize) -> Result<Nested, Error> {
        let vector = |suffix: &str, len: usize| {
            let name = format!("{}.weight.{suffix}", self.stem);
            self.require(&name, &[DType::F32], &[len]).map(whole)
        };
        Ok(Nested {
            values: vector("nested_quant_map", 256)?,
            scales: vector("nested_absmax", count.div_ceil(NESTED_LEN))?,
            len: NESTED_LEN,
            first,
        })
    }

    /// The inputs that share a scale, where `groups` groups are all of them.
    fn group_size(&self, scales: &Tensor, groups: usize, by_index: bool) -> Result<usize, Error> {
        let inputs = self.cols;
        let named = self.sizes().find(|size| inputs.div_ceil(*size) == groups);
        let even = (groups > 0 && inputs.is_multiple_of(groups)).then(|| inputs / groups);
        // Groups by index may be any.
        match named.or(even).or(Some(inputs).filter(|_| by_index && groups > 0)) {
            Some(size) => Ok(size),
            None => {
                let message = format!("these are not the scales of {inputs} inputs by `group_size`");
                Err(self.stored.bad(scales, message))
            }
        }
    }

    /// The sizes of groups that the configuration names.
    fn sizes(&self) -> impl Iterator<Item = usize> {
        let own = self.value("group_size").into_iter();
        let all = own.chain(self.weights().filter_map(|weights| weights.get("group_size")));
        all.filter_map(Value::as_u64).filter_map(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
    }

    /// Whether the configuration of compressed-tensors has matrices of so many bits.
    fn may_have_bits(&self, bits: usize) -> bool {
        let mut named = self.weights().filter_map(|weights| weights.get("num_bits")).peekable();
        named.peek().is_none() || named.any(|n| n.as_u64() == Some(bits as u64))
    }

    /// Whether the configuration of compressed-tensors says that inputs have groups by index.
    fn by_index(&self) -> bool {
        let mut orders = self.weights().filter_map(|weights| weights.get("actorder"));
        orders.any(|order| order.as_str() == Some("group") || order.as_bool() == Some(true))
    }

    /// What compressed-tensors says of weights, of each group of layers.
    fn weights(&self) -> impl Iterator<Item = &'a Value> {
        let groups = self.value("config_groups").and_then(Value::as_object);
        groups.into_iter().flat_map(|groups| groups.values()).filter_map(|group| group.get("weights"))
    }

    /// The group of each input.
    fn groups(&self, index: &Tensor, groups: usize) -> Result<Companion, Error> {
        self.require(&index.name, &[DType::I32], &[self.cols])?;
        Ok(Companion {
            name: index.name.clone(),
            what: Beside::Groups,
            dtype: index.dtype,
            stored: Numbers::Indices(groups),
            shape: (1, self.cols),
            rows: 1,
            extent: index.extent,
        })
    }

    /// Numbers beside some rows of the matrix, from `base` on, in rows of `groups`; the tensor's shape was checked.
    fn companion(
        &self,
        tensor: &Tensor,
        what: Beside,
        stored: Numbers,
        (base, rows): (usize, usize),
        groups: usize,
    ) -> Companion {
        let run = if let Numbers::Points { code, .. } = stored { code.run().1 } else { 1 };
        let row_bytes = tensor.extent.bytes / self.part.total.div_ceil(run).max(1) as u64;
        let (first, count) = (base / run, rows.div_ceil(run));
        let (offset, bytes) = (first as u64 * row_bytes, count as u64 * row_bytes);
        let extent = Extent { offset: tensor.extent.offset + offset, bytes, ..tensor.extent };
        let name = tensor.name.clone();
        Companion { name, what, dtype: tensor.dtype, stored, shape: (rows, groups), rows: count, extent }
    }

    /// Rows from the first of the part to its last.
    fn span(&self) -> usize {
        self.part.runs.map_or(self.part.rows, |runs| runs.place(self.part.rows.saturating_sub(1)) + 1)
    }

    /// Scales of rows, to be completed.
    fn scales(&self, code: Code, rounding: DType) -> Scales {
        Scales {
            code,
            kept: None,
            companions: Vec::new(),
            nested: None,
            block_rows: 1,
            block_cols: self.cols,
            first_row: 0,
            rounding,
            state: None,
        }
    }

    fn matrix(&self, codes: &Tensor, scales: Scales) -> Matrix {
        Matrix {
            name: codes.name.clone(),
            dtype: codes.dtype,
            rows: self.part.rows,
            cols: self.cols,
            extent: self.part.extent(codes, self.part.rows),
            runs: self.part.runs,
            k_major: false,
            scales: Some(scales),
            tiles: None,
        }
    }

    /// Where one row on disk is one for all outputs, those of one matrix among several do not lie together.
    fn refuse_parts(&self, words: &Tensor) -> Result<(), Error> {
        if self.part.rows == self.part.total {
            return Ok(());
        }
        Err(self.stored.keys.unsupported(format!(
            "tensor `{}` is quantised by `{}` and holds several matrices, which is not supported",
            words.name,
            self.method()
        )))
    }

    fn tensor(&self, suffix: &str) -> Option<&'a Tensor> {
        self.stored.get(&format!("{}.{suffix}", self.stem))
    }

    fn some(&self, name: &str) -> Result<&'a Tensor, Error> {
        self.stored.require(name)
    }

    /// The tensor, if it has this shape and one of these types.
    fn require(&self, name: &str, types: &[DType], shape: &[usize]) -> Result<&'a Tensor, Error> {
        let tensor = self.stored.require_shape(name, shape)?;
        if types.contains(&tensor.dtype) {
            return Ok(tensor);
        }
        let names: Vec<&str> = types.iter().map(|dtype| dtype.name()).collect();
        let message = format!("it is {}, where {} is needed", tensor.dtype.name(), names.join(" or "));
        Err(self.stored.bad(tensor, message))
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        config(self.stored.keys).and_then(|config| config.get(key))
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.value(key).and_then(Value::as_str)
    }

    fn flag(&self, key: &str) -> bool {
        self.value(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn method(&self) -> &'a str {
        self.text("quant_method").unwrap_or_default()
    }
}

/// The types of scales.
const FLOATS: &[DType] = &[DType::F16, DType::BF16, DType::F32];
