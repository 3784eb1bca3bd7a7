//! From the losses of rows to the answer: reductions, class weights, denominators, upstream
//! gradients.

use crate::error::{Error, Result};
use crate::pool;
use crate::simd;
use crate::simd::sum::Compensated;
use crate::view::{Rows, Spans};
use std::sync::OnceLock;

/// What becomes of the losses of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// They are the answer.
    None,
    /// Their sum over a denominator: the sum of the class weights applied, or the number of rows.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    /// From its name in the Python interface.
    ///
    /// # Errors
    /// Where there is no such reduction.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self::None),
            "mean" => Ok(Self::Mean),
            "sum" => Ok(Self::Sum),
            _ => Err(Error::Value(format!(
                "reduction must be 'none', 'mean' or 'sum', got {name:?}"
            ))),
        }
    }
}

/// The upstream gradient: of a reduced loss a number, of losses an array of their shape.
#[derive(Clone, Debug)]
pub enum Upstream<'a> {
    /// The same for every row.
    Same(f64),
    /// One a row.
    PerRow(Rows<'a>),
}

/// Rows that are looked at together.
const GROUP: usize = 512;

/// Looks at every target class before anything is computed; returns the sum of the class weights
/// of the rows that count, each 1 without weights.
///
/// # Errors
/// [`Error::Index`] for the first row with a class out of range, named by `place`.
pub(crate) fn census(
    target: &Rows<'_>,
    classes: usize,
    ignore_index: i64,
    weight: Option<&[f64]>,
    interrupted: &dyn Fn() -> bool,
    place: impl Fn(usize) -> String,
) -> Result<f64> {
    let spans = Spans::new(target.rows(), 32 * GROUP, Vec::new());
    type Found = (usize, Compensated, Option<usize>);
    let found: Vec<OnceLock<Found>> = vec![OnceLock::new(); spans.count()];
    pool::run(&spans, target.rows() >= 1 << 18, interrupted, |span, group: &mut Vec<i64>| {
        let mut counted = 0;
        let mut weights = Compensated::default();
        let mut wrong = None;
        group.resize(GROUP, 0);
        let rows = span.rows();
        for start in rows.clone().step_by(GROUP) {
            let group = &mut group[..GROUP.min(rows.end - start)];
            target.stage_indices(start..start + group.len(), group);
            let (live, bad) = count(group, classes, ignore_index);
            if bad > 0 {
                let is_bad = |t: &i64| *t != ignore_index && *t as u64 >= classes as u64;
                wrong = group.iter().position(is_bad).map(|at| start + at);
                break;
            }
            counted += live as usize;
            if let Some(weight) = weight {
                for &t in group.iter().filter(|t| **t != ignore_index) {
                    weights.add(weight[t as usize]);
                }
            }
        }
        found[span.index()].set((counted, weights, wrong)).expect("a span is drawn once");
    })?;
    let mut rows = 0;
    let mut weights = Compensated::default();
    for found in &found {
        let (n, w, wrong) = found.get().expect("every span was drawn");
        if let Some(row) = wrong {
            let got = target.index(*row);
            return Err(Error::Index(format!(
                "target{} = {got} is out of range for {classes} classes",
                place(*row)
            )));
        }
        rows += n;
        weights.merge(*w);
    }
    Ok(if weight.is_some() { weights.value() } else { rows as f64 })
}

/// How many targets count, and how many of these are no class.
fn count(target: &[i64], classes: usize, ignore_index: i64) -> (u64, u64) {
    simd::vectorized(
        #[inline(always)]
        || {
            let (mut live, mut bad) = (0, 0);
            for &t in target {
                let counts = t != ignore_index;
                live += u64::from(counts);
                bad += u64::from(counts & (t as u64 >= classes as u64));
            }
            (live, bad)
        },
    )
}
