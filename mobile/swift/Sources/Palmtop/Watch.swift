import CPalmtop
import Foundation

/// Something that a watch tells: an answer, or the beginning or the end of an event.
public struct Record: Sendable {
    public enum Kind: Sendable {
        /// An answer; with `choose`, its likelihood.
        case answer(score: Float?)
        case eventBegins
        /// After so many nanoseconds.
        case eventEnds(lasted: UInt64)
    }

    public let kind: Kind
    public let camera: String
    /// Name of the question; its prompt if it has no name.
    public let question: String
    /// Of an event: name of its rule; else empty.
    public let rule: String
    /// Of an event: the same at its beginning and its end, and never given again; else empty.
    public let id: String
    /// The answer; empty for events that `end` ended.
    public let text: String
    /// Of an event about one object: its label and its number.
    public let label: String?
    public let track: UInt64?
    /// The frame's number among those of its camera, from 0.
    public let picture: UInt64
    /// When the frame was exposed, on palmtop_clock_ns.
    public let time: UInt64
    /// Nanoseconds from the frame's exposure until this was known.
    public let latency: UInt64
    /// Something is believed from now on that was not before.
    public let changed: Bool
    /// The objects that the answer locates, in the question's zone.
    public let objects: [TrackedObject]
    /// As `palmtop watch --json` prints it, without the end of the line.
    public let json: String
}

/// An object, and the number that it keeps from look to look; nil before it has one.
public struct TrackedObject: Sendable {
    public let detection: Detection
    public let track: UInt64?
}

/// A frame for `Watch.records`. `owner` keeps the memory alive that `pixels` names, such as a locked CVPixelBuffer.
public struct Frame: @unchecked Sendable {
    public var pixels: palmtop_pixels
    /// Number of the camera, in the order of the questions' text.
    public var camera: UInt32
    /// When it was exposed, on palmtop_clock_ns; 0 is now.
    public var time: UInt64
    public var owner: AnyObject?

    public init(_ pixels: palmtop_pixels, camera: UInt32 = 0, time: UInt64 = 0, owner: AnyObject? = nil) {
        self.pixels = pixels
        self.camera = camera
        self.time = time
        self.owner = owner
    }
}

/// Asks the same questions of the frames of one or several cameras, and turns the answers into events; for one call at a time.
public final class Watch: @unchecked Sendable {
    let handle: palmtop_watch
    private let queue = DispatchQueue(label: "palmtop-watch")

    /// `questions` is a text in TOML, the configuration of the program `palmtop watch`. With `allAnswers` there is a record for
    /// every answer. With `recording` rules go by the frames' times, and the budget counts from the call of `frame`.
    public init(
        _ model: Model, questions: String, threads: UInt32 = 0, allAnswers: Bool = false, recording: Bool = false
    ) throws {
        var limits = palmtop_session_options()
        try PalmtopError.check(palmtop_session_options_init(&limits, MemoryLayout<palmtop_session_options>.size))
        limits.threads = threads
        var options = palmtop_watch_options()
        try PalmtopError.check(palmtop_watch_options_init(&options, MemoryLayout<palmtop_watch_options>.size))
        options.all_answers = allAnswers ? 1 : 0
        options.recording = recording ? 1 : 0
        var handle = palmtop_watch()
        try withUnsafePointer(to: &limits) { limits in
            options.session = limits
            try PalmtopError.check(palmtop_watch_new(model.handle, questions, &options, &handle))
        }
        self.handle = handle
    }

    deinit { palmtop_watch_free(handle) }

    /// Takes a frame, and returns what follows from it, oldest record first. If it throws, the next call returns the records of
    /// answers that came before that.
    public func frame(_ frame: Frame) throws -> [Record] {
        var pixels = frame.pixels
        try withExtendedLifetime(frame.owner) {
            try PalmtopError.check(palmtop_watch_frame(handle, frame.camera, &pixels, frame.time, nil))
        }
        return try waiting()
    }

    /// Ends all events, at the time of the last frame, and returns their records.
    public func end() throws -> [Record] {
        try PalmtopError.check(palmtop_watch_end(handle))
        return try waiting()
    }

