//! Rows of classes: lending and staging blocks, and who may write which.

use super::copy::{self, Axis};
use super::{LARGE, View, ViewMut};
use crate::float::{Format, Real};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The order in which rows are counted: the axes besides the class axis, longest steps first, so
/// that neighbouring rows are neighbours in memory whatever the array's order.
#[derive(Clone, Debug)]
pub struct Order(Vec<usize>);

impl Order {
    /// The order that suits this view.
    pub fn of(view: &View<'_>, class_axis: Option<usize>) -> Self {
        let mut axes: Vec<usize> =
            (0..view.shape.len()).filter(|a| Some(*a) != class_axis).collect();
        axes.sort_by_key(|&a| std::cmp::Reverse(view.strides[a].unsigned_abs()));
        Self(axes)
    }

    /// C order over `axes` axes.
    pub fn c(axes: usize) -> Self {
        Self((0..axes).collect())
    }

    /// The same order for a view that lacks the class axis.
    pub fn without(&self, class_axis: usize) -> Self {
        Self(self.0.iter().map(|&a| if a > class_axis { a - 1 } else { a }).collect())
    }

    /// The place in C order over `shape`, which lacks the class axis, of row `r`.
    pub fn index_of(&self, shape: &[usize], mut r: usize) -> Vec<usize> {
        let mut index = vec![0; shape.len()];
        for &axis in self.0.iter().rev() {
            index[axis] = r % shape[axis];
            r /= shape[axis];
        }
        index
    }
}

/// A [`View`] seen as rows of classes.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    data: *const u8,
    format: Format,
    /// Lengths and steps (bytes) of the row axes, merged where they can be; outermost first.
    axes: Vec<(usize, isize)>,
    rows: usize,
    classes: usize,
    class_step: isize,
    /// Whether every element is aligned.
    aligned: bool,
    lifetime: PhantomData<&'a u8>,
}

// SAFETY: a shared borrow of plain numbers.
unsafe impl Send for Rows<'_> {}
// SAFETY: as above.
unsafe impl Sync for Rows<'_> {}

/// Bytes to ask memory for ahead of those in use, where lines are too short for the processor to
/// see where reading will go on.
const AHEAD: usize = 32 << 10;

/// A block of memory as equally long lines: the rows of each class, or the classes of each row.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a, F> {
    data: *const F,
    len: usize,
    count: usize,
    step: isize,
    lifetime: PhantomData<&'a [F]>,
}

impl<'a, F: Real> Lines<'a, F> {
    /// Lines of `len` elements in a slice that starts one every `step`.
    pub fn of(data: &'a [F], len: usize, count: usize, step: usize) -> Self {
        assert!(len <= step && count.checked_mul(step).is_some_and(|n| n <= data.len()));
        Self { data: data.as_ptr(), len, count, step: step as isize, lifetime: PhantomData }
    }

    /// How many lines.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Elements of a line.
    pub fn width(&self) -> usize {
        self.len
    }

    /// Elements from a line's start to the next's.
    pub fn step(&self) -> isize {
        self.step
    }

    /// All lines as one slice, where nothing lies between them.
    pub fn dense(&self) -> Option<&'a [F]> {
        // SAFETY: every line's elements are readable for 'a, and each starts where the last ends.
        (self.step == self.len as isize)
            .then(|| unsafe { std::slice::from_raw_parts(self.data, self.len * self.count) })
    }

    /// The line that lies `AHEAD` bytes on in the order of lines, and how many elements past it: after
    /// the last line of these comes the first of the next block of rows, most likely.
    pub fn ahead(&self, i: usize) -> (&'a [F], usize) {
        let next = i + (AHEAD / size_of::<F>()).div_ceil(self.len);
        (self.line(next % self.count), next / self.count * self.len)
    }

    /// One line.
    #[inline(always)]
    pub fn line(&self, i: usize) -> &'a [F] {
        assert!(i < self.count);
        // SAFETY: `len` elements lie there for every line below `count`, for 'a.
        unsafe {
            std::slice::from_raw_parts(self.data.wrapping_offset(i as isize * self.step), self.len)
        }
    }
}

