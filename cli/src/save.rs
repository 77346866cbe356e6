//! Saves pictures with boxes drawn, and masks, under names that overwrite no source.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use palmtop::image::RgbImage;
use palmtop::tasks::Mask;

use crate::errors::UsageError;
use crate::output::{Found, Voice, shown};
use crate::overlay::{self, Item, Style};
use crate::sources::Source;

/// Saves what the user wants saved.
pub struct Saver {
    task: &'static str,
    pictures: Option<Target>,
    masks: Option<PathBuf>,
    /// Names given to pictures so far.
    taken: HashSet<String>,
    /// The name of the picture under way, unique among all.
    name: String,
    masks_saved: usize,
}

enum Target {
    File(PathBuf),
    Folder(PathBuf),
}

impl Saver {
    /// Checks where things are to be saved, and makes the folders: before any work is done for nothing.
    pub fn new(
        task: &'static str,
        pictures: Option<&Path>,
        masks: Option<&Path>,
        sources: &[Source],
    ) -> anyhow::Result<Self> {
        let pictures = pictures.map(|path| target(path, sources)).transpose()?;
        if let Some(Target::Folder(folder)) = &pictures {
            make_folder(folder)?;
        }
        if let Some(folder) = masks {
            make_folder(folder)?;
        }
        Ok(Self {
            task,
            pictures,
            masks: masks.map(Path::to_owned),
            taken: HashSet::new(),
            name: String::new(),
            masks_saved: 0,
        })
    }

    /// What is saved from now on belongs to this picture.
    pub fn begin_picture(&mut self, source: &Source) {
        let stem = source.stem();
        let mut name = stem.clone();
        let mut number = 1;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = format!("{stem}-{number}");
        }
        self.name = name;
        self.masks_saved = 0;
    }

    /// Saves a mask, if masks are to be saved; gives the file's name.
    pub fn save_mask(&mut self, mask: &Mask, label: &str) -> anyhow::Result<Option<String>> {
        let Some(folder) = &self.masks else { return Ok(None) };
        self.masks_saved += 1;
        let path = folder.join(format!("{}.{}.{}.png", self.name, self.masks_saved, file_name_part(label)));
        overlay::save_mask(mask, &path)?;
        Ok(Some(path.to_string_lossy().into_owned()))
    }

    /// Draws the objects into the picture and saves it, if pictures are to be saved.
    pub fn save_picture(&self, picture: RgbImage, found: &[Found], voice: Voice) -> anyhow::Result<()> {
        let path = match &self.pictures {
            None => return Ok(()),
            Some(Target::File(path)) => path.clone(),
            Some(Target::Folder(folder)) => folder.join(format!("{}.{}.png", self.name, self.task)),
        };
        let (width, height) = (picture.width(), picture.height());
        let mut canvas = image::RgbImage::from_raw(width, height, picture.into_data())
            .context("a decoded picture has fewer bytes than its size says")?;
        let items: Vec<Item> = found
            .iter()
            .map(|found| Item {
                label: &found.detection.label,
                score: found.detection.score,
                bounding_box: found.detection.bounding_box,
                mask: found.mask.as_ref(),
            })
            .collect();
        overlay::draw(&mut canvas, &items, &Style::default());
        overlay::save_picture(&canvas, &path)?;
        voice.note(format_args!("saved {}", shown(&path)));
        Ok(())
    }
}

/// A file if the name ends as a picture's, else a folder.
fn target(path: &Path, sources: &[Source]) -> anyhow::Result<Target> {
    let usage = |what: String| Err(UsageError(what).into());
    let ends_as_folder = path.to_string_lossy().ends_with(std::path::is_separator);
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let Some(extension) = extension.filter(|_| !ends_as_folder && !path.is_dir()) else {
        return Ok(Target::Folder(path.to_owned()));
    };
    if !["png", "jpg", "jpeg"].contains(&extension.as_str()) {
        return usage(format!(
            "--save {}: pictures are saved as .png or .jpg; to name a folder, end it with a slash",
            path.display()
        ));
    }
    if sources.len() > 1 {
        return usage(format!(
            "--save {}: there are {} pictures, and one file; name a folder instead",
            path.display(),
            sources.len()
        ));
    }
    if let (Some(Source::File(source)), Ok(target)) = (sources.first(), path.canonicalize())
        && source.canonicalize().is_ok_and(|source| source == target)
    {
        return usage(format!(
            "--save {}: would overwrite the picture itself; choose another name",
            path.display()
        ));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return usage(format!(
            "--save {}: there is no folder {}; create it first",
            path.display(),
            folder.display()
        ));
    }
    Ok(Target::File(path.to_owned()))
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create folder {}", folder.display()))
}

/// A label as part of a file name on any system.
fn file_name_part(label: &str) -> String {
    const LENGTH_MAX: usize = 40;
    let part: String =
        label.chars().take(LENGTH_MAX).map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    if part.is_empty() { "object".into() } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(paths: &[&Path]) -> Vec<Source> {
        paths.iter().map(|p| Source::File(p.to_path_buf())).collect()
    }

    #[test]
    fn the_name_says_whether_it_is_a_file_or_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a.png"), b"x").unwrap();
        fs::create_dir(at("dir.png")).unwrap();
        let (a, b) = (at("a.png"), at("b.png"));
        let one = sources(&[&a]);
        assert!(matches!(target(&at("out.jpg"), &one), Ok(Target::File(_))));
        assert!(matches!(target(&at("out"), &one), Ok(Target::Folder(_))));
        assert!(matches!(target(&at("dir.png"), &one), Ok(Target::Folder(_))));
        assert!(matches!(target(&at("new.png/"), &one), Ok(Target::Folder(_))));
        for (name, sources) in [
            ("out.png", sources(&[&a, &b])),
            ("a.png", one.clone()),
            ("dir.png/../a.png", one.clone()),
            ("out.tiff", one.clone()),
            ("missing/out.png", one),
        ] {
            assert!(target(&at(name), &sources).is_err_and(|e| e.is::<UsageError>()), "{name}");
        }
    }

    #[test]
    fn pictures_of_one_name_are_told_apart() {
        let mut saver = Saver::new("detect", None, None, &[]).unwrap();
        let mut name = |path: &str| {
            saver.begin_picture(&Source::File(path.into()));
            saver.name.clone()
        };
        assert_eq!([name("a/cat.png"), name("b/cat.png"), name("cat.jpg")], ["cat", "cat-2", "cat-3"]);
    }

    #[test]
    fn labels_become_plain_file_names() {
        assert_eq!(file_name_part("../traffic light"), "---traffic-light");
        assert_eq!(file_name_part(""), "object");
        assert_eq!(file_name_part("größe猫"), "größe猫");
    }
}
