//! `palmtop find`: which pages of an index answer a question.

use std::time::{Duration, Instant};

use anyhow::Context;
use palmtop::session::Session;
use palmtop_present::plain::printable;
use palmtop_retrieval::Index;
use palmtop_retrieval::search::{Hit, Query, SearchOptions, Searcher};
use serde::Serialize;

use super::args::FindArgs;
use super::embed::{counted, ms};
use super::model;
use crate::convert::shell_word;
use crate::output::{Console, Stdout, say, shown};
use crate::{Outcome, interrupt};

/// `docs/json.md` promises this shape.
#[derive(Serialize)]
struct QuestionJson<'a> {
    index: &'a str,
    question: &'a str,
    vectors: usize,
    pages: usize,
    hits: Vec<HitJson<'a>>,
    damaged: &'a [&'a str],
    timings: TimingsJson,
}

#[derive(Serialize)]
struct HitJson<'a> {
    source: &'a str,
    score: f32,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct TimingsJson {
    question_ms: f64,
    search_ms: f64,
}

pub fn run(args: &FindArgs, console: Console) -> anyhow::Result<Outcome> {
    let kernels = args.model.machine.kernels()?;
    let index = Index::open(&args.index)?;
    let cancel = interrupt::listen()?;
    let model = model::open(&args.model, (!args.any_model).then(|| index.kind()), console)?;
    model::check(&model, index.kind(), args.any_model)?;
    if args.any_model && model::id(&model) != index.kind().model {
        console.note(format_args!(
            "note: {} made the index, and another model is asked; that is right only if it is the same checkpoint",
            model::described(&index.kind().model)
        ));
    }
    let longest = args.questions.iter().map(|question| question.as_str().len()).max().unwrap_or(0);
    let limits = model::limits(&args.model, &model, longest);
    let mut session = Session::new(&model, &limits).context("cannot start a session")?;
    let mut vectors = session.new_embedding()?;
    let mut queries = Vec::new();
    let mut asking: Vec<Duration> = Vec::new();
    for question in &args.questions {
        session.embed_query(question.as_str(), &model::options(&cancel), &mut vectors)?;
        queries.push(Query::new(vectors.dim(), vectors.values().to_vec())?);
        asking.push(session.timings().rows);
    }
    // Its memory and threads are not needed any more.
    drop((session, vectors));
    let start = Instant::now();
    let mut options = SearchOptions::default();
    (options.top, options.cancel) = (usize::try_from(args.top).unwrap_or(usize::MAX), cancel);
    let found = Searcher::new(limits.threads, Some(kernels.isa()))?.search(&index, &queries, &options)?;
    let search_ms = ms(start.elapsed());
    let damaged: Vec<&str> = found.damaged.iter().map(|&page| &*index.page(page).name).collect();
    let mut out = Stdout::new();
    for (n, question) in args.questions.iter().enumerate() {
        if args.json {
            let hit = |hit: &Hit| {
                let page = index.page(hit.page);
                HitJson { source: &page.name, score: hit.score, width: page.size.0, height: page.size.1 }
            };
            out.print_json(&QuestionJson {
                index: &args.index.to_string_lossy(),
                question: question.as_str(),
                vectors: queries[n].rows(),
                pages: index.pages().len(),
                hits: found.hits[n].iter().map(hit).collect(),
                damaged: &damaged,
                timings: TimingsJson { question_ms: ms(asking[n]), search_ms },
            })?;
        } else {
            let title = (args.questions.len() > 1).then_some(question.as_str());
            out.print(table(&index, title, &found.hits[n]))?;
        }
    }
    if console.verbose {
        let (pages, rows) = (counted(index.pages().len(), "page"), index.rows());
        console.note(format_args!("{pages} of {rows} vectors compared in {search_ms:.1} ms"));
    }
    if index.pages().is_empty() {
        console.note(format_args!("{} has no pages", shown(&args.index)));
    }
    for name in &damaged {
        say(format_args!(
            "error: the vectors of page {} are damaged, and it was left out\n",
            printable(name)
        ));
    }
    if damaged.is_empty() {
        return Ok(Outcome::Done);
    }
    say(format_args!(
        "hint: palmtop embed --compact -o {} removes them; then embed these pages again\n",
        shell_word(&args.index.display().to_string())
    ));
    Ok(Outcome::SomeFailed)
}

/// A line for each page: its score and its name.
fn table(index: &Index, question: Option<&str>, hits: &[Hit]) -> String {
    let indent = if question.is_some() { 2 } else { 0 };
    let mut text = question.map(|question| format!("{}\n", printable(question))).unwrap_or_default();
    for hit in hits {
        text += &format!("{:indent$}{:>8.3}  {}\n", "", hit.score, printable(&index.page(hit.page).name));
    }
    text
}
