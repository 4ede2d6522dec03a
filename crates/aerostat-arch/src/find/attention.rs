//! The tensors of attention.

use super::codes;
use super::part::Part;
use super::tensors::Tensors;
use crate::config::LayerShape;
use crate::error::Error;
use crate::family::{Fused, HeadNorms, Temperature};
use crate::spec::{AttentionSpec, Linear, Matrix, Norm, Runs};

impl Tensors<'_> {
    /// The attention of a layer.
    pub(super) fn attention(
        &self,
        layer: &LayerShape,
        name: &dyn Fn(&str) -> String,
    ) -> Result<AttentionSpec, Error> {
        let (n, f, s) = (self.names, self.family, self.shape);
        let (head_dim, kv_heads, _) = s.heads_of(layer);
        let (q, own, gate, latent) = match &s.latent {
            Some(latent) => {
                let ([q, k, v], latent) = self.latent(latent, layer, name)?;
                (q, Some([k, v]), None, latent)
            }
            None if layer.kv_of.is_some() => (
                self.linear(&name(n.q), f.qkv_bias, Part::all(s.heads * head_dim), s.hidden)?,
                None,
                None,
                None,
            ),
            None => {
                let ([q, k, v], gate) = self.queries_keys_values(layer, name)?;
                (q, Some([k, v]), gate, None)
            }
        };
        let compressed = own.iter().map(|[_, v]| v.weight.rows).next().filter(|_| latent.is_some());
        let mixed = compressed.unwrap_or(s.heads * head_dim);
        let has_own = own.is_some();
        let (k, v) = own.map_or((None, None), |[k, v]| (Some(k), Some(v)));
        let rope = layer.rope;
        // Norms without weights come with rotation.
        let head_norm = |pattern: &str, heads: usize| match f.head_norms {
            HeadNorms::Bare(_) if rope.is_none() => Ok(None),
            _ => self.head_norm(&name(pattern), heads, head_dim),
        };
        Ok(AttentionSpec {
            q,
            k,
            v,
            kv_of: layer.kv_of,
            joined: self.joined(name)?,
            o: self.linear(&name(n.o), f.output_bias, Part::all(s.hidden), mixed)?,
            gate,
            q_norm: head_norm(n.q_norm, s.heads)?,
            k_norm: if has_own { head_norm(n.k_norm, kv_heads)? } else { None },
            v_norm: (f.value_norms && has_own).then(|| self.bare_norm(head_dim)),
            clip: s.clip,
            growth: s.growth.filter(|_| f.temperature != Temperature::Unrotated || rope.is_none()),
            heads: s.heads,
            kv_heads,
            head_dim,
            scale: if s.scale_by_layer { s.scale / (layer.index + 1) as f32 } else { s.scale },
            softcap: s.attention_softcap,
            window: layer.window,
            ahead: s.ahead,
            biases: self.distance_biases()?,
            sinks: f.sinks.then(|| self.vector(&name(n.sinks), &[s.heads], 0.0)).transpose()?,
            norms_after_rope: f.norms_after_rope,
            alibi: s.alibi,
            rope,
            latent,
        })
    }

    /// q, k and v side by side, where that is how they are stored.
    fn joined(&self, name: &dyn Fn(&str) -> String) -> Result<Option<Linear>, Error> {
        let (s, bias) = (self.shape, self.family.qkv_bias);
        let all = Part::all((s.heads + 2 * s.kv_heads) * s.head_dim);
        let fused = self.names.qkv.filter(|fused| self.by_inputs() || self.joins_codes(*fused, name));
        fused.map(|(fused, _)| self.linear(&name(fused), bias, all, s.hidden)).transpose()
    }

    /// Whether q, k and v are codes side by side.
    fn joins_codes(&self, (fused, order): (&str, Fused), name: &dyn Fn(&str) -> String) -> bool {
        order == Fused::Stacked && codes::by_inputs(self.stored, &name(fused))
    }

    /// q, k and v, and the gate of attention's output: tensors of their own, or rows of one.
    fn queries_keys_values(
        &self,
        layer: &LayerShape,
        name: &dyn Fn(&str) -> String,
    ) -> Result<([Linear; 3], Option<Linear>), Error> {
        let (n, s) = (self.names, self.shape);
        let (head_dim, kv_heads, alike) = s.heads_of(layer);
        let (q, kv) = (s.heads * head_dim, kv_heads * head_dim);
        let linear =
            |pattern: &str, part: Part| self.linear(&name(pattern), self.family.qkv_bias, part, s.hidden);
        let Some((fused, order)) = n.qkv.filter(|(fused, _)| self.is_fused(&name(fused), &name(n.q))) else {
            let (q, gate) = match self.family.gated_attention {
                false => (linear(n.q, Part::all(q))?, None),
                true => {
                    let runs = Some(Runs { rows: head_dim, stride: 2 * head_dim });
                    let part = |first| linear(n.q, Part { first, rows: q, total: 2 * q, runs });
                    (part(0)?, Some(part(head_dim)?))
                }
            };
            // GGUF says it by leaving the tensor out.
            let alike = alike || self.is_gguf() && s.wide.is_some() && !self.has(&name(n.v));
            let v = if alike { n.k } else { n.v };
            return Ok(([q, linear(n.k, Part::all(kv))?, linear(v, Part::all(kv))?], gate));
        };
        if let Some(all) = self.joined(name)?.filter(|_| self.joins_codes((fused, order), name)) {
            let part = |rows| Linear { weight: Matrix { rows, ..all.weight.clone() }, bias: None };
            return Ok(([part(q), part(kv), part(kv)], None));
        }
        let part = |first: usize, rows: usize, run: usize| {
            let stride = (s.heads / kv_heads + 2) * head_dim;
            let runs = (order == Fused::ByKvHead && kv_heads > 1).then_some(Runs { rows: run, stride });
            linear(fused, Part { first, rows, total: q + 2 * kv, runs })
        };
        let quarter = |first: usize| {
            let runs = Some(Runs { rows: q / 4, stride: 3 * (q / 4) });
            linear(fused, Part { first: first * (q / 4), rows: q, total: 3 * q, runs })
        };
        if order == Fused::Quarters && !(s.heads.is_multiple_of(4) && kv_heads == s.heads) {
            return Err(self.stored.keys.config(format!("{} heads cannot lie in quarters", s.heads)));
        }
        let qkv = match order {
            Fused::Quarters => [quarter(0)?, quarter(2)?, quarter(1)?],
            Fused::Stacked => [part(0, q, q)?, part(q, kv, kv)?, part(q + kv, kv, kv)?],
            Fused::ByKvHead => {
                let group = q / kv_heads;
                [part(0, q, group)?, part(group, kv, head_dim)?, part(group + head_dim, kv, head_dim)?]
            }
        };
        Ok((qkv, None))
    }

    /// The norm of queries or keys of `heads` heads.
    fn head_norm(&self, name: &str, heads: usize, head_dim: usize) -> Result<Option<Norm>, Error> {
        let (f, s) = (self.family, self.shape);
        let offset = if self.is_gguf() { 0.0 } else { f.norm_offset };
        let (size, shape) = match f.head_norms {
            _ if !s.head_norms => return Ok(None),
            HeadNorms::Own(_) | HeadNorms::SharedIf(_) if self.is_gguf() && !self.has(name) => {
                return Ok(None);
            }
            HeadNorms::Never => return Ok(None),
            HeadNorms::Bare(_) => {
                return Ok(Some(self.bare_norm(head_dim)));
            }
            HeadNorms::Shared | HeadNorms::SharedIf(_) => (head_dim, vec![head_dim]),
            HeadNorms::Own(_) => (head_dim, vec![heads, head_dim]),
            HeadNorms::Row => (heads * head_dim, vec![heads * head_dim]),
        };
        let bias = match f.head_norms {
            HeadNorms::Shared | HeadNorms::SharedIf(_) => self.bias(name, f.norm_bias, Part::all(size))?,
            _ => None,
        };
        let mut further = Vec::new();
        let weight = match name.contains("{h}") {
            false => self.vector(&format!("{name}.weight"), &shape, offset)?,
            true => {
                let of = |head: usize| format!("{}.weight", name.replace("{h}", &head.to_string()));
                let vectors = (0..heads).map(|head| self.vector(&of(head), &[size], offset));
                further = vectors.collect::<Result<Vec<_>, _>>()?;
                further.remove(0)
            }
        };
        Ok(Some(Norm { kind: f.norm, size, weight: Some(weight), further, bias, eps: s.eps }))
    }
}
