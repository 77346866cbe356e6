//! The conversation with recorded devices of many kinds. No real camera was had.

use palmtop::image::YuvColor;

use super::abi::{COLORSPACE_JPEG, fourcc};
use super::choose::rate;
use super::recorded::{Happens, Recorded, Said};
use super::*;
use crate::source::address::PixelLayout;
use crate::stream::Layout;

const LIMIT: usize = 64 << 20;
const SECOND: Duration = Duration::from_secs(1);

/// A USB camera: YUYV as fast as USB 2 carries it, MJPG for the rest.
const UVC: &str = "
ioctl: VIDIOC_ENUM_FMT
    Type: Video Capture
    [0]: 'YUYV' (YUYV 4:2:2)
        Size: Discrete 640x480
            Interval: Discrete 0.033s (30.000 fps)
            Interval: Discrete 0.067s (15.000 fps)
            Interval: Discrete 0.200s (5.000 fps)
        Size: Discrete 160x120
            Interval: Discrete 0.033s (30.000 fps)
        Size: Discrete 800x600
            Interval: Discrete 0.042s (24.000 fps)
            Interval: Discrete 0.067s (15.000 fps)
        Size: Discrete 1280x720
            Interval: Discrete 0.100s (10.000 fps)
            Interval: Discrete 0.200s (5.000 fps)
        Size: Discrete 1920x1080
            Interval: Discrete 0.200s (5.000 fps)
    [1]: 'MJPG' (Motion-JPEG, compressed)
        Size: Discrete 640x480
            Interval: Discrete 0.033s (30.000 fps)
            Interval: Discrete 0.067s (15.000 fps)
        Size: Discrete 1280x720
            Interval: Discrete 0.033s (30.000 fps)
            Interval: Discrete 0.067s (15.000 fps)
        Size: Discrete 1920x1080
            Interval: Discrete 0.033s (30.000 fps)
            Interval: Discrete 0.067s (15.000 fps)
    [2]: 'H264' (H.264, compressed)
        Size: Discrete 1920x1080
            Interval: Discrete 0.033s (30.000 fps)
";

/// A device that scales, as behind the image processor of a board: any size, and no word about rates.
const BOARD: &str = "
    [0]: 'YU12' (Planar YUV 4:2:0)
        Size: Stepwise 32x32 - 3280x2464 with step 2/2
    [1]: 'NV12' (Y/CbCr 4:2:0)
        Size: Stepwise 32x32 - 3280x2464 with step 2/2
    [2]: 'YUYV' (YUYV 4:2:2)
        Size: Stepwise 32x32 - 3280x2464 with step 2/2
    [3]: 'JPEG' (JFIF JPEG, compressed)
        Size: Stepwise 32x32 - 3280x2464 with step 2/2
";

/// A camera for the dark, beside which the same device has one for the day.
const INFRARED: &str = "
    [0]: 'GREY' (8-bit Greyscale)
        Size: Discrete 640x360
            Interval: Discrete 0.067s (15.000 fps)
        Size: Discrete 400x400
            Interval: Discrete 0.033s (30.000 fps)
";

fn wish(text: &str) -> Wish {
    let address: crate::source::Address = format!("/dev/video0?{text}").parse().unwrap();
    Wish { size: address.size, fps: address.fps, format: address.format }
}

fn start(device: Recorded, wished: &str) -> Result<Camera<Recorded>, CameraError> {
    Camera::start(device, &wish(wished), LIMIT, Some(SECOND))
}

/// What is set: letters, width, height, frames a second.
fn chosen(device: Recorded, wished: &str) -> (String, u32, u32, Option<u32>) {
    let said = device.said.clone();
    start(device, wished).unwrap();
    let said = said.lock().unwrap();
    let Said::SetFormat(letters, width, height) = &said[0] else { panic!("{said:?}") };
    let fps = said.iter().find_map(|said| match said {
        Said::Interval(interval) => Some(rate(*interval).round() as u32),
        _ => None,
    });
    (letters.clone(), *width, *height, fps)
}

