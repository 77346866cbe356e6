//! Saves pictures with boxes drawn, and masks, under names that overwrite no source.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use palmtop::image::RgbImage;
use palmtop::tasks::Mask;
use palmtop_present::Found;
use palmtop_present::encode::{self, EncodeError, PictureFormat};
use palmtop_present::overlay::{self, Item, Style};
use palmtop_present::sources::Source;

use crate::errors::UsageError;
use crate::files::Replacement;
use crate::output::{Console, shown};

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
        replace(&path, |file| encode::mask(mask, file))?;
        Ok(Some(path.to_string_lossy().into_owned()))
    }

    /// Draws the objects into the picture and saves it, if pictures are to be saved.
    pub fn save_picture(
        &self,
        mut picture: RgbImage,
        found: &[Found],
        console: Console,
    ) -> anyhow::Result<()> {
        let path = match &self.pictures {
            None => return Ok(()),
            Some(Target::File(path)) => path.clone(),
            Some(Target::Folder(folder)) => folder.join(format!("{}.{}.png", self.name, self.task)),
        };
        let items: Vec<Item<'_>> = found.iter().map(Item::from).collect();
        overlay::draw(&mut (&mut picture).into(), &items, &Style::default());
        write_picture(&picture, &path)?;
        console.note(format_args!("saved {}", shown(&path)));
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

/// Writes a picture as PNG or JPEG, by the extension of `path`. A file there is replaced once the new one is whole.
fn write_picture(picture: &RgbImage, path: &Path) -> anyhow::Result<()> {
    let Some(format) = PictureFormat::of_name(path) else {
        bail!("{}: pictures are written as .png, .jpg or .jpeg; choose such a name", path.display());
    };
    replace(path, |file| encode::picture(picture, format, file))
}

/// Writes a temporary file beside `path`, then gives it that name.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), EncodeError>,
) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let replacement = Replacement::new(path)?;
    let mut buffered = BufWriter::new(replacement.file());
    write(&mut buffered).with_context(context)?;
    buffered.flush().with_context(context)?;
    drop(buffered);
    replacement.finish()
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

    fn files_in(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn pictures_are_written_by_extension_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let data: Vec<u8> = (0..20 * 10 * 3).map(|i| (i * 7 % 256) as u8).collect();
        let picture = RgbImage::new(20, 10, data.clone()).unwrap();
        for name in ["a.png", "a.PNG", "a.jpg", "a.jpeg"] {
            let path = folder.path().join(name);
            fs::write(&path, "old").unwrap();
            write_picture(&picture, &path).unwrap();
            let read = image::ImageReader::open(&path).unwrap().with_guessed_format().unwrap();
            let is_jpeg = name.contains("jp");
            let format = if is_jpeg { image::ImageFormat::Jpeg } else { image::ImageFormat::Png };
            assert_eq!(read.format(), Some(format));
            let read = read.decode().unwrap().into_rgb8();
            assert_eq!(read.dimensions(), (20, 10));
            assert!(is_jpeg || *read.as_raw() == data);
        }
        assert_eq!(files_in(folder.path()), 4);
    }

    #[test]
    fn other_names_and_places_are_refused_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let picture = RgbImage::new(1, 1, vec![0; 3]).unwrap();
        for name in ["a", "a.gif", ".png"] {
            let error = write_picture(&picture, &folder.path().join(name)).unwrap_err();
            assert!(error.to_string().contains("choose such a name"), "{error}");
        }
        let error = write_picture(&picture, &folder.path().join("none/a.png")).unwrap_err();
        assert!(error.to_string().starts_with("cannot write"), "{error}");
        // JPEG has no such width; the half-written file goes away.
        let wide = RgbImage::new(65536, 1, vec![0; 3 * 65536]).unwrap();
        assert!(write_picture(&wide, &folder.path().join("a.jpg")).is_err());
        assert_eq!(files_in(folder.path()), 0);
    }
}
