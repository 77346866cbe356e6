use image::{Rgb, RgbImage};
use palmtop::tasks::BoxRounding;
use proptest::prelude::*;

use super::*;

fn draw(picture: &mut RgbImage, items: &[Item<'_>], style: &Style) {
    let (width, height) = picture.dimensions();
    super::draw(&mut Canvas::new(width, height, picture).unwrap(), items, style);
}

fn color_of(label: &str) -> Rgb<u8> {
    Rgb(Colors::of([label]).of_label(label))
}

fn bounding_box(x_min: f32, y_min: f32, x_max: f32, y_max: f32) -> BoundingBox {
    BoundingBox { x_min, y_min, x_max, y_max }
}

fn item(label: &str, bounding_box: BoundingBox) -> Item<'_> {
    Item { label, score: Some(0.87), bounding_box, mask: None }
}

const GRAY: Rgb<u8> = Rgb([90, 90, 90]);

#[test]
fn a_box_has_lines_inside_its_edges() {
    let mut picture = RgbImage::from_pixel(100, 80, GRAY);
    let style = Style { labels: false, line_width: Some(3), ..Style::default() };
    draw(&mut picture, &[item("cat", bounding_box(10.0, 20.4, 60.0, 70.0))], &style);
    let color = color_of("cat");
    for (x, y, &pixel) in picture.enumerate_pixels() {
        let in_box = (10..60).contains(&x) && (20..70).contains(&y);
        let in_middle = (13..57).contains(&x) && (23..67).contains(&y);
        assert_eq!(pixel, if in_box && !in_middle { color } else { GRAY }, "column {x}, row {y}");
    }
}

#[test]
fn a_mask_tints_its_pixels_and_has_an_outline() {
    let mut picture = RgbImage::from_pixel(64, 64, GRAY);
    let mask = Mask::paste(&[1.0; 4096], [256, 256, 768, 768], 64, 64, BoxRounding::Nearest).unwrap();
    let cat = Item { mask: Some(&mask), ..item("cat", bounding_box(16.0, 16.0, 48.0, 48.0)) };
    let style = Style { labels: false, boxes: false, mask_opacity: 0.5, ..Style::default() };
    draw(&mut picture, &[cat], &style);
    let color = color_of("cat");
    let mut mixed = GRAY;
    blend(&mut mixed.0, color.0, 0.5);
    assert_eq!(*picture.get_pixel(32, 32), mixed);
    assert_eq!(*picture.get_pixel(16, 32), color);
    assert_eq!(*picture.get_pixel(15, 32), GRAY);
}

#[test]
fn labels_stand_above_their_box_or_inside_the_picture() {
    let color = color_of("cat");
    let colored_rows = |picture: &RgbImage| -> Vec<u32> {
        (0..picture.height())
            .filter(|&y| (0..picture.width()).any(|x| *picture.get_pixel(x, y) == color))
            .collect()
    };
    let style = Style { boxes: false, text_height: Some(16.0), ..Style::default() };

    let mut picture = RgbImage::from_pixel(200, 200, GRAY);
    draw(&mut picture, &[item("cat", bounding_box(50.0, 100.0, 150.0, 150.0))], &style);
    let rows = colored_rows(&picture);
    assert_eq!((rows[0], rows[rows.len() - 1]), (80, 99));

    let mut picture = RgbImage::from_pixel(200, 200, GRAY);
    draw(&mut picture, &[item("cat", bounding_box(190.0, 2.0, 200.0, 150.0))], &style);
    let rows = colored_rows(&picture);
    assert_eq!((rows[0], rows[rows.len() - 1]), (2, 21));
    // Moved to the left, so that all of it shows.
    assert!((0..200).all(|y| *picture.get_pixel(100, y) == GRAY));
    assert_eq!(*picture.get_pixel(199, 3), color);
}

#[test]
fn labels_do_not_cover_each_other_while_there_is_room() {
    let mut once = RgbImage::from_pixel(200, 200, GRAY);
    let mut twice = once.clone();
    let style = Style { boxes: false, ..Style::default() };
    let cat = item("cat", bounding_box(50.0, 80.0, 150.0, 150.0));
    draw(&mut once, &[cat], &style);
    draw(&mut twice, &[cat, cat], &style);
    let drawn = |picture: &RgbImage| picture.pixels().filter(|&&pixel| pixel != GRAY).count();
    assert_eq!(drawn(&twice), 2 * drawn(&once));
}

#[test]
fn tiny_pictures_can_be_drawn_on() {
    let mask = Mask::paste(&[1.0; 4096], [0, 0, 1023, 1023], 1, 1, BoxRounding::Nearest).unwrap();
    for (width, height) in [(0, 0), (0, 5), (1, 1), (1, 300), (300, 1), (2, 2), (14, 14), (20, 20)] {
        let mut picture = RgbImage::from_pixel(width, height, GRAY);
        let items =
            [Item { mask: Some(&mask), ..item("a very long label", bounding_box(0.0, 0.0, 1.0, 1.0)) }];
        draw(&mut picture, &items, &Style::default());
        if width > 0 && height > 0 {
            assert_ne!(*picture.get_pixel(0, 0), GRAY);
        }
    }
}

#[test]
fn a_long_label_leaves_half_of_the_picture() {
    let mut picture = RgbImage::from_pixel(400, 200, GRAY);
    let label = "a thing with a name that is far too long to be shown";
    draw(&mut picture, &[item(label, bounding_box(0.0, 100.0, 20.0, 150.0))], &Style::default());
    assert!((201..400).all(|x| *picture.get_pixel(x, 99) == GRAY));
    assert_ne!(*picture.get_pixel(150, 99), GRAY);
}

proptest! {
    #[test]
    fn anything_can_be_drawn(
        label: String,
        score in prop::option::of(any::<f32>()),
        edges in prop::array::uniform4(prop_oneof![any::<f32>(), -50f32..150.0, Just(f32::NAN)]),
        (width, height) in (0u32..120, 0u32..120),
        locations in prop::array::uniform4(0u16..1024),
        line_width in prop::option::of(any::<u32>()),
        text_height in prop::option::of(any::<f32>()),
        mask_opacity: f32,
    ) {
        let [x_min, y_min, x_max, y_max] = edges;
        let mask = Mask::paste(&[0.5; 4096], locations, 100, 60, BoxRounding::Nearest).unwrap();
        let bounding_box = BoundingBox { x_min, y_min, x_max, y_max };
        let item = Item { label: &label, score, bounding_box, mask: Some(&mask) };
        let style = Style { line_width, text_height, mask_opacity, ..Style::default() };
        let mut picture = RgbImage::from_pixel(width, height, GRAY);
        draw(&mut picture, &[item, item], &style);
        prop_assert_eq!(picture.dimensions(), (width, height));
    }
}

#[test]
fn pixels_must_be_as_many_as_the_size_says() {
    let mut data = [0; 12];
    assert!(Canvas::new(2, 2, &mut data).is_ok() && Canvas::new(0, 9, &mut data).is_ok());
    let error = Canvas::new(2, 3, &mut data).err().unwrap();
    assert_eq!(error.to_string(), "12 bytes are too few for 2 × 3 RGB pixels");
    assert!(Canvas::new(u32::MAX, u32::MAX, &mut data).is_err());
}
