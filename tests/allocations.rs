//! Nothing is allocated after a session is made, from the picture's pixels to the last token, on any thread; and a
//! session allocates what its plan says.

#[path = "common/counting.rs"]
mod counting;

use std::ops::ControlFlow;
use std::process::Command;
use std::sync::Arc;

use counting::{Asked, held_bytes};
use palmtop::image::{ImageLimits, decode_file};
use palmtop::{
    GenerateOptions, Grammar, KvFormat, Limits, Model, PrefixLimits, PrefixText, Request, Sampling, Session,
};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{RANDOM, convert_to, data, uniform};
use tempfile::TempDir;

/// Counts are over the whole process, so this test runs without the usual harness, whose threads allocate too.
fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, name, format, target] = &arguments[..]
        && mode == "convert"
    {
        return convert_to(name, uniform(format.parse().unwrap()), target.as_ref());
    }
    nothing_is_allocated_from_the_pixels_to_the_last_token();
    a_session_takes_what_its_plan_says();
    println!("2 passed, 0 failed");
}

/// A model converted by a process of its own, whose threads may allocate as they end.
fn model(dir: &TempDir, name: &str, format: WeightFormat) -> Arc<Model> {
    let target = dir.path().join(format!("{name}-{format}.palm"));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["convert", name, format.name()])
        .arg(&target)
        .status();
    assert!(child.unwrap().success());
    Model::open(&target).unwrap()
}

fn nothing_is_allocated_from_the_pixels_to_the_last_token() {
    let picture = decode_file(data().join("images/scene_640x361.png"), &ImageLimits::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, format, kv, rounds) in [
        ("tiny1", WeightFormat::Int8, KvFormat::Auto, 100),
        ("tiny2", WeightFormat::Int4, KvFormat::Int8, 100),
        ("tiny2", WeightFormat::F32, KvFormat::Auto, 100),
        (RANDOM[0], WeightFormat::Int8, KvFormat::Auto, 10),
        (RANDOM[1], WeightFormat::Int4, KvFormat::Int8, 10),
        (RANDOM[1], WeightFormat::F32, KvFormat::Auto, 10),
    ] {
        let model = model(&dir, name, format);
        let mut limits = Limits::default();
        (limits.batch, limits.threads, limits.new_tokens, limits.kv) = (3, Some(3), 40, kv);
        (limits.pictures, limits.draft_tokens) = (2, 7);
        let mut session = Session::new(&model, &limits).unwrap();
        let mut features = session.new_features().unwrap();
        let mut other_features = session.new_features().unwrap();
        session.encode(picture.view(), &mut other_features, &GenerateOptions::default()).unwrap();
        let mut options = GenerateOptions::default();
        options.stop_at_eos = false;
        let mut sampled = options.clone();
        sampled.sampling = Sampling { temperature: 0.8, top_k: 40, top_p: 0.9, seed: 1 };
        let mut among = sampled.clone();
        among.grammar =
            Some(Grammar::tokens(&model, (0..model.config().text.vocab as u32).step_by(2)).unwrap());
        let mut chosen = sampled.clone();
        chosen.grammar =
            Some(Grammar::choices(&model, ["yes", "no", "no idea", "a red car", "a red cat"]).unwrap());
        let ways = [&options, &sampled, &among, &chosen];
        let given: Vec<u32> = (300..340).collect();
        let mut prefix = model.new_prefix(&prefix_limits()).unwrap();
        let mut embedding = model.retrieval().map(|_| session.new_embedding().unwrap());
        let before = Asked::by_all_threads();
        let mut heard = 0;
        for round in 0..rounds {
            session.encode(picture.view(), &mut features, &options).unwrap();
            let prompts =
                ["caption en", "detect cat ; dog ; traffic light", "answer en where is Größe 猫 😀?"];
            session
                .answer(&features, &prompts, ways[round % ways.len()], &mut |piece| {
                    heard += piece.text.len();
                    ControlFlow::Continue(())
                })
                .unwrap();
            // Sequences that join and leave, about several pictures, with drafts that are partly right.
            let both = [&features, &other_features];
            let draft = session.answers()[0].tokens.first().map_or([0; 9], |&first| [first; 9]);
            let mut ids = [None; 3];
            for step in 0..6 {
                let request =
                    Request { pictures: &both[..1 + step % 2], prompt: prompts[step % 3], draft: &draft };
                if session.free_sequences() > 0 {
                    let way = ways[(round + step) % ways.len()];
                    let id = session.begin(&request, way, &mut |_| ControlFlow::Continue(())).unwrap();
                    ids[id.index()] = Some(id);
                }
                session.step(&mut |_| ControlFlow::Continue(())).unwrap();
                if let Some(id) = ids[step % 2].take() {
                    heard += session.sequence(id).unwrap().text.len();
                    session.end(id).unwrap();
                }
            }
            ids.into_iter().flatten().for_each(|id| session.end(id).unwrap());
            let (pictures, text) = ([Some(&features), None], PrefixText::Open("Action: "));
            session.prefix(&pictures, text, &options, &mut prefix).unwrap();
            heard += prefix.next_position();
            if let Some(embedding) = &mut embedding {
                session.embed_picture(&features, &options, embedding).unwrap();
                session.embed_query(prompts[2], &options, embedding).unwrap();
                heard += embedding.rows();
            }
            let part = &given[..round % given.len()];
            session
                .force(&features, prompts[0], part, &options, &mut |_, logits| heard += logits.len())
                .unwrap();
        }
        let calls = Asked::by_all_threads().since(before).calls;
        assert!(heard > 0);
        assert_eq!(calls, 0, "{name} {format}");
    }
}

