//! Reads the configuration file and the secrets it refers to: the I/O around [`raw`].

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Config;
use super::prints::{Prints, prints};
use super::raw::{self, Env, Fault};
use super::redact::{self, Redacted};
use super::secret::{Secret, SecretSource};

/// More than any configuration needs; a wrong path (a disk, a film) must not fill the memory.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// More than any token, key or signed URL needs.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// More places of secrets than any configuration names; of former ones fewer stay known.
const MAX_SOURCES: usize = 256;

/// Where systemd keeps the credentials of the unit.
const CREDENTIALS: &str = "/run/credentials/onair.service";
/// Variables that hold the URL of a proxy, perhaps with a password.
const PROXIES: [&str; 6] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "all_proxy",
    "https_proxy",
    "http_proxy",
];

/// Why there is no configuration. The program ends with status 78.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file has faults.
    #[error("{}", listed(path, faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Each of them, in order of place.
        faults: Vec<Fault>,
    },
    /// The file could not be read.
    #[error("configuration {} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's word, or its size.
        why: String,
    },
}

/// How much of a configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The text, the secrets and the files that it names: the configuration can be used.
    Everything,
    /// The text alone, with a placeholder for each secret.
    Text,
}

/// Reads the configuration file at `path` (at most 1 MiB).
pub fn load(path: &Path, scope: Scope) -> Result<Config, Error> {
    load_noting(path, scope, &mut BTreeSet::new())
}

/// [`load`] that enters into `used` every file that what it returns depends on, faults included: the file itself, and
/// those that it names.
pub fn load_noting(
    path: &Path,
    scope: Scope,
    used: &mut BTreeSet<PathBuf>,
) -> Result<Config, Error> {
    used.insert(path.to_owned());
    let used = RefCell::new(used);
    let text = read(path, MAX_CONFIG_BYTES).map_err(|why| Error::Unreadable {
        path: path.to_owned(),
        why,
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    let env = match scope {
        Scope::Everything => Env {
            base,
            fetch: &|source| {
                used.borrow_mut().extend(place(source).ok().flatten());
                fetch(source).map(Some)
            },
            open: &|path| {
                used.borrow_mut().insert(path.to_owned());
                File::open(path)
                    .map(drop)
                    .map_err(|error| error.to_string())
            },
        },
        Scope::Text => Env {
            base,
            fetch: &|_| Ok(None),
            open: &|_| Ok(()),
        },
    };
    let mut config = raw::parse(&text, &env).map_err(|faults| Error::Faults {
        path: path.to_owned(),
        faults,
    })?;
    if config.daemon.state_dir.is_none() && scope == Scope::Everything {
        config.daemon.state_dir = state_directory();
    }
    Ok(config)
}

/// Secrets, for whoever must not repeat them.
#[derive(Debug, Default)]
pub struct Known {
    /// They, and the parts of them that are secrets by themselves.
    pub secrets: Vec<Secret>,
    /// Where others are that could not be read, each in two words.
    pub unread: Vec<String>,
}

/// The secrets of a configuration as they are renewed where they are kept, for whoever must never repeat one.
#[derive(Debug)]
pub struct Secrets {
    path: PathBuf,
    /// Where they are kept, by any text of the configuration so far: whoever was started by an earlier one reads on.
    sources: Vec<SecretSource>,
    /// The files that hold them, as they were just before they were read last.
    read: Prints,
}

impl Secrets {
    /// Those of the configuration at `path`, of which none has been read.
    pub const fn new(path: PathBuf) -> Self {
        Self {
            path,
            sources: Vec::new(),
            read: Prints::new(),
        }
    }

    /// All of them, if any may have changed since the last call: what the process has read before is known after. Asks
    /// the file system, so it may block for a moment.
    pub fn renewed(&mut self) -> Option<Vec<Secret>> {
        let before = prints(self.read.keys());
        if !before.is_empty() && before == self.read {
            return None;
        }
        let mut used = BTreeSet::new();
        let known = secrets_of(&self.path, &mut self.sources, &mut used);
        let too_many = self.sources.len().saturating_sub(MAX_SOURCES);
        self.sources.drain(..too_many);
        // One that is new may have changed since: it is taken for one that is not there, and read once more.
        let print = |path: PathBuf| {
            let print = before.get(&path).copied().flatten();
            (path, print)
        };
        self.read = used.into_iter().map(print).collect();
        Some(known.secrets)
    }
}

/// The secrets that the file at `path` holds or names, and those of the environment's proxies. Reads files, so it may
/// block for a moment.
pub fn secrets(path: &Path) -> Known {
    secrets_of(path, &mut Vec::new(), &mut BTreeSet::new())
}

/// [`secrets`], and those kept at `sources`, to which it adds; enters into `used` every file that it asked.
fn secrets_of(path: &Path, sources: &mut Vec<SecretSource>, used: &mut BTreeSet<PathBuf>) -> Known {
    used.insert(path.to_owned());
    let base = path.parent().unwrap_or(Path::new(""));
    let mut known = Known::default();
    if let Some(redacted) = discreet(path).ok().flatten() {
        known.secrets = redacted.secrets;
        sources.retain(|source| !redacted.sources.contains(source));
        sources.extend(redacted.sources);
    }
    for source in sources.iter() {
        let mut read = |source: &SecretSource| {
            used.extend(place(source).ok().flatten());
            reread(source)
        };
        let read = match source {
            // Beside the unit its credentials are there for root to read.
            SecretSource::Credential(name) => read(source)
                .or_else(|_| read(&SecretSource::File(Path::new(CREDENTIALS).join(name)))),
            SecretSource::Env(_) => read(source),
            SecretSource::File(file) => read(&SecretSource::File(base.join(file))),
        };
        match (read, source) {
            (Ok(secret), _) => known.secrets.extend(redact::parts(secret.expose())),
            (Err(_), SecretSource::Credential(name)) => {
                known.unread.push(format!("credential {name}"));
            }
            (Err(_), SecretSource::Env(name)) => known.unread.push(format!("variable {name}")),
            (Err(_), SecretSource::File(file)) => {
                known.unread.push(format!("file {}", file.display()));
            }
        }
    }
    for name in PROXIES {
        if let Ok(url) = variable(name) {
            known.secrets.extend(redact::parts(&url));
        }
    }
    known
}

/// The file at `path` as others may see it; `None` if it is no TOML. Says in a few words why it cannot be read.
pub fn discreet(path: &Path) -> Result<Option<Redacted>, String> {
    read(path, MAX_CONFIG_BYTES).map(|text| redact::redact(&text))
}

/// Reads a secret again, which its owner may have renewed since the configuration was read; says in a few words why
/// it cannot. Reads a file, so it may block for a moment.
pub fn reread(source: &SecretSource) -> Result<Secret, String> {
    let text = fetch(source)?;
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        trimmed => Ok(Secret::new(trimmed)),
    }
}

fn listed(path: &Path, faults: &[Fault]) -> String {
    let lines: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}:{fault}", path.display()))
        .collect();
    lines.join("\n")
}

