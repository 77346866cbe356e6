//! What cameras answer.

use palmtop_watch::source::fuzz;

use super::Numbers;

/// Of a picture, as it comes.
pub const BYTES_MAX: usize = 3000;

/// Answers of a server, one for each connection, to a reader that knows a password.
pub fn http(bytes: &[u8]) {
    let given = http_given(bytes);
    sound(&given);
    let knows = |text: &[u8]| text.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes());
    assert!(knows(bytes) || given.said.iter().all(|said| !knows(said.as_bytes())), "{:?}", given.said);
}

const PASSWORD: &str = "x7Qd-words";

/// What comes of such answers; each has its length before it.
pub fn http_given(bytes: &[u8]) -> fuzz::Given {
    let mut numbers = Numbers(bytes);
    let answers = std::iter::from_fn(|| Some(numbers.long().to_vec()).filter(|answer| !answer.is_empty()));
    fuzz::http(&format!("http://me:{PASSWORD}@camera/live"), answers.take(6).collect(), BYTES_MAX)
}

/// Answers of a driver.
pub fn v4l2(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    sound(&fuzz::v4l2(bytes, BYTES_MAX));
    let _ = bytes;
}

fn sound(given: &fuzz::Given) {
    for (layout, picture) in &given.pictures {
        assert!(picture.len() <= BYTES_MAX, "{} bytes", picture.len());
        assert!(layout.frame(picture).is_none_or(|frame| frame.is_ok()), "as many bytes as pixels need");
    }
}
