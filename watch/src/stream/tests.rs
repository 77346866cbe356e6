//! Streams in pieces of every size, whole and broken.

use palmtop::image::{PixelFormat, YuvColor};
use proptest::prelude::*;

use super::*;

/// A JPEG in form only: a thumbnail within its metadata, a scan with stuffed bytes, restarts and filling.
fn jpeg(n: u8) -> Vec<u8> {
    let mut file = vec![0xff, 0xd8, 0xff, 0xe1, 0, 8, 0xff, 0xd8, 0xff, 0xd9, b'x', n];
    file.extend_from_slice(&[0xff, 0xda, 0, 4, 1, 2]);
    file.extend_from_slice(&[n, 0xff, 0x00, 7, 0xff, 0xd0, 8, 0xff, 0xff, 0xd1, 9, 0xff, 0xff, 0xd9]);
    file
}

/// All pictures of a stream that comes in pieces of so many bytes.
fn pictures(splitter: &mut dyn Splitter, stream: &[u8], pieces: usize) -> Result<Vec<Vec<u8>>, StreamError> {
    let (mut out, mut picture) = (Vec::new(), Vec::new());
    for piece in stream.chunks(pieces) {
        let mut piece = piece;
        loop {
            let taken = splitter.take(piece, &mut picture)?;
            piece = &piece[taken.bytes..];
            if taken.is_complete {
                out.push(picture.clone());
            } else {
                assert!(piece.is_empty(), "bytes are left and nothing is complete");
                break;
            }
        }
    }
    Ok(out)
}

#[test]
fn jpegs_are_found_between_anything() {
    let parts = |n: u8| {
        let head = format!("--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {n}\r\n\r\n");
        [head.as_bytes(), &jpeg(n), b"\r\n\xff\x00\xff"].concat()
    };
    let stream: Vec<u8> = (1..5).flat_map(parts).collect();
    let want: Vec<_> = (1..5).map(jpeg).collect();
    for pieces in [1, 2, 3, 7, 64, stream.len()] {
        let mut splitter = Mjpeg::new(1000);
        assert_eq!(pictures(&mut splitter, &stream, pieces).unwrap(), want, "pieces of {pieces}");
        assert_eq!(splitter.broken(), 0);
    }
}

