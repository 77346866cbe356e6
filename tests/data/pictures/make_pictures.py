"""Writes pictures.safetensors beside itself: small files as people have them, and the pixels that Pillow makes of them
with ImageOps.exif_transpose(im).convert("RGB").

`NAME` is a file's bytes, `NAME.rgb` its pixels, [height, width, 3]; where another file has the same pixels, the entry
`NAME` of the metadata names it instead. One kind is not as Pillow has it: of 16-bit grey the
high byte is expected, where Pillow cuts off at 255. Needs Pillow (made with 13.0), numpy and safetensors.
"""
import io
import pathlib
import struct
import zlib

import numpy as np
import PIL
from PIL import Image, ImageOps
from safetensors.numpy import save_file

WIDTH, HEIGHT = 13, 9
FILES, EXPECTED = {}, {}


def rgb_array(width=WIDTH, height=HEIGHT):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 19 + y, y * 27 + (x * x) % 7, (x * 31) ^ (y * 17)], -1).astype(np.uint8)


RGB = Image.fromarray(rgb_array())
GREY = RGB.convert("L")
ALPHA = Image.fromarray((rgb_array()[..., 2] // 2 * 2).astype(np.uint8))
RGBA = RGB.copy()
RGBA.putalpha(ALPHA)
PALETTE = RGB.quantize(23)
# Smooth enough that decoders of JPEG agree, and different at each corner.
SOFT = Image.fromarray(rgb_array(4, 3)).resize((24, 16), Image.Resampling.BICUBIC)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def add(name, data, expected=None):
    if expected is None:
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    FILES[name] = np.frombuffer(data, np.uint8)
    EXPECTED[name] = np.ascontiguousarray(expected)


def exif(value, kind=3, order="<", count=1):
    """Exif of one tag: the orientation, as a value of this type."""
    size = struct.calcsize({1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}[kind])
    pack = lambda form, *values: struct.pack(order + form, *values)
    raw = b"".join(
        pack("II", value * 2, 2) if kind == 5 else pack({1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}[kind], value)
        for _ in range(count)
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + pack("IHHHI", 8, 1, 0x112, kind, count)
    if size * count > 4:
        return head + pack("I", 26) + bytes(4) + raw
    return head + raw.ljust(4, b"\0") + bytes(4)


NO_ORIENTATION = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x128, 3, 1, 2, 0) + bytes(4)
XMP_ATTRIBUTE = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
XMP_ELEMENT = b"<x:xmpmeta><rdf:Description><tiff:Orientation>6</tiff:Orientation></rdf:Description></x:xmpmeta>"
ADOBE_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def segments(jpeg):
    """(marker, whole segment) up to the scan, then the rest."""
    at, found = 2, []
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
        found.append((jpeg[at + 1], jpeg[at:end]))
        at = end
    return found, jpeg[at:]


def with_app1(jpeg, *bodies):
    return jpeg[:2] + b"".join(segment(0xE1, body) for body in bodies) + jpeg[2:]


def jpeg_orientations(jpeg):
    prefix = b"Exif\0\0"
    for name, kind in (("short", 3), ("long", 4), ("byte", 1), ("sbyte", 6), ("sshort", 8), ("slong", 9), ("float", 11), ("double", 12), ("rational", 5)):
        for order in "<>":
            add(f"exif_{name}_{'le' if order == '<' else 'be'}.jpg", with_app1(jpeg, prefix + exif(6, kind, order)))
    for value in range(10):
        add(f"exif_{value}.jpg", with_app1(jpeg, prefix + exif(value)))
    add("exif_two_values.jpg", with_app1(jpeg, prefix + exif(6, count=2)))
    add("exif_three_values.jpg", with_app1(jpeg, prefix + exif(6, count=3)))
    add("exif_in_two_segments.jpg", with_app1(jpeg, prefix + exif(6)[:12], prefix + exif(6)[12:]))
    add("exif_twice_prefixed.jpg", with_app1(jpeg, prefix + prefix + exif(8)))
    add("exif_behind_xmp.jpg", with_app1(jpeg, ADOBE_XMP + b"<x/>", prefix + exif(5)))
    add("xmp_attribute.jpg", with_app1(jpeg, ADOBE_XMP + XMP_ATTRIBUTE))
    add("xmp_element.jpg", with_app1(jpeg, ADOBE_XMP + XMP_ELEMENT))
    add("xmp_and_exif_without.jpg", with_app1(jpeg, prefix + NO_ORIENTATION, ADOBE_XMP + XMP_ELEMENT))
    add("xmp_and_exif_upright.jpg", with_app1(jpeg, prefix + exif(1), ADOBE_XMP + XMP_ELEMENT))
    add("xmp_twice.jpg", with_app1(jpeg, ADOBE_XMP + XMP_ELEMENT, ADOBE_XMP + b"<x/>"))


def jpegs():
    jpeg = encoded(SOFT, "JPEG", quality=95, subsampling=0)
    jpeg_orientations(jpeg)
    add("444.jpg", jpeg)
    add("420.jpg", encoded(SOFT, "JPEG", quality=95, subsampling=2))
    add("422.jpg", encoded(SOFT, "JPEG", quality=95, subsampling=1))
    add("grey.jpg", encoded(SOFT.convert("L"), "JPEG", quality=95))
    add("progressive.jpg", encoded(SOFT, "JPEG", quality=95, progressive=True))
    add("progressive_420.jpg", encoded(SOFT, "JPEG", quality=95, progressive=True, subsampling=2))
    add("progressive_grey.jpg", encoded(SOFT.convert("L"), "JPEG", quality=95, progressive=True))
    add("restarts.jpg", encoded(SOFT, "JPEG", quality=95, restart_marker_blocks=1))
    add("restarts_420.jpg", encoded(SOFT, "JPEG", quality=95, restart_marker_rows=1, subsampling=2))
    add("restarts_progressive.jpg", encoded(SOFT, "JPEG", quality=95, progressive=True, restart_marker_blocks=2))
    profile = b"ICC_PROFILE\0\1\1" + bytes(128)
    add("profile.jpg", jpeg[:2] + segment(0xE2, profile) + jpeg[2:])
    cmyk = encoded(SOFT.convert("CMYK"), "JPEG", quality=95)
    add("cmyk.jpg", cmyk)
    add("progressive_cmyk.jpg", encoded(SOFT.convert("CMYK"), "JPEG", quality=95, progressive=True))
    parts, rest = segments(cmyk)
    parts = [part for marker, part in parts if marker not in (0xE0, 0xEE)]
    adobe = lambda transform: segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
    add("cmyk_without_adobe.jpg", cmyk[:2] + b"".join(parts) + rest)
    add("cmyk_adobe.jpg", cmyk[:2] + adobe(0) + b"".join(parts) + rest)
    add("ycck.jpg", cmyk[:2] + adobe(2) + b"".join(parts) + rest)
    parts, rest = segments(jpeg)
    jfif = parts[0][1]
    parts = [part for marker, part in parts if marker != 0xE0]
    add("without_jfif.jpg", jpeg[:2] + b"".join(parts) + rest)
    for transform in range(3):
        add(f"adobe_{transform}.jpg", jpeg[:2] + adobe(transform) + b"".join(parts) + rest)
    add("jfif_and_adobe_0.jpg", jpeg[:2] + jfif + adobe(0) + b"".join(parts) + rest)
    # Named R, G and B, components are what they say, unless there is JFIF.
    named = b"".join(p[:10] + b"R" + p[11:13] + b"G" + p[14:16] + b"B" + p[17:] if p[1] == 0xC0 else p for p in parts)
    named_rest = rest[:5] + b"R" + rest[6:7] + b"G" + rest[8:9] + b"B" + rest[10:]
    add("named_rgb.jpg", jpeg[:2] + named + named_rest)
    add("named_rgb_jfif.jpg", jpeg[:2] + jfif + named + named_rest)
    add("named_rgb_adobe_1.jpg", jpeg[:2] + adobe(1) + named + named_rest)
    # What webcams send: no tables, as the standard's are meant.
    parts, rest = segments(jpeg)
    add("without_tables.jpg", jpeg[:2] + b"".join(p for m, p in parts if m not in (0xC4, 0xE0)) + rest)
    avi = segment(0xE0, b"AVI1" + bytes(10))
    add("without_tables_avi.jpg", jpeg[:2] + avi + b"".join(p for m, p in parts if m not in (0xC4, 0xE0)) + rest)
    grey = encoded(SOFT.convert("L"), "JPEG", quality=95)
    parts, rest = segments(grey)
    add("without_tables_grey.jpg", grey[:2] + b"".join(p for m, p in parts if m != 0xC4) + rest)
    # Ends, as cameras and phones leave them. Pillow takes them only if it is told that files may be cut.
    pixels = {name: EXPECTED[name] for name in ("444.jpg", "progressive.jpg", "420.jpg")}
    for name, expected in pixels.items():
        whole = FILES[name].tobytes()
        add(f"no_end_{name}", whole[:-2], expected)
        add(f"no_end_trailer_{name}", whole[:-2] + b"SEFT" + b"x" * 30, expected)
        add(f"trailer_{name}", whole + b"SEFT\xff\xd8\xff\xda" + b"x" * 30, expected)
        add(f"fill_before_end_{name}", whole[:-2] + b"\xff\xff\xff\xd9", expected)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, bits, color, rows, *before, interlaced=False, behind=b""):
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(before)
        + chunk(b"IDAT", zlib.compress(rows)) + behind + chunk(b"IEND", b"")
    )


