//! What users ask, and what models answer.

use std::sync::{Arc, OnceLock};

use palmtop::tasks::{BoxRounding, Detections, Label, Language, Line, MASK_SIDE, Mask, Task};
use palmtop::tokenizer::EncodeScratch;
use palmtop::{Answer, Grammar, Model};
use palmtop_convert::convert_source;
use palmtop_convert::synthetic::{Synthetic, preset};
use palmtop_present::Found;
use palmtop_present::plain::{Indented, objects_table, printable};

use super::{Numbers, files};

/// A model whose tokenizer is that of the demo.
pub(super) fn model() -> &'static Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("tiny.palm");
        let mut config = preset("tiny").expect("a preset");
        (config.vision.layers, config.text.layers) = (1, 1);
        config.text.windows.truncate(1);
        let tokenizer = include_bytes!("../../../demo/tokenizer/tokenizer.json");
        let table = palmtop_convert::tokenizer::json::parse(tokenizer).unwrap().to_table().unwrap();
        let source = Synthetic::new(config.clone(), 1);
        convert_source(&source, &config, table, &path, &Default::default(), &()).expect("a tiny model");
        Model::read(&path).expect("a tiny model")
    })
}

/// Questions, labels and choices, a line each, and numbers of tokens behind a byte of zero.
pub fn prompts(bytes: &[u8]) {
    let [text, numbers] = files::<2>(bytes);
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.split('\n').collect();
    let whole: &str = &text;
    let _ = (whole.parse::<Label>(), whole.parse::<Language>(), whole.parse::<Line>());
    let tasks = [
        Task::caption(whole),
        Task::cap(lines[0]),
        Task::answer("en", whole),
        Task::question(lines[0], whole),
        Task::detect(&lines),
        Task::segment(lines.iter().take(2)),
    ];
    let tokenizer = model().tokenizer();
    for prompt in tasks.into_iter().flatten().map(|task| task.prompt()).chain([text.to_string()]) {
        let mut scratch = EncodeScratch::with_capacity(prompt.len());
        let (mut ids, mut spelled) = (Vec::new(), String::new());
        tokenizer.encode(&prompt, &mut scratch, &mut ids).expect("room for the prompt");
        assert!(ids.len() <= prompt.len());
        tokenizer.decode(&ids, false, &mut spelled).expect("ids of its own");
    }
    let _ = Grammar::choices(model(), &lines);
    let mut numbers = Numbers(numbers);
    let mut tokens = || (0..numbers.byte() % 8).map(|_| numbers.number() as u32).collect::<Vec<u32>>();
    let lists = [tokens(), tokens(), tokens()];
    let _ = Grammar::tokens(model(), lists[0].iter().copied());
    let _ = Grammar::exactly(model(), lists[1].iter().copied());
    let _ = Grammar::sequences(model(), &lists);
}

/// The text of an answer behind some numbers: the picture's size, and where tokens end.
pub fn results(bytes: &[u8]) {
    let mut numbers = Numbers(bytes);
    let (width, height) = (numbers.number() as u32, numbers.number() as u32);
    let ends: Vec<usize> = (0..numbers.byte()).map(|_| numbers.number()).collect();
    let text = String::from_utf8_lossy(numbers.0);
    let mut read = Detections::read_tokens(&text, &ends, width, height);
    read.set_scores(&vec![0.5; ends.len()]);
    let pieces: String = read.objects.iter().map(|object| object.text_before.as_str()).collect();
    assert!(pieces.len() + read.text_after.len() <= read.text.len());
    for object in &read.objects {
        assert!(text.get(object.text_span.clone()).is_some_and(|span| span.contains(&object.label)));
        if width <= 1024 && height <= 1024 {
            let logits = std::array::from_fn::<f32, { MASK_SIDE * MASK_SIDE }, _>(|i| (i % 7) as f32 - 3.0);
            let mask = Mask::paste(&logits, object.locations, width, height, BoxRounding::default());
            if let Ok(mask) = mask {
                assert_eq!(mask.rows().flatten().filter(|&set| set).count() as u64, mask.area());
                let _ = mask.rle().compressed();
            }
        }
    }
    let found: Vec<Found> = read.objects.into_iter().map(Found::from).collect();
    let table = objects_table(&found, &Answer::default(), 2);
    let mut indented = Indented::new(2);
    for shown in [table, printable(&text), indented.push(&text)] {
        assert!(!shown.contains(['\u{1b}', '\u{7f}', '\u{9b}', '\0']), "a terminal would obey it");
    }
}
