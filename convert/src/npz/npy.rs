//! The head of a `.npy` array: type, order and shape, written as a Python dictionary.

use super::EntryFault;
use super::archive::{u16_at, u32_at};

/// How the values of an array are stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NpyType {
    /// `<f4`.
    F32,
    /// `<f2`.
    F16,
    /// `|V2`: NumPy has no bf16, so that JAX's come as two bytes without a meaning.
    Bf16,
}

impl NpyType {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// What stands before the values of an array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NpyHead {
    pub dtype: NpyType,
    pub shape: Vec<usize>,
    /// Where the values begin.
    pub start: usize,
}

impl NpyHead {
    /// Reads the head of a whole array, and checks that the values behind it fill its shape.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryFault> {
        let header_start = match bytes.get(..8) {
            Some(b"\x93NUMPY\x01\x00") => 10,
            Some(b"\x93NUMPY\x02\x00" | b"\x93NUMPY\x03\x00") => 12,
            _ => return Err(EntryFault::NotNpy),
        };
        if bytes.len() < header_start {
            return Err(EntryFault::NotNpy);
        }
        let header_bytes = if header_start == 10 { u32::from(u16_at(bytes, 8)) } else { u32_at(bytes, 8) };
        let start = header_start.checked_add(header_bytes as usize).ok_or(EntryFault::NotNpy)?;
        let header = bytes.get(header_start..start).ok_or(EntryFault::NotNpy)?;
        if header.len() > HEADER_BYTES_MAX {
            return Err(EntryFault::Header);
        }
        let header = std::str::from_utf8(header).map_err(|_| EntryFault::Header)?;
        let header = Dictionary::parse(header).ok_or(EntryFault::Header)?;
        let dtype = match header.descr.as_str() {
            "<f4" => NpyType::F32,
            "<f2" => NpyType::F16,
            "|V2" => NpyType::Bf16,
            _ => return Err(EntryFault::Type(header.descr)),
        };
        // A single column or row is the same in both orders, and NumPy may write either.
        if header.fortran_order && header.shape.iter().filter(|&&size| size > 1).count() > 1 {
            return Err(EntryFault::FortranOrder);
        }
        let bytes = bytes.len() - start;
        let wanted = header.shape.iter().try_fold(dtype.bytes(), |bytes, &size| bytes.checked_mul(size));
        if wanted != Some(bytes) {
            return Err(EntryFault::Size { shape: header.shape, bytes });
        }
        Ok(Self { dtype, shape: header.shape, start })
    }
}

/// NumPy refuses more than 10000 characters too.
const HEADER_BYTES_MAX: usize = 10_000;

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
#[derive(Debug, PartialEq)]
struct Dictionary {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Dictionary {
    /// Reads a dictionary of exactly these three keys, in any order.
    fn parse(text: &str) -> Option<Self> {
        let mut literal = Literal { rest: text };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        literal.expect("{")?;
        while literal.expect("}").is_none() {
            let key = literal.string()?;
            literal.expect(":")?;
            match key {
                "descr" => descr = Some(literal.string()?.to_owned()),
                "fortran_order" => fortran_order = Some(literal.boolean()?),
                "shape" => shape = Some(literal.tuple()?),
                _ => return None,
            }
            if literal.expect(",").is_none() {
                literal.expect("}")?;
                break;
            }
        }
        if !literal.rest.trim().is_empty() {
            return None;
        }
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// What is left of a Python literal.
struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    /// Takes `token` and the white space before it, if it is next.
    fn expect(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let quote = rest.chars().next().filter(|character| matches!(character, '\'' | '"'))?;
        let (string, rest) = rest[1..].split_once(quote)?;
        self.rest = rest;
        Some(string)
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.expect("True") {
            Some(()) => Some(true),
            None => self.expect("False").map(|()| false),
        }
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        self.expect("(")?;
        let (inside, rest) = self.rest.split_once(')')?;
        self.rest = rest;
        let inside = inside.trim();
        let inside = inside.strip_suffix(',').unwrap_or(inside);
        if inside.is_empty() {
            return Some(Vec::new());
        }
        inside.split(',').map(|size| size.trim().parse().ok()).collect()
    }
}
