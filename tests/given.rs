//! Answers that are given instead of chosen, and what the inputs of matrices are.

use std::collections::{BTreeMap, BTreeSet};

use palmtop::image::{ImageLimits, RgbImage, decode_file};
use palmtop::model::tensors::Part;
use palmtop::session::{CancelToken, TracedValues};
use palmtop::{Error, GenerateOptions, Limits, Session};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{RANDOM, converted, data, relative_error, trace, uniform};

const PROMPT: &str = "answer en what is it?";

fn scene() -> RgbImage {
    decode_file(data().join("images/scene_640x361.png"), &ImageLimits::default()).expect("a readable picture")
}

fn session(name: &str, format: WeightFormat) -> Session {
    let mut limits = Limits::default();
    (limits.batch, limits.threads, limits.new_tokens) = (2, Some(2), 8);
    Session::new(&converted(name, uniform(format)).open(), &limits).expect("a small session")
}

#[test]
fn given_answers_see_the_logits_that_chosen_ones_see() {
    let options = GenerateOptions::default();
    for (name, format) in
        [("tiny1", WeightFormat::Int4), ("tiny2", WeightFormat::F32), (RANDOM[1], WeightFormat::Int8)]
    {
        let mut session = session(name, format);
        let traced = trace(&mut session, &data().join("images/scene_640x361.png"), PROMPT, 8);
        let tokens: Vec<u32> = traced["gen.tokens"].values.iter().map(|&t| t as u32).collect();
        let mut features = session.new_features().unwrap();
        session.encode(scene().view(), &mut features, &options).unwrap();
        // What another call has left behind does not matter.
        session
            .answer(&features, &["ocr", "caption en"], &options, &mut |_| std::ops::ControlFlow::Continue(()))
            .unwrap();
        for length in [8, 3, 0] {
            let mut rows = Vec::new();
            session
                .force(&[&features], PROMPT, &tokens[..length], &options, &mut |i, row| {
                    rows.push((i, row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()));
                })
                .unwrap();
            assert_eq!(rows.iter().map(|r| r.0).collect::<Vec<_>>(), (0..=length).collect::<Vec<_>>());
            for (i, row) in rows.iter().take(8) {
                let want = &traced["gen.logits"].values[i * row.len()..(i + 1) * row.len()];
                assert_eq!(row, want, "{name} {format}, token {i}");
            }
        }
        assert!(
            session.answers().iter().all(|a| a.tokens.is_empty()),
            "no answer of an earlier call is shown"
        );
    }
}

#[test]
fn what_cannot_be_given_is_refused() {
    let mut session = session("tiny1", WeightFormat::Int8);
    let options = GenerateOptions::default();
    let mut features = session.new_features().unwrap();
    let force = |session: &mut Session, features: &_, answer: &[u32], options: &_| {
        session.force(&[features], PROMPT, answer, options, &mut |_, _| {}).unwrap_err()
    };
    assert!(matches!(force(&mut session, &features, &[], &options), Error::Usage(_)), "no picture");
    session.encode(scene().view(), &mut features, &options).unwrap();
    let vocab = session.model().config().text.vocab as u32;
    for (answer, says) in
        [(vec![5; 9], "9 tokens, but the session takes at most 8"), (vec![5, vocab], "token 2176")]
    {
        let error = force(&mut session, &features, &answer, &options);
        assert!(matches!(error, Error::Usage(_)) && error.to_string().contains(says), "{error}");
    }
    let mut cancelled = GenerateOptions::default();
    cancelled.cancel = CancelToken::default();
    cancelled.cancel.cancel();
    assert!(matches!(force(&mut session, &features, &[5], &cancelled), Error::Cancelled));
}

