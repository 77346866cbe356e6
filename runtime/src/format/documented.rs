//! The example of `docs/format.md` is what the code writes and reads.

use palmtop_kernels::layout::{MatrixLayout, PackedMatrix, WeightFormat};

use super::{Head, Storage, TensorInfo, checksum};

const PAGE: &str = include_str!("../../../docs/format.md");

/// The bytes of the page's dump: offset, then up to 16 bytes, then what does not count.
fn dumped() -> Vec<u8> {
    let dump = PAGE.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a dump");
    let mut bytes = Vec::new();
    for line in dump.lines() {
        let (offset, rest) = line.split_once("  ").expect("an offset");
        assert_eq!(usize::from_str_radix(offset, 16), Ok(bytes.len()), "{line}");
        let hex = rest.split_once('|').map_or(rest, |(hex, _)| hex);
        bytes.extend(hex.split_whitespace().map(|b| u8::from_str_radix(b, 16).expect("two digits")));
    }
    bytes
}

fn written() -> Vec<u8> {
    let mut matrix = [0; 128];
    matrix[..4].copy_from_slice(&[0x80, 0x3F, 0x80, 0x3E]); // 1 and 0.25 as bf16
    matrix[64..72].copy_from_slice(&[1, -2, 3, 0, 2, 1, -2, 0].map(|q: i8| q as u8));
    let mut head = Head::default();
    head.metadata.set("a.name", "hi");
    head.metadata.set("a.size", 42u64);
    let int8 = Storage::Packed(WeightFormat::Int8);
    for (name, storage, shape, data) in
        [("blob", Storage::Bytes, &[3][..], &b"abc"[..]), ("w", int8, &[2, 3], &matrix)]
    {
        let mut info = TensorInfo::new(name, storage, shape).expect("a possible shape");
        info.checksum = checksum(data);
        head.tensors.push(info);
    }
    let length = head.place();
    let mut file = head.encode();
    file.resize(length as usize, 0);
    for (t, data) in head.tensors.iter().zip([&b"abc"[..], &matrix]) {
        file[t.offset as usize..][..data.len()].copy_from_slice(data);
    }
    file
}

#[test]
fn the_example_is_what_is_written() {
    let written = written();
    if dumped() != written {
        for (i, row) in written.chunks(16).enumerate() {
            let hex: Vec<String> = row.iter().map(|b| format!("{b:02x}")).collect();
            let text = row.iter().map(|&b| if b.is_ascii_graphic() { b as char } else { '.' });
            println!("{:04x}  {:<47}  |{}|", i * 16, hex.join(" "), text.collect::<String>());
        }
        panic!("the dump of docs/format.md should be as above");
    }
}

#[test]
fn the_example_reads_as_the_page_says() {
    let file = dumped();
    let head = Head::parse(&file).expect("a sound file");
    assert_eq!((head.metadata.text("a.name"), head.metadata.u64("a.size")), (Ok("hi".into()), Ok(42)));
    let data = |t: &TensorInfo| &file[t.offset as usize..][..t.length as usize];
    assert!(head.tensors.iter().all(|t| checksum(data(t)) == t.checksum));
    let layout = MatrixLayout::new(WeightFormat::Int8, 2, 3).expect("a possible shape");
    let matrix = PackedMatrix::new(layout, data(&head.tensors[1])).expect("as long as its shape says");
    let mut row = [0.0; 3];
    for (n, want) in [[1.0, -2.0, 3.0], [0.5, 0.25, -0.5]].iter().enumerate() {
        matrix.dequantize_row(n, &mut row);
        assert_eq!(row, *want);
    }
}

#[test]
fn the_page_says_the_checksum_of_nothing() {
    assert!(PAGE.contains(&format!("{:016x}", checksum(b""))));
}
