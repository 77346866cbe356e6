//! Drafts of an answer, right and wrong in every way: none may change what is answered.

/// What may be given as a draft.
pub struct Draft {
    /// What is right or wrong about it.
    pub name: &'static str,
    /// Its token ids; some may be in no vocabulary.
    pub tokens: Vec<u32>,
    /// Tokens at its start that the answer begins with too.
    pub right: usize,
}

/// Drafts for `answer`, the greedy one (without the end of sequence), of a model with `vocab` tokens of which `eos`
/// ends an answer. All are of use for an answer of any length, an empty one too.
pub fn drafts(answer: &[u32], eos: u32, vocab: u32) -> Vec<Draft> {
    // Another token of the vocabulary, and not the end either.
    let other = |token: u32| (1..).map(|n| (token + n) % vocab).find(|&t| t != eos).expect("a second token");
    let wrong_at = |at: usize, token: u32| {
        let mut tokens = answer.to_vec();
        if let Some(t) = tokens.get_mut(at) {
            *t = token;
        }
        tokens
    };
    let n = answer.len();
    let (first, middle) = (answer.first().copied().unwrap_or(other(eos)), n / 2);
    let wrong = |at: usize| wrong_at(at, answer.get(at).map_or(0, |&t| other(t)));
    let followed_by = |more: &[u32]| [answer, more].concat();
    let cases = [
        ("exact", answer.to_vec()),
        ("empty", Vec::new()),
        ("exact, and the end behind it", followed_by(&[eos])),
        ("wrong first token", wrong(0)),
        ("wrong second token", wrong(1)),
        ("wrong in the middle", wrong(middle)),
        ("wrong last token", wrong(n.saturating_sub(1))),
        ("all wrong", answer.iter().map(|&t| other(t)).collect()),
        ("every second token wrong", answer.iter().zip(0..).map(|(&t, i)| [t, other(t)][i % 2]).collect()),
        ("one token", answer[..n.min(1)].to_vec()),
        ("shorter by one", answer[..n.saturating_sub(1)].to_vec()),
        ("half as long", answer[..middle].to_vec()),
        ("longer by one", followed_by(&[first])),
        ("longer by itself", followed_by(answer)),
        ("far longer", answer.iter().copied().chain(std::iter::repeat_n(first, 1000)).collect()),
        ("begins one token too late", answer.get(1..).unwrap_or_default().to_vec()),
        ("begins one token too early", [&[first], answer].concat()),
        ("backwards", answer.iter().rev().copied().collect()),
        ("the end at once", vec![eos]),
        ("the end first, then the answer", [&[eos], answer].concat()),
        ("the end in the middle", wrong_at(middle, eos)),
        ("the end, and the answer again", [answer, &[eos], answer].concat()),
        ("only ends", vec![eos; n + 2]),
        ("a token that is not in the vocabulary, first", wrong_at(0, vocab)),
        ("a token that is not in the vocabulary, in the middle", wrong_at(middle, u32::MAX)),
        ("a token that is not in the vocabulary, behind the answer", followed_by(&[vocab, first])),
        ("no token in the vocabulary", vec![u32::MAX; n + 1]),
        ("the last token of the vocabulary", vec![vocab - 1; n + 1]),
        ("the same token throughout", vec![first; n + 1]),
        ("another token throughout", vec![other(first); n + 1]),
    ];
    cases
        .into_iter()
        .map(|(name, tokens)| {
            let right = tokens.iter().zip(answer).take_while(|(a, b)| a == b).count();
            Draft { name, tokens, right }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_what_they_are_called() {
        for answer in [&[][..], &[7], &[7, 7], &[3, 9, 9, 4, 20, 3, 8], &[2; 5]] {
            let drafts = drafts(answer, 1, 21);
            let of = |name: &str| drafts.iter().find(|d| d.name == name).expect("a draft of this name");
            let n = answer.len();
            assert_eq!((of("exact").tokens.as_slice(), of("exact").right), (answer, n));
            assert_eq!(
                (of("empty").tokens.len(), of("wrong first token").right, of("all wrong").right),
                (0, 0, 0)
            );
            assert_eq!((of("wrong in the middle").right, of("the end in the middle").right), (n / 2, n / 2));
            assert_eq!(
                (of("wrong last token").right, of("shorter by one").right),
                (n.max(1) - 1, n.max(1) - 1)
            );
            assert_eq!((of("longer by itself").right, of("longer by itself").tokens.len()), (n, 2 * n));
            assert_eq!(of("exact, and the end behind it").tokens[n], 1);
            let outside = |d: &&Draft| d.tokens.iter().any(|&t| t >= 21);
            assert!(drafts.iter().filter(outside).count() >= 2);
            assert!(drafts.iter().all(|d| d.right <= d.tokens.len().min(n)));
        }
    }
}
