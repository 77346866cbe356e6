use super::*;
use crate::tasks::test_npz;

/// The mask that a closure draws into the whole picture.
fn drawn(width: u32, height: u32, is_set: impl Fn(u32, u32) -> bool) -> Mask {
    let mut mask =
        Mask { x: 0, y: 0, width, height, image_width: width, image_height: height, bits: Vec::new() };
    mask.bits = vec![0; row_bytes(width as usize) * height as usize];
    for y in 0..height {
        for x in (0..width).filter(|&x| is_set(x, y)) {
            mask.bits[y as usize * row_bytes(width as usize) + x as usize / 8] |= 1 << (x % 8);
        }
    }
    mask
}

#[test]
fn pastes_as_the_evaluator_does() {
    let expect = test_npz::read("vae-random-expect.npz");
    let logits: MaskLogits = expect["mask64"].f32s().try_into().unwrap();
    let mask = Mask::paste(&logits, [123, 40, 901, 777], 317, 203, BoxRounding::Evaluator).unwrap();
    let eval_box = expect["eval_box_xyxy"].i64s();
    let found = [mask.x(), mask.y(), mask.x() + mask.width(), mask.y() + mask.height()];
    assert_eq!(found.map(i64::from).as_slice(), eval_box);

    let expected = &expect["eval_mask"];
    assert_eq!((expected.descr.as_str(), expected.shape.as_slice()), ("|b1", [203, 317].as_slice()));
    for y in 0..203 {
        for x in 0..317 {
            assert_eq!(
                mask.contains(x, y),
                expected.data[(y * 317 + x) as usize] != 0,
                "column {x}, row {y}"
            );
        }
    }
    assert_eq!(mask.area(), expected.data.iter().map(|&byte| u64::from(byte)).sum::<u64>());
}

#[test]
fn the_default_box_is_that_of_the_detection() {
    let expect = test_npz::read("vae-random-expect.npz");
    let logits: MaskLogits = expect["mask64"].f32s().try_into().unwrap();
    let mask = Mask::paste(&logits, [123, 40, 901, 777], 317, 203, BoxRounding::default()).unwrap();
    let found = [mask.x(), mask.y(), mask.x() + mask.width(), mask.y() + mask.height()];
    assert_eq!(found.map(i64::from).as_slice(), expect["space_box_xyxy"].i64s());
    let rows: Vec<Vec<bool>> = mask.rows().map(|row| row.collect()).collect();
    assert_eq!((rows.len(), rows[0].len()), (mask.height() as usize, mask.width() as usize));
    assert_eq!(rows[50][60], mask.contains(mask.x() + 60, mask.y() + 50));
    assert_eq!(rows.iter().flatten().filter(|&&bit| bit).count() as u64, mask.area());
}

/// Folds words in the manner of FNV-1a.
fn hash(words: impl IntoIterator<Item = u32>) -> u32 {
    words.into_iter().fold(0, |hash, word| (hash ^ word).wrapping_mul(0x0100_0193))
}

#[test]
fn resizing_is_that_of_pillow_bit_for_bit() {
    // Width, height, hash of the f32 results of Pillow 12.3 (`Image.fromarray(m).resize((w, h), BILINEAR)`), hash of
    // the bits above zero packed by `numpy.packbits(…, axis=1, bitorder="little")`.
    let cases = [
        (1, 1, 0x6f28420c, 0x00000000),
        (64, 64, 0xf45f84f8, 0x316d7c6f),
        (3, 200, 0x33697f1e, 0xa57aeddc),
        (200, 3, 0xc39e01ce, 0x6475487f),
        (17, 33, 0xfa2d2563, 0xb8d34728),
        (63, 65, 0xd4e5cf1a, 0x72374598),
        (640, 361, 0x36ee8fdc, 0x383c1425),
        (31, 500, 0x554d4e7a, 0x8f865104),
        (9, 9, 0x5554343a, 0xb27b7918),
        (128, 1, 0x024b3f3a, 0x47acf31e),
    ];
    let logits: MaskLogits = std::array::from_fn(|index| {
        let (row, column) = (index / MASK_SIDE, index % MASK_SIDE);
        ((row * 7 + column * 13) % 101) as f32 / 50.5 - 0.99
    });
    for (width, height, values_hash, bits_hash) in cases {
        let mut values = Vec::new();
        let each_row = |_, row: &[f64]| values.extend(row.iter().map(|&value| (value as f32).to_bits()));
        resize(&logits, width, height, each_row).unwrap();
        assert_eq!(values.len(), width * height);
        assert_eq!(hash(values), values_hash, "{width} × {height}");
        let bits = resize_and_threshold(&logits, width, height).unwrap();
        assert_eq!(hash(bits.into_iter().map(u32::from)), bits_hash, "{width} × {height}");
    }
}

