//! The plain pass against transformers.

use std::path::Path;

use palmtop_convert::{Checkpoint, read_config};
use palmtop_tests::{CHECKPOINTS, CHECKPOINTS_SEVERAL, Vector, checkpoint, several, vectors};

use crate::forward::Plain;
use crate::{Worst, ids};

/// The pictures of a vector as the encoder takes them, `[3, side, side]` each.
fn pictures(vector: &Vector) -> Vec<Vec<f32>> {
    if let Some(pixels) = vector.tensors.get("pixel_values") {
        return vec![pixels.values.iter().map(|&v| v as f32).collect()];
    }
    let resized = &vector.tensors["resized"];
    let [_, height, width, 3] = resized.shape[..] else { panic!("{} is not of several", vector.name) };
    let normalise = |byte: f64| ((byte / 255.0 - 0.5) / 0.5) as f32;
    let planes = |rgb: &[f64]| {
        let plane = |colour| rgb.iter().skip(colour).step_by(3).map(|&byte| normalise(byte));
        (0..3).flat_map(plane).collect()
    };
    resized.values.chunks(height * width * 3).map(planes).collect()
}

/// Compares all values of `docs/trace.md` that the vectors have.
fn compare(folder: &Path, vectors: &[Vector]) -> Worst {
    let config = read_config(folder).expect("a readable configuration");
    let weights = Checkpoint::open(folder).expect("a readable checkpoint");
    let plain = Plain::new(&config, &weights);
    let mut worst = Worst::default();
    for vector in vectors {
        let tokens = ids(&vector.tensors, "gen.tokens");
        let prompt = ids(&vector.tensors, "input_ids");
        let (answer, trace) = plain.answer(&pictures(vector), &prompt, tokens.len());
        assert_eq!(answer, tokens, "{}", vector.name);
        let names = vector.tensors.keys();
        // What is read from the vector, or is not a value of the graph.
        let others = ["pixel_values", "resized", "input_ids", "token_type_ids", "gen.tokens", "gen.margin"];
        for name in names.filter(|name| !others.contains(&name.as_str())) {
            worst.compare(&vector.name, name, &trace, &vector.tensors[name], 1e-5);
        }
    }
    worst
}

#[test]
fn the_plain_pass_computes_what_transformers_computes() {
    for name in CHECKPOINTS {
        let folder = checkpoint(name);
        let worst = compare(folder.path(), &vectors(name));
        println!("{name}: {} values, the farthest off by {:.1e}: {}", worst.values, worst.error, worst.name);
        assert!(worst.values > 20, "{name}");
    }
}

#[test]
fn the_plain_pass_takes_several_pictures_as_transformers_does() {
    for name in CHECKPOINTS_SEVERAL {
        let (folder, vectors) = (checkpoint(name), several(name));
        assert!(vectors.iter().all(|v| v.images.len() > 1 && pictures(v).len() == v.images.len()), "{name}");
        let worst = compare(folder.path(), &vectors);
        println!("{name}: {} values, the farthest off by {:.1e}: {}", worst.values, worst.error, worst.name);
        assert!(worst.values > 7, "{name}");
    }
}

#[test]
fn pictures_in_another_order_are_another_prompt() {
    let folder = checkpoint("tiny1");
    let config = read_config(folder.path()).expect("a readable configuration");
    let weights = Checkpoint::open(folder.path()).expect("a readable checkpoint");
    let plain = Plain::new(&config, &weights);
    for vector in several("tiny1") {
        let prompt = ids(&vector.tensors, "input_ids");
        let mut pictures = pictures(&vector);
        let (answer, _) = plain.answer(&pictures, &prompt, 4);
        pictures.swap(0, 1);
        let (swapped, trace) = plain.answer(&pictures, &prompt, 4);
        assert_ne!(answer, swapped, "{}", vector.name);
        // The same rows in another order stand where the pictures do: nothing but their places tells them apart.
        let rows = &trace["image_features"];
        let n = config.vision.patches();
        let first = vector.tensors["text.embed"].values[..n * config.text.hidden].iter().map(|&v| v as f32);
        let error =
            first.zip(rows[n..2 * n].iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-3, "{}: {error}", vector.name);
    }
}
