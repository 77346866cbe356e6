//! Models for retrieval: ColPali's checkpoints in each of their layouts, and the vectors of pages and questions,
//! against transformers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use palmtop::image::{ImageLimits, decode_file};
use palmtop::{
    Embedding, Error, GenerateOptions, Isa, Limits, Model, QueryMask, Request, Session, UsageError,
};
use palmtop_convert::{Adapter, Asking, ConvertError, Options, QueryForm, Recipe, Report, convert};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::colpali::{Layout, colpali};
use palmtop_tests::skip::no_instruction_set;
use palmtop_tests::{RANDOM, Tensor, caption, checkpoint, converted, data, relative_error, tensors, uniform};

fn options(format: WeightFormat) -> Options {
    Options { recipe: uniform(format), name: Some("test".into()), ..Options::default() }
}

fn convert_as(folder: &Path, options: &Options) -> (Arc<Model>, Report) {
    let target = folder.join("model.palm");
    let report = convert(folder, &target, options, &()).unwrap();
    (Model::open(&target).unwrap(), report)
}

/// A session that gives no answers.
fn session(model: &Arc<Model>, threads: usize) -> Session {
    let mut limits = Limits::default();
    (limits.new_tokens, limits.threads, limits.image_side) = (0, Some(threads), 700);
    Session::new(model, &limits).unwrap()
}

fn about() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(data().join("retrieval/retrieval.json")).unwrap()).unwrap()
}

fn texts(key: &str) -> Vec<String> {
    about()[key].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect()
}

/// Vectors in f32, row by row.
type Vectors = Vec<Vec<f32>>;

fn rows(embedding: &Embedding) -> Vectors {
    embedding.values().chunks(embedding.dim()).map(<[f32]>::to_vec).collect()
}

fn page(session: &mut Session, picture: &str) -> Vectors {
    let picture = decode_file(data().join("images").join(picture), &ImageLimits::default()).unwrap();
    let (mut features, mut out) = (session.new_features().unwrap(), session.new_embedding().unwrap());
    let options = GenerateOptions::default();
    session.encode(picture.view(), &mut features, &options).unwrap();
    session.embed_picture(&features, &options, &mut out).unwrap();
    assert_eq!(out.image_rows(), session.model().config().image_rows());
    assert_eq!(out.rows(), session.model().page_rows().unwrap());
    rows(&out)
}

fn question(session: &mut Session, text: &str) -> Vectors {
    let mut out = session.new_embedding().unwrap();
    session.embed_query(text, &GenerateOptions::default(), &mut out).unwrap();
    assert_eq!(out.image_rows(), 0);
    rows(&out)
}

/// The sum over a question's vectors of the largest dot product with a page's.
fn score(question: &Vectors, page: &Vectors) -> f64 {
    let dot = |q: &[f32], p: &[f32]| q.iter().zip(p).map(|(q, p)| f64::from(*q) * f64::from(*p)).sum::<f64>();
    question.iter().map(|q| page.iter().map(|p| dot(q, p)).fold(f64::MIN, f64::max)).sum()
}

fn wide(vectors: &Vectors) -> Vec<f64> {
    vectors.concat().into_iter().map(f64::from).collect()
}

fn assert_near(got: &Vectors, want: &Tensor, what: &str) {
    assert_eq!([got.len(), got[0].len()], want.shape[..], "{what}");
    let error = relative_error(&wide(got), &want.values);
    assert!(error < 1e-4, "{what} is off by {error:.1e}");
}

/// Pages, questions and their scores are those of a file of `data/retrieval`.
fn assert_vectors(model: &Arc<Model>, want: &BTreeMap<String, Tensor>, what: &str) {
    let mut session = session(model, 2);
    let pages: Vec<Vectors> = texts("pages").iter().map(|p| page(&mut session, p)).collect();
    let questions: Vec<Vectors> = texts("questions").iter().map(|q| question(&mut session, q)).collect();
    for (kind, all) in [("page", &pages), ("question", &questions)] {
        for (n, got) in all.iter().enumerate() {
            assert_near(got, &want[&format!("{kind}.{n}")], &format!("{what}: {kind} {n}"));
        }
    }
    let scores = questions.iter().flat_map(|q| pages.iter().map(|p| score(q, p)));
    for (got, want) in scores.zip(&want["scores"].values) {
        assert!((got - want).abs() < 1e-4 * want.abs(), "{what}: a score is {got}, not {want}");
    }
}

#[test]
fn checkpoints_of_every_layout_give_the_vectors_of_transformers() {
    let want = tensors(&data().join("retrieval/plain.safetensors"));
    for layout in Layout::ALL {
        let folder = colpali(layout);
        let (model, report) = convert_as(folder.path(), &options(WeightFormat::F32));
        assert!(report.notes.iter().any(|n| n.contains("<bos>Question: …<pad>")), "{:?}", report.notes);
        assert_eq!(model.retrieval().unwrap().dim, 40);
        assert_vectors(&model, &want, &format!("{layout:?}"));
    }
}

