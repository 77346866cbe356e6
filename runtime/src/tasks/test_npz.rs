//! Just enough of a reader for the .npz files among the test vectors: stored entries, C order.

use std::collections::HashMap;

pub struct TestArray {
    pub descr: String,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

impl TestArray {
    pub fn f32s(&self) -> Vec<f32> {
        assert_eq!(self.descr, "<f4");
        self.data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    pub fn i64s(&self) -> Vec<i64> {
        assert_eq!(self.descr, "<i8");
        self.data.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
    }
}

/// Reads a file of `tests/data/vectors/seg`.
pub fn read(name: &str) -> HashMap<String, TestArray> {
    let path = format!("{}/../tests/data/vectors/seg/{name}", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let u16_at = |at: usize| u16::from_le_bytes(file[at..at + 2].try_into().unwrap()) as usize;
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;

    let end = file.len() - 22;
    assert_eq!(&file[end..end + 4], b"PK\x05\x06");
    let mut entry = u32_at(end + 16);
    let mut arrays = HashMap::new();
    for _ in 0..u16_at(end + 10) {
        assert_eq!((&file[entry..entry + 4], u16_at(entry + 10)), (b"PK\x01\x02".as_slice(), 0));
        let (size, name_length, local) = (u32_at(entry + 24), u16_at(entry + 28), u32_at(entry + 42));
        let name = std::str::from_utf8(&file[entry + 46..][..name_length]).unwrap();
        let start = local + 30 + u16_at(local + 26) + u16_at(local + 28);
        let array = parse_npy(&file[start..start + size]);
        arrays.insert(name.strip_suffix(".npy").unwrap().to_owned(), array);
        entry += 46 + name_length + u16_at(entry + 30) + u16_at(entry + 32);
    }
    arrays
}

fn parse_npy(bytes: &[u8]) -> TestArray {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header_length = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let header = std::str::from_utf8(&bytes[10..10 + header_length]).unwrap();
    assert!(header.contains("'fortran_order': False"));
    let after = |key: &str| &header[header.find(key).unwrap() + key.len()..];
    let descr = after("'descr': '").split('\'').next().unwrap().to_owned();
    let shape = after("'shape': (").split(')').next().unwrap();
    let shape =
        shape.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().unwrap());
    TestArray { descr, shape: shape.collect(), data: bytes[10 + header_length..].to_vec() }
}