/// Two pictures and a text.
fn prefix_limits() -> PrefixLimits {
    let mut limits = PrefixLimits::default();
    (limits.pictures, limits.tokens) = (2, 50);
    limits
}

fn a_session_takes_what_its_plan_says() {
    let dir = tempfile::tempdir().unwrap();
    for (name, format) in [
        ("tiny1", WeightFormat::Int8),
        ("tiny2", WeightFormat::F32),
        (RANDOM[0], WeightFormat::Int8),
        (RANDOM[1], WeightFormat::F32),
    ] {
        let model = model(&dir, name, format);
        let before = held_bytes();
        let prefix = model.new_prefix(&prefix_limits()).unwrap();
        let rows = held_bytes() - before;
        assert_eq!(rows, model.plan_prefix(&prefix_limits()).unwrap(), "{name} {format}");
        drop(prefix);
        if model.retrieval().is_some() {
            let before = held_bytes();
            let _embedding = model.new_embedding(77).unwrap();
            assert_eq!(held_bytes() - before, model.plan_embedding(77).unwrap(), "{name} {format}");
        }
        for (batch, threads, side, kv, new_tokens) in [
            (1, 1, 16384, KvFormat::Auto, 256),
            (4, 3, 1000, KvFormat::Auto, 256),
            (5, 2, 1000, KvFormat::Int8, 256),
            (1, 2, 1000, KvFormat::Auto, 0),
        ] {
            let mut limits = Limits::default();
            (limits.batch, limits.threads, limits.image_side, limits.kv) = (batch, Some(threads), side, kv);
            limits.new_tokens = new_tokens;
            let plan = model.plan(&limits).unwrap();
            let before = held_bytes();
            let session = Session::new(&model, &limits).unwrap();
            let features = session.new_features().unwrap();
            let taken = held_bytes() - before;
            assert_eq!(*session.plan(), plan);
            // What the plan does not name: a handful of bookkeeping for threads and lists.
            let planned = plan.session_bytes() - plan.stack_bytes;
            assert!(
                (planned..planned + 16 * 1024).contains(&taken),
                "{name} {format}: {taken} bytes taken, planned:\n{plan}"
            );
            drop((session, features));
        }
    }
}
