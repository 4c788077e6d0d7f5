//! What this program was built from, and whether another build runs a plan bit for bit alike.
//!
//! Two builds of the same sources, lockfile and toolchain give the same trace for the same plan. Anything else may change
//! the order of a draw or a message, and then the plan is all they share: it means the same, and its run is another one.

use serde::{Deserialize, Serialize};

/// One build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    pub version: String,
    /// Of git; empty if it was built from an archive.
    pub commit: String,
    /// Hash of the sources as they were built, which a commit alone does not tell.
    pub sources: String,
    /// Hash of Cargo.lock.
    pub lockfile: String,
    /// As `rustc --version` has it.
    pub toolchain: String,
    pub target: String,
    /// `debug` or `release`.
    pub profile: String,
}

impl Build {
    /// Of the running program.
    pub fn current() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("BUILT_COMMIT").into(),
            sources: env!("BUILT_SOURCES").into(),
            lockfile: env!("BUILT_LOCKFILE").into(),
            toolchain: env!("BUILT_TOOLCHAIN").into(),
            target: env!("BUILT_TARGET").into(),
            profile: env!("BUILT_PROFILE").into(),
        }
    }

    /// Why a run of the other build need not be matched bit for bit; empty if it must be. The target and the profile are
    /// no reason: neither takes part in a run.
    pub fn differences(&self, other: &Build) -> Vec<&'static str> {
        let of = |name, same: bool| (!same).then_some(name);
        let all = [
            of("sources", self.sources == other.sources),
            of("lockfile", self.lockfile == other.lockfile),
            of("toolchain", self.toolchain == other.toolchain),
        ];
        all.into_iter().flatten().collect()
    }

    /// `commit 92c7009` or `no commit known`.
    pub fn commit_text(&self) -> String {
        match self.commit.get(..12) {
            Some(short) => format!("commit {short}"),
            None => "no commit known".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_part_in_a_run_is_a_difference() {
        let build = Build::current();
        assert!(build.sources.len() == 32 && build.lockfile.len() == 32 && build.toolchain.starts_with("rustc "));
        let elsewhere = Build { target: "aarch64".into(), profile: "other".into(), commit: "".into(), ..build.clone() };
        assert!(build.differences(&elsewhere).is_empty());
        let other = Build { sources: "0".into(), toolchain: "rustc 2.0".into(), ..build.clone() };
        assert_eq!(build.differences(&other), ["sources", "toolchain"]);
    }
}
