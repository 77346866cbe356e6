use proptest::prelude::*;

use super::*;

/// What NumPy 2 writes for `savez_compressed(f, a=…, **{"decoder.0.bias": …}, c=…, f=…, z=…)`: a 2x3 array of quarters,
/// a single 7, an array of f64, a 2x2 array in Fortran's order, 4096 zeros.
const COMPRESSED: &str = "\
    504b03042d0000000800000021000a9c00a4ffffffffffffffff05001400612e6e707901001000980000000000000056\
    000000000000009bec17ea1b10c9c850c650ad9e925a9c5ca46ea5a06e9366a2aea3a09e965f54529498179f5f94920a\
    12774bcc294e058a17672416a402f91a463a0ac69a3a0ab50a64032e063068b00312f60c0c0e40dc00c40bec01504b03\
    042d0000000800000021002a5bd808ffffffffffffffff120014006465636f6465722e302e626961732e6e7079010010\
    00840000000000000046000000000000009bec17ea1b10c9c850c650ad9e925a9c5ca46ea5a06e9366a2aea3a09e965f\
    54529498179f5f94920a12774bcc294e058a17672416a402f91a9a3a0ab50a14012e0686070e00504b03042d00000008\
    00000021002421e12bffffffffffffffff05001400632e6e70790100100098000000000000004c000000000000009bec\
    17ea1b10c9c850c650ad9e925a9c5ca46ea5a06e9366a1aea3a09e965f54529498179f5f94920a12774bcc294e058a17\
    672416a402f91ac63a9a3a0ab50a14002e0614f0c11eca700000504b03042d000000080000002100475fdbe7ffffffff\
    ffffffff05001400662e6e70790100100090000000000000004b000000000000009bec17ea1b10c9c850c650ad9e925a\
    9c5ca46ea5a06e9366a2aea3a09e965f54529498179f5f94920a120f292a4d050a17672416a402b91a463a0a469a3a0a\
    b50ae4032e0686067b640c00504b03042d0000000800000021009ad6ddf9ffffffffffffffff050014007a2e6e707901\
    00100080400000000000007300000000000000edc8b10ec1500040d15a7dc5db1e4907432321661bb1184cd2e86b0ca2\
    f22a16f1157e58fd82c572ce76ef7bbbdfec0ea3e2513c6393fa538ecb10576d15cb10db2edf737d3d76b949dfbfae2f\
    7d1a7e7fae6f69e849355bcccb69195ee157e302000000000000000000000000000000f8bb0f504b01022d032d000000\
    0800000021000a9c00a45600000098000000050000000000000000000000800100000000612e6e7079504b01022d032d\
    0000000800000021002a5bd808460000008400000012000000000000000000000080018d0000006465636f6465722e30\
    2e626961732e6e7079504b01022d032d0000000800000021002421e12b4c000000980000000500000000000000000000\
    00800117010000632e6e7079504b01022d032d000000080000002100475fdbe74b000000900000000500000000000000\
    0000000080019a010000662e6e7079504b01022d032d0000000800000021009ad6ddf973000000804000000500000000\
    0000000000000080011c0200007a2e6e7079504b050600000000050005000c010000c60200000000";

