//! The whole model against Hugging Face transformers, value by value, on the reference checkpoints.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use palmtop::image::{ImageLimits, decode_file};
use palmtop::{GenerateOptions, KvFormat, Limits, Session};
use palmtop_convert::Recipe;
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{
    CHECKPOINTS, Converted, Tensor, Vector, converted, cosine, relative_error, uniform, vectors,
};

fn session(model: &Converted) -> Session {
    keeping(model, KvFormat::Auto)
}

fn keeping(model: &Converted, kv: KvFormat) -> Session {
    let mut limits = Limits::default();
    limits.kv = kv;
    Session::new(&model.open(), &limits).expect("a small session")
}

fn trace(session: &mut Session, vector: &Vector) -> BTreeMap<String, Tensor> {
    let tokens = vector.tensors["gen.tokens"].values.len();
    palmtop_tests::trace(session, &vector.images[0], &vector.prompt, tokens)
}

/// What a trace does not show: the picture before normalising, the kinds of tokens, the margins.
const NOT_TRACED: [&str; 3] = ["resized", "token_type_ids", "gen.margin"];

#[test]
fn f32_models_compute_what_transformers_computes() {
    let mut worst: BTreeMap<String, f64> = BTreeMap::new();
    for name in CHECKPOINTS {
        let mut session = session(&converted(name, uniform(WeightFormat::F32)));
        for vector in vectors(name) {
            let got = trace(&mut session, &vector);
            for (key, want) in vector.tensors.iter().filter(|(k, _)| !NOT_TRACED.contains(&k.as_str())) {
                let have = got.get(key).unwrap_or_else(|| panic!("{}: {key} is not traced", vector.name));
                assert_eq!(have.shape, want.shape, "{}: {key}", vector.name);
                if key == "input_ids" || key == "gen.tokens" {
                    assert_eq!(have.values, want.values, "{}: {key}", vector.name);
                    continue;
                }
                let error = relative_error(&have.values, &want.values);
                let bound = if key == "pixel_values" { 1e-6 } else { 1e-4 };
                assert!(error < bound, "{}: {key} is off by {error:.1e}", vector.name);
                let group = key.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
                let entry = worst.entry(group).or_default();
                *entry = entry.max(error);
            }
        }
    }
    println!("largest relative error of each kind of value:");
    worst.iter().for_each(|(kind, error)| println!("  {kind:<28}{error:.1e}"));
}

/// Tokens of the reference before the first place where it was itself nearly undecided.
fn clear_tokens(vector: &Vector, margin: f64) -> &[f64] {
    let (tokens, margins) = (&vector.tensors["gen.tokens"].values, &vector.tensors["gen.margin"].values);
    &tokens[..margins.iter().position(|&m| m < margin).unwrap_or(tokens.len())]
}

#[test]
fn quantized_models_stay_close() {
    // The lowest of int4 is 0.932: random weights of these sizes are the hardest to round.
    for (format, bound) in
        [(WeightFormat::F16, 0.99999), (WeightFormat::Int8, 0.999), (WeightFormat::Int4, 0.9)]
    {
        let mut cosines = Vec::new();
        for name in CHECKPOINTS {
            let mut session = session(&converted(name, Recipe::preset(format)));
            for vector in vectors(name) {
                let got = trace(&mut session, &vector);
                let value = cosine(&got["logits.prefill"].values, &vector.tensors["logits.prefill"].values);
                cosines.push((value, vector.name.clone()));
                if format == WeightFormat::F16 {
                    let clear = clear_tokens(&vector, 0.05);
                    assert_eq!(&got["gen.tokens"].values[..clear.len()], clear, "{}", vector.name);
                }
            }
        }
        cosines.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mean = cosines.iter().map(|c| c.0).sum::<f64>() / cosines.len() as f64;
        println!("{format}: cosine of the prefill logits with the reference: mean {mean:.5}, lowest:");
        cosines.iter().take(3).for_each(|(value, name)| println!("  {value:.5} {name}"));
        let (lowest, name) = &cosines[0];
        assert!(*lowest >= bound, "{format}: {name} has a cosine of {lowest:.5}");
    }
}

/// Logits of the prompt and of all tokens that follow the same ones, beside those over keys and values in f16. These
/// models' prompts are short: they too attend to what is kept.
#[test]
fn keys_and_values_in_8_bits_change_little() {
    for (format, bound) in [(WeightFormat::F16, 0.9997), (WeightFormat::Int8, 0.999)] {
        let (mut cosines, mut diverging) = (Vec::new(), 0);
        for name in CHECKPOINTS {
            let model = converted(name, Recipe::preset(format));
            let [mut wide, mut narrow] = [KvFormat::F16, KvFormat::Int8].map(|kv| keeping(&model, kv));
            for vector in vectors(name) {
                let (want, got) = (trace(&mut wide, &vector), trace(&mut narrow, &vector));
                let logits = |t: &BTreeMap<String, Tensor>| t["gen.logits"].clone();
                let (want_logits, got_logits) = (logits(&want), logits(&got));
                let tokens = want["gen.tokens"].values.iter().zip(&got["gen.tokens"].values);
                let alike = tokens.take_while(|(a, b)| a == b).count();
                diverging += usize::from(alike < want_logits.shape[0]);
                let rows = want_logits.values.chunks(want_logits.shape[1]);
                let rows = rows.zip(got_logits.values.chunks(want_logits.shape[1])).take(alike + 1);
                cosines.extend(rows.map(|(want, got)| (cosine(got, want), vector.name.clone())));
            }
        }
        cosines.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mean = cosines.iter().map(|c| c.0).sum::<f64>() / cosines.len() as f64;
        println!(
            "{format}: cosine of {} rows of logits with those over f16: mean {mean:.5}, {diverging} answers differ, lowest:",
            cosines.len()
        );
        cosines.iter().take(3).for_each(|(value, name)| println!("  {value:.5} {name}"));
        let (lowest, name) = &cosines[0];
        assert!(*lowest >= bound, "{format}: {name} has a cosine of {lowest:.5}");
    }
}

#[test]
fn answers_read_as_transformers_decodes_them() {
    for name in CHECKPOINTS {
        let mut session = session(&converted(name, uniform(WeightFormat::F32)));
        let mut features = session.new_features().expect("memory for features");
        for vector in vectors(name) {
            let picture =
                decode_file(&vector.images[0], &ImageLimits::default()).expect("a readable picture");
            let mut options = GenerateOptions::default();
            options.stop_at_eos = false;
            options.max_new_tokens = Some(vector.tensors["gen.tokens"].values.len());
            session.encode(picture.view(), &mut features, &options).expect("encoding");
            let mut streamed = String::new();
            let answers = session
                .answer(&features, &[&vector.prompt], &options, &mut |piece| {
                    streamed.push_str(piece.text);
                    ControlFlow::Continue(())
                })
                .expect("answering");
            assert_eq!(answers[0].text, vector.text, "{}", vector.name);
            assert_eq!(streamed, vector.text, "{}", vector.name);
            let tokens: Vec<f64> = answers[0].tokens.iter().map(|&t| f64::from(t)).collect();
            assert_eq!(tokens, vector.tensors["gen.tokens"].values);
            assert_eq!(answers[0].token_ends.last(), Some(&answers[0].text.len()));
        }
    }
}
