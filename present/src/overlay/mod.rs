//! Draws answers onto a picture: boxes, labels with a filled background, masks.
//!
//! The picture can have any size. Parts outside the picture are cut off. Labels are moved inside or shortened; if the
//! picture is too small to read them, they are left out.

mod canvas;
mod color;
mod text;

use palmtop::tasks::{BoundingBox, Detection, Mask};

pub use canvas::{Canvas, CanvasError};

use crate::found::Found;
use canvas::{Color, blend};
use color::Colors;
use text::TextLine;

/// An object to draw.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Its name. Objects of one name have one colour.
    pub label: &'a str,
    /// Shown behind the label.
    pub score: Option<f32>,
    /// Its box in pixels of the picture.
    pub bounding_box: BoundingBox,
    /// Its mask, for a picture of the same size.
    pub mask: Option<&'a Mask>,
}

impl<'a> From<&'a Found> for Item<'a> {
    fn from(found: &'a Found) -> Self {
        Self::from(&found.detection)
    }
}

impl<'a> From<&'a Detection> for Item<'a> {
    fn from(object: &'a Detection) -> Self {
        Self {
            label: &object.label,
            score: object.score,
            bounding_box: object.bounding_box,
            mask: object.mask.as_ref(),
        }
    }
}

/// What to draw, and how.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Draw boxes.
    pub boxes: bool,
    /// Draw labels.
    pub labels: bool,
    /// Draw scores behind labels.
    pub scores: bool,
    /// Draw masks.
    pub masks: bool,
    /// How much a mask covers the picture, from 0 to 1.
    pub mask_opacity: f32,
    /// Width of a box's lines in pixels; by the picture's size if `None`.
    pub line_width: Option<u32>,
    /// Height of the labels' letters, ascent to descent, in pixels; by the picture's size if `None`.
    pub text_height: Option<f32>,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            boxes: true,
            labels: true,
            scores: true,
            masks: true,
            mask_opacity: 0.45,
            line_width: None,
            text_height: None,
        }
    }
}

/// Below this many pixels letters cannot be read.
const TEXT_HEIGHT_MIN: f32 = 7.0;

/// Draws `items` onto `picture`: masks below, boxes over them, labels on top.
pub fn draw(picture: &mut Canvas<'_>, items: &[Item<'_>], style: &Style) {
    let (width, height) = (picture.width(), picture.height());
    if width == 0 || height == 0 {
        return;
    }
    let side = (width as f32 + height as f32) / 2.0;
    let line_width = style.line_width.unwrap_or((side * 0.004).round() as u32).max(1);
    let colors = Colors::of(items.iter().map(|item| item.label));

    if style.masks {
        for item in items {
            if let Some(mask) = item.mask {
                draw_mask(
                    picture,
                    mask,
                    colors.of_label(item.label),
                    style.mask_opacity,
                    line_width.div_ceil(2),
                );
            }
        }
    }
    if style.boxes {
        for item in items {
            draw_box(picture, &item.bounding_box, colors.of_label(item.label), line_width);
        }
    }
    if style.labels {
        let height = height as f32;
        let text_height =
            style.text_height.unwrap_or((side * 0.03).max(14.0).min(height * 0.25)).min(height * 0.5);
        if text_height >= TEXT_HEIGHT_MIN {
            draw_labels(picture, items, &colors, style.scores, text_height);
        }
    }
}

/// A rectangle of pixels, the right and lower edges exclusive; it may lie outside the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rect {
    x_min: i64,
    y_min: i64,
    x_max: i64,
    y_max: i64,
}

impl Rect {
    /// The pixels of a box, at least one each way. Numbers without meaning become some place in the picture.
    fn of(bounding_box: &BoundingBox, picture: &Canvas<'_>) -> Self {
        let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
        let x_min = (bounding_box.x_min.round() as i64).clamp(0, width - 1);
        let y_min = (bounding_box.y_min.round() as i64).clamp(0, height - 1);
        let x_max = (bounding_box.x_max.round() as i64).clamp(x_min + 1, width);
        let y_max = (bounding_box.y_max.round() as i64).clamp(y_min + 1, height);
        Self { x_min, y_min, x_max, y_max }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.x_min < other.x_max
            && other.x_min < self.x_max
            && self.y_min < other.y_max
            && other.y_min < self.y_max
    }

