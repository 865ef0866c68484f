#!/usr/bin/env bash
# Checks (clippy, default) or links the project for macOS on a Debian machine without an Apple SDK.
#
#   tools/macos-check.sh [clippy|check|link] [cargo arguments]
#   tools/macos-check.sh externs     our extern "C" functions are in libSystem, our layouts in its headers
#
# The standard library for the target is built once from the distribution's rust-src package of exactly
# this compiler's release and kept under ~/.cache. Exit 3: no such package is to be had, NOT CHECKED.
set -euo pipefail

mode=${1:-clippy}
[ $# -gt 0 ] && shift
target=aarch64-apple-darwin
release=$(rustc --version | cut -d' ' -f2)
host=$(rustc -vV | awk '/^host:/{print $2}')
store=${XDG_CACHE_HOME:-$HOME/.cache}/halton-meter-macos/$release
toolchain=$store/toolchain
key=$(tr 'a-z-' 'A-Z_' <<<"$target")
mkdir -p "$store/bin"

not_checked() {
  echo "macos-check: NOT CHECKED: $*" >&2
  exit 3
}

# The library sources, by a private apt configuration that knows newer suites of the same mirror.
sources() {
  [ -e "$store/library/std/Cargo.toml" ] && return
  local apt=$store/apt mirror version
  mirror=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
  [ -n "$mirror" ] || mirror=$(awk '$1=="deb"{for(i=2;i<=NF;i++) if($i ~ /:\/\//){print $i; exit}}' /etc/apt/sources.list 2>/dev/null || true)
  [ -n "$mirror" ] || not_checked "no Debian mirror is configured"
  mkdir -p "$apt"/{sources,lists/partial,archives/partial}
  : >"$apt/status"
  printf 'Types: deb\nURIs: %s\nSuites: trixie-backports forky sid experimental\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "$mirror" >"$apt/sources/newer.sources"
  local with=(
    -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$apt/sources"
    -o "Dir::State::Lists=$apt/lists" -o "Dir::State::status=$apt/status"
    -o "Dir::Cache::Archives=$apt/archives" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache="
    -o "Acquire::Languages=none" -o "APT::Sandbox::User=root"
  )
  apt-get -qq "${with[@]}" update || not_checked "the package lists could not be read"
  version=$(apt-cache "${with[@]}" madison rust-src | awk '{print $3}' | grep -m1 "^${release//./\\.}[+-]") ||
    not_checked "no rust-src $release on the mirror"
  (cd "$apt" && apt-get -qq "${with[@]}" download "rust-src=$version") || not_checked "rust-src could not be fetched"
  rm -rf "$apt/unpacked"
  dpkg-deb -x "$apt"/rust-src_*.deb "$apt/unpacked"
  mv "$apt/unpacked/usr/src/rustc-$release/library" "$store/library"
  rm -rf "$apt"
}

# A hard-linked copy of the toolchain, with std for the target added.
standard_library() {
  local lib=$toolchain/lib/rustlib/$target/lib sysroot
  [ -e "$lib/.complete" ] && return
  sysroot=$(rustc --print sysroot)
  rm -rf "$toolchain"
  mkdir -p "$toolchain" "$store/empty/src"
  cp -al "$sysroot"/{bin,lib,libexec} "$toolchain/" 2>/dev/null || cp -a "$sysroot"/{bin,lib,libexec} "$toolchain/"
  printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2021"\n[profile.release]\ndebug = 0\n[workspace]\n' >"$store/empty/Cargo.toml"
  : >"$store/empty/src/lib.rs"
  (cd "$store/empty" && RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT="$store/library" RUSTC="$toolchain/bin/rustc" \
    CARGO_TARGET_DIR="$store/empty/target" "$toolchain/bin/cargo" build --quiet --release --target "$target" \
    -Zbuild-std=std,test,panic_abort,panic_unwind,proc_macro)
  mkdir -p "$lib"
  cp "$store/empty/target/$target/release/deps/"*.rlib "$lib/"
  rm -rf "$lib"/libempty-* "$store/empty"
  : >"$lib/.complete"
}

# For a check no C need be compiled: build scripts get tools that write empty files.
empty_tools() {
  cat >"$store/bin/cc" <<'S'
#!/usr/bin/env bash
for a in "$@"; do [ "$a" = -E ] && exec /usr/bin/cc -E -x c "${@: -1}"; done
out=
for a in "$@"; do [ "$out" = next ] && { : >"$a"; out=; }; [ "$a" = -o ] && out=next; done
exit 0
S
  cat >"$store/bin/ar" <<'S'
#!/usr/bin/env bash
for a in "$@"; do case $a in *.a) printf '!<arch>\n' >"$a" ;; esac; done
S
  chmod +x "$store/bin/cc" "$store/bin/ar"
  export "CC_${target//-/_}=$store/bin/cc" "AR_${target//-/_}=$store/bin/ar"
}

