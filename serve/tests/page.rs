//! The page: what it is made of, and what people do with it, in Chromium with a fake camera (`tests/page`).

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;
#[path = "page/watched.rs"]
mod watched;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{Running, demo, model, options, right_answers};
use palmtop::tasks::ReadOptions;
use palmtop_serve::access::ApiKey;
use palmtop_serve::server::ServerOptions;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const KEY: &str = "the-key-of-the-test";
const PAGE_BYTES_MAX: usize = 300_000;

#[test]
fn the_page_is_one_file_under_a_strict_policy() {
    let mut options = options();
    options.access.key = Some(ApiKey::new(KEY).unwrap());
    let running = Running::start(options);
    let got = running.get("/");
    assert_eq!(
        (got.status, got.header("content-type")),
        (200, Some("text/html; charset=utf-8")),
        "without key"
    );
    assert!(got.body.len() < PAGE_BYTES_MAX, "{} bytes", got.body.len());
    assert!(!got.body.contains("{{"), "all parts are put in");

    let policy = got.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe") && !policy.contains("http")
    );
    for (tag, directive) in [("script", "script-src"), ("style", "style-src")] {
        let after = got.body.split_once(&format!("<{tag}")).unwrap().1.split_once('>').unwrap().1;
        let inside = after.split_once(&format!("</{tag}>")).unwrap().0;
        let hash = BASE64_STANDARD.encode(Sha256::digest(inside));
        assert!(policy.contains(&format!("{directive} 'sha256-{hash}';")), "{directive} of {policy}");
        assert_eq!(got.body.matches(&format!("<{tag}")).count(), 1, "the only {tag}");
    }
    assert!(
        !got.body.contains(" style=") && !got.body.contains(" onclick="),
        "nothing that the policy forbids"
    );
    // Elsewhere: names of XML, and the words about secure pages.
    let addresses = got.body.match_indices("//").filter(|(at, _)| got.body[..*at].ends_with(':'));
    for (at, _) in addresses {
        let address = &got.body[at + 2..];
        assert!(
            address.starts_with("www.w3.org/2000/svg") || address.starts_with("localhost)"),
            "{address:.40}"
        );
    }
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(got.header(name), Some(value));
    }
    assert!(got.header("permissions-policy").unwrap().contains("camera=(self), microphone=()"));

    let tag = got.header("etag").unwrap();
    let again = |tag: &str| running.agent.get(running.url("/")).header("if-none-match", tag).call().unwrap();
    assert_eq!(again(tag).status().as_u16(), 304);
    assert_eq!(again(&format!("\"other\", W/{tag}")).status().as_u16(), 304);
    assert_eq!(again("\"other\"").status().as_u16(), 200);
}

/// What drives the browser, if all of it is here.
struct Driver {
    chromium: PathBuf,
    modules: PathBuf,
}

fn driver(what: &str) -> Option<Driver> {
    let in_path = |name: &str| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
    };
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/page/node_modules");
    match (in_path("chromium"), in_path("node")) {
        (Some(chromium), Some(_)) if modules.join("playwright-core").is_dir() => {
            Some(Driver { chromium, modules })
        }
        _ => {
            skip::missing(what, "Chromium, Node.js or playwright-core is not here");
            None
        }
    }
}

/// What the scripts compare with: answers of this server and of a session of its own.
fn given(driver: &Driver, running: &Running, folder: &Path) -> Value {
    let picture = demo("day.png");
    let things = ["bus", "panda"];
    let prompts = ["caption en", "segment panda"];
    let right = right_answers(&picture, &prompts);
    let sample =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/routes/page/samples/scene.webp"));
    let sample_caption = right_answers(&sample.unwrap(), &["caption en"]).remove(0).text;
    let prompt = format!("detect {}", things.join(" ; "));
    let detect = json!({"picture": BASE64_STANDARD.encode(&picture), "prompts": [prompt]});
    let key = format!("Bearer {KEY}");
    let headers = [("content-type", "application/json"), ("authorization", key.as_str())];
    let looks = running.post("/v1/looks", &headers, detect.to_string().as_bytes());
    assert_eq!(looks.json()["answers"][0]["objects"].as_array().map(Vec::len), Some(2), "{}", looks.body);

    // A camera that sees the picture for ever: two frames of Motion JPEG, which the browser repeats.
    let film = folder.join("film.mjpeg");
    let pixels = image::load_from_memory(&picture).unwrap().to_rgb8();
    let mut frame = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut frame, 95).encode_image(&pixels).unwrap();
    std::fs::write(&film, frame.repeat(2)).unwrap();
    let file = folder.join("picture.png");
    std::fs::write(&file, &picture).unwrap();

    json!({
        "address": format!("http://{}/", running.address),
        "chromium": driver.chromium, "modules": driver.modules,
        "film": film, "picture": file,
        "caption": right[0].text, "sampleCaption": sample_caption,
        // As text: not every reader of JSON keeps the last digit of a number.
        "things": things, "looks": looks.body,
        "mask": mask_points(&right[1], pixels.dimensions()),
        "key": KEY, "screenshot": screenshot(),
    })
}