    fn is_inside(&self, picture: &Canvas<'_>) -> bool {
        self.x_min >= 0
            && self.y_min >= 0
            && self.x_max <= i64::from(picture.width())
            && self.y_max <= i64::from(picture.height())
    }
}

fn fill(picture: &mut Canvas<'_>, rect: Rect, color: Color) {
    let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
    for y in rect.y_min.max(0)..rect.y_max.min(height) {
        for x in rect.x_min.max(0)..rect.x_max.min(width) {
            *picture.pixel_mut(x as u32, y as u32) = color;
        }
    }
}

fn draw_box(picture: &mut Canvas<'_>, bounding_box: &BoundingBox, color: Color, line_width: u32) {
    let Rect { x_min, y_min, x_max, y_max } = Rect::of(bounding_box, picture);
    let line = i64::from(line_width);
    let (inner_left, inner_right) = ((x_min + line).min(x_max), (x_max - line).max(x_min));
    let (inner_top, inner_bottom) = ((y_min + line).min(y_max), (y_max - line).max(y_min));
    fill(picture, Rect { x_min, y_min, x_max, y_max: inner_top }, color);
    fill(picture, Rect { x_min, y_min: inner_bottom, x_max, y_max }, color);
    fill(picture, Rect { x_min, y_min, x_max: inner_left, y_max }, color);
    fill(picture, Rect { x_min: inner_right, y_min, x_max, y_max }, color);
}

/// Tints the mask's pixels and draws its outline, `outline` pixels wide, in full colour.
fn draw_mask(picture: &mut Canvas<'_>, mask: &Mask, color: Color, opacity: f32, outline: u32) {
    let opacity = if opacity.is_nan() { 0.0 } else { opacity.clamp(0.0, 1.0) };
    let x_end = mask.x().saturating_add(mask.width()).min(picture.width());
    let y_end = mask.y().saturating_add(mask.height()).min(picture.height());
    let is_set = |x: Option<u32>, y: Option<u32>| x.zip(y).is_some_and(|(x, y)| mask.contains(x, y));
    for y in mask.y()..y_end {
        for x in (mask.x()..x_end).filter(|&x| mask.contains(x, y)) {
            let is_within = is_set(x.checked_sub(outline), Some(y))
                && is_set(x.checked_add(outline), Some(y))
                && is_set(Some(x), y.checked_sub(outline))
                && is_set(Some(x), y.checked_add(outline));
            blend(picture.pixel_mut(x, y), color, if is_within { opacity } else { 1.0 });
        }
    }
}

fn draw_labels(
    picture: &mut Canvas<'_>,
    items: &[Item<'_>],
    colors: &Colors<'_>,
    scores: bool,
    text_height: f32,
) {
    let padding = (text_height * 0.25).ceil() as i64;
    let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
    let mut placed: Vec<Rect> = Vec::new();
    for item in items {
        let score = item.score.filter(|_| scores).map(|score| format!("{score:.2}"));
        let target = Rect::of(&item.bounding_box, picture);
        // A label may be as wide as its box, and over a small box half as wide as the picture.
        let room = (target.x_max - target.x_min).max(width / 2) - 2 * padding;
        let Some(line) = TextLine::fit(item.label, score.as_deref(), text_height, room as f32) else {
            continue;
        };
        let tag_width = line.width().ceil() as i64 + 2 * padding;
        let tag_height = text_height.ceil() as i64 + padding;
        let x = target.x_min.min(width - tag_width).max(0);
        let tag_at = |y: i64| Rect { x_min: x, y_min: y, x_max: x + tag_width, y_max: y + tag_height };

        // Above the box, else inside of it, else below: the first place in the picture where no label is yet.
        let candidates = [target.y_min - tag_height, target.y_min, target.y_max - tag_height, target.y_max];
        let is_free = |tag: &Rect| tag.is_inside(picture) && !placed.iter().any(|other| other.overlaps(tag));
        let tag = candidates
            .map(tag_at)
            .into_iter()
            .find(is_free)
            .unwrap_or_else(|| tag_at((target.y_min - tag_height).min(height - tag_height).max(0)));

        let background = colors.of_label(item.label);
        fill(picture, tag, background);
        line.draw(picture, tag.x_min + padding, tag.y_min + padding / 2, color::readable_on(background));
        placed.push(tag);
    }
}

#[cfg(test)]
mod tests;
