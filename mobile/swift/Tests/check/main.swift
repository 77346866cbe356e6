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
for object in try session.answer("segment cat", about: features).objects {
    if let mask = object.mask { check(mask.pixels.count == mask.width * mask.height, "a mask") }
}

for (token, probability) in zip(caption.tokens, caption.probabilities) {
    print(token, String(format: "%08x", probability.bitPattern), separator: ":", terminator: " ")
}
print(caption.text)