/// Pixels that lie well inside of the first object's mask, and some in its box that lie well outside of the mask.
fn mask_points(answer: &palmtop::Answer, (width, height): (u32, u32)) -> Value {
    const AROUND: i64 = 5;
    const FROM_EDGE: f32 = 10.0;
    let mut read = ReadOptions::default();
    read.masks = true;
    let objects = model().read_answer(answer, (width, height), &read).unwrap().objects;
    let object = &objects[0];
    let mask = object.mask.as_ref().expect("the demo model makes masks");
    let is_set = |x: i64, y: i64| x >= 0 && y >= 0 && mask.contains(x as u32, y as u32);
    let square = |x: u32, y: u32| {
        let (x, y) = (i64::from(x), i64::from(y));
        (y - AROUND..=y + AROUND)
            .flat_map(move |row| (x - AROUND..=x + AROUND).map(move |column| (column, row)))
    };
    let bounds = object.bounding_box;
    let (mut set, mut unset) = (Vec::new(), Vec::new());
    for (x, y) in (0..height).step_by(4).flat_map(|y| (0..width).step_by(4).map(move |x| (x, y))) {
        let (fx, fy) = (x as f32, y as f32);
        let is_in_box = fx > bounds.x_min + FROM_EDGE
            && fx < bounds.x_max - FROM_EDGE
            && fy > bounds.y_min + FROM_EDGE
            && fy < bounds.y_max - FROM_EDGE;
        if is_in_box && square(x, y).all(|(x, y)| is_set(x, y)) {
            set.push([x, y]);
        } else if is_in_box && !square(x, y).any(|(x, y)| is_set(x, y)) {
            unset.push([x, y]);
        }
    }
    assert!(set.len() > 20 && !unset.is_empty(), "{} pixels set, {} not", set.len(), unset.len());
    json!({"label": object.label, "set": set, "unset": unset})
}

/// Runs a case of `tests/page/cases.mjs`. It may ask for the server to be ended and started again, or for the loop to
/// go on.
fn case(name: &str, options: ServerOptions) {
    let Some(driver) = driver(&format!("the page ({name}) in a browser")) else { return };
    let folder = std::env::temp_dir().join(format!("palmtop-page-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut running = Running::start(options.clone());
    let address = running.address;
    let given = given(&driver, &running, &folder);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/cases.mjs");
    let mut child = Command::new("node")
        .arg(script)
        .arg(name)
        .env("PAGE_CASE", given.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        match line.unwrap().as_str() {
            "end" => running.end(),
            "start" => running = Running::start_at(address, options.clone(), None),
            "go on" => watched::go_on(&options.cameras),
            other => {
                println!("{other}");
                continue;
            }
        }
        stdin.write_all(b"done\n").unwrap();
    }
    let status = child.wait().unwrap();
    let _ = std::fs::remove_dir_all(&folder);
    assert!(status.success(), "{name}: {status}; the script says why above");
}

#[test]
fn a_file_is_answered_as_text_boxes_and_masks_where_they_belong() {
    case("file", options());
}

#[test]
fn samples_drops_and_pastes_are_taken_and_others_refused_in_words() {
    case("ways", options());
}

#[test]
fn boxes_lie_over_the_live_picture_and_it_looks_again_and_again() {
    case("camera", options());
}

#[test]
fn the_other_camera_is_one_button_away() {
    case("switch", options());
}

#[test]
fn a_camera_that_cannot_be_had_is_explained() {
    case("refused", options());
}

#[test]
fn a_restart_of_the_server_is_told_and_survived() {
    case("restart", options());
}

#[test]
fn a_key_is_asked_for_and_kept() {
    let mut options = options();
    options.access.key = Some(ApiKey::new(KEY).unwrap());
    case("key", options);
}

#[test]
fn narrow_screens_fingers_keyboards_and_readers_can_use_it() {
    case("access", options());
}

#[test]
fn cameras_of_the_server_are_shown_with_their_events() {
    let options = options();
    watched::begin(&options.cameras);
    case("cameras", options);
}

/// `docs/page.png`, for the README: `cargo test -p palmtop-serve --test page -- --ignored`.
#[test]
#[ignore = "writes a file of the project"]
fn the_picture_of_the_page_is_made() {
    /// Colours are rounded to multiples of this, which nobody sees: two thirds of the bytes. White stays white.
    const STEP: u8 = 5;
    case("picture", options());
    let file = screenshot();
    let mut pixels = image::open(&file).unwrap().to_rgb8();
    pixels.iter_mut().for_each(|value| *value = value.saturating_add(STEP / 2) / STEP * STEP);
    let (compression, filter) =
        (image::codecs::png::CompressionType::Best, image::codecs::png::FilterType::Adaptive);
    let writer = std::fs::File::create(&file).unwrap();
    let encoder = image::codecs::png::PngEncoder::new_with_quality(writer, compression, filter);
    pixels.write_with_encoder(encoder).unwrap();
    assert!(std::fs::metadata(&file).unwrap().len() < 150_000);
}

fn screenshot() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/page.png")
}
