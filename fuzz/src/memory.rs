//! Arrays of any type, byte order, alignment and strides, in a buffer that ends where they do.

use crate::draw::chance;
use arbitrary::{Result, Unstructured};
use crossent::float::{Format, Kind};
use crossent::view::{View, ViewMut};
use half::{bf16, f16};

/// What fills the gaps: as a float of any type it is a NaN, so that reading it shows.
const GAP: u8 = 0xff;

pub struct Array {
    bytes: Box<[u8]>,
    /// Of the first element, in bytes.
    start: usize,
    format: Format,
    pub shape: Vec<usize>,
    strides: Vec<isize>,
}

/// How an array may lie.
#[derive(Clone, Copy, PartialEq)]
pub enum Lies {
    /// Anyhow, also with several indices at one place.
    Read,
    /// Anyhow, each index at a place of its own.
    Written,
}

impl Array {
    /// An array whose bytes are all [`GAP`].
    pub fn new(u: &mut Unstructured<'_>, kind: Kind, shape: &[usize], lies: Lies) -> Result<Self> {
        let size = kind.size() as isize;
        let format = Format { kind, swapped: size > 1 && chance(u, 1, 6)? };
        let mut order: Vec<usize> = (0..shape.len()).rev().collect();
        match u.int_in_range(0..=3)? {
            0 => order.reverse(),
            1 if shape.len() > 1 => {
                let at = u.int_in_range(0..=shape.len() - 1)?;
                order.rotate_left(at);
            }
            _ => {}
        }
        let plain = !chance(u, 1, 2)?;
        let mut step = match (plain, u.int_in_range(0..=5)?) {
            (false, 0) => 2 * size,
            // No multiple of the size, as in a record.
            (false, 1) => size + 3,
            _ => size,
        };
        let mut strides = vec![0; shape.len()];
        let (mut low, mut high) = (0, 0);
        for axis in order {
            let n = shape[axis] as isize;
            let repeated = !plain && lies == Lies::Read && chance(u, 1, 8)?;
            if !repeated {
                let negative = !plain && chance(u, 1, 4)?;
                strides[axis] = if negative { -step } else { step };
                let reach = (n - 1).max(0) * step;
                if negative {
                    low -= reach
                } else {
                    high += reach
                }
                step *= n.max(1);
                if !plain && chance(u, 1, 4)? {
                    step += u.int_in_range(1..=3)? * size;
                }
            }
        }
        let empty = shape.contains(&0);
        // In front; behind there is nothing, and a sanitizer looks.
        let lead = if chance(u, 1, 4)? { u.int_in_range(0..=9)? } else { 0 };
        let len = if empty { 0 } else { high - low + size };
        Ok(Self {
            bytes: vec![GAP; lead + len as usize].into_boxed_slice(),
            start: if empty { lead } else { lead + low.unsigned_abs() },
            format,
            shape: shape.to_vec(),
            strides,
        })
    }

    /// An array with these numbers, in the order of C. Where indices share a place, the last stays.
    pub fn of(
        u: &mut Unstructured<'_>,
        kind: Kind,
        shape: &[usize],
        numbers: &[f64],
        lies: Lies,
    ) -> Result<Self> {
        let mut array = Self::new(u, kind, shape, lies)?;
        array.fill(numbers);
        Ok(array)
    }

    pub fn fill(&mut self, numbers: &[f64]) {
        let size = self.format.kind.size();
        for (at, x) in self.places().into_iter().zip(numbers) {
            let mut bytes = encode(self.format.kind, *x);
            if self.format.swapped {
                bytes[..size].reverse();
            }
            self.bytes[at..at + size].copy_from_slice(&bytes[..size]);
        }
    }

