//! Model files.

use palmtop::format::{Head, MAGIC, PalmFile, VERSION, checksum};
use palmtop::model::Model;
use palmtop::tokenizer::format::header;
use palmtop::tokenizer::{EncodeScratch, TokenizerLayout};
use palmtop::{Limits, Session};

/// Bytes of a file before the tables; see `docs/format.md`.
const FIXED_BYTES: usize = 48;
/// Where the checksum begins, and what it covers.
const CHECKED_FROM: usize = 40;

/// A whole `.palm` file. What a liar gets right anyway is made right: magic, version, length and checksum.
pub fn head(bytes: &[u8]) {
    let mut file = Aligned::of(bytes);
    let bytes = file.bytes_mut();
    if bytes.len() >= FIXED_BYTES {
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].fill(0);
        let length = bytes.len() as u64;
        bytes[24..32].copy_from_slice(&length.to_le_bytes());
        let head_bytes = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
        if (FIXED_BYTES as u64..=length).contains(&head_bytes) {
            let sum = checksum(&bytes[CHECKED_FROM..head_bytes as usize]);
            bytes[32..40].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let Ok(head) = Head::parse(file.as_ref()) else { return };
    let length = file.as_ref().len() as u64;
    assert!(head.tensors.iter().all(|t| t.offset.checked_add(t.length).is_some_and(|end| end <= length)));
    // What was read can be written, and read again.
    let mut again = head.clone();
    again.place();
    assert!(again.encode().len() as u64 <= length);
    let opened = PalmFile::from_memory(file.clone()).expect("a head that was read");
    for t in &head.tensors {
        assert_eq!(opened.find(&t.name), Some(t));
        assert_eq!(opened.data(t).len() as u64, t.length);
    }
    opened.verify(|_| {});
    let Ok(model) = Model::from_memory(file) else { return };
    let _ = model.tokenizer().verify();
    let _ = model.mask_codec();
    let mut limits = Limits::default();
    (limits.threads, limits.prompt_tokens, limits.new_tokens) = (Some(1), 8, 2);
    let Ok(plan) = model.plan(&limits) else { return };
    // Wrong weights give wrong answers, and nothing else.
    if plan.session_bytes() < 64 << 20 {
        let Ok(mut session) = Session::new(&model, &limits) else { return };
        let pixels = [7; 3 * 5 * 4];
        let picture = palmtop::image::RgbView::new(5, 4, 15, &pixels).expect("a small picture");
        let options = palmtop::GenerateOptions::default();
        let Ok(mut features) = session.new_features() else { return };
        if session.encode(picture, &mut features, &options).is_ok() {
            let _ = session.answer(&features, &["a"], &options, &mut |_| std::ops::ControlFlow::Continue(()));
        }
    }
}

/// A tokenizer's table, of the length that it states.
pub fn tokenizer_table(bytes: &[u8]) {
    let mut table = bytes.to_vec();
    let length = table.len() as u64;
    if let Some(stated) = table.get_mut(header::TOTAL_BYTES..header::TOTAL_BYTES + 8) {
        stated.copy_from_slice(&length.to_le_bytes());
    }
    let Ok(layout) = TokenizerLayout::parse(&table) else { return };
    let tokenizer = layout.bind(&table);
    let is_sound = tokenizer.verify().is_ok();
    let (mut ids, mut text) = (Vec::new(), String::new());
    let sample = "caption en a\u{2581}b <image><loc0001> \u{7f}\u{e9}\n\t  the";
    let mut scratch = EncodeScratch::with_capacity(sample.len());
    tokenizer.encode(sample, &mut scratch, &mut ids).expect("room for the text");
    assert!(ids.len() <= sample.len());
    let decoded = tokenizer.decode(&ids, false, &mut text);
    assert!(decoded.is_ok() || !is_sound);
    for id in (0..tokenizer.piece_count().min(64)).chain([u32::MAX]) {
        text.clear();
        let _ = tokenizer.decode(&[id], true, &mut text);
        assert!(text.len() <= tokenizer.decoded_bytes_max(1));
    }
}

/// Bytes that begin at a multiple of 64.
#[derive(Clone)]
pub(super) struct Aligned {
    blocks: Vec<Block>,
    length: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block([u8; 64]);

impl Aligned {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let block = |part: &[u8]| {
            let mut block = Block([0; 64]);
            block.0[..part.len()].copy_from_slice(part);
            block
        };
        Self { blocks: bytes.chunks(64).map(block).collect(), length: bytes.len() }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: blocks are plain bytes without padding, and there are at least `length` of them, as `of` made them.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), self.length) }
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.length) }
    }
}
