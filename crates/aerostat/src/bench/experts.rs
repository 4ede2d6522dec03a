//! What a cache of experts would find: a trace, replayed against sizes and policies.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use crate::expert_trace::{self, ExpertTraceLine};
use crate::residency::{Place, Residency};
use crate::{Error, ErrorKind};

/// More experts than any block has.
const EXPERTS_MAX: usize = 1 << 16;

/// What caches of one size find, as shares of all uses from 0 to 1.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ExpertsPoint {
    /// The share of a block's experts that is in memory.
    pub resident_share: f64,
    /// Experts of a block in memory, in the block that has most.
    pub slots: usize,
    /// Found by a cache of those used last: what a run does.
    pub recency: f64,
    /// Found if the experts in memory were the most used of the whole trace, and stayed.
    pub fixed: f64,
    /// Found if what will be used last of all always made room: no cache finds more.
    pub best: f64,
}

/// A trace in figures.
#[derive(Clone, Debug, Serialize)]
pub struct ExpertsReport {
    /// Sweeps of the trace.
    pub sweeps: u64,
    /// Blocks with experts.
    pub layers: usize,
    /// Experts of a block: one more than the largest number in the trace, or as many as the caller says.
    pub experts: usize,
    /// Experts used, each counted once for a sweep and block.
    pub uses: u64,
    /// Uses of experts that were not used before: read by any cache.
    pub first_uses: u64,
    /// What caches find, by size.
    pub points: Vec<ExpertsPoint>,
}

