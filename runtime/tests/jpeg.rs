//! From a JPEG file to image features and logits: the same bits with every instruction set of this machine, and on
//! every other machine.
//!
//! The numbers below are checksums of what this library gave when they were written down; `tests/aarch64.sh` finds the
//! same in emulation. They change only if the definition of the arithmetic or the model `demo/demo.palm` does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use palmtop::format::checksum;
use palmtop::image::{ImageLimits, RgbImage, decode, decode_file};
use palmtop::session::{Traced, TracedValues};
use palmtop::{Limits, Model, Session};
use palmtop_kernels::Isa;

/// Of pixels as they are decoded. Two of the files hold the same coefficients, and so the same picture.
const PIXELS: [(&str, u64); 4] = [
    ("cmyk.jpg", 0x8289_6821_8cec_5b63),
    ("progressive.jpg", 0xcfc0_6d2b_a3eb_abf6),
    ("subsampled.jpg", 0xcfc0_6d2b_a3eb_abf6),
    ("scene", 0x9e36_6fdf_fa37_e24c),
];
/// Of what is made of the last of them.
const VALUES: [(&str, u64); 3] = [
    ("pixel_values", 0xa4c4_fdf9_a277_c9ed),
    ("image_features", 0x8db3_4654_c975_dfef),
    ("gen.logits", 0xacb5_c1f9_256d_0e34),
];

fn data(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(path)
}

/// A picture of some size, in a JPEG file that is made here.
fn scene() -> Vec<u8> {
    let picture = decode_file(data("images/scene_640x361.png"), &ImageLimits::default()).unwrap();
    let mut file = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 85)
        .encode(picture.data(), picture.width(), picture.height(), image::ExtendedColorType::Rgb8)
        .unwrap();
    file
}

fn values(model: &Arc<Model>, picture: &RgbImage, isa: Isa) -> [(&'static str, u64); 3] {
    let mut limits = Limits::default();
    (limits.threads, limits.isa) = (Some(2), Some(isa));
    let mut session = Session::new(model, &limits).unwrap();
    let mut values = BTreeMap::new();
    let mut sink = |traced: Traced<'_>| {
        if let TracedValues::F32(x) = traced.values {
            let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect();
            values.insert(traced.name.to_owned(), checksum(&bytes));
        }
    };
    session.trace(&[picture.view()], "caption en", 3, &mut sink).unwrap();
    VALUES.map(|(name, _)| (name, values[name]))
}

#[test]
fn a_jpeg_file_gives_the_bits_that_were_written_down() {
    let pictures = PIXELS.map(|(name, _)| {
        let encoded = || std::fs::read(data(&format!("encoded/{name}"))).unwrap();
        let file = if name == "scene" { scene() } else { encoded() };
        (name, decode(&file, &ImageLimits::default()).unwrap())
    });
    assert_eq!(pictures.each_ref().map(|(name, picture)| (*name, checksum(picture.data()))), PIXELS);
    let model = Model::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/demo.palm")).unwrap();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        assert_eq!(values(&model, &pictures[3].1, isa), VALUES, "with the kernels {isa}");
    }
}
