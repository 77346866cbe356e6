//! The items of an evaluation: prompts and expected answers.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use palmtop_convert::examples::{TaskKind, read_examples};

use super::boxes::GroundTruth;
use super::coco;
use crate::errors::WithHint;
use crate::output::Console;

/// A prompt about a picture, or several.
pub struct Item {
    /// The line of the data, or the number of the picture in a COCO file; both for people.
    pub line: usize,
    /// The pictures, as the data names them.
    pub image: String,
    pub prompt: String,
    pub task: TaskKind,
    pub expected: Expected,
    /// Where the picture of the right mask is.
    pub mask: Option<PathBuf>,
}

/// What would be right.
pub enum Expected {
    /// This text, with the boxes and masks that it speaks of.
    Text(String),
    /// These boxes.
    Boxes(Vec<GroundTruth>),
    /// The data does not say.
    Unknown,
}

/// The items about one picture, or about the same ones together.
pub struct Picture {
    pub paths: Vec<PathBuf>,
    /// Columns and rows of the picture that the expected boxes are on, if the data says it.
    pub annotated_size: Option<(u32, u32)>,
    pub items: Vec<Item>,
}

/// Where items come from.
pub struct Source<'a> {
    /// Lines of JSON, or a COCO file.
    pub data: &'a Path,
    /// The folder of a COCO file's pictures.
    pub images: Option<&'a Path>,
    /// Ask for all labels of a COCO file and not only for those that a picture has.
    pub all_labels: bool,
    /// So many items at most.
    pub limit: usize,
}

/// Reads what is to be answered, the items of a picture together, pictures in the order of the data.
pub fn read(source: &Source<'_>, console: Console) -> anyhow::Result<Vec<Picture>> {
    let is_coco = looks_like_coco(source.data)
        .with_context(|| format!("cannot read data file {}", source.data.display()))?;
    if is_coco {
        return coco::read(source, console);
    }
    if source.images.is_some() || source.all_labels {
        let error = anyhow!("{} is not a COCO file", source.data.display());
        return Err(error).hint("--images and --all-labels are for COCO's JSON of annotations");
    }
    let mut pictures = Vec::new();
    let mut places: HashMap<Vec<PathBuf>, usize> = HashMap::new();
    let examples = read_examples(source.data).context("cannot read the data")?;
    for example in examples.into_iter().take(source.limit) {
        let place = *places.entry(example.paths.clone()).or_insert_with(|| {
            pictures.push(Picture { paths: example.paths, annotated_size: None, items: Vec::new() });
            pictures.len() - 1
        });
        pictures[place].items.push(Item {
            line: example.line,
            image: example.image,
            prompt: example.prompt,
            task: example.task,
            expected: example.expected.map_or(Expected::Unknown, Expected::Text),
            mask: example.mask,
        });
    }
    Ok(pictures)
}

