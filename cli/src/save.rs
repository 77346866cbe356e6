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
use crate::files::{Identity, Replacement};
use crate::output::{Console, shown};

/// Saves what the user wants saved.
pub struct Saver {
    task: &'static str,
    pictures: Option<Target>,
    masks: Option<PathBuf>,
    names: Names,
    /// The name of the picture under way, unique among all.
    name: String,
    masks_saved: usize,
}

enum Target {
    File(PathBuf),
    Folder(PathBuf),
}

/// Names for what is made of pictures, all different, also where capitals do not count.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    fn next(&mut self, source: &Source) -> String {
        let stem = source.stem();
        let mut name = stem.clone();
        let mut number = 1;
        while !self.0.insert(name.to_lowercase()) {
            number += 1;
            name = format!("{stem}-{number}");
        }
        name
    }
}

impl Saver {
    /// Checks where things are to be saved, that nothing of it takes the place of a source or of one another, and makes
    /// the folders: before any work is done for nothing.
    pub fn new(
        task: &'static str,
        pictures: Option<&Path>,
        masks: Option<&Path>,
        sources: &[&Source],
    ) -> anyhow::Result<Self> {
        let pictures = pictures.map(|path| target(path, sources)).transpose()?;
        let saver = Self {
            task,
            pictures,
            masks: masks.map(Path::to_owned),
            names: Names::default(),
            name: String::new(),
            masks_saved: 0,
        };
        saver.check(sources)?;
        if let Some(Target::Folder(folder)) = &saver.pictures {
            make_folder(folder)?;
        }
        if let Some(folder) = masks {
            make_folder(folder)?;
        }
        Ok(saver)
    }

    fn check(&self, sources: &[&Source]) -> anyhow::Result<()> {
        if self.pictures.is_none() && self.masks.is_none() {
            return Ok(());
        }
        let usage = |what: String| Err(UsageError(what).into());
        let mut names = Names::default();
        let names: Vec<String> = sources.iter().map(|source| names.next(source)).collect();
        let inputs: Vec<(&Path, Identity)> =
            sources.iter().filter_map(|s| s.path()).filter_map(|p| Some((p, Identity::of(p)?))).collect();
        let pictures: Vec<PathBuf> = match &self.pictures {
            None => Vec::new(),
            Some(Target::File(path)) => vec![path.clone()],
            Some(Target::Folder(folder)) => names.iter().map(|name| self.picture_in(folder, name)).collect(),
        };
        for output in &pictures {
            let Some(target) = Identity::of(output) else { continue };
            if let Some((source, _)) = inputs.iter().find(|(_, input)| input.is_same(&target)) {
                let output = output.display();
                return usage(if self.picture_is_named() {
                    format!("--save {output}: would overwrite the picture itself; choose another name")
                } else {
                    format!(
                        "--save: {output} would replace the picture {}; choose another folder",
                        source.display()
                    )
                });
            }
        }
        let Some(folder) = &self.masks else { return Ok(()) };
        // What masks are called depends on the answers: any number, and any label.
        let made = folder.canonicalize().ok();
        let is_there = |path: &Path| {
            let parent = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
            parent == Some(folder) || (made.is_some() && parent.and_then(|p| p.canonicalize().ok()) == made)
        };
        let is_mask = |path: &Path| names.iter().any(|name| is_mask_of(name, path)) && is_there(path);
        let in_use = |path: &&Path| is_mask(path) || path.canonicalize().is_ok_and(|path| is_mask(&path));
        if let Some(source) = inputs.iter().map(|(path, _)| *path).find(in_use) {
            return usage(format!(
                "--save-masks {}: a mask could replace the picture {}; choose another folder",
                folder.display(),
                source.display()
            ));
        }
        if let Some(picture) = pictures.iter().map(PathBuf::as_path).find(|path| is_mask(path)) {
            return usage(format!(
                "--save and --save-masks: a mask could replace {}; choose another folder for one of them",
                picture.display()
            ));
        }
        Ok(())
    }

    fn picture_is_named(&self) -> bool {
        matches!(self.pictures, Some(Target::File(_)))
    }

    fn picture_in(&self, folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("{name}.{}.png", self.task))
    }

    /// What is saved from now on belongs to this picture.
    pub fn begin_picture(&mut self, source: &Source) {
        self.name = self.names.next(source);
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
            Some(Target::Folder(folder)) => self.picture_in(folder, &self.name),
        };
        let items: Vec<Item<'_>> = found.iter().map(Item::from).collect();
        overlay::draw(&mut (&mut picture).into(), &items, &Style::default());
        write_picture(&picture, &path)?;
        console.note(format_args!("saved {}", shown(&path)));
        Ok(())
    }
}