fn compressed() -> Vec<u8> {
    let digits: Vec<u8> =
        COMPRESSED.bytes().map(|digit| char::from(digit).to_digit(16).unwrap() as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn vector(name: &str) -> Vec<u8> {
    let path = format!("{}/../tests/data/vectors/seg/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x93];
    bytes.extend(b"NUMPY");
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// An archive of one stored entry, `x.npy`.
fn archive(content: &[u8]) -> Vec<u8> {
    let mut central = b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0".to_vec();
    central.extend(crc32fast::hash(content).to_le_bytes());
    central.extend((content.len() as u32).to_le_bytes());
    central.extend((content.len() as u32).to_le_bytes());
    central.extend([5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    central.extend(b"x.npy");

    let mut file = b"PK\x03\x04".to_vec();
    file.extend([0; 22]);
    file.extend([5, 0, 0, 0]);
    file.extend(b"x.npy");
    file.extend(content);
    let offset = file.len() as u32;
    file.extend(&central);
    file.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    file.extend((central.len() as u32).to_le_bytes());
    file.extend(offset.to_le_bytes());
    file.extend([0, 0]);
    file
}

fn read_archive(content: &[u8]) -> Result<NpyArray, NpzError> {
    Npz::parse(&archive(content)).unwrap().read_f32("x")
}

fn fault(result: Result<NpyArray, NpzError>) -> EntryFault {
    match result {
        Err(NpzError::Entry { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

const GOOD_HEADER: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
const GOOD_DATA: [u8; 8] = [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0];

#[test]
fn the_mask_decoders_weights_are_read() {
    let file = vector("vae-random.npz");
    let npz = Npz::parse(&file).unwrap();
    assert_eq!(npz.names().len(), 26);
    for spec in palmtop::tasks::MaskCodec::tensors() {
        let array = npz.read_f32(&spec.name).unwrap();
        assert_eq!(array.data.len(), array.shape.iter().product::<usize>());
        assert_eq!(array.shape, spec.shape_max());
        assert!(array.data.iter().all(|value| value.is_finite() && value.abs() < 10.0));
    }
}

#[test]
fn compressed_arrays_are_read() {
    let file = compressed();
    let npz = Npz::parse(&file).unwrap();
    assert_eq!(npz.names().collect::<Vec<_>>(), ["a", "decoder.0.bias", "c", "f", "z"]);
    let a = NpyArray { shape: vec![2, 3], data: vec![0.0, 0.25, 0.5, 0.75, 1.0, 1.25] };
    assert_eq!(npz.read_f32("a").unwrap(), a);
    assert_eq!(npz.read_f32("decoder.0.bias").unwrap(), NpyArray { shape: vec![], data: vec![7.0] });
    assert_eq!(npz.read_f32("z").unwrap().data, [0.0; 4096]);
    assert_eq!(fault(npz.read_f32("c")), EntryFault::Type("<f8".into()));
    assert_eq!(fault(npz.read_f32("f")), EntryFault::FortranOrder);
    assert_eq!(npz.read_f32("b").unwrap_err(), NpzError::Missing { name: "b".into() });
}

#[test]
fn every_version_and_spelling_of_a_header_is_read() {
    let expected = NpyArray { shape: vec![2], data: vec![1.0, -2.0] };
    for version in [1, 2, 3] {
        assert_eq!(read_archive(&npy(version, GOOD_HEADER, &GOOD_DATA)).unwrap(), expected);
    }
    for header in [
        "{\"shape\":(2,),\"descr\":\"<f4\",\"fortran_order\":False}",
        " { 'fortran_order' : True , 'shape' : ( 2 ) , 'descr' : '<f4' } \n",
    ] {
        assert_eq!(read_archive(&npy(1, header, &GOOD_DATA)).unwrap(), expected, "{header}");
    }
}

#[test]
fn broken_arrays_are_refused_by_name() {
    for header in [
        "",
        "{",
        "{}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,",
        "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (2,)}",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}",
        "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}",
    ] {
        assert_eq!(fault(read_archive(&npy(1, header, &GOOD_DATA))), EntryFault::Header, "{header}");
    }
    let typed = |descr: &str| npy(1, &GOOD_HEADER.replace("<f4", descr), &GOOD_DATA);
    for descr in [">f4", "<f8", "<i2", "|V4", "|O", ""] {
        assert_eq!(fault(read_archive(&typed(descr))), EntryFault::Type(descr.into()));
    }
    for shape in ["(3,)", "(2, 2)", "()", "(0,)", "(4611686018427387904, 4)"] {
        let array = npy(1, &GOOD_HEADER.replace("(2,)", shape), &GOOD_DATA);
        assert!(matches!(fault(read_archive(&array)), EntryFault::Size { bytes: 8, .. }), "{shape}");
    }
    for content in [
        &b""[..],
        b"\x93NUMPY\x01",
        b"\x93NUMPY\x01\0\xff",
        b"\x93NUMPY\x02\0\xff\xff\xff\xff",
        b"\x93NUMPY\x04\0\0\0",
    ] {
        assert_eq!(fault(read_archive(content)), EntryFault::NotNpy, "{content:?}");
    }
}

#[test]
fn half_precision_is_read() {
    let header = GOOD_HEADER.replace("(2,)", "(4,)");
    for (descr, data, expected) in [
        ("<f2", [0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0xff, 0x7b], [1.0, -2.0, 5.960_464_5e-8, 65504.0]),
        ("|V2", [0x80, 0x3f, 0x00, 0xc0, 0x01, 0x00, 0x7f, 0x7f], [1.0, -2.0, 9.183_55e-41, 3.389_531_4e38]),
    ] {
        let array = read_archive(&npy(1, &header.replace("<f4", descr), &data)).unwrap();
        assert_eq!(array.data, expected, "{descr}");
    }
}

#[test]
fn broken_archives_are_refused() {
    let good = archive(&npy(1, GOOD_HEADER, &GOOD_DATA));
    let directory = good.len() - 22 - 51;
    let read = |file: &[u8]| Npz::parse(file)?.read_f32("x");
    assert!(read(&good).is_ok());
    let mut commented = good.clone();
    let length_at = commented.len() - 2;
    commented[length_at] = 5;
    commented.extend(b"hello");
    assert!(read(&commented).is_ok());

    assert_eq!(read(b"").unwrap_err(), NpzError::NotZip);
    assert_eq!(read(&good[..good.len() - 1]).unwrap_err(), NpzError::NotZip);
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        read(&file)
    };
    assert!(matches!(patched(good.len() - 6, &[0xff; 4]).unwrap_err(), NpzError::Truncated(_)));
    assert!(matches!(patched(directory + 20, &[0xff; 4]).unwrap_err(), NpzError::Truncated(_)));
    assert!(matches!(patched(good.len() - 6, &[0xfe; 4]).unwrap_err(), NpzError::Truncated(_)));
    assert!(matches!(patched(good.len() - 12, &[2]).unwrap_err(), NpzError::Truncated(_)));
    assert_eq!(fault(patched(directory + 8, &[1])), EntryFault::Encrypted);
    assert_eq!(fault(patched(directory + 10, &[93])), EntryFault::Method(93));
    // The bytes of the array happen to be a deflated stream, of other bytes.
    assert_eq!(fault(patched(directory + 10, &[8])), EntryFault::Checksum);
    assert_eq!(fault(patched(directory + 16, &[0])), EntryFault::Checksum);
    assert_eq!(fault(patched(directory + 24, &[0, 1])), EntryFault::Checksum);
    assert_eq!(fault(patched(directory + 24, &[0xfe; 4])), EntryFault::TooLarge { bytes: 0xfefe_fefe });
    assert_eq!(fault(patched(directory + 20, &[0xfe; 4])), EntryFault::OutOfBounds);
    assert_eq!(fault(patched(directory + 42, &[0xfe; 4])), EntryFault::OutOfBounds);
    assert_eq!(fault(patched(directory + 42, &[1])), EntryFault::OutOfBounds);
}

#[test]
fn an_entry_unpacks_to_no_more_than_it_says() {
    let mut file = compressed();
    let central =
        file.windows(5).rposition(|window| window == b"z.npy").unwrap() - archive::CENTRAL_HEADER_BYTES;
    file[central + 24..central + 28].copy_from_slice(&1000u32.to_le_bytes());
    assert_eq!(fault(Npz::parse(&file).unwrap().read_f32("z")), EntryFault::Deflate);
}

proptest! {
    #[test]
    fn damaged_files_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut: prop::sample::Index) {
        for mut file in [compressed(), archive(&npy(1, GOOD_HEADER, &GOOD_DATA))] {
            for (at, byte) in &changes {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            for bytes in [&file[..], &file[..cut.index(file.len())]] {
                if let Ok(npz) = Npz::parse(bytes) {
                    let names: Vec<String> = npz.names().map(str::to_owned).collect();
                    for name in names {
                        if let Ok(array) = npz.read_f32(&name) {
                            prop_assert_eq!(array.data.len(), array.shape.iter().product::<usize>());
                        }
                    }
                }
            }
        }
    }
}
