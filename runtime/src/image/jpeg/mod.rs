//! JPEG: what is between the markers, whether its scans are whole, and what a decoder needs to be told.
//!
//! The decoder fills what a scan lacks with grey and says nothing, takes a file for broken that has no end marker, and
//! has tables of its own only for some webcams. So the file is walked first: its headers here, its scans in
//! [`scan`](mod@scan); and where it is unusual the decoder is given a copy that is not.

mod bits;
mod huffman;
mod marker;
mod scan;

use std::borrow::Cow;

use huffman::{STANDARD_TABLES, Tables};
use marker::{
    APP0, APP1, APP14, COMMENT, END_OF_IMAGE, HUFFMAN_TABLES, Marker, QUANTIZATION_TABLES, RESTART_INTERVAL,
    START_OF_SCAN, is_frame,
};
use scan::{Component, Scan, ScanEnd};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::bytes::be16;
use super::color;
use super::notes::Notes;

/// Progressive pictures have some ten scans. More than this many serve only to keep a decoder busy.
const SCANS_MAX: usize = 100;

/// The headers of a picture, up to its first scan.
#[derive(Debug)]
pub(super) struct Jpeg<'a> {
    bytes: &'a [u8],
    pub(super) width: u32,
    pub(super) height: u32,
    /// The kind of frame: the second byte of its marker.
    kind: u8,
    components: Vec<Component>,
    has_jfif: bool,
    /// The transform of Adobe's segment.
    adobe: Option<u8>,
    /// Where the frame's segment is, from its marker on.
    frame_at: usize,
    /// Where the first scan's segment is.
    scan_at: usize,
    pub(super) notes: Notes<'a>,
}

/// How much of a picture is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// The data end before it does.
    Cut,
    /// Its data make no sense from somewhere on.
    Damaged,
}

/// The scans of a picture, walked through.
#[derive(Debug)]
pub(super) struct Scans {
    pub(super) extent: Extent,
    /// Where each scan's segment is, from its marker on.
    at: Vec<usize>,
    /// Where the picture ends, without its end marker.
    end: usize,
    has_end_marker: bool,
    lacks_tables: bool,
}

