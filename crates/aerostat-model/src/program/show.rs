//! How a program reads.

use std::fmt;
use std::ops::Range;

use aerostat_arch::ModelSpec;

use super::{Height, Op, Program, Slice};

/// A program with the model it was made of.
pub(super) struct Shown<'a> {
    pub(super) program: &'a Program,
    pub(super) spec: &'a ModelSpec,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, spec } = *self;
        let sizes = program.sizes();
        writeln!(
            f,
            "{}: {} blocks, hidden {}, vocabulary {}; {} f32 of memory for each row, {} more with logits",
            spec.family,
            spec.blocks.len(),
            spec.hidden,
            spec.vocab,
            sizes.row,
            sizes.logit_row
        )?;
        let first = program.blocks.first().map_or(program.body.len(), |block| block.start);
        writeln!(f, "\nembedding")?;
        self.ops(f, program.body.get(..first).unwrap_or_default(), "  ")?;
        for (blocks, text) in self.alike()? {
            writeln!(f, "\n{blocks}")?;
            f.write_str(&text)?;
        }
        writeln!(f, "\nhead")?;
        self.ops(f, &program.head, "  ")
    }
}

impl Shown<'_> {
    /// The blocks that read alike, and how.
    fn alike(&self) -> Result<Vec<(String, String)>, fmt::Error> {
        let mut kinds: Vec<(Vec<Range<usize>>, String)> = Vec::new();
        for (layer, range) in self.program.blocks.iter().enumerate() {
            let mut text = String::new();
            self.ops(&mut text, self.program.body.get(range.clone()).unwrap_or_default(), "  ")?;
            match kinds.iter_mut().find(|(_, known)| *known == text) {
                Some((layers, _)) => match layers.last_mut() {
                    Some(last) if last.end == layer => last.end += 1,
                    _ => layers.push(layer..layer + 1),
                },
                None => kinds.push((std::iter::once(layer..layer + 1).collect(), text)),
            }
        }
        let name = |range: &Range<usize>| match range.len() {
            1 => format!("{}", range.start),
            _ => format!("{}-{}", range.start, range.end - 1),
        };
        let title = |layers: &[Range<usize>]| {
            let names: Vec<String> = layers.iter().map(name).collect();
            let many = layers.len() > 1 || layers.iter().any(|layers| layers.len() > 1);
            format!("{} {}", if many { "blocks" } else { "block" }, names.join(", "))
        };
        Ok(kinds.into_iter().map(|(layers, text)| (title(&layers), text)).collect())
    }

    fn ops(&self, f: &mut dyn fmt::Write, ops: &[Op], indent: &str) -> fmt::Result {
        for op in ops {
            match op {
                // The program's own marks.
                Op::Tap { .. } => {}
                Op::Experts { block } => {
                    writeln!(f, "{indent}for each expert that some row uses:")?;
                    let ops = self.program.experts.get(*block).map_or(&[][..], Vec::as_slice);
                    self.ops(f, ops, &format!("{indent}  "))?;
                }
                op => self.op(f, op, indent)?,
            }
        }
        Ok(())
    }

    fn op(&self, f: &mut dyn fmt::Write, op: &Op, indent: &str) -> fmt::Result {
        let operands = op.operands();
        let mut inputs: Vec<String> = operands.inputs.iter().map(|slice| self.name(*slice)).collect();
        let mut name = operands.name.to_owned();
        let mut detail = op.detail();
        if let Op::Multiply(product) = op {
            name = "matmul".to_owned();
            let matrix = self.matrix(product.block, product.role);
            inputs.push(format!("{:?}", product.role));
            detail = matrix.map_or(String::new(), |m| format!("[{}, {}] {}", m.rows, m.cols, m.dtype));
            if let Some(heads) = product.heads {
                detail += &format!(", head by head: {} to {}", heads.x_cols, heads.y_cols);
            }
        }
        if let Op::Route { block, .. } = op
            && let Some(experts) = self.spec.blocks.get(*block).and_then(|block| block.experts.as_ref())
        {
            let (all, routing) = (experts.mlps.len(), &experts.routing);
            detail = format!("{} of {all} experts for each row, by {:?}", routing.chosen, routing.score);
        }
        if let Op::Angles { rope, .. } = op
            && let Some(rope) = self.spec.ropes.get(*rope)
        {
            detail = format!("of each row's position, theta {}, {:?}", rope.theta, rope.scaling);
        }
        let call = format!("{name}({})", inputs.join(", "));
        let left = match operands.output {
            Some(out) => format!("{} = {call}", self.shaped(out)),
            None => call,
        };
        match detail.is_empty() {
            true => writeln!(f, "{indent}{left}"),
            false => writeln!(f, "{indent}{left:<58} {detail}"),
        }
    }

    /// A matrix of a block, or of its first expert.
    fn matrix(&self, block: usize, role: aerostat_arch::Role) -> Option<&aerostat_arch::Matrix> {
        let Some(block) = self.spec.blocks.get(block) else { return Some(&self.spec.head.weight) };
        let experts = block.experts.iter().flat_map(|experts| experts.mlps.first());
        let linears = block.linears().chain(experts.flat_map(|mlp| mlp.linears()));
        linears.filter(|(of, _)| *of == role).map(|(_, linear)| &linear.weight).next()
    }

    fn name(&self, slice: Slice) -> String {
        let Some(buffer) = self.program.buffers.get(slice.buffer) else { return String::new() };
        match slice.cols == buffer.cols {
            true => buffer.name.to_owned(),
            false => format!("{}[{}..{}]", buffer.name, slice.first, slice.first + slice.cols),
        }
    }

    fn shaped(&self, slice: Slice) -> String {
        let Some(buffer) = self.program.buffers.get(slice.buffer) else { return String::new() };
        let rows = match buffer.height {
            Height::Fixed(rows) => rows.to_string(),
            Height::States => "states".to_owned(),
            Height::LogitRows => "logit rows".to_owned(),
            Height::ExpertRows => "its rows".to_owned(),
            Height::Rows => "rows".to_owned(),
        };
        format!("{} [{rows}, {}]", self.name(slice), slice.cols)
    }
}
