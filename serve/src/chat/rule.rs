//! What people write, as PaliGemma's prompt.

use palmtop::tasks::{Label, Language};

/// The prompt of a user's text: an official form stays as it is, anything else becomes `answer en …`. Line breaks
/// become spaces, since one would end the prompt for the model.
pub(crate) fn prompt(text: &str) -> String {
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join(" ");
    match is_official(&line) {
        true => line,
        false => format!("answer en {line}"),
    }
}

/// True if this is a prompt as the model was trained with: `caption en`, `ocr`, `detect cat ; dog` and so on.
fn is_official(line: &str) -> bool {
    let (task, rest) = line.split_once(' ').unwrap_or((line, ""));
    match task {
        "cap" | "caption" | "describe" => is_language(rest),
        "answer" | "question" => rest
            .split_once(' ')
            .is_some_and(|(language, text)| is_language(language) && !text.trim().is_empty()),
        "ocr" => rest.is_empty(),
        "detect" | "segment" => rest.split(';').all(|label| label.parse::<Label>().is_ok()),
        _ => false,
    }
}

/// The languages of the training data whose codes are of three letters.
const LONG_CODES: [&str; 2] = ["fil", "quz"];

/// Codes of two letters, with a region or without, and those two of three: `answer the door` is no official form.
fn is_language(text: &str) -> bool {
    let code = text.split('-').next().unwrap_or("");
    text.parse::<Language>().is_ok()
        && (code.len() == 2 || LONG_CODES.contains(&code))
        && code.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// True if the answer to this prompt is one of boxes.
pub(crate) fn locates(prompt: &str) -> bool {
    matches!(prompt.split(' ').next(), Some("detect" | "segment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_forms_stay_as_they_are() {
        for text in [
            "cap en",
            "caption de",
            "describe zh-TW",
            "caption fil",
            "answer en where is the cow standing?",
            "question en on the beach",
            "ocr",
            "detect cat",
            "detect cat ; dog;person in a red coat",
            "segment Größe 猫",
        ] {
            assert_eq!(prompt(text), text);
        }
        assert_eq!(prompt(" detect cat ;\r\n dog\n"), "detect cat ; dog");
    }

    #[test]
    fn other_texts_are_questions() {
        for text in [
            "caption",
            "caption en please",
            "caption english",
            "Caption en",
            "describe the picture",
            "answer the door",
            "answer en",
            "ocr this",
            "detect",
            "detect ;",
            "detect a<loc0001>",
            "segment cat ; ",
            "detection",
            "How many dogs are there?",
            "",
        ] {
            assert_eq!(
                prompt(text),
                format!("answer en {text}").trim_end().to_owned() + if text.is_empty() { " " } else { "" },
                "{text}"
            );
        }
        assert_eq!(prompt("\nWhat is\n\nit?\r\n"), "answer en What is it?");
    }
}