fn fetch(source: &SecretSource) -> Result<String, String> {
    match (source, place(source)?) {
        (SecretSource::Credential(name), Some(path)) => secret_file(&path).map_err(|why| {
            format!(
                "{why}; put the secret into /etc/credstore/{name} (mode 0600, owned by root), where LoadCredential= \
                 in the unit looks for it, and restart the unit"
            )
        }),
        (_, Some(path)) => secret_file(&path),
        (SecretSource::Env(name), None) => variable(name),
        (SecretSource::Credential(_) | SecretSource::File(_), None) => {
            Err("it is in no file".to_owned())
        }
    }
}

/// The file in which a secret is kept, if it is in one.
fn place(source: &SecretSource) -> Result<Option<PathBuf>, String> {
    match source {
        SecretSource::Credential(name) => {
            let folder = variable("CREDENTIALS_DIRECTORY").map_err(|_| {
                "systemd gave this process no credentials; add LoadCredential= to the unit, or by hand set \
                 CREDENTIALS_DIRECTORY=/etc/credstore"
                    .to_owned()
            })?;
            if name.contains('/') {
                return Err("a credential's name has no slash".to_owned());
            }
            Ok(Some(Path::new(&folder).join(name)))
        }
        SecretSource::Env(_) => Ok(None),
        SecretSource::File(path) => Ok(Some(path.clone())),
    }
}

/// What systemd gives a unit with `StateDirectory=`: the first, if there are several.
pub fn state_directory() -> Option<PathBuf> {
    let folders = variable("STATE_DIRECTORY").ok()?;
    let first = folders.split(':').next()?;
    (!first.is_empty()).then(|| PathBuf::from(first))
}

fn secret_file(path: &Path) -> Result<String, String> {
    let told = |why: String| format!("{} cannot be read: {why}", path.display());
    // Opening a pipe waits for whoever writes to it, perhaps for ever; and what it gave once it would not give again.
    let found = std::fs::metadata(path).map_err(|error| told(error.to_string()))?;
    if !found.is_file() {
        return Err(told(
            "it is no ordinary file, and a secret may have to be read again".to_owned(),
        ));
    }
    read(path, MAX_SECRET_BYTES).map_err(told)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the file refers to the variable by name"
)]
fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("the environment has no variable {name}"))
}