# Text stubs of the system's libraries: names only; symbols are looked up at load time.
sdk_stubs() {
  local sdk=$store/sdk name
  stub() {
    mkdir -p "$(dirname "$1")"
    printf -- "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\ninstall-name: '%s'\nexports:\n  - targets: [ arm64-macos ]\n    symbols: [ %s ]\n...\n" \
      "$2" "$3" >"$1"
  }
  stub "$sdk/usr/lib/libSystem.tbd" /usr/lib/libSystem.B.dylib dyld_stub_binder
  for name in c m; do cp "$sdk/usr/lib/libSystem.tbd" "$sdk/usr/lib/lib$name.tbd"; done
  for name in objc iconv; do stub "$sdk/usr/lib/lib$name.tbd" "/usr/lib/lib$name.dylib" "___stub_$name"; done
  for name in CoreFoundation Foundation IOKit Security SystemConfiguration CoreServices; do
    stub "$sdk/System/Library/Frameworks/$name.framework/$name.tbd" \
      "/System/Library/Frameworks/$name.framework/Versions/A/$name" "___stub_$name"
  done
  export SDKROOT=$sdk
}

# The Zig compiler of the PyPI package ziglang: it has the system's headers and list of symbols.
zig_package() {
  [ -x "$store/zig/bin/python" ] || python3 -m venv "$store/zig" || not_checked "no Python environment could be made"
  "$store/zig/bin/python" -m pip install --quiet --disable-pip-version-check 'ziglang==0.17.1' ||
    not_checked "ziglang could not be installed"
  package=$("$store/zig/bin/python" -c 'import os, ziglang; print(os.path.dirname(ziglang.__file__))')
  zig=$package/zig
}

# A linker that looks symbols up at load time lets a misspelt one pass.
externs() {
  zig_package
  local list=$package/lib/libc/darwin/libSystem.tbd name missing=0 count=0
  for name in $(awk '/unsafe extern "C" \{/{in_block=1; next} in_block && /^ *\}/{in_block=0}
      in_block && match($0, /fn [a-z_0-9]+/){print substr($0, RSTART + 3, RLENGTH - 3)}' src/macos/*.rs); do
    count=$((count + 1))
    grep -qE "[ ,\[']_$name[,' ]|[ ,\[']_$name\$" "$list" || { echo "not in libSystem: $name" >&2; missing=1; }
  done
  [ "$count" -gt 0 ] || { echo "no extern was found in src/macos" >&2; missing=1; }
  "$zig" cc -target aarch64-macos.11.0 -c tools/macos/layout.c -o "$store/layout.o" || missing=1
  echo "$count externs, layouts of tools/macos/layout.c"
  return "$missing"
}

zig_tools() {
  zig_package
  cat >"$store/bin/zig-cc" <<S
#!/usr/bin/env bash
args=()
while [ \$# -gt 0 ]; do
  case \$1 in
    -arch | -target | --target) shift ;;
    --target=* | -mmacosx-version-min=*) ;;
    *) args+=("\$1") ;;
  esac
  shift
done
exec "$zig" cc -target aarch64-macos.11.0 "\${args[@]}"
S
  printf '#!/usr/bin/env bash\nexec "%s" ar "$@"\n' "$zig" >"$store/bin/zig-ar"
  chmod +x "$store/bin/zig-cc" "$store/bin/zig-ar"
  export "CC_${target//-/_}=$store/bin/zig-cc" "AR_${target//-/_}=$store/bin/zig-ar"
  export "CARGO_TARGET_${key}_LINKER=$toolchain/lib/rustlib/$host/bin/rust-lld"
  export "CARGO_TARGET_${key}_RUSTFLAGS=-Clinker-flavor=ld64.lld -Clink-arg=-undefined -Clink-arg=dynamic_lookup"
}

[ "$mode" = externs ] && { externs; exit; }
sources
standard_library
sdk_stubs
export PATH=$toolchain/bin:$PATH
unset RUSTUP_TOOLCHAIN
case $mode in
  clippy | check)
    empty_tools
    exec cargo "$mode" --target "$target" "$@"
    ;;
  link)
    zig_tools
    cargo build --target "$target" "$@"
    file "${CARGO_TARGET_DIR:-target}/$target"/*/halton-meter | tee -a /dev/stderr | grep -q 'Mach-O 64-bit arm64 executable'
    ;;
  *)
    echo "usage: $0 [clippy|check|link|externs] [cargo arguments]" >&2
    exit 2
    ;;
esac
