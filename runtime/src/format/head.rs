//! The head of a `.palm` file: metadata and tensor table, read with every length checked.

use std::collections::{BTreeMap, HashSet};

use palmtop_kernels::layout::{MatrixLayout, WeightFormat};

use super::{FormatError, Metadata, Value, checksum};

/// The first eight bytes. As in PNG, the tail shows a transfer that rewrote line ends.
pub const MAGIC: [u8; 8] = *b"PALM\r\n\x1a\n";
/// The format version that this program reads and writes.
pub const VERSION: u32 = 1;
/// Every tensor starts at a multiple of this: the width of the widest vector and of a cache line.
pub const ALIGN: u64 = 64;
/// Tensors of at least [`PAGE_ALIGN_FROM`] bytes start at a multiple of this: the largest page size of the
/// devices we know (16 KiB on a Raspberry Pi 5, on Apple's and on recent Android devices).
pub const PAGE_ALIGN: u64 = 16 << 10;
/// See [`PAGE_ALIGN`]. Smaller tensors would waste more than they gain.
pub const PAGE_ALIGN_FROM: u64 = 256 << 10;
/// No head is larger.
pub const HEAD_BYTES_MAX: u64 = 64 << 20;

const FIXED_BYTES: usize = 48;
const CHECKSUM_AT: usize = 32;
const CHECKED_FROM: usize = 40;

/// How the bytes of a tensor are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Bytes whose meaning the tensor's name gives; shape is `[length]`.
    Bytes,
    /// Row-major little-endian f32.
    F32,
    /// A packed matrix (see `palmtop_kernels::layout`); shape is `[outputs, inputs]`.
    Packed(WeightFormat),
}

impl Storage {
    /// The name used in `inspect` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::F32 => "f32 plain",
            Self::Packed(WeightFormat::F32) => "f32 packed",
            Self::Packed(WeightFormat::F16) => "f16 packed",
            Self::Packed(WeightFormat::Int8) => "int8 packed",
            Self::Packed(WeightFormat::Int4) => "int4 packed",
        }
    }

    const CODES: [(u8, Self); 6] = [
        (0, Self::Bytes),
        (1, Self::F32),
        (16, Self::Packed(WeightFormat::F32)),
        (17, Self::Packed(WeightFormat::F16)),
        (18, Self::Packed(WeightFormat::Int8)),
        (19, Self::Packed(WeightFormat::Int4)),
    ];

    fn code(self) -> u8 {
        Self::CODES.iter().find(|(_, s)| *s == self).expect("every storage has a code").0
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::CODES.iter().find(|(c, _)| *c == code).map(|(_, s)| *s)
    }

    /// Bytes of a tensor of this shape; `None` if the shape is impossible.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        match self {
            Self::Bytes => <[usize; 1]>::try_from(shape).ok().map(|[n]| n),
            Self::F32 => shape.iter().try_fold(4usize, |a, &d| a.checked_mul(d)).filter(|&n| n > 0),
            Self::Packed(format) => {
                let [n, k] = <[usize; 2]>::try_from(shape).ok()?;
                Some(MatrixLayout::new(format, n, k)?.bytes())
            }
        }
    }
}

/// An entry of the tensor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Unique name.
    pub name: String,
    /// How its bytes are to be read.
    pub storage: Storage,
    /// Logical dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Where its data starts, from the start of the file.
    pub offset: u64,
    /// Bytes of its data.
    pub length: u64,
    /// [`checksum`] of its data.
    pub checksum: u64,
}

impl TensorInfo {
    /// An entry whose place and checksum are not known yet; `None` if the shape is impossible.
    pub fn new(name: impl Into<String>, storage: Storage, shape: &[usize]) -> Option<Self> {
        let length = storage.bytes(shape)? as u64;
        Some(Self { name: name.into(), storage, shape: shape.to_vec(), offset: 0, length, checksum: 0 })
    }

    fn align(&self) -> u64 {
        if self.length >= PAGE_ALIGN_FROM { PAGE_ALIGN } else { ALIGN }
    }
}

/// Everything before the data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// Typed key-value pairs.
    pub metadata: Metadata,
    /// The tensor table, in the order of the data.
    pub tensors: Vec<TensorInfo>,
}

impl Head {
    /// Gives every tensor its offset, in the order of the table; returns the length of the file.
    pub fn place(&mut self) -> u64 {
        // The head's length does not depend on the values of its fixed-size fields.
        let mut at = self.encode().len() as u64;
        for t in &mut self.tensors {
            at = at.next_multiple_of(t.align());
            t.offset = at;
            at += t.length;
        }
        at
    }

