//! A file's name as the disk keeps it.
//!
//! Absolute and without `.` and `..`, each part led by a NUL in the place of the slash: `/data/t-0` is `\0data\0t-0`,
//! the root is empty. NUL is in no name and sorts before every byte, so plain byte order is that of the parts, parents
//! come before their children, and what lies below a directory is one range.

use std::borrow::Borrow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Name(Rc<str>);

impl Name {
    /// A relative path starts at the root.
    pub(crate) fn of(path: &Path) -> Self {
        let text = path.as_os_str().to_string_lossy();
        let mut name = String::with_capacity(text.len() + 1);
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => name.truncate(name.rfind('\0').unwrap_or(0)),
                part => {
                    name.push('\0');
                    name.push_str(part);
                }
            }
        }
        Self(name.into())
    }

    pub(crate) fn root() -> Self {
        Self("".into())
    }

    /// The directory it is in; the root is in none.
    pub(crate) fn dir(&self) -> Option<Self> {
        self.dir_text().map(|dir| Self(dir.into()))
    }

    /// [`Name::dir`], for a look-up.
    pub(crate) fn dir_text(&self) -> Option<&str> {
        self.0.rfind('\0').map(|end| &self.0[..end])
    }

    /// Its last part.
    pub(crate) fn last(&self) -> &str {
        self.0.rsplit('\0').next().unwrap_or_default()
    }

    /// What every name below it begins with.
    pub(crate) fn prefix(&self) -> String {
        format!("{}\0", self.0)
    }

    pub(crate) fn is_below(&self, dir: &Name) -> bool {
        self.0.strip_prefix(&*dir.0).is_some_and(|rest| rest.starts_with('\0'))
    }

    /// The name in `to` of what is called so in `from`.
    pub(crate) fn moved(&self, from: &Name, to: &Name) -> Self {
        Self(format!("{}{}", to.0, self.0.strip_prefix(&*from.0).unwrap_or(&self.0)).into())
    }

    pub(crate) fn path(&self) -> PathBuf {
        if self.0.is_empty() { PathBuf::from("/") } else { PathBuf::from(self.0.replace('\0', "/")) }
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &str) -> Name {
        Name::of(Path::new(path))
    }

    #[test]
    fn paths_of_one_file_have_one_name() {
        for path in ["/a/b", "a/b", "//a/./b/", "/a/c/../b", "/../a/b"] {
            assert_eq!(name(path).path(), Path::new("/a/b"), "{path}");
        }
        assert_eq!((name("/"), name("/a/..")), (Name::root(), Name::root()));
        assert_eq!(Name::root().path(), Path::new("/"));
        assert_eq!((name("/a").dir(), Name::root().dir()), (Some(Name::root()), None));
        assert_eq!(name("/a/b").last(), "b");
        assert_eq!(name("/a/b/c").moved(&name("/a"), &name("/x/y")), name("/x/y/b/c"));
    }

    #[test]
    fn their_order_is_that_of_paths() {
        let paths = ["/", "/a", "/a/b", "/a/b/c", "/a-1", "/a.b", "/a/z", "/b", "/a b", "/a/b-1/x"];
        for (one, other) in paths.iter().flat_map(|one| paths.map(|other| (*one, other))) {
            assert_eq!(name(one).cmp(&name(other)), Path::new(one).cmp(Path::new(other)), "{one} {other}");
            let below = one != other && Path::new(one).starts_with(other);
            assert_eq!(name(one).is_below(&name(other)), below, "{one} below {other}");
            let prefix = name(other).prefix();
            assert_eq!(Borrow::<str>::borrow(&name(one)).starts_with(&prefix), below, "{one} below {other}");
        }
    }
}
