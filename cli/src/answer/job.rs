//! What one of the commands asks for.

use std::path::PathBuf;

use palmtop::tasks::{Label, Line, Task};

use super::together::TogetherArgs;
use crate::args::{
    AnswerArgs, AskArgs, CaptionArgs, DetectArgs, Labels, OcrArgs, RunArgs, SegmentArgs, Style,
};
use crate::output::Shown;

/// What one of the commands asks for.
pub struct Job {
    pub task: &'static str,
    pub prompts: Vec<Prompt>,
    /// All that answers may be; anything if empty.
    pub choices: Vec<Line>,
    pub shown: Shown,
    pub common: AnswerArgs,
    /// `None` where a prompt is about one picture, since boxes and masks are.
    pub together: Option<TogetherArgs>,
    pub save: Option<PathBuf>,
    pub save_masks: Option<PathBuf>,
}

pub struct Prompt {
    /// What the user asked.
    pub question: String,
    /// What the model is given.
    pub text: String,
}

impl Prompt {
    fn new(task: &Task) -> Self {
        Self { question: task.prompt(), text: task.prompt() }
    }
}

impl From<CaptionArgs> for Job {
    fn from(CaptionArgs { common, together, style, lang: language }: CaptionArgs) -> Self {
        let task = match style {
            Style::Cap => Task::Cap { language },
            Style::Caption => Task::Caption { language },
            Style::Describe => Task::Describe { language },
        };
        Self { together: Some(together), ..Self::of_text("caption", vec![Prompt::new(&task)], common) }
    }
}

impl From<AskArgs> for Job {
    fn from(AskArgs { common, together, questions, choose, lang }: AskArgs) -> Self {
        let prompt = |question: Line| Prompt {
            question: question.to_string(),
            text: Task::Answer { language: lang.clone(), question }.prompt(),
        };
        let mut job = Self::of_text("ask", questions.into_iter().map(prompt).collect(), common);
        job.together = Some(together);
        job.choices = choose.into_iter().flat_map(|choices| choices.0).collect();
        job
    }
}

impl From<OcrArgs> for Job {
    fn from(OcrArgs { common }: OcrArgs) -> Self {
        Self::of_text("ocr", vec![Prompt::new(&Task::Ocr)], common)
    }
}

impl From<DetectArgs> for Job {
    fn from(DetectArgs { common, labels, save }: DetectArgs) -> Self {
        let task = Task::Detect { labels: all(labels.labels) };
        let job = Self::of_text("detect", vec![Prompt::new(&task)], common);
        Self { shown: Shown::Objects, save: save.save, ..job }
    }
}

impl From<SegmentArgs> for Job {
    fn from(SegmentArgs { common, labels, save, masks }: SegmentArgs) -> Self {
        let task = Task::Segment { labels: all(labels.labels) };
        let job = Self::of_text("segment", vec![Prompt::new(&task)], common);
        Self { shown: Shown::Objects, save: save.save, save_masks: masks.save_masks, ..job }
    }
}

impl From<RunArgs> for Job {
    fn from(RunArgs { common, together, prompts, save, masks }: RunArgs) -> Self {
        let prompts = prompts.into_iter().map(|text| Prompt::new(&Task::Raw(text))).collect();
        let job = Self::of_text("run", prompts, common);
        let (save, save_masks) = (save.save, masks.save_masks);
        Self { shown: Shown::Both, together: Some(together), save, save_masks, ..job }
    }
}

impl Job {
    fn of_text(task: &'static str, prompts: Vec<Prompt>, common: AnswerArgs) -> Self {
        Self {
            task,
            prompts,
            choices: Vec::new(),
            shown: Shown::Text,
            common,
            together: None,
            save: None,
            save_masks: None,
        }
    }
}

fn all(labels: Vec<Labels>) -> Vec<Label> {
    labels.into_iter().flat_map(|labels| labels.0).collect()
}
