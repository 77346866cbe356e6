//! What a file is, by its first bytes.

/// The formats that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Bmp,
    Gif,
    Tiff,
}

impl Format {
    /// The format that the first bytes announce.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            return Some(Self::WebP);
        }
        [
            (&b"\xff\xd8\xff"[..], Self::Jpeg),
            (b"\x89PNG\r\n\x1a\n", Self::Png),
            (b"GIF87a", Self::Gif),
            (b"GIF89a", Self::Gif),
            (b"BM", Self::Bmp),
            (b"II*\0", Self::Tiff),
            (b"MM\0*", Self::Tiff),
            (b"II+\0", Self::Tiff),
            (b"MM\0+", Self::Tiff),
        ]
        .into_iter()
        .find(|(magic, _)| bytes.starts_with(magic))
        .map(|(_, format)| format)
    }

    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
        }
    }
}

/// What the first bytes of a file announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A picture of a format that [`decode`](super::decode) takes.
    Picture,
    /// A picture or a video of another format, of this name.
    OtherPicture(&'static str),
    /// No picture at all, but something known by this name.
    NoPicture(&'static str),
    /// No bytes.
    Empty,
    /// Nothing that is known.
    Unknown,
}

impl FileKind {
    /// So many first bytes of a file are enough for [`of`](Self::of).
    pub const BYTES: usize = 512;

    /// What a file is that begins with these bytes.
    pub fn of(first_bytes: &[u8]) -> Self {
        if first_bytes.is_empty() {
            return Self::Empty;
        }
        if let Some(name) = raw_of_camera(first_bytes) {
            return Self::OtherPicture(name);
        }
        if Format::of(first_bytes).is_some() {
            return Self::Picture;
        }
        if let Some(brands) = brands(first_bytes) {
            return Self::OtherPicture(of_brands(brands));
        }
        let is_avi = first_bytes.starts_with(b"RIFF") && first_bytes.get(8..12) == Some(b"AVI ");
        if is_avi || is_transport_stream(first_bytes) {
            return Self::OtherPicture(VIDEO);
        }
        let text = first_bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first_bytes).trim_ascii_start();
        let starts = |magic: &[u8]| {
            first_bytes.starts_with(magic)
                || text.get(..magic.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(magic))
        };
        if let Some((_, name)) = PICTURES.iter().find(|(magic, _)| starts(magic)) {
            return Self::OtherPicture(name);
        }
        if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| starts(magic)) {
            return Self::NoPicture(name);
        }
        if starts(b"<?xml") {
            let is_drawing = first_bytes.windows(4).any(|four| four.eq_ignore_ascii_case(b"<svg"));
            return if is_drawing { Self::OtherPicture("SVG") } else { Self::NoPicture("XML") };
        }
        match text {
            [b'{' | b'[', rest @ ..] if is_json(rest) => Self::NoPicture(JSON),
            _ => Self::Unknown,
        }
    }

    /// True for a video, of which frames can be taken.
    pub fn is_video(self) -> bool {
        self == Self::OtherPicture(VIDEO)
    }

    /// True for what people look at though no picture can be decoded of it: pictures and videos of other formats, and
    /// PDF.
    pub fn shows_something(self) -> bool {
        matches!(self, Self::OtherPicture(_) | Self::NoPicture(PDF))
    }

    /// Its name, if it has one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::OtherPicture(name) | Self::NoPicture(name) => Some(name),
            Self::Empty => Some("empty"),
            Self::Picture | Self::Unknown => None,
        }
    }

    /// What can be done so that there is a picture.
    pub fn advice(self) -> &'static str {
        match self {
            Self::OtherPicture("HEIC") => {
                "convert it first: heif-convert photo.heic photo.jpg, or on a Mac sips -s format jpeg photo.heic \
                 --out photo.jpg"
            }
            Self::OtherPicture("AVIF") => "convert it first: avifdec photo.avif photo.png",
            Self::OtherPicture(VIDEO) => {
                "take a frame out of it first: ffmpeg -i video.mp4 -frames:v 1 frame.png"
            }
            Self::OtherPicture(RAW) => "develop it first, or let the camera write JPEG beside it",
            Self::NoPicture(LFS) => {
                "the file itself was not downloaded: run git lfs pull where it comes from"
            }
            Self::NoPicture(WEB_PAGE | JSON | "XML") => {
                "a server gave this instead of the picture, perhaps an error or a login: download it again"
            }
            Self::NoPicture(APPLE_DOUBLE) => {
                "it holds what a Mac notes about a file; the picture has the same name without ._"
            }
            Self::NoPicture(PDF) => "make pictures of its pages first: pdftoppm -png file.pdf page",
            Self::NoPicture("a zip archive" | "a gzip archive") => "unpack it first",
            _ => "convert it to one of these first",
        }
    }
}

