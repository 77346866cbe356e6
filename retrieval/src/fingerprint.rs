//! Which model vectors come from.

use palmtop::format::{Checksum, PalmFile, Storage, Value};
use palmtop_kernels::layout::WeightFormat;

/// Keys that change no number: names, licences, and how the weights were made.
const SAID_ONLY: [&str; 6] = [
    "general.name",
    "general.revision",
    "general.license",
    "general.license_notice",
    "general.converter",
    "quantization.",
];
/// Tensors that vectors do not depend on.
const NOT_USED: &str = "mask_codec.";

/// Tells models apart that give other vectors: a checksum of the metadata that numbers depend on, and of the checksums
/// that the file states of its tensors.
///
/// The same checkpoint with other weights (int8 and int4, say) is another model here: its vectors are close to the
/// other's, and not the same. It does not depend on where the file is, who converted it when, or this program's
/// version.
pub fn fingerprint(model: &PalmFile) -> u64 {
    let mut sum = Checksum::default();
    // A number before what has no length of its own: no two models are written down alike.
    let bytes = |sum: &mut Checksum, bytes: &[u8]| {
        sum.update(&(bytes.len() as u64).to_le_bytes());
        sum.update(bytes);
    };
    let mut metadata: Vec<_> = model.metadata().iter().collect();
    metadata.retain(|(key, _)| !SAID_ONLY.iter().any(|only| key.starts_with(only)));
    metadata.sort_by_key(|(key, _)| *key);
    for (key, value) in metadata {
        bytes(&mut sum, key.as_bytes());
        match value {
            Value::U64(v) => bytes(&mut sum, &v.to_le_bytes()),
            Value::F64(v) => bytes(&mut sum, &v.to_bits().to_le_bytes()),
            Value::Bool(v) => bytes(&mut sum, &[u8::from(*v)]),
            Value::Text(v) => bytes(&mut sum, v.as_bytes()),
            Value::U64s(v) => bytes(&mut sum, &v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()),
            Value::F64s(v) => {
                bytes(&mut sum, &v.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect::<Vec<_>>());
            }
        }
    }
    let mut tensors: Vec<_> = model.tensors().iter().filter(|t| !t.name.starts_with(NOT_USED)).collect();
    tensors.sort_by_key(|t| &t.name);
    for tensor in tensors {
        bytes(&mut sum, tensor.name.as_bytes());
        bytes(&mut sum, storage(tensor.storage).as_bytes());
        bytes(&mut sum, &tensor.shape.iter().flat_map(|&n| (n as u64).to_le_bytes()).collect::<Vec<_>>());
        sum.update(&tensor.checksum.to_le_bytes());
    }
    sum.finish()
}

/// A name that does not change with what people are shown.
fn storage(storage: Storage) -> &'static str {
    match storage {
        Storage::Bytes => "bytes",
        Storage::F32 => "f32",
        Storage::Packed(WeightFormat::F32) => "packed f32",
        Storage::Packed(WeightFormat::F16) => "packed f16",
        Storage::Packed(WeightFormat::Int8) => "packed int8",
        Storage::Packed(WeightFormat::Int4) => "packed int4",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use palmtop::format::{Head, TensorInfo, checksum};

    use super::*;

    fn model(change: impl FnOnce(&mut Head)) -> u64 {
        let mut head = Head::default();
        head.metadata.set("general.architecture", "paligemma");
        head.metadata.set("general.name", "a");
        head.metadata.set("text.layers", 2u64);
        head.tensors.push(TensorInfo::new("norm", Storage::F32, &[2]).unwrap());
        head.tensors[0].checksum = checksum(&[0; 8]);
        change(&mut head);
        let length = head.place();
        let mut bytes = head.encode();
        bytes.resize(length as usize, 0);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let path: &Path = file.path();
        fingerprint(&PalmFile::read(path).unwrap())
    }

    #[test]
    fn it_changes_with_numbers_and_not_with_names() {
        let one = model(|_| {});
        assert_eq!(model(|head| head.metadata.set("general.name", "b")), one);
        assert_eq!(model(|head| head.metadata.set("quantization.recipe", "text=int4")), one);
        let mask = |head: &mut Head| {
            head.tensors.push(TensorInfo::new("mask_codec.x", Storage::F32, &[1]).unwrap());
        };
        assert_eq!(model(mask), one);
        let other: [fn(&mut Head); 4] = [
            |head| head.metadata.set("text.layers", 3u64),
            |head| head.metadata.set("text.more", true),
            |head| head.tensors[0].checksum ^= 1,
            |head| head.tensors[0].name = "morn".into(),
        ];
        for change in other {
            assert_ne!(model(change), one);
        }
    }

    /// Indexes are kept for years: a later version must find them to be of the same model.
    #[test]
    fn it_stays_what_it_was() {
        assert_eq!(format!("{:016x}", model(|_| {})), "99cc323d4c83a301");
    }
}