def adam7(array):
    """Rows of the seven passes of an interlaced picture."""
    rows = b""
    for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        part = array[y::dy, x::dx]
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    return rows


def raw_profile(data):
    digits = data.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return f"\nexif\n{len(data):8}\n{lines}\n".encode()


def pngs():
    for mode in ("1", "L", "LA", "RGB", "RGBA", "P"):
        image = PALETTE if mode == "P" else RGBA.convert(mode)
        add(f"{mode}.png", encoded(image, "PNG"))
    for colors, bits in ((2, 1), (4, 2), (16, 4)):
        add(f"palette_{bits}.png", encoded(RGB.quantize(colors), "PNG", bits=bits))
    pixels = bytes(((x * 3 + y * 5) % 16 for y in range(6) for x in range(8)))
    rows = b"".join(b"\0" + pixels[i : i + 8] for i in range(0, 48, 8))
    add("palette_short.png", png(8, 6, 8, 3, rows, chunk(b"PLTE", bytes(range(7, 37)))))
    add("palette_transparent.png", encoded(PALETTE, "PNG", transparency=3))
    add("palette_alphas.png", encoded(PALETTE, "PNG", transparency=bytes(range(0, 230, 10))))
    add("grey_transparent.png", encoded(GREY, "PNG", transparency=GREY.getpixel((3, 3))))
    add("rgb_transparent.png", encoded(RGB, "PNG", transparency=RGB.getpixel((3, 3))))
    for bits in (2, 4):
        grey = np.asarray(GREY) >> (8 - bits)
        per = 8 // bits
        wide = np.pad(grey, ((0, 0), (0, -WIDTH % per))).reshape(HEIGHT, -1, per)
        packed = sum(wide[..., i].astype(int) << (bits * (per - 1 - i)) for i in range(per)).astype(np.uint8)
        add(f"grey_{bits}.png", png(WIDTH, HEIGHT, bits, 0, b"".join(b"\0" + row.tobytes() for row in packed)))
    wide = rgb_array().astype(">u2") * 256 + 77 + rgb_array()[..., ::-1]
    alpha = wide[..., :1][:, ::-1]
    rows = lambda array: b"".join(b"\0" + row.tobytes() for row in array.astype(">u2"))
    add("rgb_16.png", png(WIDTH, HEIGHT, 16, 2, rows(wide)))
    add("rgba_16.png", png(WIDTH, HEIGHT, 16, 6, rows(np.concatenate([wide, alpha], -1))))
    add("grey_alpha_16.png", png(WIDTH, HEIGHT, 16, 4, rows(np.concatenate([wide[..., :1], alpha], -1))))
    high = np.repeat((wide[..., :1] >> 8).astype(np.uint8), 3, -1)
    add("grey_16.png", png(WIDTH, HEIGHT, 16, 0, rows(wide[..., :1])), high)
    add("interlaced.png", png(WIDTH, HEIGHT, 8, 2, adam7(rgb_array()), interlaced=True))
    add("interlaced_16.png", png(WIDTH, HEIGHT, 16, 6, adam7(np.concatenate([wide, alpha], -1).astype(">u2")), interlaced=True))
    add("profile.png", encoded(RGB, "PNG", icc_profile=bytes(128)))
    add("gamma.png", png(WIDTH, HEIGHT, 8, 2, b"".join(b"\0" + r.tobytes() for r in rgb_array()), chunk(b"gAMA", struct.pack(">I", 100000))))
    white = Image.new("RGB", RGB.size, "white")
    add("animated.png", encoded(RGB, "PNG", save_all=True, append_images=[white], duration=100))

    plain = b"".join(b"\0" + row.tobytes() for row in rgb_array())
    turned = lambda *before, behind=b"": png(WIDTH, HEIGHT, 8, 2, plain, *before, behind=behind)
    add("exif_before.png", turned(chunk(b"eXIf", exif(6))))
    add("exif_behind.png", turned(behind=chunk(b"eXIf", exif(6))))
    add("exif_long_behind.png", turned(behind=chunk(b"eXIf", exif(7, 4, ">"))))
    add("exif_prefixed.png", turned(chunk(b"eXIf", b"Exif\0\0" + exif(6))))
    add("exif_twice.png", turned(chunk(b"eXIf", exif(6)), behind=chunk(b"eXIf", exif(3))))
    profile = raw_profile(b"Exif\0\0" + exif(6))
    for where in ("before", "behind"):
        for name, body in (
            ("text", (b"tEXt", b"Raw profile type exif\0" + profile)),
            ("packed", (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))),
            ("international", (b"iTXt", b"Raw profile type exif\0\0\0en\0\0" + profile)),
        ):
            extra = chunk(*body)
            add(f"profile_{name}_{where}.png", turned(extra) if where == "before" else turned(behind=extra))
    add("profile_app1.png", turned(chunk(b"tEXt", b"Raw profile type APP1\0" + profile)))
    add("profile_and_exif.png", turned(chunk(b"tEXt", b"Raw profile type exif\0" + profile), chunk(b"eXIf", exif(3))))
    for name, xmp in (("attribute", XMP_ATTRIBUTE), ("element", XMP_ELEMENT)):
        add(f"xmp_{name}.png", turned(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)))
        add(f"xmp_{name}_packed.png", turned(behind=chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp))))
    add("xmp_text.png", turned(chunk(b"tEXt", b"XML:com.adobe.xmp\0" + XMP_ELEMENT)))
    add("xmp_and_exif_without.png", turned(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_ELEMENT), chunk(b"eXIf", NO_ORIENTATION)))
    add("xmp_and_exif_upright.png", turned(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_ELEMENT), chunk(b"eXIf", exif(1))))