/// All that `observe` shows of a picture and a prompt with an answer of three tokens, parts of one name put together.
fn observed(session: &mut Session) -> BTreeMap<String, (usize, Vec<f64>)> {
    let mut features = session.new_features().unwrap();
    let mut out: BTreeMap<String, (usize, Vec<f64>)> = BTreeMap::new();
    let asked: [(&str, &[u32]); 1] = [(PROMPT, &[300, 301, 302])];
    session
        .observe(
            &[scene().view()],
            std::slice::from_mut(&mut features),
            &asked,
            &GenerateOptions::default(),
            &mut |traced| {
                if let TracedValues::F32(values) = traced.values {
                    let entry = out.entry(traced.name.to_owned()).or_default();
                    entry.0 = *traced.shape.last().unwrap();
                    entry.1.extend(values.iter().map(|&v| f64::from(v)));
                }
            },
        )
        .unwrap();
    out
}

#[test]
fn the_inputs_of_every_matrix_are_shown_and_lead_to_its_outputs() {
    for (name, format) in [
        ("tiny1", WeightFormat::F32),
        ("tiny2", WeightFormat::Int8),
        (RANDOM[0], WeightFormat::Int4),
        (RANDOM[1], WeightFormat::F32),
    ] {
        let mut session = session(name, format);
        let seen = observed(&mut session);
        let model = session.model().clone();
        let config = model.config();
        let shown: BTreeSet<&str> = seen.keys().filter_map(|name| name.strip_suffix(".input")).collect();
        let tensors = config.tensors();
        // No answer goes through the retrieval head.
        let of_answers = |part| part != Part::Retrieval;
        let matrices = tensors.iter().filter(|t| t.matrix().is_some_and(of_answers));
        assert_eq!(shown, matrices.clone().map(|t| t.name.as_str()).collect());
        let prefix = seen["text.embed"].1.len() / config.text.hidden - 3;
        for matrix in matrices {
            let (cols, values) = &seen[&format!("{}.input", matrix.name)];
            let rows = match matrix.name.as_str() {
                name if name.starts_with("vision") || name.starts_with("projector") => {
                    config.vision.patches()
                }
                "text.embed" => 4,
                _ => prefix + 3,
            };
            assert_eq!((*cols, values.len()), (matrix.shape[1], rows * matrix.shape[1]), "{}", matrix.name);
        }
        // Two matrices whose outputs are shown too: the projector's, but for its bias, and the decoder's last one with the
        // stream that it adds to, in generation 1.
        let product = |name: &str| -> Vec<f64> {
            let shape = &tensors.iter().find(|t| t.name == name).unwrap().shape;
            let matrix = model.file().matrix(name, shape[0], shape[1]).unwrap();
            let weights: Vec<Vec<f32>> = (0..shape[0])
                .map(|n| {
                    let mut row = vec![0.0; shape[1]];
                    matrix.dequantize_row(n, &mut row);
                    row
                })
                .collect();
            let dot = |w: &[f32], x: &[f64]| w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
            let inputs = seen[&format!("{name}.input")].1.chunks(shape[1]);
            inputs.flat_map(|x| weights.iter().map(move |w| dot(w, x)).collect::<Vec<_>>()).collect()
        };
        let bias = model.file().f32s("projector.bias", &[config.text.hidden]).unwrap();
        let features: Vec<f64> = product("projector.weight")
            .chunks(config.text.hidden)
            .flat_map(|row| row.iter().zip(bias).map(|(x, &b)| x + f64::from(b)).collect::<Vec<_>>())
            .collect();
        let error = relative_error(&features, &seen["image_features"].1);
        assert!(error < 1e-5, "{name} {format}: the projector's outputs are off by {error}");
        let last = config.text.layers - 1;
        if config.text.attention_softcap.is_none() {
            let down = product(&format!("text.layer.{last}.mlp.down.weight"));
            let out = product(&format!("text.layer.{last}.attn.out.weight"));
            let before = &seen[&format!("text.layer.{}", last - 1)].1;
            let after: Vec<f64> = before.iter().zip(&out).zip(&down).map(|((b, o), d)| b + o + d).collect();
            let error = relative_error(&after, &seen[&format!("text.layer.{last}")].1);
            assert!(error < 1e-5, "{name} {format}: the last layer is off by {error}");
        }
    }
}