#[test]
fn the_cheapest_that_fits_is_chosen() {
    for (listing, wished, letters, width, height, fps) in [
        (UVC, "", "YUYV", 640, 480, Some(15)),
        (UVC, "fps=30", "YUYV", 640, 480, Some(30)),
        (UVC, "fps=5", "YUYV", 640, 480, Some(5)),
        (UVC, "size=160x120", "YUYV", 160, 120, Some(30)),
        (UVC, "size=800x600", "YUYV", 800, 600, Some(15)),
        // Too slow uncompressed.
        (UVC, "size=1280x720", "MJPG", 1280, 720, Some(15)),
        (UVC, "size=1280x720&fps=10", "YUYV", 1280, 720, Some(10)),
        (UVC, "size=1920x1080&fps=25", "MJPG", 1920, 1080, Some(30)),
        (UVC, "size=800x600&fps=30", "MJPG", 1280, 720, Some(30)),
        // A size that it has not: the next that covers it.
        (UVC, "size=700x500", "YUYV", 800, 600, Some(15)),
        // More than it has.
        (UVC, "size=4000x3000", "MJPG", 1920, 1080, Some(15)),
        (UVC, "format=mjpg", "MJPG", 640, 480, Some(15)),
        (UVC, "format=yuyv&size=1920x1080", "YUYV", 1920, 1080, Some(5)),
        (BOARD, "", "YU12", 640, 480, None),
        (BOARD, "size=1001x501", "YU12", 1002, 502, None),
        (BOARD, "format=nv12", "NV12", 640, 480, None),
        (BOARD, "format=mjpg", "JPEG", 640, 480, None),
        // It cannot cover what is wanted, and of its sizes the one that misses least is taken.
        (INFRARED, "", "GREY", 640, 360, Some(15)),
        (INFRARED, "size=300x300", "GREY", 400, 400, Some(30)),
    ] {
        let found = chosen(Recorded::new("a camera", listing), wished);
        assert_eq!(found, (letters.to_owned(), width, height, fps), "{wished}");
    }
    // Colours before grey, whatever it costs.
    let both = format!("{INFRARED}    [1]: 'MJPG' (Motion-JPEG, compressed)\n Size: Discrete 640x480\n");
    assert_eq!(chosen(Recorded::new("both", &both), "").0, "MJPG");
    assert_eq!(chosen(Recorded::new("both", &both), "format=grey").0, "GREY");
    // A driver that says nothing but its formats.
    let silent = Recorded::new("silent", "[0]: 'YUYV' (YUYV 4:2:2)");
    assert_eq!(chosen(silent, "size=320x240"), ("YUYV".into(), 320, 240, None));
}