def lzw(indices, bits):
    """GIF's compression without compression: a clear code before the table grows."""
    clear, codes = 1 << bits, []
    for i, index in enumerate(indices):
        if i % ((1 << bits) - 2) == 0:
            codes.append(clear)
        codes.append(int(index))
    codes.append(clear + 1)
    value = sum(code << (i * (bits + 1)) for i, code in enumerate(codes))
    raw = value.to_bytes((len(codes) * (bits + 1) + 7) // 8, "little")
    blocks = b"".join(bytes([len(raw[i : i + 255])]) + raw[i : i + 255] for i in range(0, len(raw), 255))
    return bytes([bits]) + blocks + b"\0"


def gif(canvas, frame, indices, colors, transparent=None, bits=4, own=b""):
    size = (len(colors) // 3).bit_length() - 2
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80 | size, 2, 0) + colors
    control = b"" if transparent is None else b"!\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    flags = 0x80 | ((len(own) // 3).bit_length() - 2) if own else 0
    return head + control + b"," + struct.pack("<HHHHB", *frame, flags) + own + lzw(indices, bits) + b";"


def gifs():
    colors = bytes((i * 37) % 256 for i in range(48))
    inside = [(x * 3 + y) % 16 for y in range(4) for x in range(6)]
    add("plain.gif", encoded(PALETTE, "GIF"))
    add("grey.gif", encoded(GREY, "GIF"))
    add("interlaced.gif", encoded(PALETTE, "GIF", interlace=1))
    add("not_interlaced.gif", encoded(PALETTE, "GIF", interlace=0))
    add("transparent.gif", encoded(PALETTE, "GIF", transparency=5))
    add("small_frame.gif", gif((10, 8), (2, 3, 6, 4), inside, colors))
    add("small_frame_transparent.gif", gif((10, 8), (2, 3, 6, 4), inside, colors, transparent=9))
    add("small_frame_own_colors.gif", gif((10, 8), (2, 3, 6, 4), inside, colors, own=colors[::-1]))
    add("frame_beyond_canvas.gif", gif((5, 5), (2, 3, 6, 4), inside, colors))
    add("few_colors.gif", gif((6, 4), (0, 0, 6, 4), inside, colors[:24]))
    white = Image.new("RGB", RGB.size, "white")
    add("animated.gif", encoded(RGB, "GIF", save_all=True, append_images=[white], duration=100))
    add("animated_transparent.gif", encoded(RGBA, "GIF", save_all=True, append_images=[white], duration=100))


def bmp(width, height, bits, data, compression=0, colors=b"", masks=b""):
    offset = 14 + 40 + len(masks) + len(colors)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, len(colors) // 4, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + info + masks + colors + data


def bmps():
    add("24.bmp", encoded(RGB, "BMP"))
    add("8.bmp", encoded(PALETTE, "BMP"))
    add("grey.bmp", encoded(GREY, "BMP"))
    add("1.bmp", encoded(RGB.convert("1"), "BMP"))
    add("32.bmp", encoded(RGBA, "BMP"))
    colors = b"".join(bytes([(i * 50) % 256, i * 13, 255 - i * 9, 0]) for i in range(16))
    indices = [[(x * 5 + y * 3) % 16 for x in range(8)] for y in range(5)]
    nibbles = b"".join(bytes(row[i] << 4 | row[i + 1] for i in range(0, 8, 2)) for row in indices)
    add("4.bmp", bmp(8, 5, 4, nibbles, colors=colors))
    add("few_colors.bmp", bmp(8, 5, 4, nibbles, colors=colors[:40]))
    add("top_down.bmp", bmp(8, -5, 4, nibbles, colors=colors))
    words = np.array([[(x * 4321 + y * 977) & 0x7FFF for x in range(8)] for y in range(5)], "<u2").tobytes()
    add("555.bmp", bmp(8, 5, 16, words))
    words = np.array([[(x * 14321 + y * 977) & 0xFFFF for x in range(8)] for y in range(5)], "<u2").tobytes()
    add("565.bmp", bmp(8, 5, 16, words, 3, masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F)))
    add("555_masks.bmp", bmp(8, 5, 16, words, 3, masks=struct.pack("<III", 0x7C00, 0x3E0, 0x1F)))
    longs = np.array([[x * 0x12345 + y * 0x1020305 for x in range(8)] for y in range(5)], "<u4").tobytes()
    add("32_plain.bmp", bmp(8, 5, 32, longs))
    add("32_masks.bmp", bmp(8, 5, 32, longs, 3, masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)))
    runs = b"".join(bytes([3, row[0], 5, row[1]]) + b"\0\0" for row in indices) + b"\0\1"
    add("run_length_8.bmp", bmp(8, 5, 8, runs, 1, colors=colors))
    literal = b"".join(b"\0\4" + bytes(row[:4]) + bytes([4, row[5]]) + b"\0\0" for row in indices) + b"\0\1"
    add("run_length_8_literal.bmp", bmp(8, 5, 8, literal, 1, colors=colors))
    runs = b"".join(bytes([8, row[0] << 4 | row[1]]) + b"\0\0" for row in indices) + b"\0\1"
    add("run_length_4.bmp", bmp(8, 5, 4, runs, 2, colors=colors))
    core = struct.pack("<IHHHH", 12, 8, 5, 1, 4)
    triples = b"".join(colors[i * 4 : i * 4 + 3] for i in range(16))
    offset = 14 + len(core) + len(triples)
    add("os2.bmp", b"BM" + struct.pack("<IHHI", offset + len(nibbles), 0, 0, offset) + core + triples + nibbles)


