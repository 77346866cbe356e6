import Foundation
import Palmtop

// Says what is in a picture: caption MODEL PICTURE
func fail(_ why: String) -> Never {
    FileHandle.standardError.write(Data("\(why)\n".utf8))
    exit(1)
}

let arguments = CommandLine.arguments
guard arguments.count == 3 else { fail("usage: caption MODEL PICTURE") }
do {
    let model = try Model(path: arguments[1])
    let session = try Session(model)
    let features = try Features(model)
    try session.encode(Data(contentsOf: URL(fileURLWithPath: arguments[2])), into: features)
    for try await piece in session.pieces("caption en", about: features) {
        print(piece, terminator: "")
    }
    print()
} catch {
    fail("\(error)")
}