/// Replays a trace of a run against caches of these shares of each block's experts.
///
/// # Errors
/// [`ErrorKind::Usage`]: the trace cannot be read, is empty, or names more experts than there are.
pub fn experts(trace: &Path, experts: Option<usize>, shares: &[f64]) -> Result<ExpertsReport, Error> {
    let mut layers: BTreeMap<usize, Vec<Vec<u32>>> = BTreeMap::new();
    let (mut sweeps, mut last) = (0, None);
    for line in expert_trace::read(trace)? {
        let ExpertTraceLine { sweep, layer, experts: used, .. } = line?;
        sweeps += u64::from(last.replace(sweep) != Some(sweep));
        layers.entry(layer).or_default().push(used);
    }
    let largest = layers.values().flatten().flatten().max().map(|largest| *largest as usize + 1);
    let Some(largest) = largest else {
        return Err(Error::new(ErrorKind::Usage, format!("{}: a trace without experts", trace.display())));
    };
    let all = experts.unwrap_or(largest);
    if all < largest || largest > EXPERTS_MAX {
        let message = format!("{}: expert {} is none of {all}", trace.display(), largest - 1);
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let uses: u64 = layers.values().flatten().map(|used| used.len() as u64).sum();
    let first_uses =
        layers.values().map(|sweeps| sweeps.iter().flatten().collect::<HashSet<_>>().len() as u64).sum();
    let found =
        |find: &dyn Fn(&[Vec<u32>]) -> u64| layers.values().map(|sweeps| find(sweeps)).sum::<u64>() as f64;
    let point = |share: &f64| {
        let slots = ((all as f64 * share) as usize).min(all);
        ExpertsPoint {
            resident_share: *share,
            slots,
            recency: found(&|sweeps| recency(sweeps, slots, all)) / uses as f64,
            fixed: found(&|sweeps| fixed(sweeps, slots)) / uses as f64,
            best: found(&|sweeps| best(sweeps, slots)) / uses as f64,
        }
    };
    let points = shares.iter().map(point).collect();
    Ok(ExpertsReport { sweeps, layers: layers.len(), experts: all, uses, first_uses, points })
}

/// Uses that the cache of a run finds.
fn recency(sweeps: &[Vec<u32>], slots: usize, experts: usize) -> u64 {
    let mut residency = Residency::new(slots, experts);
    let here = |used: &Vec<u32>| residency.sweep(used).iter().filter(|p| matches!(p, Place::Here(_))).count();
    sweeps.iter().map(here).sum::<usize>() as u64
}

/// Uses of the most used ones, but for the first of each.
fn fixed(sweeps: &[Vec<u32>], slots: usize) -> u64 {
    let mut counts: HashMap<u32, u64> = HashMap::new();
    sweeps.iter().flatten().for_each(|expert| *counts.entry(*expert).or_default() += 1);
    let mut counts: Vec<u64> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts.into_iter().take(slots).map(|count| count - 1).sum()
}

/// Uses found if those leave whose next use is farthest away, of those that the sweep at hand does not use.
fn best(sweeps: &[Vec<u32>], slots: usize) -> u64 {
    let mut next: HashMap<u32, Vec<usize>> = HashMap::new();
    for (number, used) in sweeps.iter().enumerate().rev() {
        used.iter().for_each(|expert| next.entry(*expert).or_default().push(number));
    }
    let (mut held, mut found): (HashSet<u32>, u64) = (HashSet::new(), 0);
    for used in sweeps {
        for expert in used {
            next.get_mut(expert).and_then(Vec::pop);
        }
        let when =
            |expert: &u32| next.get(expert).and_then(|uses| uses.last()).copied().unwrap_or(usize::MAX);
        found += used.iter().filter(|expert| held.contains(expert)).count() as u64;
        held.extend(used);
        // What is used soonest stays; of equals the lower number.
        let mut order: Vec<(usize, u32)> = held.iter().map(|expert| (when(expert), *expert)).collect();
        order.sort_unstable();
        held = order.into_iter().take(slots).map(|(_, expert)| expert).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_repeats_itself_is_found_by_what_has_room_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        let line = |sweep: u64, experts: &[u32]| {
            let line = ExpertTraceLine { sweep, layer: 3, rows: 1, experts: experts.to_vec() };
            serde_json::to_string(&line).unwrap() + "\n"
        };
        // Two experts for ten sweeps, then two others.
        let text: String = (0..20).map(|i| line(i, if i < 10 { &[0, 1] } else { &[6, 7] })).collect();
        std::fs::write(&path, text).unwrap();
        let report = experts(&path, None, &[0.25, 0.5, 1.0]).unwrap();
        assert_eq!((report.sweeps, report.layers, report.experts), (20, 1, 8));
        assert_eq!((report.uses, report.first_uses), (40, 4));
        let [two, four, all] = report.points[..] else { panic!("{report:?}") };
        assert_eq!((two.slots, two.recency, two.fixed, two.best), (2, 0.9, 0.45, 0.9));
        assert_eq!((four.recency, four.fixed, four.best), (0.9, 0.9, 0.9));
        assert_eq!((all.recency, all.best), (0.9, 0.9));
        // In a circle of three what was used last is of no use to two slots, and what comes soonest is.
        let text: String = (0..30).map(|i| line(i, &[i as u32 % 3])).collect();
        std::fs::write(&path, text).unwrap();
        let circle = experts(&path, Some(8), &[0.25]).unwrap().points[0];
        assert!(circle.recency == 0.0 && circle.best > 0.4, "{circle:?}");
        assert!(experts(&path, Some(2), &[0.25]).unwrap_err().to_string().contains("expert 2 is none of 2"));
        std::fs::write(&path, "{\"sweep\": 1}\n").unwrap();
        assert!(experts(&path, None, &[0.25]).unwrap_err().to_string().contains("line 1 is none of a trace"));
        std::fs::write(&path, "").unwrap();
        assert!(experts(&path, None, &[0.25]).is_err());
    }

    /// Texts as local as a published model's give its curve again, and a fixed set finds little more than its share.
    #[test]
    fn traces_as_local_as_published_ones_are_found_as_published() {
        const CURVE: [(f64, f64); 6] =
            [(0.05, 0.34), (0.12, 0.58), (0.20, 0.74), (0.30, 0.84), (0.45, 0.93), (0.75, 0.98)];
        let mut seed = 11_u64;
        let mut dice = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 11) as f64 / (1_u64 << 53) as f64
        };
        // Experts by how lately they were used; the next is as lately used as the curve says.
        let mut lately: Vec<u32> = (0..128).collect();
        let mut sweeps = Vec::new();
        for _ in 0..4000 {
            let mut used: Vec<u32> = Vec::new();
            while used.len() < 8 {
                let chance = dice();
                let after = CURVE.partition_point(|(_, found)| *found < chance);
                let low = after.checked_sub(1).map_or((0.0, 0.0), |i| CURVE[i]);
                let high = CURVE.get(after).copied().unwrap_or((1.0, 1.0));
                let share = low.0 + (high.0 - low.0) * (chance - low.1) / (high.1 - low.1);
                let expert = lately[((share * 128.0) as usize).min(127)];
                if !used.contains(&expert) {
                    used.push(expert);
                }
            }
            lately.retain(|expert| !used.contains(expert));
            lately.splice(0..0, used.iter().copied());
            sweeps.push(used);
        }
        for (share, published) in CURVE {
            let slots = (share * 128.0) as usize;
            let found = recency(&sweeps, slots, 128) as f64 / 32_000.0;
            assert!((found - published).abs() < 0.08, "{share}: {found} {published}");
            let set = fixed(&sweeps, slots) as f64 / 32_000.0;
            assert!(set < share + 0.1 && set < found, "{share}: {set}");
        }
    }
}
