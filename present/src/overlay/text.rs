//! Draws lines of text in the built-in font.

use ab_glyph::{Font, FontRef, Glyph, GlyphId, PxScale, PxScaleFont, ScaleFont, point};

use super::canvas::{Canvas, Color, blend};

/// DejaVu Sans Bold: Latin, Greek and Cyrillic. Other characters show as an empty box. Its licence lies beside it.
const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans-Bold-subset.ttf");

const ELLIPSIS: char = '…';

/// A line of text, set and measured.
pub struct TextLine {
    font: PxScaleFont<FontRef<'static>>,
    /// Glyphs on a baseline at 0, 0.
    glyphs: Vec<Glyph>,
    width: f32,
}

impl TextLine {
    /// Sets `text`, and `suffix` behind it, in letters of `height` pixels from ascent to descent.
    ///
    /// What is wider than `room` is shortened: the text first, which then ends in "…"; a suffix is set whole or not
    /// at all. `None` if there is nothing to set, or no room for anything. Control characters, line breaks among
    /// them, become blanks.
    pub fn fit(text: &str, suffix: Option<&str>, height: f32, room: f32) -> Option<Self> {
        // The font is part of the library: a test reads it.
        let font = FontRef::try_from_slice(FONT).ok()?.into_scaled(PxScale::from(height));
        let text = text.trim();
        let Some(suffix) = suffix else {
            return Self::shorten(font, text, room);
        };
        if text.is_empty() {
            let mut line = Self::empty(font);
            return line.append(suffix.chars(), room).then_some(line);
        }
        let mut measured = Self::empty(font.clone());
        measured.append([' '].into_iter().chain(suffix.chars()), f32::INFINITY);
        let Some(mut line) = Self::shorten(font.clone(), text, room - measured.width) else {
            return Self::shorten(font, text, room);
        };
        line.append([' '].into_iter().chain(suffix.chars()), f32::INFINITY);
        Some(line)
    }

    /// Sets as much of `text` as there is room for: at least one character, and "…" if it is not all.
    fn shorten(font: PxScaleFont<FontRef<'static>>, text: &str, room: f32) -> Option<Self> {
        let mut whole = Self::empty(font.clone());
        if whole.append(text.chars(), room) {
            return (!text.is_empty()).then_some(whole);
        }
        let mut line = Self::empty(font);
        let room_before = room - line.advance(ELLIPSIS);
        line.append(text.chars(), room_before);
        if line.glyphs.is_empty() {
            return None;
        }
        line.append([ELLIPSIS].into_iter(), f32::INFINITY);
        Some(line)
    }

    fn empty(font: PxScaleFont<FontRef<'static>>) -> Self {
        Self { font, glyphs: Vec::new(), width: 0.0 }
    }

    /// The width in pixels.
    pub fn width(&self) -> f32 {
        self.width
    }

    /// Draws the line with its upper left corner at column `x` and row `y`; what lies outside is cut off.
    pub fn draw(&self, picture: &mut Canvas<'_>, x: i64, y: i64, color: Color) {
        let baseline = self.font.ascent().round() as i64;
        let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
        for glyph in &self.glyphs {
            let Some(outline) = self.font.outline_glyph(glyph.clone()) else {
                continue;
            };
            let bounds = outline.px_bounds();
            let (left, top) = (x + bounds.min.x as i64, y + baseline + bounds.min.y as i64);
            outline.draw(|column, row, coverage| {
                let (x, y) = (left + i64::from(column), top + i64::from(row));
                if (0..width).contains(&x) && (0..height).contains(&y) {
                    blend(picture.pixel_mut(x as u32, y as u32), color, coverage.clamp(0.0, 1.0));
                }
            });
        }
    }

    /// Appends characters while the line is no wider than `room`; whether all of them found room.
    fn append(&mut self, characters: impl Iterator<Item = char>, room: f32) -> bool {
        for character in characters {
            let advance = self.advance(character);
            if self.width + advance > room {
                return false;
            }
            let position = point(self.width, 0.0);
            let scale = self.font.scale();
            self.glyphs.push(self.glyph_id(character).with_scale_and_position(scale, position));
            self.width += advance;
        }
        true
    }

    fn advance(&self, character: char) -> f32 {
        self.font.h_advance(self.glyph_id(character))
    }

    fn glyph_id(&self, character: char) -> GlyphId {
        let is_blank = character.is_control() || character.is_whitespace();
        self.font.font.glyph_id(if is_blank { ' ' } else { character })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_can_be_read_and_has_common_letters() {
        let font = FontRef::try_from_slice(FONT).unwrap();
        for character in "aZ09.,;:!?%-…ßéÅŁşπΩжЯ".chars() {
            assert_ne!(font.glyph_id(character), GlyphId(0), "{character}");
        }
    }

    #[test]
    fn long_text_is_shortened_before_its_suffix() {
        let whole = TextLine::fit("traffic light", Some("0.98"), 20.0, 1000.0).unwrap();
        assert_eq!(whole.glyphs.len(), "traffic light 0.98".len());
        let suffix = TextLine::fit("", Some("0.98"), 20.0, 1000.0).unwrap();
        assert_eq!(suffix.glyphs.len(), 4);

        let short = TextLine::fit("traffic light", Some("0.98"), 20.0, whole.width() - 1.0).unwrap();
        assert!(short.width() < whole.width() && short.glyphs.len() < whole.glyphs.len());
        let ellipsis = short.glyph_id(ELLIPSIS);
        assert_eq!(short.glyphs[short.glyphs.len() - 6].id, ellipsis);

        let endless = "long ".repeat(100_000);
        let line = TextLine::fit(&endless, None, 20.0, 300.0).unwrap();
        assert!(line.width() <= 300.0 && line.glyphs.len() < 60);

        // Where both cannot be, the text stays; a score is never cut.
        let without_suffix = TextLine::fit("cat", Some("0.98"), 20.0, 45.0).unwrap();
        assert_eq!(without_suffix.glyphs.len(), 3);
        assert!(TextLine::fit("", Some("0.98"), 20.0, suffix.width() - 1.0).is_none());
    }

    #[test]
    fn no_room_or_no_text_is_no_line() {
        assert!(TextLine::fit("", None, 20.0, 100.0).is_none());
        assert!(TextLine::fit(" \n", None, 20.0, 100.0).is_none());
        assert!(TextLine::fit("cat", Some("0.5"), 20.0, 0.0).is_none());
        assert!(TextLine::fit("cat", None, 20.0, -5.0).is_none());
    }

    #[test]
    fn line_breaks_and_controls_are_blanks() {
        let line = TextLine::fit("a\nb\u{7}c", None, 20.0, 1000.0).unwrap();
        let blank = line.glyph_id(' ');
        let ids: Vec<_> = line.glyphs.iter().map(|glyph| glyph.id == blank).collect();
        assert_eq!(ids, [false, true, false, true, false]);
    }
}