#[test]
fn colpalis_adapter_is_merged_into_its_base() {
    let want = tensors(&data().join("retrieval/adapted.safetensors"));
    let adapter = Adapter::new(data().join("retrieval/adapter"));
    for layout in [Layout::Engine, Layout::NewTransformers] {
        let folder = colpali(layout);
        let options = Options { adapters: vec![adapter.clone()], ..options(WeightFormat::F32) };
        let (model, report) = convert_as(folder.path(), &options);
        let parts: Vec<&str> = report.adapters[0].matched.iter().map(|m| m.part).collect();
        assert!(parts.contains(&"retrieval") && parts.contains(&"text"), "{parts:?}");
        assert_vectors(&model, &want, &format!("{layout:?}"));
    }
    // Into a PaliGemma without the head it cannot be.
    let folder = checkpoint("tiny1-f32");
    let options = Options { adapters: vec![adapter], ..options(WeightFormat::F32) };
    let error = convert(folder.path(), &folder.path().join("model.palm"), &options, &()).unwrap_err();
    let error = error.to_string();
    let base = "convert the base that it was trained on, 'vidore/colpaligemma-3b-pt-448-base'";
    assert!(error.contains("ColPali") && error.contains(base), "{error}");
}

#[test]
fn questions_are_worded_and_masked_as_the_file_says() {
    let want = tensors(&data().join("retrieval/plain.safetensors"));
    let folder = colpali(Layout::Engine);
    for (form, name) in [(QueryForm::Query, "query"), (QueryForm::Plain, "plain")] {
        let asking = Asking { form: Some(form), mask: Some(QueryMask::Causal), document_bos: None };
        let (model, _) = convert_as(folder.path(), &Options { asking, ..options(WeightFormat::F32) });
        let mut session = session(&model, 2);
        for (n, text) in texts("questions").iter().enumerate() {
            let got = question(&mut session, text);
            assert_near(&got, &want[&format!("{name}.{n}")], &format!("{name} {n}"));
        }
        // The mask of questions is none of a page's.
        assert_near(&page(&mut session, &texts("pages")[0]), &want["page.0"], "a page");
    }
    let asking = Asking { document_bos: Some(2), ..Asking::default() };
    let (model, _) = convert_as(folder.path(), &Options { asking, ..options(WeightFormat::F32) });
    let got = page(&mut session(&model, 1), &texts("pages")[0]);
    assert_eq!(got.len(), want["page.0"].shape[0] + 1);
    // What transformers' processor saves of itself is read.
    let processor =
        r#"{"processor_class": "ColPaliProcessor", "query_prefix": "Q: ", "visual_prompt_prefix": "Look."}"#;
    std::fs::write(folder.path().join("processor_config.json"), processor).unwrap();
    let (model, _) = convert_as(folder.path(), &options(WeightFormat::F32));
    let retrieval = model.retrieval().unwrap();
    assert_eq!((&*retrieval.query_prefix, &*retrieval.document_prompt), ("Q: ", "Look.\n"));
    assert_eq!((retrieval.query_pads, &*retrieval.query_end, retrieval.document_bos), (10, "\n", 1));

    let plain = checkpoint("tiny1");
    let asking = Asking { form: Some(QueryForm::Plain), ..Asking::default() };
    let wanted = Options { asking, ..options(WeightFormat::F32) };
    let error = convert(plain.path(), &plain.path().join("model.palm"), &wanted, &()).unwrap_err();
    assert!(matches!(error, ConvertError::NotForRetrieval { .. }), "{error}");
    assert!("Question".parse::<QueryForm>().is_err() && "both".parse::<QueryMask>().is_err());
}

#[test]
fn few_bits_keep_the_order_of_pages() {
    let want = tensors(&data().join("retrieval/plain.safetensors"));
    let folder = colpali(Layout::Engine);
    for format in [WeightFormat::F16, WeightFormat::Int8, WeightFormat::Int4] {
        let options = Options { recipe: Recipe::preset(format), ..options(format) };
        let (model, report) = convert_as(folder.path(), &options);
        let head = report.tensors.iter().find(|t| t.name == "retrieval.weight").unwrap();
        assert_eq!((head.part, head.storage), (Some("retrieval"), "f16 packed"));
        let mut session = session(&model, 2);
        let pages: Vec<Vectors> = texts("pages").iter().map(|p| page(&mut session, p)).collect();
        for (text, want) in texts("questions").iter().zip(want["scores"].values.chunks(pages.len())) {
            let question = question(&mut session, text);
            let got: Vec<f64> = pages.iter().map(|p| score(&question, p)).collect();
            let order = |scores: &[f64]| {
                let mut order: Vec<usize> = (0..scores.len()).collect();
                order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
                order
            };
            assert_eq!(order(&got), order(want), "{format}: {got:?} instead of {want:?}");
        }
    }
}

