//! Several pictures in one prompt: which belong together, and which frames stand for a video.

use clap::{Args, ValueEnum};
use palmtop::image::Filter;

use crate::args::count;
use crate::errors::UsageError;

/// So many frames stand for a video, unless the user says otherwise.
pub const FRAMES: usize = 8;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Several pictures in one prompt")]
pub struct TogetherArgs {
    /// Show the model all sources at once, as the pictures of one prompt in this order
    #[arg(long, conflicts_with_all = ["frames", "stride", "slide"])]
    pub together: bool,
    /// Show the model N frames of each source, which is a video, a pipe or a camera: spread over the whole, and again
    /// from the first one if there are fewer [default: 8 for a video]
    #[arg(long, value_name = "N", value_parser = count(1, 1024))]
    pub frames: Option<u64>,
    /// Take every Nth frame from the first one on, instead of spreading them over the whole
    #[arg(long, value_name = "N", value_parser = count(1, 1 << 20))]
    pub stride: Option<u64>,
    /// Go on to the end with --stride, and answer again whenever N more frames were taken, about the last --frames of
    /// them; each is encoded once
    #[arg(long, value_name = "N", value_parser = count(1, 1024))]
    pub slide: Option<u64>,
    /// Frames, stride and resizing of one of the fine-tunes that Google published: msrvtt, activitynet and vatex
    /// (videos), msvd (ask only), nlvr2 (two pictures, ask only)
    #[arg(long, value_enum, value_name = "NAME")]
    pub preset: Option<Preset>,
    /// How pictures are resized: bicubic, bilinear, or bilinear-aliased [default: what the preset or else the model
    /// says]
    #[arg(long, value_name = "FILTER")]
    pub resize: Option<Filter>,
}

/// Fine-tunes of PaliGemma on several pictures. Frames, strides and forms are those of big_vision's
/// `configs/proj/paligemma/transfers`, which resizes without antialias (`pp/proj/paligemma/video.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    Msrvtt,
    Activitynet,
    Vatex,
    Msvd,
    Nlvr2,
}

/// Which pictures make a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Each picture alone.
    Each,
    /// All of them; exactly so many, if that is said.
    Together(Option<usize>),
    /// Frames of each source.
    Frames(Frames),
}

/// Frames that stand for a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    /// Pictures of a prompt.
    pub count: usize,
    pub step: Step,
}

/// Which frames are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Those in the middles of equal parts of the video.
    Spread,
    /// Every so manyth from the first one on.
    Every(u64),
    /// The same to the end, with an answer after each `slide` of them.
    Sliding { every: u64, slide: u64 },
}