/// [`Lines`] to write to.
#[derive(Debug)]
pub struct LinesMut<'a, F> {
    data: *mut F,
    len: usize,
    count: usize,
    step: isize,
    lifetime: PhantomData<&'a mut [F]>,
}

impl<'a, F: Real> LinesMut<'a, F> {
    /// See [`Lines::of`].
    pub fn of(data: &'a mut [F], len: usize, count: usize, step: usize) -> Self {
        let Lines { step, .. } = Lines::of(data, len, count, step);
        Self { data: data.as_mut_ptr(), len, count, step, lifetime: PhantomData }
    }

    /// How many lines.
    pub fn count(&self) -> usize {
        self.count
    }

    /// See [`Lines::step`].
    pub fn step(&self) -> isize {
        self.step
    }

    /// See [`Lines::dense`].
    pub fn dense(&mut self) -> Option<&mut [F]> {
        // SAFETY: every line's elements are borrowed with self, and each starts where the last
        // ends.
        (self.step == self.len as isize)
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.data, self.len * self.count) })
    }

    /// One line.
    #[inline(always)]
    pub fn line(&mut self, i: usize) -> &mut [F] {
        assert!(i < self.count);
        // SAFETY: `len` elements lie there for every line below `count`, borrowed with self.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.data.wrapping_offset(i as isize * self.step),
                self.len,
            )
        }
    }
}

impl<'a> Rows<'a> {
    /// Sees a view as rows along `class_axis`, counted in `order`; without a class axis each
    /// element is a row of one class.
    pub fn new(view: View<'a>, class_axis: Option<usize>, order: &Order) -> Self {
        let mut axes: Vec<(usize, isize)> = Vec::with_capacity(order.0.len());
        for &a in &order.0 {
            let (n, step) = (view.shape[a], view.strides[a]);
            match axes.last_mut() {
                _ if n == 1 => {}
                Some((m, outer)) if *outer == step * n as isize => {
                    *m *= n;
                    *outer = step;
                }
                _ => axes.push((n, step)),
            }
        }
        let (classes, class_step) = class_axis.map_or((1, 0), |a| (view.shape[a], view.strides[a]));
        let size = view.format.kind.size();
        let aligned = view.data.addr().is_multiple_of(size)
            && class_step.unsigned_abs().is_multiple_of(size)
            && axes.iter().all(|(_, step)| step.unsigned_abs().is_multiple_of(size));
        Self {
            data: view.data,
            format: view.format,
            rows: axes.iter().map(|(n, _)| n).product(),
            axes,
            classes,
            class_step,
            aligned,
            lifetime: PhantomData,
        }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Whether these are floats of `F`'s own format, aligned: what can be lent as they lie.
    fn is_native<F: Real>(&self) -> bool {
        self.aligned && self.format == Format::native(F::KIND)
    }

    /// Whether [`Self::row`] lends: the classes of a row lie next to each other.
    pub fn lends_rows<F: Real>(&self) -> bool {
        self.is_native::<F>() && (self.class_step == size_of::<F>() as isize || self.classes == 1)
    }

    /// Whether [`Self::lines_of_rows`] lends: these rows lie next to each other.
    pub fn lends_columns<F: Real>(&self, rows: &Range<usize>) -> bool {
        let step = self.axes.last().map_or(size_of::<F>() as isize, |(_, step)| *step);
        self.is_native::<F>()
            && (step == size_of::<F>() as isize || rows.len() <= 1)
            && self.run(rows.start) >= rows.len()
    }

    /// Whether [`Self::lines_of_classes`] lends: these rows' classes lie next to each other, and
    /// the rows at equal steps.
    pub fn lends_block<F: Real>(&self, rows: &Range<usize>) -> bool {
        self.lends_rows::<F>() && self.run(rows.start) >= rows.len()
    }

    /// Whether neighbours in memory are classes of one row rather than rows.
    pub fn classes_are_close(&self) -> bool {
        let row_step = self.axes.last().map_or(isize::MAX, |(_, step)| *step);
        self.class_step.unsigned_abs() <= row_step.unsigned_abs()
    }

    /// How many rows from `row` on lie one step apart.
    pub fn run(&self, row: usize) -> usize {
        match self.axes.last() {
            Some((n, _)) if *n > 0 => n - row % n,
            _ => self.rows - row,
        }
    }

    /// The address of a row's first class.
    #[inline(always)]
    fn at(&self, row: usize) -> *const u8 {
        let mut offset = 0;
        let mut rest = row;
        if let [outer @ .., (_, step)] = self.axes.as_slice() {
            if outer.is_empty() {
                return self.data.wrapping_offset(row as isize * step);
            }
            for (n, step) in self.axes.iter().rev() {
                offset += (rest % n) as isize * step;
                rest /= n;
            }
        }
        self.data.wrapping_offset(offset)
    }

    /// Calls `f(first, rows, address, step)` for each run of rows that lie one step apart.
    fn runs(&self, rows: Range<usize>, mut f: impl FnMut(usize, usize, *const u8, isize)) {
        assert!(rows.end <= self.rows);
        let step = self.axes.last().map_or(0, |(_, step)| *step);
        let mut row = rows.start;
        while row < rows.end {
            let n = self.run(row).min(rows.end - row);
            f(row - rows.start, n, self.at(row), step);
            row += n;
        }
    }

    /// A row's classes, where they lie.
    ///
    /// # Panics
    /// Unless [`Self::lends_rows`].
    #[inline(always)]
    pub fn row<F: Real>(&self, row: usize, classes: Range<usize>) -> &'a [F] {
        let at = self.place(row, &classes);
        // SAFETY: in bounds, native, aligned and contiguous; readable for 'a by the view's contract.
        unsafe { std::slice::from_raw_parts(at, classes.len()) }
    }