def webps():
    lossless = encoded(RGB, "WEBP", lossless=True)
    add("lossless.webp", lossless)
    add("lossless_alpha.webp", encoded(RGBA, "WEBP", lossless=True, exact=True))
    add("lossy.webp", encoded(SOFT, "WEBP", quality=90))
    soft_alpha = SOFT.copy()
    soft_alpha.putalpha(SOFT.convert("L"))
    add("lossy_alpha.webp", encoded(soft_alpha, "WEBP", quality=90))
    white = Image.new("RGB", RGB.size, "white")
    add("animated.webp", encoded(RGB, "WEBP", save_all=True, append_images=[white], duration=100, lossless=True))
    add("animated_alpha.webp", encoded(RGBA, "WEBP", save_all=True, append_images=[white], duration=100, lossless=True, exact=True))
    body = lossless[12:]

    def extended(flags, *chunks):
        header = struct.pack("<I", flags) + (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
        parts = b"VP8X" + struct.pack("<I", 10) + header + body
        for kind, data in chunks:
            parts += kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        return b"RIFF" + struct.pack("<I", len(parts) + 4) + b"WEBP" + parts

    add("exif.webp", extended(8, (b"EXIF", exif(6))))
    add("exif_prefixed.webp", extended(8, (b"EXIF", b"Exif\0\0" + exif(6))))
    add("exif_long.webp", extended(8, (b"EXIF", exif(8, 4, ">"))))
    add("exif_unannounced.webp", extended(0, (b"EXIF", exif(6))))
    add("xmp.webp", extended(4, (b"XMP ", XMP_ELEMENT)))
    add("xmp_attribute.webp", extended(12, (b"EXIF", NO_ORIENTATION), (b"XMP ", XMP_ATTRIBUTE)))


def tiff(data, tags, size=(WIDTH, HEIGHT), order="<", big=False):
    """A TIFF file of chunks of data and tags {tag: (type, values)}."""
    chunks = data if isinstance(data, list) else [data]
    where, lens = (324, 325) if 322 in tags else (273, 279)
    entries = {256: (3, [size[0]]), 257: (3, [size[1]]), where: (4, [0] * len(chunks)), lens: (4, [len(c) for c in chunks])}
    if where == 273:
        entries[278] = (3, [size[1]])
    entries.update(tags)
    word, entry_bytes, inline = ("Q", 20, 8) if big else ("I", 12, 4)
    start = 16 if big else 8
    extra_at = start + (8 if big else 2) + entry_bytes * len(entries) + (8 if big else 4)
    form = lambda kind, values: (
        bytes(values) if kind in (1, 7) else struct.pack(order + {3: "H", 4: "I"}[kind] * len(values), *values)
    )
    sizes = {tag: len(form(kind, values)) for tag, (kind, values) in entries.items()}
    at = extra_at + sum(n + n % 2 for n in sizes.values() if n > inline)
    entries[where] = (4, [at + sum(len(c) for c in chunks[:i]) for i in range(len(chunks))])
    body, extra = b"", b""
    for tag in sorted(entries):
        kind, values = entries[tag]
        raw = form(kind, values)
        if len(raw) > inline:
            pointer = struct.pack(order + word, extra_at + len(extra))
            extra += raw + b"\0" * (len(raw) % 2)
            raw = pointer
        body += struct.pack(order + "HH" + word, tag, kind, len(values)) + raw.ljust(inline, b"\0")
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + ("Q" if big else "H"), len(entries)) + body + struct.pack(order + word, 0) + extra + b"".join(chunks)


