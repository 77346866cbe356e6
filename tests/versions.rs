//! What `docs/format.md` promises of files that earlier releases wrote: they open, are whole, and answer as they did.
//! `data/format` has a folder for each release that changed what is written, with small models and their answers.
//!
//! `cargo test -p palmtop-tests --test versions -- --ignored` writes the folder of this release, if it is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use palmtop::format::{PalmFile, VERSION};
use palmtop::image::{Frame, PixelFormat};
use palmtop::model::config::{Config, Generation};
use palmtop::{GenerateOptions, Limits, Model, Session};
use palmtop_convert::synthetic::{Synthetic, preset};
use palmtop_convert::tokenizer::{AddedToken, Vocabulary};
use palmtop_convert::{Options, Recipe, convert_source};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{data, uniform};

/// Width and height of the picture that is asked about.
const PICTURE: [u32; 2] = [9, 7];
const PROMPT: &str = "ab b a";
const NEW_TOKENS: usize = 12;

/// All that tensors are stored as, by the names that `palmtop inspect` has for them.
const ALL_STORAGES: [&str; 6] =
    ["bytes", "f32 plain", "f32 packed", "f16 packed", "int8 packed", "int4 packed"];

/// The folders of releases, by their numbers.
fn releases() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data().join("format")).expect("files of releases are kept");
    let mut folders: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The model's tokens for [`PROMPT`], on the default instruction set.
fn answer(path: &Path) -> Vec<u32> {
    let model = Model::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let [width, height] = PICTURE;
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect();
    let picture = Frame::packed(PixelFormat::Rgb, width, height, width as usize * 3, &pixels).unwrap();
    let mut limits = Limits::default();
    (limits.new_tokens, limits.threads) = (NEW_TOKENS, Some(2));
    let mut session = Session::new(&model, &limits).unwrap();
    let (mut features, options) = (model.new_features().unwrap(), GenerateOptions::default());
    session.encode(picture, &mut features, &options).unwrap();
    let answers = session.answer(&features, &[PROMPT], &options, &mut |_| ControlFlow::Continue(()));
    answers.unwrap()[0].tokens.clone()
}

#[test]
fn files_of_earlier_releases_answer_as_they_did() {
    let mut seen = BTreeSet::new();
    for folder in releases() {
        let text = std::fs::read_to_string(folder.join("answers.json")).unwrap();
        let expected: BTreeMap<String, Vec<u32>> = serde_json::from_str(&text).unwrap();
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let files: BTreeSet<_> =
            files.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".palm")).collect();
        assert!(files.iter().eq(expected.keys()), "{}", folder.display());
        for (name, tokens) in &expected {
            let path = folder.join(name);
            let file = PalmFile::open(&path).unwrap();
            assert_eq!(file.verify(|_| {}).len(), 0, "{} is damaged", path.display());
            seen.extend(file.tensors().iter().map(|tensor| tensor.storage.name()));
            assert_eq!(&answer(&path), tokens, "{}", path.display());
        }
    }
    assert_eq!(seen, BTreeSet::from(ALL_STORAGES));
}

#[test]
fn there_are_files_of_the_version_that_is_written() {
    let has = |folder: &PathBuf| {
        let mut files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let head = |path: PathBuf| std::fs::read(path).unwrap()[8..12].to_owned();
        let any = files.find(|path| path.extension().is_some_and(|ending| ending == "palm"));
        any.is_some_and(|path| head(path) == VERSION.to_le_bytes())
    };
    assert!(releases().iter().any(has), "write them: see the top of this file");
}

/// The models: both generations, every format, matrices below and above the inputs of which chunks are longer, and a
/// head of its own.
fn models() -> Vec<(&'static str, Config, Recipe)> {
    let of = |generation: Generation, intermediate| {
        let gemma2 = generation == Generation::Gemma2;
        let mut config = preset(if gemma2 { "tiny2" } else { "tiny" }).unwrap();
        let (vision, text) = (&mut config.vision, &mut config.text);
        (vision.hidden, vision.heads, vision.intermediate, vision.layers) = (12, 2, 17, 1);
        (vision.image_size, vision.patch_size) = (8, 4);
        (text.hidden, text.intermediate, text.layers) = (20, intermediate, 2);
        (text.heads, text.kv_heads, text.head_dim) = (2, 1, 8);
        text.query_scalar = 8.0;
        text.vocab = vocabulary().pieces.len();
        text.windows = vec![gemma2.then_some(3), None];
        config.tokens.image = vocabulary().pieces.len() as u32 - 1;
        config.check().unwrap_or_else(|(key, what)| panic!("{key} {what}"));
        config
    };
    use Generation::{Gemma1, Gemma2};
    use WeightFormat::{F16, F32, Int4, Int8};
    let mut own_head = of(Gemma1, 33);
    own_head.text.own_head = true;
    let mixed = Recipe { text: Int4, ..uniform(Int8) };
    vec![
        ("gemma1-f32", of(Gemma1, 33), uniform(F32)),
        ("gemma1-int8", of(Gemma1, 530), uniform(Int8)),
        ("gemma1-own-head-f16", own_head, uniform(F16)),
        ("gemma2-int4", of(Gemma2, 530), uniform(Int4)),
        ("gemma2-int8-int4", of(Gemma2, 33), mixed),
    ]
}

fn vocabulary() -> Vocabulary {
    let special = AddedToken { special: true, normalized: false, strips_left: false, strips_right: false };
    let pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "\u{2581}", "\n", "a", "b", "c", "d", "e", "ab", "cd"];
    let mut pieces: Vec<String> = pieces.map(String::from).into();
    // More than one stripe of the head.
    pieces.extend((0..23).map(|n| format!("w{n}")));
    pieces.push("<image>".to_owned());
    let image = pieces.len() as u32 - 1;
    Vocabulary {
        pieces,
        added: [(0, special), (image, special)].into(),
        unk_id: 3,
        fuse_unk: true,
        ..Vocabulary::default()
    }
}

#[test]
#[ignore = "writes the files of this release"]
fn write_files_of_this_release() {
    let folder = data().join("format").join(env!("CARGO_PKG_VERSION"));
    assert!(
        !folder.join("answers.json").exists(),
        "{} is there: it stays as it was released",
        folder.display()
    );
    std::fs::create_dir_all(&folder).unwrap();
    let mut answers = BTreeMap::new();
    for (name, config, recipe) in models() {
        let path = folder.join(name).with_extension("palm");
        let options = Options { recipe, threads: Some(1), ..Options::default() };
        let table = vocabulary().to_table().unwrap();
        convert_source(&Synthetic::new(config.clone(), 1), &config, table, &path, &options, &()).unwrap();
        let tokens = answer(&path);
        let different = tokens.iter().collect::<BTreeSet<_>>().len();
        assert!(different > 2, "{name}: an answer of {different} tokens shows little: {tokens:?}");
        answers.insert(path.file_name().unwrap().to_string_lossy().into_owned(), tokens);
    }
    let text = serde_json::to_string_pretty(&answers).unwrap();
    std::fs::write(folder.join("answers.json"), text + "\n").unwrap();
}
