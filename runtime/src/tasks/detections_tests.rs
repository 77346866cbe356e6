use proptest::prelude::*;

use super::*;
use crate::tasks::Objects;
use crate::tasks::boxes::rounded_edge;

const CODES: &str = "<seg060><seg100><seg109><seg085><seg013><seg030><seg091><seg022>\
                     <seg108><seg044><seg003><seg019><seg016><seg039><seg120><seg030>";
const CODE_VALUES: [u8; 16] = [60, 100, 109, 85, 13, 30, 91, 22, 108, 44, 3, 19, 16, 39, 120, 30];

fn labels(text: &str) -> Vec<String> {
    Detections::read(text, 100, 100).objects.into_iter().map(|detection| detection.label).collect()
}

#[test]
fn a_segmentation_answer_reads_as_the_reference_reads_it() {
    let text = format!(
        "<loc0123><loc0040><loc0901><loc0777>{CODES} small cat ; <loc0000><loc0512><loc1023><loc1023> dog"
    );
    let answer = Detections::read(&text, 317, 203);
    let [cat, dog] = &answer.objects[..] else { panic!("{answer:?}") };
    assert_eq!(cat.label, "small cat");
    assert_eq!(cat.locations, [123, 40, 901, 777]);
    assert_eq!(cat.mask_codes, Some(CODE_VALUES));
    assert_eq!(cat.pixel_box, PixelBox { x_min: 12, y_min: 24, x_max: 241, y_max: 179 });
    assert_eq!(
        &text[cat.text_span.clone()],
        format!("<loc0123><loc0040><loc0901><loc0777>{CODES} small cat")
    );
    assert_eq!(dog.label, "dog");
    assert_eq!(dog.mask_codes, None);
    assert_eq!(dog.pixel_box, PixelBox { x_min: 158, y_min: 0, x_max: 317, y_max: 203 });
    assert_eq!(dog.bounding_box.x_min, 158.5);
    assert_eq!(dog.bounding_box.y_max, 1023.0 * 203.0 / 1024.0);
    assert_eq!(
        (cat.text_before.as_str(), dog.text_before.as_str(), answer.text_after.as_str()),
        ("", "", "")
    );
}

#[test]
fn text_around_objects_is_kept() {
    let answer = Detections::read(
        "I see <loc0001><loc0002><loc0003><loc0004> a cat> and\n<loc0001><loc0002><loc0003><loc0004>;end",
        9,
        9,
    );
    let kept: Vec<_> = answer.objects.iter().map(|d| (d.text_before.as_str(), d.label.as_str())).collect();
    assert_eq!(kept, [("I see ", "a cat"), ("> and\n", "")]);
    assert_eq!(answer.text_after, "end");

    let caption = Detections::read("a cow on the beach", 9, 9);
    assert_eq!((caption.objects.len(), caption.text_after.as_str()), (0, "a cow on the beach"));
    assert_eq!(Detections::read("", 9, 9), Detections::default());
}

#[test]
fn white_space_and_separators_may_vary() {
    let four = "<loc0001><loc0002><loc0003><loc0004>";
    assert_eq!(
        labels(&format!("{four}cat;{four}dog ;{four}\n\tbig  bird \n; ")),
        ["cat", "dog", "big  bird"]
    );
    assert_eq!(labels(&format!("{four} cat {four} dog")), ["cat", "dog"]);
    assert_eq!(labels(&format!("{four}{four}")), ["", ""]);
    let answer = Detections::read(&format!("{four} \n{CODES}\u{a0}Größe 猫 ;"), 1, 1);
    assert_eq!(answer.objects[0].mask_codes, Some(CODE_VALUES));
    assert_eq!(answer.objects[0].label, "Größe 猫");
}