    /// Where a row's classes lie.
    ///
    /// # Panics
    /// Unless they are native, aligned, contiguous and in bounds.
    #[inline(always)]
    fn place<F: Real>(&self, row: usize, classes: &Range<usize>) -> *const F {
        assert!(self.lends_rows::<F>() && row < self.rows);
        assert!(classes.start <= classes.end && classes.end <= self.classes);
        self.at(row).cast::<F>().wrapping_add(classes.start)
    }

    /// The rows of each class of a block, where they lie.
    ///
    /// # Panics
    /// Unless [`Self::lends_columns`].
    pub fn lines_of_rows<F: Real>(
        &self,
        rows: Range<usize>,
        classes: Range<usize>,
    ) -> Lines<'a, F> {
        assert!(self.lends_columns::<F>(&rows) && rows.end <= self.rows);
        assert!(classes.start <= classes.end && classes.end <= self.classes);
        let at = self.at(rows.start).wrapping_offset(classes.start as isize * self.class_step);
        Lines {
            data: at.cast(),
            len: rows.len(),
            count: classes.len(),
            step: self.class_step / size_of::<F>() as isize,
            lifetime: PhantomData,
        }
    }

    /// The classes of each row of a block, where they lie.
    ///
    /// # Panics
    /// Unless [`Self::lends_block`].
    pub fn lines_of_classes<F: Real>(
        &self,
        rows: Range<usize>,
        classes: Range<usize>,
    ) -> Lines<'a, F> {
        assert!(self.lends_block::<F>(&rows) && rows.end <= self.rows);
        assert!(classes.start <= classes.end && classes.end <= self.classes);
        let step = self.axes.last().map_or(0, |(_, step)| *step);
        Lines {
            data: self.at(rows.start).cast::<F>().wrapping_add(classes.start),
            len: classes.len(),
            count: rows.len(),
            step: step / size_of::<F>() as isize,
            lifetime: PhantomData,
        }
    }

    /// Copies a block to `dst`, where a row's classes are `class_step` apart and rows `row_step`.
    pub fn stage<F: Real>(
        &self,
        rows: Range<usize>,
        classes: Range<usize>,
        row_step: usize,
        class_step: usize,
        dst: &mut [F],
    ) {
        assert!(classes.end <= self.classes);
        self.runs(rows, |first, n, at, step| {
            let at = at.wrapping_offset(classes.start as isize * self.class_step);
            let along_rows = Axis { len: n, far: step, near: row_step };
            let along_classes = Axis { len: classes.len(), far: self.class_step, near: class_step };
            // SAFETY: rows and classes are in bounds, so the view's contract covers them.
            unsafe {
                copy::gather(
                    self.format,
                    at,
                    along_rows,
                    along_classes,
                    &mut dst[first * row_step..],
                );
            }
        });
    }

    /// One class of a row, as `F`.
    pub fn pick<F: Real>(&self, row: usize, class: usize) -> F {
        let mut x = [F::default()];
        self.stage(row..row + 1, class..class + 1, 1, 1, &mut x);
        x[0]
    }

    /// Copies rows of one class.
    pub fn stage_column<F: Real>(&self, rows: Range<usize>, dst: &mut [F]) {
        self.stage(rows, 0..1, 1, 1, dst);
    }

    /// Copies class indices; one that `i64` cannot hold becomes its maximum.
    pub fn stage_indices(&self, rows: Range<usize>, dst: &mut [i64]) {
        assert!(dst.len() >= rows.len());
        self.runs(rows, |first, n, at, step| {
            // SAFETY: rows are in bounds, so the view's contract covers them.
            unsafe {
                copy::gather_indices(self.format, at, step, &mut dst[first..first + n]);
            }
        });
    }

    /// One class index, whole.
    pub fn index(&self, row: usize) -> i128 {
        assert!(row < self.rows);
        // SAFETY: the row is in bounds, so the view's contract covers it.
        unsafe { copy::read_index(self.format, self.at(row)) }
    }
}