#[test]
fn degenerate_boxes_have_empty_masks() {
    let logits = [1.0; MASK_SIDE * MASK_SIDE];
    for locations in [[0; 4], [900, 900, 100, 100], [0, 0, 0, 1023], [0, 0, 1023, 0], [1023; 4]] {
        let mask = Mask::paste(&logits, locations, 40, 30, BoxRounding::Nearest).unwrap();
        assert_eq!((mask.width(), mask.height(), mask.area()), (0, 0, 0));
        assert_eq!(mask.rle().counts, [1200]);
        assert_eq!(mask.rows().len(), 0);
    }
    let one = Mask::paste(&logits, [0, 0, 1023, 1023], 1, 1, BoxRounding::Nearest).unwrap();
    assert_eq!((one.area(), one.rle().counts), (1, vec![0, 1]));
    let none = Mask::paste(&logits, [0, 0, 1023, 1023], 0, 0, BoxRounding::Nearest).unwrap();
    assert_eq!((none.area(), none.contains(0, 0)), (0, false));
}

#[test]
fn not_a_number_is_outside() {
    let logits = [f32::NAN; MASK_SIDE * MASK_SIDE];
    assert_eq!(Mask::paste(&logits, [0, 0, 1023, 1023], 9, 9, BoxRounding::Nearest).unwrap().area(), 0);
}

#[test]
fn pictures_beyond_counting_are_refused() {
    let logits = [1.0; MASK_SIDE * MASK_SIDE];
    let error = Mask::paste(&logits, [0, 0, 1, 1], 65536, 65536, BoxRounding::Nearest).unwrap_err();
    assert_eq!(error, MaskError::TooLarge { width: 65536, height: 65536 });
}

#[test]
fn run_lengths_cover_the_picture() {
    let mut logits = [-1.0; MASK_SIDE * MASK_SIDE];
    logits[..MASK_SIDE * MASK_SIDE / 2].fill(1.0);
    let mask = Mask::paste(&logits, [256, 256, 768, 512], 8, 8, BoxRounding::Nearest).unwrap();
    assert_eq!((mask.x(), mask.y(), mask.width(), mask.height()), (2, 2, 2, 4));
    assert_eq!(mask.rle().counts, [18, 2, 6, 2, 36]);

    let rle = drawn(5, 7, |x, y| (x * 3 + y * y) % 4 < 2).rle();
    assert_eq!(rle.counts.iter().sum::<u32>(), 35);
    let mut pixels = Vec::new();
    for (index, &count) in rle.counts.iter().enumerate() {
        pixels.extend(std::iter::repeat_n(index % 2 == 1, count as usize));
    }
    for x in 0..5 {
        for y in 0..7 {
            assert_eq!(pixels[(x * 7 + y) as usize], (x * 3 + y * y) % 4 < 2);
        }
    }
}

#[test]
fn compressed_run_lengths_are_those_of_pycocotools() {
    let compressed =
        |width, height, is_set: fn(u32, u32) -> bool| drawn(width, height, is_set).rle().compressed();
    assert_eq!(compressed(5, 7, |x, y| (x * 3 + y * y) % 4 < 2), "071J000070I00007");
    assert_eq!(compressed(3, 2, |_, _| true), "06");
    assert_eq!(compressed(3, 2, |_, _| false), "6");
    assert_eq!(
        compressed(100, 80, |x, y| x.abs_diff(50).pow(2) + y.abs_diff(40).pow(2) < 900),
        "ae1?n16J6L2M4M2M4M2N2N2N2O0O2N2O0O2N2O000O2O000O2O0000000000000000000000000001N10001N10001N2N101N2N101N2N2N2N3L3N3L3N4J6JRa1"
    );
    assert_eq!(
        compressed(1000, 900, |x, y| x < 10 || (500..503).contains(&x) && y % 300 < 2),
        "0Xi8Xe^=jVGRdaB000000000000000Tjd="
    );
    let stripes = compressed(300, 200, |x, y| (x * 7 + y * 13) % 97 < 40);
    assert_eq!((stripes.len(), hash(stripes.bytes().map(u32::from))), (16244, 0xcedd41));
}