#[test]
fn incomplete_and_impossible_tokens_are_text() {
    let four = "<loc0001><loc0002><loc0003><loc0004>";
    for text in [
        "<loc0001><loc0002><loc0003> cat",
        "<loc0001> <loc0002><loc0003><loc0004> cat",
        "<loc0001><loc0002><loc0003><loc1024> cat",
        "<loc0001><loc0002><loc0003><loc00٤> cat",
        "<loc0001><loc0002><loc0003><loc+123> cat",
        "<loc0001><loc0002><loc0003><loc0004",
        "<LOC0001><loc0002><loc0003><loc0004> cat",
    ] {
        let answer = Detections::read(text, 9, 9);
        assert_eq!((answer.objects.len(), answer.text_after.as_str()), (0, text));
    }
    // The first four of five locations are an object without a label, as in the reference.
    let answer = Detections::read("<loc0009><loc0001><loc0002><loc0003><loc0004> cat", 9, 9);
    assert_eq!(answer.objects[0].locations, [9, 1, 2, 3]);
    assert_eq!(answer.text_after, "<loc0004> cat");
    // So are locations before a broken run of codes.
    for broken in [&CODES[8..], &CODES.replace("<seg120>", "<seg128>"), &CODES.replace("<seg120>", "<seg12>")]
    {
        let answer = Detections::read(&format!("{four}{broken} cat"), 9, 9);
        assert_eq!((answer.objects[0].mask_codes, answer.objects[0].label.as_str()), (None, ""));
        assert_eq!(answer.text_after, format!("{broken} cat"));
    }
    // A seventeenth code is text.
    assert_eq!(Detections::read(&format!("{four}{CODES}<seg001> cat"), 9, 9).text_after, "<seg001> cat");
}

#[test]
fn edges_are_ordered_and_rounded_half_to_even() {
    let inverted = PixelBox::from_locations([800, 900, 100, 200], 1024, 1024);
    assert_eq!(inverted, PixelBox { x_min: 200, y_min: 100, x_max: 900, y_max: 800 });
    assert_eq!((inverted.width(), inverted.height()), (700, 700));
    // 512/1024 of 1, 3, 5 is 0.5, 1.5, 2.5.
    assert_eq!([1, 3, 5, u32::MAX].map(|size| rounded_edge(512, size)), [0, 2, 2, 1 << 31]);
    assert_eq!(rounded_edge(1023, 1), 1);
    assert_eq!(rounded_edge(u16::MAX, 7), 7);
    let everything = BoundingBox::from_locations([0, 0, 1024, 1024], 640, 361);
    assert_eq!(everything, BoundingBox { x_min: 0.0, y_min: 0.0, x_max: 640.0, y_max: 361.0 });
}

/// A text made of the given tokens, and where each ends.
fn joined(tokens: &[&str]) -> (String, Vec<usize>) {
    let mut text = String::new();
    let ends = tokens.iter().map(|token| {
        text.push_str(token);
        text.len()
    });
    let ends = ends.collect();
    (text, ends)
}

#[test]
fn tokens_of_an_object_are_found_and_scored() {
    let (text, ends) = joined(&[
        "",
        "<loc0001>",
        "<loc0002>",
        "<loc0003>",
        "<loc0004>",
        " traffic",
        " light",
        " ;",
        " ",
        "<loc0001>",
        "<loc0002>",
        "<loc0003>",
        "<loc0004>",
        " ",
        "",
        "",
        "猫",
        "<loc0001>",
        "<loc0002>",
        "<loc0003>",
        "<loc0004>",
        "",
    ]);
    let mut answer = Detections::read_tokens(&text, &ends, 10, 10);
    let tokens: Vec<_> = answer.objects.iter().map(|d| d.tokens.clone().unwrap()).collect();
    let expected = [(1..7, 1..5, 5..7), (9..17, 9..13, 14..17), (17..21, 17..21, 22..22)];
    for (tokens, (span, locations, label)) in tokens.iter().zip(expected) {
        assert_eq!((&tokens.span, &tokens.locations, &tokens.label), (&span, &locations, &label));
        assert!(tokens.mask_codes.is_empty());
    }

    let mut probabilities = vec![0.9; ends.len()];
    probabilities[5] = 0.5;
    probabilities[6] = 0.25;
    answer.set_scores(&probabilities);
    assert_eq!(answer.objects[0].score, Some(0.125));
    assert!((answer.objects[1].score.unwrap() - 0.729).abs() < 1e-6);
    assert_eq!(answer.objects[2].score, None);
    answer.set_scores(&probabilities[..10]);
    assert_eq!(answer.objects[1].score, None);
}

