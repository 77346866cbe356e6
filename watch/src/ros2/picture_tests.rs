//! Pictures in messages: whole ones, and what a careless or hostile node may send.

use proptest::prelude::*;

use super::*;

const NO_LIMIT: usize = usize::MAX;

/// Writes CDR, with the bytes of numbers in either order.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    is_big: bool,
}

impl Writer {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let bytes = if self.is_big { value.to_be_bytes() } else { value.to_le_bytes() };
        self.bytes.extend(bytes);
        self
    }

    fn octets(&mut self, data: &[u8]) -> &mut Self {
        self.u32(data.len() as u32);
        self.bytes.extend(data);
        self
    }

    fn header(&mut self, sec: i32, nanosec: u32) -> &mut Self {
        self.u32(sec.cast_unsigned()).u32(nanosec).octets(b"cam\0")
    }
}

/// An `Image` whose fields are as given.
fn image_message(is_big: bool, [width, height, step]: [u32; 3], encoding: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Writer { is_big, ..Writer::default() };
    out.header(1_790_000_000, 125).u32(height).u32(width).octets(format!("{encoding}\0").as_bytes());
    out.bytes.push(0);
    out.u32(step).octets(data);
    out.bytes
}

fn compressed_message(data: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.header(0, 0).octets(b"rgb8; jpeg compressed bgr8\0").octets(data);
    out.bytes
}

fn broken(kind: Kind, message: &[u8]) -> String {
    let mut out = Vec::new();
    let error = read(kind, message, true, 1000, &mut out).expect_err("not to be read").to_string();
    assert_eq!(out.capacity(), 0, "{error}: nothing is taken for what cannot be read");
    error
}

#[test]
fn rows_are_read_without_what_pads_them() {
    for (encoding, format) in [
        ("rgb8", PixelFormat::Rgb),
        ("bgr8", PixelFormat::Bgr),
        ("rgba8", PixelFormat::Rgba),
        ("bgra8", PixelFormat::Bgra),
        ("mono8", PixelFormat::Grey),
        ("8UC1", PixelFormat::Grey),
    ] {
        let row = 3 * format.bytes() as u32;
        let step = row + 5;
        // One byte more than the picture has.
        let data: Vec<u8> = (0..2 * step + 1).map(|n| n as u8).collect();
        let rows: Vec<u8> = (0..row).chain(step..step + row).map(|n| n as u8).collect();
        for is_big in [false, true] {
            let message = image_message(is_big, [3, 2, step], encoding, &data);
            let mut out = vec![9; 100];
            let picture = read(Kind::Image, &message, !is_big, NO_LIMIT, &mut out).unwrap();
            assert_eq!(picture.layout, Layout::Packed { format, width: 3, height: 2 });
            assert_eq!(out, rows, "{encoding}");
            let stamp = UNIX_EPOCH + Duration::new(1_790_000_000, 125);
            assert_eq!(picture.stamp, Some(stamp));
        }
    }
}

#[test]
fn rows_of_pairs_of_pixels_are_read_for_odd_widths_too() {
    let color = YuvColor::default();
    let (width, height) = (3, 2);
    for (encoding, layout) in [
        ("yuyv", Layout::Yuyv { width, height, color }),
        ("yuv422_yuy2", Layout::Yuyv { width, height, color }),
        ("uyvy", Layout::Uyvy { width, height, color }),
        ("yuv422", Layout::Uyvy { width, height, color }),
    ] {
        let data: Vec<u8> = (0..20).collect();
        let mut out = Vec::new();
        let message = image_message(false, [width, height, 10], encoding, &data);
        let picture = read(Kind::Image, &message, true, NO_LIMIT, &mut out).unwrap();
        assert_eq!(picture.layout, layout, "{encoding}");
        assert_eq!(out, [&data[..8], &data[10..18]].concat(), "{encoding}");
        assert!(picture.layout.frame(&out).unwrap().is_ok());
        let narrow = image_message(false, [width, height, 7], encoding, &data);
        assert!(broken(Kind::Image, &narrow).contains("does not fit into a step of 7"));
    }
}

