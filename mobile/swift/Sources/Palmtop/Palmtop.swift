import CPalmtop
import Foundation

/// An error of the library: a value of palmtop_status, and a sentence.
public struct PalmtopError: Error, CustomStringConvertible {
    public let status: Int32
    public let description: String

    /// Throws if a call failed.
    static func check(_ status: palmtop_status) throws {
        if status != 0 {
            throw PalmtopError(status: status, description: String(cString: palmtop_last_error()))
        }
    }

    public var isCancelled: Bool { status == Int32(PALMTOP_CANCELLED) }
}

/// An open model file, for sessions on any thread.
public final class Model: @unchecked Sendable {
    let handle: palmtop_model

    public init(path: String) throws {
        var handle = palmtop_model()
        try PalmtopError.check(palmtop_model_open(path, &handle))
        self.handle = handle
    }

    deinit { palmtop_model_free(handle) }
}

/// The output of the image encoder for one picture.
public final class Features: @unchecked Sendable {
    let handle: palmtop_features

    public init(_ model: Model) throws {
        var handle = palmtop_features()
        try PalmtopError.check(palmtop_features_new(model.handle, &handle))
        self.handle = handle
    }

    deinit { palmtop_features_free(handle) }
}

/// The rectangle of a mask and its pixels, row by row: 1 or 0. No pixel outside it is set.
public struct Mask: Sendable {
    public let x, y, width, height: Int
    public let pixels: [UInt8]

    /// The mask that `get` gives, called for its size and then for its pixels; nil if there is none.
    static func read(
        _ get: (UnsafeMutablePointer<palmtop_mask>, UnsafeMutablePointer<UInt8>?, Int) -> palmtop_status
    ) throws -> Mask? {
        var mask = palmtop_mask()
        mask.size = MemoryLayout<palmtop_mask>.size
        let status = get(&mask, nil, 0)
        if status == Int32(PALMTOP_NOT_FOUND) { return nil }
        try PalmtopError.check(status)
        var pixels = [UInt8](repeating: 0, count: Int(mask.width) * Int(mask.height))
        try PalmtopError.check(get(&mask, &pixels, pixels.count))
        return Mask(x: Int(mask.x), y: Int(mask.y), width: Int(mask.width), height: Int(mask.height), pixels: pixels)
    }
}

/// An object that an answer locates, in pixels of the upright picture; of several, the first.
public struct Detection: Sendable {
    public let label: String
    /// Likelihood of the label; nil if there is no label.
    public let score: Float?
    public let xMin, yMin, xMax, yMax: Float
    /// nil if the model gave no mask, or has no mask decoder.
    public let mask: Mask?

    init(_ object: palmtop_object, mask: Mask?) {
        label = String(cString: object.label)
        score = object.score < 0 ? nil : object.score
        (xMin, yMin, xMax, yMax) = (object.x_min, object.y_min, object.x_max, object.y_max)
        self.mask = mask
    }
}

/// An answer.
public struct Answer: Sendable {
    public let text: String
    public let tokens: [UInt32]
    /// The probability that the model gave to each token.
    public let probabilities: [Float]
    /// Tokens that the draft had right, and that took no step of their own.
    public let acceptedDraftTokens: Int
    public let objects: [Detection]
}

/// A time for the `deadline` of calls, in nanoseconds of palmtop_clock_ns.
public func deadline(after seconds: Double) -> UInt64 {
    palmtop_clock_ns() + UInt64(max(seconds, 0) * 1e9)
}

/// The memory and the threads that compute answers, for one call at a time.
public final class Session: @unchecked Sendable {
    let handle: palmtop_session

    /// For prompts about up to `pictures` pictures; up to `draftTokens` tokens of a draft are checked in one step. `filter` is
    /// one of PALMTOP_FILTER_: how pictures are resized, by default as the model's file says.
    public init(
        _ model: Model, newTokens: UInt32 = 256, threads: UInt32 = 0, pictures: UInt32 = 1, draftTokens: UInt32 = 0,
        filter: Int32 = 0
    ) throws {
        var options = palmtop_session_options()
        try PalmtopError.check(palmtop_session_options_init(&options, MemoryLayout<palmtop_session_options>.size))
        options.new_tokens = newTokens
        options.threads = threads
        options.pictures = pictures
        options.draft_tokens = draftTokens
        options.filter = filter
        var handle = palmtop_session()
        try PalmtopError.check(palmtop_session_new(model.handle, &options, &handle))
        self.handle = handle
    }

    deinit { palmtop_session_free(handle) }

    /// Encodes the picture in a JPEG, PNG, WebP, BMP, GIF or TIFF file.
    public func encode(_ file: Data, into features: Features, deadline: UInt64 = 0) throws {
        var options = try Self.encoding(deadline)
        try file.withUnsafeBytes { bytes in
            try PalmtopError.check(palmtop_encode_file(handle, features.handle, bytes.baseAddress, bytes.count, &options))
        }
    }

    /// Encodes pixels in place, such as those of a locked CVPixelBuffer.
    public func encode(_ pixels: inout palmtop_pixels, into features: Features, deadline: UInt64 = 0) throws {
        var options = try Self.encoding(deadline)
        try PalmtopError.check(palmtop_encode_pixels(handle, features.handle, &pixels, &options))
    }

