//! Several pictures in one prompt: palmtop against transformers, and that pictures have an order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use palmtop::image::{ImageLimits, RgbImage, decode_file};
use palmtop::session::{Request, Traced, TracedValues};
use palmtop::{GenerateOptions, ImageFeatures, Limits, Session};
use palmtop_convert::Recipe;
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{CHECKPOINTS_SEVERAL, Vector, converted, relative_error, several, uniform};

fn session(checkpoint: &str, recipe: Recipe) -> Session {
    let mut limits = Limits::default();
    (limits.pictures, limits.image_side, limits.new_tokens) = (3, 700, 16);
    Session::new(&converted(checkpoint, recipe).open(), &limits).expect("a small session")
}

fn decoded(images: &[PathBuf]) -> Vec<RgbImage> {
    let decode = |path| decode_file(path, &ImageLimits::default()).expect("a readable picture");
    images.iter().map(decode).collect()
}

/// The tokens of an answer about pictures in this order.
fn answer(session: &mut Session, images: &[PathBuf], prompt: &str, tokens: usize) -> Vec<f64> {
    let mut options = GenerateOptions::default();
    (options.stop_at_eos, options.max_new_tokens) = (false, Some(tokens));
    let encode = |picture: &RgbImage| {
        let mut features = session.new_features().expect("memory");
        session.encode(picture.view(), &mut features, &options).expect("features");
        features
    };
    let features: Vec<ImageFeatures> = decoded(images).iter().map(encode).collect();
    let pictures: Vec<&ImageFeatures> = features.iter().collect();
    let request = Request { pictures: &pictures, prompt, draft: &[] };
    let answers = session.answer_requests(&[request], &options, &mut |_| ControlFlow::Continue(()));
    answers.expect("an answer")[0].tokens.iter().map(|&token| token.into()).collect()
}

/// What a session shows of a vector's pictures and prompt; rows of values that come once for every picture follow each
/// other.
fn trace(session: &mut Session, vector: &Vector) -> BTreeMap<String, Vec<f64>> {
    let pictures = decoded(&vector.images);
    let views: Vec<_> = pictures.iter().map(RgbImage::view).collect();
    let tokens = vector.tensors["gen.tokens"].values.len();
    let mut out: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut sink = |t: Traced<'_>| {
        let values = out.entry(t.name.to_owned()).or_default();
        match t.values {
            TracedValues::F32(v) => values.extend(v.iter().map(|&x| f64::from(x))),
            TracedValues::I64(v) => values.extend(v.iter().map(|&x| x as f64)),
        }
    };
    session.trace(&views, &vector.prompt, tokens, &mut sink).expect("a trace");
    out
}

#[test]
fn several_pictures_in_a_prompt_compute_what_transformers_computes() {
    let not_traced = ["resized", "token_type_ids", "gen.margin"];
    for name in CHECKPOINTS_SEVERAL {
        let mut session = session(name, uniform(WeightFormat::F32));
        for vector in several(name) {
            let got = trace(&mut session, &vector);
            // The rows of all pictures are what stands first in the decoder.
            let features = &got["image_features"];
            assert_eq!(features[..], got["text.embed"][..features.len()], "{}", vector.name);
            assert!(features.len().is_multiple_of(vector.images.len()), "{}", vector.name);
            for (key, want) in vector.tensors.iter().filter(|(k, _)| !not_traced.contains(&k.as_str())) {
                if ["input_ids", "gen.tokens"].contains(&key.as_str()) {
                    assert_eq!(got[key], want.values, "{}: {key}", vector.name);
                    continue;
                }
                let error = relative_error(&got[key], &want.values);
                assert!(error < 1e-4, "{}: {key} is off by {error:.1e}", vector.name);
            }
            let tokens = &vector.tensors["gen.tokens"].values;
            let answered = answer(&mut session, &vector.images, &vector.prompt, tokens.len());
            assert_eq!(answered, *tokens, "{}", vector.name);
        }
    }
}

#[test]
fn pictures_in_another_order_are_another_prompt() {
    for format in [WeightFormat::F32, WeightFormat::Int8] {
        for name in CHECKPOINTS_SEVERAL {
            let mut session = session(name, Recipe::preset(format));
            for vector in several(name) {
                let mut images = vector.images.clone();
                let first = answer(&mut session, &images, &vector.prompt, 8);
                assert_eq!(first, answer(&mut session, &images, &vector.prompt, 8), "{}", vector.name);
                images.reverse();
                assert_ne!(first, answer(&mut session, &images, &vector.prompt, 8), "{}", vector.name);
                images.pop();
                assert_ne!(first, answer(&mut session, &images, &vector.prompt, 8), "{}", vector.name);
            }
        }
    }
}