#[test]
fn threads_instruction_sets_and_sessions_do_not_change_a_bit() {
    for name in RANDOM {
        for format in [WeightFormat::F32, WeightFormat::Int8, WeightFormat::Int4] {
            let model = converted(name, uniform(format)).open();
            let run = |limits: &Limits| {
                let mut session = Session::new(&model, limits).unwrap();
                let page = page(&mut session, "scene_640x361.png");
                let question = question(&mut session, "where is the red car?");
                let lengths = page.iter().chain(&question);
                for length in lengths.map(|v| v.iter().map(|x| x * x).sum::<f32>().sqrt()) {
                    assert!((length - 1.0).abs() < 1e-5, "{length}");
                }
                [page, question].concat().concat().iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
            };
            let limits = |threads, new_tokens, batch, isa| {
                let mut limits = Limits::default();
                (limits.threads, limits.new_tokens, limits.batch) = (Some(threads), new_tokens, batch);
                (limits.isa, limits.image_side) = (isa, 700);
                limits
            };
            let want = run(&limits(1, 0, 1, None));
            for limits in [limits(2, 0, 1, None), limits(3, 8, 2, None)] {
                assert!(run(&limits) == want, "{name} {format}, {limits:?}");
            }
            for isa in Isa::ALL {
                match isa.is_available() {
                    true => assert!(run(&limits(2, 0, 1, Some(isa))) == want, "{name} {format} {isa}"),
                    false => no_instruction_set(isa),
                }
            }
        }
    }
}

/// The head is behind the decoder, and nothing else of the model knows of it.
#[test]
fn a_model_for_retrieval_answers_as_the_one_that_it_was_made_from() {
    let folder = colpali(Layout::NewTransformers);
    let (_, _) = convert_as(folder.path(), &options(WeightFormat::F32));
    let plain = converted("tiny1-f32", uniform(WeightFormat::F32));
    let picture = data().join("images/scene_640x361.png");
    let got = caption(&folder.path().join("model.palm"), &picture, 12);
    assert_eq!(got.tokens, caption(&plain.path, &picture, 12).tokens);
}

#[test]
fn what_cannot_be_is_refused_and_leaves_no_vectors() {
    let model = converted(RANDOM[0], uniform(WeightFormat::Int8)).open();
    let other = converted(RANDOM[1], uniform(WeightFormat::Int8)).open();
    let plain = converted("tiny1", uniform(WeightFormat::Int8)).open();
    let options = GenerateOptions::default();
    let no_retrieval =
        |error: Error| assert!(matches!(error, Error::Usage(UsageError::NoRetrieval)), "{error}");
    no_retrieval(plain.new_embedding(3).map(|_| ()).unwrap_err());
    no_retrieval(plain.page_rows().unwrap_err());
    let mut session = session(&model, 1);
    let mut out = session.new_embedding().unwrap();
    assert_eq!(model.plan_embedding(out.rows_max()).unwrap(), out.rows_max() * 128 * 4);
    no_retrieval(self::session(&plain, 1).embed_query("where?", &options, &mut out).unwrap_err());
    let long = "where is it, where, where? ".repeat(200);
    let empty = session.new_features().unwrap();
    let mut of_other = other.new_embedding(50).unwrap();
    let mut small = model.new_embedding(12).unwrap();
    session.embed_query("where?", &options, &mut out).unwrap();
    assert!(out.rows() > 10 && !out.values().is_empty());
    for (error, says) in [
        (session.embed_query(&long, &options, &mut out), "more than this session's 256"),
        (session.embed_query("a <image>", &options, &mut out), "contains the image token"),
        (session.embed_query("where?", &options, &mut of_other), "made for another model"),
        (session.embed_query("where?", &options, &mut small), "where there is room for 12"),
        (session.embed_picture(&empty, &options, &mut out), "no picture has been encoded"),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
        assert_eq!((out.rows(), out.values().len(), out.image_rows()), (0, 0, 0));
    }
    let cancelled = GenerateOptions::default();
    session.embed_query("where?", &options, &mut out).unwrap();
    cancelled.cancel.cancel();
    let error = session.embed_query("where?", &cancelled, &mut out).unwrap_err();
    assert!(matches!(error, Error::Cancelled) && out.rows() == 0);
    // A running answer needs its keys and values.
    let mut answering = Session::new(&model, &Limits::default()).unwrap();
    let picture = decode_file(data().join("images/noise_97x61.png"), &ImageLimits::default()).unwrap();
    let mut features = answering.new_features().unwrap();
    answering.encode(picture.view(), &mut features, &options).unwrap();
    let request = Request { pictures: &[&features], prompt: "caption en", draft: &[] };
    answering.begin(&request, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let error = answering.embed_picture(&features, &options, &mut out).unwrap_err();
    assert!(matches!(error, Error::Usage(UsageError::NoFreeSequence { batch: 1 })), "{error}");
}