#[test]
fn what_is_no_camera_says_what_it_is() {
    let error = |device, wished: &str| start(device, wished).err().unwrap().to_string();
    let with = |capabilities: u32, device_caps: u32| {
        let mut device = Recorded::new("UVC Camera", UVC);
        (device.capabilities, device.device_caps) = (capabilities, device_caps);
        device
    };
    let refusing = |call, errno| {
        let mut device = Recorded::new("UVC Camera", UVC);
        device.refuses = Some((call, errno));
        device
    };
    const META_CAPTURE: u32 = 0x0080_0000;
    const OUTPUT: u32 = 2;
    let all = CAP_DEVICE_CAPS | CAP_VIDEO_CAPTURE | CAP_STREAMING | META_CAPTURE;
    for (device, wished, says) in [
        // The second node of a USB camera: the device can capture, this node cannot.
        (
            with(all, META_CAPTURE | CAP_STREAMING),
            "",
            "'UVC Camera' gives no pictures; a camera often has several",
        ),
        (with(OUTPUT | CAP_STREAMING, 0), "", "gives no pictures"),
        (with(CAP_VIDEO_CAPTURE_MPLANE | CAP_STREAMING, 0), "", "multiplanar"),
        (with(all, CAP_VIDEO_CAPTURE_MPLANE | CAP_STREAMING), "", "csi://0"),
        (with(CAP_VIDEO_CAPTURE, 0), "", "cannot stream"),
        (refusing("QUERYCAP", Errno::NOTTY), "", "does not speak Video4Linux"),
        (refusing("S_FMT", Errno::BUSY), "", "another program uses the camera"),
        (refusing("REQBUFS", Errno::BUSY), "", "another program uses the camera"),
        (refusing("STREAMON", Errno::BUSY), "", "another program uses the camera"),
        (refusing("STREAMON", Errno::NOSPC), "", "VIDIOC_STREAMON: No space left"),
        (refusing("S_FMT", Errno::INVAL), "", "VIDIOC_S_FMT: Invalid argument"),
        (
            Recorded::new("UVC Camera", UVC),
            "format=nv12",
            "gives YUYV, MJPG, H264, and of these only the one",
        ),
        (
            Recorded::new("unicam", "[0]: 'pBAA' (10-bit Bayer)\n[1]: 'BG10' (10-bit Bayer)"),
            "",
            "gives pBAA, BG10",
        ),
        (Recorded::new("nothing", ""), "", "gives no format"),
    ] {
        let error = error(device, wished);
        assert!(error.contains(says), "{says}: {error}");
    }
    // One without the word about this node is taken at the other one.
    assert!(start(with(CAP_VIDEO_CAPTURE | CAP_STREAMING, 0), "").is_ok());
    // A rate that cannot be set is no reason to give up.
    assert!(start(refusing("S_PARM", Errno::NOTTY), "fps=15").is_ok());
}