const VIDEO: &str = "a video";
const RAW: &str = "a camera's raw format";
const LFS: &str = "a Git LFS pointer";
const WEB_PAGE: &str = "a web page";
const JSON: &str = "JSON";
const PDF: &str = "PDF";
const APPLE_DOUBLE: &str = "a Mac's AppleDouble file";

const PICTURES: [(&[u8], &str); 16] = [
    (b"<svg", "SVG"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\x01\0", "an icon file"),
    (b"qoif", "QOI"),
    (b"8BPS", "Photoshop"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"P5\n", "PGM"),
    (b"P6\n", "PPM"),
    (b"\x1aE\xdf\xa3", VIDEO),
    (b"\0\0\x01\xba", VIDEO),
    (b"FLV\x01", VIDEO),
    (b"YUV4MPEG2 ", VIDEO),
];

const OTHERS: [(&[u8], &str); 8] = [
    (b"version https://git-lfs", LFS),
    (b"<!DOCTYPE", WEB_PAGE),
    (b"<html", WEB_PAGE),
    (b"<head", WEB_PAGE),
    (b"%PDF", PDF),
    (b"\0\x05\x16\x07", APPLE_DOUBLE),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
];

/// Formats of cameras that are not, or not only, TIFF. In those that are, the first picture is a thumbnail.
fn raw_of_camera(bytes: &[u8]) -> Option<&'static str> {
    const MAGICS: [&[u8]; 6] = [b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb"];
    let is_canon = bytes.starts_with(b"II*\0") && bytes.get(8..10) == Some(b"CR");
    (is_canon || MAGICS.iter().any(|magic| bytes.starts_with(magic))).then_some(RAW)
}

/// MPEG's transport stream: packets of 188 bytes, each of which begins with the same one.
fn is_transport_stream(bytes: &[u8]) -> bool {
    [0, 188, 376].into_iter().all(|at| bytes.get(at) == Some(&0x47))
}

/// The brands of the family of MP4: the main one, then those that it is compatible with.
fn brands(bytes: &[u8]) -> Option<&[[u8; 4]]> {
    let len = super::bytes::be32(bytes, 0)? as usize;
    let body = bytes.get(4..).and_then(|rest| rest.strip_prefix(b"ftyp"))?;
    let body = &body[..body.len().min(len.saturating_sub(8))];
    Some(body.as_chunks::<4>().0)
}

fn of_brands(brands: &[[u8; 4]]) -> &'static str {
    let main = brands.first();
    let has = |names: &[&[u8; 4]]| brands.iter().any(|brand| names.contains(&brand));
    match main {
        Some(b"crx ") => RAW,
        Some(b"avif" | b"avis") => "AVIF",
        Some(b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"hevm" | b"hevs") => "HEIC",
        Some(b"mif1" | b"msf1" | b"miaf") if has(&[b"avif", b"avis"]) => "AVIF",
        Some(b"mif1" | b"msf1" | b"miaf") => "HEIC",
        _ => VIDEO,
    }
}

/// Whether what follows a bracket goes on as JSON does.
fn is_json(rest: &[u8]) -> bool {
    let first = rest.trim_ascii_start().first();
    first.is_none_or(|byte| {
        matches!(byte, b'"' | b'{' | b'[' | b'}' | b']' | b'-' | b't' | b'f' | b'n' | b'0'..=b'9')
    })
}
