//! Colours for labels.

use std::collections::HashMap;

use super::canvas::Color;

/// Colours that are told apart on photographs, dark enough or light enough for a label's text.
const PALETTE: [Color; 16] = [
    [230, 57, 70],
    [29, 120, 220],
    [46, 160, 67],
    [255, 159, 28],
    [142, 68, 205],
    [0, 168, 168],
    [233, 30, 140],
    [150, 200, 30],
    [121, 85, 72],
    [255, 214, 10],
    [63, 81, 181],
    [255, 112, 67],
    [0, 200, 130],
    [190, 150, 255],
    [128, 0, 32],
    [100, 220, 255],
];

/// The colours of the labels of one picture.
pub struct Colors<'a> {
    by_label: HashMap<&'a str, Color>,
}

impl<'a> Colors<'a> {
    /// Chooses a colour for each label: one that depends on its text alone, so that it stays from picture to picture,
    /// unless another label of this picture has it already. Only with more labels than colours do two share one.
    pub fn of(labels: impl IntoIterator<Item = &'a str>) -> Self {
        let mut by_label = HashMap::new();
        let mut is_taken = [false; PALETTE.len()];
        for label in labels {
            by_label.entry(label).or_insert_with(|| {
                let wanted = hash(label) as usize % PALETTE.len();
                let free = (0..PALETTE.len())
                    .map(|step| (wanted + step) % PALETTE.len())
                    .find(|&index| !is_taken[index])
                    .unwrap_or(wanted);
                is_taken[free] = true;
                PALETTE[free]
            });
        }
        Self { by_label }
    }

    /// The colour of a label; of one that was not among those given to [`Colors::of`], that of its text.
    pub fn of_label(&self, label: &str) -> Color {
        let by_text = || PALETTE[hash(label) as usize % PALETTE.len()];
        self.by_label.get(label).copied().unwrap_or_else(by_text)
    }
}

/// Black or white, whichever reads better on `background` (by its luma of Rec. 601).
pub fn readable_on(background: Color) -> Color {
    let [red, green, blue] = background.map(u32::from);
    let luma = (299 * red + 587 * green + 114 * blue) / 1000;
    if luma > 150 { [0, 0, 0] } else { [255, 255, 255] }
}

/// FNV-1a, 32 bits.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn labels_of_a_picture_have_distinct_colours() {
        let labels: Vec<String> = (0..PALETTE.len()).map(|index| format!("label {index}")).collect();
        let colors = Colors::of(labels.iter().map(String::as_str));
        let distinct: HashSet<_> = labels.iter().map(|label| colors.of_label(label)).collect();
        assert_eq!(distinct.len(), PALETTE.len());
        assert_eq!(Colors::of(["cat", "cat"]).by_label.len(), 1);
    }

    #[test]
    fn a_label_keeps_its_colour_from_picture_to_picture() {
        let alone = Colors::of(["cat"]).of_label("cat");
        assert_eq!(Colors::of(["cat", "dog", "bird"]).of_label("cat"), alone);
        assert_eq!(Colors::of([]).of_label("cat"), alone);
    }

    #[test]
    fn more_labels_than_colours_are_no_trouble() {
        let labels: Vec<String> = (0..100).map(|index| format!("label {index}")).collect();
        let colors = Colors::of(labels.iter().map(String::as_str));
        assert!(labels.iter().all(|label| PALETTE.contains(&colors.of_label(label))));
    }

    #[test]
    fn text_contrasts_with_its_background() {
        assert_eq!(readable_on([255, 214, 10]), [0, 0, 0]);
        assert_eq!(readable_on([29, 120, 220]), [255, 255, 255]);
    }
}
