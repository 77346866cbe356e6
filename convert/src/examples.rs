//! Examples for a model: pictures, prompts and expected answers, one JSON object per line.
//!
//! ```text
//! {"image": "a.png", "prompt": "detect cat", "expected": "<loc0100>… cat", "task": "detect", "mask": "a.mask.png"}
//! ```
//!
//! `expected`, `task` and `mask` may be missing; other keys are ignored. A prompt about several pictures has a list
//! `images` instead of `image`. Paths are relative to the folder of the file.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

/// What a picture is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The line of the file that it stands in, from 1.
    pub line: usize,
    /// The pictures of the prompt, as the file names them; ` + ` is between several.
    pub image: String,
    /// Where the pictures are, in the prompt's order; at least one.
    pub paths: Vec<PathBuf>,
    /// What the model is given, without the newline that ends every prompt.
    pub prompt: String,
    /// What it should answer.
    pub expected: Option<String>,
    /// The kind of answer, as the file says or as the prompt begins.
    pub task: TaskKind,
    /// Where the picture of the right mask is.
    pub mask: Option<PathBuf>,
}

/// Kinds of answers; each has measures of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskKind {
    /// A description.
    Caption,
    /// A short answer to a question.
    Answer,
    /// The text in the picture.
    Ocr,
    /// Boxes and labels.
    Detect,
    /// Boxes, labels and masks.
    Segment,
}

impl TaskKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Caption, Self::Answer, Self::Ocr, Self::Detect, Self::Segment];

    /// The name in files and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caption => "caption",
            Self::Answer => "answer",
            Self::Ocr => "ocr",
            Self::Detect => "detect",
            Self::Segment => "segment",
        }
    }

    /// What a prompt asks for, by its first word; a free question asks for an answer.
    pub fn of_prompt(prompt: &str) -> Self {
        match prompt.split_whitespace().next().unwrap_or_default() {
            "cap" | "caption" | "describe" => Self::Caption,
            "ocr" => Self::Ocr,
            "detect" => Self::Detect,
            "segment" => Self::Segment,
            _ => Self::Answer,
        }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TaskKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|task| task.name() == text).ok_or_else(|| {
            format!("'task' is '{text}': use caption, answer, ocr, detect or segment, or leave it out")
        })
    }
}

/// Why a file of examples cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExamplesError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("{}, line {line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// There is not one example.
    #[error("{} has no examples: give one JSON object a line, with 'image' and 'prompt'", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// No example is longer: a prompt and an answer are some kilobytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// More examples take longer than anyone waits.
const EXAMPLES_MAX: usize = 1 << 20;

/// Reads a file of examples; lines of nothing but white space are passed over.
///
/// Whether the pictures are there is not looked at.
pub fn read_examples(path: &Path) -> Result<Vec<Example>, ExamplesError> {
    let io = |source| ExamplesError::Io { path: path.to_owned(), source };
    let wrong = |line, what| ExamplesError::Line { path: path.to_owned(), line, what };
    if std::fs::metadata(path).map_err(io)?.is_dir() {
        return Err(io(std::io::Error::other("is a folder; name the file of examples in it")));
    }
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut examples = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        // One byte more, so that too much is seen to be too much.
        if file.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes).map_err(io)? == 0 {
            break;
        }
        if bytes.len() as u64 > LINE_BYTES_MAX {
            return Err(wrong(line, "is longer than a mebibyte, so no example".to_owned()));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong(line, "is not UTF-8 text".to_owned()))?;
        let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
        if text.trim().is_empty() {
            continue;
        }
        if examples.len() == EXAMPLES_MAX {
            return Err(wrong(line, format!("there are more than {EXAMPLES_MAX} examples")));
        }
        examples.push(read_line(text, line, folder).map_err(|what| wrong(line, what))?);
    }
    if examples.is_empty() {
        return Err(ExamplesError::Empty { path: path.to_owned() });
    }
    Ok(examples)
}

/// An example as it stands in the file.
#[derive(Deserialize)]
struct Record {
    image: Option<String>,
    images: Option<Vec<String>>,
    prompt: String,
    expected: Option<String>,
    task: Option<String>,
    mask: Option<String>,
}

