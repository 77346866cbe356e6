// swift-tools-version:5.9
import PackageDescription

// libpalmtop is found by pkg-config (capi/build.sh with PREFIX), or, in an app, as an XCFramework of libpalmtop.a and palmtop.h.
let package = Package(
    name: "Palmtop",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.library(name: "Palmtop", targets: ["Palmtop"])],
    targets: [
        .systemLibrary(name: "CPalmtop", pkgConfig: "palmtop"),
        .target(name: "Palmtop", dependencies: ["CPalmtop"]),
        .executableTarget(name: "caption", dependencies: ["Palmtop"]),
        .executableTarget(name: "check", dependencies: ["CPalmtop", "Palmtop"], path: "Tests/check"),
    ]
)