def tiffs():
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        add(f"rgb_{compression}.tif", encoded(RGB, "TIFF", compression=compression))
    add("rgba_lzw.tif", encoded(RGBA, "TIFF", compression="tiff_lzw"))
    add("palette_lzw.tif", encoded(PALETTE, "TIFF", compression="tiff_lzw"))
    add("palette.tif", encoded(PALETTE, "TIFF"))
    add("1.tif", encoded(RGB.convert("1"), "TIFF"))
    add("fax_4.tif", encoded(RGB.convert("1"), "TIFF", compression="group4"))
    add("cmyk.tif", encoded(RGB.convert("CMYK"), "TIFF"))
    add("grey_alpha.tif", encoded(RGBA.convert("LA"), "TIFF"))
    add("jpeg.tif", encoded(SOFT, "TIFF", compression="jpeg", quality=95))
    add("jpeg_grey.tif", encoded(SOFT.convert("L"), "TIFF", compression="jpeg", quality=95))
    add("predictor.tif", encoded(RGB, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}))
    add("pages.tif", encoded(RGB, "TIFF", save_all=True, append_images=[Image.new("RGB", (5, 5))]))
    three, four = (3, [8] * 3), (3, [8] * 4)
    rgb, grey = rgb_array(), rgb_array()[..., 0]
    raw = rgb.tobytes()
    color = {258: three, 262: (3, [2]), 277: (3, [3])}
    add("big_endian.tif", tiff(raw, color, order=">"))
    add("big.tif", tiff(raw, color, big=True))
    # Pillow does not know this one.
    add("big_big_endian.tif", tiff(raw, color, order=">", big=True), rgb)
    add("planar.tif", tiff([rgb[..., c].tobytes() for c in range(3)], {**color, 284: (3, [2])}))
    strips = [rgb[i : i + 2].tobytes() for i in range(0, HEIGHT, 2)]
    add("strips.tif", tiff(strips, {**color, 278: (3, [2])}))
    wide = np.pad(rgb, ((0, 32 - HEIGHT), (0, 32 - WIDTH), (0, 0)))
    tiles = [np.ascontiguousarray(wide[y : y + 16, x : x + 16]).tobytes() for y in (0,) for x in (0,)]
    add("tiled.tif", tiff(tiles, {**color, 322: (3, [16]), 323: (3, [16])}))
    large = rgb_array(20, 18)
    wide = np.pad(large, ((0, 14), (0, 12), (0, 0)))
    tiles = [zlib.compress(np.ascontiguousarray(wide[y : y + 16, x : x + 16]).tobytes()) for y in (0, 16) for x in (0, 16)]
    add("tiled_packed.tif", tiff(tiles, {**color, 259: (3, [8]), 322: (3, [16]), 323: (3, [16])}, size=(20, 18)))
    one = lambda bits, kind: {258: (3, [bits]), 262: (3, [kind])}
    add("white_is_zero.tif", tiff(grey.tobytes(), one(8, 0)))
    for bits in (2, 4):
        for kind in (0, 1):
            packed = bytes((i * 73 + 5) % 256 for i in range(HEIGHT * -(-WIDTH * bits // 8)))
            add(f"grey_{bits}_{kind}.tif", tiff(packed, one(bits, kind)))
    packed = bytes((i * 73 + 5) % 256 for i in range(HEIGHT * 2))
    add("1_white_is_zero.tif", tiff(packed, one(1, 0)))
    add("1_black_is_zero.tif", tiff(packed, one(1, 1)))
    add("1_reversed.tif", tiff(packed, {**one(1, 1), 266: (3, [2])}))
    ramp = lambda n: (3, [i * 65535 // (n - 1) for i in range(n)] + [65535 - i * 257 for i in range(n)] + [i * 100 for i in range(n)])
    for bits in (1, 4, 8):
        packed = bytes((i * 73 + 5) % 256 for i in range(HEIGHT * -(-WIDTH * bits // 8)))
        add(f"palette_{bits}.tif", tiff(packed, {**one(bits, 3), 320: ramp(1 << bits)}))
    samples = bytes((i * 57 + 3) % 256 for i in range(WIDTH * HEIGHT * 5))
    with_alpha = lambda kind: {258: four, 262: (3, [2]), 277: (3, [4]), 338: (3, [kind])}
    for name, kind in (("unspecified", 0), ("premultiplied", 1), ("straight", 2)):
        add(f"alpha_{name}.tif", tiff(samples[: WIDTH * HEIGHT * 4], with_alpha(kind)))
    add("alpha_unsaid.tif", tiff(samples[: WIDTH * HEIGHT * 4], {258: four, 262: (3, [2]), 277: (3, [4])}))
    add("five_samples.tif", tiff(samples, {258: (3, [8] * 5), 262: (3, [2]), 277: (3, [5]), 338: (3, [0, 0])}))
    add("grey_and_unspecified.tif", tiff(samples[: WIDTH * HEIGHT * 2], {258: (3, [8, 8]), 262: (3, [1]), 277: (3, [2]), 338: (3, [0])}))
    add("cmyk_strip.tif", tiff(samples[: WIDTH * HEIGHT * 4], {258: four, 262: (3, [5]), 277: (3, [4])}))
    add("ycbcr.tif", tiff(samples[: WIDTH * HEIGHT * 3], {258: three, 262: (3, [6]), 277: (3, [3]), 530: (3, [1, 1])}))
    add("ycbcr_packed.tif", tiff(zlib.compress(samples[: WIDTH * HEIGHT * 3]), {259: (3, [8]), 258: three, 262: (3, [6]), 277: (3, [3]), 530: (3, [1, 1])}))
    wide = rgb_array().astype("<u2") * 256 + 77 + rgb_array()[..., ::-1]
    for order in "<>":
        name = "le" if order == "<" else "be"
        data = wide.astype(order + "u2").tobytes()
        add(f"rgb_16_{name}.tif", tiff(data, {**color, 258: (3, [16] * 3)}, order=order))
        high = np.repeat((wide[..., :1] >> 8).astype(np.uint8), 3, -1)
        add(f"grey_16_{name}.tif", tiff(wide[..., 0].astype(order + "u2").tobytes(), one(16, 1), order=order), high)
    four16 = np.concatenate([wide, wide[..., :1] ^ 0x5A5A], -1).astype("<u2").tobytes()
    for name, kind in (("premultiplied", 1), ("straight", 2)):
        add(f"alpha_16_{name}.tif", tiff(four16, {**with_alpha(kind), 258: (3, [16] * 4)}))
    add("cmyk_16.tif", tiff(four16, {258: (3, [16] * 4), 262: (3, [5]), 277: (3, [4])}))
    whole = (rgb.astype(np.int32)[..., 0] * 3 - 100)
    add("signed_32.tif", tiff(whole.astype("<i4").tobytes(), {**one(32, 1), 339: (3, [2])}))
    add("unsigned_32.tif", tiff(np.abs(whole).astype("<u4").tobytes(), one(32, 1)))
    add("signed_16.tif", tiff(whole.astype("<i2").tobytes(), {**one(16, 1), 339: (3, [2])}))
    add("signed_8.tif", tiff(grey.tobytes(), {**one(8, 1), 339: (3, [2])}))
    add("float_32.tif", tiff((whole / 2 + 0.25).astype("<f4").tobytes(), {**one(32, 1), 339: (3, [3])}))
    for value in range(10):
        add(f"orientation_{value}.tif", tiff(raw, {**color, 274: (3, [value])}))
    add("orientation_long.tif", tiff(raw, {**color, 274: (4, [6])}, order=">"))
    add("orientation_byte.tif", tiff(raw, {**color, 274: (1, [6])}))
    add("orientation_big.tif", tiff(raw, {**color, 274: (3, [6])}, big=True))
    add("orientation_xmp.tif", tiff(raw, {**color, 700: (1, list(XMP_ELEMENT))}))
    add("orientation_xmp_upright.tif", tiff(raw, {**color, 274: (3, [1]), 700: (7, list(XMP_ATTRIBUTE))}))


def main():
    for make in (jpegs, pngs, gifs, bmps, webps, tiffs):
        make()
    tensors, first, same = dict(FILES), {}, {"Pillow": PIL.__version__}
    for name, pixels in EXPECTED.items():
        key = (pixels.shape, pixels.tobytes())
        if first.setdefault(key, name) == name:
            tensors[f"{name}.rgb"] = pixels
        else:
            same[name] = first[key]
    save_file(tensors, pathlib.Path(__file__).with_name("pictures.safetensors"), same)
    print(f"{len(FILES)} files, {sum(len(f) for f in FILES.values())} bytes, Pillow {PIL.__version__}")


if __name__ == "__main__":
    main()