fn read(path: &Path, limit: u64) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let n_bytes = file
        .take(limit + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if n_bytes as u64 > limit {
        return Err(format!("it is larger than {limit} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHER: &str =
        "[feed.a]\nvideo = { source = \"testcard\" }\n[publisher.p]\nfeed = \"a\"\nto = \"ome\"\n";

    #[test]
    fn a_secret_in_a_file_beside_the_configuration_is_read_and_trimmed() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("onair.toml");
        std::fs::write(folder.path().join("url"), "wss://host/app/key\n").unwrap();
        std::fs::write(&config, format!("{PUBLISHER}url = {{ file = \"url\" }}\n")).unwrap();
        let loaded = load(&config, Scope::Everything).unwrap();
        let super::super::Server::Ome { url } = &loaded.publishers["p"].server else {
            panic!("{loaded:?}");
        };
        assert_eq!(url.expose(), "wss://host/app/key");
    }

    #[test]
    fn secrets_are_read_again_when_they_are_renewed_also_while_the_configuration_is_bad() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("onair.toml");
        let url = folder.path().join("url");
        let renew = |key: &str| std::fs::write(&url, format!("wss://host/app/{key}")).unwrap();
        renew("first-key");
        std::fs::write(&config, format!("{PUBLISHER}url = {{ file = \"url\" }}\n")).unwrap();
        let mut secrets = Secrets::new(config.clone());
        let mut knows = |key: &str| {
            let known = secrets.renewed()?;
            Some(known.iter().any(|secret| secret.expose() == key))
        };
        assert_eq!(knows("first-key"), Some(true));
        // What is new may have changed while it was read.
        assert_eq!(knows("first-key"), Some(true));
        assert_eq!(knows("first-key"), None, "nothing has changed");
        renew("another-key");
        assert_eq!(knows("another-key"), Some(true));
        assert_eq!(knows("another-key"), None);

        std::fs::write(&config, "[feed").unwrap();
        assert_eq!(knows("another-key"), Some(true));
        renew("a-third-key");
        assert_eq!(knows("a-third-key"), Some(true));
        std::fs::write(&config, PUBLISHER).unwrap();
        assert_eq!(knows("a-third-key"), Some(true));
        renew("a-key-of-no-text-any-more");
        assert_eq!(knows("a-key-of-no-text-any-more"), Some(true));
        std::fs::remove_file(&url).unwrap();
        assert_eq!(knows("a-key-of-no-text-any-more"), Some(false));
        assert_eq!(knows("a-key-of-no-text-any-more"), None);
    }

    #[test]
    fn a_missing_secret_is_a_fault_that_names_where_it_was_sought() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("onair.toml");
        std::fs::write(&config, format!("{PUBLISHER}url = {{ file = \"url\" }}\n")).unwrap();
        let fault = load(&config, Scope::Everything).unwrap_err().to_string();
        assert!(
            fault.contains("onair.toml:6:7: publisher.p.url: "),
            "{fault}"
        );
        assert!(fault.contains("No such file"), "{fault}");
        assert!(load(&config, Scope::Text).is_ok());

        std::fs::write(
            &config,
            format!("{PUBLISHER}url = {{ env = \"ONAIR_NO_SUCH\" }}\n"),
        )
        .unwrap();
        let fault = load(&config, Scope::Everything).unwrap_err().to_string();
        assert!(fault.contains("no variable ONAIR_NO_SUCH"), "{fault}");
    }

    #[test]
    fn a_secret_is_read_again_where_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = SecretSource::File(path.clone());
        assert!(reread(&source).unwrap_err().contains("No such file"));
        for (text, token) in [("old\n", "old"), ("  new", "new")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(reread(&source).unwrap().expose(), token);
        }
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(reread(&source).unwrap_err(), "it is empty");
        let unset = SecretSource::Env("ONAIR_NO_SUCH".to_owned());
        assert!(reread(&unset).is_err());
    }

    #[test]
    fn a_secret_in_a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("token");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/zero"), folder.path()] {
            let refused = reread(&SecretSource::File(path.to_owned())).unwrap_err();
            assert!(refused.contains("no ordinary file"), "{refused}");
        }
    }

    #[test]
    fn a_configuration_tells_which_files_it_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("onair.toml");
        let url = folder.path().join("url");
        std::fs::write(&config, format!("{PUBLISHER}url = {{ file = \"url\" }}\n")).unwrap();
        let expected = BTreeSet::from([config.clone(), url.clone()]);
        // Also while one of them is missing: its coming changes the result.
        for _ in 0..2 {
            let mut used = BTreeSet::new();
            let loaded = load_noting(&config, Scope::Everything, &mut used);
            assert_eq!((loaded.is_ok(), used), (url.exists(), expected.clone()));
            std::fs::write(&url, "wss://host/app/key").unwrap();
        }
    }

    #[test]
    fn an_endless_file_is_refused() {
        let refused = load(Path::new("/dev/zero"), Scope::Everything).unwrap_err();
        assert!(
            refused.to_string().contains("larger than 1048576 bytes"),
            "{refused}"
        );
    }
}