#[test]
fn files_are_told_by_how_they_begin() {
    for data in [&b"\xff\xd8\xff\xe0jpeg"[..], b"\x89PNG\r\n\x1a\nrest"] {
        let mut out = Vec::new();
        let picture = read(Kind::Compressed, &compressed_message(data), true, NO_LIMIT, &mut out).unwrap();
        assert_eq!((picture.layout, out.as_slice()), (Layout::Encoded, data));
    }
    assert!(broken(Kind::Compressed, &compressed_message(b"GIF89a")).contains("neither JPEG nor PNG"));
    let long = [b"\xff\xd8\xff".as_slice(), &[0; 1000]].concat();
    assert!(
        broken(Kind::Compressed, &compressed_message(&long)).contains("1003 bytes, and the limit is 1000")
    );
}

#[test]
fn a_stamp_that_is_no_time_is_none() {
    for (sec, nanosec) in [(-1, 0), (5, 1_000_000_000), (i32::MIN, u32::MAX)] {
        let mut message = Writer::default();
        message.header(sec, nanosec).octets(b"").octets(b"\xff\xd8\xff");
        let picture = read(Kind::Compressed, &message.bytes, true, NO_LIMIT, &mut Vec::new()).unwrap();
        assert_eq!(picture.stamp, None);
    }
}

#[test]
fn what_an_image_cannot_be_is_refused() {
    let refused = |sizes, encoding, data: usize, says: &str| {
        let error = broken(Kind::Image, &image_message(false, sizes, encoding, &vec![0; data]));
        assert!(error.contains(says), "{error}");
    };
    refused([4, 4, 12], "rgb8", 47, "47 bytes instead of 48");
    refused([0, 4, 12], "rgb8", 48, "0 × 4 is no size");
    refused([4, 0, 12], "rgb8", 48, "4 × 0 is no size");
    refused([u32::MAX, u32::MAX, u32::MAX], "rgb8", 48, "is no size");
    refused([1 << 16, 1 << 16, 3 << 16], "rgb8", 48, "instead of 12884901888");
    refused([4, 4, 11], "rgb8", 48, "does not fit into a step of 11");
    refused([4, 4, 0], "rgb8", 48, "does not fit into a step of 0");
    refused([40, 40, 120], "rgb8", 4800, "4800 bytes, and the limit is 1000");
    refused([4, 4, 12], "bayer_rggb8", 48, "'bayer_rggb8' is not read");
    refused([4, 4, 12], "8UC3", 48, "'8UC3' is not read");
    refused([4, 4, 12], "\u{1b}[2J", 48, r"'\u{1b}[2J' is not read");
}

#[test]
fn a_message_that_ends_anywhere_is_refused() {
    for (kind, message) in [
        (Kind::Image, image_message(false, [2, 2, 6], "rgb8", &[7; 12])),
        (Kind::Compressed, compressed_message(b"\xff\xd8\xff")),
    ] {
        for end in 0..message.len() {
            assert!(broken(kind, &message[..end]).contains("ends too early"), "{kind:?} {end}");
        }
    }
}

proptest! {
    /// Whatever comes, what is read has the bytes that its layout says, and no more than came.
    #[test]
    fn any_bytes_are_read_or_refused(
        mut message in proptest::collection::vec(any::<u8>(), 0..200),
        start in 0_usize..3,
        is_little: bool,
        encoding in proptest::sample::select(&["rgb8", "yuyv"]),
    ) {
        // The beginning of a sound message lets more of the rest be reached.
        let sound = image_message(!is_little, [2, 3, 6], encoding, &[1; 18]);
        let keep = [0, 24, sound.len() - 22][start];
        message.splice(0..0, sound[..keep].iter().copied());
        for kind in [Kind::Image, Kind::Compressed] {
            let mut out = Vec::new();
            if let Ok(picture) = read(kind, &message, is_little, NO_LIMIT, &mut out) {
                prop_assert!(out.len() <= message.len());
                if let Some(bytes) = picture.layout.bytes() {
                    prop_assert_eq!(out.len(), bytes);
                }
            }
        }
    }
}