#[test]
fn a_driver_may_change_what_it_is_asked_for() {
    let mut device = Recorded::new("stubborn", UVC).filming([Happens::Frame { byte: 7, age: SECOND / 2 }]);
    // Another format and another size, in rows with gaps.
    device.changes = |format| {
        let pix = &mut format.pix;
        (pix.pixelformat, pix.width, pix.height) = (fourcc(b"NV12"), 6, 4);
        (pix.bytesperline, pix.sizeimage) = (16, 16 * 6);
        (pix.colorspace, pix.ycbcr_enc, pix.quantization) = (COLORSPACE_JPEG, 0, 0);
    };
    let mut camera = start(device, "").unwrap();
    let mut picture = vec![9; 3];
    let Next::Picture(caught) = camera.next(&mut picture) else { panic!("a frame is ready") };
    let color = YuvColor::Bt601Full;
    assert_eq!(caught.layout, Layout::Nv12 { width: 6, height: 4, color });
    assert_eq!(picture, [7; 36]);
    assert_eq!(caught.age, SECOND / 2);
    type Damage = fn(&mut Format);
    let nonsense: [(Damage, &str); 4] = [
        (|format| format.pix.width = 0, "0x480 pixels"),
        (|format| format.pix.height = 1 << 20, "pixels"),
        (|format| format.pix.sizeimage = 100, "a buffer has 100 bytes, and a frame needs 614400"),
        (|format| format.pix.bytesperline = u32::MAX, "a buffer has"),
    ];
    for (changes, says) in nonsense {
        let mut device = Recorded::new("mad", UVC);
        device.changes = changes;
        let error = start(device, "format=yuyv").err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
    let mut device = Recorded::new("mad", UVC);
    device.buffers = 0;
    assert!(start(device, "").err().unwrap().to_string().contains("0 buffers"));
    // It insists on what is not read.
    let mut device = Recorded::new("h264 only", UVC);
    device.changes = |format| format.pix.pixelformat = fourcc(b"H264");
    assert!(matches!(start(device, ""), Err(CameraError::NoFormat { .. })));
}

#[test]
fn gaps_between_rows_are_left_out() {
    let pix = |letters: &[u8; 4], width, height, bytesperline| {
        let mut format = Format::new();
        (format.pix.pixelformat, format.pix.width, format.pix.height) = (fourcc(letters), width, height);
        format.pix.bytesperline = bytesperline;
        format.pix
    };
    let bytes: Vec<u8> = (0..=255).collect();
    for (letters, width, height, stride, want) in [
        (b"GREY", 3, 2, 5, vec![0, 1, 2, 5, 6, 7]),
        (b"GREY", 3, 2, 0, vec![0, 1, 2, 3, 4, 5]),
        (b"YUYV", 2, 2, 6, vec![0, 1, 2, 3, 6, 7, 8, 9]),
        (b"NV12", 3, 3, 8, vec![0, 1, 2, 8, 9, 10, 16, 17, 18, 24, 25, 26, 27, 32, 33, 34, 35]),
        (b"NV12", 2, 2, 2, vec![0, 1, 2, 3, 4, 5]),
        (b"YU12", 3, 3, 8, vec![0, 1, 2, 8, 9, 10, 16, 17, 18, 24, 25, 28, 29, 32, 33, 36, 37]),
    ] {
        let pix = pix(letters, width, height, stride);
        let frame = FrameLayout::new(&pix, Pixels::of(pix.pixelformat).unwrap(), LIMIT).unwrap();
        let mut picture = Vec::new();
        let least = frame.bytes_least();
        assert!(frame.holds(&bytes, least) && !frame.holds(&bytes, least - 1) && !frame.holds(&bytes, 300));
        frame.copy(&bytes, least, &mut picture);
        assert_eq!(picture, want, "{}", super::letters(fourcc(letters)));
        assert_eq!(frame.layout().bytes(), Some(want.len()));
        assert!(frame.layout().frame(&picture).unwrap().is_ok());
        assert!(FrameLayout::new(&pix, Pixels::of(pix.pixelformat).unwrap(), want.len() - 1).is_err());
    }
}

/// Pictures (their first byte, and how many were passed over), broken ones, why it ended, and what was said.
type Film = (Vec<(u8, u64)>, u64, Option<String>, Vec<Said>);

/// What a camera gives of what happens: first bytes of pictures with what was passed over, and why it ends.
fn film(happens: Vec<Happens>, wished: &str) -> Film {
    let device = Recorded::new("a camera", UVC).filming(happens);
    let said = device.said.clone();
    let mut camera = start(device, wished).unwrap();
    let (mut pictures, mut picture, mut end) = (Vec::new(), Vec::new(), None);
    for _ in 0..300 {
        match camera.next(&mut picture) {
            Next::Picture(caught) => pictures.push((*picture.last().unwrap(), caught.passed_over)),
            Next::Nothing if camera.device.happens.is_empty() => break,
            Next::Nothing => {}
            other @ (Next::Well | Next::Missing(_)) => panic!("{other:?}"),
            Next::End(why) => {
                end = Some(why);
                break;
            }
        }
    }
    let broken = camera.broken;
    drop(camera);
    let said = said.lock().unwrap().clone();
    (pictures, broken, end, said)
}

#[test]
fn the_newest_frame_is_taken_and_the_others_go_back() {
    let frame = |byte| Happens::Frame { byte, age: Duration::ZERO };
    let happens = vec![frame(1), Happens::Silence, frame(2), frame(3), frame(4), Happens::Silence, frame(5)];
    for wished in ["format=yuyv", "format=mjpg"] {
        let (pictures, broken, end, said) = film(happens.clone(), wished);
        assert_eq!(pictures, [(1, 0), (4, 2), (5, 0)]);
        assert_eq!((broken, end), (0, None));
        let enqueued = said.iter().filter(|said| matches!(said, Said::Enqueued(_))).count();
        assert_eq!(enqueued, 4 + 5, "all buffers at first, and one for each frame");
        assert_eq!(said.last(), Some(&Said::Off));
        let on = said.iter().position(|said| *said == Said::On).unwrap();
        assert_eq!(said[..on].iter().filter(|said| matches!(said, Said::Enqueued(_))).count(), 4);
    }
}

#[test]
fn failed_frames_are_counted_and_passed_over() {
    let frame = |byte| Happens::Frame { byte, age: Duration::ZERO };
    let odd = |flags, used| Happens::Odd { flags, used };
    let (pictures, broken, end, _) = film(
        vec![
            odd(BUF_FLAG_ERROR, None),
            frame(1),
            Happens::Silence,
            odd(0, Some(0)),
            Happens::Fails(Errno::IO),
            frame(2),
            Happens::Silence,
            odd(0, Some(5000)),
            odd(0, Some(u32::MAX)),
            Happens::Lie,
            Happens::Silence,
            frame(3),
        ],
        "format=yuyv",
    );
    assert_eq!(pictures, [(1, 0), (2, 0), (3, 0)]);
    assert_eq!((broken, end), (5, None));
    // A JPEG that is none.
    let (pictures, broken, ..) = film(vec![odd(0, Some(0)), odd(0, Some(1)), frame(1)], "format=mjpg");
    assert_eq!((pictures, broken), (vec![(1, 0)], 2));
}

#[test]
fn cameras_that_end_say_why() {
    let frame = Happens::Frame { byte: 1, age: Duration::ZERO };
    for (happens, pictures, says) in [
        (vec![frame.clone(), Happens::Silence, Happens::Fails(Errno::NODEV)], 1, "was unplugged"),
        (vec![frame.clone(), Happens::Silence, Happens::Wild], 1, "a buffer 77 of 4"),
        (
            vec![frame.clone(), Happens::Silence, Happens::Fails(Errno::PIPE)],
            1,
            "the camera ended: Broken pipe",
        ),
        (vec![Happens::Fails(Errno::IO); 200], 0, "the camera ended: Input/output error"),
        (vec![Happens::Lie; 200], 0, "only frames that failed"),
        (vec![Happens::Odd { flags: BUF_FLAG_ERROR, used: None }; 900], 0, "only frames that failed"),
        // A second without a frame, in moments of a tenth.
        (vec![Happens::Silence; 200], 0, "gave no frame for 1 s"),
    ] {
        let (got, _, end, said) = film(happens, "");
        assert_eq!(got.len(), pictures, "{says}");
        let end = end.unwrap_or_else(|| panic!("{says}: it does not end"));
        assert!(end.contains(says), "{says}: {end}");
        assert_eq!(said.last(), Some(&Said::Off));
    }
}

#[test]
fn frames_are_dated_by_the_drivers_clock_if_that_is_known() {
    let caught = |age: Duration, clears: u32| {
        let mut device = Recorded::new("a camera", UVC).filming([Happens::Frame { byte: 1, age }]);
        device.clock = Duration::from_millis(1_000_250);
        let mut camera = start(device, "").unwrap();
        let mut buffer = Buffer::new(0);
        camera.device.call(Call::Dequeue(&mut buffer)).unwrap();
        buffer.flags &= !clears;
        camera.age(&buffer)
    };
    let ms = Duration::from_millis;
    assert_eq!(caught(ms(33), 0), ms(33));
    assert_eq!(caught(ms(9999), 0), ms(9999));
    // Another clock: of the wall, or of nothing.
    assert_eq!(caught(ms(33), BUF_FLAG_TIMESTAMP_MASK), Duration::ZERO);
    assert_eq!(caught(ms(11_000), 0), Duration::ZERO);
}

#[test]
fn formats_can_be_forced_by_their_names() {
    for (name, layout) in
        [("yuyv", PixelLayout::Yuyv), ("mjpg", PixelLayout::Mjpeg), ("grey", PixelLayout::Grey)]
    {
        assert_eq!(wish(&format!("format={name}")).format, Some(layout));
    }
}
