//! How a picture is to be turned: what Pillow's `ImageOps.exif_transpose` reads out of Exif and XMP.

use std::borrow::Cow;

use image::metadata::Orientation;

use super::directory::Directory;

const ORIENTATION: u16 = 0x112;

/// What a file carries beside its pixels.
#[derive(Debug, Default)]
pub(super) struct Notes<'a> {
    /// A TIFF file of tags, with or without the word `Exif` before it.
    pub(super) exif: Option<Cow<'a, [u8]>>,
    /// XML, in which Exif's tags have names.
    pub(super) xmp: Option<Cow<'a, [u8]>>,
}

impl Notes<'_> {
    /// How the picture is to be turned. XMP counts only if Exif does not have the tag, whatever its value.
    pub(super) fn orientation(&self) -> Orientation {
        let exif = self.exif.as_deref().unwrap_or_default();
        let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
        let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
        let value = match Directory::first(exif).and_then(|directory| directory.find(ORIENTATION)) {
            // Numbers of any type count; bytes and texts do not.
            Some(value) => value.number().unwrap_or(1.0),
            None => f64::from(self.xmp.as_deref().and_then(orientation_in_xmp).unwrap_or(1)),
        };
        let value = (1..=8u8).find(|&whole| f64::from(whole) == value);
        value.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
    }
}

/// The digit of `tiff:Orientation="6"` or `<tiff:Orientation>6`, wherever that is.
fn orientation_in_xmp(xmp: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        match &xmp[at + NAME.len()..] {
            [b'=', b'"', digit, ..] | [b'>', digit, ..] if digit.is_ascii_digit() => Some(digit - b'0'),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exif with one tag: its type, its count, and the four bytes of its value or of the value's place.
    fn exif(kind: u16, count: u32, value: &[u8]) -> Vec<u8> {
        let head =
            [&b"II*\0\x08\0\0\0\x01\0\x12\x01"[..], &kind.to_le_bytes(), &count.to_le_bytes()].concat();
        if value.len() <= 4 {
            let mut inline = [0; 4];
            inline[..value.len()].copy_from_slice(value);
            return [&head[..], &inline, &[0; 4]].concat();
        }
        [&head[..], &26u32.to_le_bytes(), &[0; 4], value].concat()
    }

    fn turned(exif: &[u8], xmp: &str) -> u8 {
        let notes = Notes { exif: Some(exif.into()), xmp: Some(xmp.as_bytes().into()) };
        notes.orientation().to_exif()
    }

    #[test]
    fn numbers_of_every_type_count_and_bytes_do_not() {
        let double = 6f64.to_le_bytes();
        let ratio = [12u32.to_le_bytes(), 2u32.to_le_bytes()].concat();
        let cases: [(u16, u32, &[u8], u8); 14] = [
            (3, 1, &[6, 0], 6),
            (3, 2, &[6, 0, 3, 0], 6),
            (3, 3, &[6, 0, 3, 0, 1, 0], 6),
            (4, 1, &[6, 0, 0, 0], 6),
            (4, 1, &[6, 1, 0, 0], 1),
            (6, 1, &[6], 6),
            (8, 1, &[6, 0], 6),
            (9, 1, &[6, 0, 0, 0], 6),
            (11, 1, &6f32.to_le_bytes(), 6),
            (12, 1, &double, 6),
            (5, 1, &ratio, 6),
            (1, 1, &[6], 1),
            (2, 2, b"6\0", 1),
            (7, 1, &[6], 1),
        ];
        for (kind, count, value, expected) in cases {
            assert_eq!(turned(&exif(kind, count, value), ""), expected, "type {kind}");
        }
        let reversed = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\0";
        assert_eq!(turned(reversed, ""), 8);
        assert_eq!(turned(&[b"Exif\0\0Exif\0\0", &reversed[..]].concat(), ""), 8);
    }

    #[test]
    fn xmp_counts_where_exif_does_not_have_the_tag() {
        const ELEMENT: &str = "<tiff:Orientation>3</tiff:Orientation>";
        const ATTRIBUTE: &str = "<rdf:Description tiff:Orientation=\"3\"/>";
        let none = b"II*\0\x08\0\0\0\0\0\0\0\0\0".as_slice();
        for xmp in [ELEMENT, ATTRIBUTE, &format!("tiff:Orientation='8' {ATTRIBUTE}")] {
            assert_eq!(turned(none, xmp), 3);
            assert_eq!(turned(b"", xmp), 3);
            assert_eq!(turned(b"rubbish", xmp), 3);
            assert_eq!(turned(&exif(3, 1, &[6, 0]), xmp), 6);
            assert_eq!(turned(&exif(3, 1, &[1, 0]), xmp), 1);
            assert_eq!(turned(&exif(1, 1, &[6]), xmp), 1);
        }
        for xmp in ["tiff:Orientation=\"9\"", "tiff:Orientation", "tiff:Orientation=\"", "Orientation=\"3\""]
        {
            assert_eq!(turned(none, xmp), 1, "{xmp}");
        }
    }

    #[test]
    fn directories_that_lie_are_passed_over() {
        let good = exif(3, 1, &[6, 0]);
        for len in 0..good.len() - 4 {
            let found = turned(&good[..len], "");
            assert_eq!(found, if len >= 22 { 6 } else { 1 }, "{len}");
        }
        assert_eq!(turned(&exif(3, u32::MAX, &[6, 0]), ""), 1);
        assert_eq!(turned(&exif(99, 1, &[6, 0]), ""), 1);
        assert_eq!(turned(&exif(3, 0, &[6, 0]), ""), 1);
        assert_eq!(turned(b"II*\0\xff\xff\xff\xff\x01\0", ""), 1);
        assert_eq!(turned(b"II\x2b\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x01\0", ""), 1);
    }
}
