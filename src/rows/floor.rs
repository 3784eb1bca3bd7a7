//! The floors that speed is measured against: a pass that reads, and one that reads and streams
//! out, over the same spans and threads as the engine and with nothing computed between.

use super::SPAN;
use super::along::kernels;
use crate::error::{Error, Result};
use crate::pool::{self, Crew};
use crate::simd;
use crate::view::{Order, Rows, RowsMut, Spans, View, ViewMut};
use std::sync::atomic::{AtomicU32, Ordering};

/// The array as one column of rows.
fn column<'a>(view: &View<'a>) -> Result<Rows<'a>> {
    let rows = Rows::new(view.clone(), None, &Order::c(view.shape().len()));
    if rows.lends_columns::<f32>(&(0..view.len())) {
        Ok(rows)
    } else {
        Err(Error::Value("array must be contiguous float32".into()))
    }
}

/// Reads a contiguous array once; returns its largest value, or 0 where that is less.
///
/// # Errors
/// Where it is not contiguous float32.
pub(crate) fn read(view: &View<'_>, interrupted: &dyn Fn() -> bool) -> Result<f32> {
    let rows = column(view)?;
    let largest = AtomicU32::new(0);
    let spans = Spans::new(rows.rows(), SPAN, Vec::new());
    pool::run(&spans, Crew::All, interrupted, |span, (): &mut ()| {
        let x = rows.lines_of_rows::<f32>(span.rows(), 0..1);
        let max = kernels::largest::<f32, true>(x.line(0));
        largest.fetch_max(max.max(0.0).to_bits(), Ordering::Relaxed);
    })?;
    Ok(f32::from_bits(largest.into_inner()))
}

/// Copies a contiguous array past the caches.
///
/// # Errors
/// Where either is not contiguous float32.
pub(crate) fn copy(from: &View<'_>, to: ViewMut<'_>, interrupted: &dyn Fn() -> bool) -> Result<()> {
    let rows = column(from)?;
    column(to.as_view())?;
    let order = Order::c(from.shape().len());
    let spans = Spans::new(rows.rows(), SPAN, vec![RowsMut::new(to, None, &order)]);
    pool::run(&spans, Crew::All, interrupted, |span, (): &mut ()| {
        let all = span.rows();
        let from = rows.lines_of_rows::<f32>(all.clone(), 0..1).line(0);
        simd::stream_slice(from, span.lines_of_rows_mut(0, all, 0..1).line(0));
        simd::fence();
    })
}