/// [`Rows`] to write to, through the [`Span`]s of a [`Spans`].
#[derive(Debug)]
pub struct RowsMut<'a> {
    rows: Rows<'a>,
    /// Whether the system has yet to supply the memory.
    untouched: bool,
    lifetime: PhantomData<&'a mut u8>,
}

impl<'a> RowsMut<'a> {
    /// See [`Rows::new`].
    pub fn new(view: ViewMut<'a>, class_axis: Option<usize>, order: &Order) -> Self {
        let rows = Rows::new(view.view, class_axis, order);
        Self { rows, untouched: view.untouched, lifetime: PhantomData }
    }

    /// Whether writing past the caches pays: where it would take many bytes of `F`, which are not new.
    pub(crate) fn streams<F>(&self) -> bool {
        self.rows.rows * self.rows.classes * size_of::<F>() >= LARGE && !self.untouched
    }
}

/// Into how many regions spans are cut: not fewer than threads, or some start next to each other.
const REGIONS: usize = 16;

/// The outputs of a call, cut into spans that are handed out once each: whoever holds a [`Span`] may
/// write its rows, or its classes of a row, and nobody else can.
#[derive(Debug)]
pub struct Spans<'a> {
    outputs: Vec<RowsMut<'a>>,
    rows: usize,
    step: usize,
    /// Spans of one row and the classes of each.
    parts: usize,
    width: usize,
    /// The spans of each region that were claimed, or more where there are none left.
    next: [AtomicUsize; REGIONS],
}

/// How an output's memory lies: [`Rows`] that cannot be read, as others may be writing there.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'s>(&'s RowsMut<'s>);

