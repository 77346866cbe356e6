//! Runs a model on examples and hands out the inputs of its matrices.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palmtop::image::{ImageLimits, RgbImage, decode_file};
use palmtop::session::{CancelToken, Traced, TracedValues};
use palmtop::tokenizer::EncodeScratch;
use palmtop::{GenerateOptions, ImageFeatures, Isa, Limits, Model, Session};

use crate::examples::{Example, read_examples};
use crate::{ConvertError, Progress};

/// Prompts and answers of more bytes are refused.
const TEXT_BYTES_MAX: usize = 8192;

/// A model, and what it is run on.
pub(crate) struct Runner<'a> {
    session: Session,
    /// Of the pictures of an example, and memory for more.
    features: Vec<ImageFeatures>,
    file: PathBuf,
    pictures: Vec<Picture>,
    progress: &'a dyn Progress,
    /// Runs so far, and all that there will be.
    done: u64,
    total: u64,
    /// What layers add to what passes through them.
    pub streams: ResidualStream,
}

/// A picture, or several together, and what is asked about them.
struct Picture {
    paths: Vec<PathBuf>,
    /// The first line of the file that they stand in.
    line: usize,
    asked: Vec<(String, Vec<u32>)>,
}

impl<'a> Runner<'a> {
    pub fn new(
        model: &Arc<Model>,
        examples: &Path,
        isa: Option<Isa>,
        threads: Option<usize>,
        progress: &'a dyn Progress,
    ) -> Result<Self, ConvertError> {
        let failed = |e: palmtop::Error| ConvertError::Calibration(e.to_string());
        let pictures = read_pictures(model, examples)?;
        let mut limits = Limits::default();
        (limits.isa, limits.threads) = (isa, threads);
        limits.pictures = pictures.iter().map(|picture| picture.paths.len()).max().unwrap_or(1);
        let asked = || pictures.iter().flat_map(|p| &p.asked);
        // No token is shorter than a byte; begin-of-sequence and the final newline are two more.
        limits.prompt_tokens = asked().map(|(prompt, _)| prompt.len() + 2).max().unwrap_or(2);
        limits.new_tokens = asked().map(|(_, answer)| answer.len()).max().unwrap_or(0).max(1);
        let session = Session::new(model, &limits).map_err(failed)?;
        let features: Result<Vec<_>, _> = (0..limits.pictures).map(|_| session.new_features()).collect();
        let features = features.map_err(failed)?;
        let file = examples.to_owned();
        let total = pictures.len() as u64;
        let streams = ResidualStream::default();
        Ok(Self { session, features, file, pictures, progress, done: 0, total, streams })
    }

    /// The instruction set that the model runs on.
    pub fn isa(&self) -> Isa {
        self.session.isa()
    }

    /// Runs all examples; `sink` sees the inputs of every matrix by its name, row after row, always in the same order.
    pub fn run(&mut self, sink: &mut dyn FnMut(&str, &[f32])) -> Result<(), ConvertError> {
        self.streams = ResidualStream::default();
        for picture in &self.pictures {
            self.progress.calibrated(self.done, self.total);
            let example = |what| ConvertError::Example { path: self.file.clone(), line: picture.line, what };
            let decode = |path: &PathBuf| {
                decode_file(path, &ImageLimits::default()).map_err(|e| {
                    example(format!("cannot use picture {}: {}", path.display(), in_one_line(&e)))
                })
            };
            let images = picture.paths.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
            let images: Vec<_> = images.iter().map(RgbImage::view).collect();
            let asked: Vec<(&str, &[u32])> =
                picture.asked.iter().map(|(p, a)| (p.as_str(), &a[..])).collect();
            let mut options = GenerateOptions::default();
            let cancel = CancelToken::default();
            options.cancel = cancel.clone();
            let (progress, streams) = (self.progress, &mut self.streams);
            let seen =
                self.session.observe(&images, &mut self.features, &asked, &options, &mut |traced: Traced| {
                    if progress.cancelled() {
                        cancel.cancel();
                    }
                    let TracedValues::F32(values) = traced.values else { return };
                    match traced.name.strip_suffix(".input") {
                        Some(matrix) => sink(matrix, values),
                        None => streams.see(traced.name, values),
                    }
                });
            match seen {
                Err(palmtop::Error::Cancelled) => return Err(ConvertError::Cancelled),
                Err(error) => return Err(example(error.to_string())),
                Ok(()) => {}
            }
            self.done += 1;
        }
        self.progress.calibrated(self.done, self.total);
        Ok(())
    }