/// A file if the name ends as a picture's, else a folder.
fn target(path: &Path, sources: &[&Source]) -> anyhow::Result<Target> {
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

/// Whether a file could be a mask of the picture of this name: a number and a label behind it.
fn is_mask_of(name: &str, path: &Path) -> bool {
    let file = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let rest = file.strip_prefix(&name.to_lowercase()).and_then(|rest| rest.strip_prefix('.'));
    let rest = rest.and_then(|rest| rest.strip_suffix(".png"));
    rest.and_then(|rest| rest.split_once('.')).is_some_and(|(number, label)| {
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && !label.contains('.')
    })
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

    fn source(path: &Path) -> Source {
        Source::File(path.to_owned())
    }

    /// What a saver says against these outputs for these sources; `None` if nothing.
    fn refusal(pictures: Option<&Path>, masks: Option<&Path>, paths: &[&Path]) -> Option<String> {
        let sources: Vec<Source> = paths.iter().map(|path| source(path)).collect();
        let sources: Vec<&Source> = sources.iter().collect();
        let error = Saver::new("segment", pictures, masks, &sources).err()?;
        assert!(error.is::<UsageError>(), "{error}");
        Some(error.to_string())
    }

    #[test]
    fn the_name_says_whether_it_is_a_file_or_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a.png"), b"x").unwrap();
        fs::create_dir(at("dir.png")).unwrap();
        let (a, b) = (source(&at("a.png")), source(&at("b.png")));
        assert!(matches!(target(&at("out.jpg"), &[&a]), Ok(Target::File(_))));
        assert!(matches!(target(&at("out"), &[&a]), Ok(Target::Folder(_))));
        assert!(matches!(target(&at("dir.png"), &[&a]), Ok(Target::Folder(_))));
        assert!(matches!(target(&at("new.png/"), &[&a]), Ok(Target::Folder(_))));
        for (name, sources) in [("out.png", &[&a, &b][..]), ("out.tiff", &[&a]), ("missing/out.png", &[&a])] {
            assert!(target(&at(name), sources).is_err_and(|e| e.is::<UsageError>()), "{name}");
        }
    }

    #[test]
    fn no_source_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["cat.png", "cat.segment.png", "dog.2.a-cat.png", "dog.png", "plain.png"] {
            fs::write(at(name), name).unwrap();
        }
        fs::create_dir(at("dir.png")).unwrap();
        let (cat, other) = (at("cat.png"), at("cat.segment.png"));
        for name in ["cat.png", "dir.png/../cat.png"] {
            assert!(
                refusal(Some(&at(name)), None, &[&cat]).unwrap().contains("the picture itself"),
                "{name}"
            );
        }
        let says = refusal(Some(dir.path()), None, &[&cat, &other]).unwrap();
        assert!(
            says.contains("would replace the picture") && says.contains("choose another folder"),
            "{says}"
        );
        assert_eq!(refusal(Some(dir.path()), None, &[&cat]), None);
        assert_eq!(refusal(Some(&at("new")), None, &[&cat, &other]), None);
        let says = refusal(None, Some(dir.path()), &[&at("dog.png"), &at("dog.2.a-cat.png")]).unwrap();
        assert!(says.contains("a mask could replace the picture"), "{says}");
        assert_eq!(refusal(None, Some(dir.path()), &[&at("dog.png"), &cat]), None);
        // One picture's mask would be another one's drawing.
        fs::write(at("x.1.png"), "x").unwrap();
        fs::write(at("x.png"), "x").unwrap();
        let both = [at("x.png"), at("x.1.png")];
        let says = refusal(Some(dir.path()), Some(dir.path()), &[&both[0], &both[1]]).unwrap();
        assert!(says.contains("--save and --save-masks"), "{says}");
        let kept = fs::read_to_string(&other).unwrap();
        assert_eq!(kept, "cat.segment.png");
    }

    #[cfg(unix)]
    #[test]
    fn no_source_is_replaced_through_links() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("out")).unwrap();
        fs::write(at("cat.png"), "cat").unwrap();
        symlink(at("cat.png"), at("out/cat.segment.png")).unwrap();
        assert!(refusal(Some(&at("out")), None, &[&at("cat.png")]).is_some());
        symlink(at("out"), at("link")).unwrap();
        assert!(refusal(Some(&at("link")), None, &[&at("cat.png")]).is_some());
        fs::create_dir(at("hard")).unwrap();
        fs::hard_link(at("cat.png"), at("hard/cat.segment.png")).unwrap();
        assert!(refusal(Some(&at("hard/")), None, &[&at("cat.png")]).is_some());
        fs::write(at("out/cat.1.x.png"), "mask").unwrap();
        symlink(at("out/cat.1.x.png"), at("named.png")).unwrap();
        let masks = [at("cat.png"), at("named.png")];
        assert!(refusal(None, Some(&at("link")), &[&masks[0], &masks[1]]).is_some());
    }

    #[test]
    fn pictures_of_one_name_are_told_apart() {
        let mut saver = Saver::new("detect", None, None, &[]).unwrap();
        let mut name = |path: &str| {
            saver.begin_picture(&Source::File(path.into()));
            saver.name.clone()
        };
        assert_eq!([name("a/cat.png"), name("b/cat.png"), name("cat.jpg")], ["cat", "cat-2", "cat-3"]);
        // They must not meet where capitals do not count.
        assert_eq!([name("Cat.jpg"), name("cat-2.jpg")], ["Cat-4", "cat-2-2"]);
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
