//! Reads COCO's file of annotations: a prompt for each picture, and the boxes that are there.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, bail};
use palmtop_convert::examples::TaskKind;
use serde::{Deserialize, Deserializer};

use super::boxes::{GroundTruth, Rect};
use super::items::{Expected, Item, Picture, Source};
use crate::errors::WithHint;
use crate::output::Console;

/// COCO's file of annotations, as far as it is needed.
#[derive(Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    annotations: Vec<CocoBox>,
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
    width: Option<u32>,
    height: Option<u32>,
}

#[derive(Deserialize)]
struct CocoBox {
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    /// Of the object, which may fill only some of its box.
    area: Option<f64>,
    #[serde(default, deserialize_with = "crowd")]
    iscrowd: bool,
}

/// COCO writes 0 or 1, and tools that export to it also truth values.
fn crowd<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => Ok(false),
        serde_json::Value::Bool(crowd) => Ok(crowd),
        value if value.as_u64() == Some(0) => Ok(false),
        value if value.as_u64() == Some(1) => Ok(true),
        value => Err(serde::de::Error::custom(format!("iscrowd is {value}, not 0, 1, true or false"))),
    }
}

#[derive(Deserialize)]
struct CocoCategory {
    id: u64,
    name: String,
}

/// COCO's own validation set has 20 MB, its training set 450 MB.
const COCO_BYTES_MAX: u64 = 2 << 30;

/// The prompts of a file, one for each picture that is asked about.
pub fn read(source: &Source<'_>, console: Console) -> anyhow::Result<Vec<Picture>> {
    let shown = source.data.display();
    let file = File::open(source.data).with_context(|| format!("cannot read {shown}"))?;
    if file.metadata()?.len() > COCO_BYTES_MAX {
        bail!("{shown} is larger than {} GiB, so it cannot be a COCO file", COCO_BYTES_MAX >> 30);
    }
    let coco: Coco = serde_json::from_reader(BufReader::new(file))
        .with_context(|| {
            format!("{shown} is neither lines of JSON with 'image' and 'prompt' nor a COCO file")
        })
        .hint("a COCO file is one object with 'images', 'annotations' and 'categories'")?;
    let mut names: HashMap<u64, &str> = HashMap::new();
    for category in &coco.categories {
        let name = category.name.trim();
        if name.is_empty() || name.contains([';', '<', '\n', '\r']) {
            bail!(
                "{shown}: category {} is named {:?}, which no prompt can ask for",
                category.id,
                category.name
            );
        }
        if names.insert(category.id, name).is_some() {
            bail!("{shown}: category {} appears twice", category.id);
        }
    }
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut truths: Vec<Vec<GroundTruth>> = Vec::new();
    for image in &coco.images {
        if places.insert(image.id, truths.len()).is_some() {
            bail!("{shown}: image {} appears twice", image.id);
        }
        if let (Some(width), Some(height)) = (image.width, image.height)
            && (width == 0 || height == 0)
        {
            bail!("{shown}: image {} has {width} × {height} pixels", image.id);
        }
        truths.push(Vec::new());
    }
    for (index, b) in coco.annotations.iter().enumerate() {
        let (Some(&place), Some(&label)) = (places.get(&b.image_id), names.get(&b.category_id)) else {
            let (image, category) = (b.image_id, b.category_id);
            bail!(
                "{shown}: annotation {index} is of image {image} and category {category}: one of them is missing"
            );
        };
        let [x, y, width, height] = b.bbox;
        if !b.bbox.iter().all(|v| v.is_finite()) || width < 0.0 || height < 0.0 {
            bail!(
                "{shown}: annotation {index} has the box {:?}, which is not a valid x, y, width and height",
                b.bbox
            );
        }
        let rect = Rect { x, y, width, height };
        let area = b.area.unwrap_or(rect.area());
        if !(area.is_finite() && area >= 0.0) {
            bail!("{shown}: annotation {index} has the area {area}");
        }
        truths[place].push(GroundTruth { label: label.to_owned(), rect, area, crowd: b.iscrowd });
    }
    let all: BTreeSet<&str> = names.values().copied().collect();
    let folder = source.images.unwrap_or_else(|| source.data.parent().unwrap_or(Path::new("")));
    let mut pictures = Vec::new();
    let mut without = 0;
    for (image, truths) in coco.images.iter().zip(truths) {
        let labels: BTreeSet<&str> = match source.all_labels {
            true => all.clone(),
            false => truths.iter().map(|t| t.label.as_str()).collect(),
        };
        if labels.is_empty() {
            without += 1;
            continue;
        }
        if pictures.len() == source.limit {
            break;
        }
        pictures.push(Picture {
            paths: vec![folder.join(&image.file_name)],
            annotated_size: image.width.zip(image.height),
            items: vec![Item {
                line: image.id as usize,
                image: image.file_name.clone(),
                prompt: format!("detect {}", labels.into_iter().collect::<Vec<_>>().join(" ; ")),
                task: TaskKind::Detect,
                expected: Expected::Boxes(truths),
                mask: None,
            }],
        });
    }
    if without > 0 {
        console.note(format_args!(
            "note: {without} pictures have no annotation and are not asked about; --all-labels does"
        ));
    }
    if pictures.is_empty() {
        bail!("{shown} has no picture with annotations");
    }
    Ok(pictures)
}
