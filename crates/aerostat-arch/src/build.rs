//! Joins a family's data with a configuration and a catalogue.

use std::collections::HashSet;

use aerostat_checkpoint::{Catalog, Checkpoint, Tensor, name_shown};

use crate::config::{Keys, Shape, bos, eos, find_family, refuse};
use crate::error::Error;
use crate::find::{PARAMETRISED, Tensors};
use crate::spec::{Companion, Head, Matrix, ModelSpec};

/// Describes a checkpoint as a model, every tensor that a sweep needs found and its shape checked.
///
/// # Errors
/// An unknown family (with the list of known ones), configuration values that are missing or contradict each other,
/// mathematics that is not implemented, missing tensors, tensors of another shape or of a format that cannot be
/// computed with.
pub fn describe(checkpoint: &Checkpoint) -> Result<ModelSpec, Error> {
    let given = Keys::new(&checkpoint.config)?;
    let family = find_family(&given)?;
    let as_read = given.as_read(family)?;
    let keys = as_read.as_ref().map_or(given, Keys::HuggingFace);
    refuse(&keys, family)?;
    let shape = Shape::read(&keys, family)?;
    let tensors = Tensors::new(&checkpoint.catalog, &keys, family, &shape);
    let embedding = tensors.embedding()?;
    let (head, head_bias, absent) = tensors.head(&embedding)?;
    let blocks = shape.layers.iter().map(|layer| tensors.block(layer)).collect::<Result<Vec<_>, _>>()?;
    let final_norm = tensors.final_norm()?;
    let mut spec = ModelSpec {
        family: family.name,
        hidden: shape.hidden,
        vocab: embedding.rows,
        context_max: shape.context,
        embedding_scale: shape.embedding_scale,
        positions: tensors.positions()?,
        token_types: tensors.token_types()?,
        layer_inputs: tensors.layer_inputs()?,
        streams: tensors.streams(),
        embedding_norm: tensors.embedding_norm()?,
        ropes: tensors.ropes()?,
        blocks,
        final_norm,
        head: Head {
            weight: head,
            absent,
            bias: head_bias,
            normalised: shape.normalised_head,
            scale: shape.logit_scale,
            softcap: shape.final_softcap,
        },
        updates: Vec::new(),
        parameters: 0,
        other_towers: None,
        notes: Vec::new(),
        eos: eos(&checkpoint.config),
        bos: bos(&checkpoint.config),
        embedding,
    };
    spec.parameters = parameters(&spec);
    let unread = unread(&spec, &checkpoint.catalog);
    let bytes = unread.iter().map(|tensor| tensor.extent.bytes).sum();
    spec.other_towers = keys.text_tower().map(|_| (unread.len(), bytes));
    spec.notes =
        notes(checkpoint, &unread.iter().copied().filter(|t| tensors.is_in_block(t)).collect::<Vec<_>>());
    verify(&spec).map_err(|what| keys.defect(what))?;
    Ok(spec)
}

/// What others lean on without asking: bytes of matrices and of companions are those of their rows, packed matrices have
/// tiles, and every expert has its turn.
fn verify(spec: &ModelSpec) -> Result<(), String> {
    for matrix in spec.matrices().chain(spec.tables()) {
        let of =
            |rows: usize, row_bytes: u64| (rows as u64).checked_mul(row_bytes).filter(|bytes| *bytes > 0);
        let is_whole = match &matrix.tiles {
            None => of(matrix.stored().0, matrix.row_bytes()) == Some(matrix.extent.bytes),
            Some(tiles) => !tiles.is_empty(),
        };
        let is_beside = |c: &Companion| of(c.rows, c.row_bytes()) == Some(c.extent.bytes);
        if !is_whole || !matrix.companions().iter().all(is_beside) {
            return Err(format!("the rows of matrix `{}` are not its bytes", matrix.name));
        }
    }
    for experts in spec.blocks.iter().filter_map(|block| block.experts.as_ref()) {
        let mut order = experts.order.clone();
        order.sort_unstable();
        if !order.into_iter().eq(0..experts.mlps.len() as u32) {
            return Err(format!("the order of {} experts leaves some out", experts.mlps.len()));
        }
    }
    Ok(())
}

/// Tensors that no part of the model refers to.
fn unread<'a>(spec: &ModelSpec, catalog: &'a Catalog) -> Vec<&'a Tensor> {
    let matrices = spec.matrices().chain(spec.tables()).map(|m| m.name.as_str());
    let beside = spec.matrices().flat_map(Matrix::companions).map(|c| c.name.as_str());
    let small = spec.vectors().map(|v| v.name.as_str());
    let used: HashSet<&str> = matrices.chain(beside).chain(small).collect();
    catalog.tensors().filter(|tensor| !used.contains(tensor.name.as_str())).collect()
}

/// What a user should know of the checkpoint, whose blocks hold `unread` tensors that nothing reads.
fn notes(checkpoint: &Checkpoint, unread: &[&Tensor]) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(adapter) = &checkpoint.adapter {
        let kind = adapter.kind.as_deref().map_or(String::new(), |kind| format!(" ({kind})"));
        let base = adapter.base.as_deref().map_or(String::new(), |base| format!(" of `{base}`"));
        notes.push(format!(
            "an adapter{kind}{base} lies beside the weights; it is not applied: the answers are those of the weights \
             alone (--adapter applies one)"
        ));
    }
    let (tasks, unread): (Vec<&Tensor>, Vec<&Tensor>) =
        unread.iter().partition(|tensor| tensor.name.contains(PARAMETRISED));
    if !tasks.is_empty() {
        notes.push(
            "the weights hold adapters for tasks (`lora_adaptations`), which are not applied: vectors are those of no task"
                .to_owned(),
        );
    }
    if let Some(first) = unread.first() {
        let name = name_shown(&first.name);
        notes.push(format!(
            "the model's family does not read {} of the tensors in its blocks (`{name}` is one): if the configuration lacks \
             a switch for them, answers are wrong",
            unread.len()
        ));
    }
    notes
}

fn parameters(spec: &ModelSpec) -> u64 {
    let matrix = |m: &Matrix| m.rows as u64 * m.cols as u64;
    let tables = spec.tables().skip(usize::from(spec.tied())).map(matrix).sum::<u64>();
    let scales: u64 = spec.scales().map(|scales| scales.len as u64).sum();
    let vectors = spec.vectors().map(|v| v.len as u64).sum::<u64>() - scales;
    tables + spec.matrices().map(matrix).sum::<u64>() + vectors
}

#[cfg(test)]
mod tests {
    use aerostat_testkit::fixture;

    use super::*;

    #[test]
    fn a_description_that_contradicts_itself_is_told() {
        let described = || describe(&Checkpoint::open(&fixture("mixtral").path).unwrap()).unwrap();
        assert_eq!(verify(&described()), Ok(()));
        let mut short = described();
        short.head.weight.extent.bytes -= 1;
        assert!(verify(&short).unwrap_err().contains(&short.head.weight.name));
        let mut unordered = described();
        unordered.blocks[0].experts.as_mut().unwrap().order[0] = 1;
        assert!(verify(&unordered).unwrap_err().contains("leaves some out"));
    }
}