/// A COCO file is one object with a list of annotations; as JSON may be written in any order, all of it may have to be
/// looked through.
fn looks_like_coco(path: &Path) -> anyhow::Result<bool> {
    if path.is_dir() {
        bail!("it is a folder");
    }
    let mut start = Vec::new();
    File::open(path)?.take(1 << 16).read_to_end(&mut start)?;
    let start = String::from_utf8_lossy(&start);
    // A line that is a whole object is an example, whatever follows it; a COCO file is one object altogether.
    let first = start.trim_start_matches('\u{feff}').lines().find(|l| !l.trim().is_empty()).unwrap_or("");
    let whole = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(first);
    Ok(match whole {
        Ok(object) => object.contains_key("annotations") && object.contains_key("images"),
        // Cut off by the end of the start, or by the end of a line.
        Err(error) => error.is_eof() && first.trim_start().starts_with('{') && !first.contains("\"prompt\""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Console = Console { quiet: true, verbose: false };

    fn read_text(text: &str, all_labels: bool) -> Result<Vec<Picture>, String> {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data.json");
        std::fs::write(&data, text).unwrap();
        let images = all_labels.then(|| Path::new("/pictures"));
        read(&Source { data: &data, images, all_labels, limit: 3 }, QUIET).map_err(|e| format!("{e:#}"))
    }

    const COCO: &str = r#"{
        "info": {"year": 2026},
        "images": [{"id": 7, "file_name": "a.jpg", "width": 640, "height": 480}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "traffic light"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30.5, 40], "iscrowd": 1},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 5, 5], "segmentation": [[1, 2]]}
        ]}"#;

    #[test]
    fn coco_files_become_prompts_for_the_labels_of_each_picture() {
        let pictures = read_text(COCO, false).unwrap();
        let [picture] = &pictures[..] else { panic!("{} pictures", pictures.len()) };
        assert_eq!(picture.items[0].prompt, "detect cat ; traffic light");
        let Expected::Boxes(truths) = &picture.items[0].expected else { panic!("boxes") };
        assert!(truths[0].crowd && !truths[1].crowd && truths[0].rect.width == 30.5);
        assert_eq!((truths[0].rect.y, truths[0].area, truths[1].area), (20.0, 1220.0, 25.0));
        assert_eq!((picture.annotated_size, truths[0].rect.height), (Some((640, 480)), 40.0));
        // The same in one line.
        assert_eq!(read_text(&COCO.replace('\n', " "), false).unwrap().len(), 1);
    }

    #[test]
    fn groups_are_told_by_numbers_or_truth_values() {
        for (written, crowd) in [("1", true), ("0", false), ("true", true), ("false", false), ("null", false)]
        {
            let text = COCO.replace("\"iscrowd\": 1", &format!("\"iscrowd\": {written}, \"area\": 77.5"));
            let pictures = read_text(&text, false).unwrap();
            let Expected::Boxes(truths) = &pictures[0].items[0].expected else { panic!("boxes") };
            assert_eq!((truths[0].crowd, truths[0].area), (crowd, 77.5), "{written}");
        }
        for written in ["2", "-1", "\"yes\"", "0.5", "[]"] {
            let text = COCO.replace("\"iscrowd\": 1", &format!("\"iscrowd\": {written}"));
            let error = read_text(&text, false).err().unwrap();
            assert!(error.contains("0, 1, true or false"), "{error}");
        }
    }

    #[test]
    fn all_labels_are_asked_for_if_that_is_wanted() {
        let pictures = read_text(COCO, true).unwrap();
        assert_eq!(pictures.len(), 2);
        assert_eq!(pictures[1].items[0].prompt, "detect cat ; dog ; traffic light");
        assert_eq!(pictures[1].paths, [Path::new("/pictures/b.jpg")]);
        assert_eq!(pictures[1].annotated_size, None);
    }

    #[test]
    fn items_of_a_picture_stand_together_and_the_limit_holds() {
        let line = |image, prompt| format!("{{\"image\":\"{image}\",\"prompt\":\"{prompt}\"}}\n");
        let text = line("a", "ocr") + &line("b", "ocr") + &line("a", "caption en") + &line("c", "ocr");
        let pictures = read_text(&text, false).unwrap();
        let items = |p: &Picture| p.items.iter().map(|i| i.line).collect::<Vec<_>>();
        assert_eq!(pictures.iter().map(items).collect::<Vec<_>>(), [vec![1, 3], vec![2]]);
        assert!(read_text(&text, true).err().unwrap().contains("is not a COCO file"));
    }

    #[test]
    fn files_that_do_not_fit_together_are_refused() {
        let without = |from: &str, to: &str| {
            assert!(COCO.contains(from));
            read_text(&COCO.replace(from, to), false).err().unwrap()
        };
        for (from, to, says) in [
            (
                "\"image_id\": 7, \"category_id\": 2",
                "\"image_id\": 8, \"category_id\": 2",
                "annotation 1 is of image 8",
            ),
            ("\"category_id\": 2", "\"category_id\": 4", "category 4"),
            ("\"id\": 9", "\"id\": 7", "image 7 appears twice"),
            ("\"id\": 3, \"name\"", "\"id\": 2, \"name\"", "category 2 appears twice"),
            ("\"dog\"", "\"a;b\"", "which no prompt can ask for"),
            ("[0, 0, 5, 5]", "[0, 0, -5, 5]", "annotation 1 has the box"),
            ("[[1, 2]]", "[[1, 2]], \"area\": -3", "annotation 1 has the area"),
            ("\"height\": 480", "\"height\": 0", "image 7 has 640 × 0 pixels"),
            ("[0, 0, 5, 5]", "[0, 0, 5]", "is neither lines of JSON"),
            ("\"categories\"", "\"kinds\"", "missing field `categories`"),
        ] {
            let got = without(from, to);
            assert!(got.contains(says), "{got:?} does not say {says:?}");
        }
        let empty = r#"{"images": [], "annotations": [], "categories": []}"#;
        assert!(read_text(empty, false).err().unwrap().contains("no picture with annotations"));
        assert!(read_text("", false).err().unwrap().contains("has no examples"));
        assert!(read_text("hello", false).err().unwrap().contains("line 1: is not an example"));
        assert!(read_text("{\"image\": \"a\",", false).is_err());
    }
}
