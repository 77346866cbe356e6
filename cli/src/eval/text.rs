//! Scores a text against the expected one.

use std::collections::HashMap;

/// Whether two texts are the same but for white space: none at the ends, one blank for any run of it.
pub fn is_exact(answer: &str, expected: &str) -> bool {
    answer.split_whitespace().eq(expected.split_whitespace())
}

/// Word overlap, from 0 to 1: the F1 score 2·|A ∩ B| / (|A| + |B|) of the two bags of words, where a word that stands
/// twice counts twice. Words are runs of letters and digits, in lower case; two texts without any overlap fully.
pub fn overlap(answer: &str, expected: &str) -> f64 {
    let mut left: HashMap<String, usize> = HashMap::new();
    let mut expected_words = 0usize;
    for word in words(expected) {
        *left.entry(word).or_default() += 1;
        expected_words += 1;
    }
    let (mut common, mut answer_words) = (0usize, 0usize);
    for word in words(answer) {
        answer_words += 1;
        if let Some(n) = left.get_mut(&word).filter(|n| **n > 0) {
            *n -= 1;
            common += 1;
        }
    }
    match answer_words + expected_words {
        0 => 1.0,
        both => 2.0 * common as f64 / both as f64,
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_does_not_count_and_all_else_does() {
        assert!(is_exact(" a  cat\n", "a cat") && is_exact("", " "));
        for (a, b) in [("a cat", "A cat"), ("a cat", "a cat."), ("acat", "a cat"), ("", "a")] {
            assert!(!is_exact(a, b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn overlap_counts_words_as_often_as_both_have_them() {
        for (answer, expected, f1) in [
            ("a red car", "a red car", 1.0),
            ("A red, car!", "a red car", 1.0),
            ("", "", 1.0),
            ("...", "", 1.0),
            ("", "a", 0.0),
            ("b", "a", 0.0),
            // 2 of 3 and 2 of 4 words.
            ("a red car", "a red bus here", 4.0 / 7.0),
            // The second "the" has no partner.
            ("the the", "the", 2.0 / 3.0),
            ("the", "the the the", 0.5),
            ("Größe 42", "größe", 2.0 / 3.0),
        ] {
            assert!((overlap(answer, expected) - f1).abs() < 1e-12, "{answer:?} {expected:?}");
            assert_eq!(overlap(answer, expected), overlap(expected, answer));
        }
    }
}
