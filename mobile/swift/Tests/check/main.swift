import CPalmtop
import Foundation
import Palmtop

// The real library in Swift: check MODEL PICTURE. Prints the answer to "caption en" for comparison: each token, the bits of its
// probability, and the text.
func check(_ holds: Bool, _ what: String) {
    if !holds { fatalError(what) }
}

func refused(_ status: Int, _ action: () async throws -> Void) async {
    do {
        try await action()
    } catch let error as PalmtopError {
        check(error.status == Int32(status) && !error.description.isEmpty, "refused with \(error.status): \(error)")
        return
    } catch {
        fatalError("\(error)")
    }
    fatalError("not refused with \(status)")
}

func all(_ pieces: AsyncThrowingStream<String, Error>) async throws -> String {
    try await pieces.reduce(into: "") { $0 += $1 }
}

let (path, picture) = (CommandLine.arguments[1], CommandLine.arguments[2])
let file = try Data(contentsOf: URL(fileURLWithPath: picture))
await refused(PALMTOP_IO) { _ = try Model(path: "/nowhere/at/all") }
await refused(PALMTOP_BAD_MODEL) { _ = try Model(path: picture) }
let model = try Model(path: path)
let session = try Session(model, newTokens: 80)
let features = try Features(model)
await refused(PALMTOP_BAD_IMAGE) { try session.encode(Data([1, 2, 3]), into: features) }
await refused(PALMTOP_DEADLINE) { try session.encode(file, into: features, deadline: 1) }
try session.encode(file, into: features, deadline: deadline(after: 3600))
let caption = try session.answer("caption en", about: features)
check(caption.tokens.count == caption.probabilities.count && !caption.tokens.isEmpty, "tokens")

// Pieces are the answer.
check(try await all(session.pieces("caption en", about: features)) == caption.text, "pieces")
await refused(PALMTOP_DEADLINE) { _ = try await all(session.pieces("caption en", about: features, deadline: 1)) }
await refused(PALMTOP_INVALID_ARGUMENT) { _ = try session.answer("<image> twice <image>", about: features) }

// When an iteration ends early, the computation does too, and the session can be used again.
for _ in 0..<20 {
    for try await _ in session.pieces("caption en", about: features) { break }
    var again: Answer?
    while again == nil {
        do {
            again = try session.answer("caption en", about: features)
        } catch let error as PalmtopError where error.status == Int32(PALMTOP_BUSY) || error.isCancelled {
            try await Task.sleep(nanoseconds: 100_000)
        }
    }
    check(again?.tokens == caption.tokens, "after a stream")
}

// A button.
session.cancel()
await refused(PALMTOP_CANCELLED) { _ = try session.answer("caption en", about: features) }
session.resetCancel()

// Pixels where they lie.
let samples = (0..<96 * 96).map { UInt8($0 * 5 % 253) }
try samples.withUnsafeBytes { bytes in
    var pixels = palmtop_pixels()
    let size = MemoryLayout<palmtop_pixels>.size
    check(palmtop_pixels_init(&pixels, size, Int32(PALMTOP_NV12), 96, 64, bytes.baseAddress, bytes.count) == 0, "pixels")
    pixels.rotation = 90
    try session.encode(&pixels, into: features)
}
// A watch: its records are answers of the session. A stream that keeps one frame hands the newest over.
let questions = """
    max_new_tokens = 80
    [[question]]
    name = "what"
    caption = "en"
    [[question.rule]]
    name = "any"
    matches = ".*"
    """
await refused(PALMTOP_INVALID_ARGUMENT) { _ = try Watch(model, questions: "[[question]]") }
let watch = try Watch(model, questions: questions)
let expected = try session.answer("caption en", about: features).text
final class Pixels {
    let data = UnsafeMutableRawPointer.allocate(byteCount: 96 * 96, alignment: 1)
    init(_ bytes: [UInt8]) { data.copyMemory(from: bytes, byteCount: bytes.count) }
    deinit { data.deallocate() }
}
func frame(_ rotation: UInt32) -> Frame {
    let owner = Pixels(samples)
    var pixels = palmtop_pixels()
    let size = MemoryLayout<palmtop_pixels>.size
    check(palmtop_pixels_init(&pixels, size, Int32(PALMTOP_NV12), 96, 64, owner.data, 96 * 96) == 0, "pixels")
    pixels.rotation = rotation
    return Frame(pixels, owner: owner)
}
let (frames, camera) = AsyncStream.makeStream(of: Frame.self, bufferingPolicy: .bufferingNewest(1))
camera.yield(frame(0))
camera.yield(frame(90))
camera.finish()
var told: [Record] = []
for try await record in watch.records(of: frames) { told.append(record) }
check(told.count == 3 && told[1].text == expected && told[1].question == "what", "\(told)")
check(told[0].rule == "any" && told[0].id == told[2].id && told[0].text == expected, "\(told)")
if case .eventBegins = told[0].kind, case .answer = told[1].kind, case .eventEnds = told[2].kind {} else { fatalError("\(told)") }
// When an iteration ends early, the watch can be used again.
let (more, endless) = AsyncStream.makeStream(of: Frame.self, bufferingPolicy: .bufferingNewest(1))
endless.yield(frame(0))
for try await _ in watch.records(of: more) { break }
while true {
    do {
        try watch.command("ask")
        _ = try watch.frame(frame(90))
        break
    } catch let error as PalmtopError where error.status == Int32(PALMTOP_BUSY) || error.isCancelled {
        try await Task.sleep(nanoseconds: 100_000)
    }
}

// Several pictures, in their order, and drafts, which change nothing but the time.
let film = try Session(model, newTokens: 80, pictures: 2, draftTokens: 4)
let first = try Features(model)
try film.encode(file, into: first)
let plain = try film.answer("caption en", about: [first, features])
check(plain.acceptedDraftTokens == 0, "no draft")
check(try film.answer("caption en", about: [features, first]).probabilities != plain.probabilities, "pictures have an order")
check(try film.answer("caption en", about: first).tokens == caption.tokens, "one picture")
let drafted = try film.answer("caption en", about: [first, features], draft: plain.tokens)
check(drafted.tokens == plain.tokens && drafted.probabilities == plain.probabilities, "a draft")
check(drafted.acceptedDraftTokens > 5, "a draft that is right")
await refused(PALMTOP_INVALID_ARGUMENT) { _ = try film.answer("caption en", about: []) }
await refused(PALMTOP_INVALID_ARGUMENT) { _ = try session.answer("caption en", about: [first, features]) }

for object in try session.answer("segment cat", about: features).objects {
    if let mask = object.mask { check(mask.pixels.count == mask.width * mask.height, "a mask") }
}

for (token, probability) in zip(caption.tokens, caption.probabilities) {
    print(token, String(format: "%08x", probability.bitPattern), separator: ":", terminator: " ")
}
print(caption.text)