#[test]
fn mask_code_tokens_are_found() {
    let mut tokens = vec!["<loc0001>"; 4];
    tokens.extend((0..16).map(|code| &CODES[code * 8..][..8]));
    tokens.push(" cat");
    let (text, ends) = joined(&tokens);
    let answer = Detections::read_tokens(&text, &ends, 10, 10);
    let expected = ObjectTokens { span: 0..21, locations: 0..4, mask_codes: 4..20, label: 20..21 };
    assert_eq!(answer.objects[0].tokens, Some(expected));
}

#[test]
fn likelihoods_outside_zero_to_one_are_no_score() {
    assert_eq!(label_likelihood(&[]), None);
    assert_eq!(label_likelihood(&[0.5, f32::NAN]), None);
    assert_eq!(label_likelihood(&[1.5]), None);
    assert_eq!(label_likelihood(&[1.0, 0.0]), Some(0.0));
}

/// Texts that nearly are answers.
fn answer_like() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => (0u16..1100).prop_map(|value| format!("<loc{value:04}>")),
        2 => (0u16..140).prop_map(|value| format!("<seg{value:03}>")),
        1 => Just("<loc0001><loc0200><loc0900><loc1023>".to_owned()),
        1 => Just(CODES.to_owned()),
        1 => prop::sample::select(vec![" ", " ; ", ";", "cat", "<", ">", "<loc", "\n", "猫", "\u{a0}", "🦀"])
            .prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_text_is_read_in_order_and_in_bounds(
        text in answer_like(),
        ends in prop::collection::vec(0usize..2000, 0..50),
        width: u32,
        height: u32,
    ) {
        let answer = Detections::read_tokens(&text, &ends, width, height);
        let mut position = 0;
        for detection in &answer.objects {
            prop_assert!(position <= detection.text_span.start && detection.text_span.end <= text.len());
            prop_assert!(text[position..detection.text_span.start].ends_with(&detection.text_before));
            position = detection.text_span.end;
            prop_assert!(text.get(detection.text_span.clone()).is_some());
            prop_assert!(detection.locations.iter().all(|&location| location < 1024));
            prop_assert!(detection.mask_codes.is_none_or(|codes| codes.iter().all(|&code| code < 128)));
            prop_assert_eq!(detection.label.trim(), &detection.label);
            prop_assert!(!detection.label.contains([';', '<', '>']));
            let pixels = detection.pixel_box;
            prop_assert!(pixels.x_min <= pixels.x_max && pixels.x_max <= width);
            prop_assert!(pixels.y_min <= pixels.y_max && pixels.y_max <= height);
            let tokens = detection.tokens.as_ref().unwrap();
            for range in [&tokens.span, &tokens.locations, &tokens.mask_codes, &tokens.label] {
                prop_assert!(range.start <= range.end && range.end <= ends.len());
            }
        }
        prop_assert!(text.ends_with(&answer.text_after));
    }

    #[test]
    fn written_objects_read_back(
        objects in prop::collection::vec(
            (prop::array::uniform4(0u16..1024), prop::option::of(prop::array::uniform16(0u8..128)), "[a-z]{1,8}( [a-z]{1,8})?"),
            0..8,
        ),
    ) {
        let written: Vec<String> = objects.iter().map(|(locations, codes, label)| {
            let locations: String = locations.iter().map(|value| format!("<loc{value:04}>")).collect();
            let codes: String = codes.iter().flatten().map(|value| format!("<seg{value:03}>")).collect();
            format!("{locations}{codes} {label}")
        }).collect();
        let text = written.join(" ; ");
        let read: Vec<_> = Objects::new(&text)
            .map(|object| (object.locations, object.mask_codes, object.label.to_owned()))
            .collect();
        prop_assert_eq!(read, objects);
    }
}