impl Preset {
    /// The pictures of a task, or `None` if the fine-tune does not do it.
    fn grouping(self, task: &str) -> Option<Grouping> {
        let frames = |count, every| Some(Grouping::Frames(Frames { count, step: Step::Every(every) }));
        match (self, task) {
            (Self::Msrvtt, "caption" | "ask") => frames(16, 9),
            (Self::Activitynet, "caption") => frames(16, 30),
            (Self::Activitynet, "ask") => frames(16, 70),
            (Self::Vatex, "caption") => frames(16, 7),
            (Self::Msvd, "ask") => frames(8, 26),
            (Self::Nlvr2, "ask") => Some(Grouping::Together(Some(2))),
            _ => None,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl TogetherArgs {
    /// How pictures are resized, if not as the model says.
    pub fn filter(&self) -> Option<Filter> {
        self.resize.or(self.preset.map(|_| Filter::BilinearAliased))
    }

    /// Which pictures make a prompt of a task.
    ///
    /// # Errors
    /// If what is asked for does not fit together.
    pub fn grouping(&self, task: &str) -> Result<Grouping, UsageError> {
        let usage = |what: String| Err(UsageError(what));
        let preset = match self.preset {
            None => None,
            Some(preset) => {
                let name = preset.name();
                let Some(grouping) = preset.grouping(task) else {
                    return usage(format!("--preset {name}: this fine-tune is not for `palmtop {task}`"));
                };
                let is_video = matches!(grouping, Grouping::Frames(_));
                if self.together && is_video {
                    return usage(format!("--preset {name} takes frames of a video, and not --together"));
                }
                if !is_video && (self.frames.is_some() || self.stride.is_some() || self.slide.is_some()) {
                    return usage(format!("--preset {name} takes two pictures, and not frames of a video"));
                }
                Some(grouping)
            }
        };
        let given = match preset {
            Some(Grouping::Frames(frames)) => Some(frames),
            Some(other) => return Ok(other),
            None if self.together => return Ok(Grouping::Together(None)),
            None => None,
        };
        if given.is_none() && self.frames.is_none() && self.stride.is_none() && self.slide.is_none() {
            return Ok(Grouping::Each);
        }
        let count = self.frames.map_or(given.map_or(FRAMES, |frames| frames.count), |n| n as usize);
        let every = self.stride.or(match given.map(|frames| frames.step) {
            Some(Step::Every(every)) => Some(every),
            _ => None,
        });
        let step = match (every, self.slide) {
            (None, None) => Step::Spread,
            (Some(every), None) => Step::Every(every),
            (Some(every), Some(slide)) => Step::Sliding { every, slide },
            (None, Some(_)) => {
                return usage("--slide goes on from frame to frame: say with --stride how far apart".into());
            }
        };
        Ok(Grouping::Frames(Frames { count, step }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(count: usize, step: Step) -> Grouping {
        Grouping::Frames(Frames { count, step })
    }

    #[test]
    fn options_say_which_pictures_belong_together() {
        let of = |args: TogetherArgs| args.grouping("ask").unwrap();
        let default = TogetherArgs::default;
        assert_eq!(of(default()), Grouping::Each);
        assert_eq!(of(TogetherArgs { together: true, ..default() }), Grouping::Together(None));
        assert_eq!(of(TogetherArgs { frames: Some(4), ..default() }), frames(4, Step::Spread));
        assert_eq!(of(TogetherArgs { stride: Some(9), ..default() }), frames(FRAMES, Step::Every(9)));
        let sliding = TogetherArgs { frames: Some(3), stride: Some(5), slide: Some(2), ..default() };
        assert_eq!(of(sliding), frames(3, Step::Sliding { every: 5, slide: 2 }));
        assert!(TogetherArgs { slide: Some(2), ..default() }.grouping("ask").is_err());
    }

    #[test]
    fn presets_are_those_of_the_fine_tunes() {
        let of = |preset, task: &str| {
            TogetherArgs { preset: Some(preset), ..TogetherArgs::default() }.grouping(task).ok()
        };
        let every = |count, every| Some(frames(count, Step::Every(every)));
        for (preset, caption, ask) in [
            (Preset::Msrvtt, every(16, 9), every(16, 9)),
            (Preset::Activitynet, every(16, 30), every(16, 70)),
            (Preset::Vatex, every(16, 7), None),
            (Preset::Msvd, None, every(8, 26)),
            (Preset::Nlvr2, None, Some(Grouping::Together(Some(2)))),
        ] {
            assert_eq!((of(preset, "caption"), of(preset, "ask")), (caption, ask), "{preset:?}");
            assert_eq!(of(preset, "run"), None);
        }
        let mut args = TogetherArgs { preset: Some(Preset::Msrvtt), frames: Some(4), ..Default::default() };
        assert_eq!(args.grouping("ask").unwrap(), frames(4, Step::Every(9)));
        assert_eq!(args.filter(), Some(Filter::BilinearAliased));
        args.slide = Some(4);
        assert_eq!(args.grouping("ask").unwrap(), frames(4, Step::Sliding { every: 9, slide: 4 }));
        args.together = true;
        assert!(args.grouping("ask").is_err());
    }
}