    /// The bytes of the head, checksum included. Tensors must have been [placed](Self::place).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.resize(CHECKED_FROM, 0);
        out.extend_from_slice(&(self.metadata.iter().len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u32).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            put_text(&mut out, key);
            put_value(&mut out, value);
        }
        for t in &self.tensors {
            put_text(&mut out, &t.name);
            out.push(t.storage.code());
            out.push(t.shape.len() as u8);
            for &d in &t.shape {
                out.extend_from_slice(&(d as u64).to_le_bytes());
            }
            for field in [t.offset, t.length, t.checksum] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        let head_bytes = out.len() as u64;
        let file_bytes =
            self.tensors.iter().map(|t| t.offset.saturating_add(t.length)).max().unwrap_or(0).max(head_bytes);
        out[16..24].copy_from_slice(&head_bytes.to_le_bytes());
        out[24..32].copy_from_slice(&file_bytes.to_le_bytes());
        let sum = checksum(&out[CHECKED_FROM..]);
        out[CHECKSUM_AT..CHECKED_FROM].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads and checks the head of a file given as all of its bytes; only the head is touched.
    pub fn parse(file: &[u8]) -> Result<Self, FormatError> {
        let found = file.len() as u64;
        if file.is_empty() {
            return Err(FormatError::Magic("the file is empty"));
        }
        if !file.starts_with(&MAGIC[..file.len().min(8)]) {
            return Err(FormatError::Magic(match file {
                [b'P', b'A', b'L', b'M', ..] => "its first bytes were changed in transfer (text mode?)",
                [b'G', b'G', b'U', b'F', ..] => "it is a GGUF file; palmtop converts from safetensors",
                _ => "it does not begin with PALM; make one with `palmtop convert`",
            }));
        }
        if file.len() < FIXED_BYTES {
            return Err(FormatError::Truncated { needed: FIXED_BYTES as u64, found });
        }
        let mut fixed = Reader { bytes: &file[..FIXED_BYTES], at: 8 };
        let version = fixed.u32()?;
        if version != VERSION {
            return Err(FormatError::Version { found: version, supported: VERSION });
        }
        if fixed.u32()? != 0 {
            return Err(fixed.malformed("reserved flags are set"));
        }
        let (head_bytes, file_bytes, stated) = (fixed.u64()?, fixed.u64()?, fixed.u64()?);
        if !(FIXED_BYTES as u64..=HEAD_BYTES_MAX).contains(&head_bytes) || head_bytes > file_bytes {
            return Err(FormatError::Malformed { offset: 16, what: format!("a head of {head_bytes} bytes") });
        }
        if found < file_bytes {
            return Err(FormatError::Truncated { needed: file_bytes, found });
        }
        if found > file_bytes {
            return Err(FormatError::Length { stated: file_bytes, found });
        }
        let head = &file[..head_bytes as usize];
        let sum = checksum(&head[CHECKED_FROM..]);
        if sum != stated {
            return Err(FormatError::HeadChecksum { stated, found: sum });
        }
        Self::parse_tables(head, file_bytes)
    }

    /// Reads the two tables behind the fixed fields. The checksum says nothing about the writer's honesty.
    fn parse_tables(head: &[u8], file_bytes: u64) -> Result<Self, FormatError> {
        let mut r = Reader { bytes: head, at: CHECKED_FROM };
        let (entries, tensors) = (r.u32()?, r.u32()?);
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let key = r.text()?;
            let value = r.value()?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(r.malformed(format!("metadata '{key}' appears twice")));
            }
        }
        let mut out = Self::default();
        for (key, value) in metadata {
            out.metadata.set(key, value);
        }
        let mut names = HashSet::new();
        let mut end = head.len() as u64;
        for _ in 0..tensors {
            let t = r.tensor()?;
            let wrong = |what: String| FormatError::Tensor { name: t.name.clone(), what };
            if !names.insert(t.name.clone()) {
                return Err(wrong("appears twice in the table".into()));
            }
            let want = t.storage.bytes(&t.shape).ok_or_else(|| {
                wrong(format!("shape {:?} is impossible for {}", t.shape, t.storage.name()))
            })?;
            if t.length != want as u64 {
                return Err(wrong(format!("{} bytes where shape {:?} needs {want}", t.length, t.shape)));
            }
            if !t.offset.is_multiple_of(t.align()) {
                return Err(wrong(format!("offset {} is not aligned to {}", t.offset, t.align())));
            }
            let tensor_end = t.offset.checked_add(t.length).filter(|&e| e <= file_bytes);
            match tensor_end {
                Some(e) if t.offset >= end => end = e,
                Some(_) => return Err(wrong(format!("offset {} overlaps the data before it", t.offset))),
                None => {
                    return Err(wrong(format!(
                        "{} bytes at offset {} reach past the end of the file ({file_bytes} bytes)",
                        t.length, t.offset
                    )));
                }
            }
            out.tensors.push(t);
        }
        if r.at != head.len() {
            return Err(r.malformed("there are extra bytes after the tensor table"));
        }
        Ok(out)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    fn list<T: Copy, const N: usize>(out: &mut Vec<u8>, code: u8, items: &[T], bytes: impl Fn(T) -> [u8; N]) {
        out.push(code);
        out.extend_from_slice(&(items.len() as u32).to_le_bytes());
        items.iter().for_each(|&v| out.extend_from_slice(&bytes(v)));
    }
    match value {
        Value::U64(v) => {
            out.push(1);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::F64(v) => {
            out.push(2);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Bool(v) => out.extend_from_slice(&[3, u8::from(*v)]),
        Value::Text(v) => {
            out.push(4);
            put_text(out, v);
        }
        Value::U64s(v) => list(out, 5, v, u64::to_le_bytes),
        Value::F64s(v) => list(out, 6, v, f64::to_le_bytes),
    }
}

/// Reads little-endian fields and knows where it is.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn malformed(&self, what: impl Into<String>) -> FormatError {
        FormatError::Malformed { offset: self.at, what: what.into() }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], FormatError> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.bytes.len());
        let end =
            end.ok_or_else(|| self.malformed(format!("the head ends, but {n} more bytes are needed")))?;
        let out = &self.bytes[self.at..end];
        self.at = end;
        Ok(out)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        Ok(self.take(N)?.try_into().expect("take gives N bytes"))
    }

    fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, FormatError> {
        let n = self.u32()? as usize;
        let bytes = self.take(n)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.malformed("a text is not UTF-8"))
    }

    fn list<T, const N: usize>(&mut self, item: impl Fn([u8; N]) -> T) -> Result<Vec<T>, FormatError> {
        let n = self.u32()? as usize;
        let bytes = n.checked_mul(N).ok_or_else(|| self.malformed("a list's length overflows"))?;
        Ok(self.take(bytes)?.chunks_exact(N).map(|c| item(c.try_into().expect("N bytes"))).collect())
    }

    fn value(&mut self) -> Result<Value, FormatError> {
        Ok(match self.u8()? {
            1 => Value::U64(self.u64()?),
            2 => Value::F64(f64::from_le_bytes(self.array()?)),
            3 => match self.u8()? {
                b @ (0 | 1) => Value::Bool(b == 1),
                b => return Err(self.malformed(format!("truth value {b}"))),
            },
            4 => Value::Text(self.text()?),
            5 => Value::U64s(self.list(u64::from_le_bytes)?),
            6 => Value::F64s(self.list(f64::from_le_bytes)?),
            code => return Err(self.malformed(format!("unknown value type {code}"))),
        })
    }

    fn tensor(&mut self) -> Result<TensorInfo, FormatError> {
        let name = self.text()?;
        let code = self.u8()?;
        let storage = Storage::from_code(code).ok_or_else(|| FormatError::Tensor {
            name: name.clone(),
            what: format!("unknown storage {code}: the file needs a newer palmtop"),
        })?;
        let dims = self.u8()?;
        let mut shape = Vec::new();
        for _ in 0..dims {
            let d = self.u64()?;
            shape.push(usize::try_from(d).map_err(|_| self.malformed(format!("dimension {d}")))?);
        }
        Ok(TensorInfo {
            name,
            storage,
            shape,
            offset: self.u64()?,
            length: self.u64()?,
            checksum: self.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> (Head, Vec<u8>) {
        let mut head = Head::default();
        head.metadata.set("general.architecture", "paligemma");
        head.metadata.set("a.count", 7u64);
        head.metadata.set("a.eps", 1e-6);
        head.metadata.set("a.flag", true);
        head.metadata.set("a.list", vec![1u64, 2, 3]);
        head.metadata.set("a.means", vec![0.5, 0.25]);
        for (name, storage, shape) in [
            ("blob", Storage::Bytes, vec![5]),
            ("norm", Storage::F32, vec![33]),
            ("matrix", Storage::Packed(WeightFormat::Int4), vec![48, 300]),
            ("large", Storage::F32, vec![300, 300]),
        ] {
            head.tensors.push(TensorInfo::new(name, storage, &shape).unwrap());
        }
        let length = head.place();
        let mut file = head.encode();
        file.resize(length as usize, 0);
        (head, file)
    }

    #[test]
    fn a_head_comes_back_as_written() {
        let (head, file) = sample();
        assert_eq!(Head::parse(&file).unwrap(), head);
        assert_eq!(head.tensors[3].offset % PAGE_ALIGN, 0);
        assert!(head.tensors.iter().all(|t| t.offset % ALIGN == 0));
    }

    #[test]
    fn every_truncation_is_refused() {
        let (_, file) = sample();
        for n in (0..file.len()).step_by(if cfg!(miri) { 9973 } else { 1 }) {
            assert!(Head::parse(&file[..n]).is_err(), "{n} bytes");
        }
        let mut long = file.clone();
        long.push(0);
        assert!(matches!(Head::parse(&long), Err(FormatError::Length { .. })));
    }

    #[test]
    fn every_flipped_bit_of_the_head_is_refused() {
        let (head, file) = sample();
        for bit in (0..head.encode().len() * 8).step_by(if cfg!(miri) { 503 } else { 1 }) {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::parse(&bad).is_err(), "bit {bit}");
        }
    }

    /// A liar writes a correct checksum over wrong fields.
    fn lie(change: impl Fn(&mut Head)) -> String {
        let (mut head, file) = sample();
        change(&mut head);
        let mut bad = head.encode();
        bad[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
        bad.resize(file.len(), 0);
        Head::parse(&bad).unwrap_err().to_string()
    }

    #[test]
    fn lying_tables_are_refused_with_the_tensor_named() {
        for (change, text) in [
            (
                (|h: &mut Head| h.tensors[1].offset += 4) as fn(&mut Head),
                "tensor 'norm': offset 516 is not aligned to 64",
            ),
            (|h| h.tensors[1].offset = 0, "tensor 'norm': offset 0 overlaps the data before it"),
            (|h| h.tensors[1].length = 8, "tensor 'norm': 8 bytes where shape [33] needs 132"),
            (
                |h| h.tensors[3].offset = 1 << 40,
                "tensor 'large': 360000 bytes at offset 1099511627776 reach past the end of the file",
            ),
            (|h| h.tensors[3].offset = u64::MAX - (PAGE_ALIGN - 1), "reach past the end"),
            (|h| h.tensors[1].name = "blob".into(), "tensor 'blob': appears twice in the table"),
            (|h| h.tensors[2].shape = vec![usize::MAX, usize::MAX], "is impossible for int4 packed"),
            (|h| h.tensors[2].shape = vec![48], "tensor 'matrix': shape [48] is impossible for int4 packed"),
            (|h| h.tensors[1].shape = vec![0], "tensor 'norm': shape [0] is impossible for f32 plain"),
        ] {
            let got = lie(change);
            assert!(got.contains(text), "{got:?} does not say {text:?}");
        }
    }

    #[test]
    fn other_files_are_named() {
        for (bytes, text) in [
            (&b""[..], "the file is empty"),
            (b"GGUF\x03\0\0\0and more", "it is a GGUF file"),
            (b"PALM\n\x1a\n....", "changed in transfer"),
            (b"\x89PNG\r\n\x1a\n", "make one with `palmtop convert`"),
            (b"PALM\r\n\x1a\n", "cut short"),
        ] {
            let got = Head::parse(bytes).unwrap_err().to_string();
            assert!(got.contains(text), "{got:?} does not say {text:?}");
        }
        let (_, mut file) = sample();
        file[8] = 9;
        assert!(Head::parse(&file).unwrap_err().to_string().contains("version 9 is not supported"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, ..ProptestConfig::default() })]
        #[test]
        fn no_bytes_make_the_reader_panic(tail in prop::collection::vec(any::<u8>(), 0..400), entries in 0u32..4, tensors in 0u32..4) {
            let mut file = vec![0; FIXED_BYTES];
            file[..8].copy_from_slice(&MAGIC);
            file[8..12].copy_from_slice(&VERSION.to_le_bytes());
            file[40..44].copy_from_slice(&entries.to_le_bytes());
            file[44..48].copy_from_slice(&tensors.to_le_bytes());
            file.extend_from_slice(&tail);
            let n = file.len() as u64;
            file[16..24].copy_from_slice(&n.to_le_bytes());
            file[24..32].copy_from_slice(&n.to_le_bytes());
            let sum = checksum(&file[CHECKED_FROM..]);
            file[32..40].copy_from_slice(&sum.to_le_bytes());
            if let Ok(head) = Head::parse(&file) {
                for t in head.tensors {
                    prop_assert!(t.offset + t.length <= n);
                }
            }
        }
    }
}