#[test]
fn broken_jpegs_are_counted_and_the_next_is_found() {
    let cut = |at: usize| jpeg(1)[..at].to_vec();
    // Cut within a segment, that swallows what follows, and no decoder takes the result; the picture after it is whole.
    for at in 16..jpeg(1).len() - 1 {
        let stream = [cut(at), jpeg(2), jpeg(3)].concat();
        let mut splitter = Mjpeg::new(1000);
        let got = pictures(&mut splitter, &stream, 5).unwrap();
        assert_eq!(got.last(), Some(&jpeg(3)), "cut at {at}");
        assert!(splitter.broken() >= 1 || !got.contains(&jpeg(2)) || got.len() == 3, "cut at {at}");
    }
    let mut splitter = Mjpeg::new(20);
    assert!(pictures(&mut splitter, &jpeg(1).repeat(3), 4).unwrap().is_empty());
    assert!(splitter.broken() >= 3);
    let length = [&[0xff, 0xd8, 0xff, 0xe0, 0, 1][..], &jpeg(4)].concat();
    assert_eq!(pictures(&mut Mjpeg::new(1000), &length, 3).unwrap(), [jpeg(4)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn no_stream_makes_a_splitter_hold_more_than_its_limit(
        bytes in prop::collection::vec(prop_oneof![Just(0xff), Just(0xd8), Just(0xd9), Just(0xda), any::<u8>()], 0..400),
        pieces in 1usize..50, limit in 2usize..60,
    ) {
        let mut splitter = Mjpeg::new(limit);
        let by_piece = pictures(&mut splitter, &bytes, pieces).unwrap();
        let at_once = pictures(&mut Mjpeg::new(limit), &bytes, bytes.len().max(1)).unwrap();
        prop_assert_eq!(&by_piece, &at_once);
        for picture in by_piece {
            prop_assert!(picture.len() <= limit + 1);
            prop_assert!(picture.starts_with(&[0xff, 0xd8]) && picture.ends_with(&[0xff, 0xd9]));
        }
    }
}

#[test]
fn y4m_gives_planes_and_refuses_what_it_cannot_read() {
    let frame = |n: u8| vec![n; 5 * 3 + 2 * 3 * 2];
    let mut stream = b"YUV4MPEG2 W5 H3 F30:1 Ip A1:1 C420jpeg XCOLORRANGE=FULL\n".to_vec();
    for n in 1..4 {
        stream.extend_from_slice(if n == 2 { b"FRAME Ip\n" } else { b"FRAME\n" });
        stream.extend(frame(n));
    }
    for pieces in [1, 2, 5, 1000] {
        let mut splitter = Y4m::new(1000);
        assert_eq!(pictures(&mut splitter, &stream, pieces).unwrap(), [frame(1), frame(2), frame(3)]);
        let layout = splitter.layout().unwrap();
        assert_eq!(layout, Layout::I420 { width: 5, height: 3, color: YuvColor::Bt601Full });
        let bytes = frame(1);
        let frame = layout.frame(&bytes).unwrap().unwrap();
        assert_eq!((frame.width(), frame.height()), (5, 3));
    }
    for (stream, says) in [
        (&b"\xff\xd8\xff\xe0"[..], "is not YUV4MPEG2"),
        (b"YUV4MPEG2 W0 H3\n", "\"W0\"': is no size"),
        (b"YUV4MPEG2 H3\n", "has no W and H"),
        (b"YUV4MPEG2 W5 H3 C444\n", "yuv420p"),
        (b"YUV4MPEG2 W5 H3 C420p10\n", "yuv420p"),
        (b"YUV4MPEG2 W5 H3 It\n", "interlaced"),
        (b"YUV4MPEG2 W500 H300\n", "has 225000 bytes, and the limit is 1000"),
        (b"YUV4MPEG2 W4000000000 H4000000000\n", "and the limit is 1000"),
        (b"YUV4MPEG2 W5 H3\nFRAMX\n", "at the start of a frame"),
        (&[&b"YUV4MPEG2 "[..], &[b'x'; 2000]].concat(), "is not YUV4MPEG2"),
    ] {
        let error = pictures(&mut Y4m::new(1000), stream, 7).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn y4m_says_how_fast_its_pictures_follow() {
    for (rate, milliseconds) in
        [("25:1", Some(40)), ("1:2", Some(2000)), ("0:0", None), ("x", None), ("1:0", None), ("9999:1", None)]
    {
        let mut splitter = Any::new(1000);
        pictures(&mut splitter, format!("YUV4MPEG2 W5 H3 F{rate}\n").as_bytes(), 3).unwrap();
        assert_eq!(splitter.period(), milliseconds.map(Duration::from_millis), "{rate}");
    }
}

#[test]
fn streams_are_told_apart_by_their_first_bytes() {
    let mut y4m = b"YUV4MPEG2 W2 H2 F30:1\n".to_vec();
    y4m.extend_from_slice(b"FRAME\n123456FRAME\nabcdef");
    let mjpeg = [jpeg(1), jpeg(2)].concat();
    for pieces in [1, 2, 3, 4, 5, 1000] {
        let mut splitter = Any::new(1000);
        assert_eq!((splitter.layout(), splitter.broken(), splitter.bytes_max()), (None, 0, 1000));
        assert_eq!(pictures(&mut splitter, &y4m, pieces).unwrap(), [b"123456", b"abcdef"]);
        assert!(matches!(splitter.layout(), Some(Layout::I420 { width: 2, .. })));
        let mut splitter = Any::new(1000);
        assert_eq!(pictures(&mut splitter, &mjpeg, pieces).unwrap(), [jpeg(1), jpeg(2)]);
        assert_eq!(splitter.layout(), Some(Layout::Encoded));
    }
    assert!(pictures(&mut Any::new(1000), b"YUV4x", 2).is_err());
}

#[test]
fn pairs_of_pixels_have_the_size_of_their_pairs() {
    let color = YuvColor::Bt709Full;
    for (width, bytes) in [(4, 24), (5, 36)] {
        for layout in [Layout::Yuyv { width, height: 3, color }, Layout::Uyvy { width, height: 3, color }] {
            assert_eq!(layout.bytes(), Some(bytes));
            assert_eq!(layout.frame(&vec![0; bytes]).unwrap().unwrap().width(), width);
            assert!(layout.frame(&vec![0; bytes - 1]).unwrap().is_err());
        }
    }
    assert_eq!(Layout::Yuyv { width: u32::MAX, height: u32::MAX, color }.bytes(), None);
}

#[test]
fn raw_pixels_are_cut_by_their_size() {
    let layout = Layout::Nv12 { width: 3, height: 3, color: YuvColor::default() };
    assert_eq!(layout.bytes(), Some(9 + 8));
    let stream: Vec<u8> = (0..17 * 3 + 5).collect();
    let mut splitter = Raw::new(layout, 100).unwrap();
    let got = pictures(&mut splitter, &stream, 10).unwrap();
    assert_eq!(got, stream.chunks_exact(17).map(<[u8]>::to_vec).collect::<Vec<_>>());
    assert_eq!(layout.frame(&got[0]).unwrap().unwrap().width(), 3);
    let grey = |width, height| Layout::Packed { format: PixelFormat::Grey, width, height };
    for layout in [grey(0, 5), grey(11, 10), grey(u32::MAX, u32::MAX), Layout::Encoded] {
        assert!(matches!(Raw::new(layout, 100), Err(StreamError::TooLarge { .. })), "{layout:?}");
    }
    assert!(grey(5, 5).frame(&[0; 24]).unwrap().is_err());
}
