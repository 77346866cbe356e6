//! Checkpoints and what lies beside them.

use std::path::Path;
use std::sync::OnceLock;

use palmtop::model::config::Config;
use palmtop_convert::npz::Npz;
use palmtop_convert::synthetic::preset;
use palmtop_convert::tokenizer::Vocabulary;
use palmtop_convert::{
    Adapter, Checkpoint, Extra, JaxCheckpoint, WeightSource, check_adapter, examples, needed, read_config,
};

use super::{files, in_folder, write};

/// `model.safetensors`, with `model.safetensors.index.json` before it if two bytes say how long that is.
pub fn safetensors(bytes: &[u8]) {
    let Some((&[low, high], rest)) = bytes.split_first_chunk() else { return };
    let (index, shard) = rest.split_at(rest.len().min(u16::from_le_bytes([low, high]).into()));
    in_folder(|folder| {
        if index.is_empty() {
            write(folder, "model.safetensors", shard);
        } else {
            write(folder, "a.safetensors", shard);
            write(folder, "model.safetensors.index.json", index);
        }
        let Ok(mut checkpoint) = Checkpoint::open(folder) else { return };
        for name in ["tiny", "tiny2"] {
            let config = preset(name).expect("a preset");
            if checkpoint.check(&needed(&config), Extra::Ignore).is_ok() {
                read_all(&checkpoint, &config);
            }
        }
        let _ = checkpoint.has_own_head();
    });
}

/// Any archive of arrays.
pub fn npz(bytes: &[u8]) {
    let Ok(npz) = Npz::parse(bytes) else { return };
    for name in npz.names().collect::<Vec<_>>() {
        if let Ok(array) = npz.read_f32(name) {
            assert_eq!(array.data.len(), array.shape.iter().product::<usize>());
        }
    }
}

/// A JAX checkpoint.
pub fn jax(bytes: &[u8]) {
    let pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "\u{2581}", "\n", "a", "b", "<image>"];
    let vocabulary = Vocabulary { pieces: pieces.map(str::to_owned).to_vec(), ..Vocabulary::default() };
    in_folder(|folder| {
        let file = write(folder, "jax.npz", bytes);
        let Ok(checkpoint) = JaxCheckpoint::open(&file, &vocabulary) else { return };
        let config = checkpoint.config();
        config.check().expect("a checked architecture");
        let _ = checkpoint.check_sums(&());
        read_all(&checkpoint, config);
    });
}

/// All that a conversion would read.
fn read_all(source: &dyn WeightSource, config: &Config) {
    for (name, shape) in needed(config) {
        let mut out = vec![0.0; shape.iter().product()];
        if source.read(&name, 0, &mut out).is_ok() {
            // The same in parts, from somewhere in the middle.
            let start = out.len() / 3;
            let mut part = vec![0.0; out.len() / 2];
            source.read(&name, start, &mut part).expect("values that could be read");
            assert!(part.iter().zip(&out[start..]).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}

/// `config.json` and the files beside it, with bytes of zero between them.
pub fn config(bytes: &[u8]) {
    const NAMES: [&str; 4] =
        ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"];
    in_folder(|folder| {
        for (name, bytes) in NAMES.into_iter().zip(files::<4>(bytes)) {
            if !bytes.is_empty() {
                write(folder, name, bytes);
            }
        }
        if let Ok(config) = read_config(folder) {
            config.check().expect("a checked architecture");
            let mut metadata = palmtop::format::Metadata::default();
            config.to_metadata(&mut metadata);
            assert_eq!(Config::from_metadata(&metadata).expect("what a conversion would write"), config);
        }
    });
}

/// Lines of examples.
pub fn example_lines(bytes: &[u8]) {
    in_folder(|folder| {
        let _ = examples::read_examples(&write(folder, "examples.jsonl", bytes));
    });
}

/// `adapter_config.json`, a byte of zero and `adapter_model.safetensors`, for the base that the seeds are of.
pub fn adapter(bytes: &[u8]) {
    static BASE: OnceLock<Config> = OnceLock::new();
    let [config, weights] = files::<2>(bytes);
    in_folder(|folder| {
        let base = BASE.get_or_init(|| {
            write(folder, "config.json", include_bytes!("../../../tests/data/checkpoints/tiny1/config.json"));
            let base = read_config(folder).expect("a reference checkpoint");
            std::fs::remove_file(Path::new(folder).join("config.json")).expect("our file");
            base
        });
        write(folder, "adapter_config.json", config);
        write(folder, "adapter_model.safetensors", weights);
        let _ = check_adapter(&Adapter::new(folder), base);
    });
}