impl Layout<'_> {
    /// See [`RowsMut::streams`].
    pub(crate) fn streams<F>(self) -> bool {
        self.0.streams::<F>()
    }

    /// See [`Rows::lends_rows`].
    pub fn lends_rows<F: Real>(self) -> bool {
        self.0.rows.lends_rows::<F>()
    }

    /// See [`Rows::lends_columns`].
    pub fn lends_columns<F: Real>(self, rows: &Range<usize>) -> bool {
        self.0.rows.lends_columns::<F>(rows)
    }

    /// See [`Rows::lends_block`].
    pub fn lends_block<F: Real>(self, rows: &Range<usize>) -> bool {
        self.0.rows.lends_block::<F>(rows)
    }
}

/// The right to write some classes of some rows of the outputs.
pub struct Span<'s> {
    outputs: &'s [RowsMut<'s>],
    rows: Range<usize>,
    classes: Range<usize>,
    index: usize,
    stops: &'s dyn Fn() -> bool,
}

impl<'a> Spans<'a> {
    /// Cuts `rows` into spans of `step`.
    pub fn new(rows: usize, step: usize, outputs: Vec<RowsMut<'a>>) -> Self {
        assert!(outputs.iter().all(|o| o.rows.rows == rows));
        let next = Default::default();
        Self { outputs, rows, step: step.max(1), parts: 1, width: usize::MAX, next }
    }

    /// Cuts each row into so many parts of so many classes.
    pub fn in_parts(
        rows: usize,
        (parts, width): (usize, usize),
        outputs: Vec<RowsMut<'a>>,
    ) -> Self {
        // Products that overflowed would hand out the same place twice.
        assert!(parts.checked_mul(rows.max(width)).is_some());
        Self { parts, width, ..Self::new(rows, 1, outputs) }
    }

    /// The spans of a region: the first have one more where they are not of one size.
    fn region(&self, region: usize) -> Range<usize> {
        let (count, regions) = (self.count(), self.next.len());
        let start = |region: usize| region * (count / regions) + region.min(count % regions);
        start(region)..start(region + 1)
    }

    /// How many spans there are in all.
    pub fn count(&self) -> usize {
        self.rows.div_ceil(self.step) * self.parts
    }

    /// A span that nobody has, the next of the region that starts at so much of all (of 1) if there is
    /// one. Threads whose homes are apart do not write to one page of memory at the same time, which
    /// the system would supply twice where it is new; and what is next in memory is what they take
    /// next.
    pub fn claim(&self, home: f64) -> Option<Span<'_>> {
        let regions = self.next.len();
        let first = (home * regions as f64) as usize;
        let index = (first..first + regions).find_map(|region| {
            let Range { start, end } = self.region(region % regions);
            let next = &self.next[region % regions];
            if next.load(Ordering::Relaxed) >= end - start {
                return None;
            }
            Some(start + next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < end)
        })?;
        let start = index / self.parts * self.step;
        let rows = start..(start + self.step).min(self.rows);
        let first = index % self.parts * self.width;
        let classes = first..first.saturating_add(self.width);
        Some(Span { outputs: &self.outputs, rows, classes, index, stops: &|| false })
    }
}

impl std::fmt::Debug for Span<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { outputs, rows, classes, index, stops: _ } = self;
        let mut all = f.debug_struct("Span");
        all.field("outputs", outputs).field("rows", rows).field("classes", classes);
        all.field("index", index).finish_non_exhaustive()
    }
}

impl<'s> Span<'s> {
    /// The same, with a way to learn that nobody waits for it any longer.
    pub(crate) fn until<'t>(self, stops: &'t dyn Fn() -> bool) -> Span<'t>
    where
        's: 't,
    {
        Span { stops, ..self }
    }
}

