//! From the losses of rows to the answer: reductions, class weights, denominators, upstream
//! gradients.

use crate::error::{Error, Result};
use crate::pool;
use crate::simd::sum::Compensated;
use crate::view::{Rows, Spans};
use std::ops::Range;
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

impl Upstream<'_> {
    /// The upstream gradients of some rows' losses, divided by the denominator.
    pub(crate) fn fill(&self, rows: Range<usize>, denominator: f64, out: &mut [f64]) {
        // Where nothing counts there is nothing to differentiate.
        let over = if denominator == 0.0 { 0.0 } else { denominator.recip() };
        match self {
            Self::Same(g) => out[..rows.len()].fill(if over == 0.0 { 0.0 } else { g / denominator }),
            Self::PerRow(g) => {
                let out = &mut out[..rows.len()];
                g.stage_column(rows, out);
                if denominator != 1.0 {
                    out.iter_mut().for_each(|g| *g *= over);
                }
            }
        }
    }
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
            let mut bad = 0;
            let mut live = 0;
            for &t in group.iter() {
                let counts = t != ignore_index;
                live += usize::from(counts);
                bad += usize::from(counts & (t as u64 >= classes as u64));
            }
            if bad > 0 {
                let is_bad = |t: &i64| *t != ignore_index && *t as u64 >= classes as u64;
                wrong = group.iter().position(is_bad).map(|at| start + at);
                break;
            }
            counted += live;
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