impl<'a> Jpeg<'a> {
    /// Reads the headers. `None` if the file ends, or stops making sense, before the first scan.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut jpeg = Self {
            bytes,
            width: 0,
            height: 0,
            kind: 0,
            components: Vec::new(),
            has_jfif: false,
            adobe: None,
            frame_at: 0,
            scan_at: 0,
            notes: Notes::default(),
        };
        let mut at = 2;
        loop {
            let marker = Marker::next(bytes, at)?;
            let body = marker.body(bytes);
            match marker.code {
                END_OF_IMAGE => return None,
                START_OF_SCAN => {
                    jpeg.scan_at = marker.at;
                    return (!jpeg.components.is_empty()).then_some(jpeg);
                }
                code if is_frame(code) => jpeg.read_frame(&marker, body?)?,
                APP0 => jpeg.has_jfif |= body?.starts_with(b"JFIF\0") && body?.len() >= 14,
                APP1 => jpeg.read_notes(body?),
                APP14 if body?.starts_with(b"Adobe") && body?.len() >= 12 => jpeg.adobe = Some(body?[11]),
                _ => {}
            }
            at = marker.end(bytes)?;
        }
    }

    /// Width and height of the first frame in `bytes`, wherever it is.
    pub(super) fn frame_size(bytes: &[u8]) -> Option<(u32, u32)> {
        let mut at = 0;
        loop {
            let marker = Marker::next(bytes, at)?;
            if is_frame(marker.code) {
                let body = bytes.get(marker.at + 4..)?;
                return Some((be16(body, 3)?.into(), be16(body, 1)?.into()));
            }
            at = marker.end(bytes)?;
        }
    }

    fn read_frame(&mut self, marker: &Marker, body: &[u8]) -> Option<()> {
        (self.kind, self.frame_at) = (marker.code, marker.at);
        (self.height, self.width) = (be16(body, 1)?.into(), be16(body, 3)?.into());
        let components = body.get(6..)?.chunks_exact(3).take(usize::from(*body.get(5)?));
        self.components = components
            .map(|c| Component { id: c[0], h: u32::from(c[1] >> 4), v: u32::from(c[1] & 15) })
            .collect();
        Some(())
    }

    /// Exif may come in several segments, which belong together; of XMP the last one counts.
    fn read_notes(&mut self, body: &'a [u8]) {
        const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
        if let Some(exif) = body.strip_prefix(b"Exif\0\0") {
            match &mut self.notes.exif {
                Some(begun) => begun.to_mut().extend_from_slice(exif),
                none => *none = Some(Cow::Borrowed(exif)),
            }
        } else if let Some(xmp) = body.strip_prefix(XMP) {
            self.notes.xmp = Some(Cow::Borrowed(xmp));
        }
    }

    /// Whether coefficients of all components are kept until the last scan is read.
    pub(super) fn keeps_coefficients(&self) -> bool {
        let in_first_scan = self.bytes.get(self.scan_at + 4).map_or(0, |&n| usize::from(n));
        self.is_progressive() || in_first_scan < self.components.len()
    }

    pub(super) fn components(&self) -> usize {
        self.components.len()
    }

    fn is_progressive(&self) -> bool {
        self.kind == 0xc2
    }

    /// Walks through all scans. What the walk does not know, such as arithmetic coding, is left to the decoder.
    pub(super) fn scans(&self) -> Scans {
        let mut scans = Scans {
            extent: Extent::Cut,
            at: Vec::new(),
            end: self.bytes.len(),
            has_end_marker: false,
            lacks_tables: false,
        };
        let mut scan = Scan::new(self.width, self.height, &self.components, self.is_progressive());
        let mut tables = Tables::default();
        if matches!(self.kind, 0xc0..=0xc2) && scan.is_possible() {
            scans.extent = self.walk_scans(&mut scan, &mut tables, &mut scans);
            scans.lacks_tables = tables.lacked;
        } else if let Some(end) =
            // In the headers such bytes may be anything.
            self.bytes[self.scan_at..].windows(2).rposition(|pair| pair == [0xff, END_OF_IMAGE])
        {
            (scans.extent, scans.end, scans.has_end_marker) = (Extent::Whole, self.scan_at + end, true);
        }
        scans
    }

    fn walk_scans(&self, scan: &mut Scan, tables: &mut Tables, scans: &mut Scans) -> Extent {
        let mut restart_interval = 0;
        let mut at = 2;
        while let Some(marker) = Marker::next(self.bytes, at)
            && let Some(end) = marker.end(self.bytes)
        {
            let body = marker.body(self.bytes).unwrap_or_default();
            at = end;
            match marker.code {
                END_OF_IMAGE => {
                    (scans.end, scans.has_end_marker) = (marker.at, true);
                    // Progressive pictures may leave the finest bits out, if they say that this is the end.
                    return if scan.has_all_components() { Extent::Whole } else { Extent::Cut };
                }
                HUFFMAN_TABLES => tables.define(body),
                RESTART_INTERVAL => restart_interval = be16(body, 0).unwrap_or(0).into(),
                START_OF_SCAN if scans.at.len() == SCANS_MAX => {
                    scans.end = marker.at;
                    return Extent::Damaged;
                }
                START_OF_SCAN => {
                    scans.at.push(marker.at);
                    match scan.walk(self.bytes, body, end, restart_interval, tables) {
                        ScanEnd::Whole(end) => (at, scans.end) = (end, end),
                        ScanEnd::Cut => return self.cut(scans, end, Extent::Cut),
                        ScanEnd::Damaged => return self.cut(scans, end, Extent::Damaged),
                        ScanEnd::None => {
                            // What was cut in this header was read across.
                            scans.at.pop();
                            scans.end = marker.at;
                            return Extent::Cut;
                        }
                    }
                    if scan.is_refined() {
                        // Nothing can be added: what follows is an end marker, or none of the picture's business.
                        scans.has_end_marker = self.bytes.get(at..at + 2) == Some(&[0xff, END_OF_IMAGE]);
                        return Extent::Whole;
                    }
                }
                COMMENT | QUANTIZATION_TABLES | APP0..=0xef => {}
                // Not between scans: the picture is over, without an end marker.
                _ if !scans.at.is_empty() => break,
                _ => {}
            }
        }
        Extent::Cut
    }

    /// Ends the picture where the data of a scan, which begin at `from`, do: at the next marker that is none of its
    /// own.
    fn cut(&self, scans: &mut Scans, from: usize, extent: Extent) -> Extent {
        scans.end = Marker::next(self.bytes, from).map_or(self.bytes.len(), |marker| marker.at);
        scans.has_end_marker = self.bytes.get(scans.end..scans.end + 2) == Some(&[0xff, END_OF_IMAGE]);
        extent
    }

    /// Which colours the components are, by libjpeg's rules.
    fn color(&self) -> Color {
        let ids: Vec<u8> = self.components.iter().map(|c| c.id).collect();
        match (self.components.len(), self.adobe) {
            (1, _) => Color::Grey,
            (3, _) if self.has_jfif => Color::Ycbcr,
            (3, Some(0)) => Color::Rgb,
            (3, Some(_)) => Color::Ycbcr,
            (3, None) if ids == *b"RGB" => Color::Rgb,
            (3, None) => Color::Ycbcr,
            (4, None | Some(0)) => Color::Cmyk,
            (4, Some(_)) => Color::Ycck,
            _ => Color::Unknown,
        }
    }

    /// Samples that [`decode`](Self::decode) writes for each pixel: 1 for grey, 3 for colour, 4 for CMYK, which is
    /// narrowed afterwards.
    pub(super) fn samples(&self) -> usize {
        match self.color() {
            Color::Grey => 1,
            Color::Cmyk | Color::Ycck => 4,
            _ => 3,
        }
    }

    /// Decodes into `pixels`, [`samples`](Self::samples) bytes for each pixel: grey, RGB, or CMYK as Pillow has it.
    pub(super) fn decode(&self, scans: &Scans, side_max: u32, pixels: &mut [u8]) -> Result<(), DecodeErrors> {
        let color = self.color();
        let out = match color {
            Color::Grey => ColorSpace::Luma,
            Color::Cmyk | Color::Ycck => ColorSpace::CMYK,
            _ => ColorSpace::RGB,
        };
        let options = DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(side_max as usize)
            .set_max_height(side_max as usize)
            .jpeg_set_out_colorspace(out);
        let bytes = self.as_the_decoder_wants_it(scans, color);
        JpegDecoder::new_with_options(ZCursor::new(&*bytes), options).decode_into(pixels)?;
        match color {
            // Adobe writes inks inverted, and everybody takes them so.
            Color::Cmyk => pixels.as_chunks_mut::<4>().0.iter_mut().for_each(|p| *p = p.map(|v| 255 - v)),
            Color::Ycck => {
                pixels.as_chunks_mut::<4>().0.iter_mut().for_each(|p| *p = color::cmyk_from_ycck(*p));
            }
            _ => {}
        }
        Ok(())
    }

    /// The file as it is up to its end, or a copy with what it lacks, and without what the decoder takes another way.
    fn as_the_decoder_wants_it(&self, scans: &Scans, color: Color) -> Cow<'a, [u8]> {
        let ids: Vec<u8> = self.components.iter().map(|c| c.id).collect();
        let ids_wanted: &[u8] = match color {
            // By these names, and only by them, the decoder knows RGB.
            Color::Rgb => b"RGB",
            Color::Ycbcr if ids == *b"RGB" => &[1, 2, 3],
            _ => &ids,
        };
        // What the decoder makes of Adobe's transform agrees with libjpeg only here.
        let is_understood = matches!((ids.len(), self.adobe), (_, None) | (3, Some(1)) | (4, Some(0)));
        if is_understood && scans.has_end_marker && !scans.lacks_tables && ids == ids_wanted {
            return Cow::Borrowed(&self.bytes[..(scans.end + 2).min(self.bytes.len())]);
        }
        let mut copy = self.bytes[..2].to_vec();
        if scans.lacks_tables {
            copy.extend(STANDARD_TABLES.iter().flat_map(|table| table.segment()));
        }
        // Headers without the segments of applications.
        let mut at = 2;
        while let Some(marker) = Marker::next(self.bytes, at).filter(|m| m.at < self.scan_at) {
            let Some(end) = marker.end(self.bytes) else { break };
            if !matches!(marker.code, APP0..=0xef | COMMENT) {
                let from = copy.len();
                copy.extend_from_slice(&self.bytes[marker.at..end]);
                if marker.at == self.frame_at {
                    for (i, &id) in ids_wanted.iter().enumerate() {
                        copy[from + 10 + 3 * i] = id;
                    }
                }
            }
            at = end;
        }
        let moved = copy.len();
        copy.extend_from_slice(&self.bytes[self.scan_at..scans.end]);
        for scan_at in &scans.at {
            let selectors = moved + (scan_at - self.scan_at) + 5;
            let count = copy.get(selectors - 1).map_or(0, |&n| usize::from(n));
            for i in 0..count.min(ids.len()) {
                if let Some(selector) = copy.get_mut(selectors + 2 * i)
                    && let Some(place) = ids.iter().position(|id| id == selector)
                {
                    *selector = ids_wanted[place];
                }
            }
        }
        copy.extend([0xff, END_OF_IMAGE]);
        Cow::Owned(copy)
    }
}

/// What components mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Color {
    Grey,
    Ycbcr,
    Rgb,
    Cmyk,
    Ycck,
    /// The decoder says what it makes of it.
    Unknown,
}