    private static func encoding(_ deadline: UInt64) throws -> palmtop_encode_options {
        var options = palmtop_encode_options()
        try PalmtopError.check(palmtop_encode_options_init(&options, MemoryLayout<palmtop_encode_options>.size))
        options.deadline_ns = deadline
        return options
    }

    /// Answers a prompt. `onPiece` receives the answer as it is generated; return false from it to end the answer.
    public func answer(
        _ prompt: String, about features: Features, deadline: UInt64 = 0, onPiece: (String) -> Bool = { _ in true }
    ) throws -> Answer {
        try answer(prompt, about: [features], deadline: deadline, onPiece: onPiece)
    }

    /// Answers a prompt about several pictures, frames of a film or a pair, in this order. Their features stay as they are: for
    /// the next question about a film encode the frames that are new, and hand in all of them. `draft` are tokens that the
    /// answer may turn out to be, such as those of the last answer about the same scene: the answer is the one without it, bit
    /// for bit, and comes sooner, the more of it the draft has right.
    public func answer(
        _ prompt: String, about pictures: [Features], draft: [UInt32] = [], deadline: UInt64 = 0,
        onPiece: (String) -> Bool = { _ in true }
    ) throws -> Answer {
        try withoutActuallyEscaping(onPiece) { onPiece in
            let listener = Listener(onPiece)
            var options = palmtop_answer_options()
            try PalmtopError.check(palmtop_answer_options_init(&options, MemoryLayout<palmtop_answer_options>.size))
            options.deadline_ns = deadline
            options.piece_user = Unmanaged.passUnretained(listener).toOpaque()
            options.on_piece = { user, piece in
                guard let user, let piece = piece?.pointee else { return 1 }
                let bytes = UnsafeRawBufferPointer(start: piece.text, count: piece.length)
                let text = String(decoding: bytes, as: UTF8.self)
                return Unmanaged<Listener>.fromOpaque(user).takeUnretainedValue().hear(text) ? 0 : 1
            }
            var result = palmtop_result()
            defer { palmtop_result_free(result) }
            let handles = pictures.map { $0.handle }
            try prompt.withCString { text in
                try handles.withUnsafeBufferPointer { handles in
                    try draft.withUnsafeBufferPointer { draft in
                        var request = palmtop_request()
                        request.size = MemoryLayout<palmtop_request>.size
                        request.prompt = text
                        request.pictures = handles.baseAddress
                        request.picture_count = handles.count
                        request.draft = draft.baseAddress
                        request.draft_count = draft.count
                        try PalmtopError.check(palmtop_answer_requests(handle, &request, 1, &options, &result))
                    }
                }
            }
            return try withExtendedLifetime((listener, pictures)) { try Self.read(result) }
        }
    }

    /// The answer to a prompt, piece by piece. A thread of its own computes it. If you end the iteration, the
    /// computation is cancelled; the session is busy until it has ended, which takes about the time of one layer.
    /// `cancel` ends this stream only.
    public func pieces(_ prompt: String, about features: Features, deadline: UInt64 = 0) -> AsyncThrowingStream<String, Error> {
        AsyncThrowingStream { continuation in
            let running = Running()
            continuation.onTermination = { _ in running.ifSo { self.cancel() } }
            Thread.detachNewThread {
                let answered = Result {
                    try self.answer(prompt, about: features, deadline: deadline) { text in
                        if case .terminated = continuation.yield(text) { return false }
                        return true
                    }
                }
                running.end { self.resetCancel() }
                switch answered {
                case .success: continuation.finish()
                case .failure(let error): continuation.finish(throwing: error)
                }
            }
        }
    }

    /// Stops the call that is using this session; callable from any thread. That call and all later ones throw until
    /// `resetCancel`.
    public func cancel() { palmtop_session_cancel(handle) }

    public func resetCancel() { palmtop_session_reset_cancel(handle) }

    private static func read(_ result: palmtop_result) throws -> Answer {
        var info = palmtop_answer_info()
        info.size = MemoryLayout<palmtop_answer_info>.size
        try PalmtopError.check(palmtop_result_get_answer(result, 0, &info))
        var objects: [Detection] = []
        for index in 0..<info.object_count {
            var object = palmtop_object()
            object.size = MemoryLayout<palmtop_object>.size
            try PalmtopError.check(palmtop_result_get_object(result, 0, index, &object))
            objects.append(Detection(object, mask: try Mask.read { palmtop_result_get_mask(result, 0, index, $0, $1, $2) }))
        }
        return Answer(
            text: String(cString: info.text),
            tokens: Array(UnsafeBufferPointer(start: info.tokens, count: info.token_count)),
            probabilities: Array(UnsafeBufferPointer(start: info.probabilities, count: info.token_count)),
            acceptedDraftTokens: Int(info.accepted_draft_tokens), objects: objects)
    }
}

/// Whether a computation is still running; work that depends on it runs under the lock.
final class Running: @unchecked Sendable {
    private let lock = NSLock()
    private var isSo = true

    func ifSo(_ act: () -> Void) {
        lock.lock()
        defer { lock.unlock() }
        if isSo { act() }
    }

    func end(_ act: () -> Void) {
        lock.lock()
        defer { lock.unlock() }
        isSo = false
        act()
    }
}

/// Carries a closure through C.
private final class Listener {
    let hear: (String) -> Bool

    init(_ hear: @escaping (String) -> Bool) { self.hear = hear }
}
