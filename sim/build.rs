//! What this program was built from, for capsules: the commit, and a hash of the sources themselves, since a commit says
//! nothing of what was changed since.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What decides how a run goes. Tests and documents do not.
const SOURCES: [&str; 9] = [
    "models",
    "invariants",
    "scenarios",
    "reports/src",
    "sim/src",
    "sim/seed",
    "sim/world",
    "system",
    "examples/flights",
];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let git = |args: &[&str]| {
        let out = Command::new("git").arg("-C").arg(&root).args(args).output().ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        (out.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_default();
    // Moves with each commit and checkout. A path that does not exist would make cargo run this every time.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).map(|log| root.join(log))
        && log.exists()
    {
        println!("cargo::rerun-if-changed={}", log.display());
    }
    let mut files = Vec::new();
    for dir in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(dir).display());
        list(&root.join(dir), &mut files);
    }
    files.sort();
    let mut hash = Fnv::default();
    for file in &files {
        let name = file.strip_prefix(&root).unwrap_or(file);
        hash.add(name.to_string_lossy().as_bytes());
        hash.add(&std::fs::read(file).unwrap_or_default());
    }
    let lock = root.join("Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let mut lockfile = Fnv::default();
    lockfile.add(&std::fs::read(lock).unwrap_or_default());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let rustc = Command::new(rustc).arg("--version").output().ok().and_then(|out| String::from_utf8(out.stdout).ok());
    // Not STREAMPROOF_: cargo hands these to what `cargo run` starts, where they would be settings.
    let set = |name: &str, value: &str| println!("cargo::rustc-env=BUILT_{name}={value}");
    set("COMMIT", &commit);
    set("SOURCES", &hash.hex());
    set("LOCKFILE", &lockfile.hex());
    set("TOOLCHAIN", rustc.unwrap_or_default().trim());
    set("TARGET", &std::env::var("TARGET").unwrap_or_default());
    set("PROFILE", &std::env::var("PROFILE").unwrap_or_default());
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let source = path
            .extension()
            .is_some_and(|e| ["rs", "toml", "patch", "csv", "html", "css", "js"].iter().any(|s| e == *s));
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target" && name != "fuzz") {
            list(&path, files);
        } else if source {
            files.push(path);
        }
    }
}

/// FNV-1a with 128 bits: nobody attacks it, and a build script needs no dependency for it.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    /// With its length, so that what moves from one file to the next shows.
    fn add(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    fn hex(&self) -> String {
        format!("{:032x}", self.0)
    }
}