    /// Where elements start, in the order of C.
    fn places(&self) -> Vec<usize> {
        let count = self.shape.iter().product();
        let mut index = vec![0; self.shape.len()];
        let mut at = self.start as isize;
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            places.push(at as usize);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * self.shape[axis] as isize;
                index[axis] = 0;
            }
        }
        places
    }

    /// Its numbers in the order of C; integers beyond the digits of a double are rounded.
    pub fn numbers(&self) -> Vec<f64> {
        let size = self.format.kind.size();
        let decoded = |at: usize| {
            let mut bytes = [0; 8];
            bytes[..size].copy_from_slice(&self.bytes[at..at + size]);
            if self.format.swapped {
                bytes[..size].reverse();
            }
            decode(self.format.kind, bytes)
        };
        self.places().into_iter().map(decoded).collect()
    }

    pub fn kind(&self) -> Kind {
        self.format.kind
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn view(&self) -> View<'_> {
        let data = self.bytes.as_ptr().wrapping_add(self.start);
        // SAFETY: the buffer has every byte that shape and strides reach, and is borrowed.
        unsafe { View::from_raw(data, self.format, self.shape.clone(), self.strides.clone()) }
    }

    pub fn view_mut(&mut self) -> ViewMut<'_> {
        let data = self.bytes.as_mut_ptr().wrapping_add(self.start);
        // SAFETY: as above; borrowed alone, and `Lies::Written` gives each index its own place.
        unsafe { ViewMut::from_raw(data, self.format, self.shape.clone(), self.strides.clone()) }
    }

    /// The array to read, and once more to write to: what an answer in place is given.
    pub fn both(&mut self) -> (View<'_>, ViewMut<'_>) {
        let data = self.bytes.as_mut_ptr().wrapping_add(self.start);
        let (shape, strides) = (self.shape.clone(), self.strides.clone());
        // SAFETY: as above. The same elements at the same places, as the contract of `from_raw` has it.
        unsafe {
            (
                View::from_raw(data, self.format, shape.clone(), strides.clone()),
                ViewMut::from_raw(data, self.format, shape, strides),
            )
        }
    }

    /// Panics where a byte between the elements was written.
    pub fn assert_gaps(&self) {
        let mut is_gap = vec![true; self.bytes.len()];
        for at in self.places() {
            is_gap[at..at + self.format.kind.size()].fill(false);
        }
        let written = self.bytes.iter().zip(is_gap).position(|(b, gap)| gap && *b != GAP);
        assert_eq!(written, None, "a byte outside the elements was written");
    }
}

fn encode(kind: Kind, x: f64) -> [u8; 8] {
    let mut bytes = [0; 8];
    macro_rules! put {
        ($x:expr) => {{
            let it = $x.to_ne_bytes();
            bytes[..it.len()].copy_from_slice(&it);
        }};
    }
    match kind {
        Kind::F16 => put!(f16::from_f64(x)),
        Kind::Bf16 => put!(bf16::from_f64(x)),
        Kind::F32 => put!((x as f32)),
        Kind::F64 => put!(x),
        Kind::I8 => put!((x as i8)),
        Kind::I16 => put!((x as i16)),
        Kind::I32 => put!((x as i32)),
        Kind::I64 => put!((x as i64)),
        Kind::U8 => put!((x as u8)),
        Kind::U16 => put!((x as u16)),
        Kind::U32 => put!((x as u32)),
        Kind::U64 => put!((x as u64)),
    }
    bytes
}

fn decode(kind: Kind, bytes: [u8; 8]) -> f64 {
    macro_rules! get {
        ($type:ty) => {
            <$type>::from_ne_bytes(bytes[..size_of::<$type>()].try_into().expect("as many"))
        };
    }
    match kind {
        Kind::F16 => get!(f16).to_f64(),
        Kind::Bf16 => get!(bf16).to_f64(),
        Kind::F32 => f64::from(get!(f32)),
        Kind::F64 => get!(f64),
        Kind::I8 => f64::from(get!(i8)),
        Kind::I16 => f64::from(get!(i16)),
        Kind::I32 => f64::from(get!(i32)),
        Kind::I64 => get!(i64) as f64,
        Kind::U8 => f64::from(get!(u8)),
        Kind::U16 => f64::from(get!(u16)),
        Kind::U32 => f64::from(get!(u32)),
        Kind::U64 => get!(u64) as f64,
    }
}
