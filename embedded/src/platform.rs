//! The machine's operating system and processor, as far as pinned servers exist for it.
//!
//! Pure.

use std::fmt;

use millrace_terms::Error;

use crate::unavailable;

/// A platform that some embedded server exists for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Linux with glibc on x86-64.
    LinuxX64,
    /// Linux with glibc on 64-bit ARM.
    LinuxArm64,
    /// macOS on x86-64.
    MacosX64,
    /// macOS on Apple silicon.
    MacosArm64,
}

impl Platform {
    /// The platform that this program was built for.
    ///
    /// # Errors
    /// EMBEDDED_UNAVAILABLE if it is none of the above.
    pub fn current() -> Result<Self, Error> {
        Self::of(std::env::consts::OS, std::env::consts::ARCH, cfg!(target_env = "musl"))
    }

    fn of(os: &str, processor: &str, is_musl: bool) -> Result<Self, Error> {
        match (os, processor, is_musl) {
            ("linux", "x86_64", false) => Ok(Self::LinuxX64),
            ("linux", "aarch64", false) => Ok(Self::LinuxArm64),
            ("macos", "x86_64", _) => Ok(Self::MacosX64),
            ("macos", "aarch64", _) => Ok(Self::MacosArm64),
            _ => Err(unsupported("the embedded servers", os, processor)),
        }
    }
}

/// The one message for a server that does not exist for this machine.
pub(crate) fn unsupported(what: &str, os: impl fmt::Display, processor: impl fmt::Display) -> Error {
    unavailable(format!("{what} cannot be had for {os} on {processor}"))
        .with_remedy("Start the production images instead: docker compose up.")
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinuxX64 => "linux-x64",
            Self::LinuxArm64 => "linux-arm64",
            Self::MacosX64 => "macos-x64",
            Self::MacosArm64 => "macos-arm64",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_machine_is_one_message_with_a_remedy() {
        let error = Platform::of("plan9", "mips", false).unwrap_err();
        assert!(error.message().contains("plan9 on mips"), "{error}");
        assert!(error.remedy().contains("docker compose"));
        assert!(Platform::of("linux", "x86_64", true).is_err());
        assert_eq!(Platform::of("linux", "x86_64", false), Ok(Platform::LinuxX64));
    }
}
