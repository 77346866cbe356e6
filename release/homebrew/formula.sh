#!/usr/bin/env bash
# A formula for Homebrew, of the archives that are there: palmtop.rb. On Linux it installs the program as it was built, on a
# Mac it builds it from the sources. PALMTOP_URL is where the archives will lie, up to their names.
cd "$(dirname "$0")/../.."
. release/common.sh
name_commit
url=${PALMTOP_URL:-https://palmtop.example/releases/v$version}

# archive NAME: its address and sum, as lines of the formula.
archive() {
    local sum=
    sum=$(sha256sum "$out/$1" 2> /dev/null | cut -d ' ' -f 1) || true
    [ -n "$sum" ] || { echo "note: $1 is not there; the formula leaves it out" >&2; return; }
    printf '%surl "%s/%s"\n%ssha256 "%s"\n' "$2" "$url" "$1" "$2" "$sum"
}

{
    cat <<RUBY
class Palmtop < Formula
  desc "Ask PaliGemma about pictures, on small CPUs"
  homepage "${url%/releases*}"
  version "$version"
  license "Apache-2.0"

  on_macos do
$(archive "palmtop-$version-source.tar.gz" "    ")
    depends_on "rust" => :build
  end

  on_linux do
    on_intel do
$(archive "palmtop-$version-x86_64-unknown-linux-musl.tar.gz" "      ")
    end
    on_arm do
$(archive "palmtop-$version-aarch64-unknown-linux-musl.tar.gz" "      ")
    end
  end

  def install
    if OS.mac?
      ENV["PALMTOP_COMMIT"] = "${PALMTOP_COMMIT:-}"
      system "cargo", "install", "--profile", "dist", *std_cargo_args(path: "cli")
      generate_completions_from_executable(bin/"palmtop", "completions")
      mkdir "man1" do
        system bin/"palmtop", "man", "."
      end
    else
      bin.install "palmtop"
      bash_completion.install "completions/palmtop.bash" => "palmtop"
      zsh_completion.install "completions/_palmtop"
      fish_completion.install "completions/palmtop.fish"
    end
    man1.install Dir["man1/*.1"]
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/palmtop --version")
  end
end
RUBY
} > "$out/palmtop.rb"
