//! What a thread works in: grown as needed, never shared.

use super::settle::{Factors, MORE, Terms};
use super::summary::{Field, ROWS, Summary};
use crate::memory::{self, resize};
use crate::pool::Memory;
use crate::simd::Element;
use crate::view::Rows;
use crate::warp::{Derivatives, Warped};
use std::ops::{Deref, DerefMut};

/// A slice that starts at a cache line: vectors in it do not cross lines, which halves the cost of
/// reading and of writing them.
#[derive(Debug, Default)]
pub(crate) struct Buffer<F> {
    memory: Vec<F>,
    skip: usize,
    len: usize,
}

impl<F: Element> Buffer<F> {
    /// Makes it `len` elements long, of whatever content.
    pub(crate) fn fit(&mut self, len: usize) -> &mut [F] {
        const LINE: usize = 64;
        let spare = LINE / size_of::<F>();
        if self.memory.len() < len + spare {
            // Fresh memory of zeros is not touched before it is used.
            self.memory = memory::zeroed(len + spare);
            self.skip = self.memory.as_ptr().align_offset(LINE).min(spare);
        }
        self.len = len;
        self
    }
}

impl<F> Deref for Buffer<F> {
    type Target = [F];
    fn deref(&self) -> &[F] {
        &self.memory[self.skip..self.skip + self.len]
    }
}

impl<F> DerefMut for Buffer<F> {
    fn deref_mut(&mut self) -> &mut [F] {
        &mut self.memory[self.skip..self.skip + self.len]
    }
}

/// A block of logits as they were given, where they are warped, and which of their classes exist.
#[derive(Debug, Default)]
pub(super) struct Raw<F> {
    x: Buffer<F>,
    mask: Buffer<F>,
}

impl<F: Element> Raw<F> {
    /// Takes a block, of which `copy` copies logits and mask alike.
    pub(super) fn stage(
        &mut self,
        warp: &Warped<'_>,
        input: &Rows<'_>,
        copy: impl Fn(&Rows<'_>, &mut Buffer<F>),
    ) {
        copy(input, &mut self.x);
        if let Some(mask) = &warp.mask {
            copy(mask, &mut self.mask);
        }
    }

    /// The block as a model means it.
    pub(super) fn warped(&self, warp: &Warped<'_>, to: &mut Buffer<F>) {
        to.fit(self.x.len()).copy_from_slice(&self.x);
        warp.apply(to, self.mask(warp));
    }

    /// Makes the block's derivatives those with respect to the logits as they were given.
    pub(super) fn derive(&self, warp: &Warped<'_>, to: Derivatives<'_, F>) {
        warp.derive(&self.x, self.mask(warp), to);
    }

    fn mask(&self, warp: &Warped<'_>) -> Option<&[F]> {
        warp.mask.is_some().then_some(&self.mask)
    }
}

/// What a thread works in.
#[derive(Default)]
pub(super) struct Scratch<F: Element> {
    /// Exponentials, kept between the passes.
    pub(super) e: Buffer<F>,
    /// Logits, where they are staged.
    pub(super) x: Buffer<F>,
    pub(super) raw: Raw<F>,
    /// Soft targets, where they are staged.
    pub(super) q: Buffer<F>,
    /// An output, where it is staged.
    pub(super) out: Buffer<F>,
    /// Another.
    pub(super) bent: Buffer<F>,
    /// What the lanes of a sweep across rows hold between classes.
    pub(super) lanes: Buffer<F>,
    /// Their wider sums.
    pub(super) sums: Buffer<f64>,
    /// Target classes, counted from a tile's first.
    pub(super) index: Buffer<F>,
    /// 1 for rows that do not count.
    pub(super) ignored: Buffer<F>,
    /// What was settled, in the kernel's type.
    pub(super) narrow: [Buffer<F>; 7],
    /// The summaries of a group's blocks, and of its rows.
    pub(super) units: Vec<Summary>,
    pub(super) summaries: Vec<Summary<Field>>,
    /// The summaries of a tile that holds some of the classes.
    pub(super) part: Vec<Summary<Field>>,
    pub(super) terms: Terms,
    pub(super) losses: Vec<Field>,
    pub(super) more: Vec<[Field; MORE]>,
    pub(super) factors: Vec<Factors<Field>>,
    /// Rows of a group whose exponentials are lowered, and what they are multiplied by.
    pub(super) low: Vec<(usize, f64)>,
    /// Of the group's losses.
    pub(super) sum: f64,
}

impl<F: Element> Memory for Scratch<F> {
    fn forget(&mut self) {
        self.units.clear();
        self.summaries.clear();
        self.part.clear();
        self.terms.forget();
        self.losses.clear();
        self.more.clear();
        self.factors.clear();
        self.low.clear();
    }
}

impl<F: Element> Scratch<F> {
    /// Makes room for a group of rows.
    pub(super) fn begin(&mut self, rows: usize) {
        let groups = rows.div_ceil(ROWS);
        self.terms.begin(rows);
        if self.losses.len() < groups {
            resize(&mut self.summaries, groups, Summary::default());
            resize(&mut self.part, groups, Summary::default());
            resize(&mut self.losses, groups, Field::default());
            resize(&mut self.more, groups, [Field::default(); MORE]);
            resize(&mut self.factors, groups, Factors::default());
        }
    }
}
