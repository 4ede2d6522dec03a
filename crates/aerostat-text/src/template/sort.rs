//! A stable sort whose comparisons may fail.

use std::cmp::Ordering;

use super::limits::{Fault, Outcome};

/// Sorts as Python does: by `<` alone, so that what cannot be told apart stays in place.
///
/// # Errors
/// The first of a comparison.
pub(super) fn sorted_by<T>(
    mut items: Vec<T>,
    order: impl Fn(&T, &T) -> Outcome<Option<Ordering>>,
) -> Outcome<Vec<T>> {
    let mut fault: Option<Box<Fault>> = None;
    // Merging from the bottom needs no total order, whatever the comparisons say.
    let mut width = 1;
    while width < items.len() && fault.is_none() {
        let mut merged = Vec::with_capacity(items.len());
        let mut rest = items.into_iter().peekable();
        while rest.peek().is_some() {
            let left: Vec<T> = rest.by_ref().take(width).collect();
            let right: Vec<T> = rest.by_ref().take(width).collect();
            merge(left, right, &mut merged, &order, &mut fault);
        }
        items = merged;
        width *= 2;
    }
    match fault {
        Some(fault) => Err(fault),
        None => Ok(items),
    }
}

fn merge<T>(
    left: Vec<T>,
    right: Vec<T>,
    merged: &mut Vec<T>,
    order: &impl Fn(&T, &T) -> Outcome<Option<Ordering>>,
    fault: &mut Option<Box<Fault>>,
) {
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(one), Some(two)) = (left.peek(), right.peek()) {
        let is_less = match order(two, one) {
            Ok(found) => found == Some(Ordering::Less),
            Err(error) => {
                fault.get_or_insert(error);
                false
            }
        };
        if fault.is_some() {
            break;
        }
        merged.extend(if is_less { right.next() } else { left.next() });
    }
    merged.extend(left);
    merged.extend(right);
}