fn read_line(text: &str, line: usize, folder: &Path) -> Result<Example, String> {
    let record: Record = serde_json::from_str(text).map_err(|e| {
        // The place that serde_json names counts from the beginning of this line.
        let what = e.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        format!("is not an example: {what} (column {})", e.column())
    })?;
    let named = |what, name: &str| {
        if name.is_empty() { Err(format!("'{what}' is empty: name a file")) } else { Ok(folder.join(name)) }
    };
    let (key, images) = match (record.image, record.images) {
        (Some(image), None) => ("image", vec![image]),
        (None, Some(images)) => ("images", images),
        (None, None) => {
            return Err("is not an example: missing field `image`, or `images` for several".into());
        }
        (Some(_), Some(_)) => return Err("has both 'image' and 'images': use one of them".into()),
    };
    if images.is_empty() {
        return Err("'images' is empty: name pictures".into());
    }
    let task = match record.task {
        Some(task) => task.parse()?,
        None => TaskKind::of_prompt(&record.prompt),
    };
    if images.len() > 1 && matches!(task, TaskKind::Detect | TaskKind::Segment) {
        return Err(format!("asks for '{task}' of several pictures: no answer says which one a box is in"));
    }
    Ok(Example {
        line,
        paths: images.iter().map(|image| named(key, image)).collect::<Result<_, _>>()?,
        image: images.join(" + "),
        task,
        prompt: record.prompt,
        expected: record.expected,
        mask: record.mask.map(|mask| named("mask", &mask)).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<Example>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        std::fs::write(&path, text).unwrap();
        read_examples(&path).map_err(|e| e.to_string().replace(folder.path().to_str().unwrap(), ""))
    }

    #[test]
    fn lines_become_examples_with_paths_beside_the_file() {
        let text = "\u{feff}{\"image\": \"p/a.png\", \"prompt\": \"detect cat ; dog\", \"expected\": \"x\", \"seed\": 3}\n\
            \n{\"image\":\"/b.png\",\"prompt\":\"what is it?\",\"task\":\"ocr\",\"mask\":\"m.png\"}";
        let examples = read(text.as_bytes()).unwrap();
        let [first, second] = &examples[..] else { panic!("{examples:?}") };
        assert_eq!((first.line, first.task, first.expected.as_deref()), (1, TaskKind::Detect, Some("x")));
        let [path] = &first.paths[..] else { panic!("{first:?}") };
        assert!(path.ends_with("p/a.png") && path.is_absolute() && first.mask.is_none());
        assert_eq!((second.line, second.task), (3, TaskKind::Ocr));
        assert_eq!(second.paths, [Path::new("/b.png")]);
        assert!(second.mask.as_ref().unwrap().ends_with("m.png"));
    }

    #[test]
    fn a_prompt_may_be_about_several_pictures() {
        let text = r#"{"images": ["a.png", "b.png", "a.png"], "prompt": "answer en which one?"}"#;
        let examples = read(text.as_bytes()).unwrap();
        assert_eq!(examples[0].image, "a.png + b.png + a.png");
        let names: Vec<_> = examples[0].paths.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["a.png", "b.png", "a.png"]);
    }

    #[test]
    fn prompts_tell_their_task() {
        for (prompt, task) in [
            ("cap en", "caption"),
            ("caption en", "caption"),
            ("describe de", "caption"),
            ("answer en how many?", "answer"),
            ("question en a cow", "answer"),
            ("where is the cow?", "answer"),
            ("", "answer"),
            (" ocr", "ocr"),
            ("detect cat", "detect"),
            ("segment cat", "segment"),
            ("segmentation", "answer"),
        ] {
            assert_eq!(TaskKind::of_prompt(prompt).name(), task, "{prompt}");
            assert_eq!(task.parse::<TaskKind>().unwrap().to_string(), task);
        }
    }

    #[test]
    fn bad_files_are_refused_with_the_line() {
        let good = "{\"image\":\"a\",\"prompt\":\"ocr\"}\n";
        let long = format!("{{\"image\":\"{}\"}}", "x".repeat(1 << 20));
        let deep = "[".repeat(100_000);
        for (text, says) in [
            ("", "has no examples"),
            (" \n\n", "has no examples"),
            ("[1, 2]", "line 1: is not an example: invalid type"),
            ("{\"image\":\"a\"}", "line 1: is not an example: missing field `prompt` (column 13)"),
            (&format!("{good}{{\"prompt\":\"a\"}}"), "line 2: is not an example: missing field `image`"),
            ("{\"image\":3,\"prompt\":\"a\"}", "line 1: is not an example: invalid type: integer `3`"),
            ("{\"image\":\"\",\"prompt\":\"a\"}", "line 1: 'image' is empty"),
            ("{\"images\":[],\"prompt\":\"a\"}", "line 1: 'images' is empty"),
            ("{\"images\":[\"a\",\"\"],\"prompt\":\"a\"}", "line 1: 'images' is empty"),
            (
                "{\"image\":\"a\",\"images\":[\"a\"],\"prompt\":\"a\"}",
                "line 1: has both 'image' and 'images'",
            ),
            ("{\"images\":[\"a\",\"b\"],\"prompt\":\"detect a\"}", "line 1: asks for 'detect' of several"),
            ("{\"image\":\"a\",\"prompt\":\"a\",\"mask\":\"\"}", "line 1: 'mask' is empty"),
            ("{\"image\":\"a\",\"prompt\":\"a\",\"task\":\"vqa\"}", "line 1: 'task' is 'vqa': use caption"),
            (&format!("{good}{good}{{"), "line 3: is not an example: EOF"),
            (&long, "line 1: is longer than a mebibyte"),
            (&deep, "line 1: is not an example"),
        ] {
            let got = read(text.as_bytes()).unwrap_err();
            assert!(got.contains(says), "{got:?} does not say {says:?}");
        }
        assert!(read(b"\xff\xfe{}").unwrap_err().contains("line 1: is not UTF-8"));
        let missing = read_examples(Path::new("/nowhere/data.jsonl")).unwrap_err();
        assert!(missing.to_string().starts_with("/nowhere/data.jsonl: "));
        assert!(read_examples(Path::new("/")).unwrap_err().to_string().contains("is a folder"));
    }
}