    /// Obeys a line: "ask", "ask NAME", "pause" or "resume".
    public func command(_ line: String) throws {
        try PalmtopError.check(palmtop_watch_command(handle, line))
    }

    /// Gives a question another prompt, from the next frame on.
    public func setPrompt(_ prompt: String, of question: String) throws {
        try PalmtopError.check(palmtop_watch_set_prompt(handle, question, prompt))
    }

    /// Stops the call that is using this watch; callable from any thread. That call and all later ones of `frame` throw until
    /// `resetCancel`.
    public func cancel() { palmtop_watch_cancel(handle) }

    public func resetCancel() { palmtop_watch_reset_cancel(handle) }

    /// What the watch tells of `frames`. Looks run on a queue of their own. When the frames end, so do all events. If you end
    /// the iteration, the look is cancelled; the watch is busy until it has ended, which takes about the time of one layer.
    ///
    /// So that the newest frame wins, let the stream of frames keep one only:
    ///
    ///     let (frames, camera) = AsyncStream.makeStream(of: Frame.self, bufferingPolicy: .bufferingNewest(1))
    ///     for try await record in watch.records(of: frames) { print(record.text) }
    public func records<Frames: AsyncSequence & Sendable>(of frames: Frames) -> AsyncThrowingStream<Record, Error>
    where Frames.Element == Frame {
        AsyncThrowingStream { continuation in
            let running = Running()
            let task = Task {
                var wrong: Error?
                do {
                    for try await frame in frames {
                        for record in try await self.onQueue({ try self.frame(frame) }) { continuation.yield(record) }
                    }
                    for record in try await self.onQueue({ try self.end() }) { continuation.yield(record) }
                } catch {
                    wrong = error
                }
                running.end { self.resetCancel() }
                continuation.finish(throwing: wrong)
            }
            continuation.onTermination = { _ in
                task.cancel()
                running.ifSo { self.cancel() }
            }
        }
    }

    /// Waits for work that holds its thread.
    private func onQueue<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            queue.async { continuation.resume(with: Swift.Result { try work() }) }
        }
    }

    private func waiting() throws -> [Record] {
        var records: [Record] = []
        var record = palmtop_record()
        record.size = MemoryLayout<palmtop_record>.size
        while true {
            let status = palmtop_watch_next(handle, &record)
            if status == Int32(PALMTOP_NOT_FOUND) { return records }
            try PalmtopError.check(status)
            records.append(try read(record))
        }
    }

    private func read(_ record: palmtop_record) throws -> Record {
        var json: UnsafePointer<CChar>?
        var length = 0
        try PalmtopError.check(palmtop_watch_record_json(handle, &json, &length))
        var objects: [TrackedObject] = []
        for index in 0..<record.object_count {
            var object = palmtop_object()
            object.size = MemoryLayout<palmtop_object>.size
            try PalmtopError.check(palmtop_watch_get_object(handle, index, &object))
            let mask = try Mask.read { palmtop_watch_get_mask(self.handle, index, $0, $1, $2) }
            objects.append(
                TrackedObject(detection: Detection(object, mask: mask), track: object.track == 0 ? nil : object.track))
        }
        let kind: Record.Kind
        if record.kind == Int32(PALMTOP_RECORD_ANSWER) {
            kind = .answer(score: record.score < 0 ? nil : record.score)
        } else if record.phase == Int32(PALMTOP_EVENT_BEGINS) {
            kind = .eventBegins
        } else {
            kind = .eventEnds(lasted: record.lasted_ns)
        }
        let label = String(cString: record.label)
        return Record(
            kind: kind, camera: String(cString: record.camera), question: String(cString: record.question),
            rule: String(cString: record.rule), id: String(cString: record.id), text: String(cString: record.text),
            label: label.isEmpty ? nil : label, track: record.track == 0 ? nil : record.track, picture: record.picture,
            time: record.time_ns, latency: record.latency_ns, changed: record.changed != 0, objects: objects,
            json: json.map { String(cString: $0) } ?? "")
    }
}