impl Span<'_> {
    /// Whether nobody waits for it any longer, which it takes for good: what is written then does not
    /// matter. For work that may take long, to ask now and then.
    pub(crate) fn stops(&self) -> bool {
        (self.stops)()
    }

    /// Its rows.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Its place among the spans.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How an output's memory lies.
    pub fn layout(&self, output: usize) -> Layout<'_> {
        Layout(&self.outputs[output])
    }

    /// The classes of a part; of the last one, beyond the row's end.
    pub fn classes(&self) -> Range<usize> {
        self.classes.clone()
    }

    fn check(&self, rows: &Range<usize>, classes: &Range<usize>) {
        assert!(self.rows.start <= rows.start && rows.end <= self.rows.end);
        assert!(self.classes.start <= classes.start && classes.end <= self.classes.end);
    }

    /// [`Rows::row`], to write.
    #[inline(always)]
    pub fn row_mut<F: Real>(
        &mut self,
        output: usize,
        row: usize,
        classes: Range<usize>,
    ) -> &mut [F] {
        self.check(&(row..row + 1), &classes);
        let at = self.outputs[output].rows.place::<F>(row, &classes).cast_mut();
        // SAFETY: in bounds, native, aligned and contiguous; the span alone may write there, and
        // is borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(at, classes.len()) }
    }

    /// [`Rows::lines_of_rows`], to write.
    pub fn lines_of_rows_mut<F: Real>(
        &mut self,
        output: usize,
        rows: Range<usize>,
        classes: Range<usize>,
    ) -> LinesMut<'_, F> {
        self.check(&rows, &classes);
        self.writable(self.outputs[output].rows.lines_of_rows(rows, classes))
    }

    /// [`Rows::lines_of_classes`], to write.
    pub fn lines_of_classes_mut<F: Real>(
        &mut self,
        output: usize,
        rows: Range<usize>,
        classes: Range<usize>,
    ) -> LinesMut<'_, F> {
        self.check(&rows, &classes);
        self.writable(self.outputs[output].rows.lines_of_classes(rows, classes))
    }

    /// Lines of this span, to write: the span alone may, and is borrowed for as long.
    fn writable<F: Real>(&mut self, lines: Lines<'_, F>) -> LinesMut<'_, F> {
        let Lines { data, len, count, step, .. } = lines;
        LinesMut { data: data.cast_mut(), len, count, step, lifetime: PhantomData }
    }

    /// The reverse of [`Rows::stage`].
    pub fn write<F: Real>(
        &mut self,
        output: usize,
        rows: Range<usize>,
        classes: Range<usize>,
        row_step: usize,
        class_step: usize,
        src: &[F],
    ) {
        self.check(&rows, &classes);
        let to = &self.outputs[output].rows;
        assert!(classes.end <= to.classes);
        to.runs(rows, |first, n, at, step| {
            let at = at.wrapping_offset(classes.start as isize * to.class_step).cast_mut();
            let along_rows = Axis { len: n, far: step, near: row_step };
            let along_classes = Axis { len: classes.len(), far: to.class_step, near: class_step };
            // SAFETY: in bounds, so the view's contract covers it; the span alone may write here.
            unsafe {
                copy::scatter(to.format, at, along_rows, along_classes, &src[first * row_step..]);
            }
        });
    }

    /// Writes rows of one class.
    pub fn write_column<F: Real>(&mut self, output: usize, rows: Range<usize>, src: &[F]) {
        self.write(output, rows, 0..1, 1, 1, src);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_is_claimed_once() {
        for count in (0..70).chain([1023, 1024, 1025]) {
            for homes in 1..20 {
                let spans = Spans::new(count, 1, Vec::new());
                let mut claimed = vec![0; count];
                let mut last = None;
                for i in 0.. {
                    let home = f64::from(i % homes) / f64::from(homes);
                    let Some(span) = spans.claim(home) else { break };
                    claimed[span.index()] += 1;
                    if homes == 1 {
                        assert_eq!(span.index(), last.map_or(0, |last| last + 1), "in order");
                        last = Some(span.index());
                    }
                }
                assert!(claimed.iter().all(|n| *n == 1), "{count} {homes}");
            }
        }
    }
}
