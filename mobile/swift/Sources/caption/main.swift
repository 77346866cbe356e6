import Foundation
import Palmtop

// Says what is in a picture: caption MODEL PICTURE
let arguments = CommandLine.arguments
guard arguments.count == 3 else {
    FileHandle.standardError.write(Data("usage: caption MODEL PICTURE\n".utf8))
    exit(2)
}
let model = try Model(path: arguments[1])
let session = try Session(model)
let features = try Features(model)
try session.encode(Data(contentsOf: URL(fileURLWithPath: arguments[2])), into: features)
for try await piece in session.pieces("caption en", about: features) {
    print(piece, terminator: "")
}
print()