    /// Runs of an example so far, and all that there will be.
    #[cfg(test)]
    pub fn runs(&self) -> (u64, u64) {
        (self.done, self.total)
    }

    /// So many times all examples will be run, from now on.
    pub fn expect_rounds(&mut self, rounds: usize) {
        self.total = self.done + (rounds * self.pictures.len()) as u64;
    }
}

/// Errors of pictures tell what the system said as their source.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

fn read_pictures(model: &Model, file: &Path) -> Result<Vec<Picture>, ConvertError> {
    let tokenizer = model.tokenizer();
    let mut scratch = EncodeScratch::with_capacity(TEXT_BYTES_MAX);
    let mut pictures: Vec<Picture> = Vec::new();
    let mut places: HashMap<Vec<PathBuf>, usize> = HashMap::new();
    for Example { line, paths, prompt, expected, .. } in read_examples(file)? {
        let wrong = |what| ConvertError::Example { path: file.to_owned(), line, what };
        let expected = expected.unwrap_or_default();
        for (what, text) in [("prompt", &prompt), ("expected answer", &expected)] {
            if text.len() > TEXT_BYTES_MAX - 2 {
                return Err(wrong(format!(
                    "the {what} has {} bytes: shorten it or leave it out",
                    text.len()
                )));
            }
        }
        let mut answer = Vec::new();
        tokenizer.encode(&expected, &mut scratch, &mut answer).map_err(|e| wrong(e.to_string()))?;
        let place = *places.entry(paths.clone()).or_insert_with(|| {
            pictures.push(Picture { paths, line, asked: Vec::new() });
            pictures.len() - 1
        });
        pictures[place].asked.push((prompt, answer));
    }
    Ok(pictures)
}

/// How much each layer changes the stream of values that passes through it: what an error of its matrices is worth.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResidualStream {
    /// The values before the layer at hand.
    before: Vec<f32>,
    /// By the layer's name, such as `text.layer.3`: Σ (after - before)² and Σ after².
    layers: HashMap<String, [f64; 2]>,
}

impl ResidualStream {
    /// What [`Session::observe`] shows besides inputs.
    fn see(&mut self, name: &str, values: &[f32]) {
        if name.contains(".layer.") && self.before.len() == values.len() {
            let layer = self.layers.entry(name.to_owned()).or_default();
            for (&after, &before) in values.iter().zip(&self.before) {
                let [change, after] = [after - before, after].map(f64::from);
                layer[0] += change * change;
                layer[1] += after * after;
            }
        }
        if name.contains(".layer.") || name.ends_with(".embed") {
            self.before.clear();
            self.before.extend_from_slice(values);
        }
    }

    /// The share of the stream that a matrix's layer adds; 1 for what is in no layer, whose outputs are the stream.
    pub fn share(&self, matrix: &str) -> f64 {
        let Some((layer, _)) = matrix.split_once(".attn.").or_else(|| matrix.split_once(".mlp.")) else {
            return 1.0;
        };
        match self.layers.get(layer) {
            Some([change, after]) if *after > 0.0 => (change / after).min(1.0),
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_counts_by_what_it_changes() {
        let mut streams = ResidualStream::default();
        for round in 0..2 {
            streams.see("vision.embed", &[9.0; 6]);
            streams.see("text.embed", &[1.0, 1.0]);
            streams.see("text.layer.0", &[1.0, 2.0]);
            streams.see("text.layer.1", &[3.0, 2.0]);
            streams.see("text.final_norm", &[9.0; 2]);
            assert_eq!(streams.share("text.layer.0.attn.qkv.weight"), 1.0 / 5.0, "round {round}");
            assert_eq!(streams.share("text.layer.1.mlp.down.weight"), 4.0 / 13.0);
        }
        assert_eq!(streams.share("projector.weight"), 1.0);
        assert_eq!(streams.share("text.layer.2.mlp.down.weight"), 1.0);
    }
}
